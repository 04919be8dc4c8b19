"""The maps of the README and of docs/ are true, and no link in them leads nowhere."""

import re
from pathlib import Path

import pytest

from tests.architecture.readme import SECTIONS, stands
from tests.architecture.sources import ROOT

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("README.md")),
    ROOT / "charts/solfa/README.md",
    ROOT / "tests/cluster/README.md",
]
LINK = re.compile(r"""(?:\]\(|src=")(?!https?:)([^)"\s]+)""")


def anchors(page: Path) -> set[str]:
    """What a link may name within a page: its headings, as GitHub writes them."""
    headings = [line.lstrip("# ").lower() for line in page.read_text().splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_says_what_the_code_says(name: str) -> None:
    assert stands(name) == SECTIONS[name][1](), "run: python -m tests.architecture.readme"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_one_that_a_reader_comes_by() -> None:
    linked = {(page.parent / link.partition("#")[0]).resolve() for page in PAGES for link in LINK.findall(page.read_text())}
    assert [page for page in PAGES if page not in linked and page.name != "README.md"] == []
