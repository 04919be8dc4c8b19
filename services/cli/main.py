"""The commands of `solfa`, and the one place where an error becomes a sentence and an exit code."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from api.errors import NotFound, SolfaError
from api.experiment import ExperimentPhase
from api.plan import make_plan
from api.spec import parse_spec
from services.cli.connection import AsJson, Home, Url, connect
from services.cli.exits import TABLE, Exit, exit_code
from services.cli.results import compare, replay, weights
from services.cli.screen import err, out, print_error, print_json
from services.cli.specs import read_spec
from services.cli.stages_view import list_view, plan_view, status_view
from services.cli.up import down, up
from services.cli.watch import watch as follow_to_the_end

app = typer.Typer(help=f"Finds the data mixture a language model should be pretrained on (DoReMi). {TABLE}", no_args_is_help=True)
app.command()(up)
app.command()(down)
for _command in (weights, compare, replay):
    app.command()(_command)

Name = Annotated[str, typer.Argument(help="The experiment's name or id.")]
SpecFile = Annotated[Path, typer.Argument(help="A spec, YAML or JSON; - reads standard input.")]


@app.command()
def validate(spec: SpecFile, url: Url = None, home: Home = None, as_json: AsJson = False) -> None:
    """Check a spec, with the service's eyes where one runs: every problem at once, with its line."""
    text = read_spec(spec)
    parsed = parse_spec(text)
    with connect(url, home) as client:
        if not client.ready():
            err.print("No service answers, so only the spec itself was checked, not its sources.", style="dim")
        else:
            validated = client.validate(text)
            if as_json:
                print_json(validated)
                return
    out.print(f"{parsed.name} is valid: {len(parsed.domains)} domains, {len(make_plan(parsed).stages)} stages.")


@app.command()
def plan(spec: SpecFile, as_json: AsJson = False) -> None:
    """Print the stages that a spec would run, and what each needs; no service is needed."""
    parsed = parse_spec(read_spec(spec))
    if as_json:
        print_json(make_plan(parsed))
    else:
        out.print(plan_view(parsed, make_plan(parsed)))


@app.command()
def submit(
    spec: SpecFile,
    name: Annotated[str | None, typer.Option(help="Another name than the spec's.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until it ends. Ctrl-C leaves it running.")] = False,
    url: Url = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Post a spec. Relative paths in it are taken from the spec's own folder."""
    with connect(url, home) as client:
        experiment = client.submit(read_spec(spec, name))
        if as_json and not wait:
            print_json(experiment)
            return
        err.print(f"Submitted {experiment.name} ({experiment.id}).")
        if wait:
            _follow(experiment.name, url, home)
            if as_json:
                print_json(client.get(experiment.name))


@app.command("list")
def list_experiments(
    phase: Annotated[ExperimentPhase | None, typer.Option(help="Only these.")] = None,
    url: Url = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """All experiments, newest first."""
    with connect(url, home) as client:
        found = list(client.experiments(phase))
    if as_json:
        print_json(found)
    else:
        out.print(list_view(found))


@app.command()
def status(
    name: Name,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Redraw until it ends. Ctrl-C leaves it running.")] = False,
    url: Url = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """The stages of an experiment: phase, progress, and why one waits or failed."""
    if watch:
        _follow(name, url, home)
        return
    with connect(url, home) as client:
        experiment, stages = client.get(name), client.stages(name)
    if as_json:
        print_json(experiment.model_copy(update={"stages": stages}))
    else:
        out.print(status_view(experiment, stages, datetime.now(UTC)))


@app.command()
def logs(
    name: Name,
    stage: Annotated[str | None, typer.Argument(help="The stage; by default the one that runs, or ran last.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until the attempt ends.")] = False,
    tail: Annotated[int | None, typer.Option(min=1, help="Only the last lines.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="An earlier attempt, by number.")] = None,
    url: Url = None,
    home: Home = None,
) -> None:
    """An attempt's log."""
    with connect(url, home) as client:
        chosen = stage or _newest_stage([(one.name, bool(one.attempts), one.phase.terminal) for one in client.stages(name)], name)
        lines = client.follow_logs(name, chosen) if follow else iter(client.logs(name, chosen, attempt, tail).lines)
        for line in lines:
            print(line, flush=follow)


@app.command()
def cancel(name: Name, url: Url = None, home: Home = None, as_json: AsJson = False) -> None:
    """End an experiment. What it has finished stays."""
    with connect(url, home) as client:
        _changed(client.cancel(name), as_json, f"{name} is being cancelled.")


@app.command()
def retry(name: Name, url: Url = None, home: Home = None, as_json: AsJson = False) -> None:
    """Give the failed and cancelled stages of an experiment another try; they resume from their saved states."""
    with connect(url, home) as client:
        _changed(client.retry(name), as_json, f"{name} is tried again; watch it with `solfa status {name} --watch`.")


@app.command()
def delete(name: Name, url: Url = None, home: Home = None) -> None:
    """Remove a finished experiment and what it made, but for results that other experiments adopted."""
    with connect(url, home) as client:
        client.delete(name)
    out.print(f"{name} is deleted.")


@app.command()
def events(name: Name, follow: Annotated[bool, typer.Option("--follow", "-f")] = False, url: Url = None, home: Home = None) -> None:
    """What has happened to an experiment, one JSON object a line."""
    with connect(url, home) as client:
        for event in client.events(name) if follow else client.past_events(name):
            print(event.model_dump_json(), flush=True)


def _changed(experiment: BaseModel, as_json: bool, sentence: str) -> None:
    if as_json:
        print_json(experiment)
    else:
        out.print(sentence)


def _follow(name: str, url: str | None, home: Path | None) -> None:
    """Show it until it ends. Raises typer.Exit with the code that its end, or Ctrl-C, stands for."""
    try:
        with connect(url, home) as client:
            phase = follow_to_the_end(client, name)
    except KeyboardInterrupt:
        err.print(f"\n{name} goes on. Come back with `solfa status {name} --watch`, or end it with `solfa cancel {name}`.")
        raise typer.Exit(Exit.INTERRUPTED) from None
    if phase is not ExperimentPhase.SUCCEEDED:
        err.print(f"{name} {'was cancelled' if phase is ExperimentPhase.CANCELLED else 'failed'}; `solfa status {name}` says why.")
        raise typer.Exit(Exit.FAILED)


def _newest_stage(stages: list[tuple[str, bool, bool]], name: str) -> str:
    """Of (stage, was it tried, has it ended): the one that runs, or the last that ran."""
    tried = [(stage, ended) for stage, was_tried, ended in stages if was_tried]
    if not tried:
        raise NotFound(f"No stage of {name} has been tried yet; its results were adopted, or it waits (see `solfa status {name}`).")
    return next((stage for stage, ended in tried if not ended), tried[-1][0])


def main() -> None:
    """Run a command; every SolfaError is one sentence and an exit code."""
    try:
        app()
    except SolfaError as error:
        print_error(error)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
