"""Train states in a bucket that is no folder: saved, resumed and cleared away as on a disk, with all that goes through the cache."""

from pathlib import Path

import pytest
import torch
from obstore.store import MemoryStore

from api import keys
from api.bucket import Bucket, FileBucket
from api.stage_config import StageConfig, TrainStatePointer
from tests.trainer import equality
from tests.trainer.stage_runner import StageRunner
from trainer import loop
from trainer.__main__ import run
from trainer.context import StageContext
from trainer.report import Reporter
from trainer.state import Progress, StateStore
from trainer.world import World

torch.set_num_threads(1)


def mirror(source: Bucket, target: Bucket, *without: str) -> None:
    """Copy every object, but for those below the prefixes `without`."""
    for entry in list(source.list("")):
        if not entry.key.startswith(without or "\0"):
            target.put(entry.key, source.get(entry.key).data)


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if SIGTERM came in that step."""
    asked = iter([False] * (steps - 1) + [True])
    monkeypatch.setattr(loop, "stop_requested", lambda: next(asked))


def states(bucket: Bucket, runner: StageRunner) -> set[str]:
    folder = keys.latest_state(runner.experiment, "proxy").removesuffix("latest.json")
    return {entry.key.removeprefix(folder).partition("/")[0] for entry in bucket.list(folder)} - {"latest.json"}


def test_a_bucket_in_memory_holds_the_same_states_and_only_the_newest_two(
    undisturbed: StageRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, world = Bucket(MemoryStore(), "memory://"), World(cache=tmp_path / "cache")
    mirror(undisturbed.bucket, bucket, keys.stage_prefix(undisturbed.experiment, "proxy"))
    folder = keys.latest_state(undisturbed.experiment, "proxy").removesuffix("latest.json")
    bucket.put(f"{folder}000000004-a0/0/half", b"of an attempt that was killed")
    bucket.put(f"{folder}000000004-a9/0/half", b"of a newer one that is at work")
    config = StageConfig.model_validate_json(undisturbed.bucket.get(keys.attempt_config(undisturbed.experiment, "proxy", 1)).data)

    stop_after(6, monkeypatch)
    assert run(config, bucket, world) == 75
    assert states(bucket, undisturbed) == {"000000004-a1", "000000006-a1", "000000004-a9"}
    monkeypatch.undo()
    assert run(config.model_copy(update={"attempt": 2}), bucket, world) == 0
    assert states(bucket, undisturbed) == {"000000008-a2", "000000012-a2", "000000004-a9"}
    assert [path for path in (tmp_path / "cache" / "states").iterdir() if path.is_dir()] == []  # copies that nobody needs any more

    on_disk = StageRunner(FileBucket(tmp_path / "copy" / "bucket"), undisturbed.spec)
    mirror(bucket, on_disk.bucket)
    equality.assert_same_bits(equality.state(on_disk, "proxy", tmp_path), equality.state(undisturbed, "proxy", tmp_path))
    assert equality.history(on_disk, "proxy") == equality.history(undisturbed, "proxy")
    assert equality.result(on_disk, "proxy") == equality.result(undisturbed, "proxy")


def test_every_stage_of_the_undisturbed_run_kept_two_states(undisturbed: StageRunner) -> None:
    for stage in ("reference", "proxy", "main", "baseline-reference", "baseline-uniform"):
        assert undisturbed.states(stage) == ["000000008-a1", "000000012-a1"]
        assert "/states/000000012-a1/" in undisturbed.pointer(stage).state


@pytest.fixture
def context(undisturbed: StageRunner, tmp_path: Path) -> StageContext:
    """Attempt 1 of a proxy that has saved nothing yet."""
    bucket, world = Bucket(MemoryStore(), "memory://"), World(cache=tmp_path / "cache")
    config = StageConfig.model_validate_json(undisturbed.bucket.get(keys.attempt_config(undisturbed.experiment, "proxy", 1)).data)
    return StageContext(config, bucket, world, Reporter(config, bucket, world), world.cache)


def save(context: StageContext, step: int, value: float) -> TrainStatePointer:
    """One process's train state, all of whose parameters are `value`; the pointer then."""
    model = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(model.weight, value)
    StateStore(context).save(model, torch.optim.AdamW(model.parameters()), Progress(step=step))
    key = keys.latest_state(context.config.experiment_id, "proxy")
    return TrainStatePointer.model_validate_json(context.bucket.get(key).data)


def restored(context: StageContext) -> tuple[int, float]:
    """Step and value of the newest state."""
    model = torch.nn.Linear(2, 1)
    progress = StateStore(context).restore(model, torch.optim.AdamW(model.parameters()))
    return progress.step, float(model.weight[0, 0].item())


def test_two_that_save_the_same_step_of_an_attempt_write_apart(context: StageContext) -> None:
    first = save(context, 8, 1.0)
    files = {entry.key: context.bucket.get(entry.key).data for entry in context.bucket.list(first.state)}
    assert save(context, 8, 2.0).state != first.state
    assert {key: context.bucket.get(key).data for key in files} == files
    assert restored(context) == (8, 2.0)


def test_processes_of_an_attempt_that_are_behind_take_nothing_from_those_further_on(
    context: StageContext, undisturbed: StageRunner, caplog: pytest.LogCaptureFixture
) -> None:
    save(context, 8, 1.0)
    folder = keys.latest_state(context.config.experiment_id, "proxy").removesuffix("latest.json")
    context.bucket.put(f"{folder}000000016-a1/x/half", b"of those further on")
    assert save(context, 4, 2.0).step == 8
    assert "step 4 is not saved: other processes of this attempt have saved step 8" in caplog.text
    assert states(context.bucket, undisturbed) == {"000000008-a1", "000000016-a1"}
    context.bucket.put(f"{folder}000000016-a0/x/half", b"of an attempt that was killed")
    save(context, 12, 3.0)
    assert states(context.bucket, undisturbed) == {"000000008-a1", "000000012-a1", "000000016-a1"}
    assert restored(context) == (12, 3.0)
