"""The store's promises: compare-and-swap, fencing, idempotency, pages; on SQLite, and on PostgreSQL where a server is at hand."""

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event

from api import keys
from api.errors import BadRequest, IdempotencyMismatch, NameTaken, NotFound, StaleFence, StaleVersion, StoreError, StoreUnavailable
from api.experiment import Attempt, Experiment, ExperimentPhase
from api.stages import StagePhase, StageReason
from services.store import ExperimentStore, Idempotent, NewEvent, open_store
from services.store.rows import attempt_rows, stage_rows
from tests.builders import START, make_experiment
from tests.postgres import postgres_url

BACKENDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))]


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ExperimentStore]:
    url = f"sqlite:///{tmp_path}/solfa.db" if request.param == "sqlite" else request.getfixturevalue("postgres")
    opened = open_store(url)
    yield opened
    opened.close()


@pytest.fixture
def postgres() -> Iterator[str]:
    yield from postgres_url()


def numbered(number: int, **changes: object) -> Experiment:
    experiment = make_experiment(f"x{'abcdefghij'[number % 10]}{'a' * 9}", f"run-{number}")
    return experiment.model_copy(update={"created_at": START + timedelta(seconds=number), **changes})


def finished_whole(experiment: Experiment) -> Experiment:
    stages = tuple(stage.model_copy(update={"phase": StagePhase.SUCCEEDED}) for stage in experiment.stages)
    return experiment.model_copy(update={"stages": stages})


def finished(experiment: Experiment, digest: str) -> Experiment:
    result = {"phase": StagePhase.SUCCEEDED, "digest": digest, "result_key": keys.result(experiment.id, "prepare")}
    return experiment.with_stage(experiment.stages[0].model_copy(update=result))


def test_a_record_comes_back_as_it_was_stored(store: ExperimentStore) -> None:
    attempt = Attempt(number=1, app="a-1", created_at=START, reason=StageReason.WORKER_FAILED, message="It broke: ünïcode.")
    stage = make_experiment().stages[1].model_copy(update={"attempts": (attempt,), "not_before": START, "phase": StagePhase.BACKOFF})
    experiment = make_experiment().with_stage(stage).model_copy(update={"cancel_requested_at": START})
    store.create(experiment, None, START)
    assert store.get(experiment.id) == experiment
    assert store.get(experiment.name) == experiment


@pytest.mark.parametrize("name", ["nobody", "No Body", "a\x00b", ""])
def test_what_is_not_there_is_not_found(store: ExperimentStore, name: str) -> None:
    with pytest.raises(NotFound):
        store.get(name)


def test_a_name_is_used_once(store: ExperimentStore) -> None:
    store.create(numbered(1), None, START)
    with pytest.raises(NameTaken):
        store.create(numbered(2, name="run-1"), None, START)


def test_an_idempotency_key_makes_one_record(store: ExperimentStore) -> None:
    first = store.create(numbered(1), Idempotent("key", "a" * 64), START)
    again = store.create(numbered(2, name="run-1"), Idempotent("key", "a" * 64), START)
    assert again == first
    with pytest.raises(IdempotencyMismatch):
        store.create(numbered(3), Idempotent("key", "b" * 64), START)


def test_one_of_many_simultaneous_submissions_with_one_key_wins(store: ExperimentStore) -> None:
    made: list[str] = []

    def submit(number: int) -> None:
        made.append(store.create(numbered(number, name="same"), Idempotent("key", "a" * 64), START).id)

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1


def test_compare_and_swap_loses_no_write(store: ExperimentStore) -> None:
    store.create(numbered(1), None, START)
    lost: list[int] = []

    def count_up() -> None:
        for _ in range(10):
            while True:
                read = store.get("run-1")
                stage = read.stages[0]
                try:
                    store.replace(read.with_stage(stage.model_copy(update={"retries_granted": stage.retries_granted + 1})), [], START)
                    break
                except StaleVersion:
                    lost.append(1)

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("run-1").stages[0].retries_granted == 40
    assert store.get("run-1").version == 41


def test_a_replaced_record_is_stored_as_it_is_also_where_it_lost_something(store: ExperimentStore) -> None:
    record = store.create(numbered(1), None, START)
    attempt = Attempt(number=1, app="a-1", created_at=START)
    more = record.with_stage(record.stages[0].model_copy(update={"attempts": (attempt,)}))
    more = store.replace(more, [], START)
    assert store.get(record.id) == more
    less = store.replace(more.with_stage(record.stages[0]), [], START)
    assert store.get(record.id) == less
    assert store.counts()["attempts"] == {}


def test_what_a_record_does_not_know_is_not_written_so_that_an_older_version_can_read_it(store: ExperimentStore) -> None:
    """A version before this one knew neither `replicas` nor `exit_code`, and reads no field that it does not know."""
    attempt = Attempt(number=1, app="xaaaaaaaaaa-prepare-1", created_at=START)
    made = numbered(1)
    plain = made.with_stage(made.stages[0].model_copy(update={"attempts": (attempt,)}))
    (stage, *_), (row,) = stage_rows(plain).values(), attempt_rows(plain).values()
    assert not {"replicas", "digest", "attempts"} & set(json.loads(stage["record"]))
    assert not {"exit_code", "failed_replica", "ended_at"} & set(json.loads(row["record"]))
    newer = json.loads(row["record"]) | {"of_a_later_version": 1}
    assert Attempt.model_validate_json(json.dumps(newer)) == attempt  # the same, seen from the other side
    asked = plain.with_stage(plain.stages[0].model_copy(update={"replicas": 2}))
    store.create(asked, None, START)
    assert store.get(asked.id) == asked


def test_replacing_a_deleted_record_is_not_found(store: ExperimentStore) -> None:
    record = store.create(numbered(1), Idempotent("key", "a" * 64), START)
    store.delete(record.id)
    with pytest.raises(NotFound):
        store.replace(record, [], START)
    with pytest.raises(NotFound):
        store.delete(record.id)
    assert store.events(None, 0, 10) == []
    assert store.create(numbered(1), Idempotent("key", "b" * 64), START).version == 1


def test_a_stale_fence_changes_nothing(store: ExperimentStore) -> None:
    record = store.create(numbered(1), None, START)
    old = store.acquire_lease("one", 10, START)
    assert old is not None
    assert store.acquire_lease("two", 10, START + timedelta(seconds=5)) is None
    new = store.acquire_lease("two", 10, START + timedelta(seconds=11))
    assert new is not None
    assert new.token > old.token
    with pytest.raises(StaleFence):
        store.replace(record, [NewEvent("stage_changed")], START, fence=old.token)
    assert store.get(record.id) == record
    assert [event.kind for event in store.events(record.id, 0, 10)] == ["experiment_created"]
    assert store.replace(record, [], START, fence=new.token).version == 2


def test_a_lease_is_renewed_released_and_taken(store: ExperimentStore) -> None:
    first = store.acquire_lease("one", 10, START)
    renewed = store.acquire_lease("one", 10, START + timedelta(seconds=5))
    assert first is not None
    assert renewed is not None
    assert renewed.token == first.token
    store.release_lease(renewed)
    second = store.acquire_lease("two", 10, START + timedelta(seconds=6))
    assert second is not None
    assert second.token == first.token + 1
    store.release_lease(first)  # of a lease that is gone: changes nothing
    assert store.acquire_lease("one", 10, START + timedelta(seconds=7)) is None


def test_pages_are_newest_first_and_whole(store: ExperimentStore) -> None:
    for number in range(7):
        store.create(numbered(number), None, START)
    seen, cursor = [], None
    while True:
        page = store.page(3, cursor)
        seen += [experiment.name for experiment in page.experiments]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == [f"run-{number}" for number in reversed(range(7))]
    assert [experiment.name for experiment in store.page(5, name_prefix="run-3").experiments] == ["run-3"]
    assert store.page(5, name_prefix="RUN").experiments == []
    assert store.page(5, phase=ExperimentPhase.FAILED).experiments == []


def test_a_listing_tells_what_the_records_amount_to(store: ExperimentStore) -> None:
    phases = list(StagePhase)
    for number in range(8):
        record = numbered(number)
        changed = (stage.model_copy(update={"phase": phases[at * number % len(phases)]}) for at, stage in enumerate(record.stages))
        store.create(record.model_copy(update={"stages": tuple(changed)}), None, START)
    page = store.page(7)
    assert page.next_cursor
    for listed in page.experiments:
        record = store.get(listed.id)
        assert (listed.name, listed.phase, listed.created_at) == (record.name, record.phase, record.created_at)
        assert list(listed.stages.items()) == list(Counter(stage.phase for stage in record.stages).items())  # in this order, too


@pytest.mark.parametrize("cursor", ["", "%", "abc", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTkuYQ"])
def test_an_odd_cursor_is_a_bad_request(store: ExperimentStore, cursor: str) -> None:
    with pytest.raises(BadRequest):
        store.page(5, cursor)


def test_live_leaves_out_what_is_finished(store: ExperimentStore) -> None:
    store.create(finished_whole(numbered(1)), None, START)
    store.create(numbered(2), None, START)
    assert [experiment.name for experiment in store.live()] == ["run-2"]
    assert [experiment.name for experiment in store.page(5, phase=ExperimentPhase.SUCCEEDED).experiments] == ["run-1"]
    assert store.counts()["experiments"] == {"succeeded": 1, "pending": 1}


def test_what_is_known_of_the_live_is_read_again_only_where_it_has_changed(store: ExperimentStore) -> None:
    for number in range(6):
        store.create(numbered(number), None, START)
    known = store.live()
    assert all(again is before for again, before in zip(store.live(known), known, strict=True))
    changed = store.replace(known[1].with_stage(known[1].stages[0].model_copy(update={"message": "It waits."})), [], START)
    store.replace(finished_whole(known[2]), [], START)
    store.delete(known[3].id)
    store.create(numbered(6), None, START)
    again = store.live(known)
    assert again == store.live()
    assert [experiment.name for experiment in again] == ["run-0", "run-1", "run-4", "run-5", "run-6"]
    assert again[1] == changed
    assert [experiment is known[at] for experiment, at in zip(again, (0, 1, 4, 5), strict=False)] == [True, False, True, True]


def test_a_result_is_found_by_its_digest_and_its_adopters_by_name(store: ExperimentStore) -> None:
    donor = store.create(finished(numbered(1), "d" * 64), None, START)
    assert store.find_result("d" * 64) == (donor.id, keys.result(donor.id, "prepare"))
    assert store.find_result("e" * 64) is None
    adopter = numbered(2)
    taken = {"phase": StagePhase.SUCCEEDED, "result_key": keys.result(donor.id, "prepare")}
    store.create(adopter.with_stage(adopter.stages[0].model_copy(update=taken)), None, START)
    assert store.adopters(donor.id) == {keys.result(donor.id, "prepare"): ["run-2"]}
    assert store.adopters(adopter.id) == {}


def test_events_rise_and_are_read_from_where_one_left_off(store: ExperimentStore) -> None:
    record = store.create(numbered(1), None, START)
    record = store.replace(record, [NewEvent("stage_changed", "prepare", {"phase": "queued"}), NewEvent("attempt_launched")], START)
    every = store.events(record.id, 0, 10)
    assert [event.kind for event in every] == ["experiment_created", "stage_changed", "attempt_launched"]
    assert every[1].data == {"phase": "queued"}
    assert sorted({event.id for event in every}) == [event.id for event in every]
    assert store.events(None, every[0].id, 1) == every[1:2]
    assert store.events(None, 2**70, 1) == []


def test_a_locked_database_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.store.database.BUSY_SECONDS", 0.05)
    url = f"sqlite:///{tmp_path}/solfa.db"
    store = open_store(url)
    other = sqlite3.connect(tmp_path / "solfa.db")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        store.create(numbered(1), None, START)
    other.close()
    store.create(numbered(1), None, START)
    store.close()


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "solfa.db").write_bytes(b"not a database, by any means" * 100)
    with pytest.raises(StoreError, match="damaged"):
        open_store(f"sqlite:///{tmp_path}/solfa.db")


def test_an_unreachable_server_says_so() -> None:
    with pytest.raises(StoreUnavailable, match="did not answer"):
        open_store("postgresql+psycopg://nobody@127.0.0.1:1/solfa")


@pytest.mark.parametrize("url", ["", "mysql://x/y", "no-url", "sqlite+nonsense:///x"])
def test_an_odd_address_is_a_bad_request(url: str) -> None:
    with pytest.raises(BadRequest):
        open_store(url)


def test_nothing_is_found_by_looking_through_all_experiments(tmp_path: Path) -> None:
    """By SQLite's own word for each statement: thousands of records are stored, with their specs in them."""
    store = open_store(f"sqlite:///{tmp_path}/solfa.db")
    plans: list[str] = []

    def explain(connection: Connection, _: object, statement: str, parameters: tuple[object, ...], *__: object) -> None:
        if statement.startswith("SELECT"):
            driver = connection.connection.driver_connection
            assert driver is not None
            plans.extend(str(row[3]) for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        for one in (store, store.within("default")):
            one.create(numbered(int(one is store), project="default"), None, START)
            one.get("run-0" if one is not store else "run-1")
            one.page(50)
            one.page(50, phase=ExperimentPhase.RUNNING)
            one.live()
    finally:
        event.remove(Engine, "before_cursor_execute", explain)
        store.close()
    found = [plan for plan in plans if "experiments" in plan]
    assert found
    assert not [plan for plan in found if " USING " not in plan]
