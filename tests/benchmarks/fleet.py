"""10,000 stored experiments of which 2,000 are active: how the service answers while it moves them on, how long a round takes it, and what
500 readers of its streams cost.

A real process with the product's own wiring on one core, over a database on disk and a cluster in memory (`pretended.py`); this process,
which asks, and one that writes reports as 2,000 trainers would, have the other core. Each kind of request takes its turn within each
round, one request at a time and 20 a second at most; a scrape in every tenth round. The figures with reconciling off, beside, are of the
same service over the same records.
"""

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from api import keys
from api.bucket import open_bucket
from api.domains import DomainWeights
from api.experiment import Experiment, Stage
from api.stage_config import StageReport
from api.stages import StagePhase
from services.server import LOOKS_AT_ONCE
from tests.benchmarks.readers import Reader, until
from tests.benchmarks.records import ACTIVE, DOMAINS, STORED, fill, spec_text
from tests.postgres import Postgres

Figure = dict[str, Any]
READERS, HOT = 500, 5
REQUESTS_A_SECOND = 20
DISTANCE = 0.02  # seconds until a bucket elsewhere answers
ASIDE = 2.0  # seconds between two questions for rounds: each is a scrape, and takes time from them
SCRAPE_EVERY = 10  # rounds, which is every six seconds: a Prometheus asks seldomer
REPORT_SECONDS = 5.0  # between two reports of one attempt
SCRAPE = "scrape of /metrics"
PASS = "solfa_reconcile_pass_duration_seconds"


@dataclass
class Served:
    """The service under measurement."""

    http: httpx.Client
    pid: int
    core: int
    folder: Path
    active: list[Experiment]

    def passes(self) -> tuple[float, float, float]:
        """Rounds so far, their seconds, and those that took at most one second."""
        found = {}
        for line in self.http.get("/metrics").text.splitlines():
            name, _, value = line.rpartition(" ")
            found[name] = value
        return tuple(float(found[f"{PASS}{end}"]) for end in ("_count", "_sum", '_bucket{le="1.0"}'))  # type: ignore[return-value]  # three

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_megabytes(self) -> float:
        line = next(line for line in Path(f"/proc/{self.pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024 / 1e6


@dataclass(frozen=True)
class Rounds:
    """What the reconciler did in some time."""

    count: float
    seconds: float
    quick: float
    """Those of at most one second."""
    cpu: float
    """Share of its core that the service used."""
    others: float
    """Share of that core that other processes of the machine took meanwhile."""

    def cpu_of_one(self, seconds: float) -> float | None:
        """In `seconds` of which nothing but rounds was asked of the service."""
        return self.cpu * seconds / self.count if self.count else None


def measure(quick: bool) -> list[Figure]:
    """On SQLite, and on PostgreSQL where it is installed."""
    rounds, watched = (60, 10.0) if quick else (200, 20.0)
    figures = []
    with TemporaryDirectory() as folder:
        figures += _measured(Path(folder), "SQLite", f"sqlite:///{folder}/solfa.db", rounds, watched)
    if any(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        with TemporaryDirectory() as folder, _postgres() as database:
            figures += _measured(Path(folder), "PostgreSQL", database, rounds, watched)
    with TemporaryDirectory() as folder:
        figures += _distant(Path(folder), f"sqlite:///{folder}/solfa.db")
    return figures


def _distant(folder: Path, database: str) -> list[Figure]:
    """Rounds over a bucket that is elsewhere, with one look on its way and with as many as the service has; the first round aside."""
    active, means = fill(database), {}
    for looks in (1, LOOKS_AT_ONCE):
        with _served(folder, database, active, True, str(DISTANCE), str(looks)) as served, _trainers(folder, active):
            while served.passes()[0] < 1:
                time.sleep(ASIDE)
            count, seconds, _ = served.passes()
            while served.passes()[0] < count + 3:
                time.sleep(ASIDE)
            now, total, _ = served.passes()
            means[looks] = (total - seconds) / (now - count)
    one, many = means[1], means[LOOKS_AT_ONCE]
    how = f"{ACTIVE:,} active, SQLite; each answer of the bucket takes {1000 * DISTANCE:.0f} ms; mean of 3 rounds"
    return [
        _figure("a bucket elsewhere: a round with one look on its way", one, "s", "", how),
        _figure(f"a bucket elsewhere: a round with {LOOKS_AT_ONCE} looks on their way", many, "s", "", "as the service does it; the same"),
        _figure("a bucket elsewhere: the second to the first", many / one, "", "", "in this one run"),
    ]


def _measured(folder: Path, name: str, database: str, rounds: int, watched: float) -> list[Figure]:
    active = fill(database)
    how = f"{STORED:,} stored, {ACTIVE:,} active, 8 stages and {len(DOMAINS)} domains each; {name}; the service on one core"
    with _served(folder, database, active, reconcile=False) as served:
        without = _times(served, rounds // 2, "off")
        idle = asyncio.run(_readers(served, watched, change=False))
    with _served(folder, database, active, reconcile=True) as served, _trainers(folder, active):
        first = _settle(served)
        quiet = _rounds(served, lambda: time.sleep(watched))
        alone = served.resident_megabytes()
        times: dict[str, list[float]] = {}
        busy = _rounds(served, lambda: times.update(_times(served, rounds, "on")))
        crowd: dict[str, Any] = {}
        crowded = _rounds(served, lambda: crowd.update(asyncio.run(_readers(served, watched, change=True))))
    figures = [_p99(f"{name}: {kind}", taken, without[kind], how, "" if kind == SCRAPE else "under 100") for kind, taken in times.items()]
    figures += [
        _figure(f"{name}: the first round after a start", first, "s", "", "it reads all that lives, and parses its specs"),
        _pass(f"{name}: a round of the reconciler", quiet, f"{how}; nobody asks for anything"),
        _figure(f"{name}: CPU time of such a round", quiet.cpu_of_one(watched), "s", "", "all that the service used then, by rounds"),
        _pass(f"{name}: a round of the reconciler while requests are answered", busy, how),
        _pass(f"{name}: a round of the reconciler with {READERS} readers", crowded, how),
        _figure(f"{name}: resident memory", alone, "MB", "under 300", f"{how}; after {watched:.0f} s of reconciling"),
        _figure(f"{name}: resident memory with {READERS} readers", crowd["memory"], "MB", "under 300", f"{how}; after all of the above"),
        _figure(f"{name}: {READERS} readers hold", crowd["held"], "streams", f"{READERS}", "each has had its first event"),
        _figure(f"{name}: a change to its slowest reader", crowd["slowest"], "s", "", crowd["spread"]),
        _figure(
            f"{name}: CPU for {READERS} idle readers",
            100 * idle["cpu"],
            "% of a core",
            "",
            f"reconciling off; {idle['held']} held",
        ),
        _figure(f"{name}: CPU while reconciling", 100 * quiet.cpu, "% of a core", "", f"{quiet.count:.0f} rounds, 0.5 s apart"),
        _figure(
            f"{name}: CPU while reconciling with {READERS} readers", 100 * crowded.cpu, "% of a core", "", f"{crowded.count:.0f} rounds"
        ),
    ]
    return figures


def _times(served: Served, rounds: int, run: str) -> dict[str, list[float]]:
    """Milliseconds of each request by kind, after a tenth of the rounds, which warm up."""
    http, active = served.http, served.active
    source = served.folder / "text.jsonl"
    source.write_text('{"text": "do re mi"}\n')
    cursor = None
    for _ in range(STORED // 200 // 2):
        cursor = http.get("/v1/experiments", params={"limit": 200, **({"cursor": cursor} if cursor else {})}).json()["next_cursor"]
    running = [(one.name, stage.name) for one in active for stage in one.stages if stage.phase is StagePhase.RUNNING]
    listed, yaml = "/v1/experiments", {"Content-Type": "application/yaml"}

    def submit(n: int, **options: Any) -> httpx.Response:
        return http.post(listed, content=spec_text(f"new-{run}-{n}", str(source)), headers=yaml, **options)

    def stage(n: int) -> httpx.Response:
        name, at = running[n * 7919 % len(running)]
        return http.get(f"{listed}/{name}/stages/{at}")

    kinds: Mapping[str, Callable[[int], httpx.Response]] = {
        "list, first page": lambda n: http.get(listed),
        "list, a page in the middle": lambda n: http.get(listed, params={"cursor": cursor}),
        "list, by phase": lambda n: http.get(listed, params={"phase": ("failed", "running", "pending")[n % 3]}),
        "list, by prefix": lambda n: http.get(listed, params={"name_prefix": f"run-{n % 100}"}),
        "get": lambda n: http.get(f"{listed}/run-{n * 7919 % STORED}"),
        "get of a running stage with its report": stage,
        "submit": submit,
        "validate": lambda n: submit(n, params={"validate_only": True}),
        "cancel": lambda n: http.post(f"{listed}/new-{run}-{n}/cancel"),
        "page of the list": lambda n: http.get("/"),
        "page of an active experiment": lambda n: http.get(f"/experiments/{active[n * 7919 % ACTIVE].name}"),
        SCRAPE: lambda n: http.get("/metrics"),
    }
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    due = time.perf_counter()
    for n in range(rounds):
        for kind, ask in kinds.items():
            if kind == SCRAPE and n % SCRAPE_EVERY:
                continue
            due = max(due + 1 / REQUESTS_A_SECOND, time.perf_counter())
            time.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            answer = ask(n)
            taken[kind].append(1000 * (time.perf_counter() - began))
            answer.raise_for_status()
    return {kind: some[len(some) // 10 :] for kind, some in taken.items()}


def _rounds(served: Served, meanwhile: Callable[[], object]) -> Rounds:
    began, cpu, busy, before = time.perf_counter(), served.cpu_seconds(), _busy_seconds(served.core), served.passes()
    meanwhile()
    count, seconds, quick = (now - then for now, then in zip(served.passes(), before, strict=True))
    took, cpu = time.perf_counter() - began, served.cpu_seconds() - cpu
    return Rounds(count, seconds, quick, cpu / took, max(0.0, _busy_seconds(served.core) - busy - cpu) / took)


def _busy_seconds(core: int) -> float:
    """What all processes together have used of a core so far."""
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    user, nice, system = (int(field) for field in line.split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def _settle(served: Served) -> float:
    """Two rounds warm up. The seconds of the first, which reads all that lives and parses its specs: of all so far, less the others'."""
    while served.passes()[0] < 2:
        time.sleep(ASIDE)
    count, seconds, _ = served.passes()
    time.sleep(5)
    later, total, _ = served.passes()
    return seconds - (count - 1) * (total - seconds) / (later - count)


async def _readers(served: Served, seconds: float, change: bool) -> dict[str, Any]:
    """Hold the readers: half of them on a few experiments that are then cancelled, a quarter on the list, a quarter on one page each."""
    hot, url = served.active[-HOT:] if change else served.active[-2 * HOT : -HOT], str(served.http.base_url)
    each = READERS // 4 // HOT
    events = [Reader(f"/v1/experiments/{one.name}/events?after=0") for one in hot for _ in range(each)]
    pages = [Reader(f"/experiments/{one.name}/live") for one in hot for _ in range(each)]
    lists = [Reader("/live") for _ in range(READERS // 4)]
    others = [Reader(f"/experiments/{one.name}/live") for one in served.active[: READERS // 4]]
    readers = [*events, *pages, *lists, *others]
    tasks = [asyncio.create_task(reader.follow(url)) for reader in readers]
    await until(lambda: all(reader.heard or reader in events for reader in readers), 60)
    cpu, began = served.cpu_seconds(), time.monotonic()
    await asyncio.sleep(seconds)
    found: dict[str, Any] = {
        "cpu": (served.cpu_seconds() - cpu) / (time.monotonic() - began),
        "memory": served.resident_megabytes(),
        "held": sum(bool(reader.heard or reader in events) and not reader.ended for reader in readers),
    }
    if change:
        found |= await _changed(served, hot, events, pages)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


async def _changed(served: Served, hot: list[Experiment], events: list[Reader], pages: list[Reader]) -> dict[str, Any]:
    """Seconds from asking for a cancel until each reader of that experiment knows of it."""
    waits: list[float] = []
    missed = 0
    for one in hot:
        mine = [
            (reader, kind)
            for some, kind in ((events, "cancel_requested"), (pages, "changed"))
            for reader in some
            if one.name in reader.path
        ]
        at = time.monotonic()
        answer = await asyncio.to_thread(served.http.post, f"/v1/experiments/{one.name}/cancel")
        answer.raise_for_status()
        await until(lambda mine=mine, at=at: all(reader.first(kind, at) is not None for reader, kind in mine), 60)
        heard = [reader.first(kind, at) for reader, kind in mine]
        missed += heard.count(None)
        waits += [wait for wait in heard if wait is not None]
    spread = (
        f"{len(waits)} readers of {len(hot)} cancelled experiments; median {statistics.median(waits):.2f} s; {missed} had not heard in 60 s"
    )
    return {"slowest": max(waits), "spread": spread}


@contextmanager
def _served(folder: Path, database: str, active: list[Experiment], reconcile: bool, *distant: str) -> Iterator[Served]:
    core, *others = sorted(os.sched_getaffinity(0))
    environment = {"SOLFA_HOME": str(folder), "SOLFA_DATABASE_URL": database, "SOLFA_PORT": "0", "SOLFA_RECONCILE": str(reconcile).lower()}
    os.sched_setaffinity(0, {core})  # a child keeps its parent's
    command = [sys.executable, "-m", "tests.benchmarks.pretended", *distant]
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
    os.sched_setaffinity(0, set(others) or {core})
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            yield Served(http, process.pid, core, folder, active)
    finally:
        process.terminate()
        process.wait(60)
        os.sched_setaffinity(0, {core, *others})


@contextmanager
def _trainers(folder: Path, active: list[Experiment]) -> Iterator[None]:
    """A process that reports for all running attempts, one after the other and again; ready once each has reported."""
    context = get_context("fork")
    ready = context.Event()
    process = context.Process(target=_report, args=((folder / "bucket").as_uri(), active, ready), daemon=True)
    process.start()
    ready.wait(120)
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _report(bucket_url: str, active: list[Experiment], ready: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    bucket = open_bucket(bucket_url)
    weights = DomainWeights.uniform(DOMAINS)
    losses = dict.fromkeys(DOMAINS, 3.25)
    running = [(one, stage) for one in active for stage in one.stages if stage.phase is StagePhase.RUNNING]

    def report(one: Experiment, stage: Stage, step: int) -> None:
        said = StageReport(
            attempt=1, updated_at=datetime.now(UTC), activity="training", step=step, total=100_000, loss=3.25, tokens_per_second=1e5,
            domain_weights=weights, averaged_weights=weights, reference_weights=weights, excess_losses=losses, domain_losses=losses,
        )  # fmt: skip
        bucket.put(keys.attempt_report(one.id, stage.name, 1), said.model_dump_json().encode())

    step = 0
    while True:
        step += 1
        began = time.monotonic()
        for number, (one, stage) in enumerate(running):
            report(one, stage, step)
            if ready.is_set():
                time.sleep(max(0.0, began + REPORT_SECONDS * number / len(running) - time.monotonic()))
        ready.set()


@contextmanager
def _postgres() -> Iterator[str]:
    server = Postgres()
    try:
        server.start()
        server.create("solfa")
        yield server.url("solfa", "postgresql+psycopg")
    finally:
        server.remove()


def _p99(what: str, taken: list[float], without: list[float], how: str, reach: str) -> Figure:
    p50, p99, p99_without = (
        statistics.quantiles(some, n=100, method="inclusive")[at] for some, at in ((taken, 49), (taken, 98), (without, 98))
    )
    spread = f"; p50 {p50:.1f}, max {max(taken):.1f} of {len(taken)}; p99 with reconciling off {p99_without:.1f}"
    return _figure(f"{what}, p99", p99, "ms", reach, how + spread)


def _pass(what: str, seen: Rounds, how: str) -> Figure:
    others = f"other processes took {100 * seen.others:.0f} % of its core meanwhile"
    spread = f"mean of {seen.count:.0f}, of which {seen.quick:.0f} within 1 s; {others}"
    return _figure(what, seen.seconds / seen.count if seen.count else None, "s", "under 1", f"{how}; {spread}")


def _figure(what: str, value: float | None, unit: str, reach: str, how: str) -> Figure:
    return {"what": what, "value": value, "unit": unit, "reach": reach, "detail": how}
