"""The running service: store, bucket, cluster, reconciler and HTTP server in one process, opened and closed together."""

import asyncio
import gc
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import uvicorn

from api.bucket import Bucket, open_bucket
from api.errors import BadRequest, Conflict
from services.app import create_app
from services.connections import ACCEPTED_AT_ONCE, QUEUED, Complaints, prompt, room
from services.launch.cluster import Cluster
from services.launch.local import LocalCluster
from services.launch.manifest import Place
from services.metrics import Metrics
from services.reconciler import Pace, Reconciler
from services.settings import Settings
from services.store import ExperimentStore, open_store

log = logging.getLogger(__name__)
JOIN_SECONDS = 10
LOOKS_AT_ONCE = 16  # at a bucket that is elsewhere
COLLECT = (10_000, 20, 100)  # a look at all that there is takes a third of a second with 2,000 live records, and finds nothing in them
SWITCH_SECONDS = 0.0005  # a request gives way to the reconciler at every row it reads: Python's 5 ms each time add up


class Service:
    """The parts, wired."""

    def __init__(self, settings: Settings, store: ExperimentStore, bucket: Bucket, cluster: Cluster, pace: Pace | None = None) -> None:
        self.settings = settings
        metrics = Metrics(store, settings.metrics_experiments)
        store, bucket = metrics.timed_store(store), metrics.timed_bucket(bucket)
        self.app = create_app(settings, store, bucket, cluster, metrics)
        self._reconciler = Reconciler(store, cluster, bucket, pace=pace or Pace(at_once=_looks_at_once(settings)), watcher=metrics)
        self.app.state.context.experiments.on_change = self._reconciler.wake
        self._stop = threading.Event()
        self._server: _Server | None = None

    def stop(self) -> None:
        """End `serve`, as a signal does; safe from any thread, once `on_ready` was called."""
        if self._server:
            self._server.should_exit = True

    def serve(self, on_ready: Callable[[str], None] = lambda _: None) -> None:
        """Listen until a signal; `on_ready` is told the URL. Raises Conflict when the port is taken."""
        listener = _listen(self.settings.host, self.settings.port)
        host, port = listener.getsockname()[:2]
        most = room()
        config = uvicorn.Config(
            self.app,
            http=prompt(self.settings.request_seconds, most),
            limit_concurrency=most + 1,  # of requests: whose connection is gone, may still be at work
            backlog=ACCEPTED_AT_ONCE,
            log_level="warning",
            access_log=False,
            headers=[("X-Content-Type-Options", "nosniff")],  # of every answer, also of those that no route makes
            proxy_headers=bool(self.settings.trusted_proxies),  # uvicorn's own default believes whoever is on this machine
            forwarded_allow_ips=list(self.settings.trusted_proxies),
            timeout_graceful_shutdown=3,
        )
        server = self._server = _Server(config, lambda: self._ready(on_ready, f"http://{host}:{port}"))
        thread = threading.Thread(target=self._reconciler.run, args=(self._stop,), name="reconciler")
        if self.settings.reconcile:
            thread.start()
        try:
            server.run(sockets=[listener])
        finally:
            self._stop.set()
            self._reconciler.wake()
            if thread.is_alive():
                thread.join(JOIN_SECONDS)
            listener.close()

    def _ready(self, on_ready: Callable[[str], None], url: str) -> None:
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.freeze()  # what a start has made stays; a collector that was off until now need not look at it
        gc.set_threshold(*COLLECT)
        gc.enable()
        log.info("listening on %s. %s", url, self.settings.who_may)
        on_ready(url)

    def reconcile_until_signalled(self) -> None:
        """Until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        self._reconciler.run(self._stop)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()
        self._reconciler.wake()


class _Server(uvicorn.Server):
    """uvicorn, that says when it listens and comes back when it is asked to stop."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(Complaints(time.monotonic))
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(QUEUED)  # uvicorn's backlog is both this and how many are accepted in a turn
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn's, but that the signal is not raised again at the end: what is behind the server is to be closed first."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


@contextmanager
def open_service(settings: Settings) -> Iterator[Service]:
    """Open what the settings name, check that it can be worked with, and close it at the end. Raises SolfaError in one sentence."""
    settings.make_home()
    bucket = open_bucket(settings.bucket)
    bucket.probe()
    with ExitStack() as stack:
        store = open_store(settings.database)
        stack.callback(store.close)
        cluster = open_cluster(settings, bucket.url)
        stack.callback(cluster.close)
        service = Service(settings, store, bucket, cluster)
        if settings.guarded and settings.reconcile and not service.app.state.context.tokens.is_anybody():
            raise BadRequest(
                f"Nobody could use the service: on {settings.host} it asks for a token, and there is none. Make the first with "
                "`solfa token create NAME --scope admin --offline`, or name one in SOLFA_ADMIN_TOKEN; or let everybody who reaches it do "
                "everything with SOLFA_ACCESS=open."
            )
        yield service


def open_cluster(settings: Settings, bucket_url: str) -> Cluster:
    """What the settings name. Raises ClusterUnavailable where it cannot be worked with."""
    if settings.cluster == "local":
        return LocalCluster(settings.apps, bucket_url, settings.slots or 1, reach=settings.reach)
    from services.launch.kubernetes import KubernetesCluster  # noqa: PLC0415  # a second of imports, which a laptop does not need

    cluster = KubernetesCluster(place(settings, bucket_url))
    cluster.check()
    return cluster


def _looks_at_once(settings: Settings) -> int:
    """At a folder of this machine they gain nothing by being many; a cluster's volume is elsewhere, too."""
    return 1 if settings.cluster == "local" and settings.bucket.startswith("file:") else LOOKS_AT_ONCE


def place(settings: Settings, bucket_url: str) -> Place:
    """Where and as what attempts run on Kubernetes."""
    return Place(
        bucket_url=bucket_url,
        image=settings.trainer_image,
        namespace=settings.training_namespace,
        release=settings.release,
        queue=settings.queue,
        priority_class=settings.priority_class or None,
        service_account=settings.trainer_service_account or None,
        secret=settings.trainer_secret or None,
        pull_secrets=settings.image_pull_secrets,
        bucket_claim=settings.bucket_claim or None,
        node_selector=settings.node_selector,
        gpu_resource=settings.gpu_resource,
        environment=settings.trainer_env,
        shm_mb=settings.shm_mb,
        data_claims=settings.data_claims,
        reach=settings.reach,
        metrics_port=settings.trainer_metrics_port,
        slots=settings.slots,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only where the protocol is named
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise Conflict(f"Cannot listen on {host}:{port}: {error.strerror}. Choose another with --port, or stop what holds it.") from error
    return listener
