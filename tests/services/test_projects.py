"""Whose projects there are: a name that is none is refused wherever it is said, and only an administrator begins one."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from api.access import NewToken, Scope
from api.client import Client
from api.errors import Forbidden, QuotaExceeded
from services.quotas import Quota
from tests.services.running import Running, problem, running
from tests.services.test_access import ADMIN, as_, issue

NO_NAMES = ("Not A Project!", "", "Upper", "1st", "ends-in-", "x" * 41, "two,names", "\x1b[31m" + "p" * 5000)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    quotas = {"named": Quota(experiments=2), "*": Quota(experiments=1)}
    with running(tmp_path_factory.mktemp("guarded"), access="required", admin_token=ADMIN, reconcile=False, quotas=quotas) as service:
        yield service


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_is_none_of_a_project_is_refused_and_stored_nowhere(guarded: Running, name: str) -> None:
    before = _stored(guarded)
    for token in (ADMIN, issue(guarded, "anywhere", Scope.SUBMIT, None), issue(guarded, "somewhere", Scope.SUBMIT, "default")):
        headers = {"Authorization": f"Bearer {token}", "Solfa-Project": name}
        answers = [
            guarded.http.get("/v1/experiments", headers=headers),
            guarded.http.get("/", headers=headers),
            guarded.http.post("/v1/tokens", json={"name": "t", "scope": "read"}, headers=headers),
            guarded.http.post("/v1/experiments", content=guarded.spec("never"), headers=headers | {"Content-Type": "application/yaml"}),
        ]
        for answer in answers:
            detail = problem(answer, 400, "bad_request")["detail"]
            assert detail.startswith("Solfa-Project names no project: ")
            assert len(detail) < 200
    assert _stored(guarded) == before


def _stored(service: Running) -> set[str | None]:
    projects = {one.project for one in service.store.page(200).experiments} | {view.project for view in service.store.tokens.all(None)}
    return projects - {None, "default"}


def test_a_token_of_no_project_invents_none_and_so_has_no_more_than_its_quotas(guarded: Running) -> None:
    with as_(guarded, issue(guarded, "free", Scope.SUBMIT, None)) as everywhere:
        everywhere.submit(guarded.spec("of-all"))
        with pytest.raises(QuotaExceeded):
            everywhere.submit(guarded.spec("of-all-2"))
    for project in ("zz1", "zz2"):
        with _free(guarded, project) as client, pytest.raises(Forbidden, match=f"There is no project {project}, and only an administrator"):
            client.submit(guarded.spec("invented"))
    with _free(guarded, "named") as client:  # by the operator, in SOLFA_QUOTAS
        assert client.submit(guarded.spec("in-a-named-one")).project == "named"


def test_an_administrator_begins_a_project_by_an_experiment_or_a_token(guarded: Running) -> None:
    with as_(guarded, ADMIN, project="by-experiment") as admin:
        admin.submit(guarded.spec("the-first"))
    with _free(guarded, "by-experiment") as client, pytest.raises(QuotaExceeded, match="The project by-experiment may have 1"):
        client.submit(guarded.spec("the-second"))
    with _free(guarded, "by-token") as client, pytest.raises(Forbidden):
        client.submit(guarded.spec("too-early"))
    own = issue(guarded, "member", Scope.SUBMIT, "by-token")
    with _free(guarded, "by-token") as client:
        assert client.submit(guarded.spec("in-time"), "a-key").project == "by-token"
    with as_(guarded, own) as client, pytest.raises(QuotaExceeded):
        client.submit(guarded.spec("one-too-many"))


def _free(service: Running, project: str) -> Client:
    return as_(service, issue(service, "free", Scope.SUBMIT, None), project)


def test_a_token_does_not_outlive_who_issued_it(guarded: Running) -> None:
    chief = issue(guarded, "chief", Scope.ADMIN, "team", days=1)
    with as_(guarded, chief) as client:
        mine = next(view for view in client.tokens() if view.name == "chief")
        assert mine.expires_at
        for_ever, long = (client.create_token(NewToken(name="heir", scope=Scope.ADMIN, days=days)) for days in (None, 90))
        assert for_ever.expires_at == long.expires_at == mine.expires_at
        with as_(guarded, for_ever.secret) as heir:
            assert heir.create_token(NewToken(name="grandchild", scope=Scope.READ)).expires_at == mine.expires_at
    lasting = issue(guarded, "lasting", Scope.ADMIN, "team", days=30)
    with as_(guarded, lasting) as client:
        short = client.create_token(NewToken(name="short", scope=Scope.READ, days=2))
        assert short.expires_at == short.created_at + timedelta(days=2)
    with as_(guarded, ADMIN) as client:
        assert client.create_token(NewToken(name="endless", scope=Scope.READ)).expires_at is None
