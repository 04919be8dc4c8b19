"""What the API server answers when it will not: ours in one sentence, and for good only where the object itself is at fault.

The bodies are as Kubernetes 1.34 and Volcano's webhooks send them; they come from a small HTTP server on this machine.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kubernetes.client import ApiClient, Configuration

from api.errors import ClusterUnavailable, LaunchRejected, SolfaError
from services.launch.kubernetes import KubernetesCluster
from tests.builders import make_spec
from tests.services.test_appdef import request
from tests.services.test_kubernetes_manifests import PLAIN


@contextmanager
def answering(status: int, body: str) -> Iterator[KubernetesCluster]:
    """A cluster whose API server says the same to everything."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        configuration = Configuration(host=f"http://127.0.0.1:{server.server_port}")
        configuration.retries = False
        yield KubernetesCluster(PLAIN, ApiClient(configuration))
        server.shutdown()


def said(message: str) -> str:
    return json.dumps({"kind": "Status", "status": "Failure", "message": message})


WEBHOOK = 'admission webhook "validatejob.volcano.sh" denied the request: unable to find job queue: queues "none" not found.'
FORBIDDEN = 'jobs.batch.volcano.sh is forbidden: User "u" cannot create resource "jobs" in API group "batch.volcano.sh".'
QUOTA = 'jobs "x" is forbidden: exceeded quota: none, requested: count/jobs=1, used: count/jobs=0, limited: count/jobs=0'
INVALID = 'Job.batch.volcano.sh "x" is invalid: spec.minAvailable: Invalid value: -1'
ENDING = 'jobs "x" is forbidden: unable to create new content in namespace n because it is being terminated'


@pytest.mark.parametrize(
    ("status", "body", "expected", "told"),
    [
        (403, said(WEBHOOK), LaunchRejected, "unable to find job queue"),
        (400, said(WEBHOOK), LaunchRejected, "unable to find job queue"),
        (422, said(INVALID), LaunchRejected, "spec.minAvailable"),
        (403, said(FORBIDDEN), ClusterUnavailable, "does not let this service"),
        (403, said(QUOTA), ClusterUnavailable, "exceeded quota"),
        (403, said(ENDING), ClusterUnavailable, "being terminated"),
        (401, said("Unauthorized"), ClusterUnavailable, "401: Unauthorized"),
        (429, said("too many requests"), ClusterUnavailable, "429"),
        (500, "not JSON at all", ClusterUnavailable, "500"),
        (503, said("etcdserver: leader changed"), ClusterUnavailable, "leader changed"),
    ],
)
def test_a_refused_launch(status: int, body: str, expected: type[SolfaError], told: str) -> None:
    with answering(status, body) as cluster, pytest.raises(expected) as raised:
        cluster.launch(request(make_spec(), "proxy"))
    assert told in raised.value.message
    assert "\n" not in raised.value.message


def test_what_is_not_there_is_absent_or_fine() -> None:
    with answering(404, said("not found")) as cluster, pytest.raises(ClusterUnavailable, match="404"):
        cluster.look()  # no namespace, or no Volcano
    with answering(404, said("not found")) as cluster:
        cluster.remove("x")
        cluster.resize("x", 1)


def test_an_answer_that_is_no_json_is_no_crash() -> None:
    with answering(200, "<html>a proxy's greeting</html>") as cluster:
        for call in (cluster.look, lambda: cluster.status("x"), lambda: cluster.logs("x")):
            with pytest.raises(ClusterUnavailable):
                call()
