"""Replay: plain floats recompute what the trainer recorded, and notice what was tampered with, lost or repeated."""

import gzip
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.errors import DataError
from api.replay import next_weights, replay, replay_segments
from api.weights import HistoryHeader, WeightCheckpoint, read_segment, write_segment
from trainer import doremi

DOMAINS = ["books", "code", "web"]


def header(first_step: int = 1, **changes: object) -> HistoryHeader:
    whole = {"experiment": "x", "stage": "proxy", "domains": DOMAINS, "eta": 1.0, "smoothing": 1e-3, "objective": "excess"}
    return HistoryHeader.model_validate({**whole, "first_step": first_step, **changes})


def trajectory(scores: list[list[float]], eta: float = 1.0, smoothing: float = 1e-3) -> list[WeightCheckpoint]:
    """The records that the trainer's own update (numpy) makes of these scores."""
    state, records = doremi.start(len(scores[0])), []
    for number, row in enumerate(scores, 1):
        state = doremi.step(state, row, eta, smoothing)
        records.append(
            WeightCheckpoint(
                step=number,
                attempt=1,
                tokens_seen=number * 6,
                domain_weights=state.alpha.tolist(),
                weight_sum=state.weight_sum.tolist(),
                count=state.count,
                excess_losses=list(row),
                domain_tokens=[2] * len(row),
                domain_losses=[2.0] * len(row),
            )
        )
    return records


SCORES = np.abs(np.random.default_rng(0).normal(size=(40, 3))).tolist()


def test_the_trainers_records_agree_and_give_its_average() -> None:
    records = trajectory(SCORES)
    found = replay_segments([write_segment(header(1), records[:25]), write_segment(header(26), records[25:])])
    assert (found.agrees, found.steps, found.first_disagreeing_step) == (True, 40, None)
    assert max(found.max_alpha_difference, found.max_average_difference) < 1e-13
    assert found.averaged_weights.vector(DOMAINS) == pytest.approx(np.mean([r.domain_weights for r in records], axis=0), abs=1e-14)
    assert found.final_weights.vector(DOMAINS) == pytest.approx(records[-1].domain_weights, abs=1e-14)


def test_the_worked_example_to_eight_digits() -> None:
    found = replay([(header(), trajectory([[0.3, 0.1, 0.0]]))])
    assert [round(value, 8) for value in found.final_weights.vector(DOMAINS)] == [0.39063647, 0.31988652, 0.28947701]


@settings(max_examples=40, deadline=None)
@given(
    scores=st.lists(st.lists(st.floats(0, 1e4), min_size=3, max_size=3), min_size=1, max_size=12),
    eta=st.floats(1e-3, 2),
    smoothing=st.sampled_from([0.0, 1e-3, 0.5, 1.0]),
)
def test_plain_floats_and_the_trainer_agree_on_any_scores(scores: list[list[float]], eta: float, smoothing: float) -> None:
    found = replay([(header(eta=eta, smoothing=smoothing), trajectory(scores, eta, smoothing))])
    assert found.agrees
    assert found.max_alpha_difference < 1e-12


def test_a_changed_weight_is_found_where_it_was_changed() -> None:
    records = trajectory(SCORES)
    moved = [value + shift for value, shift in zip(records[16].domain_weights, (1e-6, -1e-6, 0.0), strict=True)]
    records[16] = records[16].model_copy(update={"domain_weights": moved})
    found = replay([(header(), records)])
    assert (found.agrees, found.first_disagreeing_step) == (False, 17)
    assert found.max_alpha_difference == pytest.approx(1e-6, rel=1e-3)


def test_a_history_that_restarted_from_uniform_disagrees() -> None:
    early, late = trajectory(SCORES[:20]), trajectory(SCORES[20:])
    late = [r.model_copy(update={"step": r.step + 20, "count": r.count + 20}) for r in late]
    found = replay([(header(1), early), (header(21), late)])
    assert (found.agrees, found.first_disagreeing_step) == (False, 21)


def test_an_average_that_includes_alpha_0_disagrees() -> None:
    records = trajectory(SCORES)
    wrong = [r.model_copy(update={"weight_sum": [value + 1 / 3 for value in r.weight_sum]}) for r in records]
    found = replay([(header(), wrong)])
    assert not found.agrees
    assert found.max_alpha_difference < 1e-13


def dropped(records: list[WeightCheckpoint]) -> list[WeightCheckpoint]:
    return records[:10] + records[11:]


def repeated(records: list[WeightCheckpoint]) -> list[WeightCheckpoint]:
    return [*records[:11], records[10], *records[11:]]


def short_vector(records: list[WeightCheckpoint]) -> list[WeightCheckpoint]:
    return [records[0].model_copy(update={"domain_weights": [0.5, 0.5]}), *records[1:]]


def not_a_number(records: list[WeightCheckpoint]) -> list[WeightCheckpoint]:
    return [records[0].model_copy(update={"excess_losses": [0.0, float("nan"), 0.0]}), *records[1:]]


def short_count(records: list[WeightCheckpoint]) -> list[WeightCheckpoint]:
    return [*records[:5], records[5].model_copy(update={"count": 1}), *records[6:]]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (dropped, "go on with step 11, but its next record is of step 12"),
        (repeated, "go on with step 12, but its next record is of step 11"),
        (short_vector, "step 1 has a vector that is not of its 3 domains"),
        (not_a_number, "step 1 has an excess loss that is not a number"),
        (short_count, "step 6 sums up 1 weights"),
        (lambda records: [], "history is empty"),
    ],
)
def test_damage_is_an_error_with_the_step(damage: Callable[[list[WeightCheckpoint]], list[WeightCheckpoint]], says: str) -> None:
    with pytest.raises(DataError, match=says):
        replay([(header(), damage(trajectory(SCORES)))])


def test_segments_out_of_order_missing_or_of_another_search() -> None:
    records = trajectory(SCORES)
    early, late = (header(1), records[:25]), (header(26), records[25:])
    for segments in ([late, early], [late], [early, early]):
        with pytest.raises(DataError, match="should go on with step"):
            replay(segments)
    with pytest.raises(DataError, match="another search"):
        replay([early, (header(26, eta=0.5), records[25:])])
    with pytest.raises(DataError, match="empty"):
        replay([])


def test_a_segment_is_the_same_bytes_and_keeps_every_bit() -> None:
    records = trajectory(SCORES)
    data = write_segment(header(), records)
    assert data == write_segment(header(), iter(records))
    assert read_segment(data) == (header(), records)


def test_a_damaged_segment_is_one_clear_error() -> None:
    data = write_segment(header(), trajectory(SCORES))
    for damaged in (data[:-20], b"", b"not gzip", gzip.compress(b"{}\n"), gzip.compress(b"\xff\xfe"), data[:40] + b"x" + data[41:]):
        with pytest.raises(DataError, match="cannot be read"):
            read_segment(damaged)


def test_a_weight_of_zero_stays_zero_and_sets_no_scale() -> None:
    assert next_weights([0.0, 0.5, 0.5], [1e4, 1.0, 1.0], 1.0, 0.0) == [0.0, 0.5, 0.5]
