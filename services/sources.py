"""What can be known of a spec's sources on this machine at submission: whether they are there, and a fingerprint of what is there."""

import glob
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from api.errors import DataError, SpecError
from api.spec import DoremiSource, ExperimentSpec, FileTokenizer, JsonlSource, ParquetSource, Source, ValidationSource

BUCKET = "bucket:"


def check_sources(spec: ExperimentSpec, readable: bool) -> None:
    """Raises SpecError with every source that cannot work: a relative path always; where sources are `readable` here, one not there."""
    problems = [{"pointer": pointer, "message": message} for pointer, message in _problems(spec, readable)]
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


def _problems(spec: ExperimentSpec, readable: bool) -> Iterator[tuple[str, str]]:
    for name, domain in spec.domains.items():
        yield from _of_source(f"/domains/{name}/source", domain.source, name, readable)
        if isinstance(domain.validation, ValidationSource):
            yield from _of_source(f"/domains/{name}/validation/source", domain.validation.source, name, readable)
    if isinstance(spec.tokenizer, FileTokenizer) and not spec.tokenizer.path.startswith(BUCKET):
        yield from _of_tokenizer(Path(spec.tokenizer.path), readable)


def _of_source(pointer: str, source: Source, domain: str, readable: bool) -> Iterator[tuple[str, str]]:
    if isinstance(source, JsonlSource | ParquetSource):
        for index, pattern in enumerate(source.paths):
            at = f"{pointer}/paths/{index}"
            if not Path(pattern).is_absolute():
                yield at, f"{pattern} is relative; give an absolute path (the solfa command does that for you)"
            elif readable:
                yield from _of_files(at, pattern)
        return
    folder = _folder(source, domain)
    if not folder.is_absolute():
        yield f"{pointer}/path", f"{folder} is relative; give an absolute path (the solfa command does that for you)"
    elif readable and not os.path.isdir(folder):  # noqa: PTH112  # Path's raises for a name that is too long
        yield f"{pointer}/path", f"there is no folder {folder}"
    elif readable and not any(folder.rglob("*.arrow")):
        yield f"{pointer}/path", f"{folder} holds no Arrow files written by save_to_disk"


def _of_files(pointer: str, pattern: str) -> Iterator[tuple[str, str]]:
    files = list(_matching(pattern))
    if not files:
        yield pointer, f"no file matches {pattern}"
    elif unreadable := [path for path in files if not os.access(path, os.R_OK)]:
        yield pointer, f"{unreadable[0]} may not be read"
    elif not any(path.stat().st_size for path in files):
        yield pointer, f"{files[0]} is empty"


def _of_tokenizer(path: Path, readable: bool) -> Iterator[tuple[str, str]]:
    pointer = "/tokenizer/path"
    if not path.is_absolute():
        yield pointer, f"{path} is relative; give an absolute path (the solfa command does that for you)"
    elif readable and os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113  # as above
        yield pointer, f"{path} is no file"
    elif readable:
        try:
            json.loads(path.read_bytes())
        except OSError as error:
            yield pointer, f"{path} cannot be read: {error.strerror}"
        except ValueError:
            yield pointer, f"{path} is not JSON; give a tokenizer.json of the tokenizers library"
