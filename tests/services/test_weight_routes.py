"""Weights, their history, and the comparison: what a downstream job reads, waits for, or is told that it will never get."""

import csv
import io
import json
import threading
from typing import Any

import pytest

from api.client import Client
from api.errors import NotReady
from api.exports import FORMATS
from api.views import Weights
from tests.services.running import Running, problem


def test_the_weights_come_with_what_they_depend_on(gallery: Running) -> None:
    weights = gallery.get("/done/weights").json()
    assert weights["averaged_weights"] == pytest.approx(dict.fromkeys(("books", "code", "web"), 1 / 3))
    assert weights["mean_document_tokens"] == dict.fromkeys(("books", "code", "web"), 50.0)
    provenance = weights["provenance"]
    assert provenance["experiment"] == "done"
    assert provenance["spec_sha256"] == gallery.get("/done").json()["spec_sha256"]
    assert provenance["sequence_length"] == 32


@pytest.mark.parametrize("name", FORMATS)
def test_every_export_format_is_served_as_it_is_rendered(gallery: Running, name: str) -> None:
    answer = gallery.get(f"/done/weights?format={name}")
    weights = Weights.model_validate_json(gallery.get("/done/weights").content)
    assert answer.text == FORMATS[name].render(weights)
    assert answer.headers["content-type"].startswith(FORMATS[name].media_type)
    assert gallery.get(f"/done/weights?format={name}", If_None_Match=answer.headers["etag"]).status_code == 304
    assert gallery.get("/done/weights", If_None_Match=answer.headers["etag"]).status_code == 200


def test_a_format_that_is_none_is_told_all_there_are(gallery: Running) -> None:
    detail = problem(gallery.get("/done/weights?format=excel"), 400, "bad_request")["detail"]
    assert all(name in detail for name in FORMATS)


def test_weights_that_are_not_there_say_why_and_whether_they_may_still_come(gallery: Running) -> None:
    live = problem(gallery.get("/live/weights"), 409, "not_ready")
    assert (live["final"], live["detail"].startswith("proxy of live is running.")) == (False, True)
    broken = problem(gallery.get("/broken/weights?wait=300"), 409, "not_ready")  # at once, not after 300 seconds
    assert (broken["final"], broken["detail"]) == (True, "proxy of broken was cancelled. It needs reference, which did not succeed.")
    ended = problem(gallery.get("/ended/weights?wait=300"), 409, "not_ready")
    assert ended["final"]
    assert not problem(gallery.get("/live/weights?wait=0.2"), 409, "not_ready")["final"]
    for wait in ("-1", "nan", "inf", "3601", "long"):
        problem(gallery.get(f"/done/weights?wait={wait}"), 422, "invalid_request")


def test_a_job_that_waits_gets_the_weights_when_they_are_there(served: Running) -> None:
    served.submit("awaited", {"steps": 4, "seconds": 0.5}, comparison={"mixtures": []})
    answers: list[Any] = []

    def wait() -> None:
        answers.append(served.get("/awaited/weights?wait=60"))

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert served.get("/awaited").json()["phase"] in ("pending", "running")
    waiting.join(60)
    assert answers[0].status_code == 200
    assert served.get("/awaited/weights?wait=60").json() == answers[0].json()
    with Client(str(served.http.base_url)) as client:
        assert client.weights("awaited", wait=60).model_dump(mode="json") == answers[0].json()


def test_a_job_that_waits_is_told_as_soon_as_they_can_no_longer_come(served: Running) -> None:
    served.submit("hopeless", {"seconds": 0.3, "permanent": ["proxy"]}, comparison={"mixtures": []})
    with Client(str(served.http.base_url)) as client, pytest.raises(NotReady, match="This stage was told to fail") as caught:
        client.weights("hopeless", wait=60)
    assert caught.value.extra["final"]


def test_a_history_is_told_whole_thinned_and_as_a_table(gallery: Running) -> None:
    whole = gallery.get("/done/weights/history").json()
    assert whole["header"]["domains"] == ["books", "code", "web"]
    assert [one["step"] for one in whole["checkpoints"]] == [1, 2, 3, 4, 5, 6]
    thinned = gallery.get("/done/weights/history?every=4").json()
    assert thinned["checkpoints"] == [one for one in whole["checkpoints"] if one["step"] in (4, 6)]
    assert [one["step"] for one in gallery.get("/done/weights/history?every=100").json()["checkpoints"]] == [6]
    assert gallery.get("/done/weights/history?stage=proxy").json() == whole
    rows = list(csv.DictReader(io.StringIO(gallery.get("/done/weights/history?format=csv&every=3").text)))
    assert [(row["step"], row["domain"]) for row in rows] == [(step, name) for step in ("3", "6") for name in ("books", "code", "web")]
    assert (rows[0]["domain_loss"], rows[1]["domain_loss"]) == ("2.5", "")


def test_a_history_is_there_while_the_proxy_runs_and_said_to_be_absent_before(gallery: Running, served: Running) -> None:
    assert len(gallery.get("/live/weights/history").json()["checkpoints"]) == 6
    served.submit("no-history", {"hang": {"prepare": [1]}})
    for query in ("", "?format=csv"):
        assert "no history yet" in problem(served.get(f"/no-history/weights/history{query}"), 409, "not_ready")["detail"]
    problem(gallery.get("/done/weights/history?stage=nobody"), 404, "not_found")
    problem(gallery.get("/done/weights/history?every=0"), 422, "invalid_request")


@pytest.mark.parametrize("query", ["", "?format=csv"])
def test_a_damaged_history_is_a_problem_and_no_half_of_an_answer(served: Running, query: str) -> None:
    name = f"damaged{'-csv' if query else ''}"
    made = served.submit(name, {"steps": 4}, comparison={"mixtures": []})
    served.until(name, "succeeded")
    for entry in list(served.bucket.list(f"experiments/{made['id']}/stages/proxy/history/")):
        served.bucket.put(entry.key, b"no gzip")
    problem(served.get(f"/{name}/weights/history{query}"), 422, "bad_data")


def test_a_stage_that_is_no_proxy_has_no_history(gallery: Running) -> None:
    assert "proxy" in problem(gallery.get("/done/weights/history?stage=prepare"), 400, "bad_request")["detail"]


def test_the_weights_of_now_are_there_while_the_proxy_runs(gallery: Running) -> None:
    now = gallery.get("/live/weights/current").json()
    assert (now["stage"], now["step"], now["total"]) == ("proxy", 6, 6)
    assert sum(now["domain_weights"].values()) == pytest.approx(1)
    assert now["excess_losses"]["books"] == 0.25
    problem(gallery.get("/done/weights/current"), 409, "not_ready")


def test_the_data_is_told_with_its_epochs_or_why_it_is_not_there(gallery: Running, served: Running) -> None:
    data = gallery.get("/done/data").json()
    assert sorted(data["domains"]) == ["books", "code", "web"]
    assert sum(domain["share"] for domain in data["domains"].values()) == pytest.approx(1)
    assert set(data["planned_epochs"]) == {"reference", "proxy", "baseline-reference", "baseline-uniform"}
    served.submit("unprepared", {"hang": {"prepare": [1]}}, comparison={"mixtures": []})
    assert problem(served.get("/unprepared/data"), 409, "not_ready")["detail"].startswith("prepare of unprepared is")


def test_the_comparison_is_told_or_why_there_is_none(gallery: Running, served: Running) -> None:
    compared = gallery.get("/done/comparison").json()["compared"]
    assert compared["baseline"] == "reference"
    assert [row["mixture"] for row in compared["rows"]] == ["averaged", "reference", "uniform"]
    assert problem(gallery.get("/live/comparison"), 409, "not_ready")["detail"].startswith("evaluate of live is blocked.")
    served.submit("compares-nothing", {"hang": {"prepare": [1]}}, comparison={"mixtures": []})
    assert "compares nothing" in problem(served.get("/compares-nothing/comparison"), 409, "not_ready")["detail"]


def test_numbers_lose_no_bit_on_their_way(gallery: Running) -> None:
    text = gallery.get("/done/weights/history").text
    assert json.loads(text)["checkpoints"][2]["weight_sum"] == [3 * (1 / 3)] * 3
    assert json.loads(text)["checkpoints"][0]["domain_weights"] == [1 / 3] * 3
