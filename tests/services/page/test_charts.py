"""Charts under a hand and an eye: a finger scrolls, a zoom stays, a tooltip is legible, a domain is picked out, paper is white."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from api.domains import DomainWeights
from tests.services.page.conftest import PHONE, Open, address
from tests.services.page.seeded import LONG, PILE, reopened, report, seed, unfinished
from tests.services.running import Running, running
from tests.services.waiting import wait_for

DRAWN = "#chart-{} .main-svg"
LAST = "document.getElementById('chart-lines').data[0].x.at(-1)"


@pytest.fixture(scope="module")
def charted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("charted"), reconcile=False) as service:
        seed(service, "pile", PILE)
        seed(service, "long", LONG)
        yield service


def drawn(page: Page, chart: str) -> tuple[float, float]:
    """The middle of a chart, once it is drawn and in view."""
    expect(page.locator(DRAWN.format(chart)).first).to_be_visible()
    page.locator(f"#chart-{chart}").scroll_into_view_if_needed()
    box = page.locator(f"#chart-{chart}").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def steps_shown(page: Page) -> list[float]:
    """From where to where the axis of steps goes."""
    return [float(end) for end in page.evaluate("document.getElementById('chart-lines').layout.xaxis.range")]


def test_a_finger_on_a_chart_scrolls_the_page(charted: Running, visit: Open) -> None:
    page = visit(address(charted, "/experiments/pile"), viewport=PHONE, has_touch=True, is_mobile=True)
    x, y = drawn(page, "lines")
    shown, scrolled = steps_shown(page), page.evaluate("scrollY")
    finger = page.context.new_cdp_session(page)
    for moved in range(0, 210, 15):
        point = {"x": x - moved / 4, "y": y - moved}
        finger.send("Input.dispatchTouchEvent", {"type": "touchMove" if moved else "touchStart", "touchPoints": [point]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    wait_for(lambda: page.evaluate("scrollY") > scrolled + 100)
    assert steps_shown(page) == shown


def test_a_zoom_stays_as_points_are_added_until_it_is_taken_back(idle: Running, visit: Open) -> None:
    record = unfinished(idle, "zoomed", PILE[:3], saved=200)
    page = visit(address(idle, "/experiments/zoomed"))
    x, y = drawn(page, "lines")
    expect(page.locator("#legend-hint")).to_contain_text("double-click")
    whole = steps_shown(page)
    page.mouse.move(x - 50, y)
    page.mouse.down()
    page.mouse.move(x + 50, y, steps=4)
    page.mouse.up()
    wait_for(lambda: steps_shown(page)[0] > whole[0] + 1)
    near = steps_shown(page)
    report(idle, record, 230, DomainWeights.uniform(PILE[:3]))
    wait_for(lambda: page.evaluate(LAST) == 230)
    assert steps_shown(page) == near
    page.mouse.dblclick(x, y)
    wait_for(lambda: steps_shown(page)[0] <= 0 and steps_shown(page)[1] >= 230)


def test_one_round_takes_no_points_of_another(idle: Running, visit: Open) -> None:
    names = PILE[:3]
    record = seed(idle, "rounds", names, rounds=2)
    page = visit(address(idle, "/experiments/rounds"))
    drawn(page, "lines")
    report(idle, record, 150, DomainWeights.uniform(names))
    reopened(idle, record, saved=100)
    wait_for(lambda: page.evaluate(LAST) == 150)
    assert page.evaluate("document.getElementById('chart-lines').data[0].x.filter(step => step > 100)") == [150]


def test_a_tooltip_names_its_domain_in_the_colour_of_its_text(charted: Running, visit: Open) -> None:
    page = visit(address(charted, "/experiments/pile"), color_scheme="light")
    page.mouse.move(*drawn(page, "stacked"))
    expect(page.locator("#chart-stacked .hovertext text").first).to_contain_text(": 0.")
    expect(page.locator("#chart-stacked .hovertext .name")).to_have_count(0)


def test_a_chosen_domain_stands_out_of_the_areas_too(charted: Running, visit: Open) -> None:
    page = visit(address(charted, "/experiments/pile"))
    drawn(page, "stacked")
    page.get_by_role("button", name="github").click()
    areas = "[...document.querySelectorAll('#chart-stacked .js-fill')]"
    faint = f"{areas}.filter(one => getComputedStyle(one).fill === 'rgb(128, 128, 128)').length"
    wait_for(lambda: page.evaluate(faint) == len(PILE) - 1)
    page.get_by_role("button", name="github").click()
    wait_for(lambda: page.evaluate(faint) == 0)


def test_paper_is_white_and_what_is_printed_dark_whatever_the_theme(charted: Running, visit: Open) -> None:
    page = visit(address(charted, "/experiments/pile"), color_scheme="dark")
    drawn(page, "final")
    colours = """() => [document.body, document.querySelector('#chart-final .ytick text')].map(one => {
        const style = getComputedStyle(one);
        return one === document.body ? style.color : style.fill;
    })"""
    assert page.evaluate(colours) == ["rgb(228, 231, 234)"] * 2
    page.evaluate(f"addEventListener('beforeprint', () => {{ window.printed = ({colours})(); }})")
    page.pdf()
    assert page.evaluate("window.printed") == ["rgb(21, 25, 29)"] * 2
    wait_for(lambda: page.evaluate(colours) == ["rgb(228, 231, 234)"] * 2)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_long_names_leave_room_for_their_bars_on_a_phone(charted: Running, visit: Open) -> None:
    page = visit(address(charted, "/experiments/long"), viewport=PHONE)
    for chart in ("final", "validation"):
        drawn(page, chart)
        labels = page.locator(f"#chart-{chart} .ytick text")
        assert all(box["x"] >= 16 for label in labels.all() if (box := label.bounding_box()))
        assert {text[-3:] for text in labels.all_text_contents()} == {name[-3:] for name in LONG}
        plot = page.locator(f"#chart-{chart} .nsewdrag").bounding_box()
        assert plot is not None
        assert plot["width"] > PHONE["width"] / 3


def test_the_legend_shows_whole_names_dashes_and_patterns(charted: Running, visit: Open) -> None:
    page = visit(address(charted, "/experiments/long"), viewport=PHONE)
    expect(page.locator(".legend .domain")).to_have_count(len(LONG))
    cut = "[...document.querySelectorAll('.legend .domain span')].filter(one => one.scrollWidth > one.clientWidth).length"
    assert page.evaluate(cut) == 0
    expect(page.locator(".legend .swatch .pattern")).to_have_count(len(LONG) - 8)
