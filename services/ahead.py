"""The looks of a pass, many at a time: where the bucket is elsewhere, a look is little but waiting for its answers."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from api.experiment import Experiment, Stage
from api.stages import StagePhase
from services.launch.cluster import AppStatus
from services.observation import Observation
from services.observer import Observer


class Wanted(NamedTuple):
    """A look that the pass will ask for; not `closely`: a glance."""

    experiment: Experiment
    stage: Stage
    closely: bool


class Ahead:
    """An Observer whose next looks are begun before they are asked for, `at_once` at a time and in order; 1: each when it is asked for.

    What is seen is no older than the pass, and a pass is one thread's: nobody else moves a stage meanwhile, and a person's change makes
    the record's version another, so that what is decided on the old one is not written.
    """

    def __init__(self, observer: Observer, at_once: int) -> None:
        self._observer = observer
        self._pool = ThreadPoolExecutor(at_once, "look") if at_once > 1 else None
        self._begun: dict[str, Future[Observation]] = {}  # by app

    def begin(self, wanted: Iterable[Wanted], apps: Mapping[str, AppStatus]) -> None:
        """A pass begins, which will look at what is `wanted`. What is left of the last one's looks is dropped."""
        for left in self._begun.values():
            left.cancel()
        self._begun = {}
        self._observer.begin(apps)
        for one in wanted if self._pool else ():
            # One that waits for others asks the store alone, and those before it may be moved first.
            if self._pool and one.stage.attempt and one.stage.phase is not StagePhase.BLOCKED and self._takes_a_look(one):
                self._begun[one.stage.attempt.app] = self._pool.submit(self._observer.look, one.experiment, one.stage)

    def _takes_a_look(self, wanted: Wanted) -> bool:
        return wanted.closely or self._observer.glance(wanted.stage) is None

    def glance(self, stage: Stage) -> Observation | None:
        """As Observer's."""
        return self._observer.glance(stage)

    def look(self, experiment: Experiment, stage: Stage) -> Observation:
        """As Observer's."""
        begun = self._begun.pop(stage.attempt.app, None) if stage.attempt else None
        return begun.result() if begun else self._observer.look(experiment, stage)

    def close(self) -> None:
        """No look is begun any more."""
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
