"""A small Kubernetes API server with Volcano's part in it, over HTTP on this machine: jobs, their pods, what those wrote.

It does what was seen on a real cluster (shared/docs/platform.md) and no more: a job's tasks become pods, which run at once; a job whose
status says Aborting loses them (`ends` lets that wait; a pod on a dead node stays) and is Aborted; nothing of it may be patched but its
tasks' replicas.
"""

import copy
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes.client import ApiClient, Configuration

Json = dict[str, Any]
AT = "2026-01-01T00:00:{:02}Z"


class KubeServer:
    """What it holds, for a test to look at and to change."""

    def __init__(self) -> None:
        self.jobs: dict[str, Json] = {}
        self.pods: dict[str, Json] = {}
        self.logs: dict[str, list[str]] = {}
        self.calls: list[str] = []
        """Of everything but looks: method and path."""
        self.looks: list[str] = []
        """Paths that were read."""
        self.ends = True
        """Whether pods that are to go do go."""
        self.lock = threading.RLock()
        self.url = ""

    def client(self) -> ApiClient:
        configuration = Configuration(host=self.url)
        configuration.retries = False
        return ApiClient(configuration)

    def says(self, pod: str, *lines: str) -> None:
        """What a container writes, a second a line."""
        self.logs.setdefault(pod, []).extend(lines)

    def crashes(self, pod: str, exit_code: int, restarts: int, reason: str = "Error") -> None:
        """As a kubelet tells of a container that ended and is started again."""
        last = {"terminated": {"exitCode": exit_code, "reason": reason, "startedAt": AT.format(1), "finishedAt": AT.format(2)}}
        self.pods[pod]["status"]["containerStatuses"] = [{"restartCount": restarts, "state": {"waiting": {}}, "lastState": last}]

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """(status, body as JSON, or text)."""
        with self.lock:
            parts = path.strip("/").split("/")
            if method == "GET":
                self.looks.append(path)
            else:
                self.calls.append(f"{method} {path}")
            kind, *rest = parts[parts.index("namespaces") + 2 :]
            held = {"jobs": self.jobs, "pods": self.pods}.get(kind)
            if held is None:  # events
                return 200, {"items": []}
            if method == "GET" and not rest:
                return 200, {"items": [one for one in held.values() if _selected(one, query.get("labelSelector", ""))]}
            if method == "POST":
                return (201, body) if query.get("dryRun") else self._create(body)
            if rest[0] not in held:
                return 404, {"message": f"{rest[0]} not found"}
            return self._log(rest[0], query) if rest[1:] == ["log"] else self._change(method, kind, rest, body)

    def _log(self, pod: str, query: dict[str, str]) -> tuple[int, Any]:
        if "previous" in query:
            return 400, {"message": "previous terminated container not found"}
        return 200, "".join(f"{AT.format(number % 60)} {line}\n" for number, line in enumerate(self.logs.get(pod, [])))

    def _create(self, job: Json) -> tuple[int, Any]:
        name = job["metadata"]["name"]
        if name in self.jobs:
            return 409, {"message": f"{name} already exists"}
        stored = copy.deepcopy(job)
        stored["metadata"]["uid"] = str(uuid.uuid4())
        stored["status"] = {"state": {"phase": "Running"}}
        for task in stored["spec"]["tasks"]:
            if not task["replicas"]:
                del task["replicas"]  # as Volcano's webhook, which writes no nought
        self.jobs[name] = stored
        self._sync(stored)
        return 201, stored

    def _change(self, method: str, kind: str, rest: list[str], body: Any) -> tuple[int, Any]:
        if kind == "pods":
            gone = self.pods.pop(rest[0])
            job = self.jobs[gone["metadata"]["labels"]["volcano.sh/job-name"]]
            self._sync(job)
            self.settle(job)
            return 200, gone
        job = self.jobs[rest[0]]
        if method == "GET":
            return 200, job
        if method == "DELETE":
            del self.jobs[rest[0]]
            self._take_pods(rest[0])
            return 200, {}
        if method == "PUT":
            job["status"] = body["status"]
            self.settle(job)
        else:
            refused = self._patch(job, body)
            if refused:
                return 422, {"message": refused}
        return 200, job

    def _patch(self, job: Json, operations: list[Json]) -> str:
        """JSON Patch, as far as it is used; what Volcano's webhook says where it is not allowed."""
        changed = copy.deepcopy(job)
        for one in operations:
            *way, last = one["path"].strip("/").split("/")
            here: Any = changed
            for part in way:
                here = here[int(part)] if isinstance(here, list) else here[part]
            if one["op"] == "test":
                if here.get(last) != one["value"]:
                    return "the test failed"
            elif one["op"] != "add" or last != "replicas":
                return "job updates may not change fields other than tasks[*].replicas"
            else:
                here[last] = one["value"]
        if any(task.get("minAvailable", 0) > task["replicas"] for task in changed["spec"]["tasks"]):
            return "'minAvailable' must be <= 'replicas'"
        job["spec"] = changed["spec"]
        self._sync(job)
        return ""

    def settle(self, job: Json) -> None:
        """What the controller makes of an Aborting job, unless its pods take their time, or cannot go."""
        if job["status"]["state"]["phase"] == "Aborting" and self.ends and self._take_pods(job["metadata"]["name"]):
            job["status"]["state"]["phase"] = "Aborted"

    def _take_pods(self, job: str) -> bool:
        """All but those that a dead node holds; whether none of the job's is left."""
        mine = {name: pod for name, pod in self.pods.items() if pod["metadata"]["labels"]["volcano.sh/job-name"] == job}
        held = {name for name, pod in mine.items() if "deletionTimestamp" in pod["metadata"]}
        for name in mine.keys() - held:
            del self.pods[name]
            self.logs.pop(name, None)
        return not held

    def _sync(self, job: Json) -> None:
        """A pod for each task that has a replica, and none for the others, unless the job is being ended."""
        if job["status"]["state"]["phase"] != "Running":
            return
        for task in job["spec"]["tasks"]:
            name = f"{job['metadata']['name']}-{task['name']}-0"
            if not task.get("replicas"):
                self.pods.pop(name, None)
                self.logs.pop(name, None)
            elif name not in self.pods:
                labels = {**task["template"]["metadata"]["labels"], "volcano.sh/job-name": job["metadata"]["name"]}
                conditions = [{"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"}]
                self.pods[name] = {
                    "metadata": {"name": name, "uid": str(uuid.uuid4()), "labels": labels},
                    "spec": {"nodeName": "n0", **task["template"]["spec"]},
                    "status": {"phase": "Running", "conditions": conditions},
                }


def _selected(one: Json, selector: str) -> bool:
    labels = one["metadata"].get("labels", {})
    return all(labels.get(name) == value for name, _, value in (part.partition("=") for part in selector.split(",") if part))


@contextmanager
def kube_server() -> Iterator[KubeServer]:
    """Listening on a free port until the context ends."""
    kube = KubeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # half of an answer would wait for a word of the other side

        def answer(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
            address = urlsplit(self.path)
            status, said = kube.answer(self.command, address.path, {k: v[0] for k, v in parse_qs(address.query).items()}, body)
            data = (said if isinstance(said, str) else json.dumps(said)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(said, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kube.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield kube
        server.shutdown()
