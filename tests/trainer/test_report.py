"""What a running stage says of itself: where it is, how fast, what it found so far, and that it lives."""

import functools
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from api import keys
from api.bucket import Bucket
from api.stage_config import StageConfig, StageReport
from tests.services.waiting import wait_for
from tests.trainer.faults import Fault, hold_until
from tests.trainer.stage_runner import StageRunner
from trainer import report
from trainer.report import Reporter
from trainer.world import World


def test_a_proxys_last_report_holds_what_it_found(undisturbed: StageRunner) -> None:
    said, found = undisturbed.report("proxy"), undisturbed.result("proxy")
    assert (said.attempt, said.step, said.total, said.unit, said.resumed_from, said.world_size) == (1, 12, 12, "steps", 0, 1)
    assert said.activity == "saving the model"
    assert said.domain_weights == found.searched.final_weights
    assert said.averaged_weights.max_difference(found.searched.averaged_weights) < 1e-12
    assert said.epochs == found.trained.epochs
    assert [point.step for point in said.evaluations] == [6, 12] or [point.step for point in said.evaluations] == [6]
    names = {"easy", "hard", "middle"}
    assert (set(said.excess_losses), set(said.domain_losses)) == (names, names)
    assert all(excess >= 0 for excess in said.excess_losses.values())
    assert said.tokens_per_second > 0
    assert said.seconds_left == 0
    assert 0 <= said.data_wait_share <= 1
    assert said.gradient_norm > 0
    assert said.learning_rate == pytest.approx(1e-4)  # the schedule's end: a tenth of the peak


def test_a_plain_stage_reports_no_weights(undisturbed: StageRunner) -> None:
    said = undisturbed.report("main")
    assert (said.domain_weights, said.averaged_weights, said.excess_losses) == (None, None, {})
    assert said.loss > 0


def test_a_stage_that_is_busy_in_one_step_goes_on_reporting_that_it_lives(undisturbed: StageRunner, work: Path) -> None:
    runner, gate = undisturbed.copy(work, "proxy"), work / "gate"
    attempt = runner.fork("proxy", faults=[Fault("trainer.steps:DoremiStep.__call__", functools.partial(hold_until, gate), 6)])
    wait_for(gate.with_suffix(".held").exists, 60)
    first = wait_for(lambda: (found := runner.report("proxy")) and found.step == 5 and found, 60)
    later = wait_for(lambda: (found := runner.report("proxy")).updated_at > first.updated_at and found, 60)
    assert (first.activity, later.activity, later.step) == ("training", "training", 5)
    assert later.progressed_at == first.progressed_at < later.updated_at, "a person is told that it does not get on"
    assert first.seconds_left > 0
    assert max(weight for _, weight in first.domain_weights.items()) > 0.35  # alpha has moved from a third
    gate.touch()
    assert attempt.wait() == [0], attempt.output


def test_an_evaluation_gets_on_with_each_batch_though_it_says_nothing_new(undisturbed: StageRunner, work: Path) -> None:
    stage, within = "main", "trainer.evaluate:domain_sums"
    runner, gates = undisturbed.copy(work, stage), (work / "first", work / "second")
    attempt = runner.fork(stage, faults=[Fault(within, functools.partial(hold_until, gate), 2 + n) for n, gate in enumerate(gates)])
    seen = []
    for gate in gates:
        wait_for(gate.with_suffix(".held").exists, 60)
        before = runner.report(stage).updated_at
        seen.append(wait_for(lambda before=before: (found := runner.report(stage)).updated_at > before and found, 60))
        gate.touch()
    assert seen[0].activity == seen[1].activity
    assert seen[0].progressed_at < seen[1].progressed_at
    assert attempt.wait() == [0], attempt.output


@pytest.fixture
def config(undisturbed: StageRunner) -> StageConfig:
    key = keys.attempt_config(undisturbed.experiment, "main", 1)
    return StageConfig.model_validate_json(undisturbed.bucket.get(key).data)


def read(bucket: Bucket, config: StageConfig) -> StageReport:
    return StageReport.model_validate_json(bucket.get(keys.attempt_report(config.experiment_id, config.plan.name, config.attempt)).data)


def test_fields_last_until_they_are_given_anew_and_leaving_writes_the_last_word(config: StageConfig) -> None:
    bucket = Bucket(MemoryStore(), "memory://")
    with Reporter(config, bucket, World(size=3, restarts=2)) as reporter:
        begun = read(bucket, config)
        assert (begun.activity, begun.world_size, begun.restarts, begun.total) == ("starting", 3, 2, 0)
        reporter.progress("training", 3, 10, loss=1.5, epochs={"easy": 0.5})
        reporter.progress("saving", 3, 10)
    ended = read(bucket, config)
    assert (ended.activity, ended.step, ended.total, ended.loss, ended.epochs) == ("saving", 3, 10, 1.5, {"easy": 0.5})


def test_restarts_are_counted_on_where_the_agent_itself_starts_again(config: StageConfig) -> None:
    bucket, key = Bucket(MemoryStore(), "memory://"), keys.attempt_report(config.experiment_id, config.plan.name, config.attempt)
    for agents_count, counted in ((0, 0), (1, 1), (0, 2), (1, 3), (7, 7)):
        with Reporter(config, bucket, World(restarts=agents_count)):
            assert read(bucket, config).restarts == counted
    bucket.put(key, b"{")
    with Reporter(config, bucket, World(restarts=1)):
        assert read(bucket, config).restarts == 1


def test_only_the_first_process_reports(config: StageConfig) -> None:
    bucket = Bucket(MemoryStore(), "memory://")
    with Reporter(config, bucket, World(rank=1, size=2)) as reporter:
        reporter.progress("training", 1, 2)
    assert list(bucket.list("")) == []


def test_a_report_is_written_even_when_nothing_new_is_said(config: StageConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "HEARTBEAT_SECONDS", 0.001)
    bucket = Bucket(MemoryStore(), "memory://")
    with Reporter(config, bucket, World()):
        first = read(bucket, config).updated_at
        wait_for(lambda: read(bucket, config).updated_at > first)
