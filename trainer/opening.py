"""Opening a file that a spec names. Whether it may be read is decided about what is open, so a link that changes gains nothing."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from api.errors import DataError
from api.reach import Reach, refusal, refused


@contextmanager
def opened(path: Path, reach: Reach, whose: str) -> Iterator[IO[bytes]]:
    """The file at `path`, for reading. `whose`, such as "Domain books", begins what is said.

    Raises DataError for what a spec may not read, devices and pipes among it; OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer must not hold us up
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DataError(f"{whose}: {path} is no file of text; take it out of the spec.")
        if reason := refusal(str(path), _where(descriptor, path), reach):
            raise DataError(f"{whose}: {reason}.")
        yield file


def check_reach(path: Path, reach: Reach, whose: str) -> None:
    """Raises DataError for a path that a spec may not read; for folders, which a library opens by their names."""
    if reason := refused(path, reach):
        raise DataError(f"{whose}: {reason}.")


def _where(descriptor: int, path: Path) -> str:
    """Where an open file lies, links followed."""
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:  # no Linux
        return os.path.realpath(path)
