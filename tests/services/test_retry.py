"""How often a stage is tried, and how long it waits in between."""

from datetime import timedelta

import pytest

from api.experiment import Attempt, Stage
from api.stages import StageReason
from services.retry import FOR_GOOD, FREE, Backoff, judge
from tests.builders import START, make_experiment, make_spec

COMPUTE = make_spec(compute={"default": {"retries": 2}}).compute.default
BACKOFF = Backoff(timedelta(seconds=2), timedelta(seconds=1), timedelta(seconds=10))
FAILED, LOST = StageReason.WORKER_FAILED, StageReason.NODE_LOST


def after(*reasons: StageReason, granted: int = 0) -> Stage:
    """A stage whose attempts before the newest ended so; the newest is still to be judged."""
    ended = [Attempt(number=n, app=f"a{n}", created_at=START, reason=reason, free=reason in FREE) for n, reason in enumerate(reasons, 1)]
    newest = Attempt(number=len(ended) + 1, app="a", created_at=START)
    return make_experiment().stages[0].model_copy(update={"attempts": (*ended, newest), "retries_granted": granted})


def test_the_retries_of_the_spec_are_used_up() -> None:
    assert [judge(after(*[FAILED] * n), COMPUTE, FAILED, BACKOFF).left for n in range(3)] == [2, 1, 0]
    assert judge(after(FAILED, FAILED), COMPUTE, FAILED, BACKOFF).after is None
    assert judge(after(FAILED, FAILED, granted=1), COMPUTE, FAILED, BACKOFF).after is not None


def test_a_loss_to_the_platform_spends_nothing() -> None:
    assert judge(after(*[LOST] * 50), COMPUTE, LOST, BACKOFF).after == BACKOFF.longest
    assert judge(after(FAILED, FAILED), COMPUTE, LOST, BACKOFF).after == timedelta(seconds=1)
    assert judge(after(LOST, LOST, LOST), COMPUTE, FAILED, BACKOFF).left == 2


def test_the_wait_doubles_up_to_a_limit() -> None:
    assert [BACKOFF.after(n, free=False).total_seconds() for n in (1, 2, 3, 4, 10_000)] == [2, 4, 8, 10, 10]
    assert [judge(after(*[LOST] * n), COMPUTE, LOST, BACKOFF).after for n in range(3)] == [timedelta(seconds=s) for s in (1, 2, 4)]
    assert judge(after(LOST, LOST, FAILED), COMPUTE, LOST, BACKOFF).after == timedelta(seconds=1)  # in a row


@pytest.mark.parametrize("reason", sorted(FOR_GOOD))
def test_what_cannot_get_better_is_not_tried_again(reason: StageReason) -> None:
    assert judge(after(), COMPUTE, reason, BACKOFF).after is None


def test_free_and_for_good_are_apart() -> None:
    assert not FREE & FOR_GOOD
