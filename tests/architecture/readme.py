"""The sections of the README and of docs/ that are made from the code: `python -m tests.architecture.readme` rewrites all of them.

A section stands between `<!-- name -->` and `<!-- /name -->`, wherever its page has it.
"""

from collections.abc import Callable

from tests.architecture import maps
from tests.architecture.sources import ROOT
from tests.architecture.spec_table import spec_table

SECTIONS: dict[str, tuple[str, Callable[[], str]]] = {
    "exports": ("README.md", maps.exports),
    "scopes": ("README.md", maps.scopes),
    "dashboards": ("README.md", maps.dashboards),
    "metrics": ("README.md", maps.metrics),
    "texts": ("examples/demo/README.md", maps.texts),
    "spec": ("docs/spec.md", spec_table),
    "settings": ("docs/operations.md", maps.settings),
    "rest": ("docs/api.md", maps.rest),
    "exits": ("docs/api.md", maps.exits),
    "layout": ("docs/development.md", maps.layout),
    "stages": ("docs/development.md", maps.stages),
    "dependencies": ("docs/development.md", maps.dependencies),
}


def stands(name: str) -> str:
    """What its page says in that section today."""
    page, _ = SECTIONS[name]
    _, opened, rest = (ROOT / page).read_text().partition(f"<!-- {name} -->\n")
    inside, closed, _ = rest.partition(f"<!-- /{name} -->")
    if not (opened and closed):
        raise LookupError(f"{page} has no section between <!-- {name} --> and <!-- /{name} -->")
    return inside.removesuffix("\n")


def rewrite() -> None:
    """Bring every section up to date."""
    for name, (page, generate) in SECTIONS.items():
        path, end = ROOT / page, f"<!-- /{name} -->"
        before, _, rest = path.read_text().partition(f"<!-- {name} -->\n")
        path.write_text(f"{before}<!-- {name} -->\n{generate()}\n{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    rewrite()
