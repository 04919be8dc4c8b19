"""Routes on experiments that are there: list, look, change under a precondition, delete; and each way to be told no."""

import base64
import threading
from pathlib import Path
from typing import Any

import pytest

from api import keys
from services.reconciler import utc_now
from services.store import Change
from tests.services.running import Running, problem, running
from tests.services.waiting import wait_for


def pages(service: Running, query: str) -> list[list[str]]:
    """Names by page, following the cursors."""
    found, cursor = [], ""
    while True:
        page = service.get(f"?{query}{cursor}").json()
        found.append([one["name"] for one in page["experiments"]])
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def test_pages_follow_each_other_and_stay_the_same_while_experiments_are_added(served: Running) -> None:
    for number in range(7):
        served.submit(f"page-{number}", {"permanent": ["prepare"]})
    first = served.get("?limit=3&name_prefix=page-").json()
    assert [one["name"] for one in first["experiments"]] == ["page-6", "page-5", "page-4"]
    served.submit("page-7", {"permanent": ["prepare"]})
    rest = pages(served, f"limit=3&name_prefix=page-&cursor={first['next_cursor']}")
    assert rest == [["page-3", "page-2", "page-1"], ["page-0"]]
    assert pages(served, "limit=8&name_prefix=page-") == [[f"page-{number}" for number in range(7, -1, -1)]]
    assert pages(served, "name_prefix=PAGE%25") == [[]]


def test_a_filter_by_phase_lists_those_in_it(gallery: Running) -> None:
    def named(phase: str) -> list[str]:
        return [one["name"] for one in gallery.get(f"?phase={phase}").json()["experiments"]]

    assert {phase: named(phase) for phase in ("succeeded", "failed", "cancelled", "running", "pending")} == {
        "succeeded": ["done"],
        "failed": ["broken"],
        "cancelled": ["ended"],
        "running": ["live"],
        "pending": [],
    }
    done = gallery.get("?name_prefix=do").json()["experiments"][0]
    assert done["stages"] == {"succeeded": 7}


def test_an_unchanged_experiment_is_not_sent_again(gallery: Running) -> None:
    answer = gallery.get("/done")
    tag = answer.headers["etag"]
    assert tag == f'"{answer.json()["id"]}.{answer.json()["version"]}"'
    for held in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        again = gallery.get("/done", If_None_Match=held)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert gallery.get("/done", If_None_Match='"0"').status_code == 200
    spec = gallery.get("/done/spec")
    assert gallery.get("/done/spec", If_None_Match=spec.headers["etag"]).status_code == 304


def test_by_name_and_by_id_it_is_the_same_experiment(gallery: Running) -> None:
    by_name = gallery.get("/done").json()
    assert gallery.get(f"/{by_name['id']}").json() == by_name


CHANGES = {"cancel": ("POST", "/cancel"), "retry": ("POST", "/retry"), "delete": ("DELETE", "")}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_is_based_on_an_old_version_is_refused(gallery: Running, change: str) -> None:
    method, path = CHANGES[change]
    for name in ("done", "live", "broken"):
        before = gallery.get(f"/{name}").json()
        current = f"{before['id']}.{before['version']}"
        for tag in ('"0"', '"other"', f'W/"{current}"', "0", '"8", "9"', current, f'"{before["version"]}"'):
            answer = gallery.http.request(method, f"/v1/experiments/{name}{path}", headers={"If-Match": tag})
            assert f'version "{current}", not {tag}' in problem(answer, 412, "stale_version")["detail"]
        assert gallery.get(f"/{name}").json()["version"] == before["version"]


def test_what_has_ended_cannot_be_cancelled_and_what_lives_neither_retried_nor_deleted(gallery: Running) -> None:
    assert "done has succeeded" in problem(gallery.http.post("/v1/experiments/done/cancel"), 409, "conflict")["detail"]
    problem(gallery.http.post("/v1/experiments/done/retry"), 409, "conflict")
    problem(gallery.http.post("/v1/experiments/live/retry"), 409, "conflict")
    assert "cancel it first" in problem(gallery.http.delete("/v1/experiments/live"), 409, "conflict")["detail"]


def test_a_cancelled_experiment_ends_can_be_retried_and_deleted(served: Running) -> None:
    behaviour = {"hang": {"prepare": [1]}}
    made = served.submit("three-lives", behaviour, comparison={"mixtures": []})
    served.until_stage("three-lives", "prepare", "running")
    tag = served.get("/three-lives").headers["etag"]
    answer = served.http.post("/v1/experiments/three-lives/cancel", headers={"If-Match": tag})
    assert answer.status_code == 202
    assert answer.json()["phase"] == "cancelling"
    assert answer.headers["etag"] == f'"{answer.json()["id"]}.{answer.json()["version"]}"'
    assert served.until("three-lives")["phase"] == "cancelled"

    ended = served.store.get("three-lives").stages[-1].entered_at
    answer = served.http.post("/v1/experiments/three-lives/retry")
    assert answer.status_code == 202
    assert answer.json()["stages"][0]["reason"] == "retry_requested"
    assert served.store.get("three-lives").stages[-1].entered_at > ended, "it waits since now"
    done = served.until("three-lives")
    assert done["phase"] == "succeeded"
    assert [attempt["number"] for attempt in done["stages"][0]["attempts"]] == [1, 2]
    kinds = [event["kind"] for event in served.get("/three-lives/events?limit=1000").json()["events"]]
    assert [kind for kind in kinds if kind.endswith(("requested", "finished"))] == [
        "cancel_requested",
        "experiment_finished",
        "retry_requested",
        "experiment_finished",
    ]

    assert any(served.bucket.list(keys.experiment_prefix(made["id"])))
    answer = served.http.delete("/v1/experiments/three-lives", headers={"If-Match": f'"{done["id"]}.{done["version"]}"'})
    assert (answer.status_code, answer.content) == (204, b"")
    assert not any(served.bucket.list(keys.experiment_prefix(made["id"])))
    for path in ("", "/stages", "/events", "/weights", "/spec"):
        problem(served.get(f"/three-lives{path}"), 404, "not_found")
    problem(served.http.delete("/v1/experiments/three-lives"), 404, "not_found")
    served.submit("three-lives", behaviour)  # the name is free again


def test_a_cancel_and_a_retry_may_be_asked_for_twice(served: Running) -> None:
    served.submit("twice", {"hang": {"prepare": [1]}})
    served.until_stage("twice", "prepare", "running")
    answers = [served.http.post("/v1/experiments/twice/cancel") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["cancel_requested_at"] == answers[1].json()["cancel_requested_at"]


def test_results_that_others_adopted_outlive_their_experiment_and_go_with_the_last_of_them(served: Running) -> None:
    behaviour = {"steps": 4, "delta": 0.125}  # of no other test's digest
    donor = served.submit("donor", behaviour, adopt="same_digest", comparison={"mixtures": []}, sequence_length=48)
    served.until("donor", "succeeded")
    for name in ("heir", "second-heir"):
        served.submit(name, behaviour, adopt="same_digest", comparison={"mixtures": []}, sequence_length=48)
        assert all(stage["adopted"] for stage in served.until(name, "succeeded")["stages"])
    detail = problem(served.get("/heir/stages/proxy/logs"), 404, "not_found")["detail"]
    assert f"it was taken over from proxy of {donor['id']}" in detail
    weights = served.get("/heir/weights").json()
    assert weights["provenance"]["experiment"] == "heir"

    assert served.http.delete("/v1/experiments/donor").status_code == 204
    assert served.get("/heir/weights").json() == weights
    assert len(served.get("/heir/weights/history").json()["checkpoints"]) == 4
    assert not served.bucket.exists(keys.spec(donor["id"]))
    assert served.http.delete("/v1/experiments/heir").status_code == 204
    assert served.get("/second-heir/weights").status_code == 200
    assert any(served.bucket.list(keys.experiment_prefix(donor["id"])))
    assert served.http.delete("/v1/experiments/second-heir").status_code == 204
    assert not any(served.bucket.list(keys.experiment_prefix(donor["id"])))


def test_a_retry_that_comes_in_between_saves_an_experiment_from_its_deletion(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    made = served.submit("saved", {"permanent": ["proxy"]}, comparison={"mixtures": []})
    served.until("saved", "failed")
    checked, delete = threading.Event(), served.store.delete

    def slow(experiment_id: str, version: int | None = None, change: Change | None = None) -> None:
        record = served.store.get(experiment_id)
        served.store.replace(record, [], utc_now())
        checked.set()
        delete(experiment_id, version, change)

    monkeypatch.setattr(served.store, "delete", slow)
    problem(served.http.delete("/v1/experiments/saved"), 412, "stale_version")
    assert checked.is_set()
    assert served.bucket.exists(keys.result(made["id"], "prepare"))


def test_stages_and_attempts_say_what_became_of_each(gallery: Running) -> None:
    stages = {stage["name"]: stage for stage in gallery.get("/broken/stages").json()}
    assert stages["reference"]["phase"] == "failed"
    assert stages["reference"]["reason"] == "worker_failed_permanently"
    assert stages["reference"]["message"] == "This stage was told to fail."
    assert stages["proxy"]["reason"] == "predecessor_failed"
    assert gallery.get("/broken/stages/reference").json() == stages["reference"]
    attempts = gallery.get("/broken/stages/reference/attempts").json()
    assert [(one["number"], one["reason"]) for one in attempts] == [(1, "worker_failed_permanently")]
    assert gallery.get("/broken/stages/proxy/attempts").json() == []
    live = gallery.get("/live/stages/proxy").json()
    assert (live["report"]["step"], live["report"]["total"]) == (6, 6)
    assert all(stage["report"] is None for stage in gallery.get("/live").json()["stages"])


ODD_NAMES = (
    "no-such",
    "x" * 100,
    "%00",
    "%2e%2e%2f%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "'%20OR%201=1--",
    "%F0%9F%8E%B5",
    "%ff",
    "A",
    "a_b",
    "%25",
)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_not_found_wherever_they_stand(gallery: Running, name: str) -> None:
    for path in (f"/{name}", f"/{name}/weights", f"/{name}/events", f"/{name}/spec", f"/done/stages/{name}", f"/done/stages/{name}/logs"):
        answer = gallery.get(path)
        assert answer.status_code == 404, f"{path}: {answer.text}"
        assert answer.headers["content-type"] == "application/problem+json"
    assert gallery.http.delete(f"/v1/experiments/{name}").status_code in (404, 405)


def cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


BAD: dict[str, tuple[str, int, str]] = {
    "limit of none": ("?limit=0", 422, "invalid_request"),
    "limit of too many": ("?limit=201", 422, "invalid_request"),
    "no number": ("?limit=many", 422, "invalid_request"),
    "no phase": ("?phase=asleep", 422, "invalid_request"),
    "no cursor": ("?cursor=%2F%2F", 400, "bad_request"),
    "a cursor of letters": (f"?cursor={cursor('a.b')}", 400, "bad_request"),
    "a cursor that speaks SQL": (f"?cursor={cursor('1.x OR 1=1')}", 400, "bad_request"),
    "a cursor beyond all numbers": (f"?cursor={cursor(f'{10**30}.xaaaaaaaaaa')}", 400, "bad_request"),
    "a name too long": (f"/{'x' * 101}", 422, "invalid_request"),
    "no route": ("/done/nothing", 404, "not_found"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_from_a_request_is_a_problem_that_points_at_it(gallery: Running, case: str) -> None:
    query, status, code = BAD[case]
    document = problem(gallery.get(query), status, code)
    if code == "invalid_request":
        assert document["problems"][0]["pointer"].startswith(("/query/", "/path/"))


OTHER_METHODS = [("PUT", ""), ("DELETE", ""), ("PATCH", "/done"), ("POST", "/done/weights"), ("BREW", "/done")]


@pytest.mark.parametrize(("method", "path"), OTHER_METHODS)
def test_a_method_that_is_not_there_is_told_which_are(gallery: Running, method: str, path: str) -> None:
    answer = gallery.http.request(method, f"/v1/experiments{path}")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == {"": "GET, POST", "/done": "DELETE, GET", "/done/weights": "GET"}[path]


def test_a_fault_of_ours_is_a_problem_too_and_tells_no_secrets(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(served.store, "page", broken)
    answer = served.get("")
    problem(answer, 500, "internal")
    assert "secret" not in answer.text


def test_health_is_told_as_text(gallery: Running) -> None:
    assert [gallery.http.get(path).text for path in ("/healthz", "/readyz")] == ["ok", "ready"]


def test_a_failed_stage_shows_how_it_ended_and_its_last_lines_when_its_app_is_gone(gallery: Running) -> None:
    wait_for(lambda: not _apps_of(gallery, "broken"))
    stages = {stage["name"]: stage for stage in gallery.get("/broken/stages").json()}
    failure = stages["reference"]["failure"]
    assert [failure[name] for name in ("attempt", "exit_code", "rank", "replica")] == [1, 64, 0, None]
    assert failure["last_lines"][0].startswith("reference attempt 1 reads")
    assert stages["prepare"]["failure"] is None
    assert stages["reference"]["attempts"][0]["exit_code"] == 64
    assert all(stage["failure"] is None for stage in gallery.get("/broken").json()["stages"])


def _apps_of(service: Running, name: str) -> list[str]:
    record = service.get(f"/{name}").json()["id"]
    return [app for app in service.cluster.look() if app.startswith(record)]


def test_what_is_being_cancelled_is_to_be_waited_for_before_it_is_deleted(tmp_path: Path) -> None:
    with running(tmp_path, reconcile=False) as still:
        still.submit("ending")
        assert still.http.post("/v1/experiments/ending/cancel").json()["phase"] == "cancelling"
        detail = problem(still.http.delete("/v1/experiments/ending"), 409, "conflict")["detail"]
    assert detail == "ending is cancelling; wait until it has ended."
