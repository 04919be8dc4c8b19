"""Services that several test modules share: one for each module, and one with an experiment in every kind of phase."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import postgres_url
from tests.services.running import Running, running
from tests.services.waiting import wait_for


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A running service; tests that share it use names of their own."""
    with running(tmp_path_factory.mktemp("served")) as service:
        yield service


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`done` has succeeded, `broken` failed in its reference, `ended` was cancelled, `live` hangs in its proxy. Read only."""
    with running(tmp_path_factory.mktemp("gallery")) as service:
        service.submit("live", {"steps": 6, "hang": {"proxy": [1]}})
        service.submit("broken", {"steps": 6, "permanent": ["reference"]})
        service.submit("ended", {"hang": {"prepare": [1]}})
        service.until_stage("ended", "prepare", "running")
        assert service.http.post("/v1/experiments/ended/cancel").status_code == 202
        service.submit("done", {"steps": 6})
        assert [service.until(name)["phase"] for name in ("done", "broken", "ended")] == ["succeeded", "failed", "cancelled"]
        service.until_stage("live", "proxy", "running")
        for path in ("/live/weights/history", "/live/weights/current"):
            wait_for(lambda path=path: service.get(path).status_code == 200)
        yield service


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of an empty database of each kind; skipped where PostgreSQL is not installed."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/below/solfa.db"  # in a folder that is made
    else:
        yield from postgres_url()
