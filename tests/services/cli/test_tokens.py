"""`solfa token`, and a service that starts on an address where it asks for one, as a person runs them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from api.access import AuditEntry
from services.cli.connection import running
from tests.services.waiting import wait_for
from tests.solfa import Solfa


@pytest.fixture
def solfa(tmp_path: Path) -> Iterator[Solfa]:
    made = Solfa(tmp_path / "home", tmp_path)
    yield made
    made.end()


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_first_token_is_made_before_the_service_starts_and_makes_the_others(solfa: Solfa, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = solfa.error("up", "--detach", "--host", "0.0.0.0", "--port", "0", code=6)
    assert "Nobody could use the service" in refused
    assert "solfa token create NAME --scope admin --offline" in refused
    first = solfa.result("token", "create", "me", "--scope", "admin", "--offline")
    assert "of me: scope admin, every project. It is shown this once:" in first.stderr
    secret = first.stdout.strip()
    assert secret.startswith("solfa_")
    assert len(secret.split()) == 1
    solfa.up("--host", "0.0.0.0")
    assert "This service asks for a token" in solfa.error("list", code=9)

    plain = Solfa.environment

    def with_token(token: str) -> Solfa:
        monkeypatch.setattr(Solfa, "environment", lambda one, columns=80: {**plain(one, columns), "SOLFA_TOKEN": token})
        return solfa

    in_tokyo = {"TZ": "Asia/Tokyo", "SOLFA_TOKEN": secret}
    monkeypatch.setattr(Solfa, "environment", lambda one, columns=80: {**plain(one, columns), **in_tokyo})
    entry = AuditEntry.model_validate(lines(solfa.run("audit", "--json"))[0])
    assert f"{entry.at.astimezone(ZoneInfo('Asia/Tokyo')):%Y-%m-%d %H:%M:%S}" in solfa.run("audit", columns=200), "the reader's own time"
    assert "NAME starts with a letter" in solfa.error("token", "create", "", code=2)
    assert "--project starts with" in solfa.error("token", "create", "me", "--project", "A", code=2)

    alice = with_token(secret).result("token", "create", "alice", "--project", "speech", "--days", "90").stdout.strip()
    shown = {view["name"]: view for view in lines(with_token(secret).run("token", "list", "--json"))}
    assert (shown["alice"]["project"], shown["alice"]["scope"], shown["me"]["project"]) == ("speech", "submit", None)
    assert alice not in with_token(secret).run("token", "list")
    assert with_token(alice).run("list").startswith("There are no experiments yet")
    assert "this needs admin" in with_token(alice).error("token", "list", code=9)
    assert with_token(secret).run("token", "revoke", shown["alice"]["id"]) == f"Token {shown['alice']['id']} of alice is revoked.\n"
    assert "has expired or was revoked" in with_token(alice).error("list", code=9)

    chief = with_token(secret).result("token", "create", "chief", "--scope", "admin", "--project", "speech").stdout.strip()
    with_token(chief).run("token", "create", "nightly")
    shown = {view["name"]: view["id"] for view in lines(with_token(secret).run("token", "list", "--json"))}
    gone = f"Token {shown['chief']} of chief is revoked"
    assert with_token(secret).run("token", "revoke", shown["chief"], "--alone") == f"{gone}.\n"
    also = f", and what was issued with it: {shown['nightly']} of nightly.\n"
    assert with_token(secret).run("token", "revoke", shown["chief"]) == gone + also
    found = wait_for(lambda: running(solfa.home))
    assert secret not in (solfa.home / "service.log").read_text() + (solfa.home / "service.json").read_text() + found.url
