"""What a person does with the page, in a real browser over a real service: watch a search, cancel it, look into a failure, try again."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from api.domains import DomainWeights
from tests.builders import START, make_experiment
from tests.services.page.conftest import PHONE, Open, Watch, address, check_accessible, overflow, written
from tests.services.page.seeded import PILE, report, seed, unfinished
from tests.services.running import Running
from tests.services.waiting import wait_for

MANY, ROWS = 2000, 50
DRAWN = ".chart .main-svg"


def mark(page: Page) -> None:
    """A reload would take the mark away."""
    page.evaluate("window.marked = true")


def is_marked(page: Page) -> bool:
    return bool(page.evaluate("window.marked === true"))


def test_a_search_is_watched_from_its_submission_to_its_comparison(empty: Running, visit: Open, watch: Watch) -> None:
    page = visit(address(empty))
    expect(page.get_by_text("There are no experiments yet.")).to_be_visible()
    check_accessible(page)
    mark(page)
    empty.submit("watched", {"steps": 6, "seconds": 0.3})
    page.get_by_role("link", name="watched").wait_for()
    assert is_marked(page)
    page.get_by_role("link", name="watched").click()
    mark(page)
    expect(page.locator("#phase")).to_contain_text("succeeded")
    expect(page.locator("#comparison table")).to_contain_text("DoReMi")
    expect(page.locator("#final table")).to_contain_text("books")
    expect(page.locator("#announce")).to_have_text("The experiment is succeeded.")
    expect(page.locator("#chart-stacked .main-svg").first).to_be_visible()
    page.locator("#logs").scroll_into_view_if_needed()
    expect(page.locator("#log")).to_contain_text("evaluate attempt 1 reads")
    expect(page.locator("#log-state")).to_have_text("This attempt has ended.")
    assert is_marked(page)
    assert watch.hosts == {address(empty, "")}


def test_a_search_is_cancelled_after_a_question_and_tried_again(house: Running, visit: Open) -> None:
    house.submit("doubted", {"hang": {"prepare": [1]}})
    house.until_stage("doubted", "prepare", "running")
    page = visit(address(house, "/experiments/doubted"))
    page.get_by_role("button", name="Cancel").press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Cancel doubted?")
    check_accessible(page)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert house.get("/doubted").json()["cancel_requested_at"] is None

    page.get_by_role("button", name="Cancel").click()
    dialog.get_by_role("button", name="Cancel experiment").click()
    expect(page.locator("#phase")).to_contain_text("cancelled")
    page.get_by_role("button", name="Retry").click()
    dialog.get_by_role("button", name="Retry experiment").click()
    expect(page.locator("#phase")).to_contain_text("succeeded")


def test_a_refusal_is_shown_in_its_own_sentence(house: Running, visit: Open, watch: Watch) -> None:
    house.submit("raced", {"fail": {"prepare": [1]}, "hang": {"prepare": [2]}}, compute={"default": {"retries": 0}})
    house.until("raced", "failed")
    page = visit(address(house, "/experiments/raced"))
    page.get_by_role("button", name="Retry").click()
    house.http.post("/v1/experiments/raced/retry")  # by somebody else
    house.until_stage("raced", "prepare", "running")
    page.get_by_role("dialog").get_by_role("button", name="Retry experiment").click()
    expect(page.get_by_role("alert")).to_have_text("raced is running; only one that failed or was cancelled can be retried.")
    assert [said for said in watch.complaints if "409" not in said] == []
    watch.complaints.clear()


def test_a_failed_stage_says_why_and_shows_its_last_lines(house: Running, visit: Open) -> None:
    house.submit("broken", {"steps": 6, "permanent": ["reference"]})
    house.until("broken", "failed")
    page = visit(address(house, "/experiments/broken"))
    note = page.get_by_role("note", name="reference failed")
    expect(note).to_contain_text("This stage was told to fail.")
    expect(note.locator("pre")).to_contain_text("reference attempt 1 reads")
    expect(page.locator("#stages")).to_contain_text("It needs reference, which did not succeed.")
    expect(page.locator("#comparison .empty")).to_contain_text("evaluate of broken was cancelled.")
    check_accessible(page)


def test_what_is_not_there_is_said_in_a_sentence(house: Running, visit: Open, watch: Watch) -> None:
    page = visit(address(house, "/experiments/nobody"))
    expect(page.locator("main")).to_contain_text("nobody")
    expect(page.get_by_role("heading", level=1)).to_have_text("Not found")
    check_accessible(page)
    assert all("404" in said for said in watch.complaints)
    watch.complaints.clear()


def test_points_that_were_reported_between_two_saves_stay_in_the_chart(idle: Running, visit: Open) -> None:
    names = PILE[:3]
    record = unfinished(idle, "moving", names, saved=200)
    page = visit(address(idle, "/experiments/moving"))
    expect(page.locator("#stages")).to_contain_text("running")
    last = "document.getElementById('chart-lines').data[0].x.filter(step => step >= 200)"
    steps = [200]
    for step in (210, 230, 245):
        report(idle, record, step, DomainWeights.uniform(names))
        steps.append(step)
        wait_for(lambda: page.evaluate(last) == steps)
    expect(page.locator("#stages")).to_contain_text("245/400, loss 3.100")


def test_two_thousand_experiments_are_looked_through_page_by_page(idle: Running, visit: Open) -> None:
    for number in range(MANY):
        letters = "".join("abcdefghij"[int(digit)] for digit in f"{number:010}")
        idle.store.create(make_experiment(f"x{letters}", f"run-{number:04}"), None, START)
    page = visit(address(idle))
    names = page.locator("#experiments tbody th")
    expect(names).to_have_count(ROWS)
    check_accessible(page)
    first = names.all_inner_texts()
    page.get_by_role("link", name="Older").click()
    expect(names).to_have_count(ROWS)
    assert not set(first) & set(names.all_inner_texts())
    page.get_by_label("Name begins with").fill("run-19")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("link", name="run-1999")).to_be_visible()
    assert all(name.startswith("run-19") for name in names.all_inner_texts())
    assert len(idle.http.get("/").text) < 60_000


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_twenty_two_domains_are_accessible_in_both_themes(house: Running, visit: Open, theme: str) -> None:
    if house.get("/pile").status_code == 404:
        seed(house, "pile", PILE)
    page = visit(address(house, "/experiments/pile"), color_scheme=theme)
    expect(page.locator("#chart-final .main-svg").first).to_be_visible()
    check_accessible(page)
    assert overflow(page) == 0


def test_sixty_domains_fit_a_phone_and_one_can_be_picked_out(house: Running, visit: Open) -> None:
    names = [f"domain-{number:02}" for number in range(60)]
    seed(house, "sixty", names)
    page = visit(address(house, "/experiments/sixty"), viewport=PHONE)
    expect(page.locator("#chart-lines .scatterlayer .trace")).to_have_count(60)
    assert overflow(page) == 0
    check_accessible(page)
    button = page.get_by_role("button", name="domain-07")
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "true")
    faint = "[...document.querySelectorAll('#chart-lines .scatterlayer .trace')].filter(one => getComputedStyle(one).opacity < 0.5).length"
    assert page.evaluate(faint) == 59


def test_the_report_opens_from_a_file_without_any_network(house: Running, visit: Open, tmp_path: Path, watch: Watch) -> None:
    seed(house, "kept", PILE[:5])
    path = written(tmp_path / "kept.html", house.get("/kept/report").text)
    page = visit(path, offline=True)
    expect(page.locator("#chart-final .main-svg").first).to_be_visible()
    expect(page.locator("#comparison table")).to_contain_text("DoReMi")
    expect(page.locator("#logs")).to_contain_text("proxy, last 16 lines")
    check_accessible(page)
    assert watch.hosts == {"file://"}
