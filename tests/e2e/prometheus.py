"""A real Prometheus over a service that runs: it scrapes every second, with the chart's alert rules, and answers queries.

And what the chart's dashboards ask it.
"""

import json
import math
import re
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
RULES = ROOT / "charts" / "solfa" / "files" / "alerts.yaml"
WINDOW = "30s"  # of rates: what happened once is then seen for so long


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
def prometheus(folder: Path, jobs: list[dict[str, Any]], rules: Path = RULES) -> Iterator[Prometheus]:
    """It scrapes every second what `jobs`, its `scrape_configs`, name."""
    assert PROMETHEUS
    config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [str(rules)], "scrape_configs": jobs}
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


def job(target: str, namespace: str) -> dict[str, Any]:
    """Scrape `target` (host and port) as the job `solfa` of a namespace."""
    return {"job_name": "solfa", "static_configs": [{"targets": [target], "labels": {"namespace": namespace}}]}


def queries(dashboard: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(panel, target) of each query of a dashboard's JSON."""
    return [(panel, target) for panel in json.loads(dashboard)["panels"] for target in panel.get("targets", [])]


def asked(expr: str, **chosen: str) -> str:
    """A panel's query with its variables chosen: everything, but for those that `chosen` names."""
    everything = {"job": ".+", "instance": ".+", "namespace": ".*", "project": ".+", "experiment": ".+", "proxy": ".+", "stage": ".+"}
    values = {**everything, "__rate_interval": WINDOW, "__interval": "1s", "__range": "1h", **chosen}
    return re.sub(r"\$(\w+)", lambda name: values[name[1]], expr)


def has_values(series: list[dict[str, Any]]) -> bool:
    return any(not math.isnan(float(value)) for one in series for _, value in one["values"])
