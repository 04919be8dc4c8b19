"""POST /v1/experiments: what is recorded, what a repeated key gets, and that a submission which fails leaves nothing."""

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import event

from api import keys
from api.errors import BucketUnavailable, OutOfSpace, SolfaError, StoreUnavailable
from api.plan import make_plan
from api.spec import parse_spec
from tests.services.running import Running, problem, running


def names(service: Running) -> list[str]:
    return [one["name"] for one in service.get("?limit=200").json()["experiments"]]


def copies(service: Running) -> int:
    return sum(entry.key.endswith("/spec.yaml") for entry in service.bucket.list("experiments/"))


def test_a_submission_is_recorded_and_says_where(served: Running) -> None:
    text = served.spec("posted", comparison={"mixtures": []})
    answer = served.post(text)
    assert answer.status_code == 202
    made = answer.json()
    assert answer.headers["location"] == f"/v1/experiments/{made['id']}"
    assert answer.headers["etag"] == f'"{made["id"]}.1"'
    assert made["phase"] == "pending"
    assert [stage["name"] for stage in made["stages"]] == ["prepare", "reference", "proxy"]
    assert served.http.get(answer.headers["location"]).json()["name"] == "posted"
    assert served.get("/posted/spec").text == text
    assert served.bucket.get(keys.spec(made["id"])).data.decode() == text
    assert served.get("/posted/plan").json() == make_plan(parse_spec(text)).model_dump(mode="json")


def test_json_and_no_media_type_at_all_are_read_too(served: Running) -> None:
    text = json.dumps(yaml.safe_load(served.spec("as-json")))
    assert served.http.post("/v1/experiments", content=text, headers={"Content-Type": "application/json; charset=utf-8"}).status_code == 202
    bare = httpx.Request("POST", served.http.base_url.join("/v1/experiments"), content=served.spec("bare"))
    assert served.http.send(bare).status_code == 202


def test_validation_shows_every_launch_and_records_nothing(served: Running) -> None:
    before = names(served), copies(served)
    answer = served.http.post("/v1/experiments?validate_only=true", content=served.spec("only-looked-at"))
    assert answer.status_code == 200
    shown = answer.json()
    assert shown["name"] == "only-looked-at"
    assert len(shown["spec_sha256"]) == 64
    assert len(shown["launches"]) == len(shown["plan"]["stages"]) == 7
    assert [launch["app"].split("-", 1)[1] for launch in shown["launches"]] == [f"{stage['name']}-1" for stage in shown["plan"]["stages"]]
    assert all("stage_program.py" in " ".join(launch["command"]) for launch in shown["launches"])
    assert (names(served), copies(served)) == before
    bad = served.http.post("/v1/experiments?validate_only=true", content=served.spec("only-looked-at", sequence_length=-1))
    assert problem(bad, 422, "invalid_spec")["problems"][0]["pointer"] == "/sequence_length"


def test_a_repeated_key_gets_the_first_answer_whatever_happened_since(served: Running) -> None:
    text = served.spec("repeated", {"hang": {"prepare": [1]}})
    first = served.post(text, Idempotency_Key="one")
    served.until_stage("repeated", "prepare", "running")
    moved = served.root / "text.jsonl"
    moved.rename(moved.with_suffix(".away"))  # the sources need not be there any more: nothing new is submitted
    again = served.post(text, Idempotency_Key="one")
    moved.with_suffix(".away").rename(moved)
    assert (again.status_code, again.json()) == (202, first.json())
    assert {name: again.headers[name] for name in ("location", "etag")} == {name: first.headers[name] for name in ("location", "etag")}
    problem(served.post(served.spec("another"), Idempotency_Key="one"), 422, "idempotency_mismatch")
    problem(served.post(text, Idempotency_Key="two"), 409, "name_taken")
    problem(served.post(text), 409, "name_taken")
    assert names(served).count("repeated") == 1
    assert "another" not in names(served)


def test_requests_that_race_with_one_key_make_one_experiment(served: Running) -> None:
    text, other = served.spec("raced"), served.spec("raced", description="{} ")
    before, answers = copies(served), []

    def send(body: str) -> None:
        answers.append((body, served.post(body, Idempotency_Key="race")))

    threads = [threading.Thread(target=send, args=(body,)) for body in (text, other, text, other, text, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = {body for body, answer in answers if answer.status_code == 202}
    assert len(won) == 1
    assert len({answer.text for _, answer in answers if answer.status_code == 202}) == 1
    assert all(problem(answer, 422, "idempotency_mismatch") for body, answer in answers if body not in won)
    assert copies(served) == before + 1


BAD: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "not UTF-8": ({"content": b"name: \xff"}, 400, "bad_request", "not UTF-8: byte 6"),
    "wrong media type": ({"content": b"{}", "headers": {"Content-Type": "image/png"}}, 415, "unsupported_media_type", "image/png"),
    "too large": ({"content": b"#" * 1_000_001}, 413, "content_too_large", "1,000,000 bytes"),
    "empty": ({"content": b""}, 422, "invalid_spec", "a spec is a mapping"),
    "not YAML": ({"content": b"{"}, 422, "invalid_spec", ""),
    "nested without end": ({"content": b"[" * 100_000}, 422, "invalid_spec", ""),
    "half a character": ({"content": rb'{"name": "\ud800", "\udfff": 1}'}, 422, "invalid_spec", ""),
    "empty key": ({"content": b"{}", "headers": {"Idempotency-Key": ""}}, 422, "invalid_request", "/header/Idempotency-Key"),
    "no boolean": ({"content": b"{}", "params": {"validate_only": "perhaps"}}, 422, "invalid_request", "/query/validate_only"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_submission_is_told_why(served: Running, case: str) -> None:
    request, status, code, words = BAD[case]
    answer = served.http.post("/v1/experiments", **request)
    assert words in problem(answer, status, code)["detail"]


def test_an_endless_body_is_refused_while_it_arrives(served: Running) -> None:
    url = served.http.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=20) as connection:
        connection.sendall(f"POST /v1/experiments HTTP/1.1\r\nHost: {url.host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(11):
            connection.sendall(b"186a0\r\n" + b"#" * 100_000 + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")  # though the last chunk is yet to come


def test_every_problem_of_a_spec_is_named_at_once_with_its_line(served: Running) -> None:
    found = problem(served.post(served.spec("Bad Name", trainig={}, sequence_length=0)), 422, "invalid_spec")["problems"]
    assert {one["pointer"] for one in found} >= {"/name", "/trainig", "/sequence_length"}
    assert all(one["line"] > 0 for one in found)
    assert next(one for one in found if one["pointer"] == "/trainig")["suggestion"] == "training"


def sources(folder: Path) -> dict[str, tuple[dict[str, Any], str, str]]:
    """Sources that cannot work: (source, pointer below it, words)."""
    (folder / "empty.jsonl").touch()
    (folder / "below.jsonl").mkdir()
    (folder / "dangling.jsonl").symlink_to(folder / "nowhere")
    return {
        "missing": ({"type": "jsonl", "paths": [f"{folder}/no*.jsonl"]}, "/paths/0", "no file matches"),
        "relative": ({"type": "jsonl", "paths": ["../../etc/passwd"]}, "/paths/0", "is relative"),
        "empty": ({"type": "jsonl", "paths": [f"{folder}/empty.jsonl"]}, "/paths/0", "is empty"),
        "a folder": ({"type": "parquet", "paths": [f"{folder}/below.jsonl"]}, "/paths/0", "no file matches"),
        "a link to nothing": ({"type": "jsonl", "paths": [f"{folder}/dangl*"]}, "/paths/0", "no file matches"),
        "a name too long": ({"type": "datasets", "path": f"/{'x' * 5000}"}, "/path", "there is no folder"),
        "no datasets": ({"type": "nanotron", "path": str(folder)}, "/path", "holds no Arrow files"),
    }


def test_sources_that_cannot_be_read_are_named_all_at_once(served: Running, tmp_path: Path) -> None:
    cases = sources(tmp_path)
    domains = {f"d{number}": {"source": source} for number, (source, _, _) in enumerate(cases.values())}
    pretokenized = {"type": "file", "path": str(tmp_path)}
    document = problem(served.post(served.spec("no-sources", domains=domains, tokenizer=pretokenized)), 422, "invalid_spec")
    found = {one["pointer"]: one["message"] for one in document["problems"]}
    for number, (_, below, words) in enumerate(cases.values()):
        assert words in found[f"/domains/d{number}/source{below}"]
    assert "no file" in found["/tokenizer/path"]
    assert "no-sources" not in names(served)


def refusing(error: SolfaError) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise error

    return refuse


FAULTS = {
    "the bucket's disk is full": ("bucket", "put", OutOfSpace("The disk is full."), 507, "out_of_space"),
    "the bucket is away": ("bucket", "put", BucketUnavailable("It is away."), 503, "bucket_unavailable"),
    "the database is locked": ("store", "create", StoreUnavailable("It is locked."), 503, "store_unavailable"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_submission_that_fails_leaves_nothing_and_can_be_repeated(served: Running, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    part, method, error, status, code = FAULTS[fault]
    name = code.replace("_", "-")
    text, before = served.spec(name, comparison={"mixtures": []}), copies(served)
    with monkeypatch.context() as patch:
        patch.setattr(getattr(served, part), method, refusing(error))
        answer = served.post(text, Idempotency_Key=name)
        problem(answer, status, code)
        assert ("retry-after" in answer.headers) == error.retryable
    assert name not in names(served)
    assert copies(served) == before
    assert served.post(text, Idempotency_Key=name).status_code == 202
    assert served.until(name)["phase"] == "succeeded"


def test_a_full_disk_under_the_database_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path, reconcile=False) as service:
        engine = service.store._engine  # type: ignore[attr-defined]  # to fill the disk under it
        with engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        engine.dispose()

        def full(connection: Any, _: Any) -> None:
            connection.execute(f"PRAGMA max_page_count={pages}")

        event.listen(engine, "connect", full)
        text = service.spec("too-much", description="x" * 100_000)
        answer = service.post(text)
        assert "disk" in problem(answer, 503, "store_unavailable")["detail"]
        assert (names(service), copies(service)) == ([], 0)
        event.remove(engine, "connect", full)
        engine.dispose()
        assert service.post(text).status_code == 202
