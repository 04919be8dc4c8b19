"""KubernetesCluster: the Cluster port on Kubernetes, through TorchX's `kubernetes` scheduler and Volcano's jobs.

A pod that is stranded on a dead node is taken off the record by `heal`, whereupon Volcano makes another one elsewhere (training goes on a
minute after pod 0's node died; nothing else would ever replace it). An app whose program crashes for ever is told of, and ended like any
other: its pods restart without limit. Nothing here keeps a log; who takes pods away reads it before (services.logs).
"""

import logging
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from kubernetes.client import ApiClient, ApiException
from torchx.runner import Runner
from torchx.schedulers.kubernetes_scheduler import KubernetesJob, KubernetesScheduler
from torchx.specs import AppDryRunInfo

from api.errors import ClusterUnavailable, LaunchRejected
from services.launch.access import check_access
from services.launch.api_server import ApiServer, Json, connect, translated
from services.launch.cluster import AppPhase, AppStatus, LaunchRequest
from services.launch.manifest import JOB_LABEL, REQUEST_ANNOTATION, SCHEDULER, Place, app_for, dressed
from services.launch.pod_logs import PodLogs
from services.launch.pods import Pod, is_stranded
from services.launch.volcano import ENDED, PHASES, asked_replicas, is_ending, phase_word, read_status, waits

EVENTS_SECONDS = 5.0  # for which what was said of an app that waits is not asked for again
logger = logging.getLogger(__name__)


class KubernetesCluster:
    """Attempts as Volcano jobs of one namespace, as `place` says. `client` is of the cluster; None: as the environment says."""

    def __init__(self, place: Place, client: ApiClient | None = None) -> None:
        self._place, self._client = place, client or connect()
        self.slots = place.slots
        self._server = ApiServer(self._client, place.namespace)
        self._logs = PodLogs(self._server)
        self._runner = Runner("torchx", {SCHEDULER: lambda session, **_: KubernetesScheduler(session, client=self._client)})
        self._told: dict[str, tuple[float, list[Json]]] = {}  # by a job's uid: when events were asked for, and which there were
        self._closed = threading.Event()
        logging.getLogger("torchx-events-null").addFilter(lambda _: False)  # a line for every call, of no use to anybody
        logging.getLogger("torchx.runner.api").setLevel(logging.WARNING)  # and another for every dry run

    def check(self) -> None:
        """Raises ClusterUnavailable where the service account may not do all that is done here."""
        check_access(self._server, self._place.namespace)

    def launch(self, request: LaunchRequest) -> None:
        with translated():
            try:
                self._runner.schedule(self._dryrun(request))
            except ValueError as error:
                if not (isinstance(error.__cause__, ApiException) and error.__cause__.status == 409):
                    raise
                self._adopt(request)

    def _adopt(self, request: LaunchRequest) -> None:
        """A job of that name is there: from an earlier call with the same request, or not ours to touch."""
        job = self._server.find_job(request.app)
        if job is None or "deletionTimestamp" in job["metadata"]:
            raise ClusterUnavailable(f"A job {request.app} is being removed; it is launched once that is gone.")
        wanted = self.manifest(request)["metadata"]["annotations"][REQUEST_ANNOTATION]
        if (job["metadata"].get("annotations") or {}).get(REQUEST_ANNOTATION) != wanted:
            raise LaunchRejected(f"There is a job {request.app} already, made from another request. Nothing was started.")

    def render(self, request: LaunchRequest) -> dict[str, Any]:
        """Checked by the API server and its admission, where that can be reached."""
        job = self.manifest(request)
        try:
            self._server.try_job(job)
        except ClusterUnavailable as error:
            logger.info("%s was rendered without being checked by the cluster: %s", request.app, error.message)
        return job

    def manifest(self, request: LaunchRequest) -> dict[str, Any]:
        """As `render`, from this process alone."""
        with translated():
            job: Json = self._dryrun(request).request.resource
        return job

    def _dryrun(self, request: LaunchRequest) -> AppDryRunInfo[KubernetesJob]:
        place = self._place
        chosen = {
            "namespace": place.namespace,
            "queue": place.queue,
            "service_account": place.service_account,
            "priority_class": place.priority_class,
            "validate_spec": False,  # it would validate what it renders, not what is made of that
        }
        options = {name: value for name, value in chosen.items() if value is not None}
        info = self._runner.dryrun(app_for(request, place), SCHEDULER, options)
        rendered = self._client.sanitize_for_serialization(info.request.resource)
        info.request.resource = dressed(rendered, request, place)
        return info

    def status(self, app: str) -> AppStatus:
        return self._read(self._server.find_job(app), self._pods(app))

    def heal(self, app: str) -> None:
        now = datetime.now(UTC)
        for pod in self._pods(app):
            if is_stranded(pod, now):
                logger.warning("pod %s is stranded on node %s, and is replaced", pod["metadata"]["name"], pod["spec"].get("nodeName"))
                self._server.force_delete_pod(pod)

    def resize(self, app: str, replicas: int) -> None:
        """A task is a replica, so one that goes has none and one that comes has one; Volcano lets nothing else of a job be changed."""
        job = self._server.find_job(app)
        if job is None or not _is_live(job) or asked_replicas(job) == replicas:
            return
        tasks = range(len(job["spec"]["tasks"]))
        self._server.patch_job(job, {f"/spec/tasks/{index}/replicas": int(index < replicas) for index in tasks})

    def cancel(self, app: str) -> None:
        """Have Volcano take the pods away (SIGTERM, then SIGKILL after their grace), and keep the job until it is removed."""
        job = self._server.find_job(app)
        if job is not None and _is_live(job):
            status = job.setdefault("status", {})
            status.setdefault("state", {})["phase"] = "Aborting"
            self._server.replace_job_status(job)
        self.heal(app)  # a pod on a dead node would never go

    def remove(self, app: str) -> None:
        self._server.delete_job(app)

    def look(self) -> dict[str, AppStatus]:
        """Jobs before pods, as `status` does it: a list of each, and the events of those that wait."""
        jobs = {str(job["metadata"]["name"]): job for job in self._server.jobs(self._place.selector)}
        pods: dict[str, list[Pod]] = {name: [] for name in jobs}
        for pod in self._server.pods(self._place.selector):
            pods.setdefault(pod["metadata"]["labels"].get(JOB_LABEL, ""), []).append(pod)
        there = {job["metadata"]["uid"] for job in jobs.values()}
        self._told = {uid: told for uid, told in self._told.items() if uid in there}
        return {name: self._read(jobs.get(name), mine) for name, mine in pods.items()}

    def logs(self, app: str, tail: int | None = None) -> list[str]:
        return self._logs.read(app, tail)

    def follow(self, app: str) -> Iterator[str | None]:
        for line in self._logs.follow(app, lambda: self.status(app).phase in (*ENDED, AppPhase.ABSENT)):
            if self._closed.is_set():
                return
            yield line

    def close(self) -> None:
        self._closed.set()
        self._runner.close()

    def _pods(self, app: str) -> list[Pod]:
        return self._server.pods(f"{JOB_LABEL}={app}")

    def _read(self, job: Json | None, pods: list[Pod]) -> AppStatus:
        status = read_status(job, pods, self._events(job) if job and waits(job, pods) else [])
        now = datetime.now(UTC)
        return replace(status, stranded=any(is_stranded(pod, now) for pod in pods))

    def _events(self, job: Json) -> list[Json]:
        """On the job, and on the pod group that Volcano makes for it, as of a few seconds ago: many may wait for long."""
        name, uid, now = job["metadata"]["name"], job["metadata"]["uid"], time.monotonic()
        at, events = self._told.get(uid, (-math.inf, []))
        if now - at >= EVENTS_SECONDS:
            events = self._server.events(name) + self._server.events(f"{name}-{uid}")
            self._told[uid] = now, events
        return events


def _is_live(job: Json) -> bool:
    return not is_ending(job) and PHASES.get(phase_word(job)) not in ENDED
