"""Each alert fires when it should and not when it should not, as Prometheus itself computes it; and each has a page that holds."""

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from api.metrics import OF_SERVICE, OF_TRAINER
from services.cli.main import app as cli
from services.retry import FREE
from tests.charts.rendering import HELM, ROOT, VALUES, objects, render

SOURCE = runpy.run_path(str(ROOT / "charts" / "alerts.py"))
ALERTS = {alert.name: alert for alert in SOURCE["ALERTS"]}
PAGES = ROOT / "docs" / "runbooks"
PROMTOOL = shutil.which("promtool")
METRIC = re.compile(r"\bsolfa_[a-z_]+")
by_name = pytest.mark.parametrize("name", ALERTS)
HOME = 'namespace="ml",job="solfa"'
EXPERIMENT = f'{HOME},project="default",experiment="pile",stage="proxy"'


class Case(NamedTuple):
    """Series in promtool's notation, a minute a sample; when it is looked; labels of the alerts that fire then."""

    name: str
    series: dict[str, str]
    minute: float
    fires: list[dict[str, str]]


ML = {"namespace": "ml", "job": "solfa"}
PILE = {**ML, "project": "default", "experiment": "pile", "stage": "proxy"}


def of_another(series: str) -> str:
    """The same of another release in the namespace."""
    return series.replace('job="solfa"', 'job="other"')


BUILDS = [f'solfa_build_info{{{HOME},pod="{pod}",version="1"}}' for pod in "ab"]
AGE, LOSS = f"solfa_experiment_report_age_seconds{{{EXPERIMENT}}}", f"solfa_experiment_loss{{{EXPERIMENT}}}"
STILL = f"solfa_experiment_progress_age_seconds{{{EXPERIMENT}}}"
AGE_OF_KIND, STILL_OF_KIND = (f'solfa_stage_{name}_age_seconds{{{HOME},kind="proxy"}}' for name in ("report", "progress"))
STEP = f"solfa_experiment_step{{{EXPERIMENT}}}"
RETRIES, OOM, PREEMPTED = (
    f'solfa_retries_total{{{HOME},kind="proxy",reason="{reason}"}}' for reason in ("worker_failed", "out_of_memory", "preempted")
)
LEADERS = [f'solfa_leader{{{HOME},pod="{pod}"}}' for pod in "ab"]
LAGS = [f'solfa_reconcile_lag_seconds{{{HOME},pod="{pod}"}}' for pod in "ab"]
WEIGHT = f'solfa_experiment_averaged_weight_ratio{{{EXPERIMENT},domain="code"}}'
ERRORS = f'solfa_bucket_errors_total{{{HOME},operation="put",code="bucket_unavailable"}}'
PUTS, GETS = (f'solfa_bucket_operation_duration_seconds_count{{{HOME},operation="{name}"}}' for name in ("put", "get"))
QUEUED = f'solfa_stage_phase_age_seconds{{{HOME},kind="proxy",phase="queued"}}'
RUNNING = f'solfa_stage_phase_age_seconds{{{HOME},kind="proxy",phase="running"}}'
STORES = [f'solfa_store_up{{{HOME},pod="{pod}"}}' for pod in "ab"]

CASES = {
    "every replica is gone": Case("SolfaGone", dict.fromkeys(BUILDS, "1x5 stale"), 60, [ML]),
    "a replica is replaced": Case("SolfaGone", dict(zip(BUILDS, ("1x5 stale", "_x7 1x90"), strict=True)), 60, []),
    "a release is gone and another is there": Case("SolfaGone", {BUILDS[0]: "1x5 stale", of_another(BUILDS[0]): "1x90"}, 60, [ML]),
    "a report of ten minutes ago": Case("SolfaStageStalled", {AGE: "0+60x20"}, 10, [PILE]),
    "a report that is late once": Case("SolfaStageStalled", {AGE: "1x5 320 1x20"}, 6, []),
    "reports as they should be": Case("SolfaStageStalled", {AGE: "1x30"}, 20, []),
    "a stage that has ended": Case("SolfaStageStalled", {AGE: "0+60x5 _x20"}, 20, []),
    "a stage that stalls while another leads": Case("SolfaStageStalled", {AGE: "0+60x9 stale _x2 720+60x20"}, 11, [PILE]),
    "reports that the service cannot read": Case("SolfaStageStalled", {AGE: "0+60x20", ERRORS: "0+60x30", PUTS: "0+60x30"}, 10, []),
    "one without series of its own is silent": Case("SolfaStageStalled", {AGE_OF_KIND: "0+60x20"}, 10, [{**ML, "kind": "proxy"}]),
    "the silent one has a name": Case("SolfaStageStalled", {AGE: "0+60x20", AGE_OF_KIND: "0+60x20"}, 10, [PILE]),
    "a heartbeat without progress": Case("SolfaStageHangs", {AGE: "1x30", STILL: "0+60x30"}, 20, [PILE]),
    "one without series of its own hangs": Case(
        "SolfaStageHangs", {AGE_OF_KIND: "1x30", STILL_OF_KIND: "0+60x30"}, 20, [{**ML, "kind": "proxy"}]
    ),
    "no heartbeat either": Case("SolfaStageHangs", {AGE: "0+60x30", STILL: "0+60x30"}, 20, []),
    "ten minutes of one thing": Case("SolfaStageHangs", {AGE: "1x30", STILL: "0+60x10 0x20"}, 12, []),
    "five retries, for two reasons": Case(
        "SolfaRetriesClimbing", {RETRIES: "0x10 1 2 3x60", OOM: "0x10 1 2x60"}, 20, [{**ML, "kind": "proxy"}]
    ),
    "three retries, looked at between two scrapes": Case("SolfaRetriesClimbing", {RETRIES: "0x10 1 2 3x90"}, 61.5, []),
    "retries of long ago": Case("SolfaRetriesClimbing", {RETRIES: "0 9x120"}, 100, []),
    "preempted ten times": Case("SolfaRetriesClimbing", {PREEMPTED: "0x10 1+1x9 10x60"}, 30, []),
    "preempted every minute": Case("SolfaRetriesClimbing", {PREEMPTED: "0+1x90"}, 60, [{**ML, "kind": "proxy"}]),
    "three retries, and three of another release": Case(
        "SolfaRetriesClimbing", {RETRIES: "0x10 1 2 3x60", of_another(RETRIES): "0x10 1 2 3x60"}, 20, []
    ),
    "nobody leads": Case("SolfaNoLeader", dict.fromkeys(LEADERS, "0x20"), 10, [ML]),
    "nobody leads, but in another release": Case("SolfaNoLeader", {LEADERS[0]: "0x20", of_another(LEADERS[0]): "1x20"}, 10, [ML]),
    "one of two leads": Case("SolfaNoLeader", dict(zip(LEADERS, ("0x20", "1x20"), strict=True)), 10, []),
    "the lease changes hands": Case("SolfaNoLeader", dict(zip(LEADERS, ("1x5 0x20", "0x6 1x20"), strict=True)), 10, []),
    "the leader finishes no pass": Case("SolfaNoLeader", {LEADERS[0]: "1x30", LAGS[0]: "0x5 0+60x20"}, 12, [ML]),
    "a slow pass": Case("SolfaNoLeader", {LEADERS[0]: "1x30", LAGS[0]: "1x5 90 1x20"}, 6, []),
    "one that hangs thinks that it leads still": Case(
        "SolfaNoLeader", {LEADERS[0]: "1x30", LAGS[0]: "0x5 0+60x20", LEADERS[1]: "0x5 1x30", LAGS[1]: "0x30"}, 20, []
    ),
    "one domain has it all": Case("SolfaWeightsCollapsed", {WEIGHT: "0.5 0.95x60"}, 20, [{**PILE, "domain": "code"}]),
    "one domain has it all for a while": Case("SolfaWeightsCollapsed", {WEIGHT: "0.5x5 0.95x5 0.7x60"}, 20, []),
    "one domain has most": Case("SolfaWeightsCollapsed", {WEIGHT: "0.8x60"}, 30, []),
    "a loss that rises again": Case("SolfaProxyDiverging", {LOSS: "8-1x4 4+0.5x20", STEP: "0+10x30"}, 20, [PILE]),
    "a loss that has risen long ago": Case("SolfaProxyDiverging", {LOSS: "4x60 8x400", STEP: "0+10x460"}, 180, [PILE]),
    "a loss that falls": Case("SolfaProxyDiverging", {LOSS: "8-0.2x25", STEP: "0+10x30"}, 20, []),
    "a loss that jumps once": Case("SolfaProxyDiverging", {LOSS: "4x10 7 4x20", STEP: "0+10x30"}, 11, []),
    "a proxy that begins again": Case("SolfaProxyDiverging", {LOSS: "10-0.15x40 _x3 10-0.15x40", STEP: "0+10x40 _x3 0+10x40"}, 55, []),
    "a main model's loss": Case(
        "SolfaProxyDiverging",
        {one.replace("proxy", "main"): values for one, values in ((LOSS, "8-1x4 4+0.5x20"), (STEP, "0+10x30"))},
        20,
        [],
    ),
    "one in ten operations fails": Case("SolfaBucketErrors", {ERRORS: "0+6x30", PUTS: "0+60x30"}, 20, [{**ML, "operation": "put"}]),
    "every put fails beside a hundred reads": Case(
        "SolfaBucketErrors", {ERRORS: "0+60x30", PUTS: "0+60x30", GETS: "0+6000x30"}, 20, [{**ML, "operation": "put"}]
    ),
    "every put fails beside those of another release": Case(
        "SolfaBucketErrors", {ERRORS: "0+6x30", PUTS: "0+6x30", of_another(PUTS): "0+600x30"}, 20, [{**ML, "operation": "put"}]
    ),
    "one in a hundred fails": Case("SolfaBucketErrors", {ERRORS: "0+6x30", PUTS: "0+600x30"}, 20, []),
    "it failed an hour ago": Case("SolfaBucketErrors", {ERRORS: "0+6x5 30x90", PUTS: "0+60x99"}, 80, []),
    "it never failed": Case("SolfaBucketErrors", {PUTS: "0+60x30"}, 20, []),
    "an hour in the queue": Case("SolfaQueueWait", {QUEUED: "0+60x90"}, 60, [{**ML, "kind": "proxy"}]),
    "ten minutes in the queue": Case("SolfaQueueWait", {QUEUED: "0+60x90"}, 10, []),
    "a long run": Case("SolfaQueueWait", {RUNNING: "0+60x90"}, 60, []),
    "no replica reaches the database": Case("SolfaStoreDown", dict.fromkeys(STORES, "0x20"), 10, [ML]),
    "one of two reaches it": Case("SolfaStoreDown", dict(zip(STORES, ("0x20", "1x20"), strict=True)), 10, []),
    "another release's reaches it": Case("SolfaStoreDown", {STORES[0]: "0x20", of_another(STORES[0]): "1x20"}, 10, [ML]),
}


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: apt install prometheus)")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_fires_when_it_should(case: Case, tmp_path: Path) -> None:
    """Only labels are compared; the sentences are held against the metrics' labels below."""
    rules = SOURCE["rules"]()
    for rule in rules["groups"][0]["rules"]:
        rule["annotations"] = {}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    labels = [{**labels, "severity": ALERTS[case.name].severity} for labels in case.fires]
    test = {
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "alert_rule_test": [
            {"eval_time": f"{case.minute * 60:.0f}s", "alertname": case.name, "exp_alerts": [{"exp_labels": one} for one in labels]}
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "30s", "tests": [test]}))
    assert PROMTOOL
    done = subprocess.run([PROMTOOL, "test", "rules", str(tmp_path / "test.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@by_name
def test_each_has_a_case_that_fires_and_one_that_does_not(name: str) -> None:
    assert {bool(case.fires) for case in CASES.values() if case.name == name} == {True, False}


def test_what_is_borne_more_of_is_what_spends_no_retry() -> None:
    assert SOURCE["FREE"].split("|") == sorted(FREE)


@by_name
def test_its_sentences_name_labels_that_it_has(name: str) -> None:
    alert = ALERTS[name]
    kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", alert.expr))))
    assert set(re.findall(r"\$labels\.(\w+)", alert.summary + alert.description)) <= kept


@by_name
def test_it_has_a_page_whose_metrics_and_commands_are_there(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text()
    assert re.findall(r"^#+ .*", text, re.MULTILINE) == [f"# {name}", "## What it means", "## Where to look", "## What to do"]
    known = OF_SERVICE.keys() | OF_TRAINER.keys()
    for found in METRIC.findall(text + ALERTS[name].expr):
        assert re.sub(r"_(count|sum|bucket)$", "", found) in known, found
    commands = {command.name or command.callback.__name__ for command in cli.registered_commands if command.callback}
    assert set(re.findall(r"`(?:SOLFA_PROJECT=PROJECT )?solfa ([a-z]+)", text)) <= commands
    assert not re.findall(r"`solfa [a-z]+ EXPERIMENT", text), "which project's?"
    assert not re.findall(r"kubectl (?!-n NAMESPACE |get queue`)", text), "in which namespace?"
    assert set(re.findall(r"\bSolfa[A-Z]\w+", text)) <= ALERTS.keys()


def test_there_is_no_page_without_an_alert() -> None:
    assert {path.stem for path in PAGES.iterdir()} == ALERTS.keys()


def test_the_charts_file_is_what_its_source_says() -> None:
    for path, text in SOURCE["generated"]().items():
        assert path.read_text() == text, "run: python charts/alerts.py"


@pytest.mark.skipif(HELM is None, reason="helm is not installed")
def test_the_chart_brings_them_as_they_are_with_the_runbooks_where_people_read_them() -> None:
    text = render(next(path for path in VALUES if path.stem == "monitoring"))
    (rule,) = (one for one in objects(text) if one["kind"] == "PrometheusRule")
    ours: dict[str, Any] = SOURCE["rules"]()
    moved = json.dumps(ours).replace("docs/runbooks/", "https://git.example.com/solfa/docs/runbooks/")
    assert rule["spec"] == json.loads(moved)
    assert rule["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    assert not [one for one in objects(render(VALUES[0])) if one["kind"] == "PrometheusRule"]


@pytest.mark.skipif(HELM is None, reason="helm is not installed")
def test_without_an_address_an_alert_names_its_page_in_the_repository() -> None:
    text = render(VALUES[0], "--set", "monitoring.rules=true")
    (rule,) = (one for one in objects(text) if one["kind"] == "PrometheusRule")
    for one in rule["spec"]["groups"][0]["rules"]:
        assert (ROOT / one["annotations"]["runbook_url"]).is_file()
