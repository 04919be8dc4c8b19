"""The product's promise: whatever is killed whenever, and started again, the search ends as if nothing had happened, to the last bit.

`kill -9` hits the service, supervisors, torchrun's agents and workers, and all of them at once, in every stage, at moments and upon victims
that a seed chooses; `solfa up` follows. All along a watcher looks for two processes that work at the same stage at the same time.
"""

import json
import random
from pathlib import Path

import pytest

from services.cli.connection import running
from tests.e2e.finished import SLOTS, copy_of, finished_search
from tests.e2e.outcome import assert_nothing_is_left, attempts, logs, outcome
from tests.e2e.overlaps import watched
from tests.e2e.search import SAVE_EVERY, write_search
from tests.services.waiting import wait_for
from tests.solfa import Part, Solfa, kill

LONGEST = 400.0  # seconds that a moment is waited for: a limit for a machine that does other things too
STAGES = ["prepare", "reference", "proxy", "main", "evaluate"]
STRUCK = [*STAGES, "proxy"]  # in the proxy twice
VICTIMS: list[tuple[Part, ...]] = [
    ("services",),
    ("supervisors",),
    ("programs",),
    ("services", "programs"),
    ("services", "supervisors"),
    ("services", "supervisors", "programs"),
]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_whoever_is_killed_whenever_the_search_ends_bit_equal(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    chance = random.Random(20261125)
    spec = write_search(tmp_path, comparison={"mixtures": ["averaged"]})
    solfa = Solfa(tmp_path / "home", tmp_path)
    try:
        solfa.up("--slots", SLOTS)
        solfa.run("submit", str(spec))
        with watched(solfa) as overlaps:
            for stage, victims in zip(sorted(STRUCK, key=STAGES.index), chance.sample(VICTIMS, len(STRUCK)), strict=True):
                wait_for_a_moment_in(solfa, stage, chance)
                strike(solfa, victims, chance)
                if "services" in victims:
                    wait_for(lambda: running(solfa.home) is None)  # a kill takes a moment
                    solfa.up("--slots", SLOTS)
            solfa.run("status", "search", "--watch")
            solfa.until_tidy()
        assert not overlaps
        assert sum(attempts(solfa, "search").values()) > len(STAGES), "no attempt was lost, so nothing was shown"
        assert any("resuming after step" in logs(solfa.home, stage) for stage in STAGES), "nothing was resumed, so nothing was shown"
        assert solfa.json("replay", "search")["agrees"]
        solfa.run("down")
        assert_nothing_is_left(solfa)
    finally:
        solfa.end()
    disturbed, undisturbed = outcome(solfa.home, STAGES), outcome(finished_search(tmp_path_factory) / "home", STAGES)
    for what, came_out in disturbed.items():
        assert came_out == undisturbed[what], what


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_search_that_is_cancelled_and_retried_ends_bit_equal(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Run afresh in the home of a finished twin, which a spec that says `adopt: never` takes nothing from."""
    finished = finished_search(tmp_path_factory)
    solfa = copy_of(finished, tmp_path)
    spec = write_search(tmp_path, name="afresh", adopt="never", comparison={"mixtures": []})
    try:
        solfa.up("--slots", SLOTS)
        experiment = solfa.json("submit", str(spec))["id"]
        wait_for(lambda: saved_steps(solfa, "proxy", experiment) >= SAVE_EVERY, LONGEST)
        solfa.client().cancel("afresh")  # the command takes longer to start than the proxy to end
        solfa.run("status", "afresh", "--watch", code=1)
        assert solfa.json("status", "afresh")["phase"] == "cancelled"
        assert not solfa.processes("supervisors", "programs")
        solfa.run("retry", "afresh")
        solfa.run("status", "afresh", "--watch")
        assert attempts(solfa, "afresh") == {"prepare": 1, "reference": 1, "proxy": 2}
        solfa.until_tidy()
        assert "resuming after step" in logs(solfa.home, "proxy")
        solfa.run("down")
        assert_nothing_is_left(solfa)
    finally:
        solfa.end()
    stages = ["prepare", "reference", "proxy"]
    assert outcome(solfa.home, stages, experiment) == outcome(finished / "home", stages)


def wait_for_a_moment_in(solfa: Solfa, stage: str, chance: random.Random) -> None:
    """Until the newest attempt of `stage` has begun, or reported, or saved so many steps; or the stage has its result already."""
    moment = chance.choice(["begun", "reported"] if stage in ("prepare", "evaluate") else ["begun", "saved", "saved", "saved"])
    steps = SAVE_EVERY * chance.randint(1, 3)
    here = solfa.home / "bucket" / "experiments"

    def come() -> bool:
        if list(here.glob(f"*/stages/{stage}/result.json")):
            return True
        if moment == "begun":
            return bool(list((solfa.home / "apps").glob(f"x*-{stage}-*/started.json")))
        if moment == "reported":
            return bool(list(here.glob(f"*/stages/{stage}/attempts/*/report.json")))
        return saved_steps(solfa, stage) >= steps

    wait_for(come, LONGEST)


def saved_steps(solfa: Solfa, stage: str, experiment: str = "*") -> int:
    """Of the newest train state."""
    found = list((solfa.home / "bucket" / "experiments").glob(f"{experiment}/stages/{stage}/states/latest.json"))
    try:
        return json.loads(found[0].read_text())["step"] if found else 0
    except FileNotFoundError:  # just tidied away
        return 0


def strike(solfa: Solfa, victims: tuple[Part, ...], chance: random.Random) -> None:
    """Kill all services and supervisors that are meant; of the programs some, or all."""
    for part in victims:
        pids = solfa.processes(part)
        for pid in pids if part != "programs" else chance.sample(pids, chance.randint(min(1, len(pids)), len(pids))):
            kill(pid)
