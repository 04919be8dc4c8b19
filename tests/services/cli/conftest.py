"""The command over the services that the route tests use: a small real stage program works there in the trainer's place."""

from pathlib import Path

import pytest

from tests.services.running import Running
from tests.solfa import Solfa


@pytest.fixture
def solfa(served: Running, tmp_path: Path) -> Solfa:
    """Over the module's service; experiments get names of their own."""
    return Solfa(tmp_path / "home", tmp_path, str(served.http.base_url))


@pytest.fixture
def looker(gallery: Running, tmp_path: Path) -> Solfa:
    """Over the service that has an experiment in every kind of phase; read only."""
    return Solfa(tmp_path / "home", tmp_path, str(gallery.http.base_url))
