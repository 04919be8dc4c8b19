"""The chart's dashboards: the one source of files/dashboards/*.json, which dashboards.yaml puts into ConfigMaps.

`python charts/dashboards` writes them; a test holds them equal to what this would write. What is in which dashboard is said in
the modules beside this; here is how a panel of each kind looks.
"""

import itertools
from pathlib import Path

from experiment import EXPERIMENT
from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode, StackingMode, VisibilityMode, VizOrientation
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh, VariableSort
from overview import OVERVIEW
from panels import Board, Panel
from service import SERVICE

FOLDER = Path(__file__).resolve().parents[1] / "solfa" / "files" / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
LAST = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
HEIGHT = 8  # of Grafana's grid
BUILDERS = {
    "lines": timeseries.Panel,
    "stack": timeseries.Panel,
    "number": stat.Panel,
    "bars": bargauge.Panel,
    "states": statetimeline.Panel,
}
Built = timeseries.Panel | stat.Panel | bargauge.Panel | statetimeline.Panel


def panel(one: Panel, number: int) -> Built:
    """As Grafana draws it."""
    made: Built = BUILDERS[one.kind]()
    made.id(number).title(one.title).description(one.description).unit(one.unit).datasource(SOURCE).no_value(one.empty)
    made.span(one.width).height(HEIGHT if one.kind != "number" else 4)
    if one.unit == "percentunit":
        made.min(0).max(1)
    if isinstance(made, timeseries.Panel):
        made.span_nulls(False).fill_opacity(70 if one.kind == "stack" else 0)
        if one.kind == "stack":
            made.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if isinstance(made, stat.Panel):
        made.graph_mode(BigValueGraphMode.AREA).reduce_options(LAST)
    if isinstance(made, bargauge.Panel):
        made.orientation(VizOrientation.HORIZONTAL).reduce_options(LAST)
    if isinstance(made, statetimeline.Panel):
        made.show_value(VisibilityMode.NEVER)
    for place, (expr, legend) in enumerate(one.queries):
        query = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(chr(65 + place)).datasource(SOURCE)
        made.with_target(query.instant() if one.kind == "bars" else query.range())
    return made


def variable(name: str, label: str, query: str, *, everything: bool) -> dashboard.QueryVariable:
    made = dashboard.QueryVariable(name).label(label).query(query).datasource(SOURCE)
    made.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
    return made.multi(True).include_all(True).all_value(".*" if name == "namespace" else ".+") if everything else made


def board(one: Board) -> str:
    """As JSON."""
    made = dashboard.Dashboard(f"Solfa / {one.title}").uid(f"solfa-{one.name}").description(one.description).tags(["solfa"])
    made.readonly().refresh("30s").time("now-6h", "now").timezone("browser")
    made.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    at = 'job=~"$job",namespace=~"$namespace"'
    made.with_variable(variable("job", "Job", "label_values(solfa_build_info, job)", everything=True))
    made.with_variable(variable("namespace", "Namespace", 'label_values(solfa_build_info{job=~"$job"}, namespace)', everything=True))
    made.with_variable(variable("instance", "Instance", f"label_values(solfa_build_info{{{at}}}, instance)", everything=True))
    if one.of_experiment:
        live = f'solfa_experiment_attempts{{{at},instance=~"$instance"'
        made.with_variable(variable("project", "Project", f"label_values({live}}}, project)", everything=True))
        query = f'label_values({live},project=~"$project"}}, experiment)'
        made.with_variable(variable("experiment", "Experiment", query, everything=False))
    numbers = itertools.count(1)
    for title, panels in one.rows:
        made.with_row(dashboard.Row(title).id(next(numbers)))
        for entry in panels:
            made.with_panel(panel(entry, next(numbers)))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def generated() -> dict[Path, str]:
    """What each generated file should hold."""
    return {FOLDER / f"{one.name}.json": board(one) for one in (OVERVIEW, EXPERIMENT, SERVICE)}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in generated().items():
        path.write_text(text)
