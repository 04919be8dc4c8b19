"""No secret leaves the place it is kept: marked ones are planted wherever there can be one, and everything that comes out is searched.

A real service over a real PostgreSQL and a real S3, with real trainers: one search that succeeds, one that fails, then a database and a
bucket that are gone. Searched are answers, problems, events, logs, metrics, page and report, the bucket, the database, every file of
the home, what commands print, and the command line of every process while it all runs.
"""

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import psycopg
import pytest
import yaml

from api.bucket import Bucket
from api.client import Client
from tests.api.s3_servers import ACCESS_KEY, CannotStart, Server, bucket_at, seaweedfs
from tests.e2e.search import search_mapping, write_search
from tests.postgres import Postgres, postgresql
from tests.services.waiting import wait_for
from tests.solfa import COMMAND, Solfa, command_lines

# Of this run alone: other tests of this machine have secrets of their own in their command lines.
SECRET, HUB, PROXY, TOKEN, WRONG = (f"marked-{name}-{token_hex(8)}" for name in ("s3", "hub", "proxy", "administrator", "mistyped"))
SHORT = {"steps": 6, "global_batch": 8, "micro_batch": 8, "save_every": 3}
ADMINISTRATOR = {"Authorization": f"Bearer {TOKEN}"}
PATHS = ("", "/spec", "/plan", "/stages", "/stages/prepare", "/stages/prepare/logs", "/stages/proxy/logs", "/data", "/report")


@dataclass
class Marked(Solfa):
    """The command with secrets in its environment, as an operator has them there."""

    secrets: dict[str, str] = field(default_factory=dict)

    def environment(self, columns: int = 80) -> dict[str, str]:
        return super().environment(columns) | self.secrets


@dataclass
class Found:
    """All that came out, by where it came from."""

    texts: dict[str, bytes] = field(default_factory=dict)

    def keep(self, where: str, what: str | bytes) -> None:
        self.texts[where] = what if isinstance(what, bytes) else what.encode()

    def holding(self, marks: list[str]) -> list[tuple[str, str]]:
        return [(where, mark) for where, text in self.texts.items() for mark in marks if mark.encode() in text]


@dataclass
class World:
    solfa: Marked
    database: Postgres
    store: Server
    bucket: Bucket
    marks: list[str]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    (tmp_path / "weed").mkdir()
    try:
        with seaweedfs(tmp_path / "weed", secret=SECRET) as store, postgresql("127.0.0.1") as database:
            url = database.url("solfa", "postgresql+psycopg")
            password = url.split(":")[2].partition("@")[0]
            bucket = bucket_at(store.port, "secrets", secret_access_key=SECRET)
            secrets = {
                "SOLFA_DATABASE_URL": url,
                "SOLFA_BUCKET_URL": bucket.url,
                "AWS_ENDPOINT_URL": f"http://{store.host}:{store.port}",
                "AWS_REGION": "us-east-1",
                "AWS_ALLOW_HTTP": "true",
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "HF_TOKEN": HUB,
                "SOLFA_ACCESS": "required",
                "SOLFA_ADMIN_TOKEN": TOKEN,
                "SOLFA_TOKEN": TOKEN,
                "HTTPS_PROXY": f"http://operator:{PROXY}@127.0.0.1:9",
            }
            (tmp_path / "work").mkdir()
            solfa = Marked(tmp_path / "home", tmp_path / "work", secrets=secrets)
            try:
                yield World(solfa, database, store, bucket, [SECRET, HUB, PROXY, TOKEN, WRONG, password])
            finally:
                solfa.end()
    except CannotStart as error:
        pytest.skip(f"no S3 server: {error}")


class CommandLines(threading.Thread):
    """Every command line that was seen since it began."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.2):
            self.seen |= {line for _, line in command_lines()}

    def stop(self) -> set[bytes]:
        self._over.set()
        self.join()
        return self.seen


@pytest.mark.slow
def test_no_marked_secret_comes_out_anywhere(world: World) -> None:
    found, watcher = Found(), CommandLines()
    watcher.start()
    solfa = world.solfa
    found.keep("up", solfa.up("--slots", "2"))
    good, bad = specs(solfa.folder)
    found.keep("submit", solfa.run("submit", str(good)))
    found.keep("submit bad", solfa.run("submit", str(bad)))
    world.marks.append(solfa.run("token", "create", "alice").strip())  # shown once, here
    with Client(solfa.client().url, token=TOKEN) as client:
        wait_for(lambda: client.get("search").phase.value == "succeeded" or None, 300, every=0.3)
        wait_for(lambda: client.get("broken").phase.value == "failed" or None, 120, every=0.3)
        url, text = client.url, client.spec("search")
    ask(url, found, text)
    for name in ("search", "broken"):
        found.keep(f"status {name}", solfa.run("status", name))
    for entry in world.bucket.list(""):
        if blob := world.bucket.find(entry.key):  # what is no longer needed is removed meanwhile
            found.keep(f"bucket {entry.key}", blob.data)
    found.keep("database", dumped(world.database))
    keep_home(solfa.home, found, "home")
    breaking(world, url, found, text)
    seen = watcher.stop()
    assert any(b"-m\0trainer" in line for line in seen)  # it looked while trainers ran
    found.keep("command lines", b"\n".join(seen))
    keep_home(solfa.home, found, "home afterwards")
    assert {"home service.json", "home service.log", "database", "metrics", "/v1/experiments/broken/stages/prepare"} <= set(found.texts)
    assert len(found.texts) > 40
    assert found.holding(world.marks) == []
    assert found.holding(["prepare"])  # what is there is found


def keep_home(home: Path, found: Found, where: str) -> None:
    for path in (path for path in home.rglob("*") if path.is_file()):
        found.keep(f"{where} {path.relative_to(home)}", path.read_bytes())


def specs(folder: Path) -> tuple[Path, Path]:
    """One that succeeds in two stages, one that fails at its first."""
    chosen: dict[str, Any] = {"doremi": {"objective": "hardest"}, "comparison": {"mixtures": []}, "training": {"proxy": SHORT}}
    good = write_search(folder, **chosen)
    broken = folder / "broken.jsonl"
    broken.write_text('{"text": 3}\n')
    domains = {**search_mapping()["domains"], "broken": {"source": {"type": "jsonl", "paths": [str(broken)]}}}
    bad = folder / "bad.yaml"
    bad.write_text(yaml.safe_dump(search_mapping() | chosen | {"name": "broken", "domains": domains}))
    return good, bad


def ask(url: str, found: Found, spec: str) -> None:
    """Everything that can be read, and what is refused."""
    with httpx.Client(base_url=url, timeout=30, trust_env=False, headers=ADMINISTRATOR) as http:
        for name in ("search", "broken"):
            for path in PATHS:
                found.keep(f"/v1/experiments/{name}{path}", http.get(f"/v1/experiments/{name}{path}").text)
            found.keep(f"page {name}", http.get(f"/experiments/{name}").text)
            found.keep(f"events {name}", http.get(f"/v1/experiments/{name}/events").text)  # it ends, as they have
        found.keep("mistyped", http.get("/v1/experiments", headers={"Authorization": f"Bearer {WRONG}"}).text)
        found.keep("signed in", str(http.post("/sign-in", data={"token": WRONG}).content))
        for path in (
            "/v1/experiments",
            "/v1/experiments/nobody",
            "/v1/tokens",
            "/v1/audit",
            "/",
            "/openapi.json",
            "/healthz",
            "/readyz",
            "/metrics",
        ):
            found.keep("metrics" if path == "/metrics" else path, http.get(path).text)
        for where, text in (("validated", spec.replace("search", "other", 1)), ("taken", spec), ("refused", "name: [")):
            answer = http.post(f"/v1/experiments{'?validate_only=true' if where == 'validated' else ''}", content=text)
            found.keep(where, answer.text)


def dumped(server: Postgres) -> str:
    """All rows of all tables."""
    with psycopg.connect(server.url("solfa")) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        return "\n".join(str(row) for (table,) in tables for row in connection.execute(f'SELECT * FROM "{table}"').fetchall())


def breaking(world: World, url: str, found: Found, spec: str) -> None:
    """The database gone, then the bucket too; and a start without either."""
    with httpx.Client(base_url=url, timeout=60, trust_env=False, headers=ADMINISTRATOR) as http:
        world.database.stop()
        for path in ("/v1/experiments/search", "/readyz", "/metrics", "/"):
            answer = wait_for(lambda path=path: http.get(path))
            found.keep(f"without a database {path}", answer.text)
        found.keep("submitted without a database", http.post("/v1/experiments", content=spec).text)
        world.database.start()
        wait_for(lambda: http.get("/v1/experiments/search").status_code == 200)
        world.store.send(9)  # type: ignore[arg-type]  # SIGKILL
        answer = http.post("/v1/experiments", content=spec.replace("name: search", "name: again"))
        assert answer.status_code >= 500, answer.text
        found.keep("without a bucket", answer.text)
    world.solfa.run("down")
    found.keep("start without a bucket", refused_start(world.solfa))
    world.database.stop()
    found.keep("start without a database", refused_start(world.solfa, SOLFA_BUCKET_URL=""))
    wrong = world.solfa.secrets["SOLFA_DATABASE_URL"].replace("postgresql+psycopg", "postgres+nothing")
    found.keep("start with a URL that is none", refused_start(world.solfa, SOLFA_BUCKET_URL="", SOLFA_DATABASE_URL=wrong))


def refused_start(solfa: Marked, **changed: str) -> str:
    command, environment = [*COMMAND, "up", "--port", "0"], solfa.environment() | changed
    ended = subprocess.run(command, cwd=solfa.folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode != 0
    assert ended.stderr.strip()
    return ended.stdout + ended.stderr
