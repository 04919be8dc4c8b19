"""A real Prometheus over a real search, in which a program fails, bucket and database go away for a moment: panels and alerts have data."""

import itertools
import json
import re
import runpy
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from services.cli.connection import running
from tests.e2e.prometheus import MISSING, PROMETHEUS, PROMTOOL, ROOT, Prometheus, asked, has_values, job, prometheus, queries
from tests.e2e.search import search_mapping, write_search
from tests.services.waiting import wait_for
from tests.solfa import Solfa, kill

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (PROMETHEUS and PROMTOOL), reason=MISSING)]

BOARDS = sorted((ROOT / "charts" / "solfa" / "files" / "dashboards").glob("*.json"))
EXPERIMENT = next(path for path in BOARDS if path.stem == "experiment")
ALERTS = {alert.name: alert.expr for alert in runpy.run_path(str(ROOT / "charts" / "alerts.py"))["ALERTS"]}
# One machine has no other that goes or comes; the cluster's test of monitoring sees these.
EMPTY = {"Elastic restarts"}


@dataclass
class Seen:
    """What was left when the search had ended: Prometheus, still there, and when it all was."""

    prometheus: Prometheus
    scrape: str
    """In the middle of the proxy."""
    start: float
    end: float


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("measured")
    proxy = {**search_mapping()["training"]["proxy"], "steps": 400, "evaluate_every": 100, "save_every": 200}  # some seconds of reports
    compute = {
        "default": {**search_mapping()["compute"]["default"], "peak_flops": 1e11}
    }  # what MFU is a share of, where nobody knows the device
    spec = write_search(folder, comparison={"mixtures": []}, training={"proxy": proxy}, compute=compute)
    solfa = Solfa(folder / "home", folder)
    try:
        solfa.up("--slots", "1")
        url = running(solfa.home).url
        with prometheus(folder, [job(url.removeprefix("http://"), "ml")]) as server:
            wait_for(lambda: server.value("solfa_leader == 1"))  # a counter that is first seen at 1 has increased by nothing
            start = time.time()
            solfa.run("submit", str(spec))
            weights = "solfa_experiment_averaged_weight_ratio"
            fail_once(solfa, server)
            bucket_goes_away(solfa, server)
            database_is_held(solfa, server)
            wait_for(lambda: server.value(f"count_over_time({weights}[1h]) > 2"), 300, 0.2)
            scrape = httpx.get(f"{url}/metrics", trust_env=False).text
            solfa.run("status", "search", "--watch")
            wait_for(lambda: server.value("solfa_submit_to_weights_seconds_count == 1"))
            wait_for(lambda: server.value('solfa_experiments{phase="succeeded"} == 1'))
            settled = server.value("time()")[1]
            wait_for(lambda: float(server.value("max(timestamp(solfa_leader))")[0]["value"][1]) > float(settled) + 3)
            yield Seen(server, scrape, start, time.time())
    finally:
        solfa.end()


def fail_once(solfa: Solfa, server: Prometheus) -> None:
    """Kill the first stage's program in its first attempt."""
    wait_for(lambda: solfa.processes("programs"), 120)
    for pid in solfa.processes("programs"):
        kill(pid)
    wait_for(lambda: server.value("sum(solfa_retries_total) > 0"))


def bucket_goes_away(solfa: Solfa, server: Prometheus) -> None:
    """For as long as it takes to be seen."""
    bucket, away = solfa.home / "bucket", solfa.home / "away"
    bucket.rename(away)
    try:
        wait_for(lambda: server.value("sum(solfa_bucket_errors_total) > 0"))
        wait_for(lambda: server.value("sum(solfa_reconcile_failures_total) > 0"))
    finally:
        away.rename(bucket)


def database_is_held(solfa: Solfa, server: Prometheus) -> None:
    """By another process, for longer than a writer waits."""
    with closing(sqlite3.connect(solfa.home / "solfa.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        wait_for(lambda: server.value("sum(solfa_store_errors_total) > 0"), 120)


def test_promtool_finds_nothing_in_a_scrape(seen: Seen) -> None:
    assert PROMTOOL
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=seen.scrape, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def panels() -> list[Any]:
    return [
        pytest.param(panel, target, id=f"{path.stem}: {panel['title']} {target['refId']}")
        for path in BOARDS
        for panel, target in queries(path.read_text())
    ]


@pytest.mark.parametrize(("panel", "target"), panels())
def test_a_panel_shows_something(seen: Seen, panel: dict[str, Any], target: dict[str, Any]) -> None:
    expr = asked(target["expr"], experiment="search", proxy="proxy")
    assert has_values(seen.prometheus.range(expr, seen.start, seen.end)) == (panel["title"] not in EMPTY), expr


def test_a_panel_over_steps_has_each_step_once_and_in_order(seen: Seen) -> None:
    """Grafana's trend panel refuses others; and where there is a weight there is its step."""
    over = [panel for panel in json.loads(EXPERIMENT.read_text())["panels"] if panel["type"] == "trend"]
    assert len(over) == 2
    for panel in over:
        series, step = (
            seen.prometheus.range(asked(target["expr"], experiment="search", proxy="proxy"), seen.start, seen.end)
            for target in panel["targets"]
        )
        (steps,) = ([float(value) for _, value in one["values"]] for one in step)
        assert len(steps) > 2
        assert all(before < after for before, after in itertools.pairwise(steps))
        assert len(series) == 4
        assert all({at for at, _ in one["values"]} <= {at for at, _ in step[0]["values"]} for one in series)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_looks_at_what_is_there(seen: Seen, name: str) -> None:
    """Each selector of its expression has data; whether it fires is shown elsewhere."""
    for selector, *_ in re.findall(r"(solfa_[a-z_]+({[^}]*})?)", ALERTS[name]):
        assert seen.prometheus.range(selector, seen.start, seen.end), selector
    (rule,) = [rule for group in seen.prometheus.get("/rules")["groups"] for rule in group["rules"] if rule["name"] == name]
    assert (rule["health"], rule.get("lastError", "")) == ("ok", "")


def test_series_of_an_experiment_end_with_it(seen: Seen) -> None:
    """What is left are counters and counts of records."""
    assert seen.prometheus.range("solfa_experiment_step", seen.start, seen.end)
    assert not seen.prometheus.value("solfa_experiment_step")
    assert not seen.prometheus.value('{__name__=~"solfa_experiment_.*"}')
    assert seen.prometheus.value('solfa_experiments{phase="succeeded"}')


def test_weights_sum_to_one_and_domains_are_named(seen: Seen) -> None:
    for metric in ("domain_weight_ratio", "averaged_weight_ratio", "reference_weight_ratio"):
        (total,) = seen.prometheus.range(f"sum by (stage) (solfa_experiment_{metric})", seen.start, seen.end)
        assert total["metric"] == {"stage": "proxy"}
        assert all(float(value) == pytest.approx(1) for _, value in total["values"])
        names = {series["metric"]["domain"] for series in seen.prometheus.range(f"solfa_experiment_{metric}", seen.start, seen.end)}
        assert names == {"counting", "letters", "songs", "words"}
