"""What is wrong with a spec: one Problem a mistake, and the error that carries all of them."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from api.errors import SpecError


class Problem(BaseModel):
    """One thing wrong with a spec."""

    model_config = ConfigDict(frozen=True)

    pointer: str
    """JSON pointer (RFC 6901) to the value, "" for the whole."""
    message: str
    line: int | None = None
    """Line in the posted text, from 1."""
    suggestion: str | None = None
    """The field, or the value, that was probably meant."""


def spec_error(problems: Sequence[Problem]) -> SpecError:
    """The error that names all of `problems`, the first of them in its sentence."""
    first, many = problems[0], len(problems) > 1
    begin = f"The spec has {len(problems)} problem{'s' if many else ''}{'; the first' if many else ''}"
    return SpecError(
        f"{begin}{', at ' + first.pointer if first.pointer else ''}: {first.message}{'' if first.message.endswith('?') else '.'}",
        problems=[problem.model_dump(exclude_none=True) for problem in problems],
    )


def join(pointer: str, part: object) -> str:
    """The JSON pointer one step below."""
    return f"{pointer}/{str(part).replace('~', '~0').replace('/', '~1')}"
