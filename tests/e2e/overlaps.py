"""A watcher of the machine's processes: does anything ever run twice at the same time?"""

import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.solfa import Solfa, command_lines

CONFIG = re.compile(rb"experiments/(x[a-z2-7]{10}/stages/[a-z-]+)/attempts/([0-9]+)/config\.json")
AGENT = b"torch.distributed.run"
LOOK_SECONDS = 0.05


class Program(NamedTuple):
    """A process of an attempt."""

    pid: int
    stage: str
    attempt: str
    is_worker: bool
    """Or else torchrun's agent."""


@contextmanager
def watched(solfa: Solfa) -> Iterator[set[str]]:
    """While the context lasts, a sentence for every stage that two attempts, or two workers of one attempt, were seen to work at."""
    found: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            # What both looks show lived at the same time: all of it was still there when the last of it was first seen.
            found.update(_overlapping(_running(solfa) & _running(solfa)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def _running(solfa: Solfa) -> set[Program]:
    home = f"file://{solfa.home}/".encode()
    found = set()
    for pid, line in command_lines():
        if home in line and (match := CONFIG.search(line)):
            found.add(Program(pid, match[1].decode(), match[2].decode(), AGENT not in line))
    return found


def _overlapping(running: set[Program]) -> Iterator[str]:
    by_stage = defaultdict(set)
    for program in running:
        by_stage[program.stage].add(program)
    for stage, programs in by_stage.items():
        workers = {program.pid for program in programs if program.is_worker}
        roots = {pid for pid in workers if _parent(pid) not in workers}  # what a worker forks bears its name for a moment
        if len({program.attempt for program in programs}) > 1 or len(roots) > 1:
            yield f"{stage} was worked at by {sorted(programs)} at the same time"


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None
