"""Commands that only look: what they say to a person, what to a program, and with which exit code they say that there is nothing to say."""

import json
from pathlib import Path

import pytest

from api.exports import FORMATS
from services.metrics import VERSION
from tests.services.running import Running
from tests.solfa import Solfa


def test_list(looker: Solfa) -> None:
    lines = looker.run("list").splitlines()
    assert lines[0].split() == ["name", "id", "phase", "stages", "created"]
    assert [line.split()[1] for line in lines[1:]] == [one["id"] for one in looker.json("list")]
    assert [[line.split()[0], *line.split()[2:6]] for line in lines[1:]] == [
        ["done", "succeeded", "7", "of", "7"],
        ["ended", "cancelled", "0", "of", "7"],
        ["broken", "failed", "3", "of", "7"],
        ["live", "running", "4", "of", "7"],
    ]
    assert [one["name"] for one in looker.json("list", "--phase", "failed")] == ["broken"]
    assert "no experiments" in looker.run("list", "--phase", "pending")
    assert looker.json("list", "--phase", "pending") == []


def test_list_says_the_project_that_was_meant(looker: Solfa, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Solfa.environment
    monkeypatch.setattr(Solfa, "environment", lambda one, columns=80: {**plain(one, columns), "SOLFA_PROJECT": "zzz"})
    assert looker.run("list", "--phase", "pending").startswith("There are no experiments in the project zzz yet")


def test_status_says_why_a_stage_waits_or_failed(looker: Solfa) -> None:
    said = " ".join(looker.run("status", "broken").split())
    assert "broken: failed" in said
    assert "✘ reference failed" in said
    assert "ended with" not in said, "its own sentence says it all"
    assert "This stage was told to fail." in said
    assert "It needs reference, which did not succeed." in said
    record = looker.json("status", "live")
    assert {stage["name"]: stage["phase"] for stage in record["stages"]}["proxy"] == "running"
    assert next(stage for stage in record["stages"] if stage["name"] == "proxy")["report"]["attempt"] == 1


def test_report_writes_one_file_and_says_where(looker: Solfa) -> None:
    said = looker.run("report", "done", columns=200)
    path = looker.folder / "done.html"
    assert said.strip() == f"{path.resolve()} holds the report of done."
    assert "Comparison of the mixtures" in path.read_text()
    assert "cannot be written" in looker.error("report", "done", "--output", "no/such/folder.html", code=2)
    assert "nobody" in looker.error("report", "nobody", code=4)


def test_logs(looker: Solfa) -> None:
    said = looker.run("logs", "done", "prepare")
    assert said.startswith("prepare attempt 1 reads")
    assert looker.run("logs", "done", "prepare", "--tail", "1", "--attempt", "1") == said.splitlines(keepends=True)[-1]
    assert "proxy attempt 1" in looker.run("logs", "live"), "by default, of the stage that runs"
    assert "has no attempt 7" in looker.error("logs", "done", "prepare", "--attempt", "7", code=4)
    assert "it has prepare, reference" in looker.error("logs", "done", "nosuch", code=4)
    assert "leave --tail and --attempt out" in looker.error("logs", "done", "--follow", "--tail", "3", code=2)


def test_weights_and_comparison_for_a_person(looker: Solfa) -> None:
    """What they look like is in the golden files of test_views."""
    assert "Domain weights of done, fractions of tokens" in looker.run("weights", "done")
    assert "Lowest average: DoReMi and baseline and uniform (2.0000)." in looker.run("compare", "done")


def test_weights_for_a_program(looker: Solfa, gallery: Running) -> None:
    assert looker.json("weights", "done") == gallery.get("/done/weights").json()
    for name in FORMATS:
        assert looker.run("weights", "done", "--format", name) == gallery.get(f"/done/weights?format={name}").text, name
    assert "leave --json out" in looker.error("weights", "done", "--format", "megatron", "--json", code=2)
    assert looker.json("compare", "done") == gallery.get("/done/comparison").json()
    assert "there are json, csv, megatron" in looker.error("weights", "done", "--format", "no-such", code=2)


def test_current_weights(looker: Solfa) -> None:
    current = looker.json("weights", "live", "--current")
    assert current["stage"] == "proxy"
    assert sorted(current["domain_weights"]) == ["books", "code", "web"]
    assert f"alpha at step {current['step']} of {current['total']} (proxy)" in looker.run("weights", "live", "--current")
    assert "leave --format and --wait out" in looker.error("weights", "live", "--current", "--wait", "1", code=2)


def test_what_is_not_there_yet_or_never_will_be(looker: Solfa) -> None:
    assert "proxy of live is running" in looker.error("weights", "live", code=5)
    assert "cancelled" in looker.error("weights", "broken", "--wait", "3600", code=5), "it does not wait for what can no longer come"
    assert looker.error("compare", "live", code=5)
    assert looker.error("weights", "done", "--current", code=5)
    assert looker.error("replay", "ended", code=5)


def test_replay(looker: Solfa) -> None:
    assert looker.run("replay", "done").startswith("proxy: 6 steps replayed in float64 agree with the record, to ")
    assert looker.json("replay", "done", "--stage", "proxy")["agrees"] is True


def test_events_are_a_json_object_a_line(looker: Solfa) -> None:
    events = [json.loads(line) for line in looker.run("events", "done").splitlines()]
    assert [events[0]["kind"], events[-1]["kind"]] == ["experiment_created", "experiment_finished"]
    followed = [json.loads(line) for line in looker.run("events", "done", "--follow").splitlines()]
    assert followed == events, "a stream of what has finished ends by itself"


@pytest.mark.parametrize("command", ["status", "logs", "weights", "compare", "data", "replay", "cancel", "retry", "delete", "events"])
def test_an_unknown_name_is_one_sentence(looker: Solfa, command: str) -> None:
    assert looker.error(command, "nosuch", code=4) == "solfa: There is no experiment nosuch.\n"


@pytest.mark.parametrize("name", ["", "..", "done/spec", "[/red]"])
def test_a_name_that_can_be_none_reaches_nothing(looker: Solfa, name: str) -> None:
    assert looker.error("status", name, code=4) == f"solfa: There is no {name!r}: a name has no slash in it and is no dot.\n"


def test_help_says_the_version_and_what_the_environment_is_for(looker: Solfa) -> None:
    assert looker.run("--version") == f"solfa {VERSION}\n"
    said = looker.run("--help", columns=200)
    assert all(name in said for name in ("SOLFA_TOKEN", "SOLFA_PROJECT", "SOLFA_DATA_ROOTS"))


def test_where_nobody_answers(tmp_path: Path) -> None:
    alone = Solfa(tmp_path / "home", tmp_path, "http://127.0.0.1:9")
    said = alone.error("list", code=7)
    assert "No service answers at http://127.0.0.1:9" in said
    assert "solfa up" not in said, "somebody else's service is not to be started here"
    assert "No service answers" in alone.error("weights", "done", "--wait", "5", code=7)


def test_every_help_has_a_sentence_and_fits_its_terminal(looker: Solfa) -> None:
    overview = looker.run("--help", columns=80)
    assert "Start with: solfa up --detach; solfa submit SPEC --wait; solfa weights NAME" in overview
    assert "130 Ctrl-C (the run" in overview
    assert max(map(len, overview.splitlines())) <= 80
    for example, command in {"solfa submit spec.yaml": "submit", "solfa up --detach": "up", "--format megatron": "weights"}.items():
        assert f"Example: {'solfa ' * (not example.startswith('solfa'))}" in (said := looker.run(command, "--help"))
        assert example in said
