"""Prepared data on its way to a node's disk: once for all processes there, checked, never half of it, and never into a full disk."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.bucket import Bucket, open_bucket
from api.errors import DataError, NoRoom, OutOfSpace
from api.results import StageResult
from api.stage_config import StageReport
from tests.api.s3_servers import bucket_at
from tests.forking import FORKED
from tests.services.waiting import wait_for
from tests.trainer.faults import Fault, kill
from tests.trainer.preparing import Preparing, jsonl, preparing, texts, write_jsonl
from trainer import fetch
from trainer.crew import Crew, Tally
from trainer.data import PreparedData, open_prepared
from trainer.failures import explain
from trainer.report import Reporter
from trainer.rows import ARROW_FILE
from trainer.world import Interrupted, World, stop_flag

DOMAINS = {"books": 900, "code": 80, "web": 150}
FOLDERS = 2 * len(DOMAINS)


def prepared(folder: Path, bucket: Bucket) -> tuple[Preparing, StageResult]:
    sources = {name: jsonl(write_jsonl(folder / f"{name}.jsonl", texts(n, seed))) for seed, (name, n) in enumerate(DOMAINS.items())}
    made = preparing(folder, sources, bucket)
    return made, made.run()


@pytest.fixture
def made(tmp_path: Path) -> tuple[Preparing, StageResult]:
    return prepared(tmp_path, open_bucket("memory://"))


class Downloads:
    """What is downloaded, in this process; `harm` may change a file that has come, as a bad line or disk would."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.harm: dict[str, int] = {}
        """By part of a key: how many times still."""

    def install(self, patch: pytest.MonkeyPatch) -> None:
        whole = Bucket.download

        def download(bucket: Bucket, key: str, path: Path, *arguments: Any) -> None:
            self.keys.append(key)
            whole(bucket, key, path, *arguments)
            for part, times in self.harm.items():
                if part in key and times:
                    self.harm[part] -= 1
                    spoil(path)

        patch.setattr(Bucket, "download", download)


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> Downloads:
    seen = Downloads()
    seen.install(monkeypatch)
    return seen


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # amid the ids
    path.write_bytes(data)


def cached(made: tuple[Preparing, StageResult]) -> list[Path]:
    return sorted((made[0].folder / "cache").rglob(f"*{ARROW_FILE}*"))


def content(data: PreparedData) -> list[bytes]:
    rows = [data.take(np.full(n, index), np.arange(n)) for index, n in enumerate(data.rows)]
    return [part.tobytes() for part in [*rows, *(data.take_validation(index, 0, n) for index, n in enumerate(data.validation_rows))]]


# Real processes and a real S3.


def open_and_count(port: int, name: str, answer: Path, cache: Path, faults: list[Fault]) -> None:
    """In a process of its own: what a rank does, and a line for each download."""
    for fault in faults:
        fault.install(0)
    seen = Downloads()
    with pytest.MonkeyPatch.context() as patch:
        seen.install(patch)
        result = StageResult.model_validate_json((cache.parent / "result.json").read_text())
        data = open_prepared(bucket_at(port, name), result, cache)
    with answer.open("a") as file:
        file.writelines(f"{key}\n" for key in seen.keys)
    assert data.fingerprint == result.prepared.fingerprint


def processes(port: int, made: tuple[Preparing, StageResult], answer: Path, number: int, faults: list[Fault] | None = None) -> list[int]:
    """Exit codes of so many ranks of one node."""
    cache = made[0].folder / "cache"
    (cache.parent / "result.json").write_text(made[1].model_dump_json())
    name = made[0].bucket.url.removeprefix("s3://")
    ranks = [FORKED.Process(target=open_and_count, args=(port, name, answer, cache, faults or [])) for _ in range(number)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    return [rank.exitcode for rank in ranks]


@pytest.fixture
def remote(s3_port: int, tmp_path: Path) -> tuple[Preparing, StageResult]:
    return prepared(tmp_path, bucket_at(s3_port, f"tests/{tmp_path.name}"))


def test_one_process_of_a_node_fetches_for_all_and_a_restart_fetches_nothing(
    s3_port: int, remote: tuple[Preparing, StageResult], tmp_path: Path
) -> None:
    answer = tmp_path / "downloaded"
    assert processes(s3_port, remote, answer, 3) == [0, 0, 0]
    assert len(answer.read_text().splitlines()) == len(set(answer.read_text().splitlines())) == FOLDERS
    assert processes(s3_port, remote, answer, 2) == [0, 0]
    assert len(answer.read_text().splitlines()) == FOLDERS


def test_one_that_is_killed_amid_a_file_leaves_what_is_whole_and_the_next_takes_over(
    s3_port: int, remote: tuple[Preparing, StageResult], tmp_path: Path
) -> None:
    answer = tmp_path / "downloaded"
    assert processes(s3_port, remote, answer, 1, [Fault("trainer.crew:Tally.add", kill, 5)]) == [-9]
    whole, halves = [path for path in cached(remote) if "/." not in str(path)], [path for path in cached(remote) if "/." in str(path)]
    assert (len(whole), len(halves)) == (4, 1)
    assert processes(s3_port, remote, answer, 2) == [0, 0]
    assert len(answer.read_text().splitlines()) == FOLDERS - 4
    assert len(cached(remote)) == FOLDERS


# What is fetched is checked.


def test_a_damaged_download_is_fetched_again_once(made: tuple[Preparing, StageResult], downloads: Downloads, tmp_path: Path) -> None:
    undisturbed = content(open_prepared(made[0].bucket, made[1], tmp_path / "undisturbed"))
    downloads.keys, downloads.harm = [], {"train/code": 1}
    assert content(made[0].open(made[1])) == undisturbed
    assert sum("train/code" in key for key in downloads.keys) == 2
    assert len(downloads.keys) == FOLDERS + 1


def test_one_that_is_damaged_twice_is_an_error_that_names_the_folder(made: tuple[Preparing, StageResult], downloads: Downloads) -> None:
    downloads.harm = {"validation/code": 2}
    with pytest.raises(DataError, match=r"rows of \S+/validation/code/ are not those of their manifest, .* fetched twice; run .* afresh"):
        made[0].open(made[1])
    assert sum("validation/code" in key for key in downloads.keys) == 2
    assert not [path for path in cached(made) if "validation/code" in str(path) or "/." in str(path)]
    before = len(downloads.keys)
    made[0].open(made[1])  # the line is well again: what came whole is not fetched again
    assert len(downloads.keys) - before == 6 - 3


def test_what_was_damaged_in_the_cache_is_fetched_again_and_nothing_else(made: tuple[Preparing, StageResult], downloads: Downloads) -> None:
    undisturbed = content(made[0].open(made[1]))
    downloads.keys.clear()
    spoil(next(path for path in cached(made) if "train/books" in str(path)))
    assert content(made[0].open(made[1])) == undisturbed
    assert [key.rpartition("data/")[2] for key in downloads.keys] == [f"train/books/{ARROW_FILE}"]


def test_a_manifest_of_an_older_version_has_no_digests_and_opens(made: tuple[Preparing, StageResult], downloads: Downloads) -> None:
    raw = made[1].model_dump(mode="json")
    for domain in raw["prepared"]["domains"].values():
        del domain["sha256"], domain["validation_sha256"]
    older = StageResult.model_validate(raw)
    data = made[0].open(older)
    assert (data.rows, len(downloads.keys)) == (made[0].open(older).rows, FOLDERS)


# Room.


def test_without_room_nothing_is_fetched_and_the_sentence_says_how_much_is_missing(
    made: tuple[Preparing, StageResult], downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sum(entry.size for entry in made[0].bucket.list("") if entry.key.endswith(ARROW_FILE))
    needed = data + fetch._SPARE
    monkeypatch.setattr(fetch, "free_bytes", lambda _: needed - 1)
    with pytest.raises(NoRoom, match=rf"needs {-(-needed // 2**20)} MiB, but the disk of .* has \d+ MiB free; free some") as caught:
        made[0].open(made[1])
    failure = explain(caught.value)
    assert (failure.code, failure.retryable, failure.exit_code) == ("no_room", True, 1)
    assert downloads.keys == cached(made) == []
    monkeypatch.setattr(fetch, "free_bytes", lambda _: needed)
    made[0].open(made[1])
    monkeypatch.setattr(fetch, "free_bytes", lambda _: 0)
    made[0].open(made[1])  # all is there: no room is needed
    assert len(downloads.keys) == FOLDERS


def test_a_disk_that_fills_up_meanwhile_leaves_no_half_of_a_file(
    made: tuple[Preparing, StageResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Tally, "add", full)
        with pytest.raises(OutOfSpace, match="The disk is full"):
            made[0].open(made[1])
    assert cached(made) == []
    made[0].open(made[1])


# Waiting, and saying so.


@pytest.fixture
def held(made: tuple[Preparing, StageResult], monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Another process of the node is amid its first file until the event is set."""
    gate, amid, whole = threading.Event(), threading.Event(), Bucket.download

    def slow(bucket: Bucket, *arguments: Any) -> None:
        amid.set()
        assert gate.wait(60)
        whole(bucket, *arguments)

    monkeypatch.setattr(Bucket, "download", slow)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(made[0].open, made[1])
        wait_for(amid.is_set)
        yield gate
        gate.set()
        other.result()


def test_one_that_waits_for_the_fetching_one_stops_when_it_is_asked(
    made: tuple[Preparing, StageResult], held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(stop_flag, "raised", True)
        with pytest.raises(Interrupted):
            made[0].open(made[1])
    assert not held.is_set()


def test_the_report_counts_the_bytes_of_all_nodes(made: tuple[Preparing, StageResult], tmp_path: Path) -> None:
    context, reports = made[0].context, open_bucket("memory://")
    worlds = [World(rank=rank, size=2, store=context.world.store) for rank in range(2)]
    data = sum(entry.size for entry in made[0].bucket.list("") if entry.key.endswith(ARROW_FILE))
    with Reporter(context.config, reports, worlds[0]) as reporter:
        tallies = [Tally(Crew(world), reporter if world.is_first else None, "fetching prepared data") for world in worlds]
        for node, tally in enumerate(tallies):
            open_prepared(made[0].bucket, made[1], tmp_path / f"node {node}", tally)
            tally.say()
        tallies[0].say()
    (key,) = (entry.key for entry in reports.list(""))
    said = StageReport.model_validate_json(reports.get(key).data)
    assert (said.activity, said.step, said.total, said.unit) == ("fetching prepared data", 2 * data, 2 * data, "bytes")
