"""Commands on experiments: validate, plan, submit, list, status, logs, events, cancel, retry, resize, delete."""

import hashlib
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from api import keys
from api.errors import BadRequest, NotFound, ServiceUnreachable
from api.experiment import ExperimentPhase
from api.plan import make_plan
from api.spec import parse_spec
from api.views import StageView, Validated
from services.cli.connection import AsJson, Home, Url, connect
from services.cli.follow import follow_to_the_end
from services.cli.screen import err, out, print_json
from services.cli.specs import read_spec
from services.cli.stages_view import list_view, plan_view, status_view

Name = Annotated[str, typer.Argument(help="The experiment's name or id.")]
SpecFile = Annotated[Path, typer.Argument(help="A spec, YAML or JSON; - reads standard input.")]


def validate(spec: SpecFile, url: Url = None, home: Home = None, as_json: AsJson = False) -> None:
    """Check a spec, with the service's eyes where one runs: every problem at once, with its line.

    With --json: the plan, and the launch requests exactly as they would be made.
    """
    text = read_spec(spec)
    parsed = parse_spec(text)
    validated = None
    with suppress(ServiceUnreachable), connect(url, home) as client:
        validated = client.validate(text) if client.ready() else None
    if validated is None:
        err.print("No service answers, so only the spec itself was checked, not its sources.", style="dim")
        digest = hashlib.sha256(text.encode()).hexdigest()
        validated = Validated(name=parsed.name, spec_sha256=digest, plan=make_plan(parsed), launches=[])
    if as_json:
        print_json(validated)
    else:
        out.print(f"{parsed.name} is valid: {len(parsed.domains)} domains, {len(validated.plan.stages)} stages.")


def plan(spec: SpecFile, as_json: AsJson = False) -> None:
    """Print the stages that a spec would run, what each needs, and what it waits for; no service is needed."""
    parsed = parse_spec(read_spec(spec))
    if as_json:
        print_json(make_plan(parsed))
    else:
        out.print(plan_view(parsed, make_plan(parsed)))


def submit(
    spec: SpecFile,
    name: Annotated[str | None, typer.Option(help="Another name than the spec's.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until it ends. Ctrl-C leaves it running.")] = False,
    url: Url = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Post a spec. Relative paths in it are taken from the spec's own folder.

    Example: solfa submit spec.yaml --name second-try --wait
    """
    text = read_spec(spec, name)
    with connect(url, home) as client:
        experiment = client.submit(text)
    err.print(f"Submitted {experiment.name} ({experiment.id}).")
    if wait:
        follow_to_the_end(experiment.name, url, home, as_json)
    elif as_json:
        print_json(experiment)


def list_experiments(
    phase: Annotated[ExperimentPhase | None, typer.Option(help="Only these.")] = None,
    url: Url = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """All experiments, newest first."""
    with connect(url, home) as client:
        found = list(client.experiments(phase))
        project = client.project
    if as_json:
        print_json(found)
    else:
        out.print(list_view(found, project))


def status(
    name: Name,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Redraw until it ends. Ctrl-C leaves it running.")] = False,
    url: Url = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """The stages of an experiment: phase, progress, and why one waits or failed."""
    if watch:
        follow_to_the_end(name, url, home, as_json)
        return
    with connect(url, home) as client:
        experiment, stages = client.get(name), client.stages(name)
    if as_json:
        print_json(experiment.model_copy(update={"stages": stages}))
    else:
        out.print(status_view(experiment, stages, datetime.now(UTC), out.width))


def logs(
    name: Name,
    stage: Annotated[str | None, typer.Argument(help="The stage; by default the one that runs, or ran last.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until the attempt ends.")] = False,
    tail: Annotated[int | None, typer.Option(min=1, help="Only the last lines.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="An earlier attempt, by number.")] = None,
    url: Url = None,
    home: Home = None,
) -> None:
    """An attempt's log.

    Example: solfa logs demo proxy --follow
    """
    if follow and (tail or attempt):
        raise BadRequest("--follow shows the newest attempt from its first line; leave --tail and --attempt out.")
    with connect(url, home) as client:
        chosen = stage or _newest_stage(client.stages(name), name)
        lines = client.follow_logs(name, chosen) if follow else iter(client.logs(name, chosen, attempt, tail).lines)
        for line in lines:
            print(line, flush=follow)


def events(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones until the experiment ends.")] = False,
    url: Url = None,
    home: Home = None,
) -> None:
    """What has happened to an experiment, one JSON object a line."""
    with connect(url, home) as client:
        for event in client.events(name) if follow else client.past_events(name):
            print(event.model_dump_json(), flush=True)


def cancel(name: Name, url: Url = None, home: Home = None, as_json: AsJson = False) -> None:
    """End an experiment. What it has finished stays, and `solfa retry` takes it up again."""
    with connect(url, home) as client:
        _changed(client.cancel(name), as_json, f"{name} is being cancelled.")


def retry(name: Name, url: Url = None, home: Home = None, as_json: AsJson = False) -> None:
    """Give the failed and cancelled stages of an experiment another try; they resume from their saved states."""
    with connect(url, home) as client:
        _changed(client.retry(name), as_json, f"{name} is tried again; watch it with `solfa status {name} --watch`.")


def resize(
    name: Name,
    stage: Annotated[str, typer.Argument(help="A live stage.")],
    machines: Annotated[int, typer.Argument(min=1, help="Within the range that the spec's compute gives it.")],
    url: Url = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let a stage go on with more or fewer machines, now and in later attempts; what it has trained stays.

    Example: solfa resize demo proxy 2
    """
    with connect(url, home) as client:
        changed = client.resize(name, stage, machines)
    _changed(changed, as_json, f"Machines asked for {stage} of {name}: {machines}.")


def delete(name: Name, url: Url = None, home: Home = None) -> None:
    """Remove a finished experiment and what it made, but for results that other experiments adopted."""
    with connect(url, home) as client:
        client.delete(name)
    out.print(f"{name} is deleted.")


def _changed(experiment: BaseModel, as_json: bool, sentence: str) -> None:
    if as_json:
        print_json(experiment)
    else:
        out.print(sentence)


def _newest_stage(stages: list[StageView], name: str) -> str:
    """The stage that runs, or the last that ran."""
    tried = [stage for stage in stages if stage.attempts]
    if not tried:
        adopted = next((stage for stage in reversed(stages) if stage.adopted and stage.result_key), None)
        if adopted and adopted.result_key:
            donor, there = keys.owner(adopted.result_key)
            raise NotFound(f"No stage of {name} has a log of its own: {adopted.name} was taken over from {there} of {donor}.")
        raise NotFound(f"No stage of {name} has been tried yet; `solfa status {name}` says what it waits for.")
    return next((stage.name for stage in tried if not stage.phase.terminal), tried[-1].name)
