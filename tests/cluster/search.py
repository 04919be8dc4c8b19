"""A search that a cluster runs in minutes: three domains of made-up text, a tiny Llama, thirty steps a stage, two pods a stage."""

from typing import Any

import yaml

from tests.searches import search

DOMAINS = ("counting", "letters", "words")
STEPS = 30
COMPUTE = {"replicas": {"min": 2, "max": 2}, "cpus": 0.3, "memory_mb": 1536}


def search_spec(name: str, **changes: Any) -> str:
    """The spec as YAML; `changes` replace its top-level fields."""
    training = {"steps": STEPS, "micro_batch": 4, "save_every": 10, "evaluate_every": 15}
    paths = {domain: f"/data/{domain}.*.jsonl" for domain in DOMAINS}
    mapping = search(name, paths, 0.2, training, COMPUTE) | {"comparison": {"mixtures": ["averaged", "uniform"]}}
    return yaml.safe_dump(mapping | changes, sort_keys=False)
