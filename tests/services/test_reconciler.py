"""The reconciler over a real store, a real bucket and real processes: a posted record runs to its end, whatever happens on the way."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from api import keys
from api.bucket import Bucket, open_bucket
from api.experiment import Experiment, ExperimentPhase
from api.plan import make_plan, stage_digests
from api.spec import parse_spec
from api.stages import StagePhase
from services.launch.local import LocalCluster
from services.reconciler import Pace, Reconciler, utc_now
from services.retry import Backoff
from services.store import ExperimentStore, open_store
from tests.builders import START, make_experiment
from tests.services.waiting import wait_for

PROGRAM = [sys.executable, "-I", "-S", str(Path(__file__).with_name("stage_program.py"))]
QUICK = Pace(interval=0.02, longest=0.1, lease=1.0, backoff=Backoff(timedelta(0), timedelta(0), timedelta(0)))


@dataclass
class Service:
    """The parts of a service in one folder, and what a test does with them."""

    store: ExperimentStore
    cluster: LocalCluster
    bucket: Bucket
    reconciler: Reconciler
    root: Path

    def submit(self, number: int = 0, digests: bool = False, **changes: Any) -> Experiment:
        """Record an experiment as a POST would."""
        behaviour = changes.pop("behaviour", {})
        record = make_experiment(f"x{'abcdefghij'[number]}{'a' * 9}", f"run-{number}", description=json.dumps(behaviour), **changes)
        if digests:
            spec = parse_spec(record.spec_text)
            known = stage_digests(spec, make_plan(spec), dict.fromkeys(spec.domains, ""))
            stages = tuple(stage.model_copy(update={"digest": known[stage.name]}) for stage in record.stages)
            record = record.model_copy(update={"stages": stages})
        return self.store.create(record, None, START)

    def until(self, name: str, *phases: ExperimentPhase, seconds: float = 60) -> Experiment:
        def reached() -> bool:
            self.reconciler.run_once()
            return self.store.get(name).phase in phases

        wait_for(reached, seconds)
        return self.store.get(name)

    def until_stage(self, name: str, stage: str, *phases: StagePhase) -> None:
        def reached() -> bool:
            self.reconciler.run_once()
            found = self.store.get(name).stage(stage)
            return found is not None and found.phase in phases

        wait_for(reached)

    def until_tidy(self) -> None:
        def nothing_left() -> bool:
            self.reconciler.run_once()
            return not self.cluster.apps()

        wait_for(nothing_left)

    def diary(self) -> list[list[str]]:
        path = self.root / "bucket" / "diary.txt"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def starts(self) -> list[tuple[str, int]]:
        return [(stage, int(attempt)) for what, _, stage, attempt, *_ in self.diary() if what == "start"]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    bucket = open_bucket((tmp_path / "bucket").as_uri())
    store = open_store(f"sqlite:///{tmp_path}/solfa.db")
    cluster = LocalCluster(tmp_path / "apps", bucket.url, 4, PROGRAM, grace_seconds=1.0)
    yield Service(store, cluster, bucket, Reconciler(store, cluster, bucket, utc_now, QUICK), tmp_path)
    for app in cluster.apps():
        cluster.cancel(app)
    cluster.close()
    store.close()


def test_a_posted_record_becomes_results(service: Service) -> None:
    service.submit()
    done = service.until("run-0", ExperimentPhase.SUCCEEDED, ExperimentPhase.FAILED)
    assert {stage.phase for stage in done.stages} == {StagePhase.SUCCEEDED}
    assert all(stage.result_key == keys.result(done.id, stage.name) for stage in done.stages)
    assert sorted(service.starts()) == sorted((stage.name, 1) for stage in done.stages)
    service.until_tidy()
    assert "prepare attempt 1 reads" in service.bucket.get(keys.attempt_log(done.id, "prepare", 1)).data.decode()
    kinds = [event.kind for event in service.store.events(done.id, 0, 1000)]
    assert kinds[0] == "experiment_created"
    assert kinds[-1] == "experiment_finished"
    assert kinds.count("attempt_launched") == len(done.stages)
