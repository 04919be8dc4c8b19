"""A search that is small enough to be run for real in a test: four domains of made-up text, a tiny Llama, sixty steps a stage."""

from pathlib import Path
from typing import Any

import yaml

from examples.cluster.texts import lines
from tests.searches import search, texts

STEPS = 60
SAVE_EVERY = 5


def write_search(folder: Path, **changes: Any) -> Path:
    """The domains' files and a spec that names them by relative paths; `changes` replace its top-level fields. Returns the spec's path."""
    for name, documents in texts().items():
        (folder / f"{name}.jsonl").write_text("".join(lines(documents)))
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump(search_mapping() | changes, sort_keys=False))
    return path


def search_mapping() -> dict[str, Any]:
    training = {"steps": STEPS, "micro_batch": 8, "save_every": SAVE_EVERY, "evaluate_every": 10}
    paths = {domain: f"{domain}.jsonl" for domain in texts()}
    return search("search", paths, 0.1, training, {"cpus": 1, "retries": 100})
