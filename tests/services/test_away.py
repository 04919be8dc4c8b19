"""A running service whose bucket or database goes away: it says so, loses nothing, and goes on by itself when they are back."""

import sqlite3
import uuid
from pathlib import Path

import psycopg
import pytest

from tests.postgres import postgres_url, postgresql
from tests.services.running import Running, problem, running
from tests.services.waiting import wait_for

READS = ("", "/kept", "/kept/stages", "/kept/events", "/kept/weights")


def refused(service: Running, path: str, code: str) -> None:
    answer = service.http.get(path)
    assert problem(answer, 503, code)
    assert int(answer.headers["retry-after"]) > 0


def test_a_bucket_that_is_gone_is_said_to_be_and_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        service.submit("kept", {"hang": {"proxy": [1]}, "steps": 4}, comparison={"mixtures": []})
        service.until_stage("kept", "proxy", "running")
        wait_for(lambda: service.get("/kept/weights/history").status_code == 200)
        before = service.get("/kept").json()
        folder = tmp_path / "bucket"
        folder.rename(tmp_path / "unmounted")

        refused(service, "/readyz", "bucket_unavailable")
        refused(service, "/v1/experiments/kept/stages", "bucket_unavailable")
        answer = service.post(service.spec("not-now"))
        assert "put it back, or mount it" in problem(answer, 503, "bucket_unavailable")["detail"]
        assert service.get("/not-now").status_code == 404
        assert service.http.delete("/v1/experiments/kept").status_code == 409
        assert service.http.get("/healthz").status_code == 200
        passes = service.http.get("/metrics").text.count('outcome="failed"')
        wait_for(lambda: service.http.get("/metrics").text.count('outcome="failed"') > passes or passes)
        assert service.get("/kept").json() == before, "nothing is concluded from a bucket that is not there"

        (tmp_path / "unmounted").rename(folder)
        assert wait_for(lambda: service.http.get("/readyz").status_code == 200)
        assert service.post(service.spec("now")).status_code == 202
        assert len(service.get("/kept/weights/history").json()["checkpoints"]) == 4
        service.http.post("/v1/experiments/kept/cancel")
        service.until("kept", "cancelled")


def test_an_experiment_whose_bucket_is_away_is_not_deleted(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        service.submit("kept", {"permanent": ["prepare"]})
        service.until("kept", "failed")
        wait_for(lambda: not service.cluster.look())
        (tmp_path / "bucket").rename(tmp_path / "unmounted")
        problem(service.http.delete("/v1/experiments/kept"), 503, "bucket_unavailable")
        (tmp_path / "unmounted").rename(tmp_path / "bucket")
        assert service.http.delete("/v1/experiments/kept").status_code == 204


def test_a_database_that_another_program_has_locked_can_be_read_and_is_written_later(tmp_path: Path) -> None:
    with running(tmp_path, reconcile=False) as service:
        service.submit("kept")
        other = sqlite3.connect(tmp_path / "solfa.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        answer = service.post(service.spec("later"), Idempotency_Key="later")
        assert "locked by another process" in problem(answer, 503, "store_unavailable")["detail"]
        assert answer.headers["retry-after"]
        assert service.get("/kept").status_code == 200
        other.execute("ROLLBACK")
        other.close()
        assert service.get("/later").status_code == 404
        assert service.post(service.spec("later"), Idempotency_Key="later").status_code == 202


@pytest.mark.xdist_group("postgresql")
def test_a_database_that_hangs_up_is_waited_for(tmp_path: Path) -> None:
    url = next(postgres_url())
    server, _, database = url.replace("postgresql+psycopg", "postgresql").rpartition("/")
    with running(tmp_path, database=url) as service, psycopg.connect(f"{server}/postgres", autocommit=True) as owner:
        service.submit("kept", {"seconds": 0.5}, comparison={"mixtures": []})
        service.until_stage("kept", "prepare", "running")
        owner.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")  # type: ignore[call-overload]  # a name cannot be a parameter
        owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,))
        refused(service, "/readyz", "store_unavailable")
        for path in READS:
            refused(service, f"/v1/experiments{path}", "store_unavailable")
        assert problem(service.post(service.spec("later"), Idempotency_Key=uuid.uuid4().hex), 503, "store_unavailable")
        wait_for(lambda: "solfa_store_up 0.0" in service.http.get("/metrics").text)  # it counts at most every few seconds
        owner.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")  # type: ignore[call-overload]  # as above
        assert wait_for(lambda: service.http.get("/readyz").status_code == 200)
        assert service.until("kept")["phase"] == "succeeded"
        assert service.post(service.spec("later")).status_code == 202


def test_a_database_that_is_stopped_and_started_again_is_gone_on_with(tmp_path: Path) -> None:
    with postgresql("127.0.0.1") as server:
        server.start()  # it runs
        with running(tmp_path, database=server.url("solfa", "postgresql+psycopg")) as service:
            service.submit("kept", {"hang": {"prepare": [1]}})
            service.until_stage("kept", "prepare", "running")
            server.stop()
            server.stop()
            wait_for(lambda: service.http.get("/readyz").status_code == 503)
            assert problem(service.get("/kept"), 503, "store_unavailable")
            server.start()
            wait_for(lambda: service.http.get("/readyz").status_code == 200)
            assert service.get("/kept").json()["stages"][0]["phase"] == "running"
            server.restart()
            wait_for(lambda: service.http.post("/v1/experiments/kept/cancel").status_code == 202)
            wait_for(lambda: service.get("/kept").json().get("phase") == "cancelled")
            assert len(service.get("/kept/stages/prepare/attempts").json()) == 1
