"""What the reconciler tells of its work while it works, for whoever measures it; it does not know who that is."""

from collections.abc import Sequence
from dataclasses import dataclass

from api.experiment import Experiment, Stage
from api.stage_config import StageReport


@dataclass(frozen=True)
class Pass:
    """One pass over all live experiments, or one that found that another reconciler leads."""

    seconds: float
    moves: int
    failed: bool
    leads: bool


class Watcher:
    """Told of everything in the reconciler's thread, so it must be quick and may not raise. This one does not listen."""

    def passed(self, done: Pass) -> None:
        """A pass is over."""

    def sees(self, live: Sequence[Experiment]) -> None:
        """All live experiments, oldest first, at the beginning of a pass."""

    def reported(self, experiment: Experiment, stage: Stage, report: StageReport) -> None:
        """What the running attempt of `stage` last said."""

    def moved(self, before: Stage, after: Stage, experiment: Experiment) -> None:
        """A stage's record was changed; `experiment` holds it as it is now."""

    def left(self, code: str) -> None:
        """An experiment was left for the next pass over an error of that code."""
