"""Whose a token is while the database that would say so is away: known to what watches the service, and to nothing else."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from api.access import NewToken, Scope
from api.errors import StoreUnavailable, Unauthorized
from services.access import tokens as module
from services.access.principal import LOCAL
from services.access.tokens import AWAY_SECONDS, KEPT_SECONDS, Tokens
from services.store import open_store
from services.store.sql import SqlStore
from services.store.tokens import SqlTokens
from tests.builders import START
from tests.services.running import problem, running
from tests.services.test_access import ADMIN, issue
from tests.services.waiting import wait_for


def away(*_: object) -> None:
    raise StoreUnavailable("It is away.")


def test_metrics_tell_a_reader_that_the_database_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_SECONDS", 0.0)
    with running(tmp_path, access="required", admin_token=ADMIN, reconcile=False) as service:
        headers = {"Authorization": f"Bearer {issue(service, 'prometheus', Scope.READ, None)}"}
        unseen = {"Authorization": f"Bearer {issue(service, 'newcomer', Scope.READ, None)}"}
        assert service.http.get("/metrics", headers=headers).status_code == 200
        monkeypatch.setattr(SqlTokens, "find", away)
        monkeypatch.setattr(SqlStore, "counts", away)
        wait_for(lambda: "solfa_store_up 0.0" in service.http.get("/metrics", headers=headers).text)  # counted every few seconds
        problem(service.http.get("/metrics", headers=unseen), 503, "store_unavailable")
        for path in ("/v1/experiments", "/", "/v1/metrics"):
            problem(service.http.get(path, headers=headers), 503, "store_unavailable")


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float, int | None, bool], str]:
    """Whose a token is, or why nobody's, so long after it was looked up last; it was good for so many days, or had been revoked."""

    def after(seconds: float, days: int | None, revoked: bool) -> str:
        now: list[datetime] = [START]
        store = open_store(f"sqlite:///{tmp_path}/solfa.db")
        tokens = Tokens(store, "", lambda: now[0])
        issued = tokens.issue(NewToken(name="watcher", scope=Scope.READ, days=days), LOCAL)
        if days:
            now[0] += timedelta(days=days) - timedelta(seconds=seconds / 2)
        if revoked:
            tokens.revoke(issued.id, LOCAL)
            with pytest.raises(Unauthorized):
                tokens.principal(issued.secret)
        else:
            tokens.principal(issued.secret)
        now[0] += timedelta(seconds=seconds)
        with monkeypatch.context() as patch:
            patch.setattr(SqlTokens, "find", away)
            with pytest.raises(StoreUnavailable):
                tokens.principal(issued.secret)
            try:
                return tokens.principal(issued.secret, while_away=True).name
            except (StoreUnavailable, Unauthorized) as error:
                return error.code
            finally:
                store.close()

    return after


@pytest.mark.parametrize(
    ("seconds", "days", "revoked", "said"),
    [
        (KEPT_SECONDS, None, False, "watcher"),
        (AWAY_SECONDS - 1, None, False, "watcher"),
        (AWAY_SECONDS, None, False, "store_unavailable"),
        (60, 1, False, "unauthorized"),
        (60, None, True, "unauthorized"),
    ],
)
def test_it_is_whose_it_was_for_an_hour_unless_it_ended(
    at: Callable[[float, int | None, bool], str], seconds: float, days: int | None, revoked: bool, said: str
) -> None:
    assert at(seconds, days, revoked) == said
