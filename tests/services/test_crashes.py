"""The service dies before or after each write, launch, cancel and removal, is started again, and ends as if nothing had been.

Most crashes are exceptions at a chosen point (all that was in memory is then dropped, as by a death); the last test kills real processes,
and with them supervisors and programs. The stage program holds a lock while it runs, so that two at the same time would be told of.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from api.bucket import open_bucket
from api.experiment import Experiment
from services.launch.local import LocalCluster
from services.reconciler import Pace, Reconciler, utc_now
from services.retry import Backoff
from services.store import open_store
from tests.builders import START, make_experiment
from tests.forking import FORKED
from tests.services.test_reconciler import PROGRAM
from tests.services.waiting import wait_for

PACE = Pace(interval=0.005, longest=0.02, lease=0.02, backoff=Backoff(timedelta(0), timedelta(0), timedelta(0)))
RETRYING = {"seconds": 0.02, "fail": {"proxy": [1]}}
CANCELLED = {"hang": {"proxy": [1]}}
CHUNKS = 8


class Crash(BaseException):
    """The service's death."""


@dataclass
class Fuse:
    """Counts the points at which the service may die, before and after each effect, and lets it die at those in `at`."""

    at: set[int] = field(default_factory=set)
    passed: int = 0
    burnt: int = 0

    def point(self) -> None:
        self.passed += 1
        if self.passed - 1 in self.at:
            self.burnt += 1
            raise Crash

    def around(self, effect: Callable[..., Any]) -> Callable[..., Any]:
        def fragile(*arguments: Any, **named: Any) -> Any:
            self.point()
            answer = effect(*arguments, **named)
            self.point()
            return answer

        return fragile


def serve(root: Path, fuse: Fuse, behaviour: dict[str, Any]) -> None:
    """One life of a service over the folder `root`: until all is done and tidy, or until the fuse burns."""
    bucket, store = open_bucket((root / "bucket").as_uri()), open_store(f"sqlite:///{root}/solfa.db")
    cluster = LocalCluster(root / "apps", bucket.url, 2, PROGRAM, grace_seconds=1.0)
    reconciler = Reconciler(store, cluster, bucket, utc_now, PACE)
    scheduler = cluster._scheduler  # its two halves of a launch are effects too
    effects = {
        store: ["replace"],
        bucket: ["put", "create", "replace", "delete_prefix"],
        cluster: ["launch", "cancel", "heal", "resize", "remove"],
        scheduler: ["_make_folder", "_start_supervisor"],
    }
    for part, names in effects.items():
        for name in names:
            setattr(part, name, fuse.around(getattr(part, name)))

    def finished() -> bool:
        reconciler.run_once()
        record = store.get("run")
        if "hang" in behaviour and record.cancel_requested_at is None and "start xaaaaaaaaaa proxy 1" in diary(root):
            open_store(f"sqlite:///{root}/solfa.db").replace(record.model_copy(update={"cancel_requested_at": utc_now()}), [], utc_now())
        return record.phase.value in ("succeeded", "failed", "cancelled") and not cluster.look()

    try:
        wait_for(finished, 30, every=0.03)
    finally:
        cluster.close()
        store.close()


def submit(root: Path, behaviour: dict[str, Any]) -> None:
    compute = {"default": {"retries": 100}}
    record = make_experiment(
        name="run", description=json.dumps(behaviour), doremi={"objective": "hardest"}, comparison={"mixtures": []}, compute=compute
    )
    shutil.copy(empty_database(), root / "solfa.db")
    store = open_store(f"sqlite:///{root}/solfa.db")
    store.create(record, None, START)
    store.close()


@cache
def empty_database() -> Path:
    """Made once: migrations have tests of their own."""
    path = Path(tempfile.mkdtemp()) / "solfa.db"
    open_store(f"sqlite:///{path}").close()
    return path


def live_through(root: Path, fuse: Fuse, behaviour: dict[str, Any]) -> dict[str, Any]:
    """From the submission to the end, through as many lives as it takes. Returns what is left at the end, without its times."""
    root.mkdir(parents=True)
    submit(root, behaviour)
    while True:
        try:
            serve(root, fuse, behaviour)
            return state_of(root)
        except Crash:
            continue


def state_of(root: Path) -> dict[str, Any]:
    store = open_store(f"sqlite:///{root}/solfa.db")
    record = store.get("run")
    kinds = Counter(event.kind for event in store.events(record.id, 0, 1000))
    store.close()
    bucket = open_bucket((root / "bucket").as_uri())
    return {
        "stages": [summary(record, stage.name) for stage in record.stages],
        "finished": kinds["experiment_finished"],
        "launched": kinds["attempt_launched"],
        "keys": sorted(entry.key for entry in bucket.list("experiments/")),
        "diary": Counter(diary(root).splitlines()),
    }


def summary(record: Experiment, name: str) -> list[Any]:
    stage = record.stage(name)
    assert stage is not None
    attempts = [(attempt.number, attempt.reason, attempt.message, attempt.free) for attempt in stage.attempts]
    return [name, stage.phase, stage.reason, stage.message, stage.result_key, attempts]


def diary(root: Path) -> str:
    path = root / "bucket" / "diary.txt"
    return path.read_text() if path.exists() else ""


@cache
def undisturbed(folder: Path, kind: str) -> tuple[dict[str, Any], int]:
    """What is left when nothing happens, and how many points were passed."""
    fuse = Fuse()
    state = live_through(folder / kind, fuse, RETRYING if kind == "retrying" else CANCELLED)
    return state, fuse.passed


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calm")


def test_the_undisturbed_runs_are_what_the_others_are_held_against(calm: Path) -> None:
    retrying, points = undisturbed(calm, "retrying")
    assert [stage[1] for stage in retrying["stages"]] == ["succeeded", "succeeded"]
    assert sum("start" in line for line in retrying["diary"]) == 3
    cancelled, more_points = undisturbed(calm, "cancelled")
    assert [stage[1] for stage in cancelled["stages"]] == ["succeeded", "cancelled"]
    assert points + more_points >= 100


@pytest.mark.parametrize("kind", ["retrying", "cancelled"])
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_crash_at_any_effect_changes_nothing(tmp_path: Path, calm: Path, kind: str, chunk: int) -> None:
    expected, points = undisturbed(calm, kind)
    behaviour = RETRYING if kind == "retrying" else CANCELLED
    for point in range(chunk, points - 2, CHUNKS):
        fuse = Fuse({point})
        assert live_through(tmp_path / str(point), fuse, behaviour) == expected, f"after a crash at point {point}"
        assert fuse.burnt == 1 or point > 0.8 * points  # the last ones ask for a cancel again, as often as it takes


@pytest.mark.parametrize("seed", range(4))
def test_crash_upon_crash_changes_nothing(tmp_path: Path, calm: Path, seed: int) -> None:
    expected, points = undisturbed(calm, "retrying")
    chance = random.Random(seed)
    for run in range(3):
        at = set(chance.sample(range(points), 6))
        assert live_through(tmp_path / str(run), Fuse(at), RETRYING) == expected, f"after crashes at {sorted(at)}"


def run_forever(root: Path) -> None:
    """A service process, until it is killed."""
    bucket, store = open_bucket((root / "bucket").as_uri()), open_store(f"sqlite:///{root}/solfa.db")
    cluster = LocalCluster(root / "apps", bucket.url, 2, PROGRAM, grace_seconds=1.0)
    Reconciler(store, cluster, bucket, utc_now, PACE).run(threading.Event())


def processes(root: Path, what: str) -> list[int]:
    """Living supervisors, or programs, of the apps below `root`."""
    marks = {"supervisors": str(root / "apps").encode() + b"/", "programs": (root / "bucket").as_uri().encode()}
    found = []
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdigit() and marks[what] in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("seed", range(5))
def test_whoever_is_killed_whenever_nothing_is_lost_and_nothing_runs_twice_at_once(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    submit(tmp_path, {"seconds": 0.1})
    store = open_store(f"sqlite:///{tmp_path}/solfa.db")
    for _ in range(8):
        service = FORKED.Process(target=run_forever, args=(tmp_path,), daemon=True)
        service.start()
        seen = len(store.events(None, 0, 1000))
        moves = chance.randint(1, 3)
        wait_for(lambda seen=seen, moves=moves: len(store.events(None, 0, 1000)) >= seen + moves or store.get("run").phase == "succeeded")
        victims = {"supervisors": chance.random() < 0.5, "programs": chance.random() < 0.5}
        for pid in [pid for what, killed in victims.items() if killed for pid in processes(tmp_path, what)]:
            kill(pid)
        kill(service.pid or 0)
        service.join()
    last = FORKED.Process(target=run_forever, args=(tmp_path,), daemon=True)
    last.start()
    wait_for(lambda: store.get("run").phase == "succeeded" and not list((tmp_path / "apps").glob("x*")), 30)
    kill(last.pid or 0)
    last.join()
    store.close()
    lines = diary(tmp_path).splitlines()
    assert not [line for line in lines if line.startswith("overlap")]
    assert all(count == 1 for line, count in Counter(lines).items() if line.startswith("start"))
    assert not processes(tmp_path, "programs")
    for stage in state_of(tmp_path)["stages"]:
        assert [attempt[0] for attempt in stage[5]] == list(range(1, len(stage[5]) + 1))
        assert stage[4] is not None


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
