"""Whether an attempt's end is followed by another attempt, and after how long. Pure."""

from dataclasses import dataclass
from datetime import timedelta

from api.experiment import Stage
from api.spec import Compute
from api.stages import StageReason

FREE = frozenset({StageReason.PREEMPTED, StageReason.NODE_LOST, StageReason.APP_LOST, StageReason.INTERRUPTED})
"""The platform's doing: spends none of the retries that the spec allows."""
FOR_GOOD = frozenset({StageReason.LAUNCH_REJECTED, StageReason.WORKER_FAILED_PERMANENTLY, StageReason.DEADLINE_EXCEEDED})
"""The same again would end the same."""


@dataclass(frozen=True)
class Backoff:
    """Waiting between attempts: `first`, doubled with each one, `longest` at most; `free` in place of `first` after a free loss."""

    first: timedelta = timedelta(seconds=2)
    free: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(minutes=5)

    def after(self, count: int, free: bool) -> timedelta:
        """The wait after the `count`-th (from 1) failure, or free loss in a row."""
        first = self.free if free else self.first
        return min(self.longest, first * (1 << min(count - 1, 20)))


@dataclass(frozen=True)
class Verdict:
    """What follows the end of an attempt: another one `after` a while, or none (None)."""

    after: timedelta | None
    spent: int
    """Attempts that count, this one included where it does."""
    left: int
    """Retries that are left, the next one included."""


def judge(stage: Stage, compute: Compute, reason: StageReason, backoff: Backoff) -> Verdict:
    """What follows when the newest attempt of `stage` has ended for `reason`."""
    free = reason in FREE
    earlier = [attempt.free for attempt in stage.attempts[:-1]]
    spent = earlier.count(False) + (not free)
    left = max(0, compute.retries + stage.retries_granted - spent + 1)
    if reason in FOR_GOOD or not (free or left):
        return Verdict(None, spent, left)
    return Verdict(backoff.after(_losses_in_a_row(earlier) if free else spent, free), spent, left)


def _losses_in_a_row(earlier: list[bool]) -> int:
    """Free losses up to now, the newest included, since an attempt last ended by itself."""
    count = 1
    for free in reversed(earlier):
        if not free:
            break
        count += 1
    return count
