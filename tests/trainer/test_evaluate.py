"""Log-perplexity by domain is what transformers itself computes from the published files; the comparison, on numbers made up for it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from api.domains import DomainWeights
from api.results import Evaluation, EvaluationPoint, StageResult, Trained
from api.stages import StageKind
from tests.trainer.stage_runner import StageRunner
from trainer.data import open_prepared
from trainer.evaluate import compare

torch.set_num_threads(1)
LENGTH = 32


def by_transformers(runner: StageRunner, stage: str, rows: int | None = None) -> Evaluation:
    """The published model under transformers' own loss over the same held-out rows."""
    model = AutoModelForCausalLM.from_pretrained(runner.bucket.root / runner.result(stage).files["model"]).eval()
    data = open_prepared(runner.bucket, runner.result("prepare"), Path())
    losses, tokens = {}, {}
    for domain, name in enumerate(data.names):
        ids = torch.from_numpy(data.take_validation(domain, 0, rows or data.validation_rows[domain]).copy()).long()
        with torch.no_grad():
            losses[name] = float(model(input_ids=ids, labels=ids).loss)
        tokens[name] = len(ids) * LENGTH
    return Evaluation(losses=losses, tokens=tokens, average=sum(losses.values()) / 3, worst=max(losses.values()))


def assert_close(found: Evaluation, expected: Evaluation) -> None:
    assert found.losses == pytest.approx(expected.losses, abs=1e-5)
    assert found.tokens == expected.tokens
    assert (found.average, found.worst) == pytest.approx((expected.average, expected.worst), abs=1e-5)


def test_each_row_of_the_comparison_is_the_published_models_log_perplexity(undisturbed: StageRunner) -> None:
    rows = undisturbed.result("evaluate").compared.rows
    assert [(row.mixture, row.stage) for row in rows] == [
        ("averaged", "main"),
        ("reference", "baseline-reference"),
        ("uniform", "baseline-uniform"),
    ]
    for row in rows:
        assert_close(row.evaluation, by_transformers(undisturbed, row.stage))
        assert row.curve == undisturbed.result(row.stage).trained.evaluations


def test_during_training_it_takes_the_rows_and_steps_that_the_spec_says(undisturbed: StageRunner) -> None:
    trained = undisturbed.result("main").trained
    assert [point.step for point in trained.evaluations] == [6, 12]
    assert_close(trained.evaluations[-1].evaluation, by_transformers(undisturbed, "main", rows=8))
    assert trained.final_loss == trained.evaluations[-1].evaluation.average


def test_a_sharded_models_files_are_whole_and_its_evaluation_is_shared_out(undisturbed: StageRunner, work: Path) -> None:
    sequences = {"comparison": {"mixtures": ["averaged"], "sequences": 21}}  # no multiple of processes x micro-batch
    runner = undisturbed.copy(work, "main", "evaluate", compute={"default": {"processes": 2, "parallelism": "fsdp"}}, **sequences)
    runner.finish("main", processes=2)
    runner.finish("evaluate", processes=2)
    assert_close(runner.result("main").trained.evaluations[-1].evaluation, by_transformers(runner, "main", rows=8))
    assert_close(runner.result("evaluate").compared.rows[0].evaluation, by_transformers(runner, "main", rows=21))
    assert runner.result("main").trained.parameters == undisturbed.result("main").trained.parameters


def evaluation(**losses: float) -> Evaluation:
    return Evaluation(
        losses=losses, tokens=dict.fromkeys(losses, 1), average=sum(losses.values()) / len(losses), worst=max(losses.values())
    )


def model(stage: str, *averages: float) -> StageResult:
    """The result of a model whose average loss was evaluated every 100 steps."""
    curve = [EvaluationPoint(step=100 * number, evaluation=evaluation(a=loss, b=loss)) for number, loss in enumerate(averages, 1)]
    trained = Trained(
        steps=100 * len(averages),
        tokens=1,
        parameters=1,
        sampling_weights=DomainWeights.uniform(["a", "b"]),
        epochs={"a": 1, "b": 1},
        final_loss=averages[-1] if averages else 0,
        evaluations=curve,
        seconds=1,
        tokens_per_second=1,
    )
    named = {"experiment_id": "x", "stage": stage, "kind": StageKind.BASELINE, "round": 1, "attempt": 1, "digest": None}
    return StageResult(**named, created_at=datetime(2026, 1, 1, tzinfo=UTC), trained=trained)


BASELINE = (model("base", 5.0, 4.0, 3.0), "reference", evaluation(a=3.0, b=2.0))


def test_it_counts_better_and_worse_domains_and_leaves_ties_out() -> None:
    other = (model("other", 5.0), "averaged", evaluation(a=2.9, b=2.0))
    worse = (model("worse", 5.0), "uniform", evaluation(a=2.0, b=2.1))
    compared = compare([other, BASELINE, worse])
    assert compared.baseline == "reference"
    assert [(row.mixture, row.better, row.worse) for row in compared.rows] == [
        ("averaged", ["a"], []),
        ("reference", [], []),
        ("uniform", ["a"], ["b"]),
    ]


@pytest.mark.parametrize(
    ("averages", "step"),
    [((4.0, 3.0, 2.0), 200), ((2.9, 3.1, 2.0), 100), ((5.0, 4.0, 3.01), None), ((5.0, 4.0, 3.0), 300)],
)
def test_the_first_evaluated_step_at_the_baselines_last_average(averages: tuple[float, ...], step: int | None) -> None:
    row = compare([BASELINE, (model("other", *averages), "averaged", evaluation(a=1.0, b=1.0))]).rows[1]
    assert row.steps_to_baseline == step
    assert compare([BASELINE]).rows[0].steps_to_baseline is None


def test_without_a_baseline_there_is_nothing_to_compare_with() -> None:
    compared = compare([(model("other", 1.0), "averaged", evaluation(a=1.0, b=1.0))])
    row = compared.rows[0]
    assert (compared.baseline, row.better, row.worse, row.steps_to_baseline) == (None, [], [], None)
    assert row.evaluation.average == 1.0
    assert row.evaluation.worst == 1.0
