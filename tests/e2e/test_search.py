"""A posted spec becomes domain weights and a comparison, for real: service, supervisors, torchrun, trainer, bucket."""

import csv
import gzip
import io
import json
import re
from pathlib import Path

import pytest
import yaml

from api.exports import FORMATS
from tests.e2e.outcome import assert_nothing_is_left, logs
from tests.e2e.search import STEPS
from tests.solfa import Solfa

pytestmark = pytest.mark.timeout(600)  # the first of them runs the search
DOMAINS = ["counting", "letters", "songs", "words"]
STAGES = ["prepare", "reference", "proxy", "main", "baseline-reference", "baseline-uniform", "evaluate"]


def test_every_stage_succeeds_at_its_first_attempt_and_its_watcher_is_told(solfa: Solfa, finished: Path) -> None:
    record = solfa.json("status", "search")
    assert record["phase"] == "succeeded"
    assert [(stage["name"], stage["phase"], len(stage["attempts"])) for stage in record["stages"]] == [
        (name, "succeeded", 1) for name in STAGES
    ]
    said = (finished / "submitted.txt").read_text().splitlines()
    assert {line for line in said if line.endswith(": succeeded")} == {f"{name}: succeeded" for name in STAGES}


def test_the_weights_and_the_comparison_are_of_this_search(solfa: Solfa) -> None:
    weights = solfa.json("weights", "search")
    averaged = weights["averaged_weights"]
    assert sorted(averaged) == DOMAINS
    assert sum(averaged.values()) == pytest.approx(1)
    assert averaged != weights["provenance"]["reference_weights"]
    assert weights["provenance"]["steps"] == STEPS
    rows = solfa.json("compare", "search")["compared"]["rows"]
    assert [row["mixture"] for row in rows] == ["averaged", "reference", "uniform"]
    assert rows[0]["sampling_weights"] == averaged
    assert all(sorted(row["evaluation"]["losses"]) == DOMAINS for row in rows)
    table = solfa.run("compare", "search", columns=100)
    for row in rows:
        for loss in row["evaluation"]["losses"].values():
            assert f"{loss:.4f}" in table


def test_every_export_holds_every_weight(solfa: Solfa) -> None:
    """(That the command prints what the service answers is shown in tests/services/cli.)"""
    with solfa.client() as client:
        averaged = client.weights("search").averaged_weights
        exported = {name: client.export("search", name) for name in FORMATS}
    for name, text in exported.items():
        assert all(domain in text for domain in DOMAINS), name
        if FORMATS[name].fraction_of == "tokens":
            numbers = [float(number) for number in re.findall(r"\d+\.\d+(?:e-\d+)?", text)]
            assert all(any(abs(weight - number) < 1e-7 for number in numbers) for _, weight in averaged.items()), name
    assert json.loads(exported["json"])
    assert len(list(csv.reader(io.StringIO(exported["csv"])))) > len(DOMAINS)
    assert yaml.safe_load(exported["levanter"])


def test_a_replay_agrees_with_the_record_and_disagrees_with_a_tampered_one(solfa: Solfa) -> None:
    found = solfa.json("replay", "search")
    assert (found["agrees"], found["steps"]) == (True, STEPS)
    assert found["averaged_weights"] == pytest.approx(solfa.json("weights", "search")["averaged_weights"], abs=1e-12)
    assert f"{STEPS} steps replayed in float64 agree with the record" in solfa.run("replay", "search")

    segment = sorted((solfa.home / "bucket").glob("experiments/*/stages/proxy/history/*.jsonl.gz"))[2]
    kept = segment.read_bytes()
    header, first, second, *rest = gzip.decompress(kept).decode().splitlines()
    changed = json.loads(second)
    changed["excess_losses"][0] += 1e-6
    segment.write_bytes(gzip.compress("\n".join([header, first, json.dumps(changed), *rest, ""]).encode()))
    try:
        assert f"disagrees from step {changed['step']} on" in solfa.error("replay", "search", code=8)
        assert solfa.json("replay", "search", code=8)["first_disagreeing_step"] == changed["step"]
    finally:
        segment.write_bytes(kept)


def test_published_weights_that_are_not_the_historys_average_are_told_of(solfa: Solfa) -> None:
    (result,) = (solfa.home / "bucket").glob("experiments/*/stages/proxy/result.json")
    kept = result.read_text()
    changed = json.loads(kept)
    averaged = changed["searched"]["averaged_weights"]
    averaged["counting"], averaged["letters"] = averaged["letters"], averaged["counting"]
    result.write_text(json.dumps(changed))
    try:
        assert "the published weights are not their average" in solfa.error("replay", "search", code=8)
    finally:
        result.write_text(kept)


def test_the_same_spec_under_another_name_takes_over_every_stage(solfa: Solfa, finished: Path) -> None:
    solfa.run("submit", "search.yaml", "--name", "twin", "--wait")
    donor, twin = solfa.json("status", "search"), solfa.json("status", "twin")
    assert [(stage["name"], stage["phase"], stage["reason"], stage["attempts"]) for stage in twin["stages"]] == [
        (name, "succeeded", "adopted", []) for name in STAGES
    ]
    assert all(f"of experiment {donor['id']}: same inputs" in stage["message"] for stage in twin["stages"])
    assert solfa.json("weights", "twin")["averaged_weights"] == solfa.json("weights", "search")["averaged_weights"]
    assert solfa.json("replay", "twin")["agrees"]
    assert "adopted" in solfa.run("status", "twin")


def test_nothing_is_left_behind(finished: Path) -> None:
    assert_nothing_is_left(Solfa(finished / "home", finished))
    assert all(logs(finished / "home", stage) for stage in STAGES)
