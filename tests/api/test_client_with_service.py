"""The client and the real service: from a posted spec to weights in a trainer's format, with nothing between them but HTTP."""

from pathlib import Path

import pytest

from api.client import Client
from api.errors import IdempotencyMismatch, NameTaken, NotFound, NotReady, SpecError
from api.exports import FORMATS
from api.replay import replay
from tests.services.running import Running, running


def test_a_search_from_its_spec_to_its_weights(tmp_path: Path) -> None:
    with running(tmp_path) as service, Client(str(service.http.base_url)) as client:
        text = service.spec("search", {"steps": 4})
        assert client.ready()
        validated = client.validate(text)
        assert [stage.name for stage in validated.plan.stages][:3] == ["prepare", "reference", "proxy"]
        with pytest.raises(NotFound):
            client.get("search")  # validating recorded nothing

        made = client.submit(text, idempotency_key="one")
        assert client.submit(text, idempotency_key="one").id == made.id
        with pytest.raises(IdempotencyMismatch):
            client.submit(service.spec("other"), idempotency_key="one")
        with pytest.raises(NameTaken):
            client.submit(text)
        with pytest.raises(SpecError) as caught:
            client.submit(text.replace("sequence_length", "sequence_len"))
        assert caught.value.extra["problems"][0]["suggestion"] == "sequence_length"

        weights = client.weights("search", wait=60)
        seen = list(client.events("search"))
        assert seen[-1].kind == "experiment_finished"
        assert [one.id for one in seen] == sorted({one.id for one in seen})
        assert seen == list(client.past_events("search"))
        _has_finished(client, service, made.id)
        assert client.weights("search") == weights
        for name, export in FORMATS.items():
            assert client.export("search", name) == export.render(weights)
        header, checkpoints = client.history("search")
        assert replay([(header, checkpoints)]).averaged_weights.max_difference(weights.averaged_weights) < 1e-9

        client.delete("search")
        with pytest.raises(NotFound):
            client.get(made.id)


def _has_finished(client: Client, service: Running, experiment_id: str) -> None:
    view = client.get("search")
    assert (view.id, view.phase) == (experiment_id, "succeeded")
    assert client.spec("search") == service.spec("search", {"steps": 4})
    assert [stage.name for stage in client.stages("search")] == [stage.name for stage in client.plan("search").stages]
    assert [one.name for one in client.experiments(name_prefix="sea")] == ["search"]
    assert list(client.experiments(phase="failed")) == []
    assert list(client.follow_logs("search", "proxy")) == client.logs("search", "proxy").lines
    assert client.comparison("search").compared.rows
    with pytest.raises(NotReady):
        client.current_weights("search")
