"""Train states in a bucket that is no folder: saved, resumed and cleared away as on a disk, with all that goes through the cache."""

from pathlib import Path

import pytest
import torch
from obstore.store import MemoryStore

from api import keys
from api.bucket import Bucket, FileBucket
from api.stage_config import StageConfig
from tests.trainer import equality
from tests.trainer.stage_runner import StageRunner
from trainer import loop
from trainer.__main__ import run
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
        assert undisturbed.pointer(stage).state.endswith("/000000012-a1/0/")
