"""Data for no-trade-off.yaml: three made-up domains, of which two are learned from a few rows, whatever their share.

After the example with which the DoReMi paper explains why better weights need cost no domain anything: a domain without entropy and one
that is pure noise have nothing to teach after the first steps, so their tokens are better spent on the one between them.

    .venv/bin/python examples/no_trade_off.py     writes .cache/no-trade-off/ (tokenised rows in nanotron's layout; a few seconds)
"""

from pathlib import Path

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parents[1] / ".cache" / "no-trade-off"
LENGTH, WORDS = 32, 64  # ids: 0 for constant, 1 to 64 for learnable, 65 to 128 for noise
ROWS = {"constant": 9000, "learnable": 2000, "noise": 9000}
HELD_OUT = 200
Rows = NDArray[np.int32]


def make_rows(domain: str, rows: int, seed: int) -> Rows:
    """[rows, LENGTH + 1] ids of one domain."""
    random = np.random.default_rng(seed)
    if domain == "constant":
        return np.zeros((rows, LENGTH + 1), dtype=np.int32)
    free = random.integers(0, WORDS, (rows, LENGTH + 1), dtype=np.int32)
    if domain == "noise":
        return free + 1 + WORDS
    follows = np.random.default_rng(0).permutation(WORDS).astype(np.int32)  # nine ids in ten follow from the one before
    for position in range(LENGTH):
        free[:, position + 1] = np.where(random.random(rows) < 0.1, free[:, position + 1], follows[free[:, position]])
    return free + 1


def write(folder: Path) -> None:
    """Training and held-out rows of each domain, as `datasets` folders."""
    for seed, (domain, rows) in enumerate(ROWS.items()):
        for side, number in (("train", rows), ("validation", HELD_OUT)):
            ids = make_rows(domain, number, 2 * seed + (side == "validation"))
            Dataset.from_dict({"input_ids": ids.tolist(), "domain_ids": [seed] * number}).save_to_disk(folder / side / domain)


if __name__ == "__main__":
    write(FOLDER)
    print(f"Wrote {', '.join(ROWS)} to {FOLDER}.")
