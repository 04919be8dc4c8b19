"""One tree of errors, drawn where it is defined; and no library's error leaves the module that calls the library."""

import ast
import re
from collections.abc import Iterator

import pytest

from api import errors
from api.errors import SolfaError
from tests.architecture.sources import Source, sources

# library -> where it may be imported, and the bases of its errors of which one is caught there
LIBRARIES = {
    "httpx": ("api.client", {"HTTPError"}),
    "obstore": ("api.bucket", {"BaseError"}),
    "sqlalchemy": ("services.store", {"DBAPIError", "SQLAlchemyError"}),
    "torchx": ("services.launch", {"ValueError", "OSError"}),
    "yaml": (("api.spec", "services.cli.specs"), {"YAMLError", "MarkedYAMLError"}),
}


def tree(root: type[SolfaError]) -> Iterator[type[SolfaError]]:
    yield root
    for below in root.__subclasses__():
        yield from tree(below)


def test_every_error_is_defined_in_the_tree() -> None:
    """Private ones too: a client makes the error anew from its code, and knows those of the tree."""
    named = {error.__name__ for error in tree(SolfaError)}
    elsewhere = {
        f"{source.name}.{node.name}"
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and named & {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    }
    assert {name for name in elsewhere if not name.startswith("api.errors.")} == set()


def test_codes_are_unique() -> None:
    codes = [error.code for error in tree(SolfaError)]
    assert sorted(codes) == sorted(set(codes))


def test_the_drawing_is_the_tree() -> None:
    drawn = re.findall(r"^[ │├└─]*─ (\w+) +(\w+) +(\d+)(.*)$", errors.__doc__ or "", flags=re.MULTILINE)
    assert [(name, code, int(status), "retryable" in note) for name, code, status, note in drawn] == [
        (error.__name__, error.code, error.status, error.retryable) for error in tree(SolfaError) if error is not SolfaError
    ]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_librarys_errors_are_caught_where_the_library_is_called(library: str) -> None:
    owner, bases = LIBRARIES[library]
    users = [source for source in sources() if any(name.partition(".")[0] == library for name in source.imports())]
    assert [source.name for source in users if not source.name.startswith(owner)] == []
    assert bases & {name for source in users for name in _caught(source)}


def _caught(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            yield from (ast.unparse(kind).rpartition(".")[2] for kind in kinds)
