"""Runs stages as real `python -m trainer` processes, in a plan's order, without a service: what the service would write, a test writes."""

import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api import keys
from api.bucket import FileBucket
from api.plan import make_plan
from api.results import StageResult
from api.spec import ExperimentSpec, parse_spec
from api.stage_config import Inputs, StageConfig

TINY = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TINY_TRAINING = {"steps": 12, "global_batch": 8, "micro_batch": 8, "save_every": 4, "evaluate_every": 6, "evaluate_sequences": 8}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def write_corpus(folder: Path, domains: Sequence[str], documents: int = 300) -> None:
    """Small text: each domain has a vocabulary of its own, so that their losses differ."""
    for number, domain in enumerate(domains):
        draw = random.Random(number)
        words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 6))) for _ in range(10 * 4**number)]
        target = folder / domain
        target.mkdir(parents=True)
        with gzip.open(target / "part.jsonl.gz", "wt") as file:
            for _ in range(documents):
                file.write(json.dumps({"text": " ".join(draw.choices(words, k=40))}) + "\n")


def tiny_spec(folder: Path, domains: Sequence[str] = ("easy", "hard", "middle"), **changes: Any) -> ExperimentSpec:
    """A spec over `write_corpus`'s text that trains in a second or two a stage; `changes` replace top-level fields."""
    raw: dict[str, Any] = {
        "name": "tiny",
        "domains": {
            name: {
                "source": {"type": "jsonl", "paths": [str(folder / name / "*.jsonl.gz")]},
                "validation": {"type": "held_out", "fraction": 0.1},
            }
            for name in domains
        },
        "tokenizer": {"type": "train", "vocab_size": 400, "sample_bytes": 200_000},
        "sequence_length": 32,
        "models": {"proxy": {"config": TINY}},
        "training": {"proxy": TINY_TRAINING},
        "doremi": {"eta": 1.0},
    }
    return parse_spec(json.dumps(raw | changes))


@dataclass
class StageRunner:
    """One experiment in a file bucket."""

    bucket: FileBucket
    spec: ExperimentSpec
    experiment: str = "xtest"

    def config(self, stage: str, attempt: int = 1) -> str:
        """Write the StageConfig of an attempt; its key."""
        plan = make_plan(self.spec)
        planned = plan[stage]
        done = {name: keys.result(self.experiment, name) for name in planned.needs}
        config = StageConfig(
            experiment_id=self.experiment,
            spec=self.spec,
            spec_sha256="0" * 64,
            plan=planned,
            siblings=plan.stages,
            attempt=attempt,
            digest=None,
            inputs=Inputs(
                prepare=done.get("prepare"),
                reference=done.get(planned.reference or ""),
                averaged=keys.result(self.experiment, planned.mixture.stage) if planned.mixture and planned.mixture.stage else None,
                models={name: key for name, key in done.items() if plan[name].mixture_name},
            ),
        )
        key = keys.attempt_config(self.experiment, stage, attempt)
        self.bucket.put(key, config.model_dump_json().encode())
        return key

    def start(self, stage: str, attempt: int = 1, processes: int = 1, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start an attempt as the launcher does; stdout and stderr together are a pipe."""
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(processes), "--standalone"]
        alone = [sys.executable]
        trainer = ["-m", "trainer", "--bucket", self.bucket.url, "--config", self.config(stage, attempt)]
        return subprocess.Popen(
            [*(torchrun if processes > 1 else alone), *trainer],
            env={**os.environ, **ENVIRONMENT, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, stage: str, attempt: int = 1, processes: int = 1) -> StageResult:
        """Run an attempt to its end; its result."""
        process = self.start(stage, attempt, processes)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
        return self.result(stage)

    def run_all(self, processes: int = 1) -> dict[str, StageResult]:
        """Run every stage of the plan, in order."""
        return {stage.name: self.run(stage.name, processes=processes) for stage in make_plan(self.spec).stages}

    def result(self, stage: str) -> StageResult:
        return StageResult.model_validate_json(self.bucket.get(keys.result(self.experiment, stage)).data)
