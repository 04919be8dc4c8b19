"""A token bucket: however the clock moves, nobody is given more than the quota and what has been filled up since, nor ever less."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services import rates
from services.access.origin import sender
from services.rates import WINDOW, Rates

EXAMPLES = settings(derandomize=True, deadline=None, max_examples=100)
STEPS = st.lists(st.floats(min_value=-1, max_value=70, allow_nan=False), max_size=60)


@EXAMPLES
@given(st.integers(1, 100), STEPS)
def test_no_more_than_the_quota_and_what_was_filled_up_since(quota: int, steps: list[float]) -> None:
    now = [0.0]
    made, given_at = Rates(quota, lambda: now[0]), []
    for step in steps:
        now[0] += step
        verdict = made.ask("a")
        assert 0 <= verdict.left <= quota
        assert verdict.wait >= 1
        if verdict.allowed:
            given_at.append(now[0])
    forward = sum(max(0.0, step) for step in steps)
    assert len(given_at) <= quota * (1 + forward / WINDOW) + 1e-6


@EXAMPLES
@given(st.integers(1, 100))
def test_who_is_refused_is_let_in_after_the_time_that_was_said(quota: int) -> None:
    now = [0.0]
    made = Rates(quota, lambda: now[0])
    assert [made.ask("a").allowed for _ in range(quota)] == [True] * quota
    refused = made.ask("a")
    assert not refused.allowed
    assert made.headers(refused)["Retry-After"] == str(refused.wait)
    assert made.ask("b").allowed  # each has their own
    now[0] += refused.wait
    assert made.ask("a").allowed


def test_never_more_callers_than_there_is_room_for() -> None:
    made = Rates(1, lambda: 0.0)
    for number in range(rates.MOST_CALLERS + 50):
        made.ask(str(number))
    assert len(made._buckets) == rates.MOST_CALLERS
    assert not made.ask(str(rates.MOST_CALLERS + 49)).allowed


def test_headers_are_as_the_draft_names_them() -> None:
    made = Rates(60, lambda: 0.0)
    assert made.headers(made.ask("a")) == {"RateLimit-Policy": '"default";q=60;w=60', "RateLimit": '"default";r=59;t=1'}


@pytest.mark.parametrize(
    ("address", "stands_for"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::3", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::3", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),  # as a socket of both kinds shows it
        ("", ""),
    ],
)
def test_who_has_a_network_of_addresses_is_one_caller(address: str, stands_for: str) -> None:
    assert sender(address) == stands_for
