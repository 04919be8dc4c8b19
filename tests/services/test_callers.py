"""How often somebody may ask a real server: counted by who they are, however they spell it, and by address until that is known."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from api.client import Client
from services import callers
from tests.services.running import Running, problem, running
from tests.services.waiting import wait_for

ADMIN = "an administrator's token of the settings"


def test_who_asks_too_often_is_told_when_to_ask_again_and_probes_are_not(tmp_path: Path) -> None:
    with running(tmp_path, requests_per_minute=5, reconcile=False) as service:
        answers = [service.get("") for _ in range(6)]
        assert [one.status_code for one in answers] == [200] * 5 + [429]
        assert [one.headers["ratelimit"].partition(";t=")[0] for one in answers[:5]] == [f'"default";r={left}' for left in (4, 3, 2, 1, 0)]
        assert answers[0].headers["ratelimit-policy"] == '"default";q=5;w=60'
        refused = answers[-1]
        assert "5 requests in a minute" in problem(refused, 429, "too_many_requests")["detail"]
        assert 1 <= int(refused.headers["retry-after"]) <= 12
        tokens = [service.http.get("/v1/experiments", headers={"Authorization": f"Bearer {number}"}) for number in range(3)]
        assert {one.status_code for one in tokens} == {429}  # a token that nobody knows is its sender's address
        assert service.http.get("/healthz").status_code == 200


def test_the_client_waits_for_as_long_as_it_is_told(tmp_path: Path) -> None:
    with running(tmp_path, requests_per_minute=120, reconcile=False) as service, Client(str(service.http.base_url)) as client:
        while service.get("").status_code == 200:
            pass
        assert list(client.experiments()) == []


def admitted(service: Running, path: str, *shown: dict[str, str]) -> int:
    """How many of requests with these headers were not answered 429."""
    return sum(service.http.get(path, headers=headers).status_code != 429 for headers in shown)


def test_a_token_is_one_caller_however_it_is_spelled(tmp_path: Path) -> None:
    with running(tmp_path, requests_per_minute=5, reconcile=False, access="required", admin_token=ADMIN) as service:
        blanks = [{"Authorization": "Bearer" + " " * number + ADMIN} for number in range(1, 10)]
        kinds = [{"Authorization": f"{kind} {ADMIN}"} for kind in ("bearer", "BEARER", "bEARER")]
        cookies = [{"Cookie": f"{more}=1; solfa_token={value}"} for more, value in (("a", f'"{ADMIN}"'), ("b", f'"{ADMIN}"'))]
        assert admitted(service, "/v1/experiments", *blanks, *kinds, *cookies) == 6  # the first one was its address's yet


def test_what_nobody_has_looked_at_is_no_token(tmp_path: Path) -> None:
    with running(tmp_path, requests_per_minute=5, reconcile=False, access="required", admin_token=ADMIN) as service:
        assert admitted(service, "/sign-in", *[{"Authorization": f"Bearer junk{number // 2}"} for number in range(20)]) == 5
    with running(tmp_path, requests_per_minute=5, reconcile=False) as service:  # it asks for none, whoever shows one
        junk = [{"Authorization": f"Bearer junk{number // 2}", "Solfa-Project": "p"} for number in range(20)]
        assert admitted(service, "/v1/experiments", *junk) == 5


def test_junk_pushes_no_good_token_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "MOST_CALLERS", 3)
    with running(tmp_path, requests_per_minute=5, reconcile=False, access="required", admin_token=ADMIN) as service:
        good = {"Authorization": f"Bearer {ADMIN}"}
        assert admitted(service, "/v1/experiments", good) == 1
        for number in range(4):
            admitted(service, "/sign-in", {"Authorization": f"Bearer junk{number}"})
        assert admitted(service, "/sign-in", {}) == 0
        assert admitted(service, "/v1/experiments", good) == 1, "it is not its address's, which has spent its quota"


def test_who_has_many_requests_open_is_refused_another_until_one_has_ended(tmp_path: Path) -> None:
    with running(tmp_path, requests_at_once=3, requests_per_minute=1000, reconcile=False, access="required", admin_token=ADMIN) as service:
        good, other = ({"Authorization": f"Bearer {one}"} for one in (ADMIN, "junk"))
        assert service.http.get("/v1/experiments", headers=good).status_code == 200  # from now on it is not its address
        made = service.http.post(
            "/v1/experiments", content=service.spec("told"), headers=good | {"Content-Type": "application/yaml"}
        ).json()["id"]
        with ExitStack() as streams:
            for _ in range(3):
                opened = streams.enter_context(
                    service.http.stream("GET", f"/v1/experiments/{made}/events", headers=good | {"Accept": "text/event-stream"})
                )
                assert opened.status_code == 200
            refused = service.http.get("/v1/experiments", headers=good)
            assert "3 of your requests are open" in problem(refused, 429, "too_many_requests")["detail"]
            assert refused.headers["retry-after"] == "1"
            assert service.http.get("/v1/experiments", headers=other).status_code == 401, "somebody else is let through to the gate"
            assert service.http.get("/healthz").status_code == 200
            opened.close()
            wait_for(lambda: service.http.get("/v1/experiments", headers=good).status_code == 200)
