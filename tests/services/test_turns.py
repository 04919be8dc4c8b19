"""Whose turn it is to be looked at closely: everyone's, again and again, and never more at once than may be."""

from hypothesis import given
from hypothesis import strategies as st

from services.reconciler import in_turn


@given(st.integers(0, 50), st.integers(1, 60), st.integers(1, 50))
def test_everyone_has_a_turn(first: int, looks: int, count: int) -> None:
    had: list[int] = []
    for _ in range(-(-count // looks)):
        turn, first = in_turn(first % count, looks, count)
        assert len(turn) == min(looks, count)
        had += turn
    assert set(had) == set(range(count))
    assert in_turn(3, looks, 0) == (frozenset(), 0)
