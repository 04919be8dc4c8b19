"""Made-up text of three domains, for a first search on a cluster: `python -m examples.cluster.texts FOLDER` writes it, always the same."""

import json
import random
import sys
from pathlib import Path

SYLLABLES = ("sol", "fa", "mi", "re", "do", "la", "ti", "ut")
FILES = 2  # of each domain: replicas of `prepare` share them


def texts() -> dict[str, list[str]]:
    """Documents by domain. Counting is easy, words are drawn from few, letters are noise; sizes vary."""
    chance = random.Random(20261125)
    return {
        "counting": [" ".join(str(number) for number in range(first, first + 40)) for first in range(120)],
        "letters": ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz ", k=150)) for _ in range(60)],
        "words": [" ".join(chance.choices(SYLLABLES, k=40)) for _ in range(200)],
    }


def lines(documents: list[str]) -> list[str]:
    """JSON lines."""
    return [json.dumps({"text": text}) + "\n" for text in documents]


def write_texts(folder: Path) -> None:
    """Each domain's files: `counting.0.jsonl` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, documents in texts().items():
        for part in range(FILES):
            (folder / f"{name}.{part}.jsonl").write_text("".join(lines(documents)[part::FILES]))


if __name__ == "__main__":
    write_texts(Path(sys.argv[1]))
