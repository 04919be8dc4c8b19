"""What a proxy says of who asks and how is believed of those that the operator named, and of nobody else."""

from collections.abc import Iterator
from http.cookies import SimpleCookie

import pytest

from api.access import NewToken, Scope
from api.client import Client
from api.errors import BadRequest
from services.settings import Settings
from tests.services.running import Running, running

ADMIN = "an administrator's token of the settings"


@pytest.fixture(scope="module", params=["", "127.0.0.0/8"], ids=["nobody", "named"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    trusted = (request.param,) if request.param else ()
    root = tmp_path_factory.mktemp("proxies-named" if trusted else "proxies")
    with running(root, access="required", admin_token=ADMIN, reconcile=False, trusted_proxies=trusted) as made:
        yield made


def believes(service: Running) -> bool:
    return "named" in service.root.name


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("10.9.9.9, 10.1.2.3:4567", "10.1.2.3"),
        ("2001:DB8::0001", "2001:db8::1"),
        ("10.1.2.3\x1b[31mEVIL", ""),
        ("fe80::1%\x1b[31mEVIL", "fe80::1"),
        ("mallory", ""),
    ],
)
def test_an_address_is_recorded_that_is_one(service: Running, said: str, found: str) -> None:
    headers = {"Authorization": f"Bearer {ADMIN}", "X-Forwarded-For": said}
    asked = NewToken(name="forwarded", scope=Scope.READ).model_dump(mode="json")
    assert service.http.post("/v1/tokens", json=asked, headers=headers).status_code == 201
    with Client(str(service.http.base_url), token=ADMIN) as client:
        assert next(iter(client.audit())).address == (found if believes(service) else "127.0.0.1")


def test_the_cookie_goes_over_tls_alone_where_tls_is(service: Running) -> None:
    for scheme in ("https", "http"):
        answer = service.http.post(
            "/sign-in", data={"token": ADMIN}, headers={"X-Forwarded-Proto": scheme, "Origin": str(service.http.base_url)}
        )
        cookie = SimpleCookie(answer.headers["set-cookie"])["solfa_token"]
        assert bool(cookie["secure"]) == (scheme == "https" and believes(service))
        service.http.cookies.clear()


@pytest.mark.parametrize("proxy", ["ingress.example", "10.0.0.1/8", "*"])
def test_a_proxy_is_named_by_address(proxy: str) -> None:
    with pytest.raises(BadRequest, match=r"SOLFA_TRUSTED_PROXIES: .* is neither an address nor a network"):
        Settings.from_environment({"SOLFA_TRUSTED_PROXIES": f"10.0.0.0/8, {proxy}"})
