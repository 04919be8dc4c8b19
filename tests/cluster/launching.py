"""Stages of a small experiment, launched on the cluster by KubernetesCluster itself, without a service in between."""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from api import keys
from api.bucket import Bucket
from api.experiment import app_name
from api.stage_config import AttemptFailure, StageConfig, StageReport
from services.launch.cluster import AppPhase, AppStatus, LaunchRequest
from services.launch.kubernetes import KubernetesCluster
from services.launch.manifest import Place
from services.logs import LogKeeper
from services.tidy import APP
from tests.api.s3_servers import ACCESS_KEY, SECRET
from tests.cluster.kube import Json, Namespace
from tests.cluster.object_store import ObjectStore
from tests.services.waiting import wait_for
from tests.trainer.stage_runner import TINY_TRAINING, StageRunner, tiny_spec, write_corpus

SMALL = {"cpus": 0.3, "memory_mb": 1000}
DOMAINS = ("easy", "hard", "middle")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET}


def public(store: ObjectStore) -> dict[str, str]:
    """How the store is reached, as far as it is no secret."""
    return {"AWS_ENDPOINT_URL": store.endpoint, "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}


def apply(namespace: Namespace, *objects: Json) -> None:
    namespace.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


@contextmanager
def reaching(store: ObjectStore) -> Iterator[None]:
    """The store in this process's environment: for stages that are run on this machine."""
    before = dict(os.environ)
    os.environ.update(public(store) | CREDENTIALS)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Tended(KubernetesCluster):
    """Apps looked after as a reconciler does it: logs are kept in the bucket, what is stranded is healed, what crashes for ever is ended.

    It stands in for the record too: of an app that was ended for its crashes, it is told that it failed.
    """

    def __init__(self, place: Place, bucket: Bucket) -> None:
        super().__init__(place)
        self._keeper = LogKeeper(KubernetesCluster(place), bucket)
        self._crashed: dict[str, AppStatus] = {}

    def status(self, app: str) -> AppStatus:
        seen = super().status(app)
        if seen.ending or seen.stranded:
            self._keep(app)
        if seen.stranded:
            self.heal(app)
        if seen.crashes:
            self._crashed[app] = replace(seen, phase=AppPhase.FAILED, crashes=False)
            self.cancel(app)
        return self._crashed[app] if app in self._crashed and seen.phase is AppPhase.CANCELLED else seen

    def cancel(self, app: str) -> None:
        self._keep(app)
        super().cancel(app)

    def logs(self, app: str, tail: int | None = None) -> list[str]:
        lines = self._keeper.read(*self._attempt(app), app)
        return lines[-tail:] if tail else lines

    def _keep(self, app: str) -> None:
        self._keeper.keep(*self._attempt(app), app)

    @staticmethod
    def _attempt(app: str) -> tuple[str, str, int]:
        found = APP.fullmatch(app)
        assert found
        return found[1], found[2], int(found[3])


@dataclass
class Launching:
    """One experiment, its bucket, and a cluster to launch its stages on."""

    runner: StageRunner
    cluster: Tended
    place: Place

    @property
    def bucket(self) -> Bucket:
        return self.runner.bucket

    def request(self, stage: str, attempt: int = 1) -> LaunchRequest:
        """With its config written, as the reconciler does."""
        key = self.runner.config(stage, attempt)
        config = StageConfig.model_validate_json(self.bucket.get(key).data)
        return LaunchRequest(app_name(self.runner.experiment, stage, attempt), key, config)

    def until(self, app: str, *phases: AppPhase, seconds: float = 240) -> AppStatus:
        return wait_for(lambda: status if (status := self.cluster.status(app)).phase in phases else None, seconds, every=0.5)

    def report(self, stage: str, attempt: int = 1) -> StageReport | None:
        blob = self.bucket.find(keys.attempt_report(self.runner.experiment, stage, attempt))
        return StageReport.model_validate_json(blob.data) if blob else None

    def failure(self, stage: str, attempt: int = 1) -> AttemptFailure | None:
        blob = self.bucket.find(keys.attempt_failure(self.runner.experiment, stage, attempt))
        return AttemptFailure.model_validate_json(blob.data) if blob else None

    def is_committed(self, stage: str) -> bool:
        return self.bucket.exists(keys.result(self.runner.experiment, stage))

    def is_gone(self, app: str) -> bool:
        """Whether nothing of the app is left, of what it had itself or was made for it."""
        namespace = Namespace(self.place.namespace)
        return not [name for _, name in namespace.left() if name.startswith(app)]


def make_launching(namespace: Namespace, store: ObjectStore, image: str, folder: Path, **changes: Any) -> Launching:
    """A new experiment over a small corpus; `changes` are of the training, but for `compute` and `place`."""
    compute = {**SMALL, "replicas": {"min": 1, "max": 2}, **changes.pop("compute", {})}
    chosen = changes.pop("place", {})
    corpus = folder / "corpus"
    if not corpus.exists():
        write_corpus(corpus, DOMAINS, documents=100)
        apply(namespace, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": CREDENTIALS})
    spec = tiny_spec(corpus, training={"proxy": {**TINY_TRAINING, **changes}}, compute={"default": compute})
    settings = {"image": image, "namespace": namespace.name, "release": namespace.name, "secret": "s3", "environment": public(store)}
    bucket = store.bucket("launching")
    place = Place(bucket.url, **{**settings, **chosen})
    name = "x" + "".join(chr(ord("a") + int(digit, 16)) for digit in uuid.uuid4().hex[:10])
    runner = StageRunner(bucket, spec, name, folder / "cache")  # type: ignore[arg-type]  # a file bucket is not needed to start stages
    return Launching(runner, Tended(place, bucket), place)
