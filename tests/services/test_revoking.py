"""Revoking a token takes with it what was issued with it, so that whoever got in by one is out; and nothing else."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from api.access import IssuedToken, NewToken, Scope
from api.errors import NotFound, Unauthorized
from services.access.principal import LOCAL, Principal
from services.access.tokens import Tokens
from services.store import ExperimentStore, open_store
from tests.builders import START


class House:
    """Tokens by name, and who issued which."""

    def __init__(self, store: ExperimentStore) -> None:
        self.store = store
        self.issued: dict[str, IssuedToken] = {}
        self.tokens = Tokens(store, "", lambda: START + timedelta(seconds=len(self.issued)))

    def issue(self, name: str, by: str | None = None, project: str | None = None, scope: Scope = Scope.ADMIN) -> None:
        self.issued[name] = self.tokens.issue(NewToken(name=name, scope=scope, project=project), self.holder(by) if by else LOCAL)

    def holder(self, name: str) -> Principal:
        return self.tokens.principal(self.issued[name].secret)

    def revoke(self, name: str, by: Principal = LOCAL, alone: bool = False) -> list[str]:
        """Names of those that ended with it."""
        gone = self.tokens.revoke(self.issued[name].id, by, alone)
        assert (gone.name, gone.state(START)) == (name, "revoked")
        return [view.name for view in gone.with_it]

    def live(self) -> set[str]:
        found = {view.name for view in self.tokens.all(LOCAL) if view.state(START) == "live"}
        for name, one in self.issued.items():
            if name in found:
                self.holder(name)
            else:
                with pytest.raises(Unauthorized):
                    self.tokens.principal(one.secret)
        return found


@pytest.fixture
def house(database_url: str) -> Iterator[House]:
    store = open_store(database_url)
    made = House(store)
    made.issue("root")
    made.issue("chief", by="root", project="speech")
    made.issue("member", by="chief", scope=Scope.SUBMIT)
    made.issue("other", by="root", project="code")
    made.issue("stranger")
    yield made
    store.close()


def test_a_token_goes_with_all_that_was_issued_with_it_and_each_is_told_of(house: House) -> None:
    assert [view.issued_with for view in house.tokens.all(LOCAL) if view.name == "member"] == [house.issued["chief"].id]
    assert house.revoke("chief") == ["member"]
    assert house.live() == {"root", "other", "stranger"}
    assert house.revoke("chief") == [], "a second time is harmless"
    assert sorted(house.revoke("root")) == ["other"]
    assert house.live() == {"stranger"}
    told = [(entry.details, entry.project) for entry in house.store.audit.page(None, 50, None) if entry.action == "revoke_token"]
    ids = {name: one.id for name, one in house.issued.items()}
    assert told[::-1] == [
        ({"token": ids["chief"]}, "speech"),
        ({"token": ids["member"], "with": ids["chief"]}, "speech"),
        ({"token": ids["root"]}, None),
        ({"token": ids["other"], "with": ids["root"]}, "code"),
    ]


def test_alone_it_leaves_the_others_and_they_go_when_it_is_asked_for_again(house: House) -> None:
    assert house.revoke("chief", alone=True) == []
    assert house.live() == {"root", "member", "other", "stranger"}
    assert house.revoke("chief") == ["member"]


def test_of_another_project_there_is_none(house: House) -> None:
    with pytest.raises(NotFound):
        house.revoke("other", by=house.holder("chief"))
    assert house.live() == {"root", "chief", "member", "other", "stranger"}


def test_nothing_that_is_issued_meanwhile_is_left(house: House) -> None:
    """A replica that has not heard of it yet issues as fast as it can."""
    thief, began = house.holder("chief"), threading.Event()
    elsewhere = Tokens(house.store, "", lambda: START + timedelta(minutes=1))
    refused: list[Unauthorized] = []

    def issue() -> None:
        number = 0
        while not refused:
            number += 1
            try:
                elsewhere.issue(NewToken(name=f"{threading.get_ident()} {number}", scope=Scope.ADMIN), replace(thief))
                began.set()
            except Unauthorized as error:
                refused.append(error)

    threads = [threading.Thread(target=issue) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert began.wait(60)
    house.tokens.revoke(house.issued["chief"].id, LOCAL)
    for thread in threads:
        thread.join(60)
    assert "has been revoked" in refused[0].message
    assert house.live() == {"root", "other", "stranger"}
