"""DomainWeights: always on the simplex, always in canonical order, whatever they are made from."""

import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from api.domains import TOLERANCE, DomainWeights

relaxed = settings(deadline=None, derandomize=True, max_examples=100)
names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,9}", fullmatch=True)
shares = st.dictionaries(names, st.floats(0, 1e12), min_size=1, max_size=8).filter(lambda table: sum(table.values()) > 0)
weights = shares.map(DomainWeights.normalised)


@relaxed
@given(shares)
def test_normalised_shares_are_on_the_simplex_in_canonical_order(table: dict[str, float]) -> None:
    found = DomainWeights.normalised(table)
    assert math.fsum(found.root.values()) == pytest.approx(1, abs=1e-12)
    assert found.names == sorted(table)
    total = math.fsum(table.values())
    assert all(found[name] == pytest.approx(table[name] / total) for name in table)
    assert DomainWeights.normalised(dict(reversed(table.items()))) == found


@relaxed
@given(weights)
def test_weights_come_back_from_json_and_from_their_vector(found: DomainWeights) -> None:
    assert DomainWeights.model_validate_json(found.model_dump_json()) == found
    assert list(DomainWeights.model_validate_json(found.model_dump_json()).root) == sorted(found.root)
    backwards = found.names[::-1]
    again = DomainWeights.of(backwards, found.vector(backwards))
    assert again.max_difference(found) < 1e-12
    assert dict(found.items()) == found.root
    assert len(found) == len(found.root)


@relaxed
@given(weights, weights, weights)
def test_max_difference_is_a_distance(a: DomainWeights, b: DomainWeights, c: DomainWeights) -> None:
    assert a.max_difference(a) == 0
    assert 0 <= a.max_difference(b) == b.max_difference(a) <= 1
    assert a.max_difference(c) <= a.max_difference(b) + b.max_difference(c) + 1e-12
    assert (a.max_difference(b) == 0) == all(a.root.get(name, 0) == b.root.get(name, 0) for name in {*a.root, *b.root})


@relaxed
@given(st.lists(names, min_size=1, max_size=8, unique=True))
def test_uniform_is_one_over_k(domains: list[str]) -> None:
    assert DomainWeights.uniform(domains).root == pytest.approx(dict.fromkeys(sorted(domains), 1 / len(domains)))


def test_a_published_table_is_renormalised_and_float32_rounding_absorbed() -> None:
    assert sum(DomainWeights.normalised({"a": 0.6058, "b": 0.3943}).root.values()) == pytest.approx(1, abs=1e-15)
    assert DomainWeights.of(["b", "a"], [0.1 + 1e-8, 0.9])["b"] == pytest.approx(0.1, abs=1e-7)
    DomainWeights({"a": 0.5, "b": 0.5 + TOLERANCE / 2})
    assert DomainWeights.normalised({"a": 1e308, "b": 1e308}) == DomainWeights.uniform(["a", "b"])
    assert DomainWeights.normalised({"a": sys.float_info.min, "b": 0})["a"] == 1


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "at least one domain"),
        ({"a": 0.5, "b": 0.4}, "sum to 0.9, not to 1"),
        ({"a": 1e308, "b": 1e308}, "less than or equal to 1"),
        ({"a": 1.5, "b": -0.5}, "greater than or equal to 0"),
        ({"a": float("nan")}, "finite"),
        ({"a": float("inf")}, "finite"),
        ({"A": 1.0}, "match pattern"),
        ({"": 1.0}, "match pattern"),
    ],
)
def test_what_is_not_on_the_simplex_is_refused(table: dict[str, float], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DomainWeights(table)


@pytest.mark.parametrize(
    "table",
    [{}, {"a": 0.0}, {"a": -1.0, "b": 2.0}, {"a": float("nan")}, {"a": float("inf")}],
)
def test_shares_that_cannot_be_normalised_are_refused(table: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"shares must"):
        DomainWeights.normalised(table)


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        DomainWeights.of(["a", "b"], [1.0])
    with pytest.raises(KeyError):
        DomainWeights.uniform(["a"]).vector(["b"])


def test_weights_are_frozen() -> None:
    with pytest.raises(ValidationError):
        DomainWeights.uniform(["a"]).root = {}
