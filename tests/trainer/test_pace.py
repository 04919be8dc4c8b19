"""The speed that a report tells is the loop's of about the last minute, by a clock that the test moves."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trainer.meter import Meter
from trainer.pace import WINDOW_SECONDS, Pace
from trainer.state import Progress

HOUR = 3600
BATCH = 1000


class Loop:
    """A meter over a loop whose steps take as long as the test says."""

    def __init__(self, progress: Progress | None = None, peak: float | None = None, processes: int = 1) -> None:
        self.now, self.progress, self.said = 0.0, progress or Progress(), dict[str, Any]()
        training = SimpleNamespace(steps=1_000_000)
        compute = SimpleNamespace(peak_flops=peak)
        spec = SimpleNamespace(
            training_for=lambda _kind: training, compute_for=lambda _kind: compute, sequence_length=8, domain_names=["only"]
        )
        context: Any = SimpleNamespace(
            config=SimpleNamespace(spec=spec, plan=SimpleNamespace(kind="main")),
            world=SimpleNamespace(is_first=False, size=processes),
            reporter=SimpleNamespace(progress=self.hear),
        )
        model: Any = SimpleNamespace(model=SimpleNamespace(flops_per_token=lambda _length: 1.0))
        self.meter = Meter(context, model, self.progress, clock=lambda: self.now)

    def hear(self, activity: str, step: int, total: int, **fields: Any) -> None:
        self.said = {"activity": activity, **fields}

    def step(self, waits: float, works: float) -> None:
        with self.meter.waiting():
            self.now += waits
        self.now += works
        self.progress.step += 1
        self.progress.tokens += BATCH
        self.progress.epochs = [0.5]
        seen: Any = SimpleNamespace(loss=1.0, domain_losses=np.array([1.0]), scores=None)
        self.meter.did_step(seen, 1.0, 0.1)

    def train(self, seconds: float, waits: float, works: float) -> None:
        until = self.now + seconds
        while self.now < until - 1e-6:
            self.step(waits, works)


def test_a_loop_that_became_half_as_fast_says_so_within_the_window() -> None:
    loop = Loop()
    loop.train(10 * HOUR, waits=0.25, works=0.75)
    assert loop.said["tokens_per_second"] == pytest.approx(1000)
    assert loop.said["data_wait_share"] == pytest.approx(0.25)
    loop.train(WINDOW_SECONDS / 2, waits=1.25, works=0.75)
    assert 500 < loop.said["tokens_per_second"] < 1000
    loop.train(WINDOW_SECONDS / 2, waits=1.25, works=0.75)
    assert loop.said["tokens_per_second"] == pytest.approx(500)
    assert loop.said["data_wait_share"] == pytest.approx(0.625)


def test_evaluating_and_saving_are_neither_slow_steps_nor_waiting_for_data() -> None:
    loop = Loop()
    loop.train(100, waits=0.25, works=0.75)
    for activity in ("evaluating", "saving"):
        with loop.meter.aside(activity):
            assert loop.said["activity"] == activity
            loop.now += 45
    loop.step(0.25, 0.75)
    assert loop.said["tokens_per_second"] == pytest.approx(1000)
    assert loop.said["data_wait_share"] == pytest.approx(0.25)
    assert loop.meter.seconds() == loop.now  # a stage's time is all of it
    assert loop.said["seconds_left"] == pytest.approx(191 / 101 * (1_000_000 - 101))  # what is left has evaluations too


def test_the_first_steps_and_a_resume_are_measured_from_where_they_began() -> None:
    fresh, resumed = Loop(), Loop(Progress(step=500, tokens=500 * BATCH, seconds=9 * HOUR))
    for loop in (fresh, resumed):
        loop.step(0, 30)  # the first one compiles
        assert loop.said["tokens_per_second"] == pytest.approx(BATCH / 30)
        loop.train(WINDOW_SECONDS, waits=0, works=0.5)
        assert loop.said["tokens_per_second"] == pytest.approx(2000)
    assert resumed.said["resumed_from"] == 500


def test_a_step_longer_than_the_window_is_measured_whole() -> None:
    pace = Pace(0, 0)
    for number in (1, 2, 3):
        pace.add(number * 3 * WINDOW_SECONDS, number * BATCH, number * WINDOW_SECONDS)
        assert pace.tokens_per_second == pytest.approx(BATCH / (3 * WINDOW_SECONDS))
        assert pace.wait_share == pytest.approx(1 / 3)


def test_no_time_at_all_is_no_division_by_zero_and_looks_do_not_pile_up() -> None:
    pace = Pace(5, 7)
    assert (pace.tokens_per_second, pace.wait_share) == (0, 0)
    for number in range(1, 10_000):
        pace.add(5 + number * 0.5, 7 + number, 0)
    assert len(pace._looks) <= WINDOW_SECONDS / 0.5 + 2


def test_mfu_is_a_share_of_what_all_processes_together_could_do_where_somebody_knows_it() -> None:
    two, unknown = Loop(peak=10.0, processes=2), Loop()
    for loop in (two, unknown):
        loop.train(5.0, waits=0.5, works=0.5)
    assert two.said["mfu"] == pytest.approx(BATCH / 1.0 * 1.0 / (10.0 * 2))  # a batch a second, at 1 FLOP a token
    assert unknown.said["mfu"] is None
