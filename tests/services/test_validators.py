"""ETags and what caches may keep: one experiment's validator is no other's, and nobody is handed an answer that was another's."""

from collections.abc import Iterator

import httpx
import pytest

from api.access import NewToken, Scope
from api.client import Client
from tests.services.running import Running, problem, running

ADMIN = "an administrator's token of the settings"
ENDED_AT_ONCE = {"permanent": ["prepare"]}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("guarded"), access="required", admin_token=ADMIN, reconcile=False) as service:
        yield service


def member(service: Running, project: str) -> dict[str, str]:
    with Client(str(service.http.base_url), token=ADMIN) as client:
        return {"Authorization": f"Bearer {client.create_token(NewToken(name=project, scope=Scope.SUBMIT, project=project)).secret}"}


def test_a_validator_is_of_no_other_project(guarded: Running) -> None:
    red, blue = (member(guarded, project) for project in ("red", "blue"))
    tags = [guarded.post(guarded.spec("alike"), **headers).headers["etag"] for headers in (red, blue)]
    assert guarded.get("/alike", **red, If_None_Match=tags[0]).status_code == 304
    assert guarded.get("/alike", **blue, If_None_Match=tags[0]).status_code == 200


def test_a_change_that_was_meant_for_a_deleted_experiment_does_not_reach_the_next_of_its_name(served: Running) -> None:
    first = served.submit("again", ENDED_AT_ONCE)
    served.until("again", "failed")
    tag = served.get("/again").headers["etag"]
    assert served.http.delete("/v1/experiments/again", headers={"If-Match": tag}).status_code == 204
    made = served.submit("again", ENDED_AT_ONCE)
    served.until("again", "failed")
    current = served.get("/again").headers["etag"]
    alike = current.replace(made["id"], first["id"])  # the deleted one's, had it been changed as often: only the id tells them apart
    assert alike != current
    for held in (tag, alike):
        assert served.get("/again", If_None_Match=held).status_code == 200
        for method, path in (("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")):
            problem(served.http.request(method, f"/v1/experiments/again{path}", headers={"If-Match": held}), 412, "stale_version")
    assert served.get("/again").json()["id"] == made["id"]


@pytest.mark.parametrize("path", ["/v1/experiments", "/v1/experiments/kept", "/v1/experiments/kept/spec", "/v1/tokens", "/v1/nothing"])
def test_an_answer_that_depends_on_who_asks_is_kept_for_nobody_else(guarded: Running, path: str) -> None:
    admin = {"Authorization": f"Bearer {ADMIN}"}
    guarded.post(guarded.spec("kept"), **admin)
    first = guarded.http.get(path, headers=admin)
    answers = [first, guarded.http.get(path)]  # what refuses, too
    if tag := first.headers.get("etag"):
        answers.append(guarded.http.get(path, headers=admin | {"If-None-Match": tag}))
        assert answers[-1].status_code == 304
    for answer in answers:
        assert _listed(answer, "vary") >= {"authorization", "cookie", "solfa-project"}
        assert _listed(answer, "cache-control") in ({"private", "no-cache"}, {"no-store"})


def _listed(answer: httpx.Response, header: str) -> set[str]:
    return {part.strip().lower() for part in answer.headers[header].split(",")}
