"""The base of every part of a spec: frozen, strict, and closed to unknown fields."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1)]


class Part(BaseModel):
    """A strict, frozen piece of a spec: no coercion of types, no unknown field, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True)
