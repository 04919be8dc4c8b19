"""A whole service in one folder, on a free port, with the small stage program in the trainer's place: what route tests talk to."""

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import yaml

from api.bucket import Bucket, open_bucket
from services.launch.local import LocalCluster
from services.reconciler import Pace
from services.retry import Backoff
from services.server import Service
from services.settings import Settings
from services.store import ExperimentStore, open_store
from tests.builders import spec_mapping
from tests.services.waiting import wait_for

PROGRAM = [sys.executable, "-I", "-S", str(Path(__file__).with_name("stage_program.py"))]
PACE = Pace(interval=0.05, longest=0.2, at_once=4, backoff=Backoff(timedelta(0), timedelta(0), timedelta(0)))
ENDED = ("succeeded", "failed", "cancelled")
YAML = {"Content-Type": "application/yaml"}


@dataclass
class Running:
    """The service's parts, and an HTTP client of its own."""

    http: httpx.Client
    store: ExperimentStore
    bucket: Bucket
    cluster: LocalCluster
    root: Path

    def spec(self, name: str, behaviour: dict[str, Any] | None = None, **changes: Any) -> str:
        """A spec whose sources are there; `behaviour` is the stage program's."""
        source = self.root / "text.jsonl"
        if not source.exists():
            source.write_text('{"text": "do re mi"}\n')
        domains = {domain: {"source": {"type": "jsonl", "paths": [str(source)]}} for domain in ("books", "code", "web")}
        return yaml.safe_dump(
            spec_mapping(name, **{"description": json.dumps(behaviour or {}), "domains": domains, "adopt": "never", **changes})
        )

    def post(self, text: str | bytes, **headers: str) -> httpx.Response:
        return self.http.post(
            "/v1/experiments", content=text, headers=YAML | {name.replace("_", "-"): value for name, value in headers.items()}
        )

    def submit(self, name: str, behaviour: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        answer = self.post(self.spec(name, behaviour, **changes))
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(f"/v1/experiments{path}", headers={name.replace("_", "-"): value for name, value in headers.items()})

    def until(self, name: str, *phases: str, seconds: float = 60) -> dict[str, Any]:
        wait_for(lambda: self.get(f"/{name}").json()["phase"] in (phases or ENDED), seconds)
        return dict(self.get(f"/{name}").json())

    def until_stage(self, name: str, stage: str, phase: str) -> None:
        wait_for(lambda: self.get(f"/{name}/stages/{stage}").json()["phase"] == phase)


@contextmanager
def running(root: Path, database: str | None = None, pace: Pace = PACE, **chosen: Any) -> Iterator[Running]:
    """The service over `root`; `chosen` are settings."""
    settings = Settings(home=root, port=0, slots=16, heartbeat_seconds=0.2, **chosen)
    bucket, store = open_bucket(settings.bucket), open_store(database or settings.database)
    cluster = LocalCluster(settings.apps, bucket.url, settings.slots, PROGRAM, grace_seconds=1.0, reach=settings.reach)
    service = Service(settings, store, bucket, cluster, pace)
    urls: list[str] = []
    thread = threading.Thread(target=service.serve, args=(urls.append,))
    thread.start()
    try:
        url = wait_for(lambda: urls and urls[0])
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
            yield Running(http, store, bucket, cluster, root)
    finally:
        service.stop()
        thread.join(20)
        for app in cluster.look():
            cluster.cancel(app)
        cluster.close()
        store.close()


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The RFC 9457 document of an answer that must be one, in one or two sentences for a person."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    document = dict(answer.json())
    assert (answer.status_code, document["status"], document["code"]) == (status, status, code), answer.text
    assert document["type"] == f"https://solfa.invalid/problems/{code}"
    assert document["title"]
    assert document["detail"]
    assert document["instance"] == answer.request.url.path
    return document


def until_closed(connection: socket.socket) -> bytes:
    """All that the server sends until it closes the connection."""
    received = b""
    while part := connection.recv(4096):
        received += part
    return received
