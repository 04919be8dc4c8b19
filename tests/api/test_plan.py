"""Plans as a reviewer can read them, against golden files; and digests: what changes a result changes exactly what follows from it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from api.plan import Mixture, Plan, PlannedStage, make_plan, stage_digests
from api.spec import ExperimentSpec, parse_spec
from api.stages import StageKind
from tests.api.spec_strategies import spec_mappings
from tests.builders import make_spec, spec_mapping
from tests.reference import assert_golden

relaxed = settings(deadline=None, derandomize=True, max_examples=40)
SHARES = {"books": 1.0, "code": 2.0, "web": 5.0}
ALL_FIVE = {"mixtures": ["averaged", "reference", "uniform", "hardest", "easiest"]}
PLANS: dict[str, dict[str, Any]] = {
    "simple": {},
    "given-weights": {"doremi": {"reference_weights": SHARES}},
    "uniform-reference": {"doremi": {"reference_weights": "uniform"}},  # the uniform baseline is the reference's twin
    "uniform-reference-afresh": {"doremi": {"reference_weights": "uniform"}, "adopt": "never"},
    "three-rounds": {"doremi": {"rounds": 3}},
    "ablations": {"comparison": ALL_FIVE},
    "ablations-of-three-rounds": {"doremi": {"rounds": 3}, "comparison": ALL_FIVE},
    "hardest": {"doremi": {"objective": "hardest"}},
    "hardest-with-ablations": {"doremi": {"objective": "hardest"}, "comparison": ALL_FIVE},  # proxy-hardest is the proxy's twin
    "easiest": {"doremi": {"objective": "easiest"}},
    "no-comparison": {"comparison": {"mixtures": []}},
    "one-mixture": {"comparison": {"mixtures": ["uniform"]}},
}


def shown(plan: Plan) -> str:
    return "".join(_line(stage) for stage in plan.stages)


def _line(stage: PlannedStage) -> str:
    parts = [f"{stage.name}: {stage.kind}", f"round {stage.round}", f"needs {', '.join(stage.needs) or 'nothing'}"]
    if stage.mixture:
        of = f" of {stage.mixture.stage}" if stage.mixture.stage else ""
        given_weights = f" {stage.mixture.weights.root}" if stage.mixture.weights else ""
        parts.append(f"mixture {stage.mixture.kind}{of}{given_weights}")
    parts += [f"{word} {value}" for word in ("objective", "reference", "mixture_name") if (value := getattr(stage, word))]
    return "; ".join(parts) + "\n"


@pytest.mark.parametrize("name", PLANS)
def test_each_plan_is_as_its_golden_file_says(name: str) -> None:
    assert_golden(f"plans/{name}.txt", shown(make_plan(make_spec(**PLANS[name]))))


@relaxed
@given(spec_mappings())
def test_every_plan_can_be_carried_out(mapping: dict[str, Any]) -> None:
    spec = parse_spec(yaml.safe_dump(mapping))
    plan = make_plan(spec)
    assert make_plan(spec) == plan
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    names = [stage.name for stage in plan.stages]
    assert len(set(names)) == len(names)
    for position, stage in enumerate(plan.stages):
        earlier = names[:position]
        read = [stage.reference, stage.mixture.stage if stage.mixture and stage.kind is not StageKind.PROXY else None]
        assert set(stage.needs) <= set(earlier)
        assert len(set(stage.needs)) == len(stage.needs)
        assert {name for name in read if name} <= set(stage.needs)  # what it reads, it waits for
        assert ("prepare" in stage.needs) == (stage.kind is not StageKind.PREPARE)
        if stage.kind is StageKind.PROXY:
            assert (stage.reference is None) == (stage.objective == "hardest")  # never a silent `hardest`
    assert plan.final_proxy.objective == spec.doremi.objective
    assert plan.final_proxy.round == spec.doremi.rounds
    assert [stage.mixture_name for stage in plan.stages if stage.mixture_name] == spec.comparison.mixtures
    assert [stage.kind for stage in plan.stages].count(StageKind.EVALUATE) == bool(spec.comparison.mixtures)


def test_twins_share_one_digest_and_the_second_waits() -> None:
    spec = make_spec(**PLANS["uniform-reference"])
    plan = make_plan(spec)
    digests = stage_digests(spec, plan, FILES)
    assert digests["baseline-uniform"] == digests["baseline-reference"]
    assert plan["baseline-uniform"].needs == ("prepare", "baseline-reference")
    hardest = make_spec(**PLANS["hardest-with-ablations"])
    digests = stage_digests(hardest, make_plan(hardest), FILES)
    assert digests["proxy-hardest"] == digests["proxy"]
    assert digests["baseline-hardest"] == digests["main"]  # the same work under two kinds
    assert make_plan(hardest)["proxy-hardest"].needs == ("prepare", "proxy")


FILES = {"books": "1", "code": "2", "web": "3"}
THREE = {"doremi": {"rounds": 2, "reference_weights": SHARES}, "comparison": ALL_FIVE}
Change = Callable[[dict[str, Any]], object]


def digests_of(raw: dict[str, Any], files: dict[str, str] = FILES) -> dict[str, str]:
    spec = parse_spec(yaml.safe_dump(raw))
    return stage_digests(spec, make_plan(spec), files)


def base() -> dict[str, Any]:
    raw = copy.deepcopy(spec_mapping(**THREE))
    training = raw["training"]["proxy"]
    raw["training"] = {"proxy": dict(training), "reference": dict(training), "main": dict(training)}
    raw["models"] = {"proxy": raw["models"]["proxy"], "main": {"preset": "70m"}}
    return raw


def sets(*path: str, to: Any) -> Change:
    def change(raw: dict[str, Any]) -> None:
        for part in path[:-1]:
            raw = raw.setdefault(part, {})
        raw[path[-1]] = to

    return change


REFERENCES = {"reference-1", "reference-2"}
PROXIES = {"proxy-1", "proxy-2", "proxy-hardest", "proxy-easiest"}
LARGE = {"main", "baseline-reference", "baseline-uniform", "baseline-hardest", "baseline-easiest"}
EVERYTHING = {"prepare", *REFERENCES, *PROXIES, *LARGE, "evaluate"}
ALL_BUT_DATA = EVERYTHING - {"prepare"}
SEARCH = ALL_BUT_DATA - {"baseline-reference", "baseline-uniform"}  # the search, and what follows from it
OF_EXCESS = {"proxy-1", "reference-2", "proxy-2", "main", "evaluate"}

FIELDS: dict[str, tuple[Change, set[str]]] = {
    "name": (sets("name", to="other"), set()),
    "description": (sets("description", to="other"), set()),
    "adopt": (sets("adopt", to="never"), set()),
    "source": (sets("domains", "web", "source", "text_field", to="body"), EVERYTHING),
    "paths": (sets("domains", "web", "source", "paths", to=["/data/other.jsonl"]), EVERYTHING),
    "validation": (sets("domains", "web", "validation", to={"type": "held_out", "fraction": 0.1}), EVERYTHING),
    "tokenizer": (sets("tokenizer", "vocab_size", to=600), EVERYTHING),
    "sequence_length": (sets("sequence_length", to=64), EVERYTHING),
    "max_epochs": (sets("domains", "web", "max_epochs", to=2.0), ALL_BUT_DATA),
    "models.proxy": (sets("models", "proxy", to={"preset": "150m"}), SEARCH),
    "models.main": (sets("models", "main", to={"preset": "150m"}), LARGE | {"evaluate"}),
    "models.compile": (sets("models", "compile", to=True), ALL_BUT_DATA),
    "reference_weights": (sets("doremi", "reference_weights", "web", to=9.0), ALL_BUT_DATA - {"baseline-uniform"}),
    "eta": (sets("doremi", "eta", to=0.5), SEARCH - {"reference-1"}),
    "smoothing": (sets("doremi", "smoothing", to=0.5), SEARCH - {"reference-1"}),
    "normalisation": (sets("doremi", "normalisation", to="token_weighted"), SEARCH - {"reference-1"}),
    "absent_domain": (sets("doremi", "absent_domain", to="carry"), SEARCH - {"reference-1"}),
    "reference_losses": (sets("doremi", "reference_losses", to="precomputed"), SEARCH - {"proxy-hardest", "baseline-hardest"}),
    "objective": (sets("doremi", "objective", to="easiest"), OF_EXCESS),
    "tolerance": (sets("doremi", "tolerance", to=0.5), set()),  # a round that converged takes its digest from the round before
    "mixtures": (sets("comparison", "mixtures", to=ALL_FIVE["mixtures"][::-1]), {"evaluate"}),
    "sequences": (sets("comparison", "sequences", to=5), ALL_BUT_DATA),
    "compute": (sets("compute", "default", to={"processes": 2, "parallelism": "fsdp", "retries": 0}), set()),
    "compute.main": (sets("compute", "main", to={"replicas": {"min": 1, "max": 4}, "gpus": 1, "resources": {"rdma/hca": 1}}), set()),
}
TRAINING = {
    "steps": 5,
    "global_batch": 8,
    "learning_rate": 0.1,
    "optimizer": {"type": "adafactor"},
    "schedule": {"type": "cosine"},
    "gradient_clip": None,
    "precision": "bfloat16",
    "seed": 1,
    "evaluate_every": 2,
    "evaluate_sequences": 3,
}
for field, value in TRAINING.items():
    FIELDS[f"proxy.{field}"] = (sets("training", "proxy", field, to=value), SEARCH - {"reference-1"})
    FIELDS[f"reference.{field}"] = (sets("training", "reference", field, to=value), SEARCH - {"proxy-hardest", "baseline-hardest"})
    FIELDS[f"main.{field}"] = (sets("training", "main", field, to=value), LARGE | {"evaluate"})
for kind in ("proxy", "reference", "main"):
    for field in ("save_every", "micro_batch"):  # how often it saves, how it divides a batch: the same result
        FIELDS[f"{kind}.{field}"] = (sets("training", kind, field, to=2), set())


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_changes_exactly_the_digests_of_what_it_changes(name: str) -> None:
    change, expected = FIELDS[name]
    before, raw = digests_of(base()), base()
    change(raw)
    after = digests_of(raw)
    assert raw != base()
    assert before.keys() == after.keys() == EVERYTHING
    assert {stage for stage in EVERYTHING if before[stage] != after[stage]} == expected


def test_no_field_of_the_spec_is_left_out_of_the_table() -> None:
    tested = {name.split(".")[0] for name in FIELDS} | {"doremi", "domains", "models", "training", "comparison"}
    assert set(ExperimentSpec.model_fields) <= tested
    spec = parse_spec(yaml.safe_dump(base()))
    assert set(type(spec.doremi).model_fields) - {"rounds"} <= tested  # rounds change the plan itself
    assert set(type(spec.training.proxy).model_fields) == {*TRAINING, "save_every", "micro_batch"}
    assert {"source", "validation", "max_epochs"} == set(type(spec.domains["web"]).model_fields)


def test_changed_files_change_every_digest() -> None:
    before, after = digests_of(base()), digests_of(base(), {**FILES, "web": "other"})
    assert all(before[stage] != after[stage] for stage in EVERYTHING)


@relaxed
@given(spec_mappings())
def test_equal_inputs_have_equal_digests_whatever_their_order(mapping: dict[str, Any]) -> None:
    backwards = {name: mapping[name] for name in reversed(mapping)}
    backwards["domains"] = {name: mapping["domains"][name] for name in reversed(mapping["domains"])}
    files = dict.fromkeys(mapping["domains"], "x")
    assert digests_of(mapping, files) == digests_of({**backwards, "compute": {"default": {"cpus": 7}}}, dict(reversed(files.items())))


def test_a_mixture_names_what_it_is_made_of() -> None:
    plan = make_plan(make_spec(**PLANS["three-rounds"]))
    assert plan["reference-2"].mixture == Mixture(kind="averaged", stage="proxy-1")
    assert plan["main"].mixture == Mixture(kind="averaged", stage="proxy-3")
    assert plan.final_proxy.name == "proxy-3"
    assert make_plan(make_spec(**PLANS["ablations"])).final_proxy.name == "proxy"


def test_no_spec_expands_to_more_than_a_screenful_of_stages() -> None:
    every = ["averaged", "reference", "uniform", "hardest", "easiest"]
    assert len(make_plan(make_spec(doremi={"rounds": 20}, comparison={"mixtures": every})).stages) == 49
