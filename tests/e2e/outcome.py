"""What a search came to, bit for bit, and what it left behind; read from the bucket's files, so that no service is needed."""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

from tests.services.waiting import wait_for
from tests.solfa import Solfa

CLOCKED = ("seconds", "tokens_per_second")  # of a result: how fast it went, not what came out


def outcome(home: Path, stages: list[str], experiment: str = "*") -> dict[str, Any]:
    """Figures, weights, history and the digests of every file of `stages`, of the experiment with that id, or of the home's only one."""
    (folder,) = (home / "bucket" / "experiments").glob(experiment)
    found: dict[str, Any] = {}
    for stage in stages:
        result = json.loads((folder / "stages" / stage / "result.json").read_text())
        trained, searched = result["trained"] or {}, result["searched"] or {}
        found[f"{stage}: data"] = _counted(result["prepared"])
        found[f"{stage}: figures"] = {name: value for name, value in trained.items() if name not in CLOCKED}
        found[f"{stage}: weights"] = {name: value for name, value in searched.items() if name != "history"}
        found[f"{stage}: history"] = _history(home, searched.get("history", []))
        found[f"{stage}: files"] = {role: _digests(home / "bucket" / key) for role, key in result["files"].items() if role != "tables"}
        rows = (result["compared"] or {"rows": []})["rows"]
        found[f"{stage}: comparison"] = [(row["evaluation"], row["curve"]) for row in rows if row["mixture"] == "averaged"]
    return found


def attempts(solfa: Solfa, name: str) -> dict[str, int]:
    """Number of attempts by stage."""
    return {stage["name"]: len(stage["attempts"]) for stage in solfa.json("status", name)["stages"]}


def logs(home: Path, stage: str) -> str:
    """Of all attempts of a stage, of every experiment of the home."""
    files = sorted((home / "bucket" / "experiments").glob(f"*/stages/{stage}/attempts/*/log.txt"))
    return "\n".join(path.read_text(errors="replace") for path in files)


def assert_nothing_is_left(solfa: Solfa) -> None:
    """No process, app or half-made folder, no train state or scratch of a stage that succeeded. The service must have been stopped."""
    home = solfa.home
    wait_for(lambda: not solfa.processes("services", "supervisors", "programs"))
    assert [path.name for path in (home / "apps").iterdir()] == [".slots"]
    assert not (home / "service.json").exists()
    assert not [path for path in home.rglob("*") if "partial" in path.name or path.name.startswith((".new-", ".removed-"))]
    for result in (home / "bucket" / "experiments").glob("*/stages/*/result.json"):
        assert not list(result.parent.glob("states/*")), f"train states of {result.parent.name}"
        assert not list(result.parent.glob("scratch/*")), f"scratch of {result.parent.name}"
        made = json.loads(result.read_text())["attempt"]
        assert {path.name for path in result.parent.glob("output/*")} <= {f"a{made}"}, f"what lost attempts of {result.parent.name} made"


def _counted(prepared: dict[str, Any] | None) -> dict[str, Any] | None:
    """All that was counted; the epochs that a spec would make follow from its stages, which are not the same in every test."""
    if prepared is None:
        return None
    domains = {name: domain | {"planned_epochs": None} for name, domain in prepared["domains"].items()}
    return prepared | {"domains": domains}


def _history(home: Path, keys: list[str]) -> list[dict[str, Any]]:
    """Every step, without the number of the attempt that took it."""
    records = []
    for key in keys:
        _, *lines = gzip.decompress((home / "bucket" / key).read_bytes()).decode().splitlines()
        records += [{name: value for name, value in json.loads(line).items() if name != "attempt"} for line in lines]
    return records


def _digests(made: Path) -> dict[str, str]:
    files = sorted(path for path in made.rglob("*") if path.is_file()) if made.is_dir() else [made]
    return {str(path.relative_to(made)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
