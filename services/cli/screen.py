"""Where output goes: a person's terminal, or JSON for a program."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter
from rich.console import Console
from rich.text import Text

from api.errors import SolfaError, SpecError

# Neither markup nor emoji codes: what is printed holds names, paths and messages that others wrote. Styles are given with Text.
out = Console(highlight=False, markup=False, emoji=False)
err = Console(highlight=False, markup=False, emoji=False, stderr=True)


def print_json(value: BaseModel | Sequence[BaseModel] | dict[str, Any]) -> None:
    """One JSON document on standard output."""
    print(TypeAdapter(Any).dump_json(value, indent=2).decode())


def print_error(error: SolfaError) -> None:
    """One sentence; for a spec, a line for each problem with where it is, and none of them twice."""
    problems = error.extra.get("problems", []) if isinstance(error, SpecError) else []
    many = f"The spec has {len(problems)} problem{'s' if len(problems) > 1 else ''}:"
    err.print(Text.assemble(("solfa:", "bold red"), " ", many if problems else error.message), soft_wrap=True)
    for problem in problems:
        line = f"line {problem['line']}: " if problem.get("line") else ""
        at = f"{problem['pointer']}: " if problem.get("pointer") else ""
        err.print(f"  {line}{at}{problem['message']}", soft_wrap=True)


def is_live(console: Console) -> bool:
    """Whether what the console writes to is a terminal that can be redrawn."""
    return console.file.isatty() and console.is_terminal
