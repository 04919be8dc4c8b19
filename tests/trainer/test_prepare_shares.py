"""Prepare by several processes: each takes its share of the files, and what comes out is the same bytes for any number of them."""

import functools
import itertools
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from api import keys
from api.bucket import Bucket, FileBucket
from api.errors import Damaged
from api.reach import Reach
from api.results import StageResult
from tests.reference import assert_golden
from tests.services.waiting import wait_for
from tests.trainer.faults import Fault, ask_to_stop, fail_with, hold_until, kill
from tests.trainer.preparing import LENGTH, Preparing, jsonl, preparing, starts, texts, write_jsonl, write_mixed
from tests.trainer.stage_runner import StageRunner
from trainer import prepare, tokenise
from trainer.deal import deal
from trainer.failures import explain
from trainer.world import Interrupted

TRAINED = {"tokenizer": {"type": "train", "vocab_size": 300, "sample_bytes": 20_000}}
TOKENISE = "trainer.tokenise:Tokeniser.run"
SCRATCH = keys.scratch_prefix("xtest", "prepare")
STOPPED, NEVER = 75, 64
SUFFIXES = {".jsonl", ".gz", ".parquet", ".arrow"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Preparing, StageResult]:
    """One process, undisturbed."""
    folder = tmp_path_factory.mktemp("alone")
    made = preparing(folder, write_mixed(folder / "corpus"), **TRAINED)
    return made, made.run()


def again(alone: tuple[Preparing, StageResult], folder: Path, bucket: Bucket | None = None) -> Preparing:
    """The same experiment, not begun."""
    folder.mkdir(exist_ok=True)
    return Preparing(folder, bucket or FileBucket(folder / "bucket"), alone[0].spec)


def assert_same(made: Preparing, result: StageResult, alone: tuple[Preparing, StageResult]) -> None:
    """The manifest but for its time and attempt, and every byte of every file."""
    bare = {"created_at", "attempt"}
    assert result.model_dump(exclude=bare) == alone[1].model_dump(exclude=bare)
    assert made.files() == alone[0].files()


def test_the_figures_are_those_of_always(alone: tuple[Preparing, StageResult]) -> None:
    prepared = alone[1].prepared
    assert prepared is not None
    assert_golden("prepared.json", json.dumps(prepared.model_dump(mode="json"), indent=2) + "\n")


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 1000), max_size=40), st.integers(1, 9))
def test_every_piece_is_dealt_once_and_no_hand_is_much_fuller_than_it_must_be(sizes: list[int], hands: int) -> None:
    dealt = deal(sizes, hands)
    assert len(dealt) == hands
    assert sorted(itertools.chain(*dealt)) == list(range(len(sizes)))
    loads = [sum(max(1, sizes[index]) for index in hand) for hand in dealt]
    largest = max([1, *sizes])
    assert max(loads) <= sum(loads) / hands + largest  # who took a piece had least before, so no more than the mean
    assert deal(list(sizes), hands) == dealt


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=7), st.integers(1, 3))
def test_the_fullest_hand_is_within_grahams_bound_of_the_best_deal(sizes: list[int], hands: int) -> None:
    choices = itertools.product(range(hands), repeat=len(sizes))
    best = min(max(sum(size for size, at in zip(sizes, choice, strict=True) if at == hand) for hand in range(hands)) for choice in choices)
    fullest = max(sum(sizes[index] for index in hand) for hand in deal(sizes, hands))
    assert 3 * hands * fullest <= (4 * hands - 1) * best


@pytest.mark.parametrize("ranks", [2, 3, 20])
def test_any_number_of_ranks_gives_the_same_bytes_and_each_has_its_share(
    tmp_path: Path, alone: tuple[Preparing, StageResult], bucket: Bucket, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, done = tokenise.read_piece, []

    def seen(source: Any, path: Path, domain: str, reach: Reach) -> Any:
        done.append((threading.current_thread().name, path.name))
        return read(source, path, domain, reach)

    monkeypatch.setattr(tokenise, "read_piece", seen)
    made = again(alone, tmp_path / "made", bucket)
    assert_same(made, made.run(ranks=ranks), alone)
    pieces = 5 + 2 + 3 + 3 + 1
    assert len(done) == len(set(done)) == pieces
    assert len({rank for rank, _ in done}) == min(ranks, pieces)
    assert list((tmp_path / "made" / "cache").rglob("*.*")) == []
    assert not [entry.key for entry in bucket.list(f"{SCRATCH}units/")]  # the disk is not asked for all of it twice


@settings(derandomize=True, deadline=None, max_examples=12)
@given(cuts=st.lists(st.integers(0, 90), min_size=0, max_size=6), ranks=st.integers(1, 4))
def test_the_rows_do_not_depend_on_how_documents_are_cut_into_files_or_on_who_reads_them(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], ranks: int
) -> None:
    whole, folder = texts(90, 5), tmp_path_factory.mktemp("cut")
    once = preparing(folder / "once", {"books": jsonl(write_jsonl(folder / "whole.jsonl", whole))})
    for number, (start, stop) in enumerate(itertools.pairwise([0, *sorted(cuts), 90])):
        write_jsonl(folder / "parts" / f"{number}.jsonl", whole[start:stop])
    parted = preparing(folder / "parted", {"books": jsonl(str(folder / "parts" / "*"))})
    assert parted.run(ranks=ranks).prepared == once.run().prepared
    assert parted.files() == once.files()


def test_rows_that_are_tokenised_already_are_shared_out_by_shard(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 90, (120, LENGTH + 1), dtype=np.int32)
    for side, part in (("train", ids[:100]), ("validation", ids[100:])):
        for shard in range(3):
            Dataset.from_dict({"input_ids": part[shard::3].tolist()}).save_to_disk(tmp_path / side / "original" / str(shard))
    original = {"type": "doremi", "path": str(tmp_path)}
    domains = {"original": {"source": original, "validation": {"type": "source", "source": original}}}
    one, three = (preparing(tmp_path / name, domains, tokenizer={"type": "pretokenized", "vocab_size": 90}) for name in ("one", "three"))
    assert one.run().prepared == three.run(ranks=3).prepared
    assert one.files() == three.files()
    data = three.open(three.run())
    np.testing.assert_array_equal(
        data.take(np.zeros(100, int), np.arange(100)), np.concatenate([ids[:100][shard::3] for shard in range(3)])
    )


# Real processes from here on.


@pytest.fixture
def runner(tmp_path: Path, alone: tuple[Preparing, StageResult]) -> StageRunner:
    return StageRunner(FileBucket(tmp_path / "bucket"), alone[0].spec)


def finished(runner: StageRunner) -> set[str]:
    return {entry.key for entry in runner.bucket.list(f"{SCRATCH}units/") if entry.key.endswith(".json")}


def finish(runner: StageRunner, attempt: int, processes: int, alone: tuple[Preparing, StageResult]) -> str:
    """The rest of it, which comes to the same bytes; what the processes logged."""
    ended = runner.fork("prepare", attempt, processes)
    assert ended.wait() == [0] * processes, ended.output
    assert_same(Preparing(runner.bucket.root, runner.bucket, runner.spec), runner.result("prepare"), alone)
    return ended.output


@pytest.mark.parametrize("processes", [2, 3])
def test_real_processes_give_the_same_bytes_and_say_so_together(
    runner: StageRunner, alone: tuple[Preparing, StageResult], processes: int
) -> None:
    log = finish(runner, 1, processes, alone)
    assert len(starts(log)) == len(set(starts(log))) == 14
    said = runner.report("prepare")
    assert (said.activity, said.step, said.total, said.unit, said.world_size) == ("packing rows", 4, 4, "domains", processes)


@pytest.mark.parametrize("attempt", [1, 2])
def test_progress_is_of_all_processes_and_of_earlier_attempts(
    runner: StageRunner, alone: tuple[Preparing, StageResult], attempt: int
) -> None:
    if attempt == 2:
        assert runner.fork("prepare", 1, 1, [Fault(TOKENISE, kill, 7)]).wait() == [-9]
    corpus = alone[0].folder / "corpus"
    total = sum(path.stat().st_size for path in corpus.rglob("*") if path.suffix in SUFFIXES and path.name != "plain.jsonl")
    behind, packing = (runner.bucket.root.with_name(name) for name in ("behind", "packing"))
    faults = [
        Fault("trainer.prepare:_Share.tokenise", functools.partial(hold_until, behind), rank=1),
        Fault("trainer.prepare:_Share.pack", functools.partial(hold_until, packing), rank=0),
    ]
    running = runner.fork("prepare", attempt, 2, faults)
    partly = wait_for(lambda: (said := runner.report("prepare", attempt)) and said.step and said)
    assert (partly.activity, partly.total, partly.unit, partly.world_size) == ("tokenising", total, "bytes", 2)
    assert partly.step < total
    behind.touch()
    wait_for(packing.with_suffix(".held").exists)
    wait_for(lambda: (said := runner.report("prepare", attempt)) and said.step == said.total == total)
    packing.touch()
    assert running.wait() == [0, 0], running.output


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_is_asked_to_stop_stops_all_and_what_is_done_is_kept(
    runner: StageRunner, alone: tuple[Preparing, StageResult], rank: int
) -> None:
    stopped = runner.fork("prepare", 1, 2, [Fault(TOKENISE, ask_to_stop, 4, rank=rank)])
    assert stopped.wait() == [STOPPED, STOPPED], stopped.output
    assert runner.failure("prepare").code == "interrupted"
    kept = finished(runner)
    assert len(kept) >= 3
    log = finish(runner, 2, 3, alone)
    assert len(starts(log)) == 14 - len(kept)


def test_one_that_waits_for_the_others_stops_when_it_is_asked(runner: StageRunner, alone: tuple[Preparing, StageResult]) -> None:
    busy = functools.partial(hold_until, runner.bucket.root / keys.attempt_failure("xtest", "prepare", 1))  # until the other has stopped
    stopped = runner.fork("prepare", 1, 2, [Fault("trainer.crew:Crew.meet", ask_to_stop, 1, rank=1), Fault(TOKENISE, busy, 1, rank=0)])
    assert stopped.wait() == [STOPPED, STOPPED], stopped.output
    finish(runner, 2, 1, alone)


@pytest.mark.parametrize("site", [TOKENISE, "trainer.rows:RowWriter.finish"])
@pytest.mark.parametrize("rank", [0, 1])
def test_the_message_of_the_one_that_fails_is_the_attempts_and_ends_the_others(
    runner: StageRunner, alone: tuple[Preparing, StageResult], rank: int, site: str
) -> None:
    full = OSError(28, "No space left on device")
    failed = runner.fork("prepare", 1, 2, [Fault(site, functools.partial(fail_with, full), 2, rank=rank)])
    codes = failed.wait()
    assert codes[rank] == NEVER
    assert codes[1 - rank] in (NEVER, 1)  # by rank 0's word, or because rank 0 is gone
    said = runner.failure("prepare")
    assert (said.code, said.rank, said.retryable) == ("out_of_space", rank, False)
    assert said.message.startswith("The disk is full")
    finish(runner, 2, 2, alone)


@pytest.mark.parametrize("processes", [1, 3])
def test_after_a_kill_only_what_was_not_finished_is_done_by_any_number_of_processes(
    runner: StageRunner, alone: tuple[Preparing, StageResult], processes: int
) -> None:
    killed = runner.fork("prepare", 1, 1, [Fault("trainer.shards:ShardWriter.finish", kill, 12)])
    assert killed.wait() == [-9], killed.output
    kept = finished(runner)
    assert len(kept) == 5  # two sides a piece: it was killed in the sixth
    log = finish(runner, 2, processes, alone)
    assert len(starts(log)) == 14 - 5
    assert not [path for path in runner.bucket.root.rglob(".*") if path.is_file()]


def test_a_kill_while_packing_leaves_finished_domains_and_pieces_alone(runner: StageRunner, alone: tuple[Preparing, StageResult]) -> None:
    killed = runner.fork("prepare", 1, 1, [Fault("trainer.rows:RowWriter.finish", kill, 4)])
    assert killed.wait() == [-9], killed.output
    (done,) = (name for name in runner.spec.domain_names if runner.bucket.exists(f"{SCRATCH}{name}.json"))
    packed = runner.bucket.root / keys.prepared_prefix("xtest", "prepare") / "train" / done
    inodes = {path.name: path.stat().st_ino for path in packed.iterdir()}
    log = finish(runner, 2, 2, alone)
    assert starts(log) == []
    assert {path.name: path.stat().st_ino for path in packed.iterdir()} == inodes


# What lies in the scratch folder is checked before it counts.


def stop_before_packing(monkeypatch: pytest.MonkeyPatch, made: Preparing) -> None:
    """Attempt 1 ends with all pieces tokenised and nothing packed."""
    with monkeypatch.context() as patch:
        patch.setattr(prepare._Share, "pack", functools.partial(fail_with, Interrupted()))
        with pytest.raises(Interrupted):
            made.run()


@pytest.mark.parametrize("harm", ["damaged", "cut", "gone"])
def test_a_shard_that_is_not_as_written_is_made_anew_by_the_next_attempt(
    tmp_path: Path, alone: tuple[Preparing, StageResult], bucket: Bucket, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = again(alone, tmp_path / "made", bucket)
    stop_before_packing(monkeypatch, made)
    key = max((entry.size, entry.key) for entry in bucket.list(f"{SCRATCH}units/") if entry.key.endswith(".ids"))[1]
    data = bytearray(bucket.get(key).data)
    data[len(data) // 2] ^= 1
    if harm == "gone":
        bucket.delete(key)
    else:
        bucket.put(key, bytes(data if harm == "damaged" else data[:-6]))
    with pytest.raises(Damaged, match=rf"The shard {key} is .*; the next attempt makes it anew") as caught:
        made.run(attempt=2)
    assert explain(caught.value).retryable
    assert_same(made, made.run(attempt=3), alone)


def test_a_piece_that_was_replaced_is_another_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write_jsonl(path, texts(100)), write_jsonl(other, texts(50, 1))
    made = preparing(tmp_path / "made", {"books": jsonl(str(path), str(other))})
    stop_before_packing(monkeypatch, made)
    write_jsonl(path, texts(120))
    counts = made.run(attempt=2).prepared.domains["books"]
    assert counts.documents + counts.validation_documents == 170
