"""What a spec's parts must agree on, checked on plain data, so that it is said beside the problems of single fields."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from api.spec.problem import join

TOKENISED = frozenset({"nanotron", "doremi"})
TEXT = frozenset({"jsonl", "parquet", "datasets"})

Found = tuple[str, str, str | None]


def inconsistencies(data: Mapping[str, Any]) -> list[Found]:
    """(JSON pointer, sentence, suggestion) of each; parts that are not of the right type are passed over: others complain of those."""
    domains = _mapping(data.get("domains"))
    return [*_reference_weights(domains, _mapping(data.get("doremi"))), *_sources(domains, data), *_mixtures(data)]


def _reference_weights(domains: Mapping[str, Any], doremi: Mapping[str, Any]) -> Iterator[Found]:
    weights = doremi.get("reference_weights")
    if not isinstance(weights, Mapping):
        return
    pointer = "/doremi/reference_weights"
    if missing := [f"`{name}`" for name in domains if name not in weights]:
        yield pointer, f"it has no weight for {', '.join(missing)}; give every domain one", None
    for name in (name for name in weights if name not in domains):
        near = difflib.get_close_matches(name, domains, n=1)
        meant = f"; did you mean `{near[0]}`?" if near else f"; there are {', '.join(domains)}"
        yield join(pointer, name), f"there is no domain `{name}`{meant}", near[0] if near else None
    if weights and all(value == 0 for value in weights.values()):
        yield pointer, "its weights are all zero; give at least one domain a positive one", None


def _sources(domains: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[Found]:
    kind = _mapping(data.get("tokenizer", {"type": "train"})).get("type")
    for name, domain in domains.items():
        for place, source in _sources_of(_mapping(domain)):
            pointer, found = join("/domains", name) + place, str(source.get("type"))  # it may be anything yet, a list for one
            if kind == "pretokenized" and found in TEXT:
                yield (
                    pointer,
                    f"`{name}` is text, but the tokenizer is `pretokenized`; choose another tokenizer, or tokenised sources",
                    None,
                )
            if kind == "train" and found in TOKENISED:
                sentence = f"`{name}` is tokenised already, so a tokenizer trained here would not fit its ids"
                yield pointer, f"{sentence}; make the tokenizer `pretokenized`, or name the `file` that made the ids", None


def _sources_of(domain: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "/source", _mapping(domain.get("source"))
    yield "/validation/source", _mapping(_mapping(domain.get("validation")).get("source"))


def _mixtures(data: Mapping[str, Any]) -> Iterator[Found]:
    mixtures = _mapping(data.get("comparison")).get("mixtures")
    if not isinstance(mixtures, list):
        return
    for index, name in enumerate(mixtures):
        if name in mixtures[:index]:
            yield f"/comparison/mixtures/{index}", f"`{name}` is in the list already; name each mixture once", None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
