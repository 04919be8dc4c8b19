"""The cluster that the environment names, through kubectl and helm: what a platform engineer would type."""

import json
import os
import random
import re
import shutil
import subprocess
import uuid
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.services.waiting import wait_for

NEEDED = ("KUBECONFIG", "SOLFA_TEST_REGISTRY", "SOLFA_TEST_HOST")
TOOLS = ("kubectl", "helm")
Json = dict[str, Any]

# What a cluster itself puts into every namespace.
CLUSTERS_OWN = {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}
KINDS = (
    "pods,services,endpoints,secrets,configmaps,serviceaccounts,persistentvolumeclaims,deployments.apps,replicasets.apps,jobs.batch,"
    "networkpolicies.networking.k8s.io,ingresses.networking.k8s.io,poddisruptionbudgets.policy,roles.rbac.authorization.k8s.io,"
    "rolebindings.rbac.authorization.k8s.io,jobs.batch.volcano.sh,podgroups.scheduling.volcano.sh"
)


def why_not() -> str | None:
    """Why there can be no test on a cluster here; None: there can."""
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        return f"a test on a cluster needs {', '.join(missing)} in the environment (see make cluster-test)"
    if missing := [name for name in TOOLS if shutil.which(name) is None]:
        return f"a test on a cluster needs {' and '.join(missing)} on the PATH"
    return None


def run(*command: str, stdin: str | None = None, check: bool = True) -> str:
    """A command's standard output. Fails with what it said."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


class Namespace:
    """One namespace that enforces the `restricted` Pod Security profile."""

    def __init__(self, name: str) -> None:
        self.name = name

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        return run("kubectl", "--namespace", self.name, *arguments, stdin=stdin, check=check)

    def helm(self, *arguments: str) -> str:
        return run("helm", "--namespace", self.name, *arguments)

    def get(self, kinds: str, selector: str = "") -> list[Json]:
        chosen = ["--selector", selector] if selector else []
        items: list[Json] = json.loads(self.kubectl("get", kinds, "--output", "json", *chosen))["items"]
        return items

    def secret(self, name: str, key: str) -> str:
        return b64decode(self.kubectl("get", "secret", name, "--output", f"jsonpath={{.data.{key}}}")).decode()

    def left(self) -> set[tuple[str, str]]:
        """(kind, name) of all that is there and not the cluster's own."""
        return {(one["kind"], one["metadata"]["name"]) for one in self.get(KINDS)} - CLUSTERS_OWN

    def describe(self) -> str:
        """For a person who reads why a test failed."""
        parts = [("get", "pods,jobs.batch.volcano.sh,podgroups.scheduling.volcano.sh", "--output", "wide")]
        parts.append(("get", "events", "--sort-by", ".lastTimestamp"))
        said = [self.kubectl(*part, check=False) for part in parts]
        said += [self.kubectl("logs", "--selector", "app.kubernetes.io/name=solfa", "--all-containers", "--tail", "60", check=False)]
        return "\n".join(text[-6000:] for text in said)

    @contextmanager
    def forwarded(self, service: str) -> Iterator[str]:
        """The URL by which this machine reaches the first port of a service's ready pod; one that is being replaced is waited for."""

        def ready_pods() -> list[str]:
            return [pod["metadata"]["name"] for pod in self.get("pods", f"app.kubernetes.io/name={service}") if is_ready(pod)]

        ready = wait_for(ready_pods, seconds=60, every=0.5)
        command = ["kubectl", "--namespace", self.name, "port-forward", f"pod/{random.choice(ready)}", ":http"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout
            first = process.stdout.readline()
            found = re.match(r"Forwarding from (127\.0\.0\.1:\d+)", first)
            try:
                assert found, first
                yield f"http://{found[1]}"
            finally:
                process.terminate()


def is_ready(pod: Json) -> bool:
    """Whether it is ready, and stays."""
    conditions = pod["status"].get("conditions", [])
    return "deletionTimestamp" not in pod["metadata"] and any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


@contextmanager
def new_namespace(stem: str) -> Iterator[Namespace]:
    """A namespace that goes with everything in it when the context ends."""
    name = f"{stem}-{uuid.uuid4().hex[:6]}"
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    run(
        "kubectl",
        "create",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
    )
    try:
        yield Namespace(name)
    finally:
        run("kubectl", "delete", "namespace", name, "--wait=false", check=False)
        wait_for(lambda: not run("kubectl", "get", "namespace", name, "--ignore-not-found", "--output", "name"), seconds=180, every=0.5)
