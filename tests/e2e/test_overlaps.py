"""The watcher that the kill tests rely on sees what it is there to see."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.overlaps import watched
from tests.services.waiting import wait_for
from tests.solfa import Solfa

KEY = "experiments/xaaaaaaaaaa/stages/{stage}/attempts/{attempt}/config.json"


def program(solfa: Solfa, stage: str, attempt: int) -> subprocess.Popen[bytes]:
    """A process that is called as a worker is, and waits."""
    named = ["--bucket", f"file://{solfa.home}/bucket", "--config", KEY.format(stage=stage, attempt=attempt)]
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()", *named], stdin=subprocess.PIPE)


@pytest.mark.parametrize("second", [("proxy", 2), ("proxy", 1), ("main", 1)])
def test_two_at_one_stage_are_seen_and_two_at_two_stages_are_none_of_its_business(tmp_path: Path, second: tuple[str, int]) -> None:
    solfa = Solfa(tmp_path / "home", tmp_path)
    with watched(solfa) as found, program(solfa, "proxy", 1) as one, program(solfa, *second) as two:
        wait_for(lambda: len(solfa.processes("programs")) == 2)
        if second[0] == "proxy":
            wait_for(lambda: found)
        one.kill()
        two.kill()
    assert bool(found) == (second[0] == "proxy")
