"""Every change that somebody makes is in the audit record, with the change or not at all; administrators read that of their project."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.access import AuditEntry, NewToken, Scope
from api.client import Client
from api.errors import Forbidden, StoreError
from services.access.changes import change_by
from services.access.principal import LOCAL
from services.access.tokens import Tokens
from services.store import open_store, sql
from tests.builders import START, make_experiment
from tests.services.running import Running, running
from tests.solfa import Solfa

ADMIN = "an administrator's token of the settings"
FAILING: dict[str, Any] = {"comparison": {"mixtures": []}}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("guarded"), access="required", admin_token=ADMIN) as service:
        yield service


def as_(service: Running, token: str) -> Client:
    return Client(str(service.http.base_url), token=token)


def issue(service: Running, name: str, scope: Scope, project: str) -> str:
    with as_(service, ADMIN) as client:
        return client.create_token(NewToken(name=name, scope=scope, project=project)).secret


def test_each_change_is_told_of_with_who_what_when_which_spec_and_where(guarded: Running) -> None:
    token = issue(guarded, "alice", Scope.SUBMIT, "speech")
    with as_(guarded, token) as client:
        text = guarded.spec("audited", {"permanent": ["reference"], "hang": {"prepare": [1]}}, **FAILING)
        made = client.submit(text, "a-key")
        assert client.submit(text, "a-key").id == made.id  # changes nothing, so nothing is told of it
        client.resize("audited", "proxy", 1)
        client.cancel("audited")
        list(client.events("audited"))
        client.retry("audited")
        client.cancel("audited")
        list(client.events("audited"))
        client.delete("audited")
    with as_(guarded, ADMIN) as client:
        told = [entry for entry in client.audit() if entry.project == "speech"]
    assert [entry.action for entry in reversed(told)] == ["create_token", "submit", "resize", "cancel", "retry", "cancel", "delete"]
    assert {(entry.by, entry.experiment_id, entry.experiment, entry.spec_sha256, entry.address) for entry in told[:-1]} == {
        ("alice", made.id, "audited", made.spec_sha256, "127.0.0.1")
    }
    assert told[-1].by == "administrator"
    assert told[-1].details["name"] == "alice"
    assert told[4].details == {"stage": "proxy", "replicas": 1}
    assert [entry.id for entry in told] == sorted((entry.id for entry in told), reverse=True)
    assert not [entry for entry in told if token in entry.model_dump_json()]


def test_an_administrator_reads_of_their_project_and_nobody_else_reads_any(guarded: Running) -> None:
    mine = issue(guarded, "of-vision", Scope.ADMIN, "vision")
    issue(guarded, "bob", Scope.READ, "secret-project")
    with as_(guarded, mine) as client:
        assert {entry.project for entry in client.audit()} == {"vision"}
        assert "secret-project" not in guarded.http.get("/v1/audit", headers={"Authorization": f"Bearer {mine}"}).text
    for scope in (Scope.READ, Scope.SUBMIT):
        with as_(guarded, issue(guarded, f"a-{scope}", scope, "vision")) as client, pytest.raises(Forbidden):
            list(client.audit())


def test_pages_hold_every_entry_once(guarded: Running) -> None:
    for number in range(7):
        issue(guarded, f"paged-{number}", Scope.READ, "paged")
    headers, found, cursor = {"Authorization": f"Bearer {ADMIN}", "Solfa-Project": "paged"}, [], None
    while True:
        page = guarded.http.get("/v1/audit", headers=headers, params={"limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        found += [AuditEntry.model_validate(entry).details["name"] for entry in page["entries"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == [f"paged-{number}" for number in range(6, -1, -1)]


def test_the_command_shows_it(tmp_path: Path) -> None:
    with running(tmp_path / "service", reconcile=False) as service:
        service.submit("shown", **FAILING)
        solfa = Solfa(tmp_path / "home", tmp_path, url=str(service.http.base_url))
        line = solfa.run("audit", columns=200).splitlines()[1]
        assert {"local", "127.0.0.1", "submit", "default", "shown"} <= set(line.split())
        assert solfa.json("audit")["action"] == "submit"


def test_a_terminal_obeys_nothing_that_was_recorded(tmp_path: Path) -> None:
    with running(tmp_path / "service", reconcile=False) as service:
        sender = replace(LOCAL, address="\x1b[31mEVIL\x9b2J\x07\u202e")
        Tokens(service.store, "", lambda: START).issue(NewToken(name="shown", scope=Scope.READ), sender)
        shown = Solfa(tmp_path / "home", tmp_path, url=str(service.http.base_url)).run("audit", columns=200)
    assert "␛[31mEVIL�" in shown
    assert not [letter for letter in shown if letter in "\x1b\x9b\x07\u202e"]


def test_a_change_that_cannot_be_told_of_is_not_made(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(database_url)
    kept, other = make_experiment("xaaaaaaaaaa", "kept"), make_experiment("xbbbbbbbbbb", "other")
    store.create(kept, None, START, change_by(LOCAL, "submit", START))

    def full(*_: Any) -> None:
        raise StoreError("The disk is full.")

    change = change_by(LOCAL, "anything", START)
    with monkeypatch.context() as patch:
        patch.setattr(sql, "note", full)
        for change_it in (
            lambda: store.create(other, None, START, change),
            lambda: store.replace(kept.model_copy(update={"cancel_requested_at": START}), [], START, change=change),
            lambda: store.delete(kept.id, None, change),
        ):
            with pytest.raises(StoreError):
                change_it()
    assert store.get("kept") == kept
    assert [one.name for one in store.live()] == ["kept"]
    assert [entry.action for entry in store.audit.page(None, 10, None)] == ["submit"]
    store.close()
