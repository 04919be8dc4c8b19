"""What caches may keep of an answer that is somebody's: it depends on who asks, and under which project."""

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

from api.access import PROJECT_HEADER

VARY = f"Authorization, Cookie, {PROJECT_HEADER}"


def unshared(send: Send) -> Send:
    """Sends an answer that no cache hands to another, nor to the same one without asking again; what a route says itself goes before."""

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            headers.add_vary_header(VARY)
            headers.setdefault("Cache-Control", "private, no-cache")
        await send(message)

    return told
