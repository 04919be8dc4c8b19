"""The chart's monitors, rules and dashboards, read back from the cluster and given to a real Prometheus, as its operator would."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.images import Images
from tests.cluster.kube import Json, Namespace, run
from tests.cluster.object_store import ObjectStore
from tests.cluster.release import NAME, Release, installed
from tests.cluster.search import search_spec
from tests.e2e.prometheus import MISSING, PROMETHEUS, asked, has_values, prometheus, queries
from tests.services.waiting import wait_for

pytestmark = [pytest.mark.quick, pytest.mark.skipif(not PROMETHEUS, reason=MISSING)]
GROUP = "monitoring.coreos.com"
KINDS = {"servicemonitors": "ServiceMonitor", "podmonitors": "PodMonitor", "prometheusrules": "PrometheusRule"}
# What comes only of things that go wrong, or of a GPU.
EMPTY = {"Model FLOPs utilisation", "Database errors", "Bucket errors", "Experiments left for the next pass", "Retries", "Elastic restarts"}


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
    with installed(namespace, images, object_store, *values) as made:
        yield made


def scrape_job(monitor: Json, namespace: Namespace) -> dict[str, Any]:
    """What Prometheus's operator makes of a PodMonitor with one endpoint."""
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    named = endpoint.get("authorization", {}).get("credentials")
    told = {"authorization": {"credentials": namespace.secret(named["name"], named["key"])}} if named else {}
    labels = {f"__meta_kubernetes_pod_label_{_plain(name)}": value for name, value in monitor["spec"]["selector"]["matchLabels"].items()}
    kept = labels | {"__meta_kubernetes_pod_container_port_name": endpoint["port"]}
    said = {"namespace": "__meta_kubernetes_namespace", "pod": "__meta_kubernetes_pod_name"}
    return {
        **told,
        "job_name": f"{namespace.name}/{monitor['metadata']['name']}",
        "metrics_path": endpoint["path"],
        "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": os.environ["KUBECONFIG"], "namespaces": {"names": [namespace.name]}}],
        "relabel_configs": [
            *({"action": "keep", "source_labels": [label], "regex": value} for label, value in kept.items()),
            *({"source_labels": [source], "target_label": label} for label, source in said.items()),
        ],
    }


def _plain(label: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in label)


def test_what_the_chart_installs_shows_a_search(watched_release: Release, namespace: Namespace, tmp_path: Path) -> None:
    monitors = {one["metadata"]["name"]: one for one in namespace.get(f"podmonitors.{GROUP}")}
    assert sorted(monitors) == [NAME, f"{NAME}-trainer"]
    (rule,) = namespace.get(f"prometheusrules.{GROUP}")
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(rule["spec"]))
    boards = [text for one in namespace.get("configmaps", "grafana_dashboard=1") for text in one["data"].values()]
    assert len(boards) == 3

    proxy = {"steps": 400, "global_batch": 8, "micro_batch": 4, "save_every": 200, "evaluate_every": 100}
    with prometheus(tmp_path, [scrape_job(monitor, namespace) for monitor in monitors.values()], rules) as server:
        with watched_release.client() as client:
            client.submit(search_spec("seen", training={"proxy": proxy}, comparison={"mixtures": []}))
        start = float(wait_for(lambda: server.value('solfa_experiments{phase="running"} == 1'), 300, 0.5)[0]["value"][0])
        wait_for(lambda: server.value('count(solfa_trainer_rank{stage="proxy"}) == 2'), 600, 0.5)
        wait_for(lambda: server.value("solfa_submit_to_weights_seconds_count == 1"), 600, 0.5)
        end = float(server.value("time()")[0])
        empty = [
            panel["title"]
            for board in boards
            for panel, target in queries(board)
            if not has_values(server.range(asked(target["expr"], namespace=namespace.name), start, end))
        ]
        assert set(empty) <= EMPTY, empty
        health = {one["name"]: one["health"] for group in server.get("/rules")["groups"] for one in group["rules"]}
        assert len(health) == sum(len(group["rules"]) for group in rule["spec"]["groups"])
        assert set(health.values()) == {"ok"}, health
        assert server.value(f'up{{job="{namespace.name}/{NAME}"}} == 1')
