"""A page that stays open: streams that are refused, tokens that end, an experiment that is deleted, text that somebody has selected."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, Request, Route, expect

from api.access import NewToken, Scope
from api.client import Client
from api.domains import DomainWeights
from tests.services.page.conftest import Open, Watch, address
from tests.services.page.seeded import PILE, report, unfinished
from tests.services.running import Running, running
from tests.services.waiting import wait_for

ADMIN = "an administrator's token of the settings"
LAST = "document.getElementById('chart-lines').data[0].x.at(-1)"


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that moves nothing on; tests use names of their own."""
    with running(tmp_path_factory.mktemp("still"), reconcile=False) as service:
        yield service


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("guarded"), access="required", admin_token=ADMIN) as service:
        yield service


def first_refused(*, times: int) -> Callable[[Route], None]:
    """What answers the first requests like a proxy that misses the service, and lets the others through."""
    refused = 0

    def answer(route: Route) -> None:
        nonlocal refused
        refused += 1
        route.fulfill(status=502, body="Bad gateway") if refused <= times else route.continue_()

    return answer


def complained_only_of(watch: Watch, status: int) -> None:
    """The browser notes answers that are errors; they were asked for."""
    assert [said for said in watch.complaints if str(status) not in said] == []
    watch.complaints.clear()


def test_a_stream_that_was_refused_is_asked_for_again(still: Running, visit: Open, watch: Watch) -> None:
    record = unfinished(still, "refused", PILE[:3], saved=200)
    page = visit(address(still, "/experiments/refused"))
    page.route("**/live", first_refused(times=2))
    page.reload()
    expect(page.locator("#link-state")).to_have_text("Connection lost; trying again.")
    expect(page.locator("#link-state")).to_have_text("Live")
    report(still, record, 230, DomainWeights.uniform(PILE[:3]))
    wait_for(lambda: page.evaluate(LAST) == 230)
    complained_only_of(watch, 502)


def test_a_log_that_was_refused_is_asked_for_again(still: Running, visit: Open, watch: Watch) -> None:
    unfinished(still, "silent", PILE[:3], saved=200)
    page = visit(address(still, "/experiments/silent"))
    page.route("**/logs?*", first_refused(times=1))
    page.locator("#logs").scroll_into_view_if_needed()
    expect(page.locator("#log-state")).to_have_text("The log broke off; trying again.")
    expect(page.locator("#log")).to_contain_text("proxy: step 0 loss")
    complained_only_of(watch, 502)


def signed_in(service: Running, visit: Open, name: str) -> tuple[Page, str]:
    """The page of an experiment that hangs, and the id of the token that opened it."""
    with Client(str(service.http.base_url), token=ADMIN) as client:
        client.submit(service.spec(name, {"hang": {"prepare": [1]}}))
        token = client.create_token(NewToken(name=name, scope=Scope.SUBMIT, project="default"))
    page = visit(f"{service.http.base_url}/sign-in?next=/experiments/{name}")
    page.get_by_label("Token").fill(token.secret)
    page.get_by_label("Token").press("Enter")
    expect(page.locator("#phase")).to_contain_text("running")
    expect(page.locator("#link-state")).to_have_text("Live")
    return page, token.id


def revoke(service: Running, token: str) -> None:
    with Client(str(service.http.base_url), token=ADMIN) as client:
        client.revoke_token(token)


def test_who_looks_on_while_their_token_ends_is_asked_for_another(guarded: Running, visit: Open, watch: Watch) -> None:
    page, token = signed_in(guarded, visit, "watched")
    revoke(guarded, token)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert page.url.endswith("/sign-in?next=%2Fexperiments%2Fwatched")
    complained_only_of(watch, 401)


def test_who_acts_with_a_token_that_has_ended_is_asked_for_another(guarded: Running, visit: Open, watch: Watch) -> None:
    page, token = signed_in(guarded, visit, "acted-on")
    page.get_by_role("button", name="Cancel").click()
    page.route("**/live", lambda route: route.abort())  # the answer to the click is what counts
    revoke(guarded, token)
    page.get_by_role("button", name="Cancel experiment").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert page.url.endswith("/sign-in?next=%2Fexperiments%2Facted-on")
    watch.complaints.clear()


def test_what_was_deleted_stays_deleted_and_offers_nothing(house: Running, visit: Open, watch: Watch) -> None:
    house.submit("deleted", {"hang": {"prepare": [1]}})
    house.until_stage("deleted", "prepare", "running")
    page = visit(address(house, "/experiments/deleted"))
    expect(page.locator("#link-state")).to_have_text("Live")
    house.http.post("/v1/experiments/deleted/cancel")
    house.until("deleted", "cancelled")
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    assert house.http.delete("/v1/experiments/deleted").status_code < 300
    expect(page.locator("#link-state")).to_have_text("This experiment has been deleted.")
    expect(page.get_by_role("button", name="Retry")).to_have_count(0)
    expect(page.locator(".downloads")).to_have_count(0)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # as when one comes back to this tab
    page.evaluate("fetch('/healthz').then(answer => answer.text())")
    assert [url for url in asked if url.endswith("/live")] == []
    expect(page.locator("#link-state")).to_have_text("This experiment has been deleted.")
    assert all("404" in said for said in watch.complaints)
    watch.complaints.clear()


def test_a_page_acts_on_the_experiment_that_it_shows_and_on_no_other_of_its_name(still: Running, visit: Open, watch: Watch) -> None:
    record = unfinished(still, "taken", PILE[:3], saved=200)
    page = visit(address(still, "/experiments/taken"))
    expect(page.locator("#link-state")).to_have_text("Live")
    page.route("**/live", lambda route: route.abort())  # so that the page is told nothing
    page.reload()
    still.store.delete(record.id)
    other = still.submit("taken")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel experiment").click()
    expect(page.locator("#confirm-error")).to_have_text(f"There is no experiment {record.id}.")
    assert still.store.get(other["id"]).cancel_requested_at is None
    watch.complaints.clear()  # the browser notes the stream and the refusal


def looks_again(request: Request) -> bool:
    return request.resource_type == "fetch"


def test_times_go_on_while_a_stage_runs_and_an_old_report_says_how_old(still: Running, visit: Open) -> None:
    record = unfinished(still, "ageing", PILE[:3], saved=200)
    report(still, record, 230, DomainWeights.uniform(PILE[:3]))
    page = visit(address(still))
    page.clock.install()
    with page.expect_request(looks_again):  # what every page does as its stream begins
        page.goto(address(still, "/experiments/ageing"))
    expect(page.locator("#stages .said", has_text="230/400")).to_contain_text("reported")
    with page.expect_request(looks_again):
        page.clock.fast_forward(30_000)


def test_selected_text_stays_selected_until_it_is_let_go(still: Running, visit: Open) -> None:
    record = unfinished(still, "copied", PILE[:3], saved=200)
    page = visit(address(still, "/experiments/copied"))
    expect(page.locator("#chart-lines .main-svg").first).to_be_visible()
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#stages table'))")
    report(still, record, 230, DomainWeights.uniform(PILE[:3]))
    wait_for(lambda: page.evaluate(LAST) == 230)  # a section beside it moves on
    expect(page.locator("#link-state")).to_have_text("Waiting while text is selected.")
    assert "baseline-uniform" in page.evaluate("String(getSelection())")
    assert "230/400" not in page.locator("#stages").inner_text()
    page.evaluate("getSelection().removeAllRanges()")
    expect(page.locator("#stages")).to_contain_text("230/400")
    expect(page.locator("#link-state")).to_have_text("Live")
