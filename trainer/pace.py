"""How fast a loop goes now: over about its last minute, so that a machine that became slow shows within one, however long it was fast."""

from collections import deque

WINDOW_SECONDS = 60.0


class Pace:
    """Tokens trained on and seconds waited for data, as sums that are looked at now and then. Times are seconds of training, and given.

    A look that is older than the window is kept for as long as the next one is within it: a step longer than the window is measured too.
    """

    def __init__(self, now: float, tokens: int) -> None:
        self._looks = deque([(now, tokens, 0.0)])

    def add(self, now: float, tokens: int, waited: float) -> None:
        """What the sums are at `now`."""
        self._looks.append((now, tokens, waited))
        while len(self._looks) > 2 and now - self._looks[1][0] >= WINDOW_SECONDS:
            self._looks.popleft()

    @property
    def tokens_per_second(self) -> float:
        return (self._looks[-1][1] - self._looks[0][1]) / self._seconds

    @property
    def wait_share(self) -> float:
        """Of the time, what was spent waiting for data."""
        return (self._looks[-1][2] - self._looks[0][2]) / self._seconds

    @property
    def _seconds(self) -> float:
        return max(self._looks[-1][0] - self._looks[0][0], 1e-9)
