"""The README's table of spec fields, made from the models themselves."""

import typing
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from api.spec import ExperimentSpec


def spec_table() -> str:
    """One Markdown table a model, in the order in which a reader of ExperimentSpec meets them."""
    return "\n\n".join(_model_table(model) for model in _models(ExperimentSpec))


def _models(root: type[BaseModel]) -> list[type[BaseModel]]:
    found, waiting = [], [root]
    while waiting:
        model = waiting.pop(0)
        if model in found:
            continue
        found.append(model)
        waiting += [part for field in model.model_fields.values() for part in _parts(field.annotation)]
    return found


def _parts(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for argument in typing.get_args(annotation) for part in _parts(argument)]


def _model_table(model: type[BaseModel]) -> str:
    lead = (model.__doc__ or "").strip().partition("\n")[0]
    lines = [f"**{model.__name__}** {lead}".rstrip(), "", "| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        meaning = _escaped(field.description or "")
        lines.append(f"| `{name}` | {_type(field.annotation)} | {_default(field)} | {meaning} |")
    return "\n".join(lines)


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (list, dict):
        return ("list of " if origin is list else "mapping to ") + _type(arguments[-1])
    if arguments:  # a union, or Annotated with its metadata, which is no type
        members = arguments[:1] if origin is typing.Annotated else arguments
        return " or ".join(_type(member) for member in members if member is not type(None))
    names = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "anything"}
    return names.get(annotation) or annotation.__name__


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, BaseModel):
        given = ", ".join(f"{key}: {value}" for key, value in field.default.model_dump(exclude_none=True).items() if key == "type")
        return f"`{given}`" if given else "its defaults"
    if field.default is None or field.default is PydanticUndefined:
        return "none"
    shown = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    return f"`{_escaped(shown)}`" if shown else "empty"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
