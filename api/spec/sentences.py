"""What pydantic found wrong, as a sentence that says what to do, at a JSON pointer into the posted document."""

import difflib
import re
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, Tag
from pydantic_core import ErrorDetails

from api.domains import DOMAIN_PATTERN
from api.spec.compute import RESOURCE_PATTERN
from api.spec.experiment import NAME_PATTERN, ExperimentSpec
from api.spec.problem import Problem, join

_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text (in quotes, if it looks like a number)",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping of fields",
    "model_attributes_type": "a mapping of fields",
}
_NUMBERS = {"int_type": r"[-+]?[0-9]+", "float_type": r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?"}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("above", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}
_PATTERNS = {
    NAME_PATTERN: "a name starts with a lower-case letter and holds lower-case letters, digits and dashes, at most 40",
    DOMAIN_PATTERN: "a domain's name starts with a lower-case letter or a digit and holds those, `-` and `_`, at most 63",
    RESOURCE_PATTERN: "a device has a name with a slash, as in `rdma/hca`; CPUs, memory and GPUs have fields of their own",
}


def to_problem(detail: ErrorDetails) -> Problem:
    """The problem that a detail of pydantic's ValidationError stands for."""
    pointer, beside, here = _locate(detail["loc"])
    kind, limits = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        name = str(detail["loc"][-1])
        return _near(pointer, f"there is no field `{name}`", name, beside)
    if kind == "missing":
        return Problem(pointer=pointer, message=f"`{detail['loc'][-1]}` is required")
    if kind == "union_tag_not_found":
        return Problem(pointer=join(pointer, "type"), message=f"`type` is required: one of {', '.join(_tags(here))}")
    if kind == "union_tag_invalid":
        return _near(join(pointer, "type"), f"there is no type `{limits['tag']}`", str(limits["tag"]), _tags(here))
    if kind == "literal_error" and isinstance(detail["input"], str):
        return _near(pointer, f"`{detail['input']}` is none of its values", detail["input"], _values(here))
    return Problem(pointer=pointer, message=_sentence(detail, here))


def _sentence(detail: ErrorDetails, here: Any) -> str:
    kind, limits, given = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind in _TYPES:
        quoted = isinstance(given, str) and kind in _NUMBERS and re.fullmatch(_NUMBERS[kind], given)
        return f"this must be {_TYPES[kind]}, not {f'the text {_shown(given)}; take the quotes off' if quoted else _shown(given)}"
    if kind in _BOUNDS:
        words, limit = _BOUNDS[kind]
        return f"this must be {words} {limits[limit]:g}, not {_shown(given)}"
    if kind == "literal_error":
        return f"this must be one of {', '.join(_values(here))}, not {_shown(given)}"
    if kind == "string_pattern_mismatch":
        return f"{_shown(given)} will not do: {_PATTERNS.get(limits['pattern'], 'its pattern is ' + limits['pattern'])}"
    if kind in ("too_short", "string_too_short"):
        return "this is empty; give at least one"
    return f"there may be {limits['max_length']:,} of these at most" if kind == "too_long" else detail["msg"].removeprefix("Value error, ")


def _near(pointer: str, message: str, given: str, allowed: Iterable[str]) -> Problem:
    names = list(allowed)
    near = difflib.get_close_matches(given[:100], names, n=1)
    ending = f"; did you mean `{near[0]}`?" if near else f"; there are {', '.join(names)}"
    return Problem(pointer=pointer, message=message + ending, suggestion=near[0] if near else None)


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{shown[:60]}{'...' if len(shown) > 60 else ''}`"


def _locate(loc: tuple[int | str, ...]) -> tuple[str, list[str], Any]:
    """The JSON pointer of pydantic's location (which also names union tags), the fields beside its last part, and its annotation."""
    pointer, here = "", typing.cast(Any, ExperimentSpec)
    beside: list[str] = []
    for part in loc:
        beside = list(here.model_fields) if _is_model(here) else []
        members = [(_tag(member), member) for member in typing.get_args(here)]
        tagged = [member for tag, member in members if tag is not None and tag == part]
        if tagged:
            here = _strip(tagged[0])
        elif part != "[key]":
            here = _below(here, part)
            pointer = join(pointer, part)
    return pointer, beside, here


def _below(here: Any, part: int | str) -> Any:
    if _is_model(here):
        field = here.model_fields.get(str(part))
        return _strip(field.annotation) if field else None
    return _strip(typing.get_args(here)[-1]) if typing.get_origin(here) in (list, dict) else None


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _tag(member: Any) -> str | None:
    """What pydantic calls a member of a tagged union in a location."""
    named = [part.tag for part in getattr(member, "__metadata__", ()) if isinstance(part, Tag)]
    if named:
        return str(named[0])
    bare = _strip(member)
    return str(bare.model_fields["type"].default) if _is_model(bare) and "type" in bare.model_fields else None


def _tags(union: Any) -> list[str]:
    return [tag for tag in map(_tag, typing.get_args(union)) if tag]


def _values(literal: Any) -> list[str]:
    return [str(value) for value in typing.get_args(literal)]


def _strip(annotation: Any) -> Any:
    """The annotation without Annotated and None."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _strip(typing.get_args(annotation)[0])
    members = typing.get_args(annotation)
    others = [member for member in members if member is not type(None)]
    return _strip(others[0]) if len(others) == 1 and len(members) == 2 else annotation
