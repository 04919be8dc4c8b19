"""What a whole search does, through the real stages: learnable text rises, noise and what is known already do not, twins stay equal."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from numpy.typing import NDArray

from api import keys
from api.bucket import FileBucket
from api.errors import DataError
from api.plan import make_plan
from api.replay import replay_segments
from api.results import Searched
from api.spec import parse_spec
from api.stage_config import StageConfig
from tests.trainer.stage_runner import StageRunner
from trainer import stages
from trainer.context import StageContext
from trainer.data import open_prepared
from trainer.reference_losses import StoredReference
from trainer.report import Reporter
from trainer.world import World

torch.set_num_threads(1)

VOCABULARY, LENGTH, ROWS = 64, 32, 1500
MODEL = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
Rows = NDArray[np.int32]


def noise(seed: int) -> Rows:
    """Uniform tokens: nothing to learn, the highest loss."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, (ROWS, LENGTH + 1), dtype=np.int32)


def easy(seed: int) -> Rows:
    """One token throughout, but for the first four: learned in a few steps."""
    rows = np.random.default_rng(seed).integers(0, VOCABULARY, (ROWS, LENGTH + 1), dtype=np.int32)
    rows[:, 4:] = 7
    return rows


def learnable(seed: int) -> Rows:
    """Nine tokens in ten follow from the one before by a fixed permutation: learned in some hundred steps."""
    follows = np.random.default_rng(0).permutation(VOCABULARY).astype(np.int32)
    random = np.random.default_rng(seed)
    rows = random.integers(0, VOCABULARY, (ROWS, LENGTH + 1), dtype=np.int32)
    for position in range(LENGTH):
        rows[:, position + 1] = np.where(random.random(ROWS) < 0.1, rows[:, position + 1], follows[rows[:, position]])
    return rows


THREE: dict[str, Callable[[int], Rows]] = {"easy": easy, "learnable": learnable, "noise": noise}


def three(rows: int = ROWS) -> dict[str, Rows]:
    return {name: make(seed)[:rows] for seed, (name, make) in enumerate(THREE.items())}


def search(folder: Path, domains: Mapping[str, Rows], steps: int = 150, **doremi: Any) -> StageRunner:
    """Prepare, train the reference (where the objective needs one) and the proxy, in this process."""
    for name, rows in domains.items():
        Dataset.from_dict({"input_ids": rows.tolist(), "domain_ids": [0] * len(rows)}).save_to_disk(folder / name)
    batch = 8 * len(domains)
    training = {"steps": steps, "global_batch": batch, "micro_batch": batch, "learning_rate": 3e-3, "save_every": steps}
    spec = {
        "name": "properties",
        "domains": {name: {"source": {"type": "nanotron", "path": str(folder / name)}} for name in domains},
        "tokenizer": {"type": "pretokenized", "vocab_size": VOCABULARY},
        "sequence_length": LENGTH,
        "models": {"proxy": {"config": MODEL}},
        "training": {"proxy": training},
        "doremi": {"eta": 0.03, "reference_weights": "uniform", **doremi},
        "comparison": {"mixtures": []},
    }
    runner = StageRunner(FileBucket(folder / "bucket"), parse_spec(json.dumps(spec)))
    for planned in make_plan(runner.spec).stages:
        result = stages.run(context_of(runner, planned.name))
        runner.bucket.create(keys.result(runner.experiment, planned.name), result.model_dump_json().encode())
    return runner


def context_of(runner: StageRunner, stage: str) -> StageContext:
    config = StageConfig.model_validate_json(runner.bucket.get(runner.config(stage)).data)
    world = World()
    return StageContext(config, runner.bucket, world, Reporter(config, runner.bucket, world), runner.bucket.local_path("cache"))


def found(runner: StageRunner) -> Searched:
    """What the proxy found, once its history has been replayed."""
    searched = runner.result("proxy").searched
    assert searched is not None
    replayed = replay_segments(runner.bucket.get(key).data for key in searched.history)
    assert replayed.agrees
    assert replayed.averaged_weights.max_difference(searched.averaged_weights) < 1e-9
    return searched


def test_noise_ends_lowest_and_what_can_be_learned_highest(tmp_path: Path) -> None:
    searched = found(search(tmp_path, three()))
    for weights in (searched.averaged_weights, searched.final_weights):
        assert weights["noise"] < 0.2 < weights["easy"] < weights["learnable"]


def test_hardest_puts_noise_on_top(tmp_path: Path) -> None:
    searched = found(search(tmp_path, three(), objective="hardest"))
    for weights in (searched.averaged_weights, searched.final_weights):
        assert weights["noise"] > 0.7 > weights["learnable"] > weights["easy"]


def test_easiest_puts_what_the_reference_knows_best_on_top(tmp_path: Path) -> None:
    searched = found(search(tmp_path, three(), objective="easiest"))
    for weights in (searched.averaged_weights, searched.final_weights):
        assert weights["easy"] > 0.7 > weights["learnable"] > weights["noise"]


def test_two_identical_domains_end_equal(tmp_path: Path) -> None:
    twin = learnable(1)
    searched = found(search(tmp_path, {"noise": noise(0), "twin-a": twin, "twin-b": twin}))
    for weights in (searched.averaged_weights, searched.final_weights):
        assert weights["twin-a"] == pytest.approx(weights["twin-b"], rel=0.05)
        assert weights["noise"] < weights["twin-a"] / 2


def test_a_domain_split_in_two_gives_two_halves(tmp_path: Path) -> None:
    whole = learnable(1)
    searched = found(search(tmp_path, {"easy": easy(0), "half-a": whole[0::2], "half-b": whole[1::2], "noise": noise(2)}))
    for weights in (searched.averaged_weights, searched.final_weights):
        assert weights["half-a"] == pytest.approx(weights["half-b"], rel=0.05)
        assert min(weights["half-a"], weights["half-b"]) > max(weights["easy"], weights["noise"])


def test_precomputed_reference_losses_give_the_online_result_and_are_refused_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    (tmp_path / "stored").mkdir()
    live, stored = (
        search(tmp_path / folder, three(100), steps=12, eta=1.0, reference_losses=how)
        for folder, how in (("live", "live"), ("stored", "precomputed"))
    )
    assert found(stored).averaged_weights.max_difference(found(live).averaged_weights) < 1e-3
    assert found(live).averaged_weights.max_difference(found(live).reference_weights) > 0.02

    context, reference = context_of(stored, "proxy"), stored.result("reference")
    data = open_prepared(stored.bucket, stored.result("prepare"), context.cache)
    StoredReference(context, reference, data)
    for attribute, value in (("fingerprint", "0" * 64), ("sequence_length", LENGTH // 2)):
        other = open_prepared(stored.bucket, stored.result("prepare"), context.cache)
        setattr(other, attribute, value)
        with pytest.raises(DataError, match="compute them anew"):
            StoredReference(context, reference, other)
    for changes in ({"attempt": 2}, {"stage": "reference-2"}, {"experiment_id": "xother"}):
        with pytest.raises(DataError, match="of another reference"):
            StoredReference(context, reference.model_copy(update=changes), data)
    with pytest.raises(DataError, match="stored no losses"):
        StoredReference(context, live.result("reference"), data)
