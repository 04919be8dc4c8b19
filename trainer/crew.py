"""Processes that share out work of hours: they wait for one another for as long as it takes, and end together.

A collective would give up after half an hour, and does not hear a request to stop; so they meet through the world's store, looking there
now and then.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import Self

import torch.distributed as dist
from torch.distributed import HashStore  # type: ignore[attr-defined]  # it is documented, but not in its __all__

from api.stage_config import ExitCode
from trainer.failures import LOST, Ended, Failure
from trainer.pulse import Pulse
from trainer.report import Reporter
from trainer.world import Interrupted, World, stop_requested

LOOK_SECONDS = 0.1
FAREWELL_SECONDS = 10.0  # a pod that is asked to stop has thirty
_ENDED, _GONE = "crew/ended", "crew/gone"


def _nothing() -> None:
    """What most do while they wait."""


class Crew:
    """All ranks of the world, as one of them sees them. What is called by a name is called by that name once, by every rank.

    A context manager, within which every rank has to be heard of by those that wait.
    """

    def __init__(self, world: World) -> None:
        self._world, self._pulse = world, Pulse(world)
        self._store = world.store if world.size > 1 else HashStore()  # one alone may run several stages, one after the other

    def __enter__(self) -> Self:
        self._pulse.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pulse.__exit__(kind, error, trace)

    def look(self) -> None:
        """Raises Interrupted when any rank was asked to stop, and Ended, with its words, when one has failed."""
        if stop_requested():
            raise Interrupted
        if self._store.check([_ENDED]):
            failure = Failure(**json.loads(self._store.get(_ENDED)))
            raise Interrupted if failure.exit_code == ExitCode.INTERRUPTED else Ended(failure)

    def hand_out(self, what: str, make: Callable[[], str]) -> str:
        """What rank 0 makes (some kB at most), on every rank."""
        key = f"crew/{what}"
        if self._world.is_first:
            self._store.set(key, make())
        else:
            self._wait(lambda: self._store.check([key]), _nothing)
        return bytes(self._store.get(key)).decode()

    def meet(self, what: str, meanwhile: Callable[[], None] = _nothing) -> None:
        """Wait until every rank has come here; who waits does `meanwhile` now and then, and at the end."""
        self.count(what, 1)
        self._wait(lambda: self.count(what, 0) == self._world.size, meanwhile)
        meanwhile()

    def count(self, what: str, more: int) -> int:
        """Add to a number that all ranks add to; what it is then."""
        return int(self._store.add(f"crew/{what}", more))

    def _wait(self, ready: Callable[[], bool], meanwhile: Callable[[], None]) -> None:
        while not ready():
            self.look()
            if self._pulse.lost():
                raise Ended(LOST)
            meanwhile()
            time.sleep(LOOK_SECONDS)


class Tally:
    """Bytes that all ranks have done between them, said in the report."""

    SECONDS = 0.5  # between two looks at the sum

    def __init__(self, crew: Crew, reporter: Reporter | None, activity: str) -> None:
        self._crew, self._reporter, self._activity = crew, reporter, activity
        self._added, self._said = 0, float("-inf")

    def expect(self, total: int, done: int = 0) -> None:
        """So many bytes more are to be done, of which `done` are done."""
        self._crew.count(f"{self._activity}/total", total)
        self._added += done
        self.say()

    def add(self, more: int) -> None:
        """This rank has done so many more. Raises what `Crew.look` does."""
        self._crew.look()
        self._added += more
        if time.monotonic() - self._said >= self.SECONDS:
            self.say()

    def say(self) -> None:
        """Sum up what was added by all ranks so far."""
        done, self._added = self._crew.count(f"{self._activity}/done", self._added), 0
        total = self._crew.count(f"{self._activity}/total", 0)
        if self._reporter is not None and total:
            self._reporter.progress(self._activity, done, total, "bytes")
        self._said = time.monotonic()


def tell_others(world: World, failure: Failure) -> None:
    """End the others' waiting, once `failure` is written down. Rank 0 keeps the store: it stays until those who are to stop have looked."""
    if world.size == 1:
        return
    with suppress(dist.DistError, RuntimeError):  # rank 0 is gone, and the store with it
        world.store.compare_set(_ENDED, "", json.dumps(asdict(failure)))
        gone, deadline = world.store.add(_GONE, 1), time.monotonic() + FAREWELL_SECONDS
        while world.is_first and failure.exit_code == ExitCode.INTERRUPTED and gone < world.size and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            gone = world.store.add(_GONE, 0)
