"""Specs and records that tests of several packages start from."""

from datetime import UTC, datetime
from typing import Any

import yaml

from api.experiment import Experiment, Stage
from api.plan import make_plan
from api.spec import ExperimentSpec, parse_spec

START = datetime(2026, 1, 1, tzinfo=UTC)


def spec_mapping(name: str = "pile", **changes: Any) -> dict[str, Any]:
    """A small, valid spec as a mapping; `changes` replace top-level fields."""
    spec = {
        "name": name,
        "domains": {domain: {"source": {"type": "jsonl", "paths": [f"/data/{domain}.jsonl"]}} for domain in ("books", "code", "web")},
        "tokenizer": {"type": "train", "vocab_size": 512},
        "sequence_length": 32,
        "models": {"proxy": {"config": {"model_type": "llama", "hidden_size": 16}}},
        "training": {"proxy": {"steps": 4, "global_batch": 4, "micro_batch": 4}},
    }
    return {**spec, **changes}


def make_spec(name: str = "pile", **changes: Any) -> ExperimentSpec:
    return parse_spec(yaml.safe_dump(spec_mapping(name, **changes)))


def make_experiment(experiment_id: str = "xaaaaaaaaaa", name: str = "pile", **changes: Any) -> Experiment:
    """A freshly submitted record; `changes` go into the spec."""
    text = yaml.safe_dump(spec_mapping(name, **changes))
    stages = tuple(Stage(plan=planned) for planned in make_plan(parse_spec(text)).stages)
    return Experiment(id=experiment_id, name=name, spec_text=text, spec_sha256="0" * 64, created_at=START, stages=stages)
