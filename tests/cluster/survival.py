"""A search that something is done to: where it is, what it came to, and whether anything of it ever ran twice."""

import gzip
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from api import keys
from api.bucket import Bucket
from api.errors import BucketError, SolfaError
from api.replay import replay
from api.results import Prepared, StageResult
from api.stage_config import StageReport
from tests.api.s3_proxy import Faults
from tests.cluster.kube import Json, Namespace, is_ready
from tests.cluster.object_store import ObjectStore
from tests.cluster.release import Release
from tests.cluster.search import search_spec
from tests.postgres import Postgres
from tests.services.waiting import wait_for

STEPS = 800
TRAINING = "app.kubernetes.io/name=solfa-trainer"
SERVICE = "app.kubernetes.io/name=solfa"
PROXY = "proxy"


def survivor_spec(name: str, least: int = 2, **changes: Any) -> str:
    """Prepare and one proxy, long enough to be disturbed; `least` replicas of two."""
    training = {"steps": STEPS, "global_batch": 8, "micro_batch": 4, "learning_rate": 0.01, "save_every": 40, "evaluate_every": STEPS}
    compute = {"default": {"replicas": {"min": least, "max": 2}, "cpus": 0.3, "memory_mb": 1536}}
    fixed = {"doremi": {"objective": "hardest", "eta": 0.5}, "comparison": {"mixtures": []}}
    return search_spec(name, **{"training": {"proxy": training}, "compute": compute, **fixed, **changes})


@dataclass(frozen=True)
class Outcome:
    """What was prepared, and what the proxy came to on it: its averaged weights, and each step as the history has it."""

    prepared: Prepared
    averaged_weights: dict[str, float]
    steps: list[dict[str, Any]]

    def difference(self, other: "Outcome") -> float:
        """The largest of any weight."""
        return max(abs(weight - other.averaged_weights[name]) for name, weight in self.averaged_weights.items())


@dataclass
class House:
    """A release, and everything it stands on that can be taken from it."""

    release: Release
    store: ObjectStore
    """As the tests reach it: not through the proxy."""
    database: Postgres
    faults: Faults
    """What is done to requests to the S3, of the service and of training pods."""

    @property
    def namespace(self) -> Namespace:
        return self.release.namespace

    @property
    def bucket(self) -> Bucket:
        return self.store.bucket(self.namespace.name)

    def training_pods(self, experiment: str, stage: str | None = None) -> list[Json]:
        selector = f"{TRAINING},solfa.dev/experiment={experiment}" + (f",solfa.dev/stage={stage}" if stage else "")
        return sorted(self.namespace.get("pods", selector), key=lambda pod: str(pod["metadata"]["name"]))

    def service_pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.namespace.get("pods", SERVICE) if "deletionTimestamp" not in pod["metadata"]]

    def ready_pods(self) -> list[str]:
        """Of the service."""
        return [pod["metadata"]["name"] for pod in self.namespace.get("pods", SERVICE) if is_ready(pod)]

    def leader(self) -> tuple[str, int]:
        """The host that leads, which is a pod's name, and the lease's token, which rises when another takes over."""
        with psycopg.connect(self.database.url("solfa")) as connection:
            row = connection.execute("SELECT holder, token FROM lease").fetchone()
        return (row[0].partition("/")[0], int(row[1])) if row else ("", 0)

    def phases(self, experiment: str) -> dict[str, str]:
        """By stage, straight from the database: phases that last milliseconds are seen too."""
        with psycopg.connect(self.database.url("solfa")) as connection:
            rows = connection.execute("SELECT name, phase FROM stages WHERE experiment_id = %s", (experiment,)).fetchall()
        return dict(rows)

    def submit(self, spec: str) -> str:
        """The experiment's id."""
        with self.release.client() as client:
            return client.submit(spec).id


@dataclass
class Survivor:
    """One experiment of a house."""

    house: House
    id: str
    overlaps: set[str] = field(default_factory=set)

    def report(self, stage: str = PROXY) -> StageReport | None:
        """Of the newest attempt that has said anything."""
        prefix = f"{keys.stage_prefix(self.id, stage)}attempts/"
        try:
            blobs = [self.house.bucket.find(entry.key) for entry in self.house.bucket.list(prefix) if entry.key.endswith("report.json")]
        except BucketError:
            return None
        reports = [StageReport.model_validate_json(blob.data) for blob in blobs if blob]
        return max(reports, key=lambda report: report.attempt, default=None)

    def until_training(self, further: int = 45, world: int = 2) -> StageReport:
        """Until the proxy trains in a world of `world` and is `further` than it is now: past another save. Fails when it ends first."""
        now = self.report()
        beyond = further + (now.step if now else 0)
        return self._until(lambda report: report.world_size == world and report.step > beyond, f"train past step {beyond}")

    def until_resumed(self, before: StageReport, worlds: tuple[int, ...] = (2,)) -> StageReport:
        """Until it trains again from a state that is newer than what `before` began with, in a world of one of `worlds`."""
        return self._until(
            lambda report: report.world_size in worlds and report.step > report.resumed_from > before.resumed_from,
            f"resume after what {before} began with",
        )

    def _until(self, condition: Callable[[StageReport], bool], what: str) -> StageReport:
        def look() -> StageReport | None:
            report = self.report()
            assert report is None or report.step < STEPS, f"{self.id} did not {what} before it ended: make it longer"
            return report if report and condition(report) else None

        try:
            found = wait_for(look, 300, every=0.3)
        except AssertionError as error:
            told = f"{self.id} did not {what}: {error}\n{self.report()}"
            raise AssertionError(f"{told}\n{self.house.namespace.describe()}") from error
        assert found is not None
        return found

    def pods(self, stage: str = PROXY) -> list[Json]:
        return self.house.training_pods(self.id, stage)

    def outcome(self) -> Outcome:
        """Once it has succeeded, without a retry spent, whatever happened to it; and its history replays to its weights."""
        record = self.house.release.finished(self.id)
        assert record.phase.value == "succeeded", f"{record.stages}\n{self.house.namespace.describe()}"
        spent = {stage.name: [attempt.reason for attempt in stage.attempts if not attempt.free] for stage in record.stages}
        assert all(len(reasons) == 1 for reasons in spent.values()), f"retries were spent: {spent}"
        with self.house.release.client() as client:
            found = replay([client.history(self.id)])
        assert (found.agrees, found.steps) == (True, STEPS)
        return outcome(self.house.bucket, self.id)

    def attempts(self, stage: str = PROXY) -> int:
        with self.house.release.client() as client:
            return len(next(one for one in client.get(self.id).stages if one.name == stage).attempts)


def outcome(bucket: Bucket, experiment: str) -> Outcome:
    """From the bucket's own files."""
    result = StageResult.model_validate_json(bucket.get(keys.result(experiment, PROXY)).data)
    assert result.searched is not None
    steps = []
    for key in result.searched.history:
        _, *lines = gzip.decompress(bucket.get(key).data).decode().splitlines()
        steps += [{name: value for name, value in json.loads(line).items() if name != "attempt"} for line in lines]
    return Outcome(prepared(bucket, experiment), dict(result.searched.averaged_weights.root), steps)


def prepared(bucket: Bucket, experiment: str) -> Prepared:
    """Counts, and digests of every row."""
    made = StageResult.model_validate_json(bucket.get(keys.result(experiment, "prepare")).data).prepared
    assert made is not None
    return made


@contextmanager
def watched(house: House, spec: str) -> Iterator[Survivor]:
    """Submit `spec`; while the context lasts, whatever of it runs twice at the same time is noted; in the end there must be nothing."""
    survivor = Survivor(house, house.submit(spec))
    over = threading.Event()
    uids: dict[str, set[str]] = defaultdict(set)

    def look() -> None:
        while not over.wait(0.7):
            try:
                survivor.overlaps |= _overlaps(house, survivor.id, uids)
            except (AssertionError, ValueError, KeyError):
                continue  # an API server that is away on purpose

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield survivor
        assert not survivor.overlaps
    finally:
        over.set()
        watcher.join()
        _end(house, survivor.id)


def _overlaps(house: House, experiment: str, uids: dict[str, set[str]]) -> set[str]:
    """Stages of which two attempts have a process, and apps that were made twice."""
    running: dict[str, set[str]] = defaultdict(set)
    for pod in house.training_pods(experiment):
        statuses = pod["status"].get("containerStatuses") or [{}]
        if "running" in statuses[0].get("state", {}):
            running[pod["metadata"]["labels"]["solfa.dev/stage"]].add(pod["metadata"]["labels"]["solfa.dev/attempt"])
    for job in house.namespace.get("jobs.batch.volcano.sh", f"solfa.dev/experiment={experiment}"):
        uids[job["metadata"]["name"]].add(job["metadata"]["uid"])
    twice = {f"attempts {sorted(found)} of {stage} ran at the same time" for stage, found in running.items() if len(found) > 1}
    return twice | {f"app {name} was made {len(found)} times" for name, found in uids.items() if len(found) > 1}


def _end(house: House, experiment: str) -> None:
    """Nothing of it stays for the next test: what has not ended is cancelled, and its apps are waited for."""

    def cancelled() -> bool:
        try:
            with house.release.client() as client:
                if client.get(experiment).phase.value in ("succeeded", "failed", "cancelled"):
                    return True
                client.cancel(experiment)
        except (SolfaError, AssertionError):
            pass
        return False

    wait_for(cancelled, 180, every=1)
    wait_for(lambda: not house.training_pods(experiment), 180, every=1)
