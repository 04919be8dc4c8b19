"""LocalCluster with real processes: what is launched runs once, ends when asked, and leaves nothing behind, whoever is killed."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api import keys
from api.bucket import open_bucket
from api.errors import LaunchRejected
from api.plan import make_plan
from api.stage_config import StageConfig
from services.launch.cluster import AppPhase, LaunchRequest
from services.launch.local import LocalCluster, passed_on
from services.launch.scheduler import NAME
from services.launch.supervisor import TOKEN
from tests.builders import make_spec
from tests.services.waiting import wait_for

LOOP = "import time; print('up', flush=True); [time.sleep(0.05) for _ in iter(int, 1)]"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + LOOP
FAMILY = (  # a child in a session of its own, as torchrun's workers are
    "import subprocess, sys, time; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'], start_new_session=True); "
    "print('child', child.pid, flush=True); time.sleep(1000)"
)

Start = Callable[..., LocalCluster]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A maker of clusters over one folder, as a restarted service would make them; all that runs is ended afterwards."""
    made: list[LocalCluster] = []

    def make(*program: str, slots: int = 4, grace_seconds: float = 30.0) -> LocalCluster:
        command = [sys.executable, *program]
        made.append(LocalCluster(tmp_path / "apps", (tmp_path / "bucket").as_uri(), slots, command, grace_seconds))
        return made[-1]

    yield make
    for app in made[0].look():
        made[0].cancel(app)
    for app in made[0].look():
        kill_all(tmp_path, app)
        wait_for(lambda app=app: made[0].status(app).phase not in (AppPhase.RUNNING, AppPhase.PENDING, AppPhase.UNKNOWN))
    for cluster in made:
        cluster.close()


def request(app: str = "xaaaaaaaaaa-prepare-1", attempt: int = 1) -> LaunchRequest:
    spec = make_spec()
    plan = make_plan(spec)
    config = StageConfig(
        experiment_id="xaaaaaaaaaa",
        spec=spec,
        spec_sha256="0" * 64,
        plan=plan["prepare"],
        siblings=plan.stages,
        attempt=attempt,
        digest=None,
    )
    return LaunchRequest(app, keys.attempt_config("xaaaaaaaaaa", "prepare", attempt), config)


def pids(tmp_path: Path, app: str) -> dict[int, str]:
    """Living processes of an app, with their command lines; the supervisor, which has no token, is not among them."""
    token = json.loads((tmp_path / "apps" / app / "request.json").read_text())["token"]
    found = {}
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdigit() and f"{TOKEN}={token}".encode() in (path / "environ").read_bytes():
                found[int(path.name)] = (path / "cmdline").read_bytes().decode()
        except OSError:
            continue
    return found


def supervisor_pid(tmp_path: Path, app: str) -> int:
    for path in Path("/proc").iterdir():
        try:
            parts = (path / "cmdline").read_bytes().split(b"\0") if path.name.isdigit() else []
        except OSError:
            continue
        if str(tmp_path / "apps" / app).encode() in parts and b"-S" in parts:
            return int(path.name)
    raise AssertionError(f"no supervisor of {app}")


def kill_all(tmp_path: Path, app: str) -> None:
    for pid in pids(tmp_path, app):
        os.kill(pid, signal.SIGKILL)


def ended(cluster: LocalCluster, app: str) -> AppPhase:
    wait_for(lambda: cluster.status(app).phase in (AppPhase.SUCCEEDED, AppPhase.FAILED, AppPhase.CANCELLED))
    return cluster.status(app).phase


def running(cluster: LocalCluster, app: str) -> None:
    wait_for(lambda: cluster.logs(app))


def test_an_app_runs_and_its_lines_are_kept(start: Start) -> None:
    cluster = start("-c", "import sys; print('out', sys.argv[1:]); print('err', file=sys.stderr)")
    cluster.launch(request())
    app = request().app
    assert ended(cluster, app) is AppPhase.SUCCEEDED
    assert cluster.status(app).exit_code == 0
    assert "err" in cluster.logs(app)
    assert any("--config" in line for line in cluster.logs(app))
    assert cluster.logs(app, tail=1) == cluster.logs(app)[-1:]
    assert list(cluster.follow(app)) == cluster.logs(app)
    cluster.remove(app)
    assert cluster.look() == {}
    assert cluster.logs(app) == []
    assert cluster.status(app).phase is AppPhase.ABSENT


def test_an_absent_app_may_be_asked_about_and_ended(start: Start) -> None:
    cluster = start("-c", "")
    assert cluster.status("nobody").phase is AppPhase.ABSENT
    cluster.cancel("nobody")
    cluster.remove("nobody")
    assert list(cluster.follow("nobody")) == []


def test_a_failing_program_says_so(start: Start) -> None:
    cluster = start("-c", "raise SystemExit(3)")
    cluster.launch(request())
    assert ended(cluster, request().app) is AppPhase.FAILED
    status = cluster.status(request().app)
    assert status.exit_code == 3
    assert not status.lost
    assert "exit code 3" in status.message


def test_a_program_that_is_not_there_says_so(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path / "apps", (tmp_path / "bucket").as_uri(), 1, ["/nonexistent/program"])
    cluster.launch(request())
    assert ended(cluster, request().app) is AppPhase.FAILED
    assert "could not be started" in cluster.status(request().app).message


def test_a_repeated_launch_is_an_adoption_and_another_request_an_error(start: Start, tmp_path: Path) -> None:
    cluster = start("-c", LOOP)
    cluster.launch(request())
    running(cluster, request().app)
    before = pids(tmp_path, request().app)
    restarted = start("-c", LOOP, slots=2)  # other slots, other threads: the same request all the same
    restarted.launch(request())
    assert pids(tmp_path, request().app) == before
    with pytest.raises(LaunchRejected, match="another request"):
        restarted.launch(LaunchRequest(request().app, request().config_key, request(attempt=2).config))


def test_cancel_ends_the_whole_family(start: Start, tmp_path: Path) -> None:
    cluster = start("-c", FAMILY)
    cluster.launch(request())
    running(cluster, request().app)
    assert len(pids(tmp_path, request().app)) == 2
    start("-c", FAMILY).cancel(request().app)  # by another service than the one that launched it
    assert ended(cluster, request().app) is AppPhase.CANCELLED
    assert pids(tmp_path, request().app) == {}


def test_a_program_that_ignores_sigterm_is_killed(start: Start, tmp_path: Path) -> None:
    cluster = start("-c", STUBBORN, grace_seconds=0.2)
    cluster.launch(request())
    running(cluster, request().app)
    cluster.cancel(request().app)
    assert ended(cluster, request().app) is AppPhase.CANCELLED
    assert pids(tmp_path, request().app) == {}


def test_a_killed_supervisor_takes_its_family_with_it_and_is_a_loss(start: Start, tmp_path: Path) -> None:
    cluster = start("-c", FAMILY)
    cluster.launch(request())
    running(cluster, request().app)
    os.kill(supervisor_pid(tmp_path, request().app), signal.SIGKILL)
    assert ended(cluster, request().app) is AppPhase.FAILED
    assert cluster.status(request().app).lost
    assert pids(tmp_path, request().app) == {}
    cluster.launch(request())  # a launch of what was begun starts nothing
    assert pids(tmp_path, request().app) == {}


def test_a_supervisor_told_to_end_is_a_loss(start: Start, tmp_path: Path) -> None:
    cluster = start("-c", LOOP)
    cluster.launch(request())
    running(cluster, request().app)
    os.kill(supervisor_pid(tmp_path, request().app), signal.SIGTERM)
    assert ended(cluster, request().app) is AppPhase.FAILED
    assert cluster.status(request().app).lost


def test_a_killed_worker_is_a_failure_and_no_loss(start: Start, tmp_path: Path) -> None:
    cluster = start("-c", LOOP)
    cluster.launch(request())
    running(cluster, request().app)
    kill_all(tmp_path, request().app)
    assert ended(cluster, request().app) is AppPhase.FAILED
    assert not cluster.status(request().app).lost
    assert "SIGKILL" in cluster.status(request().app).message


def test_after_a_kill_of_everything_the_app_is_lost_and_nothing_runs(start: Start, tmp_path: Path) -> None:
    cluster = start("-c", FAMILY)
    cluster.launch(request())
    running(cluster, request().app)
    os.kill(supervisor_pid(tmp_path, request().app), signal.SIGKILL)
    kill_all(tmp_path, request().app)
    restarted = start("-c", FAMILY)
    assert ended(restarted, request().app) is AppPhase.FAILED
    assert restarted.status(request().app).lost


def test_slots_are_taken_in_order(start: Start) -> None:
    cluster = start("-c", LOOP, slots=1)
    names = [f"xaaaaaaaaaa-prepare-{number}" for number in (1, 2, 3)]
    for number, name in enumerate(names, 1):
        cluster.launch(request(name, number))
        wait_for(lambda name=name: cluster.status(name).phase is not AppPhase.ABSENT)
    running(cluster, names[0])
    assert [cluster.status(name).phase for name in names[1:]] == [AppPhase.PENDING] * 2
    assert "free slot" in cluster.status(names[1]).message
    cluster.cancel(names[0])
    running(cluster, names[1])
    assert cluster.status(names[2]).phase is AppPhase.PENDING
    cluster.cancel(names[2])
    assert ended(cluster, names[2]) is AppPhase.CANCELLED
    assert cluster.logs(names[2]) == []


def test_a_launch_that_was_cut_short_is_taken_up(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = start("-c", "print('ran')")
    with monkeypatch.context() as patch:
        patch.setattr("services.launch.scheduler.subprocess.Popen", lambda *_, **__: None)  # dies before it starts the supervisor
        cluster.launch(request())
    assert cluster.status(request().app).phase is AppPhase.ABSENT
    assert list(cluster.look()) == [request().app]
    cluster.launch(request())
    assert ended(cluster, request().app) is AppPhase.SUCCEEDED
    assert cluster.logs(request().app) == ["ran"]


def test_an_app_ended_before_it_began_never_runs(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = start("-c", "print('ran')")
    with monkeypatch.context() as patch:
        patch.setattr("services.launch.scheduler.subprocess.Popen", lambda *_, **__: None)
        cluster.launch(request())
    cluster.cancel(request().app)
    cluster.launch(request())
    assert cluster.status(request().app).phase is AppPhase.CANCELLED
    assert cluster.logs(request().app) == []


def test_an_app_that_is_alive_is_not_forgotten(start: Start) -> None:
    cluster = start("-c", LOOP)
    cluster.launch(request())
    running(cluster, request().app)
    with pytest.raises(Exception, match="still running"):
        cluster.remove(request().app)


def test_two_dry_runs_are_equal_and_hold_no_secret(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("TORCHX_ROOT", "/elsewhere")
    cluster = start("-c", "")
    assert cluster.render(request()) == cluster.render(request())
    assert "hidden" not in json.dumps(cluster.render(request()))
    assert cluster.render(request())["app"] == request().app
    assert NAME == "local_durable"


def test_the_services_secrets_stay_with_it() -> None:
    seen = passed_on({"PATH": "/bin", "AWS_REGION": "x", "SOLFA_STORE": "postgresql://secret", "PGPASSWORD": "secret", "TORCHX_A": "1"})
    assert seen == {"PATH": "/bin", "AWS_REGION": "x"}


def test_more_machines_than_one_are_refused(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path / "apps", (tmp_path / "bucket").as_uri())
    spec = make_spec(compute={"default": {"replicas": {"min": 2, "max": 2}}})
    config = request().config.model_copy(update={"spec": spec})
    with pytest.raises(LaunchRejected, match="at least 2 machines"):
        cluster.launch(LaunchRequest("a", "k", config))


def test_devices_that_only_a_cluster_has_are_refused_and_machines_stay_one(start: Start) -> None:
    cluster = start("-c", LOOP)
    config = request().config.model_copy(update={"spec": make_spec(compute={"default": {"resources": {"rdma/hca": 1}}})})
    with pytest.raises(LaunchRejected, match=r"prepare asks for rdma/hca, which only a cluster hands out; leave compute\.resources out"):
        cluster.render(LaunchRequest("a", "k", config))
    cluster.launch(request())
    running(cluster, request().app)
    cluster.resize(request().app, 2)
    cluster.heal(request().app)
    seen = cluster.status(request().app)
    assert (seen.phase, seen.workers_up, seen.replicas) == (AppPhase.RUNNING, 1, None)


def test_the_stage_program_publishes_a_result(start: Start, tmp_path: Path) -> None:
    bucket = open_bucket((tmp_path / "bucket").as_uri())
    bucket.put(request().config_key, request().config.model_dump_json().encode())
    cluster = start("-I", "-S", str(Path(__file__).with_name("stage_program.py")))
    cluster.launch(request())
    assert ended(cluster, request().app) is AppPhase.SUCCEEDED, cluster.logs(request().app)
    assert bucket.exists(keys.result("xaaaaaaaaaa", "prepare"))
