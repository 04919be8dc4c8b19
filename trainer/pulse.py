"""Whether the other processes live: each counts up in the world's store, from a thread of its own, so that a long step is no silence.

The elastic agents notice a machine that comes, and a process of their own that ends, but not a machine that is gone. In training a
collective breaks then, but those who wait for work of hours are in none.
"""

import threading
import time
from collections.abc import Collection
from types import TracebackType
from typing import Self

from trainer.world import World

BEAT_SECONDS = 1.0
LOST_SECONDS = 15.0
FIRST_SECONDS = 120.0  # until the first beat: a process may still be waiting for its bucket


class Pulse:
    """A context manager within which this rank is heard, and hears the others."""

    def __init__(self, world: World) -> None:
        self._world, self._store = world, world.store
        self._counts = dict.fromkeys(set(range(world.size)) - {world.rank}, 0)
        self._heard = dict.fromkeys(self._counts, time.monotonic())
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def __enter__(self) -> Self:
        if self._counts:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()  # the thread is not waited for: the store may have gone with a machine, and answer no more

    def lost(self) -> Collection[int]:
        """The ranks that have not been heard of for too long."""
        now = time.monotonic()
        return [rank for rank, heard in list(self._heard.items()) if now - heard > (LOST_SECONDS if self._counts[rank] else FIRST_SECONDS)]

    def _beat(self) -> None:
        while not self._done.is_set():
            try:
                self._store.add(f"pulse/{self._world.rank}", 1)
                for rank, before in self._counts.items():
                    self._counts[rank] = self._store.add(f"pulse/{rank}", 0)
                    if self._counts[rank] != before:
                        self._heard[rank] = time.monotonic()
            except RuntimeError:  # the store is gone: who waits sees it too, and says so
                return
            self._done.wait(BEAT_SECONDS)
