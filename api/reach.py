"""Which files a spec may read: one decision, made when a spec is submitted and again by the trainer about each file that it has opened."""

import os
import re
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict

from api import keys

KERNEL = ("/proc", "/sys")  # what the kernel makes up: environments and memory of processes, other files under other names
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_OWN_KEYS = (keys.EXPERIMENTS, keys.PROBES)


class Reach(BaseModel):
    """What an operator opens to specs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    roots: tuple[str, ...] | None = None
    """Folders; None: every one that the process itself may read."""
    closed: tuple[str, ...] = ()
    """Files and folders of the service itself: closed wherever they lie."""

    def followed(self) -> "Reach":
        """With the places that links among its own paths lead to, on this machine."""
        roots = None if self.roots is None else _with_real(self.roots)
        return Reach(roots=roots, closed=_with_real(self.closed))


EVERYTHING = Reach()


def refusal(written: str, real: str, reach: Reach) -> str | None:
    """Why a spec may not read what it calls `written` and what lies, with all links followed, at `real`; None where it may. Pure.

    A pattern that has not been looked up yet is its own `real`. Where a link leads is not told.
    """
    return _of_its_form(written) or _of_roots(written, real, reach.roots) or _of_closed(written, real, reach.closed)


def _of_its_form(written: str) -> str | None:
    if _URL.match(written):
        return f"{written} is a URL, and nothing is fetched for a spec; give the path of a file"
    if not written.startswith("/"):
        return f"{written} is relative; give an absolute path (the solfa command does that for you)"
    return "a path must not hold a NUL character" if "\0" in written else None


def _of_roots(written: str, real: str, roots: tuple[str, ...] | None) -> str | None:
    if roots is None:
        return None
    if ".." in PurePosixPath(written).parts:
        return f"{written} goes up by `..`; write the path that it means"
    if not _within(written, roots):
        open_here = ", ".join(roots) or "none yet: an operator names them in SOLFA_DATA_ROOTS"
        return f"{written} is outside of the folders that specs may read here ({open_here})"
    return None if _within(real, roots) else f"{written} is a link that leads out of the folders that specs may read here"


def _of_closed(written: str, real: str, closed: tuple[str, ...]) -> str | None:
    if _within(real, KERNEL) or _within(written, KERNEL):
        return f"{written} is no file of text but the system's own"
    if _within(real, closed) or _within(written, closed):
        return f"{written} belongs to the service, and no spec may read it"
    return None


def refused(path: str | os.PathLike[str], reach: Reach) -> str | None:
    """`refusal` of a path on this machine, wherever links lead now."""
    return refusal(str(path), os.path.realpath(path), reach)


def refused_key(key: str) -> str | None:
    """Why a spec may not read the bucket's object `key`; None where it may. What experiments make is read by their stages alone."""
    parts = key.split("/")
    if "" in parts or "." in parts or ".." in parts or "\0" in key:
        return f"{key} is no key of the bucket; write it without leading, double or dotted parts"
    if key.startswith(_OWN_KEYS):
        return f"{key} belongs to an experiment; put a copy of it under a key of your own"
    return None


def _within(path: str, folders: tuple[str, ...]) -> bool:
    """Whether `path` is one of `folders` or below one; by its parts, so that /data does not open /data-of-others."""
    parts = PurePosixPath(path).parts
    return any(parts[: len(start)] == start for start in (PurePosixPath(folder).parts for folder in folders))


def _with_real(paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*paths, *(os.path.realpath(path) for path in paths)]))
