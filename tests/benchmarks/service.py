"""How fast the service is there, and what it holds: a real process, `solfa up` with its embedded defaults."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import yaml

from tests.builders import spec_mapping

Figure = dict[str, Any]
MIXTURES = ["averaged", "reference", "hardest"]  # eight stages


def measure(quick: bool) -> list[Figure]:
    """Start, and memory."""
    with TemporaryDirectory() as folder:
        return _starts(Path(folder), runs=3 if quick else 11)


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


def _spec(folder: Path, name: str) -> str:
    source = folder / "text.jsonl"
    source.write_text('{"text": "do re mi"}\n')
    domains = {domain: {"source": {"type": "jsonl", "paths": [str(source)]}} for domain in ("books", "code", "web")}
    return yaml.safe_dump(spec_mapping(name, domains=domains, comparison={"mixtures": MIXTURES}))


@contextmanager
def _service(home: Path) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client, float]]:
    """`solfa up` in `home`, ready: the process, a client, and the seconds that it took."""
    command = [sys.executable, "-m", "services.cli", "up", "--home", str(home), "--port", "0"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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


def _resident_megabytes(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


def _figure(what: str, value: float, unit: str, reach: str, how: str) -> Figure:
    return {"what": what, "value": value, "unit": unit, "reach": reach, "detail": how}
