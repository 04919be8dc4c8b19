"""The README's maps are true."""

import re

import pytest

from tests.architecture.readme import README, SECTIONS, stands


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_says_what_the_code_says(name: str) -> None:
    assert stands(name) == SECTIONS[name](), "run: python -m tests.architecture.readme"


def test_every_link_within_the_readme_has_its_heading() -> None:
    text = README.read_text()
    headings = {re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in text.splitlines() if line.startswith("#")}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


def test_every_file_that_the_readme_links_to_is_there() -> None:
    targets = re.findall(r"\]\((?!#|https?:)([^)#]+)", README.read_text())
    assert [target for target in targets if not (README.parent / target).exists()] == []
