"""The chart's dashboards: the one source of files/dashboards/*.json, which dashboards.yaml puts into ConfigMaps.

`python charts/dashboards` writes them; a test holds them equal to what this would write. What is in which dashboard is said in
the modules beside this; how a panel of each kind looks, in looks.py.
"""

import itertools
from pathlib import Path

from experiment import EXPERIMENT
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import VariableRefresh, VariableSort
from looks import SOURCE, panel
from overview import OVERVIEW
from panels import Board
from service import SERVICE

FOLDER = Path(__file__).resolve().parents[1] / "solfa" / "files" / "dashboards"


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
        made.with_variable(variable("project", "Project", f"label_values({live}}}, project)", everything=False))
        query = f'label_values({live},project=~"$project"}}, experiment)'
        made.with_variable(variable("experiment", "Experiment", query, everything=False))
        of = f'{at},instance=~"$instance",project=~"$project",experiment=~"$experiment"'
        of_domains = "label_values(solfa_experiment_{}{{{}}}, stage)"
        made.with_variable(variable("proxy", "Proxy", of_domains.format("domain_weight_ratio", of), everything=False))
        made.with_variable(variable("stage", "Stages, of losses by domain", of_domains.format("domain_loss", of), everything=True))
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
