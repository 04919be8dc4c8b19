"""Whether database and bucket answer: looked at once however many ask, and kept for a moment, for anybody may ask."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from starlette.concurrency import run_in_threadpool

from api.bucket import Bucket
from api.errors import SolfaError

log = logging.getLogger(__name__)
KEPT_SECONDS = 1.0  # fewer than between two looks of a kubelet


class _Store(Protocol):
    def ping(self) -> None: ...


class Readiness:
    """Of one event loop."""

    def __init__(self, store: _Store, bucket: Bucket, clock: Callable[[], float]) -> None:
        self._store, self._bucket, self._clock = store, bucket, clock
        self._look: asyncio.Task[SolfaError | None] | None = None
        self._until = 0.0

    async def failure(self) -> SolfaError | None:
        """What is wrong, None for nothing; it names places, and is for the log."""
        if self._look is None or (self._look.done() and self._clock() >= self._until):
            self._look = asyncio.create_task(self._looked())
        return await asyncio.shield(self._look)  # who goes away ends nobody else's

    async def _looked(self) -> SolfaError | None:
        try:
            await run_in_threadpool(self._ask)
        except SolfaError as error:
            log.warning("Not ready: %s", error.message)
            return error
        finally:
            self._until = self._clock() + KEPT_SECONDS
        return None

    def _ask(self) -> None:
        self._store.ping()
        self._bucket.exists("readyz")
