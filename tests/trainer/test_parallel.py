"""Two processes over gloo, replicated and sharded, do what one does; a state of one world goes on in another; nobody waits for the dead."""

import functools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from api.errors import BucketUnavailable
from tests.services.waiting import wait_for
from tests.trainer import equality
from tests.trainer.faults import Disturbance, Fault, Witness, ask_to_stop, fail_with, kill
from tests.trainer.stage_runner import TINY, TINY_TRAINING, StageRunner

STEP = "trainer.steps:DoremiStep.__call__"
WORLDS = {"one": ("ddp", 1), "ddp on two": ("ddp", 2), "fsdp on two": ("fsdp", 2)}
BATCHES: dict[str, tuple[dict[str, int], str]] = {
    "several micro-batches, unequal on the ranks": ({"global_batch": 7, "micro_batch": 2}, "zero"),
    "fewer rows than domains, scores carried on": ({"global_batch": 2, "micro_batch": 1}, "carry"),
    "fewer rows than domains, and a rank without one": ({"global_batch": 1, "micro_batch": 1}, "zero"),
}
Matrix = NDArray[np.float64]
Searching = Callable[..., StageRunner]


@pytest.fixture
def searching(undisturbed: StageRunner, tmp_path: Path) -> Searching:
    """A maker of experiments whose proxy is still to be trained, without dropout, which no two worlds draw alike."""

    def make(name: str, world: str = "one", absent: str = "zero", **training: Any) -> StageRunner:
        parallelism, processes = WORLDS[world]
        return undisturbed.copy(
            tmp_path / name,
            "proxy",
            models={"proxy": {"config": TINY}},
            training={"proxy": {**TINY_TRAINING, "steps": 8, **training}},
            doremi={"eta": 1.0, "absent_domain": absent},
            compute={"default": {"processes": processes, "parallelism": parallelism}},
        )

    return make


def processes(runner: StageRunner) -> int:
    return runner.spec.compute.default.processes


def trajectory(runner: StageRunner) -> tuple[Matrix, Matrix]:
    """alpha_t and the domains' losses (0 where absent), [steps, k] each, from the history that replay agrees with."""
    records = equality.history(runner, "proxy")
    alphas = np.array([record.domain_weights for record in records])
    return alphas, np.array([[loss or 0.0 for loss in record.domain_losses] for record in records])


def assert_close(found: StageRunner, expected: StageRunner) -> None:
    (alphas, losses), (expected_alphas, expected_losses) = trajectory(found), trajectory(expected)
    assert np.abs(expected_alphas - 1 / 3).max() > 0.02  # something to be equal about
    np.testing.assert_allclose(alphas, expected_alphas, rtol=0, atol=1e-6)
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=1e-5)
    evaluated, wanted = (runner.result("proxy").trained.evaluations[-1].evaluation for runner in (found, expected))
    assert evaluated.losses == pytest.approx(wanted.losses, abs=1e-5)
    assert evaluated.tokens == wanted.tokens


@pytest.mark.parametrize("batch", BATCHES)
def test_two_processes_find_what_one_finds_and_agree_on_alpha(searching: Searching, tmp_path: Path, batch: str) -> None:
    sizes, absent = BATCHES[batch]
    one = searching("one", absent=absent, **{**sizes, "micro_batch": 8})
    one.finish("proxy")
    if sizes["global_batch"] < 3:
        assert any(0 in record.domain_tokens for record in equality.history(one, "proxy"))
    for world in ("ddp on two", "fsdp on two"):
        two = searching(world, world, absent, **sizes)
        two.finish("proxy", processes=2, faults=[Witness(two.bucket.root.parent)])
        assert_close(two, one)
        first, second = ((two.bucket.root.parent / f"alpha-{rank}").read_text() for rank in (0, 1))
        assert first == second
        assert len(first.splitlines()) == 8


MOVES = {"fsdp on two": ("ddp on two", "one"), "ddp on two": ("fsdp on two",), "one": ("fsdp on two",)}


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_a_state_of_one_world_goes_on_in_another(searching: Searching, optimizer: str) -> None:
    kind = {"optimizer": {"type": optimizer}}
    whole = searching("whole", **kind)
    whole.finish("proxy")
    for before in MOVES if optimizer == "adamw" else ("fsdp on two", "one"):
        runner = searching(f"{before} {optimizer}", before, **kind)
        last = processes(runner) - 1
        stopped = runner.fork("proxy", 1, processes(runner), [Fault(STEP, ask_to_stop, 5, rank=last)])
        assert stopped.wait() == [75] * processes(runner), stopped.output  # one rank was asked, all stop at the same step
        assert runner.pointer("proxy").step == 5
        for after in MOVES[before] if optimizer == "adamw" else MOVES[before][-1:]:
            parallelism, size = WORLDS[after]
            folder = runner.bucket.root.parent.with_name(f"{before} to {after}")
            moved = runner.copy(folder, compute={"default": {"processes": size, "parallelism": parallelism}})
            moved.finish("proxy", 2, size)
            assert moved.report("proxy", 2).resumed_from == 5
            assert_close(moved, whole)


def test_a_sharded_run_that_lost_a_process_ends_as_if_it_had_not(undisturbed: StageRunner, tmp_path: Path) -> None:
    sharded = {"compute": {"default": {"processes": 2, "parallelism": "fsdp"}}}  # with dropout: each rank has an RNG of its own
    whole, runner = (undisturbed.copy(tmp_path / name, "proxy", **sharded) for name in ("whole", "killed"))
    whole.finish("proxy", processes=2)
    assert runner.fork("proxy", 1, 2, [Fault(STEP, kill, 7, rank=1)]).wait() == [1, -9]
    said = runner.failure("proxy")
    assert (said.code, said.rank, said.retryable) == ("process_lost", 0, True)
    assert runner.fork("proxy", 2, 2, [Fault("trainer.history:History.flush", kill, 1, rank=0)]).wait() == [-9, 1]
    runner.finish("proxy", 3, 2)
    equality.assert_same_bits(equality.state(runner, "proxy", tmp_path), equality.state(whole, "proxy", tmp_path))
    assert equality.history(runner, "proxy") == equality.history(whole, "proxy")
    assert equality.result(runner, "proxy") == equality.result(whole, "proxy")


FAILING: dict[str, tuple[Disturbance, str, int]] = {
    "the first process cannot move the pointer": (
        Fault("api.bucket:FileBucket.replace", functools.partial(fail_with, BucketUnavailable("The bucket did not answer.")), rank=0),
        "bucket_unavailable",
        0,
    ),
    "the second one runs out of memory": (Fault(STEP, functools.partial(fail_with, MemoryError()), 6, rank=1), "out_of_memory", 1),
}


@pytest.mark.parametrize("failing", FAILING)
def test_a_process_that_fails_alone_takes_the_others_along_and_has_the_word(searching: Searching, failing: str) -> None:
    fault, code, rank = FAILING[failing]
    runner = searching("failing", "ddp on two")
    assert runner.fork("proxy", 1, 2, [fault]).wait() == [1, 1]
    said = runner.failure("proxy")
    assert (said.code, said.rank, said.retryable) == (code, rank, True)
    assert runner.pointer("proxy").step == 4
    runner.finish("proxy", 2, 2)
    assert runner.report("proxy", 2).resumed_from == 4


def test_torchrun_asked_to_stop_saves_and_the_next_attempt_goes_on_from_that_step(searching: Searching) -> None:
    runner = searching("torchrun", "fsdp on two", steps=100_000, save_every=5, evaluate_every=100_000)
    torchrun = runner.start("proxy", 1, processes=2)
    try:
        wait_for(lambda: (found := runner.pointer("proxy")) and found.step >= 10, 120)
        torchrun.send_signal(signal.SIGTERM)
        output, _ = torchrun.communicate(timeout=60)
    finally:
        torchrun.kill()
    assert torchrun.returncode != 0
    said = runner.failure("proxy")
    assert (said.code, said.exit_code, said.retryable) == ("interrupted", 75, True), output
    step = runner.pointer("proxy").step
    assert f"resuming after step {step}" not in output
    again = runner.fork("proxy", 2, 2, [Fault(STEP, ask_to_stop, 2)])
    assert again.wait() == [75, 75], again.output
    assert runner.report("proxy", 2).resumed_from == step
    assert len(equality.history(runner, "proxy")) == step + 2
