"""Restart equality, the product's main promise: wherever a stage's process is killed, and however often, it ends as if it never was."""

import functools
import random
from pathlib import Path

import pytest

from api import keys
from tests.trainer import equality
from tests.trainer.faults import Fault, ask_to_stop, kill, kill_within
from tests.trainer.stage_runner import StageRunner

PLAIN, DOREMI = "trainer.steps:PlainStep.__call__", "trainer.steps:DoremiStep.__call__"
TRAINING = {"reference": PLAIN, "proxy": DOREMI, "main": PLAIN, "baseline-uniform": PLAIN}
KILLED, INTERRUPTED = -9, 75


def while_training(step: str) -> list[Fault]:
    """Where a training stage may die: in any step, and on either side of all that it writes."""
    checkpoint = "torch.distributed.checkpoint.filesystem:FileSystemWriter"
    return [
        *(Fault(step, kill, call, after) for call in (1, 2, 3, 4, 5) for after in (False, True)),
        *(Fault("trainer.loop:evaluate", kill, 1, after) for after in (False, True)),
        *(Fault("trainer.history:History.flush", kill, call, after) for call in (1, 2) for after in (False, True)),
        *(Fault(f"{checkpoint}.write_data", kill, 1, after) for after in (False, True)),
        *(Fault(f"{checkpoint}.finish", kill, call) for call in (1, 2)),  # the tensors are there, what tells where they lie is not
        *(Fault("trainer.state:StateStore._publish", kill, call, after) for call in (1, 2) for after in (False, True)),
        *(Fault("trainer.state:StateStore._remove", kill, 1, after) for after in (False, True)),
    ]


AFTER_TRAINING = [
    *(Fault("trainer.stages:save_model", kill, 1, after) for after in (False, True)),
    Fault("transformers.modeling_utils:safe_save_file", kill),
    Fault("trainer.__main__:_publish", kill),
]


def assert_same(disturbed: StageRunner, undisturbed: StageRunner, stage: str, scratch: Path) -> None:
    equality.assert_same_bits(equality.state(disturbed, stage, scratch), equality.state(undisturbed, stage, scratch))
    assert equality.result(disturbed, stage) == equality.result(undisturbed, stage)
    if stage == "proxy":
        assert equality.history(disturbed, stage) == equality.history(undisturbed, stage)


@pytest.mark.parametrize(("stage", "seed"), [("reference", 0), ("proxy", 0), ("proxy", 1), ("main", 0), ("baseline-uniform", 0)])
def test_a_training_stage_killed_several_times_ends_as_if_it_never_was(undisturbed: StageRunner, work: Path, stage: str, seed: int) -> None:
    runner, draw = undisturbed.copy(work, stage), random.Random(f"{stage}-{seed}")
    places = [*draw.sample(while_training(TRAINING[stage]), 3), at_random(TRAINING[stage], draw), draw.choice(AFTER_TRAINING)]
    assert ended_by(runner, stage, places) >= 2
    assert_same(runner, undisturbed, stage, work)


@pytest.mark.parametrize("seed", range(2))
def test_prepare_killed_several_times_writes_the_same_bytes(undisturbed: StageRunner, work: Path, seed: int) -> None:
    runner, draw = undisturbed.copy(work, "prepare"), random.Random(seed)
    places = [
        *(Fault("trainer.shards:ShardWriter.add", kill, draw.randint(1, 600)) for _ in range(3)),
        *(Fault("trainer.shards:ShardWriter.finish", kill, draw.randint(1, 6), after) for after in (False, True)),
        *(Fault("trainer.rows:RowWriter.finish", kill, draw.randint(1, 4), after) for after in (False, True)),
        *(Fault("api.bucket:FileBucket.put", kill, 1, after, about=f"{draw.choice(('easy', 'hard'))}.json") for after in (False, True)),
        Fault("trainer.tokenizer:Encoder.to_json", kill, draw.randint(1, 2)),
        at_random("trainer.shards:ShardWriter.add", draw),
    ]
    assert ended_by(runner, "prepare", draw.sample(places, 4)) >= 2
    assert equality.result(runner, "prepare") == equality.result(undisturbed, "prepare")


def test_evaluate_killed_several_times_finds_the_same(undisturbed: StageRunner, work: Path) -> None:
    runner = undisturbed.copy(work, "evaluate")
    places = [
        Fault("trainer.stages:evaluate", kill, 2),
        at_random("trainer.stages:evaluate", random.Random(0)),
        Fault("trainer.__main__:_publish", kill),
        Fault("trainer.stages:load_model", kill, 3, after=True),
    ]
    assert ended_by(runner, "evaluate", places) >= 2
    assert equality.result(runner, "evaluate") == equality.result(undisturbed, "evaluate")


def at_random(site: str, draw: random.Random) -> Fault:
    """A kill by another thread, at no particular place."""
    return Fault(site, functools.partial(kill_within, draw.uniform(0.0, 0.15)))


def ended_by(runner: StageRunner, stage: str, places: list[Fault]) -> int:
    """Attempt after attempt, each killed at the next place (those that begin behind it go on), and one that is not. How many died."""
    died = 0
    for place in places:
        codes = runner.fork(stage, died + 1, faults=[place]).wait()
        assert codes in ([KILLED], [0])
        if codes == [0]:
            return died
        died += 1
    runner.finish(stage, died + 1)
    return died


def test_what_is_between_a_state_and_its_pointer_counts_for_nothing_and_is_cleared_away(undisturbed: StageRunner, work: Path) -> None:
    runner = undisturbed.copy(work, "proxy")
    runner.fork("proxy", 1, faults=[Fault("trainer.state:StateStore._publish", kill, 2)]).wait()
    assert runner.pointer("proxy").step == 4
    assert runner.states("proxy") == ["000000004-a1", "000000008-a1"]
    runner.fork("proxy", 2, faults=[Fault("trainer.history:History.flush", kill, 1, after=True)]).wait()
    assert runner.pointer("proxy").step == 4
    runner.finish("proxy", 3)
    assert runner.states("proxy") == ["000000008-a3", "000000012-a3"]
    assert "/000000012-a3/" in runner.pointer("proxy").state
    assert_same(runner, undisturbed, "proxy", work)


@pytest.mark.parametrize("stage", ["reference", "proxy"])
def test_asked_to_stop_it_saves_at_once_and_the_next_attempt_goes_on_from_that_very_step(
    undisturbed: StageRunner, work: Path, stage: str
) -> None:
    runner = undisturbed.copy(work, stage)
    stopped = runner.fork(stage, 1, faults=[Fault(TRAINING[stage], ask_to_stop, 7)])
    assert stopped.wait() == [INTERRUPTED], stopped.output
    said = runner.failure(stage)
    assert (said.code, said.exit_code, said.retryable) == ("interrupted", INTERRUPTED, True)
    assert runner.pointer(stage).step == 7
    assert not runner.bucket.exists(keys.result(runner.experiment, stage))

    runner.finish(stage, 2)
    assert runner.report(stage, 2).resumed_from == 7
    assert runner.failure(stage, 2) is None
    assert_same(runner, undisturbed, stage, work)


@pytest.mark.parametrize(
    ("stage", "site", "call"), [("prepare", "trainer.rows:RowWriter.finish", 3), ("evaluate", "trainer.stages:evaluate", 2)]
)
def test_asked_to_stop_the_other_stages_end_soon_too(undisturbed: StageRunner, work: Path, stage: str, site: str, call: int) -> None:
    runner = undisturbed.copy(work, stage)
    assert runner.fork(stage, 1, faults=[Fault(site, ask_to_stop, call)]).wait() == [INTERRUPTED]
    assert runner.failure(stage).code == "interrupted"
    runner.finish(stage, 2)
    assert equality.result(runner, stage) == equality.result(undisturbed, stage)


def test_asked_to_stop_in_the_last_step_it_is_done(undisturbed: StageRunner, work: Path) -> None:
    runner = undisturbed.copy(work, "main")
    runner.finish("main", faults=[Fault(PLAIN, ask_to_stop, 12)])
    assert_same(runner, undisturbed, "main", work)
