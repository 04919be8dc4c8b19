"""One look for many: those who follow the same thing share every look at it, so that what they cost does not grow with their number."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

import anyio
from starlette.concurrency import run_in_threadpool

from api.errors import SolfaError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
log = logging.getLogger(__name__)


class _Topic(Generic[V]):
    """What is known of one thing that somebody follows."""

    def __init__(self) -> None:
        self.readers = 0
        self.number = 0
        """Of states so far; 0: it was not looked at yet."""
        self.state: V | None = None
        self.gone = False
        self.changed = anyio.Event()

    def tell(self, state: V | None, gone: bool) -> None:
        if not gone and self.number and state == self.state:
            return
        self.state, self.gone, self.number = state, gone, self.number + 1
        self.changed.set()
        self.changed = anyio.Event()


class Fanout(Generic[K, V]):
    """States of things by key, for readers in one event loop. A reader that is slow, or goes away, holds up nobody."""

    def __init__(self, look: Callable[[Sequence[K]], Mapping[K, V | None]], seconds: float) -> None:
        """`look` is asked in a thread, every `seconds`, for all that is followed then: what it leaves out is gone, and None is not known at
        the moment. While it raises, everybody waits."""
        self._look, self._seconds = look, seconds
        self._topics: dict[K, _Topic[V]] = {}
        self._newcomer = anyio.Event()
        self._task: asyncio.Task[None] | None = None

    async def follow(self, key: K) -> AsyncGenerator[V]:
        """The state of `key` now, then each newer one that a look sees, or the newest of those that a slow reader has let pass by.

        Ends when `key` is gone.
        """
        topic = self._topics.get(key) or self._begun(key)
        topic.readers += 1
        seen = 0
        try:
            while not topic.gone:
                if topic.number > seen:
                    seen, state = topic.number, topic.state
                    if state is not None:
                        yield state
                else:
                    await topic.changed.wait()
        finally:
            topic.readers -= 1
            if not topic.readers and self._topics.get(key) is topic:
                del self._topics[key]

    def _begun(self, key: K) -> _Topic[V]:
        topic = self._topics[key] = _Topic()
        self._newcomer.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return topic

    async def _run(self) -> None:
        """Until nobody follows anything. What somebody has begun to follow is looked at at once, and all in their time."""
        due = anyio.current_time()
        while self._topics:
            self._newcomer = anyio.Event()
            everything = anyio.current_time() >= due
            if everything:
                due = anyio.current_time() + self._seconds
            await self._see([key for key, topic in self._topics.items() if everything or not topic.number])
            with anyio.move_on_after(max(0.0, due - anyio.current_time())):
                await self._newcomer.wait()

    async def _see(self, keys: list[K]) -> None:
        try:
            found = await run_in_threadpool(self._look, keys)
        except SolfaError as error:
            log.warning("what %d streams tell of is waited for: %s", len(keys), error.message)
            return
        except Exception:  # a fault of ours in one look must not silence every stream for ever
            log.exception("what %d streams tell of could not be looked at", len(keys))
            return
        for key in keys:
            topic = self._topics.get(key)
            state = found.get(key)
            if topic and (state is not None or key not in found):
                topic.tell(state, gone=key not in found)
                if topic.gone:
                    del self._topics[key]  # who asks for it from now on begins anew


class Shared(Generic[K, V]):
    """Answers that stay true, each read once however many ask for it at about the same time. One that fails is read again."""

    def __init__(self, read: Callable[[K], V], kept: int = 256) -> None:
        """`read` is called in a thread; the newest `kept` answers are remembered."""
        self._read, self._kept = read, kept
        self._tasks: OrderedDict[K, asyncio.Task[V]] = OrderedDict()

    async def get(self, key: K) -> V:
        """Raises what `read` raises."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(run_in_threadpool(self._read, key))
            task.add_done_callback(lambda done: self._forget_failed(key, done))
            if len(self._tasks) > self._kept:
                self._tasks.popitem(last=False)
        return await asyncio.shield(task)  # one who asks and goes away takes it from nobody

    def _forget_failed(self, key: K, done: "asyncio.Task[V]") -> None:
        if (done.cancelled() or done.exception()) and self._tasks.get(key) is done:
            del self._tasks[key]
