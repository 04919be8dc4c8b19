"""Logs of all pods of an app as one: in the order of time, each line after the number of its replica."""

import logging
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from api.errors import ClusterUnavailable
from services.launch.api_server import ApiServer
from services.launch.manifest import JOB_LABEL
from services.launch.pods import Pod, container_status, is_cut_off, parse_time, replica

logger = logging.getLogger(__name__)
OVERLAP = 5  # seconds read again at each look, so that clocks that differ lose no line


class PodLogs:
    """Reads through the API server, which asks the nodes: of a pod that is gone, nothing is left."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def read(self, app: str, tail: int | None = None) -> list[str]:
        """The last `tail` lines, or all; of a container that was started again, those of the run before too."""
        limits = {} if tail is None else {"tailLines": tail}
        lines: list[tuple[str, int, str]] = []
        for pod in self._server.pods(f"{JOB_LABEL}={app}"):
            if container_status(pod).get("restartCount", 0):
                lines += self._of(pod, previous="true", **limits)
            lines += self._of(pod, **limits)
        shown = [_shown(line) for line in sorted(lines, key=lambda line: line[0])]
        return shown if tail is None else shown[len(shown) - min(tail, len(shown)) :]

    def follow(self, app: str, is_over: Callable[[], bool]) -> Iterator[str | None]:
        """Lines as they come, from the beginning until the app is over; None where there is none yet."""
        newest: dict[tuple[str, int], str] = {}  # by pod and run of its container: the time of its last line told
        while True:
            over = is_over()  # looked at first: what was written before is then all there
            fresh: list[tuple[str, int, str]] = []
            for pod in self._server.pods(f"{JOB_LABEL}={app}"):
                key = (pod["metadata"]["uid"], container_status(pod).get("restartCount", 0))
                told = newest.get(key, "")
                lines = [line for line in self._of(pod, **_since(told)) if line[0] > told]
                if lines:
                    newest[key] = lines[-1][0]
                fresh += lines
            yield from [_shown(line) for line in sorted(fresh, key=lambda line: line[0])]
            if over:
                return
            yield None

    def _of(self, pod: Pod, **query: object) -> list[tuple[str, int, str]]:
        """(time, replica, text) of each line of one pod; none while its node does not answer, which must hold up nobody."""
        try:
            lines = [] if is_cut_off(pod) else self._server.pod_log(pod["metadata"]["name"], timestamps="true", **query)
        except ClusterUnavailable as error:
            logger.info("the log of pod %s cannot be read now: %s", pod["metadata"]["name"], error.message)
            return []
        return [(time, replica(pod), text) for time, _, text in (line.partition(" ") for line in lines)]


def _since(told: str) -> dict[str, int]:
    if not told:
        return {}
    return {"sinceSeconds": max(1, math.ceil((datetime.now(UTC) - parse_time(told)).total_seconds()) + OVERLAP)}


def _shown(line: tuple[str, int, str]) -> str:
    return f"[{line[1]}] {line[2]}"
