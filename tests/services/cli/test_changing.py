"""Commands that change something, and those that wait: submit, cancel, retry, delete, logs -f, events -f; Ctrl-C leaves the run going."""

import json
import signal
import subprocess

import pytest
import yaml

from tests.services.running import Running
from tests.services.waiting import wait_for
from tests.solfa import Solfa

HANGING = {"hang": {"proxy": [1]}}


def write(solfa: Solfa, served: Running, name: str, behaviour: dict | None = None, **changes: object) -> str:
    """A spec beside the command, whose sources are relative to it; its path."""
    spec = yaml.safe_load(served.spec(name, behaviour, comparison={"mixtures": []}, **changes))
    for domain in spec["domains"].values():
        domain["source"]["paths"] = ["texts/here.jsonl"]
    (solfa.folder / "specs" / "texts").mkdir(parents=True, exist_ok=True)
    (solfa.folder / "specs" / "texts" / "here.jsonl").write_text('{"text": "do re mi"}\n')
    path = solfa.folder / "specs" / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return str(path)


def test_validate_and_plan(solfa: Solfa, served: Running) -> None:
    path = write(solfa, served, "sound")
    assert solfa.run("validate", path) == "sound is valid: 3 domains, 3 stages.\n"
    validated = solfa.json("validate", path)
    assert [stage["name"] for stage in validated["plan"]["stages"]] == ["prepare", "reference", "proxy"]
    assert len(validated["launches"]) == 3
    assert solfa.json("plan", path) == validated["plan"]
    planned = solfa.run("plan", path)
    assert "sound: 3 domains, 3 stages" in planned
    assert "on 1 machine with 1 CPU, 4,096 MiB" in planned
    assert served.get("/sound").status_code == 404, "nothing was recorded"


def test_validate_without_a_service_says_what_it_did_not_check(solfa: Solfa, served: Running) -> None:
    alone = Solfa(solfa.home, solfa.folder, "http://127.0.0.1:9")
    path = write(solfa, served, "unchecked")
    found = alone.result("validate", path, "--json")
    assert "only the spec itself was checked" in found.stderr
    assert json.loads(found.stdout)["launches"] == []


def test_a_bad_spec_is_told_with_every_problem_and_its_line(solfa: Solfa, served: Running) -> None:
    path = write(solfa, served, "bad", trainning={"proxy": {}}, sequence_length=0)
    for command in ("validate", "plan", "submit"):
        first, *problems = solfa.error(command, path, code=3).splitlines()
        assert first == f"solfa: The spec has {len(problems)} problems:"
        assert any("/sequence_length" in line and line.strip().startswith("line ") for line in problems)
        assert any("/trainning" in line for line in problems)
    (solfa.folder / "specs" / "texts" / "here.jsonl").unlink()
    good = write(solfa, served, "sourceless")
    (solfa.folder / "specs" / "texts" / "here.jsonl").unlink()
    said = solfa.error("submit", good, code=3)
    assert said.count("no file matches") == len(said.splitlines()) - 1 == 3, "each is told once"
    assert "nosuch.yaml cannot be read: No such file or directory" in solfa.error("submit", "nosuch.yaml", code=2)


def test_submit_and_wait(solfa: Solfa, served: Running) -> None:
    found = solfa.result("submit", write(solfa, served, "waited"), "--wait")
    assert [line for line in found.stdout.splitlines() if line.endswith(": succeeded")] == [
        f"{stage}: succeeded" for stage in ("prepare", "reference", "proxy")
    ]
    assert found.stderr.startswith("Submitted waited (x")
    assert found.stderr.endswith("waited succeeded. Look at `solfa weights waited`.\n")
    assert "There is an experiment named waited already" in solfa.error("submit", write(solfa, served, "waited"), code=6).splitlines()[-1]


def test_submit_from_standard_input_under_another_name_for_a_program(solfa: Solfa, served: Running) -> None:
    path = write(solfa, served, "piped")
    text = (solfa.folder / "specs" / "piped.yaml").read_text().replace("texts/here", "specs/texts/here")
    record = solfa.json("submit", "-", "--name", "other", stdin=text)
    assert record["name"] == "other"
    served.until("other", "succeeded")
    ended = solfa.json("submit", path, "--wait")
    assert (ended["name"], ended["phase"]) == ("piped", "succeeded")


def test_an_experiment_that_fails_says_where_and_why(solfa: Solfa, served: Running) -> None:
    path = write(solfa, served, "doomed", {"permanent": ["reference"]})
    said = solfa.result("submit", path, "--wait", code=1).stderr.splitlines()[-1]
    assert said == "doomed failed at reference: This stage was told to fail. See `solfa logs doomed reference`."
    assert solfa.json("status", "doomed", "--watch", code=1)["phase"] == "failed"


def test_resize(solfa: Solfa, served: Running) -> None:
    compute = {"default": {"replicas": {"min": 1, "max": 3}}}
    solfa.run("submit", write(solfa, served, "wide-one", HANGING, compute=compute))
    served.until_stage("wide-one", "proxy", "running")
    assert solfa.run("resize", "wide-one", "proxy", "2") == "Machines asked for proxy of wide-one: 2.\n"
    assert solfa.json("resize", "wide-one", "proxy", "3")["replicas"] == 3
    assert "(3 machines asked for)" in " ".join(solfa.run("status", "wide-one").split())
    assert "proxy may have 1 to 3 machines" in solfa.error("resize", "wide-one", "proxy", "4", code=2)
    assert "has no stage none" in solfa.error("resize", "wide-one", "none", "1", code=4)
    assert "prepare of wide-one has succeeded" in solfa.error("resize", "wide-one", "prepare", "9", code=6)
    solfa.run("cancel", "wide-one")


def test_cancel_retry_delete(solfa: Solfa, served: Running) -> None:
    solfa.run("submit", write(solfa, served, "handled", HANGING))
    served.until_stage("handled", "proxy", "running")
    assert "cancel it first" in solfa.error("delete", "handled", code=6)
    assert "only one that failed or was cancelled can be retried" in solfa.error("retry", "handled", code=6)
    assert solfa.run("cancel", "handled") == "handled is being cancelled.\n"
    watched = solfa.result("status", "handled", "--watch", code=1)
    assert watched.stderr == "handled was cancelled; `solfa retry handled` takes it up again.\n"
    assert solfa.json("retry", "handled")["phase"] in ("pending", "running")
    served.until("handled", "succeeded")
    assert "there is nothing to cancel" in solfa.error("cancel", "handled", code=6)
    assert solfa.run("delete", "handled") == "handled is deleted.\n"
    assert served.get("/handled").status_code == 404


@pytest.mark.parametrize("command", ["submit", "status"])
def test_ctrl_c_leaves_the_run_going_and_says_how_to_return(solfa: Solfa, served: Running, command: str) -> None:
    name = f"left-by-{command}"
    path = write(solfa, served, name, HANGING)
    if command == "status":
        solfa.run("submit", path)
    process = solfa.start(*(["submit", path, "--wait"] if command == "submit" else ["status", name, "--watch"]))
    assert process.stdout
    wait_for(lambda: "proxy: running" in process.stdout.readline(), 60)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"{name} goes on. Come back with `solfa status {name} --watch`, or end it with `solfa cancel {name}`." in said
    assert "Traceback" not in said
    assert served.get(f"/{name}").json()["phase"] == "running"


def test_following_logs_and_events_until_they_end_and_waiting_for_weights(solfa: Solfa, served: Running) -> None:
    solfa.run("submit", write(solfa, served, "followed", HANGING))
    served.until_stage("followed", "proxy", "running")
    with solfa.start("logs", "followed", "--follow") as logs, solfa.start("events", "followed", "-f") as events:
        assert logs.stdout
        assert events.stdout
        assert logs.stdout.readline().startswith("proxy attempt 1 reads")
        assert json.loads(events.stdout.readline())["kind"] == "experiment_created"
        waiting = solfa.start("weights", "followed", "--wait", "300")
        assert ended(waiting) is None
        solfa.run("cancel", "followed")
        assert logs.wait(60) == 0
        assert json.loads(events.stdout.read().splitlines()[-1])["kind"] == "experiment_finished"
        assert events.wait(60) == 0
        assert waiting.wait(60) == 5, "weights that can no longer come are not waited for"


def ended(process: subprocess.Popen[str]) -> int | None:
    """The process's exit code, once it has had the time to ask; None: it waits."""
    try:
        return process.wait(1)
    except subprocess.TimeoutExpired:
        return None
