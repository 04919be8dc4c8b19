"""A request's body as text; how long it may be, and how slow, services.limits has seen to."""

from collections.abc import Collection

from fastapi import Request

from api.errors import BadRequest, UnsupportedMediaType


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
