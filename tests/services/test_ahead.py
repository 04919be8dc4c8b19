"""Looks of a pass that are on their way together: as many as may be, what each says where it is asked for, and no sooner than the pass."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from api import keys
from api.bucket import Bucket, open_bucket
from api.errors import BucketUnavailable
from api.experiment import Attempt, Experiment
from api.stage_config import StageReport
from api.stages import StagePhase, StageReason
from services.ahead import Ahead, Wanted
from services.launch.cluster import AppPhase, AppStatus
from services.observer import Observer
from services.store import ExperimentStore, open_store
from tests.builders import START, make_experiment

MANY = 4


class Counted(Bucket):
    """Memory that answers once `together` ask at the same time, and counts."""

    def __init__(self, together: int = 1) -> None:
        inner = open_bucket("memory://")
        super().__init__(inner._store, inner.url)
        self._meet, self.asked = threading.Barrier(together), 0

    def exists(self, key: str) -> bool:
        self.asked += 1
        self._meet.wait(60)
        return super().exists(key)


def running(number: int) -> Experiment:
    record = make_experiment(f"x{'abcdefghij'[number]}{'a' * 9}", f"run-{number}")
    attempt = Attempt(number=1, app=f"{record.id}-prepare-1", created_at=START, launched_at=START, started_at=START)
    changes = {"phase": StagePhase.RUNNING, "reason": StageReason.STARTED, "attempts": (attempt,), "first_launched_at": START}
    return record.with_stage(record.stages[0].model_copy(update=changes))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ExperimentStore]:
    with closing(open_store(f"sqlite:///{tmp_path}/solfa.db")) as made:
        yield made


def apps_of(records: list[Experiment], phase: AppPhase = AppPhase.RUNNING) -> dict[str, AppStatus]:
    return {stage.attempt.app: AppStatus(phase, workers_up=1) for record in records for stage in record.stages if stage.attempt}


@contextmanager
def ahead(store: ExperimentStore, bucket: Bucket, at_once: int = MANY) -> Iterator[Ahead]:
    made = Ahead(Observer(store, bucket), at_once)
    yield made
    made.close()


def wanted(records: list[Experiment], closely: bool = True) -> list[Wanted]:
    return [Wanted(record, record.stages[0], closely) for record in records]


def test_looks_are_on_their_way_together(store: ExperimentStore) -> None:
    records = [running(number) for number in range(2 * MANY)]
    apps, bucket = apps_of(records), Counted(MANY)  # which would never answer one who asks alone
    with ahead(store, bucket) as looks:
        looks.begin(wanted(records), apps)
        seen = [looks.look(record, record.stages[0]) for record in records]
    assert [one.app.phase for one in seen] == [AppPhase.RUNNING] * len(records)
    assert bucket.asked == len(records), "each once"


def test_a_glance_that_tells_too_little_is_followed_by_its_look_at_once(store: ExperimentStore) -> None:
    records = [running(number) for number in range(MANY)]
    apps, bucket = apps_of(records), Counted(MANY)
    with ahead(store, bucket) as looks:
        looks.begin(wanted(records, closely=False), apps)
        for record in records:
            assert looks.glance(record.stages[0]) is None, "nobody knows yet when it reported"
            assert looks.look(record, record.stages[0]).app.phase is AppPhase.RUNNING
    assert bucket.asked == len(records)


def test_a_look_that_fails_fails_where_it_is_asked_for(store: ExperimentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [running(number) for number in range(MANY)]
    apps, bucket = apps_of(records), Counted()

    def exists(key: str) -> bool:
        if records[1].id in key:
            raise BucketUnavailable("It is away.")
        return False

    monkeypatch.setattr(bucket, "exists", exists)
    with ahead(store, bucket) as looks:
        looks.begin(wanted(records), apps)
        for record in records:
            if record is records[1]:
                with pytest.raises(BucketUnavailable):
                    looks.look(record, record.stages[0])
            else:
                assert looks.look(record, record.stages[0]).app.phase is AppPhase.RUNNING


@pytest.mark.parametrize("at_once", [1, MANY])
def test_what_a_pass_did_not_ask_for_is_not_taken_for_what_the_next_one_sees(store: ExperimentStore, at_once: int) -> None:
    record, bucket = running(0), Counted()
    apps = apps_of([record])
    with ahead(store, bucket, at_once) as looks:
        looks.begin(wanted([record]), apps)
        looks.begin(wanted([record]), apps)
        looks.begin(wanted([record]), apps_of([record], AppPhase.CANCELLED))
        assert looks.look(record, record.stages[0]).app.phase is AppPhase.CANCELLED
        later = record.stages[0].model_copy(update={"first_launched_at": START + timedelta(days=1)})
        assert looks.look(record, later).app.phase is AppPhase.CANCELLED, "asked for twice: looked at anew"


def test_what_an_attempt_said_last_is_heard_with_its_result(store: ExperimentStore) -> None:
    """A restart just before the end, which no pass has seen by itself, is counted then."""
    bucket, record = open_bucket("memory://"), running(0)
    said = StageReport(attempt=1, updated_at=START, activity="training", restarts=2, world_size=1)
    bucket.put(keys.attempt_report(record.id, "prepare", 1), said.model_dump_json().encode())
    bucket.put(keys.result(record.id, "prepare"), b"{}")
    with ahead(store, bucket) as looks:
        looks.begin([], apps_of([record]))
        seen = looks.look(record, record.stages[0])
    assert seen.committed == keys.result(record.id, "prepare")
    assert seen.report == said
