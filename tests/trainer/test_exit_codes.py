"""How an attempt ends: done, never again, or again; what it says of it; and that nothing saved before is harmed."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from api import keys
from api.errors import BucketUnavailable
from api.stage_config import AttemptFailure, ExitCode
from tests.builders import START
from tests.services.waiting import wait_for
from tests.trainer import equality
from tests.trainer.faults import Fault, break_embeddings, fail_with, hold_until
from tests.trainer.stage_runner import TINY, StageRunner
from trainer.rows import map_rows

PLAIN, DOREMI = "trainer.steps:PlainStep.__call__", "trainer.steps:DoremiStep.__call__"
STEP = {"reference": PLAIN, "proxy": DOREMI}
AWAY = functools.partial(fail_with, BucketUnavailable("The bucket did not answer; try again."))
DONE, NEVER, AGAIN = [ExitCode.DONE], [ExitCode.BAD_CONFIG], [1]


def tokens_of(runner: StageRunner, domain: str) -> list[int]:
    """The ids that occur in this domain's training text and in no other's."""
    folder = runner.bucket.root / runner.result("prepare").files["data"]
    seen = {path.name: set(np.unique(map_rows(path)).tolist()) for path in folder.iterdir()}
    return sorted(seen.pop(domain) - set.union(*seen.values()))


@pytest.mark.parametrize("stage", ["reference", "proxy"])
def test_a_loss_that_is_no_number_stops_the_stage_before_it_is_saved(undisturbed: StageRunner, work: Path, stage: str) -> None:
    runner = undisturbed.copy(work, stage)
    breaking = functools.partial(break_embeddings, tokens_of(undisturbed, "hard"))
    assert runner.fork(stage, faults=[Fault(STEP[stage], breaking, 8)]).wait() == NEVER  # in the step that would have been saved
    said = runner.failure(stage)
    assert (said.code, said.retryable, said.exit_code) == ("non_finite_loss", False, ExitCode.BAD_CONFIG)
    assert said.message.startswith("The loss of hard is NaN or infinite;")
    assert runner.pointer(stage).step == 4
    runner.finish(stage, 2)  # a person has repaired the device
    equality.assert_same_bits(equality.state(runner, stage, work), equality.state(undisturbed, stage, work))
    assert equality.result(runner, stage) == equality.result(undisturbed, stage)


def test_a_held_out_loss_that_is_no_number_stops_the_stage_too(undisturbed: StageRunner, work: Path) -> None:
    runner = undisturbed.copy(work, "main")
    breaking = functools.partial(break_embeddings, tokens_of(undisturbed, "hard"))
    assert runner.fork("main", faults=[Fault("trainer.loop:evaluate", breaking, 2)]).wait() == NEVER
    assert runner.failure("main").message.startswith("The held-out loss of hard is NaN or infinite;")
    assert runner.pointer("main").step == 8


def test_a_reference_that_is_broken_in_one_domain_is_told_by_its_name(undisturbed: StageRunner, work: Path) -> None:
    runner = undisturbed.copy(work, "proxy")
    path = runner.bucket.root / runner.result("reference").files["model"] / "model.safetensors"
    weights = load_file(path)
    weights["model.embed_tokens.weight"][tokens_of(undisturbed, "hard")] = np.nan
    save_file(weights, path, {"format": "pt"})
    assert runner.fork("proxy").wait() == NEVER
    assert runner.failure("proxy").message.startswith("The reference loss of hard is NaN or infinite;")
    assert runner.pointer("proxy") is None


def test_a_run_that_diverges_stops_with_a_sentence(undisturbed: StageRunner, work: Path) -> None:
    training = undisturbed.spec.training.model_dump(mode="json")
    runner = undisturbed.copy(work, "reference", training={"proxy": {**training["proxy"], "learning_rate": 1e38}})
    assert runner.fork("reference").wait() == NEVER
    said = runner.failure("reference")
    assert said.code == "non_finite_loss"
    assert "lower the learning rate" in said.message
    assert runner.pointer("reference") is None


def test_a_stale_attempt_stops_and_changes_nothing(undisturbed: StageRunner, work: Path) -> None:
    runner = undisturbed.copy(work, "proxy")
    gate = work / "gate"
    stale = runner.fork("proxy", 1, faults=[Fault(DOREMI, functools.partial(hold_until, gate), 7)])
    wait_for(gate.with_suffix(".held").exists)
    runner.finish("proxy", 2)
    pointer, states = runner.pointer("proxy"), runner.states("proxy")
    gate.touch()
    assert stale.wait() == NEVER
    said = runner.failure("proxy", 1)
    assert (said.code, said.message) == ("superseded", "Attempt 1 of proxy stops: a newer attempt has taken over its train state.")
    assert runner.failure("proxy", 2) is None
    assert (runner.pointer("proxy"), runner.states("proxy")) == (pointer, states)
    equality.assert_same_bits(equality.state(runner, "proxy", work), equality.state(undisturbed, "proxy", work))
    assert equality.result(runner, "proxy") == equality.result(undisturbed, "proxy")


def test_of_two_attempts_that_publish_one_counts(undisturbed: StageRunner, work: Path) -> None:
    runner = undisturbed.copy(work, "main")
    gate, key = work / "gate", keys.result(runner.experiment, "main")
    slow = runner.fork("main", 1, faults=[Fault("trainer.__main__:_publish", functools.partial(hold_until, gate))])
    wait_for(gate.with_suffix(".held").exists)
    runner.finish("main", 2)
    committed = runner.bucket.get(key)
    gate.touch()
    assert slow.wait() == DONE
    assert "another attempt committed its result first" in slow.output
    assert runner.bucket.get(key) == committed
    assert runner.result("main").attempt == 2
    assert equality.result(runner, "main") == equality.result(undisturbed, "main")


def test_a_stage_that_is_done_ends_at_once(undisturbed: StageRunner, work: Path) -> None:
    runner = undisturbed.copy(work)
    again = runner.fork("main", 2)
    assert again.wait() == DONE
    assert "main is done already" in again.output
    assert runner.report("main", 2) is None
    assert runner.result("main").attempt == 1


def test_a_config_that_cannot_be_read_is_never_tried_again(undisturbed: StageRunner, work: Path) -> None:
    runner = undisturbed.copy(work, "main")
    key = runner.config("main", 3)
    newer = json.loads(runner.bucket.get(key).data) | {"field_of_a_newer_service": 1}
    runner.bucket.put(key, json.dumps(newer).encode())
    assert runner.fork("main", config=key).wait() == NEVER
    said = runner.failure("main", 3)  # torchrun hides the exit code
    assert (said.code, said.retryable, said.exit_code, said.attempt) == ("bad_config", False, ExitCode.BAD_CONFIG, 3)
    assert "is the trainer of the service's version?" in said.message
    assert runner.fork("main", config="experiments/xtest/nowhere.json").wait() == NEVER


def test_what_can_never_work_is_said_in_a_sentence(undisturbed: StageRunner, work: Path) -> None:
    runner = undisturbed.copy(work, "main", models={"proxy": {"config": {**TINY, "hidden_sise": 3}}})
    assert runner.fork("main").wait() == NEVER
    said = runner.failure("main")
    assert (said.code, said.retryable, said.tail) == ("bad_data", False, [])
    assert said.message == "A llama config has no field `hidden_sise`; did you mean `hidden_size`?"


def test_a_bucket_that_is_away_while_reporting_does_no_harm(undisturbed: StageRunner, work: Path) -> None:
    runner = undisturbed.copy(work, "main")
    runner.finish("main", faults=[Fault("api.bucket:FileBucket.put", AWAY, None, about="report.json")])
    assert runner.report("main") is None
    assert equality.result(runner, "main") == equality.result(undisturbed, "main")


@pytest.mark.parametrize("deaf", [False, True])
def test_a_bucket_that_is_away_while_saving_is_tried_again(undisturbed: StageRunner, work: Path, deaf: bool) -> None:
    runner = undisturbed.copy(work, "proxy")
    nothing_recorded = [Fault("api.bucket:FileBucket.create", AWAY, None, about="failure.json")] if deaf else []
    attempt = runner.fork("proxy", faults=[Fault("api.bucket:FileBucket.replace", AWAY), *nothing_recorded])
    assert attempt.wait() == AGAIN
    assert "proxy ends: The bucket did not answer; try again." in attempt.output
    said = runner.failure("proxy")
    assert said is None if deaf else (said.code, said.retryable) == ("bucket_unavailable", True)
    assert runner.pointer("proxy").step == 4
    runner.finish("proxy", 2)
    assert equality.history(runner, "proxy") == equality.history(undisturbed, "proxy")


def test_old_states_that_cannot_be_removed_do_no_harm(undisturbed: StageRunner, work: Path) -> None:
    runner = undisturbed.copy(work, "main")
    runner.finish("main", faults=[Fault("api.bucket:FileBucket.delete_prefix", AWAY)])
    assert equality.result(runner, "main") == equality.result(undisturbed, "main")


FULL = {"a train state": "__0_0.distcp", "the RNG": "rng-0.pt"}


def fill(states: Path, file: str) -> None:
    """As if the disk were full when this file of the state of step 8 is written."""
    (folder,) = states.glob("000000008-a1/*")
    (folder / file).symlink_to("/dev/full")


@pytest.mark.parametrize("what", FULL)
def test_a_full_disk_is_told_and_harms_no_state(undisturbed: StageRunner, work: Path, what: str) -> None:
    runner = undisturbed.copy(work, "proxy")
    states = runner.bucket.root / keys.stage_prefix(runner.experiment, "proxy") / "states"
    attempt = runner.fork("proxy", faults=[Fault("trainer.state:save", functools.partial(fill, states, FULL[what]), call=2)])
    assert attempt.wait() == NEVER, attempt.output
    said = runner.failure("proxy")
    assert (said.code, said.retryable) == ("out_of_space", False)
    assert said.message.startswith("The disk is full. Free some space and retry;")
    assert runner.pointer("proxy").step == 4
    assert runner.states("proxy") == ["000000004-a1"]  # the half of a state is gone, and its space with it
    runner.finish("proxy", 2)
    assert equality.history(runner, "proxy") == equality.history(undisturbed, "proxy")


def test_an_error_that_nobody_expected_is_written_down_with_its_traceback(undisturbed: StageRunner, work: Path) -> None:
    runner = undisturbed.copy(work, "main")
    assert runner.fork("main", faults=[Fault(PLAIN, functools.partial(fail_with, ZeroDivisionError("by zero")), 3)]).wait() == AGAIN
    said = runner.failure("main")
    assert (said.code, said.message, said.retryable) == ("unexpected", "ZeroDivisionError: by zero", True)
    assert said.tail[-1] == "ZeroDivisionError: by zero"
    assert runner.fork("main").wait() == DONE  # an elastic agent starts it again: this attempt is over
    assert runner.failure("main") == said
    assert not runner.bucket.exists(keys.result(runner.experiment, "main"))
    runner.finish("main", 2)


@pytest.mark.parametrize("code", ["interrupted", "process_lost"])
def test_an_attempt_that_was_stopped_or_lost_a_process_goes_on_when_it_is_started_again(
    undisturbed: StageRunner, work: Path, code: str
) -> None:
    runner = undisturbed.copy(work, "main")
    said = AttemptFailure(attempt=1, code=code, message="", retryable=True, exit_code=1, rank=0, at=START)
    runner.bucket.put(keys.attempt_failure(runner.experiment, "main", 1), said.model_dump_json().encode())
    runner.finish("main", 1)
    assert runner.failure("main") is None
