"""Specs: whatever is posted, the answer is a spec or every problem of it at once, each where it is and with what to do."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.errors import SpecError
from api.spec import ExperimentSpec, parse_spec
from api.spec.reading import MAX_BYTES
from api.stages import StageKind
from tests.api.spec_strategies import spec_mappings
from tests.builders import make_spec, spec_mapping

relaxed = settings(deadline=None, derandomize=True, max_examples=60)
VALID = yaml.safe_dump(spec_mapping())


def problems(text: str) -> list[dict[str, Any]]:
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    found: list[dict[str, Any]] = caught.value.extra["problems"]
    assert found
    assert caught.value.message.startswith(f"The spec has {len(found)} problem")
    return found


def problems_of(**changes: Any) -> dict[str, str]:
    """Pointer to message, for the small valid spec with `changes`; the same posted as JSON."""
    found = {one["pointer"]: one["message"] for one in problems(yaml.safe_dump(spec_mapping(**changes)))}
    assert found.keys() == {one["pointer"] for one in problems(json.dumps(spec_mapping(**changes)))}
    return found


def domain(kind: str, **more: Any) -> dict[str, Any]:
    place = {"paths": ["/data/x"]} if kind in ("jsonl", "parquet") else {"path": "/data/x"}
    return {"source": {"type": kind, **place}, **more}


def test_every_problem_is_told_at_once_with_its_pointer_line_and_suggestion() -> None:
    text = """\
name: Demo
domain_weights: 3
domains:
  books:
    source: {type: jsnl, paths: [/data/books.jsonl]}
  Web:
    source: {type: jsonl, paths: []}
    max_epoch: 4
sequence_length: "long"
models:
  proxy: {preset: 70m, config: {model_type: llama}}
training:
  proxy: {steps: 0, precision: bfloat1}
  main: {}
doremi:
  eta: .nan
  reference_weights: {book: 1.0, Web: -1}
comparison:
  mixtures: [averaged, uniform, averaged]
name: again
"""
    found = {(one["pointer"], one["line"], one.get("suggestion")): one["message"] for one in problems(text)}
    assert found == {
        ("/name", 20, None): "`name` stands twice; keep one of them",
        ("/doremi/eta", 16, None): ".nan is not a finite number; give one that is",
        ("/domains/books/source/type", 5, "jsonl"): "there is no type `jsnl`; did you mean `jsonl`?",
        (
            "/domains/Web",
            6,
            None,
        ): "`Web` will not do: a domain's name starts with a lower-case letter or a digit and holds those, `-` and `_`, at most 63",
        ("/domains/Web/source/paths", 7, None): "this is empty; give at least one",
        ("/domains/Web/max_epoch", 8, "max_epochs"): "there is no field `max_epoch`; did you mean `max_epochs`?",
        ("/sequence_length", 9, None): "this must be a whole number, not `long`",
        ("/models/proxy", 11, None): "give exactly one of `preset` and `config`",
        ("/training/proxy/steps", 13, None): "this must be at least 1, not `0`",
        ("/training/proxy/precision", 13, "bfloat16"): "`bfloat1` is none of its values; did you mean `bfloat16`?",
        ("/training/main/steps", 14, None): "`steps` is required",
        (
            "/doremi/reference_weights/Web",
            17,
            None,
        ): "this must be at least 0, not `-1`",
        ("/domain_weights", 2, "domains"): "there is no field `domain_weights`; did you mean `domains`?",
        ("/doremi/reference_weights", 17, None): "it has no weight for `books`; give every domain one",
        ("/doremi/reference_weights/book", 17, "books"): "there is no domain `book`; did you mean `books`?",
        ("/comparison/mixtures/2", 19, None): "`averaged` is in the list already; name each mixture once",
    }


@pytest.mark.parametrize(("given", "said"), [("20", "the text `20`; take the quotes off"), ("20 steps", "`20 steps`")])
def test_a_number_in_quotes_is_told_as_one(given: str, said: str) -> None:
    assert problems_of(training={"proxy": {"steps": given}})["/training/proxy/steps"] == f"this must be a whole number, not {said}"


def test_a_question_ends_the_sentence() -> None:
    with pytest.raises(SpecError, match=r"did you mean `eta`\?$"):
        parse_spec(yaml.safe_dump(spec_mapping(doremi={"etta": 1.0})))


def test_an_unknown_field_without_a_near_one_lists_what_there_is() -> None:
    assert problems_of(doremi={"zzz": 1})["/doremi/zzz"] == (
        "there is no field `zzz`; there are reference_weights, eta, smoothing, objective, normalisation, absent_domain, reference_losses,"
        " rounds, tolerance"
    )


@pytest.mark.parametrize(
    ("changes", "pointer", "said"),
    [
        ({"doremi": {"reference_weights": "token"}}, "/doremi/reference_weights", "did you mean `tokens`"),
        ({"doremi": {"reference_weights": [1, 2]}}, "/doremi/reference_weights", "one of tokens, uniform, not a list"),
        ({"doremi": {"reference_weights": {"books": 1, "code": 1}}}, "/doremi/reference_weights", "no weight for `web`"),
        ({"doremi": {"reference_weights": {"books": 1, "code": 1, "web": "1"}}}, "/doremi/reference_weights/web", "a number"),
        ({"doremi": {"reference_weights": dict.fromkeys(["books", "code", "web"], 0)}}, "/doremi/reference_weights", "all zero"),
        ({"doremi": {"reference_weights": {}}}, "/doremi/reference_weights", "no weight for `books`, `code`, `web`"),
        ({"doremi": {"objective": "hard"}}, "/doremi/objective", "did you mean `hardest`"),
        ({"doremi": {"rounds": 0}}, "/doremi/rounds", "at least 1"),
        ({"doremi": {"smoothing": 1.5}}, "/doremi/smoothing", "at most 1, not `1.5`"),
        ({"doremi": {"eta": 0}}, "/doremi/eta", "above 0"),
        ({"doremi": None}, "/doremi", "a mapping of fields, not nothing"),
        ({"comparison": {"mixtures": ["mean"]}}, "/comparison/mixtures/0", "averaged, reference, uniform, hardest, easiest"),
        ({"comparison": {"mixtures": "averaged"}}, "/comparison/mixtures", "a list, not `averaged`"),
        ({"models": {"proxy": {}}}, "/models/proxy", "exactly one of `preset` and `config`"),
        ({"models": {"proxy": {"preset": "280"}}}, "/models/proxy/preset", "did you mean `280m`"),
        ({"models": {"proxy": {"config": {"hidden_size": 4}}}}, "/models/proxy", "needs a `model_type`"),
        ({"models": {"proxy": {"config": {"model_type": "llama", "auto_map": {"AutoConfig": "o/r--x.Y"}}}}}, "/models/proxy", "`auto_map`"),
        ({"models": {"proxy": {"config": {"model_type": "llama", "x": {"_attn_implementation": "o/r"}}}}}, "/models/proxy", "fetched"),
        ({"domains": {f"d{n}": {"source": {"type": "jsonl", "paths": ["/x"]}} for n in range(1001)}}, "/domains", "1,000 of these at most"),
        ({"compute": {"default": {"replicas": {"min": 1, "max": 129}}}}, "/compute/default/replicas/max", "at most 128"),
        ({"tokenizer": {"type": "hub", "name": "../../etc/x"}}, "/tokenizer/name", ""),
        ({"models": {"proxy": {"config": {"model_type": "llama", "x": float("inf")}}}}, "/models/proxy/config/x", "finite"),
        ({"training": {}}, "/training/proxy", "`proxy` is required"),
        ({"training": {"proxy": {"steps": 1, "global_batch": 0}}}, "/training/proxy/global_batch", "at least 1"),
        ({"training": {"proxy": {"steps": 1.0}}}, "/training/proxy/steps", "a whole number, not `1.0`"),
        ({"training": {"proxy": {"steps": True}}}, "/training/proxy/steps", "a whole number, not `true`"),
        ({"training": {"proxy": {"steps": 10**30}}}, "/training/proxy/steps", "does not fit 64 bits"),
        ({"training": {"proxy": {"steps": 1, "optimizer": {"type": "adam"}}}}, "/training/proxy/optimizer/type", "did you mean `adamw`"),
        ({"training": {"proxy": {"steps": 1, "optimizer": {"beta1": 0.9}}}}, "/training/proxy/optimizer/type", "one of adamw, adafactor"),
        ({"training": {"proxy": {"steps": 1, "schedule": "cosine"}}}, "/training/proxy/schedule", "a mapping of fields, not `cosine`"),
        (
            {
                "training": {
                    "proxy": {"steps": 1, "schedule": {"type": "warmup_stable_decay", "warmup_fraction": 0.5, "decay_fraction": 0.6}}
                }
            },
            "/training/proxy/schedule",
            "more than 1 together",
        ),
        ({"domains": {}}, "/domains", "empty"),
        ({"domains": {"a": domain("jsonl", max_epochs=0)}}, "/domains/a/max_epochs", "above 0"),
        (
            {"domains": {"a": domain("jsonl", validation={"type": "held_out", "fraction": 0.5})}},
            "/domains/a/validation/fraction",
            "below 0.5",
        ),
        ({"domains": {"a": {"source": {"type": "jsonl", "paths": [""]}}}}, "/domains/a/source/paths/0", "empty"),
        ({"domains": {"a": {"source": {"type": "jsonl", "paths": ["/x\0y"]}}}}, "/domains/a/source/paths/0", "NUL"),
        ({"domains": {"a": {"source": "/data/a.jsonl"}}}, "/domains/a/source", "a mapping of fields, not `/data/a.jsonl`"),
        ({"domains": {"a": {"source": {"type": [], "paths": ["/x"]}}}}, "/domains/a/source/type", "there is no type `[]`"),
        ({"domains": {"a": {"source": {"type": {}, "paths": ["/x"]}}}}, "/domains/a/source/type", "there is no type `{}`"),
        ({"comparison": {"mixtures": [[], "uniform"]}}, "/comparison/mixtures/0", "not a list"),
        ({"tokenizer": {"type": None}}, "/tokenizer/type", "there is no type"),
        ({"domains": {"a/b": domain("jsonl")}}, "/domains/a~1b", "a domain's name"),
        ({"domains": {"a": domain("nanotron")}}, "/domains/a/source", "is tokenised already"),
        (
            {"domains": {"a": domain("jsonl", validation={"type": "source", "source": domain("doremi")["source"]})}},
            "/domains/a/validation/source",
            "is tokenised already",
        ),
        ({"tokenizer": {"type": "pretokenized", "vocab_size": 9}}, "/domains/web/source", "is text, but the tokenizer is `pretokenized`"),
        (
            {
                "domains": {"a": domain("nanotron", validation={"type": "source", "source": domain("parquet")["source"]})},
                "tokenizer": {"type": "pretokenized", "vocab_size": 9},
            },
            "/domains/a/validation/source",
            "is text",
        ),
        ({"tokenizer": {"type": "train", "vocab_size": 257}}, "/tokenizer/vocab_size", "at least 258"),
        ({"tokenizer": {"type": "file"}}, "/tokenizer/path", "`path` is required"),
        ({"compute": {"default": {"replicas": {"min": 3, "max": 2}}}}, "/compute/default/replicas", "max (2) is below min (3)"),
        ({"compute": {"main": {"resources": {"cpu": 2}}}}, "/compute/main/resources/cpu", "have fields of their own"),
        ({"compute": {"main": {"resources": {"rdma/hca": 0}}}}, "/compute/main/resources/rdma~1hca", "at least 1"),
        ({"compute": {"main": {"resources": {"rdma/hca": 1.5}}}}, "/compute/main/resources/rdma~1hca", "a whole number"),
        ({"compute": {"proxi": {}}}, "/compute/proxi", "did you mean `proxy`"),
        ({"compute": {"proxy": {"paralelism": "fsdp"}}}, "/compute/proxy/paralelism", "did you mean `parallelism`"),
        ({"sequence_length": 7}, "/sequence_length", "at least 8"),
        ({"name": "a-"}, "/name", "letters, digits and dashes, at most 40"),
        ({"name": "a" * 41}, "/name", "at most 40"),
        ({"name": 7}, "/name", "text (in quotes, if it looks like a number), not `7`"),
    ],
)
def test_what_is_wrong_is_told_where_it_is_and_with_what_to_do(changes: dict[str, Any], pointer: str, said: str) -> None:
    found = problems_of(**changes)
    assert said in found[pointer]
    assert len(found) == 1 or "tokenizer" in changes


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "a spec is a mapping of fields"),
        ("- name\n- domains\n", 1, "a spec is a mapping of fields"),
        ("just words", 1, "a spec is a mapping of fields"),
        ("name: a\n\tdomains: {}\n", 2, "with spaces, not with tabs"),
        ("name: a\ndomains: &x {}\nmodels: *x\n", 3, "aliases"),
        ("a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]\n", 2, "aliases"),
        ("a: &a\n  b: *a\n", 2, "aliases"),
        ("name: a\nwhen: !!timestamp nonsense\n", 2, "tags"),
        ("name: !!python/object/apply:os.getcwd []\n", 1, "tags"),
        ("name: !!binary aGVsbG8=\n", 1, "tags"),
        ("name: a\n---\nname: b\n", 2, "another document"),
        ("name: a\nname2: \x07\n", 2, "U+0007 is not allowed"),
        ("name: a\nx: {" * 3, 3, "not YAML or JSON"),
        ("name: a\nx: \ud800\n", 2, "not UTF-8"),
        ("[" * 50_000, 1, "nested over 32 levels"),
        ('{"a":' * 40_000 + "1" + "}" * 40_000, 1, "nested over 32 levels"),
        ("- " * 50_000, 1, "nested over 32 levels"),
    ],
)
def test_a_text_that_is_no_spec_says_so_with_its_line(text: str, line: int, said: str) -> None:
    [found] = problems(text)
    assert found["pointer"] == ""
    assert found["line"] == line
    assert said in found["message"]


def test_a_spec_that_is_too_long_is_not_read() -> None:
    assert f"over {MAX_BYTES:,} bytes" in problems(VALID + "#" * MAX_BYTES)[0]["message"]
    parse_spec(VALID + "#" * (MAX_BYTES - len(VALID)))


@pytest.mark.parametrize("text", ["{a: 1, a: 2}", '{"a": 1, "a": 2}', "a: 1\na: 2", '{"domains": {"x": 1, "x": 1}}'])
def test_a_key_stands_once_in_yaml_and_json(text: str) -> None:
    assert "stands twice" in problems(text)[0]["message"]


def test_words_mean_what_they_look_like() -> None:
    spec = parse_spec(
        VALID.replace("name: pile", "name: no\ndescription: 2026-01-01\ndoremi: {eta: 1e-1, smoothing: 1E-3}")
        .replace("  web:", "  007:")
        .replace("  code:", "  null:")
    )
    assert (spec.name, spec.description, spec.doremi.eta, spec.doremi.smoothing) == ("no", "2026-01-01", 0.1, 0.001)
    assert spec.domain_names == ["007", "books", "null"]


def test_json_may_be_indented_with_tabs_and_write_characters_as_escapes() -> None:
    spec = parse_spec(json.dumps(spec_mapping(description="two \U0001f600 tabs\t"), indent="\t"))
    assert spec.description == "two \U0001f600 tabs\t"
    assert parse_spec(json.dumps(spec_mapping(description="\\ud83d\\ude00"))).description == "\\ud83d\\ude00"  # backslashes, no escapes
    half = json.dumps(spec_mapping(description="\ud800"), indent="\t")
    [found] = problems(half)
    assert found["line"] == half[: half.index("ud800")].count("\n") + 1
    assert "half a character" in found["message"]


def test_defaults_are_the_papers() -> None:
    spec = parse_spec(
        yaml.safe_dump({name: value for name, value in spec_mapping().items() if name not in ("tokenizer", "sequence_length")})
    )
    proxy, search = spec.training.proxy, spec.doremi
    assert (search.eta, search.smoothing, search.objective, search.reference_weights) == (1.0, 1e-3, "excess", "tokens")
    assert (search.normalisation, search.absent_domain, search.rounds, search.tolerance) == ("domain_mean", "zero", 1, 1e-3)
    assert (proxy.learning_rate, proxy.gradient_clip, proxy.optimizer.weight_decay, spec.sequence_length) == (1e-3, 1.0, 1e-2, 1024)
    assert proxy.schedule.model_dump() == {"type": "exponential", "warmup_fraction": 0.06, "final_fraction": 0.1}
    assert spec.comparison.mixtures == ["averaged", "reference", "uniform"]


@relaxed
@given(spec_mappings())
def test_a_valid_spec_is_read_alike_from_yaml_and_json_and_comes_back(mapping: dict[str, Any]) -> None:
    spec = parse_spec(yaml.safe_dump(mapping, allow_unicode=True))
    assert parse_spec(json.dumps(mapping)) == spec
    assert parse_spec(spec.model_dump_json()) == spec
    assert ExperimentSpec.model_validate_json(spec.model_dump_json()) == spec
    assert parse_spec(yaml.safe_dump(spec.model_dump(mode="json", exclude_unset=True))) == spec


ODD = st.sampled_from(
    [None, True, -1, 0, 1.5, 10**40, float("nan"), "", "tokens", "x\ud800", [], {}, [[]], {"type": "jsonl"}, {"a": None}, "\0"]
)


@settings(relaxed, max_examples=100)
@given(spec_mappings(), st.data())
def test_a_mutated_spec_is_read_or_told_off(mapping: dict[str, Any], data: st.DataObject) -> None:
    """Any value of a valid spec replaced, removed or renamed: still a spec, or a SpecError whose pointers and lines are in bounds."""
    places = list(_places(mapping))
    for _ in range(data.draw(st.integers(1, 3))):
        parent, key = data.draw(st.sampled_from(places))
        if isinstance(parent, dict) and key in parent:
            value = parent.pop(key)
            renamed = data.draw(st.sampled_from([key, f"{key}s", "", "type", "a/b~c", None]))
            if renamed is not None:
                parent[renamed] = data.draw(ODD | st.just(value))
    text = json.dumps(mapping, indent=1)
    try:
        parse_spec(text)
    except SpecError as error:
        for problem in error.extra["problems"]:
            assert problem["pointer"] == "" or problem["pointer"].startswith("/")
            assert 1 <= problem["line"] <= text.count("\n") + 1
            assert problem["message"]
            assert "Input should" not in problem["message"]  # pydantic's words: what it must be, but not what was given


def _places(value: Any) -> Any:
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


PIECES = [
    *"{}[]:,-?&*!|>'\"%@`#\n\t \\~",
    "a",
    "name",
    ": ",
    "- ",
    "<<",
    "---",
    "...",
    "!!int",
    "1e9",
    ".nan",
    "\ufeff",
    "\ud800",
    "\0",
    "\x85",
    "\u2028",
]


@settings(relaxed, max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=40))
@example("name: !!bool abc")
@example("name: !!set {a, b}")
@example("? [a]\n: 1")
def test_arbitrary_text_never_raises_anything_but_a_spec_error(text: str) -> None:
    with pytest.raises(SpecError):
        parse_spec(text)
    with pytest.raises(SpecError):
        parse_spec(f"{VALID}\nextra: {text}")


def test_the_model_itself_refuses_what_does_not_agree() -> None:
    """A StageConfig carries a spec past `parse_spec`."""
    raw = make_spec().model_dump(mode="json")
    with pytest.raises(ValueError, match="no weight for `web`"):
        ExperimentSpec.model_validate(raw | {"doremi": {"reference_weights": {"books": 1, "code": 1}}})


def test_stages_fall_back_to_the_proxys_settings() -> None:
    spec = make_spec(training={"proxy": {"steps": 4}, "main": {"steps": 9}}, compute={"default": {"cpus": 2}, "main": {"cpus": 8}})
    kinds = (StageKind.REFERENCE, StageKind.PROXY, StageKind.MAIN, StageKind.BASELINE, StageKind.EVALUATE)
    assert [spec.training_for(kind).steps for kind in kinds] == [4, 4, 9, 9, 9]
    assert [spec.compute_for(kind).cpus for kind in kinds] == [2, 2, 8, 8, 2]
