"""The project's own modules, as files and as syntax trees: what the tests of the house rules look at."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "services", "trainer")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One module."""

    path: Path
    """From the repository's root."""

    @property
    def name(self) -> str:
        """As it is imported: api.spec for api/spec/__init__.py."""
        return ".".join(self.path.with_suffix("").parts).removesuffix(".__init__")

    @cached_property
    def text(self) -> str:
        return (ROOT / self.path).read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    def imports(self) -> set[str]:
        """Every module, and every name taken from one, as `module.name`."""
        found = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        return found

    def functions(self) -> Iterator[Function]:
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))


def sources(*packages: str) -> list[Source]:
    """Every module of the packages, by default of those that are delivered, in the order of a file listing; golden files are none."""
    found = [path for package in packages or PACKAGES for path in (ROOT / package).rglob("*.py") if "golden" not in path.parts]
    return [Source(path.relative_to(ROOT)) for path in sorted(found)]
