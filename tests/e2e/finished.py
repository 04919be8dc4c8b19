"""One undisturbed search, run once in a test session whatever the number of test processes, and copied by each test that looks at it."""

import fcntl
import shutil
from pathlib import Path

import pytest

from tests.e2e.search import write_search
from tests.solfa import Solfa

SLOTS = "2"


def finished_search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `search.yaml`, its texts, and the home in which it has run to its end; no service runs there any more."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if base.name.startswith("popen-") else base) / "finished"  # xdist gives each of its processes a folder below one
    root.mkdir(exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "done").exists():
            if (root / "home").exists():
                pytest.fail("the undisturbed search failed, as an earlier test said")
            _run(root)
            (root / "done").touch()
    return root


def copy_of(finished: Path, folder: Path) -> Solfa:
    """The same home in a folder of one's own; the texts stay where they are, as the spec names them."""
    shutil.copytree(finished / "home", folder / "home")
    return Solfa(folder / "home", finished)


def _run(root: Path) -> None:
    spec = write_search(root)
    solfa = Solfa(root / "home", root)
    try:
        solfa.up("--slots", SLOTS)
        (root / "submitted.txt").write_text(solfa.run("submit", str(spec), "--wait"))
        solfa.until_tidy()
        solfa.run("down")
    finally:
        solfa.end()
