"""On a phone: numbers stand beside long names, what stages say is in sight, and nothing makes the page scroll sideways."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, expect

from api.stages import StagePhase
from tests.builders import START, make_experiment
from tests.services.page.conftest import PHONE, Open, address, check_accessible, overflow
from tests.services.page.seeded import LONG, PILE, ended, seed
from tests.services.running import Running, running


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("narrow"), reconcile=False) as service:
        yield service


def sides(part: Locator) -> tuple[float, float]:
    """Its left and right side, in pixels of the window."""
    box = part.bounding_box()
    assert box is not None
    return box["x"], box["x"] + box["width"]


def test_numbers_stand_beside_long_names(narrow: Running, visit: Open) -> None:
    seed(narrow, "long", LONG)
    page = visit(address(narrow, "/experiments/long"), viewport=PHONE)
    for table in ("#final", "#comparison"):
        row = page.locator(f"{table} tbody tr").first
        assert sides(row.locator("th"))[1] <= sides(row.locator("td").first)[0] + 1
        assert sides(row.locator("td").last)[1] <= PHONE["width"]
    assert overflow(page) == 0
    check_accessible(page)


def test_what_failed_at_length_is_in_sight_and_broken_into_lines(narrow: Running, visit: Open) -> None:
    ended(narrow, seed(narrow, "wordy", PILE[:3]), "proxy", StagePhase.FAILED, "x" * 400)
    page = visit(address(narrow, "/experiments/wordy"), viewport=PHONE)
    expect(page.get_by_role("note")).to_contain_text("x" * 400)
    assert overflow(page) == 0
    left, right = sides(page.locator("#stages .said", has_text="xxx"))
    assert left < PHONE["width"] * 0.66
    assert right <= PHONE["width"]


def test_how_long_each_stage_took_is_in_sight_where_none_has_anything_to_say(narrow: Running, visit: Open) -> None:
    seed(narrow, "silent", PILE[:3])
    page = visit(address(narrow, "/experiments/silent"), viewport=PHONE)
    expect(page.locator("#stages").get_by_role("columnheader", name="Time")).to_be_in_viewport(ratio=1)
    assert sides(page.locator("#stages tbody tr").first.locator(".number").first)[1] <= PHONE["width"]


def test_the_list_shows_when_each_was_created(narrow: Running, visit: Open) -> None:
    narrow.store.create(make_experiment("xaaaaaaaaaa", "a-very-very-very-very-very-very-very-abx"), None, START)
    page = visit(address(narrow, "/?name_prefix=a-very"), viewport=PHONE)
    expect(page.get_by_role("columnheader", name="Created, UTC")).to_be_in_viewport(ratio=1)
    assert sides(page.locator("tbody time").first)[1] <= PHONE["width"]
    check_accessible(page)
