"""How fast the service is there, what it holds, and how it answers over 10,000 stored experiments, pinned to one core.

A real process, `solfa up` with its embedded defaults, asked over HTTP by this one on another core. The stored experiments are put into its
database beforehand; while they are asked for, it moves none on (SOLFA_RECONCILE=false), so that the figures are those of requests alone.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import yaml

from api import keys
from api.experiment import Attempt, Experiment, Stage, app_name
from api.stages import StagePhase, StageReason
from services.experiments import ID_LETTERS
from services.store.database import migrate_engine, open_engine, writing
from services.store.rows import attempt_rows, experiment_row, stage_rows
from services.store.schema import attempts, experiments, stages
from tests.builders import START, make_experiment, spec_mapping

Figure = dict[str, Any]
STORED, LIVE, ROWS_AT_ONCE = 10_000, 300, 2_000
MIXTURES = ["averaged", "reference", "hardest"]  # eight stages


def measure(quick: bool) -> list[Figure]:
    """Start, memory, and the time of each kind of request."""
    with TemporaryDirectory() as folder:
        return _starts(Path(folder), runs=3 if quick else 11) + _requests(Path(folder) / "full", requests=150 if quick else 1000)


def _starts(folder: Path, runs: int) -> list[Figure]:
    seconds, memory = [], []
    for run in range(runs):
        with _service(folder / f"home-{run}") as (process, http, took):
            seconds.append(took)
            for _ in range(20):
                http.get("/v1/experiments")
                http.get("/metrics")
            http.post("/v1/experiments", content=_spec(Path(folder), "one"), params={"validate_only": True}).raise_for_status()
            memory.append(_resident_megabytes(process.pid))
    started = (
        f"from exec of `solfa up` to the first 200 of /readyz, in a new home; median of {runs}, {min(seconds):.2f} to {max(seconds):.2f}"
    )
    held = f"VmRSS after 40 reads and a validation; median of {runs}, at most {max(memory):.0f}"
    return [
        _figure("service: time to ready", statistics.median(seconds), "s", "under 1", started),
        _figure("service: resident memory", statistics.median(memory), "MB", "under 150", held),
    ]


def _requests(home: Path, requests: int) -> list[Figure]:
    home.mkdir()
    ids = _fill(home)
    first, *others = sorted(os.sched_getaffinity(0))
    with _service(home, core=first, SOLFA_RECONCILE="false") as (_, http, _), _pinned(set(others) or {first}):
        cursor = http.get("/v1/experiments", params={"limit": 200}).json()["next_cursor"]
        pages: list[dict[str, Any]] = [{}, {"cursor": cursor}, {"phase": "failed"}, {"name_prefix": "run-7"}, {"phase": "running"}]
        lists = _times(requests // 2, lambda n: http.get("/v1/experiments", params=pages[n % len(pages)]))
        gets = _times(requests, lambda n: http.get(f"/v1/experiments/{ids[n * 7919 % len(ids)]}"))
        specs = [_spec(home, f"new-{number}") for number in range(requests // 2)]
        headers = {"Content-Type": "application/yaml"}
        submits = _times(
            len(specs), lambda n: http.post("/v1/experiments", content=specs[n], headers={**headers, "Idempotency-Key": f"key-{n}"})
        )
    how = f"{STORED:,} stored, {LIVE} of them live, 8 stages each; SQLite; the service on one core, reconciling off; one by one"
    return [
        _p99("list", lists, f"{how}; pages of 50: the first, one further on, by phase, by prefix"),
        _p99("get", gets, how),
        _p99("submit", submits, f"{how}; with a key, its sources looked at"),
    ]


def _times(number: int, request: Any) -> list[float]:
    """Milliseconds of each request, after a tenth that warms up and is not counted."""
    taken = []
    for n in range(number):
        began = time.perf_counter()
        answer = request(n)
        taken.append(1000 * (time.perf_counter() - began))
        answer.raise_for_status()
    return taken[number // 10 :]


def _fill(home: Path) -> list[str]:
    """10,000 records as a long life leaves them; returns their ids."""
    engine = open_engine(f"sqlite:///{home}/solfa.db")
    migrate_engine(engine)
    template = make_experiment(comparison={"mixtures": MIXTURES})
    records = [_record(template, number) for number in range(STORED)]
    with writing(engine) as connection:
        for start in range(0, STORED, ROWS_AT_ONCE):
            some = records[start : start + ROWS_AT_ONCE]
            connection.execute(experiments.insert(), [experiment_row(record) for record in some])
            connection.execute(stages.insert(), [row for record in some for row in stage_rows(record).values()])
            connection.execute(attempts.insert(), [row for record in some for row in attempt_rows(record).values()])
    engine.dispose()
    return [record.id for record in records]


def _record(template: Experiment, number: int) -> Experiment:
    letters = (ID_LETTERS[number // 32**place % 32] for place in range(10))
    identity, at = "x" + "".join(letters), START + timedelta(minutes=number)
    live, failed = number >= STORED - LIVE, number % 20 == 0
    done = []
    for position, stage in enumerate(template.stages):
        if live and position > 2:
            done.append(stage)
        else:
            phase = (
                StagePhase.RUNNING if live and position == 2 else StagePhase.FAILED if failed and position == 7 else StagePhase.SUCCEEDED
            )
            done.append(_tried(stage, identity, phase, number))
    changed = {"id": identity, "name": f"run-{number}", "created_at": at, "spec_text": template.spec_text.replace("pile", f"run-{number}")}
    return template.model_copy(update={**changed, "stages": tuple(done), "version": 30})


def _tried(stage: Stage, identity: str, phase: StagePhase, number: int) -> Stage:
    at = START + timedelta(minutes=number)
    attempt = Attempt(number=1, app=app_name(identity, stage.name, 1), created_at=at, launched_at=at, started_at=at)
    if not phase.terminal:
        return stage.model_copy(update={"phase": phase, "reason": StageReason.STARTED, "attempts": (attempt,), "first_launched_at": at})
    reason = StageReason.COMPLETED if phase is StagePhase.SUCCEEDED else StageReason.WORKER_FAILED_PERMANENTLY
    ended = attempt.model_copy(update={"ended_at": at, "reason": reason})
    made = {"digest": f"{number:064x}", "result_key": keys.result(identity, stage.name) if phase is StagePhase.SUCCEEDED else None}
    times = {"first_launched_at": at, "finished_at": at, "attempts": (ended,)}
    return stage.model_copy(update={"phase": phase, "reason": reason, **made, **times})


def _spec(folder: Path, name: str) -> str:
    source = folder / "text.jsonl"
    source.write_text('{"text": "do re mi"}\n')
    domains = {domain: {"source": {"type": "jsonl", "paths": [str(source)]}} for domain in ("books", "code", "web")}
    return yaml.safe_dump(spec_mapping(name, domains=domains, comparison={"mixtures": MIXTURES}))


@contextmanager
def _service(home: Path, core: int | None = None, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client, float]]:
    """`solfa up` in `home`, ready: the process, a client, and the seconds that it took."""
    command = [sys.executable, "-m", "services.cli", "up", "--home", str(home), "--port", "0"]
    began = time.perf_counter()
    with _pinned({core} if core is not None else os.sched_getaffinity(0)):  # a child keeps its parent's
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        record = home / "service.json"
        while not record.exists():
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
            time.sleep(0.002)
        with httpx.Client(base_url=yaml.safe_load(record.read_text())["url"], timeout=30, trust_env=False) as http:
            http.get("/readyz").raise_for_status()
            yield process, http, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _pinned(cores: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _resident_megabytes(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


def _p99(what: str, taken: list[float], how: str) -> Figure:
    quantiles = statistics.quantiles(taken, n=100)
    spread = f"; p50 {quantiles[49]:.1f}, p99 {quantiles[98]:.1f}, max {max(taken):.1f} of {len(taken)}"
    return _figure(f"{STORED:,} stored experiments: {what}, p99", quantiles[98], "ms", "under 100", how + spread)


def _figure(what: str, value: float, unit: str, reach: str, how: str) -> Figure:
    return {"what": what, "value": value, "unit": unit, "reach": reach, "detail": how}
