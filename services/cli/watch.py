"""Following an experiment to its end: a live table in a terminal, a line a change elsewhere."""

import time
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.live import Live

from api.client import Client
from api.errors import NotReady, ServiceUnreachable
from api.experiment import ExperimentPhase
from api.stages import StageKind, StagePhase
from api.views import ExperimentView, StageView
from services.cli.screen import err, is_live, out
from services.cli.stages_view import change_line, status_view
from services.cli.weights_view import current_view

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 60.0  # for a service that restarts
ENDED = (ExperimentPhase.SUCCEEDED, ExperimentPhase.FAILED, ExperimentPhase.CANCELLED)


def watch(client: Client, name: str) -> ExperimentPhase:
    """Show the experiment until it ends; its last phase. KeyboardInterrupt leaves the run going."""
    return _watch_live(client, name) if is_live() else _watch_lines(client, name)


def _watch_live(client: Client, name: str) -> ExperimentPhase:
    with Live(console=out, refresh_per_second=4, transient=False) as live:
        while True:
            experiment, stages = _look(client, name)
            live.update(_picture(client, experiment, stages))
            if experiment.phase in ENDED:
                return experiment.phase
            time.sleep(POLL_SECONDS)


def _watch_lines(client: Client, name: str) -> ExperimentPhase:
    said: dict[str, str] = {}
    while True:
        experiment, stages = _look(client, name)
        for stage in stages:
            line = change_line(stage)
            if said.get(stage.name) != line and stage.phase is not StagePhase.BLOCKED:
                out.print(line, markup=False, soft_wrap=True)
            said[stage.name] = line
        if experiment.phase in ENDED:
            return experiment.phase
        time.sleep(POLL_SECONDS)


def _look(client: Client, name: str) -> tuple[ExperimentView, list[StageView]]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return client.get(name), client.stages(name)
        except ServiceUnreachable:
            if time.monotonic() > deadline:
                raise
            err.print("The service does not answer; waiting for it.", style="dim")
            time.sleep(2 * POLL_SECONDS)


def _picture(client: Client, experiment: ExperimentView, stages: list[StageView]) -> RenderableType:
    table = status_view(experiment, stages, datetime.now(UTC))
    proxy = next((stage for stage in stages if stage.kind is StageKind.PROXY and stage.phase is StagePhase.RUNNING), None)
    if proxy is None or proxy.report is None or proxy.report.domain_weights is None:
        return table
    try:
        return Group(table, "", current_view(client.current_weights(experiment.name)))
    except NotReady:
        return table
