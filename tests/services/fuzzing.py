"""Specs that went wrong, always in the same ways: valid ones with things taken out, put in, doubled, nested, mistyped or cut off."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1,
        2**31,
        2**63 - 1,
        2**63,
        10**30,
        -(10**19),
        0.0,
        -0.0,
        1e-320,
        1e308,
        float("nan"),
        float("inf"),
        -float("inf"),
    ),
    *("", " ", "x" * 70_000, "\x00", "\ud800", "\u202e", "\u2028", "é" * 300, "null", "~", "yes", "1e400", "0x10", "1_000", "2026-11-25"),
    *("/", "/proc/self/environ", "/dev/zero", "../../etc/passwd", "/data/../etc/passwd", "http://169.254.169.254/", "file:///etc/passwd"),
    *("bucket:experiments/x/spec.yaml", "bucket:../x", "/**/**/**", "{{7*7}}", "${PATH}", "'; DROP TABLE experiments;--", "<script>"),
    *([], {}, [[]], {"": None}, [None] * 2000, {"a": {"b": {"c": 1}}}, {str(n): n for n in range(1500)}, ["averaged"] * 50),
)
SNIPPETS = (
    "&a [*a, *a, *a]",
    "a: &a [x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nd: [*c, *c, *c, *c]\n",
    "<<: *base",
    "!!python/object/apply:os.system [id]",
    "!!binary aGVsbG8=",
    "!<tag:yaml.org,2002:int> 3",
    "---\n",
    "...\n",
    "%YAML 9.9\n---\n",
    "? [a, b]\n: c\n",
    "- " * 3000,
    "[" * 20_000,
    '{"a":' * 9000,
    "\t",
    "\r",
    "\x07",
    "\ufeff",
    "# \n" * 5000,
    "9" * 5000,
    "1" + "0" * 400 + ".0",
    "|\n" + " x" * 3000,
    "'" * 1001,
    '"\\x"',
    '"\\ud800"',
    "name: twice\n",
    "domains: {}\n",
    ".nan",
    "-.inf",
)


def seeds() -> list[dict[str, Any]]:
    """Valid specs of every kind that the examples show, and one with every kind of source."""
    found = [_absolute(yaml.safe_load(path.read_text())) for path in sorted(EXAMPLES.rglob("*.yaml")) if "values" not in path.name]
    sources: dict[str, Any] = {
        "a": {"source": {"type": "jsonl", "paths": ["/data/a.jsonl"]}, "validation": {"type": "held_out", "fraction": 0.1}},
        "b": {"source": {"type": "parquet", "paths": ["/data/*.parquet"], "text_field": "content"}, "max_epochs": 2.0},
        "c": {"source": {"type": "datasets", "path": "/data/c"}},
    }
    own = {"source": {"type": "jsonl", "paths": ["/data/v.jsonl"]}, "type": "source"}
    mixed = {**found[0], "domains": {**sources, "d": {**sources["a"], "validation": own}}, "tokenizer": {"type": "hub", "name": "a/b"}}
    tokens = {"a": {"source": {"type": "nanotron", "path": "/data/n"}}, "b": {"source": {"type": "doremi", "path": "/data/d"}}}
    rows = {**found[0], "domains": tokens, "tokenizer": {"type": "pretokenized", "vocab_size": 99}}
    return [{**spec, "doremi": {"eta": 1.0}} for spec in (*found, mixed, rows)]


def _absolute(spec: dict[str, Any]) -> dict[str, Any]:
    for name, domain in spec["domains"].items():
        domain["source"]["paths"] = [f"/data/{name}/*.jsonl"]
    return spec


def fuzzed(number: int, seed: int = 20261125) -> Iterator[bytes]:
    """So many bodies; the same for the same seed."""
    draw, valid = random.Random(seed), seeds()
    for count in range(number):
        spec = copy.deepcopy(draw.choice(valid))
        spec["name"] = f"fuzz-{count}"
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            draw.choice(CHANGES)(draw, spec)
        text = _written(draw, spec)
        if draw.random() < 0.5:
            text = draw.choice(SPOILERS)(draw, text)
        yield text.encode(errors="surrogatepass" if draw.random() < 0.1 else "replace")


def _written(draw: random.Random, spec: dict[str, Any]) -> str:
    if draw.random() < 0.3:
        return json.dumps(spec, ensure_ascii=draw.random() < 0.5)
    try:
        return str(yaml.safe_dump(spec, allow_unicode=draw.random() < 0.5, sort_keys=False))
    except (yaml.YAMLError, UnicodeEncodeError, RecursionError):  # what YAML cannot write
        return json.dumps(spec)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value in it."""
    below = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    return [(value, key) for key, _ in below] + [place for _, part in below for place in _places(part)]


def _put(draw: random.Random, spec: dict[str, Any]) -> None:
    where, key = draw.choice(_places(spec) or [(spec, "name")])
    where[key] = copy.deepcopy(draw.choice(ODD))


def _take(draw: random.Random, spec: dict[str, Any]) -> None:
    where, key = draw.choice(_places(spec) or [({"x": 1}, "x")])
    del where[key]


def _rename(draw: random.Random, spec: dict[str, Any]) -> None:
    where, key = draw.choice(_places(spec) or [(spec, "name")])
    if isinstance(where, dict):
        where[draw.choice((str(key) + "s", str(key).upper(), "", "\ud800", "x" * 5000, "é", "domains", "_attn_implementation"))] = (
            where.pop(key)
        )


def _nest(draw: random.Random, spec: dict[str, Any]) -> None:
    where, key = draw.choice(_places(spec) or [(spec, "name")])
    deep: Any = where[key]
    for _ in range(draw.choice((1, 5, 31, 40, 200))):
        deep = [deep] if draw.random() < 0.5 else {"x": deep}
    where[key] = deep


def _swap(draw: random.Random, spec: dict[str, Any]) -> None:
    places = _places(spec)
    if len(places) > 1:
        (one, at), (other, there) = draw.choice(places), draw.choice(places)
        one[at] = copy.deepcopy(other[there])


def _many(draw: random.Random, spec: dict[str, Any]) -> None:
    spec["domains"] = {f"d{n}": {"source": {"type": "jsonl", "paths": [f"/data/{n}"]}} for n in range(draw.choice((60, 1000, 1001, 3000)))}


CHANGES: tuple[Callable[[random.Random, dict[str, Any]], None], ...] = (_put, _put, _put, _take, _rename, _nest, _swap, _swap) * 4 + (
    _many,
)


def _insert(draw: random.Random, text: str) -> str:
    at = draw.randrange(len(text) + 1)
    return text[:at] + draw.choice(SNIPPETS) + text[at:]


def _append(draw: random.Random, text: str) -> str:
    return f"{text}\n{draw.choice(SNIPPETS)}"


def _cut(draw: random.Random, text: str) -> str:
    return text[: draw.randrange(len(text) + 1)]


def _repeat(draw: random.Random, text: str) -> str:
    start = draw.randrange(len(text) + 1)
    part = text[start : start + draw.randrange(1, 200)]
    return text[:start] + part * draw.choice((2, 3, 50)) + text[start:]


def _flip(draw: random.Random, text: str) -> str:
    letters = list(text)
    for _ in range(draw.randrange(1, 10)):
        if letters:
            letters[draw.randrange(len(letters))] = draw.choice("{}[]:,-&*!|>'\"%@`#\n \t\x00\x7f\u2028e0")
    return "".join(letters)


SPOILERS: tuple[Callable[[random.Random, str], str], ...] = (_insert, _insert, _append, _cut, _repeat, _flip)
