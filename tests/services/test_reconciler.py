"""The reconciler over a real store, a real bucket and real processes: a posted record runs to its end, whatever happens on the way."""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from api import keys
from api.bucket import Bucket, open_bucket
from api.errors import BucketUnavailable, ClusterUnavailable, StoreUnavailable
from api.experiment import Experiment, ExperimentPhase, Stage
from api.plan import make_plan, stage_digests
from api.spec import parse_spec
from api.stage_config import StageReport
from api.stages import StagePhase, StageReason
from services.launch.local import LocalCluster
from services.reconciler import Pace, Reconciler, utc_now
from services.retry import Backoff
from services.store import ExperimentStore, open_store
from services.watch import Pass, Watcher
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
    root: Path
    ahead: timedelta = timedelta(0)
    reconciler: Reconciler = field(init=False)

    def now(self) -> datetime:
        """The service's clock: a test may put it forward."""
        return utc_now() + self.ahead

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
            return not self.cluster.look()

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
    made = Service(store, cluster, bucket, tmp_path)
    made.reconciler = Reconciler(store, cluster, bucket, made.now, QUICK)
    yield made
    for app in cluster.look():
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


def stage_of(experiment: Experiment, name: str) -> Any:
    found = experiment.stage(name)
    assert found is not None
    return found


def test_a_failing_attempt_is_tried_again_and_what_it_left_is_removed(service: Service) -> None:
    service.submit(behaviour={"fail": {"reference": [1, 2]}}, comparison={"mixtures": []})
    done = service.until("run-0", ExperimentPhase.SUCCEEDED, ExperimentPhase.FAILED)
    assert service.starts() == [("prepare", 1), ("reference", 1), ("reference", 2), ("reference", 3), ("proxy", 1)]
    attempts = stage_of(done, "reference").attempts
    assert [attempt.reason for attempt in attempts] == [StageReason.WORKER_FAILED, StageReason.WORKER_FAILED, StageReason.COMPLETED]
    assert attempts[0].message.startswith("This stage was told to fail.")
    service.until_tidy()
    left = {entry.key for entry in service.bucket.list(keys.stage_prefix(done.id, "reference"))}
    assert keys.output_prefix(done.id, "reference", 3) + "model" in left
    assert keys.output_prefix(done.id, "reference", 1) + "model" not in left
    assert not any(key.startswith(keys.scratch_prefix(done.id, "reference")) for key in left)
    assert {keys.attempt_log(done.id, "reference", number) for number in (1, 2, 3)} <= left


def test_what_can_never_work_fails_at_once_and_takes_what_needs_it_along(service: Service) -> None:
    service.submit(behaviour={"permanent": ["reference"]})
    done = service.until("run-0", ExperimentPhase.FAILED)
    assert stage_of(done, "reference").reason is StageReason.WORKER_FAILED_PERMANENTLY
    assert stage_of(done, "reference").message == "This stage was told to fail."
    assert stage_of(done, "main").reason is StageReason.PREDECESSOR_FAILED
    assert stage_of(done, "main").message == "It needs proxy, which did not succeed."
    assert stage_of(done, "baseline-uniform").phase is StagePhase.SUCCEEDED
    service.until_tidy()
    assert service.bucket.exists(keys.scratch_prefix(done.id, "reference") + "part")  # for a retry


def test_attempts_run_out(service: Service) -> None:
    service.submit(behaviour={"fail": {"prepare": [1, 2, 3]}}, compute={"default": {"retries": 1}})
    done = service.until("run-0", ExperimentPhase.FAILED)
    assert stage_of(done, "prepare").reason is StageReason.ATTEMPTS_EXHAUSTED
    assert "That was the last of 2 attempts." in stage_of(done, "prepare").message
    assert service.starts() == [("prepare", 1), ("prepare", 2)]


def test_a_cancel_ends_what_runs_and_starts_nothing_more(service: Service) -> None:
    service.submit(behaviour={"hang": {"prepare": [1]}})
    service.until_stage("run-0", "prepare", StagePhase.RUNNING)
    wait_for(service.starts)
    record = service.store.get("run-0")
    service.store.replace(record.model_copy(update={"cancel_requested_at": service.now()}), [], service.now())
    done = service.until("run-0", ExperimentPhase.CANCELLED)
    assert stage_of(done, "prepare").reason is StageReason.CANCELLED_BY_USER
    assert [line[0] for line in service.diary()] == ["start", "stop"]
    service.until_tidy()


def test_a_lost_supervisor_costs_no_retry(service: Service) -> None:
    service.submit(behaviour={"hang": {"prepare": [1, 2]}}, compute={"default": {"retries": 0}}, comparison={"mixtures": []})
    for number in (1, 2):
        wait_for(lambda number=number: service.reconciler.run_once() >= 0 and ("prepare", number) in service.starts())
        kill_supervisor(service.root, f"xaaaaaaaaaa-prepare-{number}")
    done = service.until("run-0", ExperimentPhase.SUCCEEDED, ExperimentPhase.FAILED)
    assert [attempt.free for attempt in stage_of(done, "prepare").attempts] == [True, True, False]
    assert not any(line[0] == "overlap" for line in service.diary())


def kill_supervisor(root: Path, app: str) -> None:
    for path in Path("/proc").iterdir():
        try:
            parts = (path / "cmdline").read_bytes().split(b"\0") if path.name.isdigit() else []
        except OSError:
            continue
        if len(parts) > 4 and parts[4] == str(root / "apps" / app).encode():
            os.kill(int(path.name), signal.SIGKILL)


def test_a_silent_stage_is_ended_and_tried_again(service: Service) -> None:
    service.submit(behaviour={"hang": {"prepare": [1]}}, comparison={"mixtures": []})
    service.until_stage("run-0", "prepare", StagePhase.RUNNING)
    wait_for(service.starts)
    service.ahead = timedelta(hours=1)
    done = service.until("run-0", ExperimentPhase.SUCCEEDED, ExperimentPhase.FAILED)
    assert stage_of(done, "prepare").attempts[0].reason is StageReason.STALLED
    assert service.starts()[:2] == [("prepare", 1), ("prepare", 2)]
    assert not any(line[0] == "overlap" for line in service.diary())


def test_a_large_fleet_is_looked_at_in_turn_and_comes_to_the_same_end(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    class Listener(Watcher):
        def reported(self, experiment: Experiment, stage: Stage, report: StageReport) -> None:
            heard.append(experiment.name)

    names = [f"run-{number}" for number in range(3)]
    for number in range(3):
        service.submit(number, behaviour={"hang": {"prepare": [1]}}, comparison={"mixtures": []})
    for name in names:
        service.until_stage(name, "prepare", StagePhase.RUNNING)
    service.reconciler = Reconciler(service.store, service.cluster, service.bucket, service.now, replace(QUICK, looks=1), Listener())
    wait_for(lambda: service.reconciler.run_once() == 0 and set(names) <= set(heard))  # what was not heard yet is asked for in each pass
    heard.clear()
    for _ in range(6):
        assert service.reconciler.run_once() == 0
    assert [heard[number : number + 3].count(name) for number in range(0, 6, 3) for name in names] == [1] * 6
    service.ahead = timedelta(hours=1)  # all of them are silent now, and are found so whether it is their turn or not
    for name in names:
        done = service.until(name, ExperimentPhase.SUCCEEDED, ExperimentPhase.FAILED)
        assert [attempt.reason for attempt in stage_of(done, "prepare").attempts] == [StageReason.STALLED, StageReason.COMPLETED]
    assert not any(line[0] == "overlap" for line in service.diary())


def test_a_deadline_ends_a_stage(service: Service) -> None:
    service.submit(behaviour={"hang": {"prepare": [1]}}, compute={"default": {"deadline_seconds": 60}})
    service.until_stage("run-0", "prepare", StagePhase.RUNNING)
    service.ahead = timedelta(minutes=2)
    done = service.until("run-0", ExperimentPhase.FAILED)
    assert stage_of(done, "prepare").reason is StageReason.DEADLINE_EXCEEDED
    service.until_tidy()
    assert not service.diary() or service.diary()[-1][0] == "stop"


def test_a_stage_with_the_inputs_of_a_finished_one_takes_its_result(service: Service) -> None:
    service.submit(0, digests=True)
    first = service.until("run-0", ExperimentPhase.SUCCEEDED)
    begun = len(service.starts())
    service.submit(1, digests=True)
    second = service.until("run-1", ExperimentPhase.SUCCEEDED)
    assert len(service.starts()) == begun
    assert all(stage.adopted for stage in second.stages)
    assert stage_of(second, "main").result_key == keys.result(first.id, "main")
    assert first.id in stage_of(second, "main").message
    assert set(service.store.adopters(first.id)) == {keys.result(first.id, stage.name) for stage in first.stages}


def test_nothing_is_adopted_where_the_spec_says_never_or_the_result_is_gone(service: Service) -> None:
    service.submit(0, digests=True, comparison={"mixtures": []})
    first = service.until("run-0", ExperimentPhase.SUCCEEDED)
    service.submit(1, digests=True, comparison={"mixtures": []}, adopt="never")
    assert not any(stage.adopted for stage in service.until("run-1", ExperimentPhase.SUCCEEDED).stages)
    service.bucket.delete(keys.result(first.id, "prepare"))
    service.submit(2, digests=True, comparison={"mixtures": []})
    third = service.until("run-2", ExperimentPhase.SUCCEEDED)
    assert [stage.adopted for stage in third.stages] == [False, True, True]


def test_twins_in_one_plan_run_once(service: Service) -> None:
    service.submit(digests=True, doremi={"reference_weights": "uniform"})
    done = service.until("run-0", ExperimentPhase.SUCCEEDED)
    assert stage_of(done, "baseline-uniform").result_key == keys.result(done.id, "baseline-reference")
    assert ("baseline-uniform", 1) not in service.starts()


def test_rounds_end_when_the_weights_have_settled(service: Service) -> None:
    rounds = {"doremi": {"rounds": 3, "tolerance": 0.6}, "comparison": {"mixtures": ["averaged"]}}
    service.submit(0, digests=True, behaviour={"delta": 0.5}, **rounds)
    done = service.until("run-0", ExperimentPhase.SUCCEEDED, ExperimentPhase.FAILED)
    later = [stage_of(done, name) for name in ("reference-2", "proxy-2", "reference-3", "proxy-3")]
    assert all(stage.reason is StageReason.CONVERGED and stage.adopted for stage in later)
    assert stage_of(done, "proxy-3").result_key == keys.result(done.id, "proxy-1")
    assert stage_of(done, "reference-3").result_key == keys.result(done.id, "reference-1")
    assert stage_of(done, "proxy-3").digest == stage_of(done, "proxy-1").digest
    assert "less than the tolerance" in stage_of(done, "proxy-2").message
    assert [name for name, _ in service.starts()] == ["prepare", "reference-1", "proxy-1", "main", "evaluate"]
    config = json.loads(service.bucket.get(keys.attempt_config(done.id, "main", 1)).data)
    assert config["inputs"]["averaged"] == keys.result(done.id, "proxy-1")
    again = dict(rounds, doremi={"rounds": 3, "tolerance": 0.1})  # a search that does not settle must not take what settled ones made
    service.submit(1, digests=True, behaviour={"delta": 0.5}, **again)
    other = service.until("run-1", ExperimentPhase.SUCCEEDED, ExperimentPhase.FAILED)
    assert [stage.name for stage in other.stages if stage.adopted] == ["prepare", "reference-1", "proxy-1"]


def test_an_attempt_is_given_the_results_it_reads(service: Service) -> None:
    service.submit()
    done = service.until("run-0", ExperimentPhase.SUCCEEDED)

    def given(stage: str) -> Any:
        return json.loads(service.bucket.get(keys.attempt_config(done.id, stage, 1)).data)["inputs"]

    key = {stage.name: keys.result(done.id, stage.name) for stage in done.stages}
    assert given("prepare") == {"prepare": None, "reference": None, "averaged": None, "models": {}}
    assert given("proxy") == {"prepare": key["prepare"], "reference": key["reference"], "averaged": None, "models": {}}
    assert given("main")["averaged"] == key["proxy"]
    assert given("evaluate")["models"] == {name: key[name] for name in ("main", "baseline-reference", "baseline-uniform")}


def test_an_app_that_belongs_to_nobody_is_ended_and_removed(service: Service) -> None:
    record = service.submit(behaviour={"hang": {"prepare": [1]}})
    service.until_stage("run-0", "prepare", StagePhase.RUNNING)
    wait_for(service.starts)
    service.store.delete(record.id)
    service.until_tidy()
    assert service.diary()[-1][0] == "stop"
    assert not service.bucket.exists(keys.attempt_log(record.id, "prepare", 1))


def test_a_name_used_by_another_request_is_a_rejection(service: Service) -> None:
    record = service.submit(behaviour={"hang": {"prepare": [1]}})
    service.until_stage("run-0", "prepare", StagePhase.RUNNING)
    stage = record.stages[0]
    current = service.store.get("run-0")
    rewound = stage.model_copy(update={"digest": "f" * 64})  # as if the record had been restored from a copy
    service.store.replace(current.with_stage(rewound), [], service.now())
    done = service.until("run-0", ExperimentPhase.FAILED)
    assert stage_of(done, "prepare").reason is StageReason.LAUNCH_REJECTED
    assert "another request" in stage_of(done, "prepare").message


def test_the_loop_goes_on_when_a_part_does_not_answer(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.submit(comparison={"mixtures": []})
    watcher = Counting()
    reconciler = Reconciler(service.store, service.cluster, service.bucket, utc_now, QUICK, watcher)
    broken = {
        (service.store, "live"): StoreUnavailable("The database is locked."),
        (service.cluster, "look"): ClusterUnavailable("It is away."),
        (service.cluster, "launch"): ClusterUnavailable("It is away."),
        (service.bucket, "exists"): BucketUnavailable("It is away."),
        (service.store, "replace"): ValueError("a fault of ours"),
    }
    stop = threading.Event()
    thread = threading.Thread(target=reconciler.run, args=(stop,))
    with monkeypatch.context() as patch:
        for (part, name), error in broken.items():
            patch.setattr(part, name, once_in_two(getattr(part, name), error))
        thread.start()
        reconciler.wake()
        wait_for(lambda: service.store.get("run-0").phase is ExperimentPhase.SUCCEEDED)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    assert any(one.failed for one in watcher.passes)
    assert {"cluster_unavailable", "bucket_unavailable", "unexpected"} <= set(watcher.codes)
    assert service.starts() == [("prepare", 1), ("reference", 1), ("proxy", 1)]
    assert service.store.acquire_lease("somebody else", 1, utc_now()) is not None  # it was given back


class Counting(Watcher):
    def __init__(self) -> None:
        self.passes: list[Pass] = []
        self.codes: list[str] = []

    def passed(self, done: Pass) -> None:
        self.passes.append(done)

    def left(self, code: str) -> None:
        self.codes.append(code)


def once_in_two(function: Any, error: Exception) -> Any:
    calls = iter(range(10**9))

    def wrapped(*arguments: Any, **named: Any) -> Any:
        if next(calls) % 2 == 0:
            raise error
        return function(*arguments, **named)

    return wrapped


def test_two_reconcilers_at_once_are_safe(service: Service) -> None:
    for number in range(3):
        service.submit(number, behaviour={"fail": {"prepare": [1]}}, comparison={"mixtures": []})
    stop = threading.Event()
    hasty = Pace(interval=0.005, longest=0.01, lease=0.01, backoff=QUICK.backoff)  # leases that run out in the middle of passes
    loops = [Reconciler(service.store, service.cluster, service.bucket, utc_now, hasty) for _ in range(2)]
    threads = [threading.Thread(target=loop.run, args=(stop,)) for loop in loops]
    for thread in threads:
        thread.start()
    wait_for(lambda: all(service.store.get(f"run-{n}").phase is ExperimentPhase.SUCCEEDED for n in range(3)), 60)
    stop.set()
    for thread in threads:
        thread.join(5)
    assert sorted(service.starts()) == sorted([("prepare", 1), ("prepare", 2), ("reference", 1), ("proxy", 1)] * 3)
    assert not any(line[0] == "overlap" for line in service.diary())


def test_a_record_this_version_cannot_read_holds_up_nobody_else(service: Service) -> None:
    broken = make_experiment("xbbbbbbbbbb", "broken").model_copy(update={"spec_text": "from: another version"})
    service.store.create(broken, None, START)
    service.submit(comparison={"mixtures": []})
    service.until("run-0", ExperimentPhase.SUCCEEDED)
    assert service.store.get("broken").phase is ExperimentPhase.PENDING
