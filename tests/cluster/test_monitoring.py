"""The chart's monitors, rules and dashboards, read back from the cluster and given to a real Prometheus, as its operator would."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.images import Images
from tests.cluster.kube import Json, Namespace, run
from tests.cluster.object_store import ObjectStore
from tests.cluster.release import NAME, Release, installed
from tests.cluster.search import COMPUTE, search_spec
from tests.e2e.prometheus import MISSING, PROMETHEUS, asked, has_values, prometheus, queries
from tests.services.waiting import wait_for

pytestmark = [pytest.mark.quick, pytest.mark.skipif(not PROMETHEUS, reason=MISSING)]
GROUP = "monitoring.coreos.com"
KINDS = {"servicemonitors": "ServiceMonitor", "podmonitors": "PodMonitor", "prometheusrules": "PrometheusRule"}
# What comes only of things that go wrong, which tests/e2e/test_prometheus.py lets happen.
EMPTY = {"Database errors", "Bucket errors", "Experiments left for the next pass", "Retries"}


@pytest.fixture(scope="module")
def operator_kinds() -> Iterator[None]:
    """The kinds of Prometheus's operator: its own where the cluster has them, else some that take any object."""
    made = []
    for plural, kind in KINDS.items():
        name = f"{plural}.{GROUP}"
        if not run("kubectl", "get", "crd", name, "--ignore-not-found", "--output", "name"):
            run("kubectl", "create", "-f", "-", stdin=json.dumps(_any_object(plural, kind)))
            made.append(name)
    if made:
        run("kubectl", "wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in made))
    yield
    if made:
        run("kubectl", "delete", "crd", *made)


def _any_object(plural: str, kind: str) -> Json:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    names = {"plural": plural, "singular": kind.lower(), "kind": kind}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


@pytest.fixture(scope="module")
def watched_release(operator_kinds: None, namespace: Namespace, images: Images, object_store: ObjectStore) -> Iterator[Release]:
    values = ("monitoring.monitor=PodMonitor", "monitoring.rules=true", "monitoring.dashboards=true")
    values += ("networkPolicy.clients[0].ipBlock.cidr=0.0.0.0/0",)  # Prometheus runs on this machine
    with installed(namespace, images, object_store, *values) as made:
        yield made


def scrape_job(monitor: Json, namespace: Namespace, targets: Path) -> dict[str, Any]:
    """What Prometheus's operator makes of a PodMonitor with one endpoint, but for finding pods, which Debian's Prometheus cannot."""
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    named = endpoint.get("authorization", {}).get("credentials")
    told = {"authorization": {"credentials": namespace.secret(named["name"], named["key"])}} if named else {}
    return {
        **told,
        "job_name": f"{namespace.name}/{monitor['metadata']['name']}",
        "metrics_path": endpoint["path"],
        "relabel_configs": [
            {"source_labels": rule["sourceLabels"], "target_label": rule["targetLabel"]} for rule in endpoint.get("relabelings", [])
        ],
        "file_sd_configs": [{"files": [str(targets)]}],
    }


def found(monitor: Json, namespace: Namespace) -> list[Json]:
    """The targets of a PodMonitor as they are now, as Prometheus reads them from a file."""
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    selector = ",".join(f"{name}={value}" for name, value in monitor["spec"]["selector"]["matchLabels"].items())
    return [
        {
            "targets": [f"{pod['status']['podIP']}:{port['containerPort']}"],
            "labels": {**_meta(pod["metadata"]["labels"]), "namespace": namespace.name, "pod": pod["metadata"]["name"]},
        }
        for pod in namespace.get("pods", selector)
        if pod["status"]["phase"] == "Running" and "podIP" in pod["status"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
        if port.get("name") == endpoint["port"]
    ]


def _meta(labels: dict[str, str]) -> dict[str, str]:
    """A pod's labels as rules of a monitor find them."""
    return {f"__meta_kubernetes_pod_label_{re.sub('[^a-zA-Z0-9_]', '_', name)}": value for name, value in labels.items()}


@contextmanager
def followed(monitors: list[Json], namespace: Namespace, folder: Path) -> Iterator[list[dict[str, Any]]]:
    """Scrape jobs whose targets are kept up to date for as long as the context lasts."""
    files = {monitor["metadata"]["name"]: folder / f"{monitor['metadata']['name']}.json" for monitor in monitors}
    over = threading.Event()

    def follow() -> None:
        while not over.is_set():
            for monitor in monitors:
                path = files[monitor["metadata"]["name"]]
                partial = path.with_suffix(".partial")
                partial.write_text(json.dumps(found(monitor, namespace)))
                partial.replace(path)
            over.wait(1)

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        yield [scrape_job(monitor, namespace, files[monitor["metadata"]["name"]]) for monitor in monitors]
    finally:
        over.set()
        follower.join()


def test_what_the_chart_installs_shows_a_search(watched_release: Release, namespace: Namespace, tmp_path: Path) -> None:
    monitors = {one["metadata"]["name"]: one for one in namespace.get(f"podmonitors.{GROUP}")}
    assert sorted(monitors) == [NAME, f"{NAME}-trainer"]
    (rule,) = namespace.get(f"prometheusrules.{GROUP}")
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(rule["spec"]))
    boards = [text for one in namespace.get("configmaps", "grafana_dashboard=1") for text in one["data"].values()]
    assert len(boards) == 3

    proxy = {"steps": 800, "global_batch": 8, "micro_batch": 4, "save_every": 400, "evaluate_every": 400}
    with followed(list(monitors.values()), namespace, tmp_path) as jobs, prometheus(tmp_path, jobs, rules) as server:
        with watched_release.client() as client:
            changes = {"training": {"proxy": proxy}, "compute": {"default": {**COMPUTE, "peak_flops": 1e11}}}
            client.submit(search_spec("seen", comparison={"mixtures": []}, **changes))
        start = float(wait_for(lambda: server.value('solfa_experiments{phase="running"} == 1'), 300, 0.5)[0]["value"][0])
        wait_for(lambda: server.value('count(solfa_trainer_rank{project="default", stage="proxy"}) == 2'), 600, 0.5)
        wait_for(lambda: server.value('solfa_experiment_step{stage="proxy"} > 0'), 600, 0.5)
        names = [pod["metadata"]["name"] for pod in namespace.get("pods", "solfa.dev/stage=proxy")]
        namespace.kubectl("delete", "pod", next(name for name in names if "-trainer-1-" in name), "--wait=false")
        wait_for(lambda: server.value("sum(solfa_elastic_restarts_total) > 0"), 300, 0.5)
        wait_for(lambda: server.value("increase(solfa_submit_to_weights_seconds_count[1h] offset 3s) > 0"), 600, 0.5)
        end = float(server.value("time()")[0])
        empty = [
            panel["title"]
            for board in boards
            for panel, target in queries(board)
            if not has_values(server.range(asked(target["expr"], namespace=namespace.name, proxy="proxy"), start, end))
        ]
        assert set(empty) <= EMPTY, empty
        health = {one["name"]: one["health"] for group in server.get("/rules")["groups"] for one in group["rules"]}
        assert len(health) == sum(len(group["rules"]) for group in rule["spec"]["groups"])
        assert set(health.values()) == {"ok"}, health
        assert server.value(f'up{{job="{namespace.name}/{NAME}"}} == 1')
