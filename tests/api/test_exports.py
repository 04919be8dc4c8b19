"""Exports: each against its golden file, and read back as its trainer reads it: the same numbers, which sum to 1."""

import ast
import csv
import io
import json
import shlex
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from api.domains import DomainWeights
from api.exports import FORMATS, document_weights
from api.views import Provenance, Weights
from tests.reference import GOLDEN, assert_golden

SUFFIXES = {"application/json": "json", "application/yaml": "yaml", "text/csv": "csv", "text/plain": "txt", "text/x-python": "py"}
DOCUMENTS = ("interleave-datasets", "llama-factory")  # these draw whole documents; all others draw sequences, so tokens
relaxed = settings(deadline=None, derandomize=True, max_examples=40)


def weights_of(averaged: DomainWeights, means: dict[str, float] | None = None) -> Weights:
    uniform = DomainWeights.uniform(averaged.names)
    return Weights(
        averaged_weights=averaged,
        delta=averaged.max_difference(uniform),
        mean_document_tokens=means or dict.fromkeys(averaged.names, 100.0),
        provenance=Provenance(
            experiment="pile",
            experiment_id="xaaaaaaaaaa",
            spec_sha256="0123456789abcdef" * 4,
            stage="proxy",
            round=1,
            steps=1500,
            eta=0.1,
            smoothing=1e-3,
            objective="excess",
            tokenizer="trained, 4096 ids",
            sequence_length=128,
            proxy="llama",
            reference_weights=uniform,
        ),
    )


SAMPLE = weights_of(
    DomainWeights.of(["web", "code-py", "books_2", "math"], [0.5, 0.25, 0.24999, 0.00001]),
    {"web": 500.0, "code-py": 1000.0, "books_2": 50_000.0, "math": 20.0},
)


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_as_its_golden_file_says(name: str) -> None:
    export = FORMATS[name]
    assert_golden(f"exports/{name}.{SUFFIXES[export.media_type]}", export.render(SAMPLE))


def test_there_is_a_golden_file_for_each_format_and_no_other() -> None:
    assert {path.stem for path in (GOLDEN / "exports").iterdir()} == set(FORMATS)


def prefixes(names: list[str]) -> list[str]:
    return [name.removesuffix("_text_document") for name in names]


def pairs(flat: list[Any]) -> dict[str, float]:
    """A list of weight, prefix, weight, prefix, as Megatron-LM and NeMo take it."""
    assert len(flat) % 2 == 0
    return dict(zip(prefixes(flat[1::2]), map(float, flat[::2]), strict=True))


def megatron(text: str) -> dict[str, float]:
    option, *flat = shlex.split(text)
    assert option == "--data-path"
    return pairs(flat)


def blend(text: str) -> dict[str, float]:
    read = json.loads(text)
    assert [read[split] for split in ("valid", "test")] == [None, None]  # megatron.training.utils looks up all three
    return pairs(read["train"])


def neox(text: str) -> dict[str, float]:
    read = yaml.safe_load(text)
    return dict(zip(prefixes(read["train-data-paths"]), read["train-data-weights"], strict=True))


def nanoset(text: str) -> dict[str, float]:
    [stage] = yaml.safe_load(text)["data_stages"]
    read = stage["data"]["dataset"]
    return dict(zip([path.removeprefix("./") for path in read["dataset_folder"]], read["dataset_weights"], strict=True))


def split(names: str, values: str) -> dict[str, float]:
    """As nanotron's DoReMi example and LLaMA-Factory do it."""
    return dict(zip([name.strip() for name in names.split(",")], [float(value) for value in values.split(",")], strict=True))


def interleave(text: str) -> dict[str, float]:
    read = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(text).body}  # type: ignore[attr-defined]  # assignments
    return dict(zip(read["names"], read["probabilities"], strict=True))


def original(text: str) -> dict[str, float]:
    read: dict[str, dict[str, float]] = json.loads(text)
    train, evaluation = read["train_domain_weights"], read["eval_domain_weights"]
    assert list(train) == list(evaluation) == sorted(train)  # ids are alphabetical
    return train


def llama_factory(text: str) -> dict[str, float]:
    read = yaml.safe_load(text)
    assert read["mix_strategy"] == "interleave_over"  # with `concat`, interleave_probs is refused
    return split(read["dataset"], read["interleave_probs"])


def olmo(text: str) -> dict[str, float]:
    sources = yaml.safe_load(text)["source_list"]["sources"]  # SourceMixtureList
    assert all(set(source) == {"source_name", "target_ratio", "paths"} and source["paths"] for source in sources)
    return {source["source_name"]: source["target_ratio"] for source in sources}


READERS: dict[str, Callable[[str], dict[str, float]]] = {
    "json": lambda text: json.loads(text)["weights"],
    "csv": lambda text: {row["domain"]: float(row["fraction_of_tokens"]) for row in csv.DictReader(io.StringIO(text))},
    "megatron": megatron,
    "megatron-blend": blend,
    "nemo": lambda text: pairs(yaml.safe_load(text)["model"]["data"]["data_prefix"]),
    "streaming": lambda text: {name: one["proportion"] for name, one in yaml.safe_load(text)["dataset"]["streams"].items()},
    "interleave-datasets": interleave,
    "olmo-core": olmo,
    "levanter": lambda text: yaml.safe_load(text)["data"]["train_weights"],
    "gpt-neox": neox,
    "nanotron": nanoset,
    "nanotron-doremi": lambda text: split(*(yaml.safe_load(text)["doremi"][key] for key in ("domain_names", "domain_weights"))),
    "llama-factory": llama_factory,
    "doremi": original,
}

names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,9}", fullmatch=True) | st.sampled_from(
    ["no", "null", "007", "1e3", "y", "0x1f", "1_0", "on", "true"]
)
tables = st.dictionaries(names, st.floats(1e-9, 1), min_size=1, max_size=30)


@pytest.mark.parametrize("name", FORMATS)
@relaxed
@given(tables, st.data())
def test_what_is_written_is_read_back(name: str, table: dict[str, float], data: st.DataObject) -> None:
    averaged = DomainWeights.normalised(table)
    means = {domain: data.draw(st.floats(1, 1e6)) for domain in averaged.names}
    weights = weights_of(averaged, means)
    found = READERS[name](FORMATS[name].render(weights))
    expected = document_weights(weights) if name in DOCUMENTS else averaged
    assert list(found) == averaged.names
    assert all(isinstance(value, float) for value in found.values())
    assert sum(found.values()) == pytest.approx(1, abs=1e-9)
    assert list(found.values()) == pytest.approx(expected.vector(averaged.names), abs=1e-12)
    np.random.default_rng(0).choice(len(found), p=list(found.values()))  # raises if they do not sum to 1 closely enough for numpy


@pytest.mark.parametrize("name", FORMATS)
def test_each_says_what_its_weights_are_fractions_of(name: str) -> None:
    export, text = FORMATS[name], FORMATS[name].render(SAMPLE)
    assert export.fraction_of == ("documents" if name in DOCUMENTS else "tokens")
    first = text.partition("\n")[0]
    if name == "megatron":  # words of a command line: no room for a remark
        assert first.startswith("--data-path 0.")
    elif name == "csv":
        assert first == "domain,fraction_of_tokens"
    elif export.media_type == "application/json":
        assert json.loads(text)["fraction_of"] == export.fraction_of
    else:
        assert first.startswith(f"# Fractions of {export.fraction_of}.")
        assert "experiment pile (xaaaaaaaaaa)" in first


def test_fractions_of_documents_are_tokens_over_the_mean_length() -> None:
    found = document_weights(weights_of(DomainWeights({"long": 0.5, "short": 0.5}), {"long": 300.0, "short": 100.0}))
    assert found.root == pytest.approx({"long": 0.25, "short": 0.75})


@relaxed
@given(st.dictionaries(names, st.tuples(st.floats(1e-3, 1), st.floats(1, 1e4)), min_size=1, max_size=8))
def test_documents_drawn_so_give_the_fractions_of_tokens(table: dict[str, tuple[float, float]]) -> None:
    averaged = DomainWeights.normalised({name: share for name, (share, _) in table.items()})
    means = {name: mean for name, (_, mean) in table.items()}
    drawn = document_weights(weights_of(averaged, means))
    tokens = DomainWeights.normalised({name: drawn[name] * means[name] for name in table})
    assert tokens.max_difference(averaged) < 1e-9


def test_datasets_takes_the_probabilities_of_many_domains() -> None:
    """`interleave_datasets` refuses probabilities whose rounding adds up."""
    from datasets import Dataset, interleave_datasets  # noqa: PLC0415  # seconds to import

    averaged = DomainWeights.of([f"d{number:02}" for number in range(22)], np.random.default_rng(1).dirichlet(np.ones(22)).tolist())
    found = interleave(FORMATS["interleave-datasets"].render(weights_of(averaged)))
    parts = [Dataset.from_dict({"domain": [name] * 4}) for name in found]
    mixed = interleave_datasets(parts, probabilities=list(found.values()), seed=0, stopping_strategy="all_exhausted")
    assert set(mixed["domain"]) == set(averaged.names)
