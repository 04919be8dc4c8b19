"""Logs outlive their apps: the lines are in the bucket before anything is ended or removed, whoever dies meanwhile; none is lost later."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api import keys
from api.bucket import Bucket, open_bucket
from api.errors import ClusterUnavailable
from api.experiment import Experiment, Stage
from api.stage_config import AttemptFailure
from api.stages import StagePhase, StageReason
from services.failures import failure_of, own_lines
from services.launch.kubernetes import KubernetesCluster
from services.launch.local import LocalCluster
from services.logs import LogKeeper, merged
from services.reconciler import Pace, Reconciler, utc_now
from services.retry import Backoff
from services.store import ExperimentStore, open_store
from tests.builders import START, make_experiment
from tests.services.kube_server import KubeServer, kube_server
from tests.services.test_kubernetes_manifests import PLAIN
from tests.services.test_kubernetes_manifests import cluster as unreachable

ID, APP = "xaaaaaaaaaa", "xaaaaaaaaaa-prepare-1"
POD, FOLLOWER = f"{APP}-trainer-0-0", f"{APP}-trainer-1-0"


@dataclass
class World:
    """What outlives a service, and services that come and go."""

    kube: KubeServer
    store: ExperimentStore
    bucket: Bucket

    def service(self) -> tuple[Reconciler, KubernetesCluster]:
        """A new one, with nothing in its memory."""
        pace = Pace(lease=0.0, backoff=Backoff(timedelta(0), timedelta(0), timedelta(0)))
        cluster = KubernetesCluster(PLAIN, self.kube.client())
        return Reconciler(self.store, cluster, self.bucket, utc_now, pace), cluster

    def once(self) -> int:
        """A service's whole life: one pass."""
        reconciler, cluster = self.service()
        moves = reconciler.run_once()
        cluster.close()
        return moves

    def until(self, condition: Callable[[], bool], passes: int = 20) -> None:
        for _ in range(passes):
            if condition():
                return
            self.once()
        raise AssertionError(f"it did not come true: {self.stage}")

    @property
    def record(self) -> Experiment:
        return self.store.get(ID)

    @property
    def stage(self) -> Stage:
        return self.record.stages[0]

    def cancel(self) -> None:
        self.store.replace(self.record.model_copy(update={"cancel_requested_at": utc_now()}), [], utc_now())

    def log(self, attempt: int = 1) -> list[str]:
        blob = self.bucket.find(keys.attempt_log(ID, "prepare", attempt))
        return blob.data.decode().splitlines() if blob else []


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    store, bucket = open_store(f"sqlite:///{tmp_path}/solfa.db"), open_bucket((tmp_path / "bucket").as_uri())
    compute = {"default": {"retries": 0, "replicas": {"min": 1, "max": 2}}}
    store.create(make_experiment(ID, comparison={"mixtures": []}, compute=compute), None, START)
    with kube_server() as kube:
        made = World(kube, store, bucket)
        made.until(lambda: made.stage.phase is StagePhase.RUNNING)
        yield made
    store.close()


def test_a_service_that_dies_between_cancel_and_tidy_has_kept_the_log(world: World) -> None:
    world.kube.says(POD, "one", "two")
    world.kube.says(FOLLOWER, "elsewhere")
    world.cancel()
    world.kube.ends = False
    world.once()  # a service cancels, and dies
    assert sorted(world.log()) == ["[0] one", "[0] two", "[1] elsewhere"]
    del world.kube.logs[FOLLOWER]  # one pod is gone already, the other still saves
    world.kube.says(POD, "saved")
    world.once()
    assert sorted(world.log()) == ["[0] one", "[0] saved", "[0] two", "[1] elsewhere"]
    world.kube.ends = True
    world.kube.settle(world.kube.jobs[APP])
    assert world.kube.pods == {}
    world.until(lambda: not world.kube.jobs)
    assert world.stage.phase is StagePhase.CANCELLED
    assert sorted(world.log()) == ["[0] one", "[0] saved", "[0] two", "[1] elsewhere"]


def test_a_program_that_crashes_for_ever_is_ended_once_that_and_its_log_are_written_down(world: World) -> None:
    world.kube.says(POD, *(f"line {number}" for number in range(30)))
    world.kube.says(FOLLOWER, *(f"waits {number}" for number in range(30)))
    world.kube.crashes(POD, 3, restarts=3)
    world.until(lambda: not world.kube.jobs)
    assert (world.stage.phase, world.stage.reason) == (StagePhase.FAILED, StageReason.ATTEMPTS_EXHAUSTED)
    assert world.stage.message.startswith("Its program ended with exit code 3, 4 times.")
    failure = failure_of(world.record, world.stage, world.bucket, LogKeeper(world.service()[1], world.bucket))
    assert failure is not None
    assert (failure.exit_code, failure.rank, failure.replica) == (3, None, 0)
    assert failure.last_lines == [f"[0] line {number}" for number in range(10, 30)]


def test_what_torchrun_says_of_itself_is_no_last_word_of_a_program() -> None:
    """Its remarks, and its traceback and table at the end, which take all of the last lines; a traceback of ours stays."""
    ours = [
        "12:34:01 training",
        "Traceback (most recent call last):",
        '  File "/x/torch/distributed/elastic/errors.py", line 1',
        "ValueError: no",
    ]
    remark = "W1128 12:34:00.818000 9136 torch/distributed/run.py:766] Setting OMP_NUM_THREADS"
    failed = "E1128 12:34:04.818000 9136 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1) local_rank: 0"
    theirs = [
        "Traceback (most recent call last):",
        "  main()",
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ",
        "=====",
    ]
    assert own_lines([remark, *ours, failed, *theirs]) == ours
    assert own_lines([f"[0] {line}" for line in (remark, *ours, failed, *theirs)]) == [f"[0] {line}" for line in ours]
    assert own_lines([remark, failed]) == [remark, failed], "better than nothing"


def test_memory_that_runs_out_on_any_machine_is_told_with_that_machines_lines(world: World) -> None:
    world.kube.says(FOLLOWER, "much")
    world.kube.says(POD, "little")
    world.kube.crashes(FOLLOWER, 137, restarts=1, reason="OOMKilled")
    world.until(lambda: not world.kube.jobs)
    assert world.stage.message.startswith("Replica 1 ran out of memory (OOMKilled)")
    failure = failure_of(world.record, world.stage, world.bucket, LogKeeper(world.service()[1], world.bucket))
    assert failure is not None
    assert (failure.exit_code, failure.replica, failure.last_lines) == (137, 1, ["[1] much"])


def test_what_the_failing_rank_said_itself_comes_first(world: World) -> None:
    said = AttemptFailure(
        attempt=1, code="bad_data", message="No.", retryable=False, exit_code=64, rank=5, at=START, tail=["Traceback", "ValueError: no"]
    )
    world.bucket.put(keys.attempt_failure(ID, "prepare", 1), said.model_dump_json().encode())
    world.kube.jobs[APP]["status"]["state"]["phase"] = "Completed"
    world.until(lambda: not world.kube.jobs)
    failure = failure_of(world.record, world.stage, world.bucket, LogKeeper(world.service()[1], world.bucket))
    assert failure is not None
    assert json.loads(failure.model_dump_json()) == {
        "attempt": 1,
        "exit_code": 64,
        "rank": 5,
        "replica": None,
        "last_lines": ["Traceback", "ValueError: no"],
    }


def test_an_evicted_pods_lines_are_kept_before_it_is_replaced(world: World) -> None:
    world.kube.says(POD, "until here")
    world.kube.pods[POD]["status"] = {"phase": "Failed", "reason": "Evicted", "conditions": []}
    uid = world.kube.pods[POD]["metadata"]["uid"]
    world.once()
    assert world.kube.pods[POD]["metadata"]["uid"] != uid
    assert world.log() == ["[0] until here"]
    assert world.stage.attempt is not None
    assert world.stage.attempt.number == 1


def test_what_is_kept_does_while_the_cluster_is_away(tmp_path: Path) -> None:
    bucket = open_bucket(tmp_path.as_uri())
    keeper = LogKeeper(unreachable(PLAIN), bucket)
    with pytest.raises(ClusterUnavailable):
        keeper.read(ID, "prepare", 1, APP)
    bucket.put(keys.attempt_log(ID, "prepare", 1), b"kept\n")
    assert keeper.read(ID, "prepare", 1, APP) == ["kept"]
    with pytest.raises(ClusterUnavailable):
        keeper.keep(ID, "prepare", 1, APP)
    assert keeper.kept(ID, "prepare", 1) == ["kept"]


written = st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab")), max_size=12)


def shown(lines: list[tuple[int, str]]) -> list[str]:
    return [f"[{replica}] {text}" for replica, text in lines]


def of(replica: int, lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith(f"[{replica}]")]


@settings(derandomize=True, deadline=None, max_examples=300)
@given(written, written)
def test_no_line_is_ever_lost_and_none_is_told_twice(first: list[tuple[int, str]], later: list[tuple[int, str]]) -> None:
    kept, all_of_it = shown(first), shown(first + later)
    assert merged([], kept) == kept
    assert merged(kept, kept) == kept
    assert merged(kept, []) == kept
    assert merged(kept, all_of_it) == all_of_it
    assert merged(all_of_it, kept) == all_of_it
    assert merged(all_of_it, shown(later)) == all_of_it


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(st.integers(0, 2), max_size=20), st.data())
def test_machines_that_go_one_by_one_leave_all_that_they_said(replicas: list[int], data: st.DataObject) -> None:
    """Looks at a log that grows, of pods that go at some time, of which the last lines only are read: at the end all is there, in order."""
    whole = [f"[{replica}] line {number}" for number, replica in enumerate(replicas)]
    kept: list[str] = []
    looks = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    seen: dict[int, list[str]] = {}
    for end in looks:
        gone = data.draw(st.sets(st.integers(0, 2)))
        fresh = [line for line in whole[:end] if not any(line in of(replica, whole) for replica in gone)]
        for replica in {0, 1, 2} - gone:
            seen[replica] = of(replica, whole[:end])
        kept = merged(kept, fresh)
    for replica in range(3):
        assert of(replica, kept) == seen.get(replica, [])


@settings(derandomize=True, deadline=None, max_examples=500)
@given(st.text("ab\n\f", max_size=30), st.lists(st.integers(0, 30), max_size=5))
def test_a_line_that_was_half_written_is_completed(text: str, looks: list[int]) -> None:
    """One machine whose log is read at any moment: what is kept is what it had written, each line once."""
    kept: list[str] = []
    for end in sorted(looks):
        fresh = text[:end].removesuffix("\n").split("\n") if text[:end] else []
        kept = merged(kept, fresh)
        assert kept == fresh


def test_what_is_kept_is_read_as_it_was_written(tmp_path: Path) -> None:
    """A program may write a form feed, half a line, or nothing: the next look must find its own lines again."""
    bucket = open_bucket((tmp_path / "bucket").as_uri())
    cluster = LocalCluster(tmp_path / "apps", bucket.url)
    keeper, log = LogKeeper(cluster, bucket), tmp_path / "apps" / APP / "output.log"
    log.parent.mkdir()
    written = "\na\fb\u2028c\n\nhalf of a line\nthe last"
    for end in range(len(written) + 1):
        log.write_text(written[:end])
        for _ in range(2):
            keeper.keep(ID, "prepare", 1, APP)
        assert keeper.kept(ID, "prepare", 1) == cluster.logs(APP)
    assert keeper.kept(ID, "prepare", 1) == ["", "a\fb\u2028c", "", "half of a line", "the last"]
    cluster.close()
