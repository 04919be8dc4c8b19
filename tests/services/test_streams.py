"""Logs and events: as lists, and as streams that lose nothing, repeat nothing, show signs of life and end when there is no more."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from api.client import Client
from api.errors import StoreUnavailable
from tests.services.running import Running, problem, running
from tests.services.waiting import wait_for

SSE = {"Accept": "text/event-stream"}


@contextmanager
def stream(service: Running, path: str, **headers: str) -> Iterator[Iterator[str]]:
    """Lines of a stream of server-sent events."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with service.http.stream("GET", f"/v1/experiments{path}", headers=SSE | named) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield answer.iter_lines()


def events(lines: Iterator[str], most: int | None = None) -> list[tuple[int, str, dict[str, object]]]:
    """(id, kind, data) until the stream ends, or the first `most`."""
    found = []
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if not line and "data" in fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
            fields = {}
        elif name:
            fields[name] = value
        if len(found) == most:
            break
    return found


def listed(service: Running, name: str) -> list[dict[str, object]]:
    return list(service.get(f"/{name}/events?limit=1000").json()["events"])


def test_a_stream_tells_what_the_list_tells_and_ends_with_the_experiment(served: Running) -> None:
    served.submit("told", comparison={"mixtures": []})
    with stream(served, "/told/events") as lines:
        found = events(lines)  # to its end
    assert served.get("/told").json()["phase"] == "succeeded"
    assert [data for _, _, data in found] == listed(served, "told")
    assert all(number == data["id"] and kind == data["kind"] for number, kind, data in found)
    assert [number for number, _, _ in found] == sorted({number for number, _, _ in found})
    assert (found[0][1], found[-1][1]) == ("experiment_created", "experiment_finished")


def test_a_broken_stream_goes_on_where_it_broke(gallery: Running) -> None:
    whole = listed(gallery, "done")
    for after in (0, 1, 5, len(whole) - 1, len(whole)):
        with stream(gallery, "/done/events", Last_Event_ID=str(whole[after - 1]["id"] if after else 0)) as lines:
            assert [data for _, _, data in events(lines)] == whole[after:]
    assert gallery.get(f"/done/events?after={whole[3]['id']}&limit=2").json()["events"] == whole[4:6]
    with stream(gallery, "/done/events", Last_Event_ID="nonsense") as lines:
        assert len(events(lines)) == len(whole)


def test_a_client_whose_service_is_restarted_misses_nothing_and_hears_nothing_twice(tmp_path: Path) -> None:
    with running(tmp_path, reconcile=False) as service:
        service.submit("kept", comparison={"mixtures": []})
        with stream(service, "/kept/events") as lines:
            first = events(lines, 1)
    with running(tmp_path) as service, stream(service, "/kept/events", Last_Event_ID=str(first[-1][0])) as lines:
        found = first + events(lines)
        assert [data for _, _, data in found] == listed(service, "kept")


def test_an_experiment_that_was_tried_again_is_told_to_its_newest_end(served: Running) -> None:
    served.submit("again", {"fail": {"prepare": [1]}}, comparison={"mixtures": []}, compute={"default": {"retries": 0}})
    served.until("again", "failed")
    served.http.post("/v1/experiments/again/retry")
    with stream(served, "/again/events") as lines:
        kinds = [kind for _, kind, _ in events(lines)]
    assert kinds.count("experiment_finished") == 2
    assert kinds[-1] == "experiment_finished"
    assert "retry_requested" in kinds


def test_a_silent_stream_shows_signs_of_life(gallery: Running) -> None:
    for path in ("/live/events", "/live/stages/proxy/logs?follow=true"):
        with stream(gallery, path) as lines:
            assert next(line for line in lines if line.startswith(":")).startswith(": ping")


def test_a_stream_outlives_a_database_that_is_away_and_ends_with_a_deletion(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    served.submit("outlived", {"hang": {"prepare": [1]}})
    served.until_stage("outlived", "prepare", "running")
    before = len(listed(served, "outlived"))
    asked, found = threading.Event(), served.store.events

    def away(*_: object) -> None:
        asked.set()
        raise StoreUnavailable("It is away.")

    with stream(served, "/outlived/events") as lines:
        assert len(events(lines, before)) == before
        with monkeypatch.context() as patch:
            patch.setattr(served.store, "events", away)
            served.http.post("/v1/experiments/outlived/cancel")
            assert asked.wait(10)
        assert served.store.events == found
        assert events(lines)[-1][1] == "experiment_finished"
    with stream(served, "/outlived/events", Last_Event_ID="0") as lines:
        served.http.delete("/v1/experiments/outlived")
        events(lines)  # ends


def test_many_who_follow_one_experiment_hear_all_of_it_and_the_database_is_asked_once_for_all(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.submit("crowded", {"hang": {"prepare": [1]}})
    served.until_stage("crowded", "prepare", "running")
    reads, found = [], served.store.events
    monkeypatch.setattr(served.store, "events", lambda *asked: reads.append(asked) or found(*asked))
    many = 60  # more than the service has threads
    begun = threading.Barrier(many + 1)

    def follow() -> list[tuple[int, str, dict[str, object]]]:
        with (
            httpx.Client(base_url=served.http.base_url, timeout=30, trust_env=False) as http,
            http.stream("GET", "/v1/experiments/crowded/events", headers=SSE) as answer,
        ):
            lines = answer.iter_lines()
            first = events(lines, 1)
            begun.wait(30)
            return first + events(lines)

    with ThreadPoolExecutor(many) as pool:
        readers = [pool.submit(follow) for _ in range(many)]
        begun.wait(30)
        served.http.post("/v1/experiments/crowded/cancel")
        told = [reader.result() for reader in readers]
    assert len(reads) < many / 2  # two for each state of the record that they were told of
    whole = listed(served, "crowded")
    assert all([data for _, _, data in one] == whole for one in told)


def test_lines_of_an_attempt_by_number_and_from_the_end(served: Running) -> None:
    served.submit("logged", {"fail": {"prepare": [1]}, "hang": {"reference": [1]}}, comparison={"mixtures": []})
    served.until_stage("logged", "reference", "running")
    path = "/logged/stages/prepare/logs"
    kept = wait_for(lambda: not any("-prepare-" in app for app in served.cluster.look()) and served.get(path).json())
    assert kept["attempt"] == 2
    assert [line[:24] for line in kept["lines"]] == ["prepare attempt 2 reads "]
    assert served.get(f"{path}?attempt=1").json()["lines"][0].startswith("prepare attempt 1 reads ")
    assert served.get(f"{path}?attempt=1&tail=1").json()["lines"] == served.get(f"{path}?attempt=1").json()["lines"][-1:]
    live = wait_for(lambda: served.get("/logged/stages/reference/logs").json()["lines"])
    assert live[0].startswith("reference attempt 1 reads ")
    with stream(served, f"{path}?follow=true") as lines:  # of an app that is removed: the bucket has its lines
        assert [line for line in lines if line] == ["event: line", f"data: {kept['lines'][0]}", "event: end", "data: "]
    assert "no attempt yet: it is blocked" in problem(served.get("/logged/stages/proxy/logs"), 404, "not_found")["detail"]
    assert "no attempt 3" in problem(served.get(f"{path}?attempt=3"), 404, "not_found")["detail"]


def test_a_follower_hears_each_line_until_the_attempt_ends(served: Running) -> None:
    served.submit("followed", {"seconds": 0.5}, comparison={"mixtures": []})
    served.until_stage("followed", "prepare", "running")
    with Client(str(served.http.base_url)) as client:
        heard = list(client.follow_logs("followed", "prepare"))
    assert [line[:24] for line in heard] == ["prepare attempt 1 reads "]


def test_followers_of_a_silent_attempt_are_in_nobody_s_way(gallery: Running) -> None:
    """More of them than the service has threads, and those that leave are gone."""
    url = str(gallery.http.base_url)
    with httpx.Client(base_url=url, timeout=20, limits=httpx.Limits(max_connections=100)) as http:
        open_streams = [
            http.send(http.build_request("GET", "/v1/experiments/live/stages/proxy/logs?follow=true"), stream=True) for _ in range(60)
        ]
        assert gallery.get("/live").status_code == 200
        for answer in open_streams:
            answer.close()
    assert gallery.get("/live/stages/proxy/logs").status_code == 200
