"""A spec file as it is posted: relative paths made absolute against the folder it lies in."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from api.errors import BadRequest
from api.spec import parse_spec

BUCKET = "bucket:"


def read_spec(path: Path, name: str | None = None) -> str:
    """The text to post. Raises SpecError for a bad spec (with lines of this file), BadRequest for a file that cannot be read."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    spec = parse_spec(text)
    base = Path.cwd() if str(path) == "-" else path.resolve().parent
    raw: dict[str, Any] = spec.model_dump(mode="json", exclude_unset=True)
    moved = _with_paths(raw, lambda given: given if given.startswith(BUCKET) else os.path.normpath(base / Path(given).expanduser()))
    if name is None and moved == raw:
        return text
    return yaml.safe_dump(moved | ({"name": name} if name else {}), sort_keys=False)


def _with_paths(raw: dict[str, Any], move: Callable[[str], str]) -> dict[str, Any]:
    domains = {}
    for name, domain in raw["domains"].items():
        moved = domain | {"source": _source(domain["source"], move)}
        validation = domain.get("validation", {})
        if "source" in validation:
            moved["validation"] = validation | {"source": _source(validation["source"], move)}
        domains[name] = moved
    changed = raw | {"domains": domains}
    tokenizer = raw.get("tokenizer", {})
    if "path" in tokenizer:
        changed["tokenizer"] = tokenizer | {"path": move(tokenizer["path"])}
    return changed


def _source(source: dict[str, Any], move: Callable[[str], str]) -> dict[str, Any]:
    if "paths" in source:
        return source | {"paths": [move(path) for path in source["paths"]]}
    return source | {"path": move(source["path"])}
