"""Whether two runs of a stage came to the same, bit by bit; what may differ (times, attempt numbers, keys with them) is named here."""

from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from api.replay import replay_segments
from api.results import StageResult
from api.weights import WeightCheckpoint, read_segment
from tests.trainer.stage_runner import StageRunner
from trainer.state import EXTRA

Leaves = dict[str, Any]


def history(runner: StageRunner, stage: str) -> list[WeightCheckpoint]:
    """The records of all steps that the newest state's pointer names; replay agrees with them, and each step stands there once."""
    pointer = runner.pointer(stage)
    assert pointer is not None
    segments = [runner.bucket.get(key).data for key in pointer.history]
    assert replay_segments(segments).agrees
    records = [record for segment in segments for record in read_segment(segment)[1]]
    assert [record.step for record in records] == list(range(1, pointer.step + 1))
    return [record.model_copy(update={"attempt": 0}) for record in records]


def state(runner: StageRunner, stage: str, scratch: Path) -> Leaves:
    """Every tensor and number of the newest train state, by its path."""
    pointer = runner.pointer(stage)
    assert pointer is not None
    folder = runner.bucket.root / pointer.state
    whole = scratch / f"{runner.bucket.root.parent.name}-{stage}.pt"
    dcp_to_torch_save(folder, whole)
    leaves = _leaves(torch.load(whole, weights_only=False), "tensors")
    for path in folder.glob("rng-*.pt"):
        leaves |= _leaves(torch.load(path, weights_only=True), path.name)
    leaves["extra"] = (folder / EXTRA).read_text().partition('"seconds": ')[0] + (folder / EXTRA).read_text().partition('"sampler": ')[2]
    return leaves


def assert_same_bits(found: Leaves, expected: Leaves) -> None:
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        same = torch.equal(found[path], value) if isinstance(value, torch.Tensor) else found[path] == value
        assert same, path


def result(runner: StageRunner, stage: str) -> dict[str, Any]:
    """The published result, and the bytes of each file that it names."""
    found: StageResult = runner.result(stage)
    contents = {role: _contents(runner.bucket.root / key) for role, key in found.files.items()}
    bare = found.model_dump(mode="json", exclude={"attempt": True, "created_at": True, "files": True, "searched": {"history"}})
    if bare["trained"]:
        assert bare["trained"].pop("seconds") > 0
        assert bare["trained"].pop("tokens_per_second") > 0
    return {**bare, "files": contents}


def _contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    assert files
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def _leaves(value: Any, path: str) -> Leaves:
    if isinstance(value, dict):
        return {at: leaf for key, below in value.items() for at, leaf in _leaves(below, f"{path}/{key}").items()}
    if isinstance(value, list):
        return {at: leaf for index, below in enumerate(value) for at, leaf in _leaves(below, f"{path}/{index}").items()}
    return {path: value}
