"""A request's body as text; how long it may be, and how slow, services.limits has seen to."""

from collections.abc import Collection
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from api.errors import BadRequest, InvalidRequest, UnsupportedMediaType
from services.problems import found_in

Model = TypeVar("Model", bound=BaseModel)


async def read_body(request: Request, media_types: Collection[str], what: str) -> str:
    """The text of a body; the first of `media_types` is taken where none is named. `what`, such as "The spec",
    begins a sentence.

    Raises UnsupportedMediaType, BadRequest.
    """
    first = next(iter(media_types))
    media_type = request.headers.get("content-type", first).partition(";")[0].strip().lower()
    if media_type not in media_types:
        raise UnsupportedMediaType(f"{what} is not read as {media_type}; send one of {', '.join(media_types)}.")
    body = await request.body()
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"{what} is not UTF-8: byte {error.start} is none.") from error


async def read_model(request: Request, media_types: Collection[str], what: str, model: type[Model]) -> Model:
    """A body of JSON as what it should be. Raises what `read_body` does, and InvalidRequest with every problem."""
    text = await read_body(request, media_types, what)
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        problems = found_in(error.errors())
        raise InvalidRequest("; ".join(f"{one['pointer']}: {one['message']}" for one in problems), problems=problems) from error
