"""`make demo` itself, on a cut-down spec and small made-up packages: everything else is as a user gets it, in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.demo import __main__ as demo
from tests.examples.packages import make_packages

ROOT = Path(demo.__file__).parents[2]
TINY = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def cut_down(folder: Path) -> Path:
    """The demo's own spec with fewer steps, smaller models and shorter sequences."""
    spec: dict[str, Any] = yaml.safe_load(demo.SPEC.read_text())
    spec["tokenizer"]["vocab_size"], spec["sequence_length"] = 300, 32
    spec["models"] = {"proxy": {"config": TINY}, "main": {"config": {**TINY, "hidden_size": 24}}}
    for domain in spec["domains"].values():
        domain["validation"] = {"type": "held_out", "fraction": 0.3}  # of forty documents
    for training in spec["training"].values():
        training |= {"steps": 20, "save_every": 10, "evaluate_every": 10}
    path = folder / "examples" / "demo" / "spec.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(spec))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the demo finds its packages fetched and keeps its home; its service is stopped at the end."""
    place = tmp_path_factory.mktemp("demo")
    make_packages(place / ".cache" / "demo" / "packages")
    cut_down(place)
    yield place
    solfa(place, "down")


def run_demo(folder: Path) -> str:
    command = [sys.executable, "-m", "examples.demo", "--spec", folder / "examples" / "demo" / "spec.yaml"]
    command += ["--cache", folder / ".cache" / "demo", "--home", folder / "home"]
    environment = {**os.environ, "COLUMNS": "120", "SOLFA_PORT": "0"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def solfa(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "SOLFA_HOME": str(folder / "home")}
    return subprocess.run([demo.SOLFA, *arguments], env=environment, capture_output=True, text=True, check=False).stdout


def attempts(folder: Path, name: str) -> dict[str, int]:
    stages = json.loads(solfa(folder, "status", name, "--json"))["stages"]
    assert all(stage["phase"] == "succeeded" for stage in stages)
    return {stage["name"]: len(stage["attempts"]) for stage in stages}


@pytest.mark.timeout(1800)  # three demos, one after the other
def test_the_demo_ends_with_weights_and_a_comparison_and_a_second_one_reuses_them(folder: Path) -> None:
    said = run_demo(folder)
    for domain in ("aws_api", "crypto_hex", "wiki_fr"):
        assert said.count(domain) >= 3  # in the list of texts, the weights and the comparison
    assert "agree with the record" in said
    report = folder / ".cache" / "demo" / "demo.html"
    assert said.rstrip().endswith(f"As one file:   {report}")
    assert "Comparison of the mixtures" in report.read_text()
    first = attempts(folder, "demo")
    assert first == dict.fromkeys(("prepare", "reference", "proxy", "main", "baseline-reference", "baseline-uniform", "evaluate"), 1)

    assert "agree with the record" in run_demo(folder)
    assert attempts(folder, "demo") == first

    path = folder / "examples" / "demo" / "spec.yaml"
    spec = yaml.safe_load(path.read_text())
    spec["doremi"]["eta"] *= 2
    path.write_text(yaml.safe_dump(spec))
    assert "demo-2" in run_demo(folder)
    assert {stage for stage, number in attempts(folder, "demo-2").items() if number} == {"proxy", "main", "evaluate"}
