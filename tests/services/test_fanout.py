"""One look for many: every reader hears of every change, and none is in another's way."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence

import pytest

from api.errors import StoreUnavailable
from services.fanout import Fanout, Shared

READERS = 200


class World:
    """Things that change, and how often somebody looked."""

    def __init__(self, **states: int) -> None:
        self.states, self.looks, self.fault = states, 0, None

    states: dict[str, int]
    fault: Exception | None

    def look(self, keys: Sequence[str]) -> Mapping[str, int]:
        self.looks += 1
        if self.fault:
            raise self.fault
        return {key: self.states[key] for key in keys if key in self.states}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def hear(fanout: Fanout[str, int], key: str, heard: list[int]) -> None:
    async for state in fanout.follow(key):
        heard.append(state)


def run(test: Awaitable[None]) -> None:
    async def whole() -> None:
        await test

    asyncio.run(whole())


def test_every_reader_hears_every_change_and_looking_costs_the_same_for_all() -> None:
    async def test() -> None:
        world = World(**{f"k{number}": 0 for number in range(5)})
        fanout = Fanout(world.look, 0.002)
        heard: list[list[int]] = [[] for _ in range(READERS)]
        tasks = [asyncio.create_task(hear(fanout, f"k{number % 5}", heard[number])) for number in range(READERS)]
        for change in range(1, 20):
            await until(lambda change=change: all(some[-1:] == [change - 1] for some in heard))
            world.states = dict.fromkeys(world.states, change)
        await until(lambda: all(some[-1] == 19 for some in heard))
        assert all(some == list(range(20)) for some in heard)
        looks = world.looks
        world.states = {}
        await asyncio.gather(*tasks)  # what is gone ends its streams
        assert world.looks < looks + 10

    run(test())


def test_one_who_is_slow_misses_what_is_past_and_one_who_leaves_is_forgotten() -> None:
    async def test() -> None:
        world = World(a=0, b=0)
        fanout = Fanout(world.look, 0.001)
        slow, heard, left = fanout.follow("a"), [], []
        assert await anext(slow) == 0
        quick, leaving = (asyncio.create_task(hear(fanout, "a", some)) for some in (heard, left))
        for change in range(1, 6):
            await until(lambda change=change: heard[-1:] == [change - 1])
            if change == 3:
                leaving.cancel()
            world.states["a"] = change
        await until(lambda: heard[-1:] == [5])
        assert left[-1] in (1, 2)
        assert await anext(slow) == 5
        await slow.aclose()
        quick.cancel()
        await asyncio.gather(quick, leaving, return_exceptions=True)
        looks = world.looks
        await asyncio.sleep(0.02)
        assert world.looks <= looks + 1  # nobody follows: nobody looks
        assert await anext(fanout.follow("b")) == 0  # and begins again for the next

    run(test())


@pytest.mark.parametrize("fault", [StoreUnavailable("It is away."), ValueError("a fault of ours")], ids=["away", "fault"])
def test_a_look_that_fails_is_waited_for(fault: Exception) -> None:
    async def test() -> None:
        world = World(a=0)
        fanout = Fanout(world.look, 0.001)
        heard: list[int] = []
        task = asyncio.create_task(hear(fanout, "a", heard))
        await until(lambda: heard == [0])
        world.fault, world.states["a"] = fault, 1
        looks = world.looks
        await until(lambda: world.looks > looks + 3)
        assert heard == [0]
        world.fault = None
        await until(lambda: heard == [0, 1])
        task.cancel()

    run(test())


def test_what_is_not_known_at_the_moment_is_not_gone() -> None:
    async def test() -> None:
        answers: dict[str, int | None] = {"a": None}
        fanout: Fanout[str, int] = Fanout(lambda _: answers, 0.001)
        heard: list[int] = []
        task = asyncio.create_task(hear(fanout, "a", heard))
        await asyncio.sleep(0.01)
        answers["a"] = 1
        await until(lambda: heard == [1])
        answers["a"] = None
        await asyncio.sleep(0.01)
        assert not task.done()
        answers.clear()
        await task

    run(test())


def test_an_answer_is_read_once_for_all_who_ask_and_again_after_a_failure() -> None:
    reads: list[int] = []
    gate, fails = threading.Event(), True

    def read(key: int) -> int:
        reads.append(key)
        assert gate.wait(20)
        if fails:
            raise StoreUnavailable("It is away.")
        return key * 10

    async def test() -> None:
        nonlocal fails
        shared = Shared(read, kept=2)
        asked = [asyncio.create_task(shared.get(1)) for _ in range(50)]
        await until(lambda: bool(reads))
        asked[0].cancel()  # one who leaves takes it from nobody
        gate.set()
        told = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in told] == [asyncio.CancelledError, *[StoreUnavailable] * 49]
        fails = False
        assert await asyncio.gather(*(shared.get(1) for _ in range(50))) == [10] * 50
        assert reads == [1, 1]
        assert [await shared.get(key) for key in (2, 3, 1)] == [20, 30, 10]  # two are remembered
        assert reads == [1, 1, 2, 3, 1]

    run(test())
