"""What can be known of a spec's sources on this machine at submission: whether they are there, and a fingerprint of what is there."""

import glob
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from api.errors import DataError, SpecError
from api.reach import Reach, refusal, refused, refused_key
from api.spec import DoremiSource, ExperimentSpec, FileTokenizer, JsonlSource, ParquetSource, Source, ValidationSource

BUCKET = "bucket:"
DEEP_WILDCARDS = 2  # of one pattern: each more multiplies the work by the depth of the folders
MAX_TOKENIZER_BYTES = 200_000_000  # it is read whole


def check_sources(spec: ExperimentSpec, readable: bool, reach: Reach) -> None:
    """Raises SpecError with every source that cannot work: what is outside of `reach` by its name always; where sources are `readable`
    here, one that is not there, or that a link leads out of it."""
    problems = [{"pointer": pointer, "message": message} for pointer, message in _problems(spec, readable, reach.followed())]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise SpecError(f"The spec's sources cannot be used: {problems[0]['message']}{more}.", problems=problems)


def fingerprints(spec: ExperimentSpec) -> dict[str, str]:
    """For each domain a digest of its files' paths, sizes and times of change: sources can change under one path.

    Raises DataError for a file that went away just now.
    """
    try:
        return {name: _fingerprint(spec, name) for name in spec.domains}
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read any more ({error.strerror}); put it back, or take it out of the spec.") from error


def _fingerprint(spec: ExperimentSpec, name: str) -> str:
    domain = spec.domains[name]
    sources = [domain.source, *([domain.validation.source] if isinstance(domain.validation, ValidationSource) else [])]
    found: list[Any] = []
    for source in sources:
        for path in sorted(_files(source, name)):
            seen = path.stat()
            found.append([str(path), seen.st_size, seen.st_mtime_ns])
    if isinstance(spec.tokenizer, FileTokenizer) and not spec.tokenizer.path.startswith(BUCKET):
        found.append(hashlib.sha256(Path(spec.tokenizer.path).read_bytes()).hexdigest())
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def _files(source: Source, domain: str) -> Iterator[Path]:
    if isinstance(source, JsonlSource | ParquetSource):
        for pattern in source.paths:
            yield from _matching(pattern)
    else:
        yield from (path for path in _folder(source, domain).rglob("*") if path.is_file())


def _matching(pattern: str) -> Iterator[Path]:
    """Files, and links to files: what else a pattern matches is no source."""
    yield from (Path(name) for name in glob.glob(pattern, recursive=True) if os.path.isfile(name))  # noqa: PTH113  # Path's raises


def _folder(source: Source, domain: str) -> Path:
    folder = Path(getattr(source, "path", ""))
    return folder / "train" / (source.domain or domain) if isinstance(source, DoremiSource) else folder


def _problems(spec: ExperimentSpec, readable: bool, reach: Reach) -> Iterator[tuple[str, str]]:
    for name, domain in spec.domains.items():
        yield from _of_source(f"/domains/{name}/source", domain.source, name, readable, reach)
        if isinstance(domain.validation, ValidationSource):
            yield from _of_source(f"/domains/{name}/validation/source", domain.validation.source, name, readable, reach)
    if isinstance(spec.tokenizer, FileTokenizer):
        yield from (("/tokenizer/path", message) for message in _of_tokenizer(spec.tokenizer.path, readable, reach))


def _of_source(pointer: str, source: Source, domain: str, readable: bool, reach: Reach) -> Iterator[tuple[str, str]]:
    if isinstance(source, JsonlSource | ParquetSource):
        for index, pattern in enumerate(source.paths):
            if message := _of_pattern(pattern, readable, reach):
                yield f"{pointer}/paths/{index}", message
    elif message := _of_folder(source, domain, readable, reach):
        yield f"{pointer}/path", message


def _of_pattern(pattern: str, readable: bool, reach: Reach) -> str | None:
    if message := refusal(pattern, pattern, reach):  # before anything is looked up: what is not to be read is not to be asked about
        return message
    if pattern.count("**") > DEEP_WILDCARDS:
        return f"{pattern} has more than {DEEP_WILDCARDS} `**`, which takes without end to look up; name the folders"
    return _of_files(pattern, reach) if readable else None


def _of_files(pattern: str, reach: Reach) -> str | None:
    files = list(_matching(pattern))
    if not files:
        return f"no file matches {pattern}"
    if message := next(filter(None, (refused(path, reach) for path in files)), None):
        return message
    if unreadable := [path for path in files if not os.access(path, os.R_OK)]:
        return f"{unreadable[0]} may not be read"
    return None if any(path.stat().st_size for path in files) else f"{files[0]} is empty"


def _of_folder(source: Source, domain: str, readable: bool, reach: Reach) -> str | None:
    folder = _folder(source, domain)
    message = refusal(getattr(source, "path", ""), str(folder), reach) or refusal(str(folder), str(folder), reach)
    if message or not readable:
        return message
    if not os.path.isdir(folder):  # noqa: PTH112  # Path's raises for a name that is too long
        return f"there is no folder {folder}"
    return refused(folder, reach) or (None if any(folder.rglob("*.arrow")) else f"{folder} holds no Arrow files written by save_to_disk")


def _of_tokenizer(path: str, readable: bool, reach: Reach) -> Iterator[str]:
    if path.startswith(BUCKET):
        message = refused_key(path.removeprefix(BUCKET))
    else:
        message = refusal(path, path, reach) or (_of_tokenizer_file(Path(path), reach) if readable else None)
    if message:
        yield message


def _of_tokenizer_file(path: Path, reach: Reach) -> str | None:
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113  # as above
        return f"{path} is no file"
    if message := refused(path, reach):
        return message
    try:
        if path.stat().st_size > MAX_TOKENIZER_BYTES:
            return f"{path} is over {MAX_TOKENIZER_BYTES:,} bytes, which no tokenizer is"
        json.loads(path.read_bytes())
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        return f"{path} is not JSON; give a tokenizer.json of the tokenizers library"
    return None
