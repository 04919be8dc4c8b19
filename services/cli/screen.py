"""Where output goes: a person's terminal, or JSON for a program."""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from api.errors import SolfaError, SpecError

_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
_UNSEEN = (*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))  # C1 controls, and what turns the direction of text


def plain(text: str) -> str:
    """With a picture in each control character's place: what a terminal would obey was written by others."""
    return text.translate(_PICTURES | dict.fromkeys(_UNSEEN, 0xFFFD))


class _Screen(Console):
    """A console that shows control characters in what it is given, and sends none but its own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


# Neither markup nor emoji codes: what is printed holds names, paths and messages that others wrote. Styles are given with Text.
out = _Screen(highlight=False, markup=False, emoji=False)
err = _Screen(highlight=False, markup=False, emoji=False, stderr=True)


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
