"""What keeps a living app as it should be: what is stranded is healed, machines are as many as asked for, and nothing waits for that."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.decide import Effect, Terms
from services.observation import Observation
from services.retry import Backoff
from tests.builders import make_spec
from tests.services.test_decide import ENDED, NOW, PENDING, RESULT, RUNNING, A, P, R, move_of, stage_in

ROWS = {
    "running, stranded": (stage_in(P.RUNNING), Observation(replace(RUNNING, stranded=True)), P.RUNNING, R.PLANNED, Effect.HEAL),
    "running, stranded and short of machines": (
        stage_in(P.RUNNING),
        Observation(replace(PENDING, stranded=True)),
        P.QUEUED,
        R.PREEMPTED,
        Effect.HEAL,
    ),
    "running, too many machines": (
        stage_in(P.RUNNING, replicas=1),
        Observation(replace(RUNNING, replicas=3)),
        P.RUNNING,
        R.PLANNED,
        Effect.RESIZE,
    ),
    "queued, too many machines": (
        stage_in(P.QUEUED, replicas=1),
        Observation(replace(PENDING, replicas=3)),
        P.QUEUED,
        R.PLANNED,
        Effect.RESIZE,
    ),
    "launching, too many machines": (
        stage_in(P.LAUNCHING, replicas=1),
        Observation(replace(PENDING, replicas=3)),
        P.QUEUED,
        R.ACCEPTED,
        Effect.NONE,
    ),
    "running, too many machines and committed": (
        stage_in(P.RUNNING, replicas=1),
        Observation(replace(RUNNING, replicas=3), committed=RESULT),
        P.SUCCEEDED,
        R.COMPLETED,
        Effect.NONE,
    ),
    "running, too many machines and failed": (
        stage_in(P.RUNNING, replicas=1),
        Observation(ENDED[A.FAILED]),
        P.BACKOFF,
        R.WORKER_FAILED,
        Effect.NONE,
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_each_row_of_the_table(row: str) -> None:
    stage, seen, phase, reason, effect = ROWS[row]
    move = move_of(stage, seen)
    assert move is not None
    assert (move.phase, move.reason, move.effect) == (phase, reason, effect)


STAY = {
    "running, as many machines as somebody asked for": (
        stage_in(P.RUNNING, replicas=2),
        Observation(replace(RUNNING, workers_up=2, replicas=2)),
    ),
    "running, as many machines as the spec allows": (stage_in(P.RUNNING), Observation(replace(RUNNING, replicas=1))),
    "running, where machines cannot be changed": (stage_in(P.RUNNING, replicas=2), Observation(RUNNING)),
    "running, where the resize was refused": (
        stage_in(P.RUNNING, replicas=2),
        Observation(replace(RUNNING, replicas=3), rejected="No."),
    ),
}


@pytest.mark.parametrize("case", STAY)
def test_what_is_as_it_should_be_stays(case: str) -> None:
    assert move_of(*STAY[case]) is None


def test_a_resize_holds_up_nothing_else() -> None:
    """A cluster that will not have it, for ever, must not keep a silent stage from being ended."""
    silent = Observation(replace(RUNNING, replicas=3), reported_at=NOW)
    move = move_of(stage_in(P.RUNNING, replicas=1), silent, NOW + timedelta(seconds=61))
    assert move is not None
    assert (move.phase, move.reason, move.effect) == (P.BACKOFF, R.STALLED, Effect.CANCEL)


def test_what_a_stage_is_resized_to() -> None:
    terms = Terms(make_spec(compute={"default": {"replicas": {"min": 1, "max": 4}}}).compute.default, Backoff())
    for asked, has, expected in ((2, 4, 2), (4, 1, 4), (None, 1, 4)):
        move = move_of(stage_in(P.RUNNING, replicas=asked), Observation(replace(RUNNING, replicas=has)), terms=terms)
        assert move is not None
        assert (move.effect, move.replicas) == (Effect.RESIZE, expected)
