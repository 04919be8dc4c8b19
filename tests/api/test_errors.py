"""The tree of errors in the docstring is the tree of classes: a reader of the drawing knows codes, statuses and what is retried."""

import importlib
import pkgutil
import re

import pytest

import api
from api import errors
from api.client import BY_CODE
from api.errors import SolfaError

LINE = re.compile(r"^(?P<indent>[ │├└─]*)(?P<name>\w+) *(?:(?P<code>[a-z_]+) +(?P<status>\d{3}))?(?: +(?P<note>.*))?$")


def drawn() -> dict[str, tuple[str, str, int, bool]]:
    """Class name to (parent, code, status, retryable), as drawn."""
    lines = (errors.__doc__ or "").partition("\n\n")[2].splitlines()
    found: dict[str, tuple[str, str, int, bool]] = {}
    path: list[str] = []
    for line in lines:
        match = LINE.match(line)
        assert match, line
        depth = len(match["indent"]) // 4
        parent = path[depth - 1] if depth else "Exception"
        path[depth:] = [match["name"]]
        code, status = match["code"] or "internal", int(match["status"] or 500)
        found[match["name"]] = (parent, code, status, (match["note"] or "").startswith("retryable"))
    return found


def built(root: type[SolfaError] = SolfaError) -> dict[str, tuple[str, str, int, bool]]:
    found = {root.__name__: (root.__bases__[0].__name__, root.code, root.status, root.retryable)}
    for below in root.__subclasses__():
        if below.__module__ == errors.__name__:  # elsewhere a class may be more special, with a code of its own
            found |= built(below)
    return found


def test_the_tree_that_is_drawn_is_the_tree_that_is() -> None:
    assert drawn() == built()


def test_a_code_names_one_class() -> None:
    codes = [code for _, code, _, _ in built().values()]
    assert len(set(codes)) == len(codes)
    assert {BY_CODE[code].__name__ for code in codes} == set(built())  # so that the client raises what the service raised


def test_what_is_retryable_is_a_503_or_came_too_soon() -> None:
    assert all(retryable == (status == 503 or name == "TooManyRequests") for name, (_, _, status, retryable) in built().items())


def test_only_this_module_names_errors_in_the_contract() -> None:
    for module in pkgutil.walk_packages(api.__path__, "api."):
        importlib.import_module(module.name)
    ours = [one for one in _all(SolfaError) if one.__module__.startswith("api.")]
    assert {one.__module__ for one in ours} == {errors.__name__}


def _all(root: type[SolfaError]) -> list[type[SolfaError]]:
    return [root, *(one for below in root.__subclasses__() for one in _all(below))]


def test_an_error_carries_its_sentence_and_its_extras() -> None:
    error = errors.NotReady("Not yet.", final=False)
    assert (str(error), error.message, error.extra) == ("Not yet.", "Not yet.", {"final": False})
    with pytest.raises(SolfaError):
        raise error
