"""Each set of values of the chart's golden files, against the real API server: a dry run on the server of every object."""

import json
from pathlib import Path

import pytest

from tests.charts.rendering import VALUES, objects, render
from tests.cluster.kube import Namespace

pytestmark = pytest.mark.quick
OPERATORS = ("monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1")  # which the cluster need not have


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_api_server_takes_what_the_chart_makes(values: Path, namespace: Namespace) -> None:
    made = [one for one in objects(render(values)) if one["apiVersion"] not in OPERATORS]
    for one in made:
        one["metadata"].pop("namespace", None)
        namespace.kubectl("create", "--dry-run=server", "--validate=strict", "--filename", "-", stdin=json.dumps(one))
    assert {"Deployment", "Service", "Role", "RoleBinding"} <= {one["kind"] for one in made}
