"""Every bucket key, as a reviewer can read them; and no two kinds of object share a place."""

import inspect
from typing import Any

from api import keys
from tests.reference import assert_golden

SAMPLE: dict[str, Any] = {
    "experiment_id": "xaaaaaaaaaa",
    "stage": "proxy-2",
    "attempt": 3,
    "step": 1500,
    "first_step": 1001,
    "last_step": 1500,
    "token": "1f2e3d",
}


def all_keys() -> dict[str, str]:
    """Each function that makes a key, with sample arguments."""
    members = [one for _, one in inspect.getmembers(keys, inspect.isfunction) if one.__module__ == keys.__name__]
    functions = [one for one in members if inspect.signature(one).return_annotation is str]
    return {one.__name__: one(**{name: SAMPLE[name] for name in inspect.signature(one).parameters}) for one in functions}


def test_each_key_is_as_the_golden_file_says() -> None:
    found = "".join(f"{name:18} {key}\n" for name, key in sorted(all_keys().items()))
    assert_golden("keys.txt", found)


def test_a_prefix_ends_in_a_slash_and_a_key_does_not() -> None:
    for name, key in all_keys().items():
        assert key.endswith("/") == name.endswith("_prefix"), name
        assert not key.startswith("/")
        assert "//" not in key


def test_no_key_is_another_and_none_lies_below_one() -> None:
    found = all_keys()
    assert len(set(found.values())) == len(found)
    for name, key in found.items():
        if not key.endswith("/"):
            assert not any(other.startswith(f"{key}/") for other in found.values()), name


def test_all_of_an_experiment_goes_with_its_prefix() -> None:
    prefix = keys.experiment_prefix(SAMPLE["experiment_id"])
    assert [name for name, key in all_keys().items() if not key.startswith(prefix)] == ["probe"]


def test_attempts_and_steps_never_share_what_they_alone_write() -> None:
    places = [
        {keys.state_prefix("x", "s", step, attempt) for step in (1, 10, 999_999_999) for attempt in (1, 2, 11)},
        {keys.history_segment("x", "s", first, 12, attempt) for first in (1, 2) for attempt in (1, 2, 11)},
        {keys.output_prefix("x", "s", attempt) for attempt in (1, 2, 11)},
        {keys.attempt_prefix("x", "s", attempt) for attempt in (1, 2, 11)},
    ]
    assert [len(one) for one in places] == [9, 6, 3, 3]
    for one in places:
        assert not any(a != b and a.startswith(b) for a in one for b in one)


def test_steps_sort_as_numbers() -> None:
    steps = [1, 2, 10, 999, 123_456_789]
    assert sorted(keys.state_prefix("x", "s", step, 1) for step in steps) == [keys.state_prefix("x", "s", step, 1) for step in steps]


def test_a_results_key_tells_whose_it_is() -> None:
    assert keys.owner(keys.result("xaaaaaaaaaa", "baseline-uniform")) == ("xaaaaaaaaaa", "baseline-uniform")
