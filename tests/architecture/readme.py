"""The README's sections that are made from the code: `python -m tests.architecture.readme` rewrites all of them.

A section stands between `<!-- name -->` and `<!-- /name -->`, wherever the README has it.
"""

from collections.abc import Callable
from pathlib import Path

from tests.architecture import maps
from tests.architecture.spec_table import spec_table

README = Path(__file__).parents[2] / "README.md"
SECTIONS: dict[str, Callable[[], str]] = {
    "texts": maps.texts,
    "spec": spec_table,
    "exports": maps.exports,
    "rest": maps.rest,
    "scopes": maps.scopes,
    "stages": maps.stages,
    "settings": maps.settings,
    "metrics": maps.metrics,
    "layout": maps.layout,
    "dependencies": maps.dependencies,
}


def stands(name: str) -> str:
    """What the README says in that section today."""
    _, opened, rest = README.read_text().partition(f"<!-- {name} -->\n")
    inside, closed, _ = rest.partition(f"\n<!-- /{name} -->")
    if not (opened and closed):
        raise LookupError(f"README.md has no section between <!-- {name} --> and <!-- /{name} -->")
    return inside


def rewrite() -> None:
    """Bring every section up to date."""
    for name, generate in SECTIONS.items():
        before, after = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        README.write_text(README.read_text().replace(before + stands(name) + after, before + generate() + after))


if __name__ == "__main__":
    rewrite()
