"""From what was read to HTML: the templates, and the few ways in which they write numbers and times."""

import json
import re
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from api.access import DEFAULT_PROJECT, Scope
from api.errors import DataError
from api.exports import FORMATS
from api.stages import StagePhase
from api.views import ExperimentList, StageView
from services.access.principal import LOCAL, Principal
from services.compared import sentences
from services.histories import History
from services.page import figures, policy, tables
from services.page.assets import PLOTLY, address, asset, map_style_id
from services.page.graph import HEIGHT, WIDTH, graph
from services.page.palette import PATTERN_PATHS, looks
from services.page.snapshot import Missing, Snapshot
from services.progress import clock, elapsed, progress
from services.store import Event

SCRIPTS = (PLOTLY, "charts.js", "logs.js", "page.js")
SCRIPTS_OF_FILE = (PLOTLY, "charts.js")
STYLES = ("page.css",)
MARKS = {  # beside each phase's word: told apart without colour
    "succeeded": "✔", "failed": "✘", "cancelled": "–", "running": "▶", "backoff": "↻", "cancelling": "…",
    "queued": "◷", "launching": "◷", "blocked": "·", "pending": "·",
}  # fmt: skip
PHASES = ("pending", "running", "cancelling", "succeeded", "failed", "cancelled")


def listing(page: ExperimentList, query: dict[str, str | None], who: Principal) -> str:
    """The page of experiments; `query` holds what was asked for: phase, name_prefix, cursor."""
    return _page("list.html", page=page, query=query, phases=PHASES, scripts=["page.js"], who=who)


def experiment(found: Snapshot, who: Principal) -> str:
    """The page of one experiment."""
    return _page("experiment.html", scripts=SCRIPTS, as_file=False, who=who, **_seen(found))


def sign_in(next_page: str, problem: str) -> str:
    """The form for a token; `next_page` is where it leads, `problem` what was wrong with the last one."""
    return _page("sign_in.html", next_page=next_page, problem=problem, scripts=[])


def report(found: Snapshot) -> str:
    """The same as one file, which needs nothing beside it and asks nobody for anything."""
    return _page("experiment.html", scripts=SCRIPTS_OF_FILE, as_file=True, policy=policy.of_file(SCRIPTS_OF_FILE, STYLES), **_seen(found))


def failure(status: int, sentence: str) -> str:
    """Instead of a page: what went wrong, and the way back."""
    return _page("error.html", status=status, sentence=sentence, scripts=[])


def _page(template: str, **values: Any) -> str:
    return ENVIRONMENT.get_template(template).render({"as_file": False, "styles": STYLES, "who": LOCAL, **values})


def _seen(found: Snapshot) -> dict[str, Any]:
    look = looks(found.domains)
    drawn: dict[str, figures.Figure] = {}
    behind: dict[str, Any] = {}
    if isinstance(found.history, History) and found.history.points:
        drawn["stacked"], drawn["lines"] = (figures.alphas(found.history, look, stacked) for stacked in (True, False))
        drawn["excess"] = figures.excess(found.history, look)
        behind["alpha"], behind["excess"] = (tables.over_steps(found.history, what) for what in ("alpha", "excess"))
    others = [history for history in found.others if history.points]
    if not isinstance(found.weights, Missing):
        drawn["final"], behind["final"] = figures.final(found.weights, look), tables.weight_rows(found.weights)
    if found.validation:
        drawn["validation"] = figures.validation_by_domain(found.validation)
        drawn["validation_steps"] = figures.validation_over_steps(found.validation)
        behind["validation"] = tables.validation_rows(found.validation)
    compared = found.compared
    return {
        "found": found, "looks": look, "figures": drawn, "tables": behind, "graph": graph(found.stages), "formats": FORMATS,
        "others": [(other.stage, figures.alphas(other, look, stacked=True), tables.over_steps(other, "alpha")) for other in others],
        "comparison": None if isinstance(compared, Missing) else tables.comparison(compared),
        "sentences": [] if isinstance(compared, Missing) else sentences(compared),
        "log_of": _log_of(found.stages),
    }  # fmt: skip


def _log_of(stages: list[StageView]) -> str:
    """The stage whose log is shown first: one that runs, failed or was cut off, else the last that was launched."""
    launched = [stage for stage in stages if stage.attempts]
    telling = [stage for stage in launched if stage.phase is not StagePhase.SUCCEEDED]
    return (telling or launched or stages)[-1].name


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _told(event: Event) -> str:
    """What an event says beyond its kind and stage."""
    data = event.data
    if event.kind == "stage_changed":
        said = f": {data['message']}" if data.get("message") else ""
        return f"{data.get('from')} → {data.get('to')}{said}"
    return ", ".join(f"{name} {value}" for name, value in data.items() if value not in (None, ""))


def _phase(stage: StageView) -> str:
    return "adopted" if stage.adopted else str(stage.phase)


def _share(stage: StageView) -> float | None:
    """How much of a running stage is done; None where that is not known."""
    report = stage.report
    return min(1.0, report.step / report.total) if stage.phase is StagePhase.RUNNING and report and report.total else None


def _inlined(name: str) -> Markup:
    """An asset's text for a script or style element, whose end it must not hold."""
    text = asset(name).text
    if re.search("</(script|style)", text, re.IGNORECASE):
        raise DataError(f"{name} cannot be part of a report: it holds the end of a script or style.")
    return Markup(text)  # noqa: S704  # our own files and plotly.js, checked just before


def in_script(figure: figures.Figure) -> Markup:
    """JSON for a script element of type application/json: no `<` of a name can end it."""
    text = json.dumps(figure, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(text)  # noqa: S704  # every character that HTML reads is escaped above


ENVIRONMENT = Environment(
    loader=PackageLoader("services.page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
ENVIRONMENT.filters |= {
    "moment": _moment,
    "told": _told,
    "clock": clock,
    "phase": _phase,
    "share": _share,
    "progress": progress,
    "inlined": _inlined,
    "figure": in_script,
}
ENVIRONMENT.globals |= {
    "address": address,
    "default_project": DEFAULT_PROJECT,
    "map_style_id": map_style_id,
    "marks": MARKS,
    "pattern_paths": PATTERN_PATHS,
    "elapsed": elapsed,
    "node_width": WIDTH,
    "node_height": HEIGHT,
}
ENVIRONMENT.tests["signed_in"] = lambda who: who != LOCAL
ENVIRONMENT.tests["able_to_change"] = lambda who: who.scope.covers(Scope.SUBMIT)
ENVIRONMENT.tests["missing"] = lambda found: isinstance(found, Missing)
