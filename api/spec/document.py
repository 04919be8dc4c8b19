"""From the text of a spec (YAML or JSON) to an ExperimentSpec, or to every problem at once with its pointer and line."""

import difflib
import json
import re
import typing
from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from api.errors import SpecError
from api.spec.experiment import ExperimentSpec

MAX_BYTES = 1_000_000


class Problem(BaseModel):
    """One thing wrong with a spec."""

    model_config = ConfigDict(frozen=True)

    pointer: str
    """JSON pointer (RFC 6901) to the value, "" for the whole."""
    message: str
    line: int | None = None
    """Line in the posted text, from 1."""
    suggestion: str | None = None
    """The field that was probably meant."""


class _SpecLoader(yaml.SafeLoader):
    """YAML 1.2's core schema: `no` is a string, `1e-3` is a number, a date is text, and a key stands once."""


_SpecLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9]+$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", "~nN"),
):
    _SpecLoader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first) + ([""] if _tag.endswith("null") else []))


def _construct_int(loader: _SpecLoader, node: yaml.ScalarNode) -> int:
    return int(str(loader.construct_scalar(node)))  # YAML 1.1 would read 010 as 8


def _construct_mapping(loader: _SpecLoader, node: yaml.MappingNode) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(loader.construct_object(key_node, deep=True))
        if key in mapping:
            raise yaml.MarkedYAMLError(problem=f"`{key}` stands twice", problem_mark=key_node.start_mark)
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_SpecLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_SpecLoader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def parse_spec(text: str) -> ExperimentSpec:
    """The spec in `text`.

    Raises:
        SpecError: with `extra["problems"]`, a list of Problem as mappings: all of them, not only the first.
    """
    data, lines = _load(text)
    if not isinstance(data, dict):
        raise _error([Problem(pointer="", message="a spec is a mapping of fields, such as `name:` and `domains:`", line=1)])
    try:
        return ExperimentSpec.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise _error([_problem(detail, lines) for detail in error.errors(include_url=False)]) from None


def _error(problems: Sequence[Problem]) -> SpecError:
    first = problems[0]
    at = f" at {first.pointer}" if first.pointer else ""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return SpecError(
        f"The spec has {len(problems)} problem{'s' if len(problems) > 1 else ''}: {first.message}{at}{more}.",
        problems=[problem.model_dump(exclude_none=True) for problem in problems],
    )


def _load(text: str) -> tuple[Any, dict[str, int]]:
    if len(text.encode()) > MAX_BYTES:
        raise _error([Problem(pointer="", message=f"the spec is over {MAX_BYTES:,} bytes")])
    try:
        loader = _SpecLoader(text)
        try:
            node = loader.get_single_node()
            _refuse_aliases(node)
            data = loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = error.problem or "it is not YAML or JSON"
        raise _error([Problem(pointer="", message=message, line=mark.line + 1 if mark else None)]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _error([Problem(pointer="", message=f"it is not YAML or JSON: {error}")]) from None
    lines: dict[str, int] = {}
    if node is not None:
        _mark_lines(node, "", lines)
    return data, lines


def _refuse_aliases(root: yaml.Node | None) -> None:
    """An alias lets a few lines grow without bound, and a spec has no use for one."""
    seen: set[int] = set()
    stack = [root] if root is not None else []
    while stack:
        node = stack.pop()
        if id(node) in seen:
            raise yaml.MarkedYAMLError(problem="YAML aliases (*name) are not allowed in a spec", problem_mark=node.start_mark)
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            stack.extend(part for pair in node.value for part in pair)
        elif isinstance(node, yaml.SequenceNode):
            stack.extend(node.value)


def _escape(part: object) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def _mark_lines(node: yaml.Node, pointer: str, lines: dict[str, int]) -> None:
    lines[pointer] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = f"{pointer}/{_escape(key.value)}"
            _mark_lines(value, below, lines)
            lines[below] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _mark_lines(value, f"{pointer}/{index}", lines)


def _problem(detail: ErrorDetails, lines: dict[str, int]) -> Problem:
    pointer, siblings = _locate(detail["loc"])
    message = detail["msg"].removeprefix("Value error, ")
    suggestion = None
    if detail["type"] == "extra_forbidden":
        name = str(detail["loc"][-1])
        near = difflib.get_close_matches(name, siblings, n=1, cutoff=0.6)
        suggestion = near[0] if near else None
        message = f"there is no field `{name}`" + (f"; did you mean `{suggestion}`?" if near else f"; there are {', '.join(siblings)}")
    elif detail["type"] == "missing":
        message = f"`{detail['loc'][-1]}` is required"
    line, at = None, pointer
    while line is None and (at or "" in lines):
        line = lines.get(at)
        if not at:
            break
        at = at.rpartition("/")[0]
    return Problem(pointer=pointer, message=message, line=line, suggestion=suggestion)


def _locate(loc: tuple[int | str, ...]) -> tuple[str, list[str]]:
    """The JSON pointer for pydantic's location (which also names union tags), and the fields allowed beside its last part."""
    pointer: list[str] = []
    siblings: list[str] = []
    here: Any = ExperimentSpec
    for part in loc:
        below, is_tag = _below(here, part)
        siblings = list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []
        here = below
        if not is_tag:
            pointer.append(_escape(part))
    return "".join(f"/{part}" for part in pointer), siblings


def _below(here: Any, part: int | str) -> tuple[Any, bool]:
    """The annotation one step down, and whether the step is a union's tag rather than a key of the document."""
    if isinstance(here, type) and issubclass(here, BaseModel):
        field = here.model_fields.get(str(part))
        return (_strip(field.annotation) if field else None), False
    origin, arguments = typing.get_origin(here), typing.get_args(here)
    if origin in (list, dict):
        return (None, True) if part == "[key]" else (_strip(arguments[-1]), False)
    for member in map(_strip, arguments):  # a union: pydantic puts the tag, or the member's name, into the location
        tag = member.model_fields.get("type") if isinstance(member, type) and issubclass(member, BaseModel) else None
        if tag is not None and tag.default == part:
            return member, True
    if arguments and isinstance(part, str):
        members = [member for member in map(_strip, arguments) if typing.get_origin(member) is dict]
        if part.startswith("dict[") and members:
            return members[0], True
        if part.startswith(("literal[", "constrained")):
            return None, True
    return None, False


def _strip(annotation: Any) -> Any:
    """The annotation without Annotated and None; type aliases of one member stay that member."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _strip(typing.get_args(annotation)[0])
    arguments = [member for member in typing.get_args(annotation) if member is not type(None)]
    if type(None) in typing.get_args(annotation) and len(arguments) == 1:
        return _strip(arguments[0])
    return annotation
