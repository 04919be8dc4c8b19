"""Many readers of event streams at once, each no more than a socket: what they heard, and when."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Reader:
    """One stream; `heard` holds (seconds of the monotonic clock, kind) of each event."""

    path: str
    heard: list[tuple[float, str]] = field(default_factory=list)
    ended: bool = False

    async def follow(self, url: str) -> None:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(f"GET {self.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: text/event-stream\r\n\r\n".encode())
        try:
            while line := await reader.readline():
                if line.startswith(b"event: "):
                    self.heard.append((time.monotonic(), line[7:].strip().decode()))
        except ConnectionError:
            pass
        finally:
            self.ended = True
            writer.close()

    def first(self, kind: str, after: float) -> float | None:
        """Seconds from `after` to the first event of `kind` after it."""
        return next((at - after for at, what in self.heard if at > after and what == kind), None)


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether `condition` came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True
