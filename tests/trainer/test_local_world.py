"""The processes of an attempt on one machine, as the launcher starts them: nobody on the network reaches them, and they meet again when
the agent starts them anew."""

import json
import os
import signal
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from api.stage_config import StageConfig
from services.launch.cluster import AppPhase, LaunchRequest
from services.launch.local import LocalCluster
from tests.processes import below, listening
from tests.services.waiting import wait_for
from tests.trainer import equality
from tests.trainer.stage_runner import TINY_TRAINING, StageRunner

APP = "xtest-proxy-1"
TWO = {"default": {"processes": 2, "parallelism": "ddp"}}


def launched(runner: StageRunner, cluster: LocalCluster, folder: Path) -> int:
    """The pid of the agent of attempt 1 of the proxy."""
    key = runner.config("proxy")
    cluster.launch(LaunchRequest(APP, key, StageConfig.model_validate_json(runner.bucket.get(key).data)))
    wait_for(lambda: cluster.status(APP).phase is AppPhase.RUNNING)
    return int(json.loads((folder / APP / "started.json").read_text())["pid"])


def test_processes_that_the_agent_starts_anew_meet_again_and_end_as_if_none_had_been_lost(undisturbed: StageRunner, tmp_path: Path) -> None:
    """The second world's file is not the first one's. The undisturbed twin has met over TCP, as on a cluster: where makes no difference."""
    longer = {"compute": TWO, "training": {"proxy": {**TINY_TRAINING, "steps": 40}}}  # or it might be through before it is killed
    whole, runner = (undisturbed.copy(tmp_path / name, "proxy", **longer) for name in ("whole", "killed"))
    whole.finish("proxy", processes=2)
    agent = runner.start("proxy", processes=2, restarts=1)
    try:
        wait_for(lambda: runner.pointer("proxy"), 300)
        os.kill(min(below(agent.pid)), signal.SIGKILL)
        output, _ = agent.communicate(timeout=300)
    finally:
        agent.kill()
    assert agent.returncode == 0, output
    assert "resuming after step" in output
    assert runner.report("proxy").restarts == 1
    equality.assert_same_bits(equality.state(runner, "proxy", tmp_path), equality.state(whole, "proxy", tmp_path))
    assert equality.history(runner, "proxy") == equality.history(whole, "proxy")
    assert equality.result(runner, "proxy") == equality.result(whole, "proxy")


def test_nobody_but_this_machine_reaches_the_processes_of_an_attempt(undisturbed: StageRunner, tmp_path: Path) -> None:
    """What torch keeps in a TCP store is unpickled by whoever reads it, and torch's TCP stores listen on every address."""
    training = {"proxy": {**TINY_TRAINING, "steps": 100_000, "save_every": 5}}
    runner = undisturbed.copy(tmp_path, "proxy", training=training, compute=TWO)
    cluster = LocalCluster(tmp_path / "apps", runner.bucket.url, grace_seconds=0.0)
    seen: set[IPv4Address | IPv6Address] = set()

    def saved() -> bool:
        seen.update(listening({agent, *below(agent)}))
        return (found := runner.pointer("proxy")) is not None and found.step >= 10

    try:
        agent = launched(runner, cluster, tmp_path / "apps")
        wait_for(saved, 300, every=0.02)
        assert len(below(agent)) >= 2
    finally:
        cluster.cancel(APP)
        wait_for(lambda: cluster.status(APP).phase not in (AppPhase.PENDING, AppPhase.RUNNING, AppPhase.UNKNOWN))
        cluster.close()
    assert seen, "the two must have met somewhere"
    assert all(address.is_loopback for address in seen), seen
