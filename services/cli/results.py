"""`solfa weights`, `compare`, `data`, `replay`, `report`: what a search found, and on what."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.domains import DomainWeights
from api.errors import BadRequest, NotReady
from api.exports import FORMATS
from api.replay import TOLERANCE
from api.replay import replay as replay_history
from services.cli.compare_view import compare_view
from services.cli.connection import AsJson, Home, Url, connect
from services.cli.data_view import data_view
from services.cli.exits import Exit
from services.cli.screen import err, out, print_json
from services.cli.weights_view import current_view, weights_view

if TYPE_CHECKING:
    from api.client import Client

Name = Annotated[str, typer.Argument(help="The experiment's name or id.")]


def weights(
    name: Name,
    export: Annotated[str | None, typer.Option("--format", help="For a downstream trainer: " + ", ".join(FORMATS))] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for them.")] = 0,
    current: Annotated[bool, typer.Option("--current", help="alpha of the proxy that runs now.")] = False,
    url: Url = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """The averaged domain weights, as bars or in a downstream trainer's format.

    Example: solfa weights demo --wait 3600 --format megatron
    """
    if current and (export or wait):
        raise BadRequest("--current shows the weights of now as bars or JSON; leave --format and --wait out.")
    if export and as_json:
        raise BadRequest("--format says how they are printed; leave --json out, or give --format json.")
    with connect(url, home) as client:
        if export:
            print(client.export(name, export, wait), end="")
        elif current:
            now = client.current_weights(name)
            print_json(now) if as_json else out.print(current_view(now, out.width))
        else:
            found = client.weights(name, wait)
            print_json(found) if as_json else out.print(weights_view(found, out.width))


def compare(name: Name, url: Url = None, home: Home = None, as_json: AsJson = False) -> None:
    """The held-out loss of each mixture's model, domain by domain, against the baseline."""
    with connect(url, home) as client:
        found = client.comparison(name)
    if as_json:
        print_json(found)
    else:
        out.print(compare_view(found.compared, out.width))


def data(name: Name, url: Url = None, home: Home = None, as_json: AsJson = False) -> None:
    """What the search trains on: each domain's documents, tokens, share, and the passes over it that each stage makes."""
    with connect(url, home) as client:
        found = client.data(name)
    if as_json:
        print_json(found)
    else:
        out.print(data_view(found))


def report(
    name: Name,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file to write (default: NAME.html).")] = None,
    url: Url = None,
    home: Home = None,
) -> None:
    """The page of an experiment as one HTML file: it opens anywhere, without a service or a network.

    Example: solfa report demo --output appendix.html
    """
    with connect(url, home) as client:
        text = client.report(name)
    path = output or Path(f"{name}.html")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadRequest(f"{path} cannot be written ({error.strerror}); name another file with --output.") from error
    out.print(f"{path.resolve()} holds the report of {name}.", soft_wrap=True, markup=False)


def replay(
    name: Name,
    stage: Annotated[str | None, typer.Option(help="A proxy stage; by default the one that runs, or ran last.")] = None,
    url: Url = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Recompute every alpha and their average from the recorded excess losses, and say whether they agree with what was recorded."""
    with connect(url, home) as client:
        found = replay_history([client.history(name, stage=stage)])
        published = _published(client, name, found.stage)
    largest = max(found.max_alpha_difference, found.max_average_difference)
    apart = published.max_difference(found.averaged_weights) if published else 0.0
    if as_json:
        print_json(found)
    if not found.agrees:
        err.print(f"{found.stage}: the record disagrees from step {found.first_disagreeing_step} on, by up to {largest:.1e}.")
        raise typer.Exit(Exit.DISAGREES)
    if apart > TOLERANCE:
        err.print(f"{found.stage}: the steps agree, but the published weights are not their average; they differ by up to {apart:.1e}.")
        raise typer.Exit(Exit.DISAGREES)
    if not as_json:
        out.print(f"{found.stage}: {found.steps:,} steps replayed in float64 agree with the record, to {largest:.1e}.")


def _published(client: "Client", name: str, stage: str) -> DomainWeights | None:
    """The averaged weights, where they are those of `stage` and there already."""
    try:
        weights = client.weights(name)
    except NotReady:
        return None
    return weights.averaged_weights if weights.provenance.stage == stage else None
