"""A stage on two machines, as the launcher starts it: torchrun's elastic agents, here both on this one. What a cluster does beside is
tested on a cluster."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from api import keys
from api.bucket import FileBucket
from api.spec import Compute, parse_spec
from api.stage_config import AttemptFailure, StageReport
from services.launch.manifest import elastic_torchrun
from tests.services.waiting import wait_for
from tests.trainer import equality
from tests.trainer.preparing import starts, texts, write_jsonl
from tests.trainer.stage_runner import ENVIRONMENT, TINY_TRAINING, StageRunner, tiny_spec, write_corpus

pytestmark = pytest.mark.slow
COMPUTE = Compute.model_validate({"replicas": {"min": 1, "max": 2}})


def agent_command(port: int, hosts: bool, address: str, arguments: list[str]) -> list[str]:
    """The command of one pod, with what the cluster would put in its place."""
    rendered = [*elastic_torchrun("xtest-reference-1", COMPUTE, sys.executable), *arguments]
    rendered[rendered.index("--rdzv-endpoint") + 1] = f"127.0.0.1:{port}"
    values = {"$(SOLFA_POD_IP)": address, "$(SOLFA_HOSTS_RENDEZVOUS)": str(hosts).lower()}
    for name, value in values.items():
        rendered = [part.replace(name, value) for part in rendered]
    return rendered


Agent = subprocess.Popen[bytes]


@contextmanager
def starting(runner: StageRunner, stage: str) -> Iterator[Callable[[str], Agent]]:
    """Starts an agent of attempt 1 of `stage` at an address, in a session of its own, the first with the rendezvous; all are killed at the
    end. Its log is `agentN.log`, counted from 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments, number = ["--bucket", runner.bucket.url, "--config", runner.config(stage)], itertools.count()
    with ExitStack() as stack:

        def start(address: str) -> Agent:
            index = next(number)
            log = stack.enter_context((runner.bucket.root.parent / f"agent{index}.log").open("wb"))
            process = subprocess.Popen(
                agent_command(port, index == 0, address, arguments),
                env={**os.environ, **ENVIRONMENT, "SOLFA_CACHE": str(runner.cache)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            stack.callback(lose, process)
            return process

        yield start


@contextmanager
def agents(runner: StageRunner, stage: str) -> Iterator[tuple[Agent, Agent]]:
    """Two of them."""
    with starting(runner, stage) as start:
        yield start("127.0.0.1"), start("127.0.0.1")


def lose(agent: Agent) -> None:
    """All of its machine dies at once."""
    workers = workers_of(agent.pid)  # looked for before it dies: they are nobody's children after
    with suppress(ProcessLookupError):
        os.killpg(agent.pid, signal.SIGKILL)
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    agent.wait()


def workers_of(agent: int) -> list[int]:
    """Torchrun gives its workers sessions of their own."""
    found = []
    for path in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == agent or int(fields[2]) == agent or int(fields[3]) == agent:
                found.append(int(path.name))
    return found


def report(runner: StageRunner, stage: str) -> StageReport | None:
    blob = runner.bucket.find(keys.attempt_report("xtest", stage, 1))
    return StageReport.model_validate_json(blob.data) if blob else None


def make_runner(tmp_path: Path, **training: int) -> StageRunner:
    write_corpus(tmp_path / "corpus", ("easy", "hard", "middle"), documents=100)
    spec = tiny_spec(tmp_path / "corpus", training={"proxy": {**TINY_TRAINING, **training}}, compute={"default": COMPUTE.model_dump()})
    return StageRunner(FileBucket(tmp_path / "bucket"), spec)


def test_a_failing_program_ends_every_agent_without_an_error_and_says_why(tmp_path: Path) -> None:
    runner = make_runner(tmp_path)
    with agents(runner, "reference") as (first, second):  # its data was never prepared
        assert (first.wait(200), second.wait(200)) == (0, 0), (tmp_path / "agent0.log").read_text()
    failure = AttemptFailure.model_validate_json(runner.bucket.get(keys.attempt_failure("xtest", "reference", 1)).data)
    assert not failure.retryable
    assert "There is no object" in failure.message or "prepare" in failure.message


def test_a_lost_machine_leaves_the_others_training_and_no_failure_behind(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, steps=200, save_every=20)
    runner.run("prepare")
    with agents(runner, "reference") as (first, second):
        wait_for(lambda: (seen := report(runner, "reference")) and seen.world_size == 2 and seen.step > 20, 200, every=0.2)
        lose(second)
        wait_for(lambda: (seen := report(runner, "reference")) and seen.world_size == 1, 100, every=0.2)
        assert first.wait(200) == 0, (tmp_path / "agent0.log").read_text()
    result = runner.result("reference")
    assert result.trained is not None
    assert result.trained.steps == 200
    assert runner.bucket.find(keys.attempt_failure("xtest", "reference", 1)) is None


@pytest.mark.skipif(sys.platform == "darwin", reason="it has one loopback address")
def test_restarts_are_counted_on_by_a_new_machine_whose_process_comes_first(tmp_path: Path) -> None:
    """Ranks go by address: the lower one's process is the first, whose report it is, though its new agent has restarted nothing yet."""
    runner = make_runner(tmp_path, steps=2000, save_every=20)
    runner.run("prepare")
    with starting(runner, "reference") as start:
        _, second = start("127.0.0.2"), start("127.0.0.1")
        wait_for(lambda: (seen := report(runner, "reference")) and seen.world_size == 2 and seen.step > 20, 200, every=0.2)
        lose(second)
        alone = wait_for(lambda: (seen := report(runner, "reference")) and seen.world_size == 1 and seen, 100, every=0.2)
        start("127.0.0.1")
        again = wait_for(lambda: (seen := report(runner, "reference")) and seen.world_size == 2 and seen, 100, every=0.2)
    assert (alone.restarts, again.restarts) == (1, 2)


def packers_of_shards(runner: StageRunner, processes: list[int]) -> list[int]:
    """Those of `processes` that are amid a file: they have a shard open that is not whole yet."""
    units = str(runner.bucket.root / keys.scratch_prefix("xtest", "prepare") / "units")
    amid = []
    for process in processes:
        with suppress(OSError):
            if any(str(path.readlink()).startswith(units) for path in Path(f"/proc/{process}/fd").iterdir()):
                amid.append(process)
    return amid


@pytest.mark.parametrize("lost", ["worker", "machine"])
def test_a_lost_share_of_the_files_is_taken_over_and_nothing_else_is_done_again(tmp_path: Path, lost: str) -> None:
    """The first process has the largest file, which is read at once; the second is killed amid the next one, which takes long."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "quick.jsonl").write_text(json.dumps({"text": "little of it is text", "else": "x" * 12_000_000}) + "\n")
    write_jsonl(corpus / "slow.jsonl", texts(100, 1, 1000) * 16)
    for number in range(4):
        write_jsonl(corpus / f"small-{number}.jsonl", texts(20, 2 + number))
    domains = {"books": {"source": {"type": "jsonl", "paths": [str(corpus / "*.jsonl")]}}}
    spec = parse_spec(
        json.dumps(tiny_spec(corpus, compute={"default": COMPUTE.model_dump()}).model_dump(mode="json") | {"domains": domains})
    )
    whole, runner = (StageRunner(FileBucket(tmp_path / name), spec) for name in ("whole", "bucket"))
    whole.finish("prepare")
    units = keys.scratch_prefix("xtest", "prepare") + "units/books/"
    with agents(runner, "prepare") as (first, second):
        wait_for(lambda: "slow.jsonl" in (tmp_path / "agent1.log").read_text(), 200, every=0.01)
        (worker,) = wait_for(lambda: packers_of_shards(runner, workers_of(second.pid)), 200, every=0.01)
        os.kill(worker, signal.SIGSTOP)  # or it might be through before it is killed
        wait_for(lambda: [entry for entry in runner.bucket.list(units) if entry.key.endswith(".json")], 200, every=0.05)
        if lost == "worker":
            os.kill(worker, signal.SIGKILL)
        else:
            lose(second)
        assert first.wait(200) == 0, (tmp_path / "agent0.log").read_text()
    assert equality.result(runner, "prepare") == equality.result(whole, "prepare")
    begun = starts("".join((tmp_path / f"agent{index}.log").read_text() for index in range(2)))
    assert begun == ["quick.jsonl", "slow.jsonl", "slow.jsonl", *(f"small-{number}.jsonl" for number in range(4))]
    assert runner.failure("prepare") is None
    assert runner.report("prepare").world_size == (2 if lost == "worker" else 1)
