"""The dashboards keep every rule of Grafana's dashboard linter, without an exclusion, and arrive in the chart as they are."""

import json
import re
import runpy
from collections.abc import Iterator
from typing import Any

import pytest

from api.experiment import ExperimentPhase
from api.metrics import OF_SERVICE
from api.stages import StagePhase
from tests.charts.rendering import CHART, HELM, ROOT, VALUES, objects, render

FOLDER = CHART / "files" / "dashboards"
BOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
UNITS = {"none", "s", "percentunit", "ops", "reqps", "si:tok/s", "suffix: nats"}
OVER = {"rate": "$__rate_interval", "increase": "$__range", "max_over_time": "$__range"}
METRIC = re.compile(r"\b(solfa_[a-z_]+)(\{[^}]*\})?")
MATCHERS = ('job=~"$job"', 'instance=~"$instance"', 'namespace=~"$namespace"')
by_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (panel for panel in board["panels"] if panel["type"] != "row")


def queries(board: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in panels(board) for target in panel["targets"]]


def variables(board: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in board["templating"]["list"]}


def plain(metric: str) -> str:
    return metric if metric in OF_SERVICE else re.sub(r"_(count|sum|bucket)$", "", metric)


def test_there_are_three() -> None:
    assert BOARDS.keys() == {"overview", "experiment", "service"}
    assert {board["uid"] for board in BOARDS.values()} == {f"solfa-{name}" for name in BOARDS}


@by_board
def test_a_dashboard_is_whole(board: dict[str, Any]) -> None:
    """Nobody edits it in place; every panel has a place of its own, a number of its own and something to say when there is nothing."""
    assert board["editable"] is False
    assert board["description"].endswith(".")
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    assert all(numbers)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in board["panels"])
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells), "two panels lie over each other"
    assert max(x for x, _ in cells) < 24
    titles = [panel["title"] for panel in panels(board)]
    assert len(set(titles)) == len(titles)


@by_board
def test_its_variables_choose_source_job_namespace_and_instance(board: dict[str, Any]) -> None:
    found = variables(board)
    assert (found["datasource"]["type"], found["datasource"]["query"]) == ("datasource", "prometheus")
    of_experiment = {"project", "experiment", "proxy", "stage"}
    assert found.keys() - of_experiment == {"datasource", "job", "namespace", "instance"}
    assert of_experiment & set(found) == (of_experiment if board["uid"] == "solfa-experiment" else set())
    for name, variable in found.items():
        assert variable["label"]
        if name != "datasource":
            assert (variable["type"], variable["datasource"], variable["refresh"]) == ("query", SOURCE, 2)
        if name in ("job", "instance", "namespace"):
            assert (variable["multi"], variable["includeAll"]) == (True, True)
            assert variable["allValue"] == (".*" if name == "namespace" else ".+"), "outside of Kubernetes there is no namespace"


@by_board
def test_a_panel_says_what_it_shows_in_which_unit_and_what_it_means_to_show_nothing(board: dict[str, Any]) -> None:
    for panel in panels(board):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == SOURCE
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"] in UNITS, panel["title"]
        assert defaults["noValue"], panel["title"]
        assert panel["targets"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            assert target["datasource"] == SOURCE
            assert target["legendFormat"], panel["title"]
            assert bool(target.get("instant")) != bool(target.get("range")), panel["title"]
            assert target["interval"] == "30s", "the chart puts the scrapes' own there"


@by_board
def test_nothing_is_left_to_a_default_that_misleads(board: dict[str, Any]) -> None:
    """Grafana's own turn red from 80 on, put the last number of a range where there is none now, and begin an axis anywhere."""
    for panel in panels(board):
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["thresholds"]["steps"][0]["color"], panel["title"]
        assert defaults["color"]["mode"] == ("thresholds" if panel["type"] in ("stat", "bargauge") else "palette-classic")
        assert "min" in defaults or defaults["unit"] == "suffix: nats", panel["title"]
        if panel["type"] in ("stat", "bargauge", "table"):
            assert all(target["instant"] for target in panel["targets"]), panel["title"]
        if any("{{phase}}" in target["legendFormat"] for target in panel["targets"]) and panel["type"] == "timeseries":
            colours = {
                rule["matcher"]["options"]: rule["properties"][0]["value"]["fixedColor"] for rule in panel["fieldConfig"]["overrides"]
            }
            assert colours["failed"] == "red"
            assert {phase.value for phase in (*StagePhase, *ExperimentPhase)} == colours.keys()


def test_panels_over_steps_join_their_series_and_know_the_steps_by_name() -> None:
    over = [panel for panel in panels(BOARDS["experiment"]) if panel["type"] == "trend"]
    assert [panel["title"] for panel in over] == ["Weights over steps", "Averaged weights over steps"]
    for panel in over:
        assert panel["options"]["xField"] == panel["targets"][-1]["legendFormat"] == "Step"
        assert [change["id"] for change in panel["transformations"]] == ["joinByField"]
        *series, step = (target["expr"] for target in panel["targets"])
        assert all(expr.endswith(f" and on () {step}") for expr in series), "a weight stands only where its step does"


def test_the_timeline_names_and_colours_every_phase_that_a_live_stage_may_be_in() -> None:
    (panel,) = (panel for panel in panels(BOARDS["experiment"]) if panel["type"] == "state-timeline")
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    assert {meaning["text"] for meaning in mapping["options"].values()} == {phase.value for phase in StagePhase if not phase.terminal}
    for number, meaning in mapping["options"].items():
        assert re.search(rf'phase="{meaning["text"]}"\}}\) \+ {number}\b', panel["targets"][0]["expr"])


def test_a_table_has_a_column_for_each_of_its_queries() -> None:
    for panel in (panel for board in BOARDS.values() for panel in panels(board) if panel["type"] == "table"):
        (merge, organize) = panel["transformations"]
        assert (merge["id"], organize["id"]) == ("merge", "organize")
        named = {f"Value #{target['refId']}": target["legendFormat"] for target in panel["targets"]}
        assert organize["options"]["renameByName"] == named
        assert {rule["matcher"]["options"] for rule in panel["fieldConfig"]["overrides"]} == set(named.values())


@by_board
def test_a_query_asks_for_metrics_that_there_are_of_those_that_were_chosen(board: dict[str, Any]) -> None:
    for expr in queries(board):
        found = METRIC.findall(re.sub(r"by \([^)]*\)", "", expr))
        assert found, expr
        for metric, matchers in found:
            assert plain(metric) in OF_SERVICE, expr
            assert all(matcher in matchers for matcher in MATCHERS), expr
            assert ('experiment=~"$experiment"' in matchers) == ("experiment" in variables(board)), expr
        labels = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", expr)))) - {"le", "instance", "namespace", "job"}
        assert labels <= {label for metric, _ in found for label in OF_SERVICE[plain(metric)].labels}, expr


@by_board
def test_a_counter_is_shown_as_a_rate_over_a_window_that_fits_the_scrapes(board: dict[str, Any]) -> None:
    for expr in queries(board):
        for metric, _ in METRIC.findall(expr):
            if OF_SERVICE.get(plain(metric)) and OF_SERVICE[plain(metric)].kind != "gauge":
                before = expr.partition(metric)[0]
                assert before.endswith(("rate(", "increase(")), expr
        for function, window in re.findall(r"(rate|increase|max_over_time)\([^\[\]]*\[([^\]]*)\]", expr):
            assert window == OVER[function], expr
        assert len(re.findall(r"\[", expr)) == len(re.findall(r"\b(?:rate|increase|max_over_time)\(", expr)), expr


@by_board
def test_a_legend_names_labels_that_its_query_keeps(board: dict[str, Any]) -> None:
    for panel in panels(board):
        for target in panel["targets"]:
            kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, panel["title"]


def test_all_that_is_measured_of_experiments_and_stages_is_shown() -> None:
    """The rest is seen with a query of one's own."""
    shown = {plain(metric) for board in BOARDS.values() for expr in queries(board) for metric, _ in METRIC.findall(expr)}
    assert OF_SERVICE.keys() - shown == {"solfa_build_info", "solfa_reconcile_last_pass_timestamp_seconds"}


def test_the_files_are_what_their_source_says() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="grafana-foundation-sdk is not installed (pyproject.toml, dev)")
    for path, text in runpy.run_path(str(ROOT / "charts" / "dashboards"))["generated"]().items():
        assert path.read_text() == text, "run: python charts/dashboards"


@pytest.mark.skipif(HELM is None, reason="helm is not installed")
def test_the_chart_brings_them_where_grafana_looks_and_only_when_asked() -> None:
    made = [one for one in objects(render(VALUES[0], "--set", "monitoring.dashboards=true")) if one["kind"] == "ConfigMap"]
    assert [one["metadata"]["labels"]["grafana_dashboard"] for one in made] == ["1", "1", "1"]
    held = {name: json.loads(text) for one in made for name, text in one["data"].items()}
    assert held == {f"solfa-{name}.json": board for name, board in BOARDS.items()}
    assert not [one for one in objects(render(VALUES[0])) if one["kind"] == "ConfigMap"]


@pytest.mark.skipif(HELM is None, reason="helm is not installed")
def test_the_chart_tells_panels_how_often_it_is_scraped() -> None:
    shown = render(VALUES[0], "--set", "monitoring.dashboards=true", "--set", "monitoring.interval=1m")
    for one in (one for one in objects(shown) if one["kind"] == "ConfigMap"):
        (board,) = (json.loads(text) for text in one["data"].values())
        assert {target["interval"] for panel in panels(board) for target in panel["targets"]} == {"1m"}
