"""How often somebody may ask: a token bucket for each, with the clock passed in, and never more of them than a fixed number."""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MOST_CALLERS = 10_000  # remembered at once; of those beyond, whoever was quiet the longest starts afresh
WINDOW = 60  # seconds, of which a quota is told


@dataclass
class _Bucket:
    left: float
    at: float


@dataclass(frozen=True)
class Verdict:
    """Whether a request may go on, and what its answer tells of the quota."""

    allowed: bool
    left: int
    """Requests that may follow at once."""
    wait: int
    """Seconds until one may, where none is left; until all of the quota is there again, otherwise."""


class Rates:
    """`quota` requests a minute for each caller, all at once if they like: it fills up evenly. Not for many threads at a time."""

    def __init__(self, quota: int, clock: Callable[[], float]) -> None:
        self.quota = quota
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def ask(self, caller: str) -> Verdict:
        """Take one request of `caller`'s, if there is one."""
        now, refill = self._clock(), self.quota / WINDOW
        bucket = self._buckets.pop(caller, None) or _Bucket(float(self.quota), now)
        bucket.left = min(float(self.quota), bucket.left + max(0.0, now - bucket.at) * refill)
        bucket.at = now
        allowed = bucket.left >= 1
        bucket.left -= allowed
        self._buckets[caller] = bucket
        if len(self._buckets) > MOST_CALLERS:
            self._buckets.popitem(last=False)
        missing = (self.quota if allowed else 1) - bucket.left
        return Verdict(allowed, int(bucket.left), max(1, math.ceil(missing / refill)))

    def headers(self, verdict: Verdict) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers names them."""
        told = {"RateLimit-Policy": f'"default";q={self.quota};w={WINDOW}', "RateLimit": f'"default";r={verdict.left};t={verdict.wait}'}
        return told if verdict.allowed else {**told, "Retry-After": str(verdict.wait)}
