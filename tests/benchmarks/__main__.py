"""`make bench`: every figure that docs/benchmarks.md claims, measured side by side in one run, as a table and a JSON file.

A figure is reported beside the reach it aims at; nothing here passes or fails.
"""

import argparse
import datetime
import importlib
import json
import os
import platform
from pathlib import Path

from rich.console import Console
from rich.table import Table

NAMES = ("loading", "steps", "service", "fleet")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(NAMES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: does it run, not what is it worth")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where to write the figures (default: %(default)s)")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(NAMES)):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")

    console = Console()
    figures: list[dict[str, object]] = []
    for name in arguments.names or NAMES:
        console.print(f"measuring {name} ...", style="dim")
        figures += importlib.import_module(f"tests.benchmarks.{name}").measure(arguments.quick)

    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    measured_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    whole = {"measured_at": measured_at, "quick": arguments.quick, "on": machine, "figures": figures}
    arguments.json.write_text(json.dumps(whole, indent=2) + "\n")
    console.print(_table(figures))
    console.print(f"written to {arguments.json}")


def _table(figures: list[dict[str, object]]) -> Table:
    table = Table(title="Measured")
    for column, justify in (("what", "left"), ("measured", "right"), ("reach", "left"), ("how", "left")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]  # a literal per column
    for figure in figures:
        value = figure["value"]
        shown = "not measured" if value is None else f"{value:.4g} {figure['unit']}"
        table.add_row(str(figure["what"]), shown, str(figure["reach"] or ""), str(figure["detail"]))
    return table


if __name__ == "__main__":
    main()
