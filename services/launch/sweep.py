"""Ends every training job of a release that is going (`helm uninstall`): after its service, which would start them again."""

import time
from collections.abc import Callable

from api.errors import ClusterUnavailable
from services.launch.api_server import ApiServer

EVERY_SECONDS = 1.0


def sweep(server: ApiServer, service: str, apps: str, seconds: float = 240.0) -> int:
    """Wait for the pods that `service` selects to be gone, then remove the jobs that `apps` selects. Returns how many there were.

    Raises ClusterUnavailable when that takes longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    _until(lambda: not server.pods(service), deadline, "the service's pods are still there")
    names = [str(job["metadata"]["name"]) for job in server.jobs(apps)]
    for name in names:
        server.delete_job(name)
    _until(lambda: not server.jobs(apps) and not server.pods(apps), deadline, "training pods are still there")
    return len(names)


def _until(condition: Callable[[], bool], deadline: float, otherwise: str) -> None:
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterUnavailable(f"Not all could be removed: {otherwise}.")
        time.sleep(EVERY_SECONDS)
