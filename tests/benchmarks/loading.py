"""What a mixture costs: batches whose weights move at every step, beside plain indexing of the same rows; and how long a resume takes.

22 domains as uneven as The Pile's, rows of 1024 + 1 ids, written and mapped by the trainer's own code. Loaders take turns within each
round, in this process and on one thread, so that a machine that slows down slows all of them; a ratio is the median of the rounds' ratios.

The baseline does what any loader must, and nothing else: it is given the very (domain, row) pairs that the sampler draws for the very
batches, beforehand and grouped by domain, and copies those rows out of the same memory maps, one domain at a time, into one new array.
The maps' pages are touched before anything is measured, and who goes first changes from round to round. Nothing here waits for a disk
or for another process, so the clock is the CPU time of this process: what else the machine does hardly shows in it.
"""

import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from datasets import Dataset, interleave_datasets, load_from_disk
from numpy.typing import NDArray

from api.domains import DomainWeights
from api.results import Prepared, PreparedDomain
from trainer.data import PreparedData
from trainer.rows import Rows, RowWriter, map_rows
from trainer.sampler import Ints, MixtureSampler

Figure = dict[str, Any]
Loader = Callable[[], None]
PILE = {  # algorithm.md, the baseline's column: each domain's share of The Pile
    "arxiv": 0.1052,
    "bookcorpus2": 0.0044,
    "books3": 0.0676,
    "dm-mathematics": 0.0198,
    "enron": 0.0030,
    "europarl": 0.0043,
    "freelaw": 0.0386,
    "github": 0.0427,
    "gutenberg": 0.0199,
    "hackernews": 0.0075,
    "nih": 0.0052,
    "opensubtitles": 0.0124,
    "openwebtext2": 0.1247,
    "philpapers": 0.0027,
    "pile-cc": 0.1121,
    "pubmed-abstracts": 0.0845,
    "pubmed-central": 0.1071,
    "stackexchange": 0.0929,
    "ubuntu-irc": 0.0074,
    "uspto": 0.0420,
    "wikipedia": 0.0919,
    "youtube": 0.0042,
}
LENGTH = 1024
BATCH = 512  # the paper's
SEED = 0
REACH = "at least 0.6"


def measure(quick: bool) -> list[Figure]:
    """Mixture loading to plain indexing, HF `interleave_datasets` beside it, and a resume at step 100,000."""
    rows, rounds, steps = (40_000, 6, 20) if quick else (200_000, 20, 40)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for number, (name, share) in enumerate(PILE.items()):
            _write(root / name, max(1, round(rows * share)), number)
        data, maps = _opened(root)
        loaders = {
            "ours": (_ours(data), steps),
            "plain": (_plain(maps, steps * (rounds + 1)), steps),
            "interleave": (_interleaved(root), 2),
        }
        rates = _in_turn(loaders, rounds)
    size = sum(data.rows) * (LENGTH + 1) * 4 / 1e9
    held = f"{len(PILE)} domains, {sum(data.rows):,} rows of {LENGTH} + 1 ids ({size:.2f} GB, cached)"
    how = f"{held}, batches of {BATCH}, one thread, CPU time"
    turns = f"{how}; {rounds} rounds in turn"
    hf = "weights fixed, indices made before the clock starts, NumPy format, a slice a batch"
    return [
        _ratio("mixture loading, weights moving at every step / plain memory-map indexing", rates["ours"], rates["plain"], REACH, turns),
        _ratio("HF interleave_datasets / plain memory-map indexing", rates["interleave"], rates["plain"], None, f"{turns}; {hf}"),
        _figure("mixture loading, weights moving at every step", rates["ours"], "sequences/s", None, how),
        _figure("plain memory-map indexing", rates["plain"], "sequences/s", None, how),
        _resume(data.rows, 5_000 if quick else 100_000),
    ]


def _ours(data: PreparedData) -> Loader:
    """What the trainer does for each batch: the sampler's draw under this step's weights, and the rows."""
    sampler, weights = MixtureSampler(data.rows, SEED), _moving_weights()

    def load() -> None:
        data.take(*sampler.draw(next(weights), BATCH))

    return load


def _plain(maps: list[Rows], batches: int) -> Loader:
    """The same rows in the same batches, known beforehand."""
    sampler, weights = MixtureSampler([len(rows) for rows in maps], SEED), _moving_weights()
    grouped = iter([_by_domain(*sampler.draw(next(weights), BATCH)) for _ in range(batches)])

    def load() -> None:
        out, start = np.empty((BATCH, LENGTH + 1), dtype=np.int32), 0
        for domain, rows in next(grouped):
            stop = start + len(rows)
            np.take(
                maps[domain], rows, axis=0, out=out[start:stop], mode="clip"
            )  # a tenth faster than out[start:stop] = maps[domain][rows]
            start = stop

    return load


def _by_domain(domain_ids: Ints, row_ids: Ints) -> list[tuple[int, Ints]]:
    return [(int(domain), row_ids[domain_ids == domain]) for domain in np.unique(domain_ids)]


def _interleaved(root: Path) -> Loader:
    """`datasets` at its best: everything drawn beforehand, consecutive rows of the mixture by the slice."""
    shares = np.array(list(PILE.values())) / sum(PILE.values())
    parts: list[Dataset] = [load_from_disk(str(root / name)) for name in PILE]
    mixed = interleave_datasets(parts, probabilities=shares.tolist(), seed=SEED).with_format("numpy", columns=["input_ids"])
    starts = itertools.cycle(range(0, len(mixed) - BATCH, BATCH))

    def load() -> None:
        start = next(starts)
        assert mixed[start : start + BATCH]["input_ids"].shape == (BATCH, LENGTH + 1)

    return load


def _in_turn(loaders: Mapping[str, tuple[Loader, int]], rounds: int) -> dict[str, list[float]]:
    """Sequences a CPU second of each loader, one figure a round, after a round that warms up. A loader comes with its batches a round."""
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for number in range(-1, rounds):
        for name in list(loaders)[:: 1 if number % 2 else -1]:
            load, batches = loaders[name]
            began = time.process_time()
            for _ in range(batches):
                load()
            if number >= 0:
                rates[name].append(batches * BATCH / (time.process_time() - began))
    return rates


def _moving_weights() -> Iterator[NDArray[np.float64]]:
    """A thousand points about The Pile's shares, in a circle."""
    return itertools.cycle(np.random.default_rng(SEED).dirichlet(100 * np.array(list(PILE.values())), size=1000))


def _resume(rows: list[int], steps: int) -> Figure:
    """Milliseconds from a kept position to the first batch; whether what follows is what an uninterrupted run does."""
    batch = 64
    sampler, weights = MixtureSampler(rows, SEED), _moving_weights()
    for _ in range(steps):
        sampler.draw(next(weights), batch)
    kept, after = json.dumps(sampler.state_dict()), [next(weights) for _ in range(10)]
    seconds, resumed = [], sampler
    for _ in range(25):
        began = time.perf_counter()
        resumed = MixtureSampler(rows, SEED)
        resumed.load_state_dict(json.loads(kept))
        first = resumed.draw(after[0], batch)
        seconds.append(1000 * (time.perf_counter() - began))
    exact = _same(first, sampler.draw(after[0], batch))
    exact = exact and all(_same(resumed.draw(point, batch), sampler.draw(point, batch)) for point in after[1:])
    exact = exact and resumed.state_dict() == sampler.state_dict()
    how = (
        f"construct, load {len(kept)} bytes, draw; then 10 batches and the position after them "
        f"{'are' if exact else 'ARE NOT'} those of the run that was not interrupted; weights moved at every step, batches of {batch}"
    )
    return _figure(f"resume of the sampler at step {steps:,}", seconds, "ms", "under 10 ms, exact", how)


def _same(a: tuple[Ints, Ints], b: tuple[Ints, Ints]) -> bool:
    return all(np.array_equal(mine, its) for mine, its in zip(a, b, strict=True))


def _write(folder: Path, rows: int, seed: int) -> None:
    """Random rows, by the trainer's own writer."""
    random, writer = np.random.default_rng(seed), RowWriter(folder.with_suffix(".raw"), LENGTH + 1)
    for start in range(0, rows, 2048):
        writer.add(random.integers(0, 50_000, min(2048, rows - start) * (LENGTH + 1), dtype=np.int32))
    writer.finish(folder, seed)


def _opened(root: Path) -> tuple[PreparedData, list[Rows]]:
    maps = [map_rows(root / name) for name in PILE]
    for rows in maps:
        rows.max()  # every page is touched, so that no loader pays for being first
    counts = PreparedDomain(documents=1, tokens=1, rows=1, share=0.0, validation_documents=0, validation_tokens=0, validation_rows=0)
    prepared = Prepared(
        domains=dict.fromkeys(PILE, counts),
        token_shares=DomainWeights.uniform(PILE),
        vocab_size=50_000,
        eos_id=0,
        sequence_length=LENGTH,
        fingerprint="0" * 64,
    )
    return PreparedData(prepared, maps, maps), maps


def _ratio(what: str, above: list[float], below: list[float], reach: str | None, how: str) -> Figure:
    pairs = [a / b for a, b in zip(above, below, strict=True)]
    return _figure(what, pairs, "", reach, f"{how}; ratio of neighbours")


def _figure(what: str, values: list[float], unit: str, reach: str | None, how: str) -> Figure:
    spread = f"; min {min(values):.4g}, median {statistics.median(values):.4g}, max {max(values):.4g} of {len(values)}"
    return {"what": what, "value": statistics.median(values), "unit": unit, "reach": reach, "detail": f"{how}{spread}"}
