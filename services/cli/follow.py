"""Following an experiment to its end: a live table in a terminal, a line a change elsewhere."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live

from api.errors import NotReady, ServiceUnreachable
from api.experiment import ExperimentPhase
from api.stages import StageKind, StagePhase
from api.views import ExperimentView, StageView
from services.cli.connection import connect, options
from services.cli.exits import Exit
from services.cli.screen import err, is_live, out, print_json
from services.cli.stages_view import change_line, status_view
from services.cli.weights_view import current_view

if TYPE_CHECKING:
    from api.client import Client

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 60.0  # for a service that restarts
ENDED = (ExperimentPhase.SUCCEEDED, ExperimentPhase.FAILED, ExperimentPhase.CANCELLED)


def follow_to_the_end(name: str, url: str | None, home: Path | None, as_json: bool) -> None:
    """Show it until it ends; with `as_json` on standard error, and then the record on standard output.

    Raises typer.Exit with the code that its end, or Ctrl-C, stands for.
    """
    console, reach = err if as_json else out, options(url, home)
    try:
        with connect(url, home) as client:
            experiment = (_watch_live if is_live(console) else _watch_lines)(client, name, console)
    except KeyboardInterrupt:
        err.print(
            f"\n{name} goes on. Come back with `solfa status {name} --watch{reach}`, or end it with `solfa cancel {name}{reach}`.",
            soft_wrap=True,
        )
        raise typer.Exit(Exit.INTERRUPTED) from None
    if as_json:
        print_json(experiment)
    err.print(_last_words(experiment, reach), soft_wrap=True)
    if experiment.phase is not ExperimentPhase.SUCCEEDED:
        raise typer.Exit(Exit.FAILED)


def _watch_live(client: "Client", name: str, console: Console) -> ExperimentView:
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        while True:
            experiment, stages = _look(client, name)
            live.update(_picture(client, experiment, stages, console.width))
            if experiment.phase in ENDED:
                return experiment
            time.sleep(POLL_SECONDS)


def _watch_lines(client: "Client", name: str, console: Console) -> ExperimentView:
    said: dict[str, str] = {}
    while True:
        experiment, stages = _look(client, name)
        for stage in stages:
            line = change_line(stage)
            if said.get(stage.name) != line and stage.phase is not StagePhase.BLOCKED:
                console.print(line, soft_wrap=True)
            said[stage.name] = line
        if experiment.phase in ENDED:
            return experiment
        time.sleep(POLL_SECONDS)


def _look(client: "Client", name: str) -> tuple[ExperimentView, list[StageView]]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return client.get(name), client.stages(name)
        except ServiceUnreachable:
            if time.monotonic() > deadline:
                raise
            err.print("The service does not answer; waiting for it.", style="dim")
            time.sleep(2 * POLL_SECONDS)


def _picture(client: "Client", experiment: ExperimentView, stages: list[StageView], width: int) -> RenderableType:
    table = status_view(experiment, stages, datetime.now(UTC), width)
    proxy = next((stage for stage in stages if stage.kind is StageKind.PROXY and stage.phase is StagePhase.RUNNING), None)
    if proxy is None or proxy.report is None or proxy.report.domain_weights is None:
        return table
    try:
        return Group(table, "", current_view(client.current_weights(experiment.name), width))
    except NotReady:
        return table


def _last_words(experiment: ExperimentView, reach: str) -> str:
    """How it ended, why, and what can be done next."""
    name = experiment.name
    if experiment.phase is ExperimentPhase.SUCCEEDED:
        compared = any(stage.kind is StageKind.EVALUATE for stage in experiment.stages)
        return f"{name} succeeded. Look at `solfa weights {name}{reach}`" + (f" and `solfa compare {name}{reach}`." if compared else ".")
    if experiment.phase is ExperimentPhase.CANCELLED:
        return f"{name} was cancelled; `solfa retry {name}{reach}` takes it up again."
    culprit = next(stage for stage in experiment.stages if stage.phase is StagePhase.FAILED)
    return f"{name} failed at {culprit.name}: {culprit.message} See `solfa logs {name} {culprit.name}{reach}`."
