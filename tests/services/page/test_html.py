"""The page's HTML without a browser: policy, escaping, what needs no script, and the small deciders behind it."""

import re
from html.parser import HTMLParser

import pytest

from api.access import PROJECT_HEADER
from api.plan import make_plan
from api.results import Compared
from api.stages import StageKind, StagePhase
from services.experiments import stage_view
from services.histories import Histories, thinned
from services.page.assets import OWN, asset
from services.page.graph import graph
from services.page.palette import looks
from services.page.render import in_script
from services.page.tables import comparison
from services.weights import newest_proxy
from tests.builders import make_experiment, make_spec
from tests.services.page.seeded import PILE, STEPS, ended, seed
from tests.services.running import Running, problem


class Elements(HTMLParser):
    """All elements with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/experiments/done",
        "/experiments/broken",
        "/experiments/nobody",
        "/?phase=nonsense",
        "/?cursor=x",
        "/nothing",
        f"/?name_prefix={'x' * 41}",
    ],
)
def test_every_page_has_the_strict_policy_and_nothing_that_it_would_refuse(gallery: Running, path: str) -> None:
    answer = gallery.http.get(path, headers={"Accept": "text/html"})
    assert answer.headers["content-type"].startswith("text/html")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
    for tag, attributes in Elements(answer.text).found:
        assert tag != "style"
        assert not any(name == "style" or name.startswith("on") for name in attributes), (tag, attributes)
        assert tag != "script" or "src" in attributes or attributes["type"] == "application/json"
        for name in ("src", "href"):
            assert (attributes.get(name) or "/").startswith(("/", "#", "data:,")), (tag, attributes)


def test_the_report_allows_only_what_stands_in_it_and_names_no_address(gallery: Running) -> None:
    text = gallery.get("/done/report").text
    elements = Elements(text).found
    policy = next(attributes["content"] for tag, attributes in elements if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert not any("src" in attributes for tag, attributes in elements)
    assert {attributes["href"] for tag, attributes in elements if "href" in attributes} == {"#content", "data:,"}


def test_what_is_refused_is_a_page_in_a_browser_and_a_problem_document_elsewhere(gallery: Running) -> None:
    assert "There is nothing at /nothing." in gallery.http.get("/nothing", headers={"Accept": "text/html,*/*;q=0.8"}).text
    problem(gallery.http.get("/nothing"), 404, "not_found")
    problem(gallery.http.get("/v1/experiments/nobody", headers={"Accept": "text/html"}), 404, "not_found")


def test_downloads_say_for_whom_they_are_and_fractions_of_what(gallery: Running) -> None:
    text = re.sub("<[^>]+>", "", gallery.http.get("/experiments/done").text)
    assert "interleave-datasets datasets.interleave_datasets, fractions of documents" in text
    assert "doremi the original DoReMi code, fractions of tokens" in text


def test_what_was_cancelled_says_so_once_and_what_cannot_come_is_not_promised(gallery: Running, house: Running) -> None:
    empty = re.findall('<p class="empty">(.*?)</p>', gallery.http.get("/experiments/ended").text)
    assert "evaluate of ended was cancelled. Retry gives what failed or was cancelled another try." in empty
    house.submit("uncompared", {"permanent": ["prepare"]}, comparison={"mixtures": []})
    house.until("uncompared", "failed")
    section = house.http.get("/experiments/uncompared").text.partition('<section id="comparison"')[2].partition("</section>")[0]
    assert re.findall('<p class="empty">(.*?)</p>', section) == [
        "uncompared compares nothing: its spec&#39;s comparison.mixtures is empty."
    ]


def test_the_log_of_what_was_cut_off_is_shown_first(idle: Running) -> None:
    record = ended(idle, seed(idle, "cut", PILE[:3]), "proxy", StagePhase.CANCELLED, "It was cancelled.")
    options = [attributes for tag, attributes in Elements(idle.http.get(f"/experiments/{record.name}").text).found if tag == "option"]
    assert [option["value"] for option in options if "selected" in option] == ["proxy"]


def test_what_a_person_wrote_stays_text(house: Running) -> None:
    house.submit("marked", {"steps": 6}, description="</script><script>alert(1)</script><b>bold</b>")
    for path in ("/experiments/marked", "/v1/experiments/marked/report"):
        text = house.http.get(path).text
        assert "<b>bold" not in text
        assert "<script>alert" not in text
        assert "&lt;b&gt;bold" in text
    assert not set("<>&") & set(in_script({"name": "</script><!--&"}))


def test_experiments_of_one_name_are_told_apart_by_their_projects(house: Running) -> None:
    made = {}
    for project in ("default", "speech"):
        answer = house.http.post(
            "/v1/experiments",
            content=house.spec("of-two", {"steps": 6}),
            headers={"Content-Type": "application/yaml", PROJECT_HEADER: project},
        )
        made[project] = answer.json()["id"]
    listed = house.http.get("/?name_prefix=of-two").text
    assert "Project</th>" in listed
    for project, one in made.items():
        assert f'<a href="/experiments/{one}">of-two</a>' in listed
        assert f">{project}</td>" in listed
        shown = house.http.get(f"/experiments/{one}")
        assert (shown.status_code, ">Project</dt>" in shown.text) == (200, project != "default")
    assert "Project</th>" not in house.http.get("/?name_prefix=of-two", headers={PROJECT_HEADER: "speech"}).text


def test_files_are_kept_by_browsers_under_an_address_of_their_content(gallery: Running) -> None:
    for name in (*OWN, "plotly.min.js"):
        answer = gallery.http.get(f"/static/{name}")
        assert answer.text == asset(name).text
        assert (answer.headers["content-encoding"], "immutable" in answer.headers["cache-control"]) == ("gzip", True)
    assert gallery.http.get("/static/../app.py").status_code == 404
    assert gallery.http.get("/static/nothing.js").status_code == 404
    assert "plotly.js v" in asset("plotly.min.js").text[:80]


def test_no_two_domains_look_alike() -> None:
    found = looks([f"domain-{number}" for number in range(96)])
    assert len({(one.colour, one.dash, one.symbol) for one in found.values()}) == 96
    first = list(found.values())[:22]
    assert len({(one.colour, one.pattern) for one in first}) == 22  # as bars and areas, which have no marks


def test_a_stage_is_drawn_after_all_that_it_needs_and_an_edge_is_a_need_that_no_other_implies() -> None:
    spec = make_spec(doremi={"rounds": 2}, comparison={"mixtures": ["averaged", "reference", "hardest"]})
    record = make_experiment(doremi={"rounds": 2}, comparison={"mixtures": ["averaged", "reference", "hardest"]})
    views = [stage_view(stage) for stage in record.stages]
    drawn = graph(views)
    x = {node.stage.name: node.x for node in drawn.nodes}
    for stage in make_plan(spec).stages:
        assert all(x[need] < x[stage.name] for need in stage.needs)
    assert len({(node.x, node.y) for node in drawn.nodes}) == len(views)
    assert len(drawn.edges) < sum(len(view.needs) for view in views)


def test_a_chart_has_few_points_with_both_ends_and_reads_a_segment_once(house: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    record = seed(house, "thinned", PILE[:4])
    histories = Histories()
    found = histories.read(record, newest_proxy(record), None, house.bucket)
    assert (found.points[0].step, found.points[-1].step, found.saved) == (1, STEPS, STEPS)
    assert len(found.points) <= 240
    assert all(abs(sum(point.alpha) - 1) < 1e-9 for point in found.points)
    asked: list[str] = []
    get = house.bucket.get
    monkeypatch.setattr(house.bucket, "get", lambda key: (asked.append(key), get(key))[1])
    histories.read(record, newest_proxy(record), None, house.bucket)
    assert not [key for key in asked if "/history/" in key]
    assert thinned([*range(10)], 4) == [0, 3, 6, 9]


def test_rounds_and_objectives_besides_the_newest_have_a_chart_and_a_table_each(house: Running) -> None:
    record = seed(house, "rounds", PILE[:4], rounds=3)
    proxies = [stage.name for stage in record.stages if stage.plan.kind is StageKind.PROXY]
    text = house.http.get("/experiments/rounds").text
    identities = [attributes.get("id") for _, attributes in Elements(text).found]
    for stage in proxies:
        others = int(stage != newest_proxy(record).name)
        assert (identities.count(f"chart-stacked-{stage}"), identities.count(f"alpha-{stage}-table")) == (others, others), stage
    assert len(proxies) == 3
    assert "Other rounds" not in house.http.get(f"/experiments/{seed(house, 'one-round', PILE[:4]).name}").text


def test_a_cell_is_better_or_worse_than_the_baseline(gallery: Running) -> None:
    compared = gallery.get("/done/comparison").json()["compared"]
    averaged = next(row for row in compared["rows"] if row["mixture"] == "averaged")
    averaged["evaluation"]["losses"] |= {"books": 1.5, "code": 2.5}
    table = comparison(Compared.model_validate(compared))
    cells = {title: row[table.titles.index("DoReMi")] for title, row in table.rows}
    assert (cells["books"].verdict, cells["code"].verdict, cells["web"].verdict) == ("better", "worse", "same")
    assert (cells["books"].best, cells["code"].best) == (True, False)
    baseline = table.titles.index("baseline")
    assert {row[baseline].verdict for _, row in table.rows} == {""}


def test_the_stream_says_at_once_that_something_changed(gallery: Running) -> None:
    for path in ("/live", "/experiments/live/live"):
        with gallery.http.stream("GET", path) as answer:
            assert re.match("id: [0-9a-f]{16}", next(line for line in answer.iter_lines() if line.startswith("id")))
    assert gallery.http.get("/experiments/nobody/live").status_code == 404
