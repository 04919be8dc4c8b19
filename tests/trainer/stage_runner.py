"""Runs stages as real trainer processes, in a plan's order, without a service: what the service would write, a test writes.

`start` and `run` execute `python -m trainer`, under torchrun where there are several processes. `fork` runs the same entry in processes
forked from a server that has imported the trainer already: seven seconds of CPU time less each, so that tests can afford many.
"""

import gzip
import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from api import keys
from api.bucket import FileBucket
from api.plan import make_plan
from api.results import StageResult
from api.spec import Compute, ExperimentSpec, parse_spec
from api.stage_config import AttemptFailure, Inputs, StageConfig, StageReport, TrainStatePointer
from services.launch.appdef import FOLDER, torchrun
from tests.forking import FORKED
from tests.trainer.faults import Disturbance

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


class Attempt:
    """A forked attempt: one process a rank. They are a world without an agent: whoever fails, nobody ends the others."""

    def __init__(self, processes: list[ForkServerProcess], log: Path) -> None:
        self.processes, self.log = processes, log
        for process in processes:
            process.start()

    def wait(self, seconds: float = 60.0) -> list[int | None]:
        """The exit codes by rank, once all have ended; minus the signal's number where one did it. Fails after `seconds` a process."""
        for process in self.processes:
            process.join(seconds)
        hung = [rank for rank, process in enumerate(self.processes) if process.exitcode is None]
        self.kill()
        assert not hung, f"ranks {hung} did not end:\n{self.output}"
        return [process.exitcode for process in self.processes]

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    @property
    def output(self) -> str:
        return self.log.read_text()


def _forked_trainer(arguments: list[str], environment: Mapping[str, str], log: Path, faults: Sequence[Disturbance]) -> None:
    """What a forked process does: the trainer's own entry, with a report at every step, so that a test sees where it is."""
    import torch  # noqa: PLC0415  # here, where the fork server has it already; a test's process may do without

    from trainer import __main__ as trainer  # noqa: PLC0415  # as above
    from trainer import meter, report  # noqa: PLC0415  # as above

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    os.environ.update(environment)
    torch.set_num_threads(1)
    meter.REPORT_SECONDS, report.HEARTBEAT_SECONDS = 0.0, 0.01
    for fault in faults:
        fault.install(int(environment.get("RANK", "0")))
    sys.argv = ["trainer", *arguments]
    sys.exit(trainer.main())


@dataclass
class StageRunner:
    """One experiment in a file bucket; in another, whose `folder` is to be named, its stages can be started and not forked."""

    bucket: FileBucket
    spec: ExperimentSpec
    experiment: str = "xtest"
    folder: Path | None = None

    @property
    def cache(self) -> Path:
        return self.folder or self.bucket.root.with_name(f"{self.bucket.root.name}-cache")

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

    def start(self, stage: str, attempt: int = 1, processes: int = 1, restarts: int = 0) -> subprocess.Popen[str]:
        """Start an attempt as the launcher does, but for what the agent itself restarts; stdout and stderr together are a pipe."""
        folder = self.cache.with_name(f"{self.cache.name}-{stage}-{attempt}")  # a cluster's bucket has no folder
        folder.mkdir(parents=True, exist_ok=True)
        agent = [part.replace(FOLDER, str(folder)) for part in torchrun(Compute(processes=processes), sys.executable)]
        agent[agent.index("--max-restarts") + 1] = str(restarts)
        alone = [sys.executable, "-m", "trainer"]
        arguments = ["--bucket", self.bucket.url, "--config", self.config(stage, attempt)]
        return subprocess.Popen(
            [*(agent if processes > 1 else alone), *arguments],
            env={**os.environ, **ENVIRONMENT, "SOLFA_CACHE": str(self.cache), "SOLFA_MEETING": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def fork(
        self, stage: str, attempt: int = 1, processes: int = 1, faults: Sequence[Disturbance] = (), config: str | None = None
    ) -> Attempt:
        """Start an attempt in forked processes. `config`: the key of its StageConfig, where the test has written one."""
        arguments = ["--bucket", self.bucket.url, "--config", config or self.config(stage, attempt)]
        log = self.bucket.root.with_name(f"{self.bucket.root.name}-{stage}-{attempt}.log")
        world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(processes)} if processes > 1 else {}
        environments = [
            {**world, "SOLFA_CACHE": str(self.cache), "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(processes)}
            for rank in range(processes)
        ]
        return Attempt(
            [FORKED.Process(target=_forked_trainer, args=(arguments, env, log, faults), daemon=True) for env in environments], log
        )

    def finish(self, stage: str, attempt: int = 1, processes: int = 1, faults: Sequence[Disturbance] = ()) -> StageResult:
        """`fork`, to a good end; the result."""
        started = self.fork(stage, attempt, processes, faults)
        assert started.wait() == [0] * processes, started.output
        return self.result(stage)

    def finish_all(self, *but: str) -> None:
        """`finish` every stage of the plan, in order."""
        for stage in make_plan(self.spec).stages:
            if stage.name not in but:
                self.finish(stage.name)

    def copy(self, folder: Path, *without: str, **changes: Any) -> "StageRunner":
        """The same experiment in a bucket of its own, as if the stages `without` had never run; `changes` replace the spec's fields."""
        root, ignored = folder / "bucket", {self.bucket.root / keys.stage_prefix(self.experiment, stage) for stage in without}
        shutil.copytree(
            self.bucket.root, root, ignore=lambda at, names: {name for name in names if Path(at, name) in ignored}, dirs_exist_ok=True
        )
        spec = self.spec.model_dump(mode="json") | changes
        return StageRunner(FileBucket(root), parse_spec(json.dumps(spec)), self.experiment)

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

    def report(self, stage: str, attempt: int = 1) -> StageReport | None:
        found = self.bucket.find(keys.attempt_report(self.experiment, stage, attempt))
        return StageReport.model_validate_json(found.data) if found else None

    def failure(self, stage: str, attempt: int = 1) -> AttemptFailure | None:
        found = self.bucket.find(keys.attempt_failure(self.experiment, stage, attempt))
        return AttemptFailure.model_validate_json(found.data) if found else None

    def pointer(self, stage: str) -> TrainStatePointer | None:
        found = self.bucket.find(keys.latest_state(self.experiment, stage))
        return TrainStatePointer.model_validate_json(found.data) if found else None

    def states(self, stage: str) -> list[str]:
        """The names of the train states that lie in the bucket."""
        folder = keys.latest_state(self.experiment, stage).removesuffix("latest.json")
        return sorted({entry.key.removeprefix(folder).partition("/")[0] for entry in self.bucket.list(folder)} - {"latest.json"})


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
