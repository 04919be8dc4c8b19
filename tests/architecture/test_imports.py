"""Who imports what: the contracts in pyproject.toml hold, each of them can break, and what should start fast does."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.sources import PACKAGES, ROOT

# What each contract must catch: a line added to a module.
OFFENCES = {
    "The planes meet only in the contract": ("services/inputs.py", "import trainer.doremi"),
    "The contract imports neither plane": ("api/keys.py", "import services.retry"),
    "The control plane is torch-free": ("services/routes/health.py", "import torch"),
    "The trainer knows no cluster": ("trainer/report.py", "import kubernetes"),
    "Only services.launch speaks TorchX and Kubernetes": ("services/tidy.py", "import torchx.runner"),
    "Only services.store speaks SQL": ("services/weights.py", "import sqlalchemy"),
    "Only api.bucket speaks to object storage, only api.client HTTP": ("services/observer.py", "import obstore"),
    "Deciding does nothing": ("trainer/doremi.py", "import time"),
    "Requests record, loops act": ("services/routes/stages.py", "import services.launch.local"),
}
HEAVY = ("torch", "datasets", "transformers", "tokenizers", "numpy", "pyarrow")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter says of a copy of the packages with every offence in it."""
    folder = tmp_path_factory.mktemp("offences")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path, line in OFFENCES.values():
        module = folder / path
        module.write_text(f"{module.read_text()}\n{line}\n")
    return _lint(folder, expected=1)


def _lint(folder: Path, expected: int) -> str:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1", "COLUMNS": "200"}
    found = subprocess.run([*command, *options], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == expected, found.stdout + found.stderr
    return found.stdout


def test_every_contract_holds() -> None:
    verdicts = dict(re.findall(r"^(.+) (KEPT|BROKEN)\b", _lint(ROOT, expected=0), flags=re.MULTILINE))
    assert verdicts == dict.fromkeys(OFFENCES, "KEPT")


@pytest.mark.parametrize("contract", OFFENCES)
def test_every_contract_can_break(broken: str, contract: str) -> None:
    assert f"{contract} BROKEN" in broken
    path, line = OFFENCES[contract]
    offender, imported = path.removesuffix(".py").replace("/", "."), line.removeprefix("import ")
    assert f"{offender} -> {imported.partition('.')[0]}" in broken


def loaded(statement: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has loaded after it."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout.split())


def test_the_whole_service_leaves_torch_unloaded() -> None:
    found = loaded("import services.__main__, services.server, services.cli.up")
    assert {"fastapi", "torchx", "sqlalchemy"} <= found
    assert not found & set(HEAVY)


def test_commands_that_only_ask_load_no_service() -> None:
    found = loaded("import services.cli")
    assert not found & {
        *HEAVY,
        "fastapi",
        "starlette",
        "uvicorn",
        "torchx",
        "kubernetes",
        "sqlalchemy",
        "alembic",
        "obstore",
        "prometheus_client",
    }


def test_a_supervisor_is_the_standard_library_only() -> None:
    found = loaded(f"import runpy; runpy.run_path({str(ROOT / 'services/launch/supervisor.py')!r})")
    assert (
        not found - set(sys.stdlib_module_names) - loaded("pass")
    )  # an interpreter of this environment loads an editable install's finder
