"""Where output goes: a person's terminal, or JSON for a program."""

import sys
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter
from rich.console import Console

from api.errors import SolfaError, SpecError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def print_json(value: BaseModel | Sequence[BaseModel] | dict[str, Any]) -> None:
    """One JSON document on standard output."""
    print(TypeAdapter(Any).dump_json(value, indent=2).decode())


def print_error(error: SolfaError) -> None:
    """One sentence; for a spec, a line for each problem with where it is."""
    err.print(f"[bold red]solfa:[/] {error.message}", soft_wrap=True)
    if isinstance(error, SpecError):
        for problem in error.extra.get("problems", []):
            line = f"line {problem['line']}: " if problem.get("line") else ""
            at = f"{problem['pointer']}: " if problem.get("pointer") else ""
            err.print(f"  {line}{at}{problem['message']}", markup=False, soft_wrap=True)


def is_live() -> bool:
    """Whether standard output is a terminal that can be redrawn."""
    return sys.stdout.isatty() and out.is_terminal
