"""Signing in with a token, in a real browser: the form, what it says of a wrong one, where it leads, and what a reader is not shown."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from api.access import NewToken, Scope
from api.client import Client
from services.access.gate import COOKIE
from tests.services.page.conftest import PHONE, Open, Watch, check_accessible, overflow
from tests.services.running import Running, running

ADMIN = "an administrator's token of the settings"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("guarded"), access="required", admin_token=ADMIN) as service:
        yield service


def issued(service: Running, name: str, scope: Scope) -> str:
    with Client(str(service.http.base_url), token=ADMIN) as client:
        return client.create_token(NewToken(name=name, scope=scope, project="default")).secret


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_person_signs_in_and_comes_to_where_they_wanted(guarded: Running, visit: Open, watch: Watch, theme: str) -> None:
    with Client(str(guarded.http.base_url), token=ADMIN) as client:
        client.submit(guarded.spec(f"wanted-{theme}", {"hang": {"prepare": [1]}}))
    page = visit(f"{guarded.http.base_url}/experiments/wanted-{theme}", color_scheme=theme, viewport=PHONE)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert overflow(page) == 0
    check_accessible(page)
    page.get_by_label("Token").fill("solfa_wrong")
    page.get_by_label("Token").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("This token is not valid")
    check_accessible(page)
    watch.complaints.clear()  # the browser notes that the answer was 401
    page.get_by_label("Token").fill(issued(guarded, "ada", Scope.SUBMIT))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name=f"wanted-{theme}")).to_be_visible()
    expect(page.get_by_text("ada · default")).to_be_visible()
    check_accessible(page)
    assert overflow(page) == 0
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel experiment").click()
    expect(page.locator("#phase")).to_contain_text("cancel")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto(f"{guarded.http.base_url}")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_reader_is_shown_no_button_that_would_refuse(guarded: Running, visit: Open) -> None:
    with Client(str(guarded.http.base_url), token=ADMIN) as client:
        client.submit(guarded.spec("looked-at", {"hang": {"prepare": [1]}}))
    page = visit(f"{guarded.http.base_url}/sign-in?next=/experiments/looked-at")
    page.get_by_label("Token").fill(issued(guarded, "reader", Scope.READ))
    page.get_by_label("Token").press("Enter")
    expect(page.locator("#phase")).to_contain_text("running")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    expect(page.get_by_text("reader · default")).to_be_visible()


def test_a_token_for_one_experiments_weights_is_told_what_it_is_for(guarded: Running, visit: Open, watch: Watch) -> None:
    with Client(str(guarded.http.base_url), token=ADMIN) as client:
        made = client.submit(guarded.spec("weighed", {"hang": {"prepare": [1]}}))
        token = client.create_token(NewToken(name="script", scope=Scope.WEIGHTS, experiment="weighed"))
    page = visit(f"{guarded.http.base_url}/sign-in")
    page.get_by_label("Token").fill(token.secret)
    page.get_by_label("Token").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The token script reads the averaged weights of one experiment, and no page.")
    expect(page.get_by_role("alert")).to_contain_text(f"curl -H 'Authorization: Bearer TOKEN' {guarded.http.base_url}")
    expect(page.get_by_role("alert")).to_contain_text(f"/v1/experiments/{made.id}/weights")
    check_accessible(page)
    page.context.add_cookies([{"name": COOKIE, "value": token.secret, "url": str(guarded.http.base_url)}])
    page.goto(str(guarded.http.base_url))  # with a cookie of before that was so
    expect(page.locator("main")).to_contain_text("The token script has the scope weights; this needs read.")
    check_accessible(page)
    page.get_by_role("link", name="Sign in with another token").click()
    expect(page.get_by_label("Token")).to_be_visible()
    assert all("403" in said for said in watch.complaints)
    watch.complaints.clear()


def test_whoever_has_a_long_name_can_sign_out_on_a_phone(guarded: Running, visit: Open) -> None:
    page = visit(f"{guarded.http.base_url}/sign-in", viewport=PHONE)
    page.get_by_label("Token").fill(issued(guarded, "ada.lovelace@research.example.com ".ljust(64, "x"), Scope.READ))
    page.get_by_label("Token").press("Enter")
    button = page.get_by_role("button", name="Sign out")
    expect(button).to_be_in_viewport(ratio=1)
    assert overflow(page) == 0
    assert page.evaluate("getComputedStyle(document.querySelector('.bar')).position") == "static"
