"""Those who wait for one another: as long as it takes while all live, and no longer than it takes to see that one does not."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore

from tests.services.waiting import wait_for
from trainer import pulse
from trainer.crew import Crew, tell_others
from trainer.failures import Ended, Failure, explain
from trainer.world import World


@pytest.fixture
def worlds() -> list[World]:
    store = HashStore()
    return [World(rank=rank, size=3, store=store) for rank in range(3)]


def test_one_that_is_heard_of_no_more_ends_the_waiting_of_the_others(worlds: list[World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(pulse, "LOST_SECONDS", 0.5)
    with Crew(worlds[0]) as first, Crew(worlds[1]) as second, ThreadPoolExecutor(2) as pool:
        with Crew(worlds[2]):
            waiting = [pool.submit(crew.meet, "here") for crew in (first, second)]
            beats = worlds[2].store.add("pulse/2", 0)
            wait_for(lambda: worlds[2].store.add("pulse/2", 0) > beats + 100)  # longer than it takes to be lost
            assert not any(one.done() for one in waiting)
        for one in waiting:  # the third has left without a word
            with pytest.raises(Ended) as caught:
                one.result(60)
            assert explain(caught.value).code == "process_lost"


def test_what_one_fails_with_is_what_ends_the_others(worlds: list[World]) -> None:
    failure = Failure("bad_data", "Domain books is empty.", False, 64)
    with Crew(worlds[0]) as first, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(first.meet, "here")
        tell_others(worlds[1], failure)
        with pytest.raises(Ended) as caught:
            waiting.result(60)
    assert explain(caught.value) == failure


def test_what_the_first_makes_is_on_every_rank_and_nobody_goes_on_before_all_are_there(worlds: list[World]) -> None:
    gate, passed = threading.Event(), []

    def rank(world: World) -> str:
        with Crew(world) as crew:
            made = crew.hand_out("plan", lambda: (gate.wait(60) and "made by the first") or "")
            crew.meet("here")
            passed.append(crew.count("passed", 1))
            return made

    with ThreadPoolExecutor(3) as pool:
        two = [pool.submit(rank, world) for world in worlds[1:]]
        one = pool.submit(rank, worlds[0])
        assert passed == []
        gate.set()
        assert {ended.result(60) for ended in [one, *two]} == {"made by the first"}
    assert sorted(passed) == [1, 2, 3]
