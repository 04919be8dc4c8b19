"""Schemathesis against a running service, with every check on: only documented answers, whatever is asked, by one request or by many.

The whole run is one process, derandomised; services/../schemathesis.toml says where a refusal is right. Requests that fit the schema and
those that do not, each bound of each parameter, and chains of requests along the links between operations.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from api.access import NewToken, Scope
from api.client import Client
from api.experiment import Experiment
from services.reconciler import Pace
from tests.services.running import Running, running
from tests.services.waiting import wait_for

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
ADMIN = "an administrator's token of the settings"
ANSWERED = re.compile(r'solfa_http_request_duration_seconds_count\{method="(\w+)",route="([^"]+)",status="(\d)\d\d"\} [1-9]')


def submit_all(service: Running) -> None:
    """An experiment in each kind of phase, and some to be cancelled, retried and deleted."""
    service.submit("live", {"steps": 6, "hang": {"proxy": [1]}}, compute={"default": {"replicas": {"min": 1, "max": 128}}})
    service.submit("broken", {"permanent": ["reference"]})
    service.submit("done", {"steps": 6})
    for number in range(4):
        for name, behaviour in (
            ("hung", {"hang": {"prepare": [1]}}),
            ("lost", {"permanent": ["prepare"]}),
            ("over", {"permanent": ["prepare"]}),
        ):
            service.submit(f"{name}-{number}", behaviour, comparison={"mixtures": []})
    for name in ("done", "broken", *(f"{name}-{number}" for name in ("lost", "over") for number in range(4))):
        service.until(name)
    service.until_stage("live", "proxy", "running")
    for path in ("/live/weights/history", "/live/weights/current"):
        wait_for(lambda path=path: service.get(path).status_code == 200)


def as_admin_of(service: Running, project: str) -> str:
    """A token of that project's administrator, which the service's client shows from now on."""
    with Client(str(service.http.base_url), token=ADMIN) as client:
        secret = client.create_token(NewToken(name=f"admin-of-{project}", scope=Scope.ADMIN, project=project)).secret
    service.http.headers["Authorization"] = f"Bearer {secret}"
    return secret


def submit_elsewhere(service: Running) -> list[Experiment]:
    """In another project: names that the requests know of, one of which theirs has too."""
    as_admin_of(service, "elsewhere")
    for name in ("elsewhere", "done"):
        service.submit(name, {"permanent": ["prepare"]}, comparison={"mixtures": []})
        service.until(name)
    return records_elsewhere(service)


def records_elsewhere(service: Running) -> list[Experiment]:
    return service.store.within("elsewhere").page(100).experiments


@pytest.mark.slow
def test_whatever_is_asked_gets_a_documented_answer(tmp_path: Path) -> None:
    options = {"check_sources": False, "access": "required", "admin_token": ADMIN}
    with running(tmp_path / "home", pace=Pace(interval=1.0), **options) as service:
        before = submit_elsewhere(service)
        token = as_admin_of(service, "here")
        submit_all(service)
        document = service.http.get("/openapi.json").json()
        del document["paths"]["/v1/experiments"]["post"]["requestBody"]["content"]["application/yaml"]  # the same schema once more
        (tmp_path / "openapi.json").write_text(json.dumps(document))
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "run", str(tmp_path / "openapi.json")]
        header = ["--header", f"Authorization: Bearer {token}"]
        words = [*header, "--url", str(service.http.base_url), "--checks", "all", "--max-examples", "4", "--generation-deterministic"]
        run = subprocess.run(
            [*command, *words, "--continue-on-failure", "--no-color"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert records_elsewhere(service) == before  # not a version has changed
        assert {entry.by for entry in service.store.audit.page("elsewhere", 1000, None)} == {"administrator", "admin-of-elsewhere"}
        assert len(service.store.audit.page("here", 1000, None)) > 20
        every = {"Authorization": f"Bearer {ADMIN}"}  # metrics are of every project
        answered = [ANSWERED.findall(service.http.get("/metrics", headers=every).text) for _ in range(2)][-1]
        succeeded = {(method.lower(), route) for method, route, status in answered if status == "2"}
        documented = {(method, path) for path, methods in document["paths"].items() for method in methods}
        assert documented - succeeded == set(), "no request to these got further than a refusal"
        assert {status for _, _, status in answered} == {"2", "4"} or "3" in {status for _, _, status in answered}
