"""Golden files: what a reviewer reads, and a change must not move unseen.

After a change that is meant: `REGENERATE=1 make test`, or `REGENERATE=1 pytest` of the tests in question; then read the difference.
"""

import os
from pathlib import Path

GOLDEN = Path(__file__).with_name("golden")


def assert_golden(name: str, shown: str) -> None:
    """Hold `shown` against tests/golden/`name`; with REGENERATE set, write it first."""
    path = GOLDEN / name
    if os.environ.get("REGENERATE"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(shown)
    assert path.exists(), f"tests/golden/{name} is not there; read tests/reference.py"
    assert shown == path.read_text(), f"tests/golden/{name} differs; if that is meant, REGENERATE=1 and read the difference"
