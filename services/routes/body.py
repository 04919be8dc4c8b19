"""A request's body as text: its size is checked while it arrives, not after."""

from collections.abc import Collection

from fastapi import Request

from api.errors import BadRequest, ContentTooLarge, UnsupportedMediaType


async def read_body(request: Request, limit: int, media_types: Collection[str], what: str) -> str:
    """The text of a body of `limit` bytes at most; the first of `media_types` is taken where none is named. `what`, such as "The spec",
    begins a sentence.

    Raises UnsupportedMediaType, ContentTooLarge, BadRequest.
    """
    first = next(iter(media_types))
    media_type = request.headers.get("content-type", first).partition(";")[0].strip().lower()
    if media_type not in media_types:
        raise UnsupportedMediaType(f"{what} is not read as {media_type}; send one of {', '.join(media_types)}.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise ContentTooLarge(f"{what} is over {limit:,} bytes.")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"{what} is not UTF-8: byte {error.start} is none.") from error
