"""The Kubernetes API server, as far as launching needs it: plain JSON in and out, a deadline on every call, and no exception but ours.

Objects stay the mappings that the server sent: what a newer server adds cannot break their reading.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kubernetes.client import ApiClient, ApiException, Configuration
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from urllib3.exceptions import HTTPError

from api.errors import ClusterUnavailable, LaunchRejected

DEADLINE = (5.0, 20.0)  # seconds to connect, and to hear something: a hung server must not hang us
CONNECTIONS = 40  # kept open: for as many threads as look and follow logs at once
REFUSED = (400, 413, 422)

Json = dict[str, Any]


class _HurriedClient(ApiClient):  # type: ignore[misc]  # the client is generated, and untyped
    """The official client, whose calls wait for ever unless each is told otherwise; TorchX's are not."""

    def call_api(self, *request: Any, _request_timeout: Any = None) -> Any:
        return super().call_api(*request, _request_timeout=_request_timeout or DEADLINE)


def connect() -> ApiClient:
    """A client as the pod's service account, or else as KUBECONFIG says. Raises ClusterUnavailable where there is neither."""
    configuration = Configuration()
    try:
        load_incluster_config(client_configuration=configuration)
    except ConfigException:
        try:
            load_kube_config(client_configuration=configuration)
        except (ConfigException, OSError) as error:
            raise ClusterUnavailable(f"No Kubernetes cluster can be reached from here ({error}); set KUBECONFIG.") from error
    configuration.retries = False
    configuration.connection_pool_maxsize = CONNECTIONS
    return _HurriedClient(configuration)


class ApiServer:
    """Calls on one namespace. Each raises ClusterUnavailable (try again) or LaunchRejected (for good), in one sentence."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace

    def find_job(self, name: str) -> Json | None:
        """The Volcano job of that name; None where there is none."""
        return self._find("GET", f"{self._jobs}/{name}")

    def jobs(self, selector: str) -> list[Json]:
        return self._items(self._jobs, labelSelector=selector)

    def try_job(self, job: Json) -> None:
        """A server-side dry run of creating `job`, with all admission; one of its name that is there already is fine."""
        with translated():
            try:
                self._json("POST", self._jobs, job, dryRun="All")
            except ApiException as error:
                if error.status != 409:
                    raise

    def patch_job(self, job: Json, changes: dict[str, Any]) -> None:
        """Set what is at these JSON pointers, all or nothing; another job of the same name is left alone, and an absent one is fine."""
        guard = {"op": "test", "path": "/metadata/uid", "value": job["metadata"]["uid"]}
        sets = [{"op": "add", "path": path, "value": value} for path, value in changes.items()]  # `replace` wants something to be there
        self._find("PATCH", f"{self._jobs}/{job['metadata']['name']}", [guard, *sets], "application/json-patch+json")

    def replace_job_status(self, job: Json) -> None:
        """Raises ClusterUnavailable when the job has changed since it was read."""
        self._find("PUT", f"{self._jobs}/{job['metadata']['name']}/status", job)

    def delete_job(self, name: str) -> None:
        """With all that it owns, before itself; an absent job is fine."""
        self._find("DELETE", f"{self._jobs}/{name}", {"propagationPolicy": "Foreground"})

    def pods(self, selector: str) -> list[Json]:
        return self._items(self._path("pods"), labelSelector=selector)

    def force_delete_pod(self, pod: Json) -> None:
        """Take a pod off the record without waiting for its node's word; another of the same name is left alone."""
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        try:
            self._find("DELETE", f"{self._path('pods')}/{pod['metadata']['name']}", body)
        except ClusterUnavailable as error:
            if not (isinstance(error.__cause__, ApiException) and error.__cause__.status == 409):
                raise

    def pod_log(self, name: str, **query: Any) -> list[str]:
        """Lines; [] for a pod or container that is not there (yet)."""
        with translated():
            try:
                return self._text("GET", f"{self._path('pods')}/{name}/log", None, **query).splitlines()
            except ApiException as error:
                if error.status in (400, 404):
                    return []
                if error.status == 500:  # its node is away, and its log with it
                    return []
                raise

    def events(self, name: str) -> list[Json]:
        """Events on the objects of that name."""
        return self._items(self._path("events"), fieldSelector=f"involvedObject.name={name}")

    def may(self, verb: str, group: str, resource: str) -> bool:
        """Whether this service account may: an access review."""
        name, _, sub = resource.partition("/")
        wanted = {"namespace": self._namespace, "verb": verb, "group": group, "resource": name, "subresource": sub}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": wanted}}
        with translated():
            return bool(self._json("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)["status"]["allowed"])

    @property
    def _jobs(self) -> str:
        return f"/apis/batch.volcano.sh/v1alpha1/namespaces/{self._namespace}/jobs"

    def _path(self, plural: str) -> str:
        return f"/api/v1/namespaces/{self._namespace}/{plural}"

    def _items(self, path: str, **query: Any) -> list[Json]:
        with translated():
            return list(self._json("GET", path, None, **query)["items"])

    def _find(self, method: str, path: str, body: Json | list[Json] | None = None, content_type: str = "application/json") -> Json | None:
        with translated():
            try:
                answer: Json = json.loads(self._text(method, path, body, content_type))
            except ApiException as error:
                if error.status == 404:
                    return None
                raise
            return answer

    def _json(self, method: str, path: str, body: Json | None, **query: Any) -> Json:
        answer: Json = json.loads(self._text(method, path, body, **query))
        return answer

    def _text(self, method: str, path: str, body: Json | list[Json] | None, content_type: str = "application/json", **query: Any) -> str:
        headers = {"Accept": "application/json, */*", **({"Content-Type": content_type} if body is not None else {})}
        request = self._client.param_serialize(
            method, path, query_params=list(query.items()), header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        response = self._client.call_api(*request)
        text = response.read().decode(errors="replace")
        if not 200 <= response.status < 300:
            raise ApiException(status=response.status, reason=response.reason, body=text)
        return str(text)


@contextmanager
def translated() -> Iterator[None]:
    """The client's, urllib3's and TorchX's errors as ours, in one sentence."""
    try:
        yield
    except ApiException as error:
        raise refusal(error) from error
    except (HTTPError, OSError) as error:
        said = str(error).rpartition(": ")[2] or type(error).__name__
        raise ClusterUnavailable(f"The Kubernetes API server did not answer ({said.rstrip('.')}).") from error
    except json.JSONDecodeError as error:
        raise ClusterUnavailable(
            "What answers in the Kubernetes API server's place does not speak its language; is a proxy there?"
        ) from error
    except ValueError as error:
        if isinstance(error.__cause__, ApiException):
            raise refusal(error.__cause__) from error
        raise LaunchRejected(f"TorchX refused the app: {str(error).rstrip('.')}.") from error


def refusal(error: ApiException) -> ClusterUnavailable | LaunchRejected:
    """What the server said no to: the object itself, for good; or us, now."""
    said = _said(error)
    if error.status in REFUSED or "denied the request" in said:
        return LaunchRejected(f"The cluster refused it: {said}.")
    if error.status == 403 and "exceeded quota" not in said:
        return ClusterUnavailable(f"The cluster does not let this service do that: {said}.")
    return ClusterUnavailable(f"The Kubernetes API server answered {error.status}: {said}.")


def _said(error: ApiException) -> str:
    """The server's own words, on one line."""
    try:
        message = str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        message = str(error.reason or "nothing")
    return " ".join(message.split()).rstrip(".")
