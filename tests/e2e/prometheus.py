"""A real Prometheus over a service that runs: it scrapes every second, with the chart's alert rules, and answers queries."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.services.waiting import wait_for

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
MISSING = "Prometheus is not installed (Debian: apt install prometheus)"
ROOT = Path(__file__).parents[2]


class Prometheus:
    """Its API, by path below /api/v1."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=f"{url}/api/v1", timeout=30, trust_env=False)

    def get(self, path: str, **parameters: Any) -> Any:
        answer = self._http.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def ready(self) -> bool:
        with suppress(httpx.TransportError):
            return self._http.get("/status/runtimeinfo").status_code == 200
        return False

    def range(self, expr: str, start: float, end: float) -> list[dict[str, Any]]:
        """Series with all their values, a second apart."""
        return list(self.get("/query_range", query=expr, start=start, end=end, step=1)["result"])

    def value(self, expr: str) -> list[dict[str, Any]]:
        return list(self.get("/query", query=expr)["result"])

    def close(self) -> None:
        self._http.close()


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Scrapes `target` (host and port) as the job `solfa` of the namespace `ml`."""
    assert PROMETHEUS
    static = {"targets": [target], "labels": {"namespace": "ml"}}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ROOT / "charts" / "solfa" / "files" / "alerts.yaml")],
        "scrape_configs": [{"job_name": "solfa", "static_configs": [static]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    options = {"config.file": folder / "prometheus.yaml", "storage.tsdb.path": folder / "data", "web.listen-address": address}
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [PROMETHEUS, *(f"--{name}={value}" for name, value in options.items())], stdout=log, stderr=log, cwd=folder
        )
        found = Prometheus(f"http://{address}")
        try:
            wait_for(lambda: found.ready() or process.poll() is not None)
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            yield found
        finally:
            found.close()
            process.terminate()
            process.wait(30)
