"""The loop that moves experiments on: load, observe, decide, write, act. One effect and one guarded write a stage and pass.

Intent is written before its effect, and every effect is idempotent by the app's name; so a crash between any two lines of this module
loses nothing and runs nothing twice. The lease's token guards every write: of two reconcilers, only the holder's count.
"""

import logging
import socket
import threading
import uuid
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from api import keys
from api.bucket import Bucket
from api.errors import BucketError, LaunchRejected, NotFound, SolfaError, StaleFence, StaleVersion
from api.experiment import Experiment, Stage
from services.ahead import Ahead, Wanted
from services.decide import Effect, Move, Terms, decide, only_waits
from services.inputs import rules_of, stage_config
from services.launch.cluster import Cluster, LaunchRequest
from services.logs import LogKeeper
from services.observation import Observation
from services.observer import Observer
from services.retry import Backoff
from services.store import ExperimentStore, Lease
from services.tidy import Tidier
from services.transition import apply, events, is_change
from services.watch import Pass, Watcher

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """How often the loop looks; in seconds."""

    interval: float = 0.5
    """Between passes, when nothing moved."""
    longest: float = 30.0
    """Between passes, at most, while the store, the bucket or the cluster does not answer."""
    lease: float = 5.0
    """A lease not renewed for so long may be taken by another reconciler."""
    at_once: int = 1
    """Looks that are on their way together."""
    looks: int = 400
    """Experiments of which a pass asks the bucket while their apps run; with more of them, they have their turns in the passes after."""
    backoff: Backoff = Backoff()  # noqa: RUF009  # frozen


def utc_now() -> datetime:
    return datetime.now(UTC)


def in_turn(first: int, looks: int, count: int) -> tuple[frozenset[int], int]:
    """Positions, of `count`, whose turn it is, from `first` on and around; and whose turn is next."""
    turn = frozenset((first + step) % count for step in range(min(looks, count)))
    return turn, (first + looks) % count if count else 0


class Reconciler:
    """Moves every live experiment towards its end. `watcher` is told of it."""

    def __init__(
        self,
        store: ExperimentStore,
        cluster: Cluster,
        bucket: Bucket,
        clock: Callable[[], datetime] = utc_now,
        pace: Pace = Pace(),
        watcher: Watcher | None = None,
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._bucket = bucket
        self._clock = clock
        self._pace = pace
        self._watcher = watcher or Watcher()
        self._observer = Ahead(Observer(store, bucket), pace.at_once)
        self._keeper = LogKeeper(cluster, bucket)
        self._tidier = Tidier(store, cluster, bucket, self._keeper)
        self._holder = f"{socket.gethostname()[:60]}/{uuid.uuid4().hex}"  # a person finds the pod or machine that leads by it
        self._lease: Lease | None = None
        self._live: list[Experiment] = []  # as the last pass read them: what has not changed since is not read again
        self._settled: dict[str, tuple[int, list[int]]] = {}
        self._turn = 0  # position among the live ones of the next whose turn it is
        self._wake = threading.Event()

    def wake(self) -> None:
        """Look now: something was posted."""
        self._wake.set()

    def run(self, stop: threading.Event) -> None:
        """Pass after pass until `stop` is set; what does not answer is waited for, longer each time."""
        wait = self._pace.interval
        while not stop.is_set():
            self._wake.clear()
            began = self._clock()
            moves, failed = 0, False
            try:
                moves = self.run_once()
            except SolfaError as error:
                failed = True
                logger.warning("this pass was given up: %s", error.message)
            except Exception:
                failed = True
                logger.exception("this pass was given up")
            seconds = (self._clock() - began).total_seconds()
            self._watcher.passed(Pass(seconds, moves, failed, leads=self._lease is not None))
            wait = min(self._pace.longest, wait * 2) if failed else self._pace.interval
            if failed:
                stop.wait(wait)
            elif not moves:
                self._wake.wait(wait)
        self._observer.close()
        self._release()

    def run_once(self) -> int:
        """One pass over all live experiments. Returns the number of moves made; 0 while another reconciler holds the lease.

        Raises SolfaError when the store or the cluster does not answer, or the lease was lost on the way; nothing is half done then.
        """
        if not self._holds_lease():
            return 0
        apps = self._cluster.look()
        live = self._live = self._store.live(self._live)
        self._settled = {one.id: self._settled[one.id] for one in live if one.id in self._settled}
        turn, self._turn = in_turn(self._turn, self._pace.looks, len(live))
        self._observer.begin(self._wanted(live, turn), apps)
        self._watcher.sees(live)
        moves = 0
        failures: list[SolfaError] = []
        for position, experiment in enumerate(live):
            try:
                moves += self._advance(experiment, position in turn)
            except StaleFence:
                self._lease = None
                raise
            except (StaleVersion, NotFound):
                continue  # somebody changed or deleted it: the next pass sees what it is now
            except SolfaError as error:
                logger.warning("experiment %s is left for the next pass: %s", experiment.name, error.message)
                self._watcher.left(error.code)
                failures.append(error)
            except Exception:  # a fault of ours in one experiment must not hold up the others
                self._watcher.left("unexpected")
                logger.exception("experiment %s is left for the next pass", experiment.name)
        moves += self._tidier.tidy(apps, live, self._clock())
        if live and len(failures) == len(live):
            raise failures[0]
        return moves

    def _holds_lease(self) -> bool:
        """Take the lease, or renew it when half of its time is over."""
        now, lease = self._clock(), self._lease
        if lease is None or lease.expires_at - now < timedelta(seconds=self._pace.lease / 2):
            if lease and lease.expires_at <= now:
                self._lease = None  # somebody else may lead by now, whether or not the store says so
            self._lease = self._store.acquire_lease(self._holder, self._pace.lease, now)
        return self._lease is not None

    def _advance(self, experiment: Experiment, closely: bool) -> int:
        """Each stage of `experiment` by one move at most. Returns how many moved."""
        moves, version = 0, experiment.version
        for position in self._places(experiment):
            stage = experiment.stages[position]  # as the moves before have left it
            if stage.phase.terminal:
                continue
            if not closely and self._is_still(experiment, stage):
                continue
            seen = self._observer.look(experiment, stage)
            if seen.report:
                self._watcher.reported(experiment, stage, seen.report)
            experiment, moved = self._move(experiment, stage, seen)
            moves += moved
        if experiment.version == version != self._settled.get(experiment.id, (0, []))[0]:
            stages = enumerate(experiment.stages)
            places = [at for at, stage in stages if not stage.phase.terminal and not only_waits(experiment, stage)]
            self._settled[experiment.id] = version, places
        return moves

    def _wanted(self, live: Sequence[Experiment], turn: Container[int]) -> Iterator[Wanted]:
        """What the pass will look at, in the order in which it will."""
        for position, experiment in enumerate(live):
            for place in self._places(experiment):
                if not experiment.stages[place].phase.terminal:
                    yield Wanted(experiment, experiment.stages[place], position in turn)

    def _places(self, experiment: Experiment) -> Sequence[int]:
        """Of the stages to look at: all, but those that only wait where a pass has found already that this version says all of them."""
        version, places = self._settled.get(experiment.id, (0, []))
        return places if version == experiment.version else range(len(experiment.stages))

    def _is_still(self, experiment: Experiment, stage: Stage) -> bool:
        """Whether a glance tells that there is nothing to do; whatever is done is decided by a look."""
        glance = self._observer.glance(stage)
        if glance is None:
            return False
        move = self._decide(experiment, stage, glance)
        return move is None or (move.effect is Effect.NONE and not is_change(stage, move))

    def _decide(self, experiment: Experiment, stage: Stage, seen: Observation) -> Move | None:
        terms = Terms(rules_of(experiment).compute[stage.plan.kind], self._pace.backoff, self._cluster.slots)
        return decide(experiment, stage, seen, terms, self._clock())

    def _move(self, experiment: Experiment, stage: Stage, seen: Observation) -> tuple[Experiment, int]:
        move = self._decide(experiment, stage, seen)
        if move is None:
            return experiment, 0
        before = experiment
        experiment = self._record(experiment, stage, move)
        if experiment is not before:
            self._watcher.moved(stage, experiment.stage(stage.name) or stage, experiment)
        try:
            self._act(experiment, stage.name, move)
        except LaunchRejected as error:
            logger.warning("%s %s: %s", experiment.name, stage.name, error.message)
            changed = experiment.stage(stage.name) or stage
            experiment, _ = self._move(experiment, changed, replace(seen, rejected=error.message))
        return experiment, int(experiment is not before)

    def _record(self, experiment: Experiment, stage: Stage, move: Move) -> Experiment:
        """Write what the move makes of the record. A launch is always written, so that one with a stale lease stops here."""
        if not is_change(stage, move) and move.effect is not Effect.LAUNCH:
            return experiment
        now = self._clock()
        after = apply(experiment, stage, move, now)
        fence = self._lease.token if self._lease else None
        written = self._store.replace(after, events(experiment, after, stage.name), now, fence)
        if move.phase is not stage.phase:
            logger.info("%s %s: %s -> %s (%s) %s", experiment.name, stage.name, stage.phase, move.phase, move.reason, move.message)
        return written

    def _act(self, experiment: Experiment, name: str, move: Move) -> None:
        stage = experiment.stage(name)
        if stage is None or stage.attempt is None:
            return
        app, number = stage.attempt.app, stage.attempt.number
        match move.effect:
            case Effect.LAUNCH:
                config = stage_config(experiment, stage, number)
                key = keys.attempt_config(experiment.id, name, number)
                self._bucket.put(key, config.model_dump_json().encode())
                self._cluster.launch(LaunchRequest(app, key, config, stage.replicas, experiment.project))
            case Effect.CANCEL:
                self._keep_log(experiment.id, name, number, app)
                self._cluster.cancel(app)
            case Effect.HEAL:
                self._keep_log(experiment.id, name, number, app)
                self._cluster.heal(app)
            case Effect.RESIZE:
                self._keep_log(experiment.id, name, number, app)
                self._cluster.resize(app, move.replicas or 1)

    def _keep_log(self, experiment_id: str, name: str, number: int, app: str) -> None:
        """Before processes go. A bucket that is away is waited for; one that refuses for good must not keep an app from being ended."""
        try:
            self._keeper.keep(experiment_id, name, number, app)
        except BucketError as error:
            if error.retryable:
                raise
            logger.warning("the log of %s could not be kept: %s", app, error.message)

    def _release(self) -> None:
        if self._lease is not None:
            try:
                self._store.release_lease(self._lease)
            except SolfaError as error:
                logger.warning("the lease was not given back, and ends by itself: %s", error.message)
