"""`solfa up` and `down`: one service a home, in front or behind, whatever became of the last one."""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.builders import make_spec
from tests.services.waiting import wait_for
from tests.solfa import Solfa, kill


@pytest.fixture
def solfa(tmp_path: Path) -> Iterator[Solfa]:
    made = Solfa(tmp_path / "home", tmp_path)
    yield made
    made.end()


def test_up_behind_again_and_down(solfa: Solfa) -> None:
    said = solfa.up()
    assert said.startswith("Solfa listens on http://127.0.0.1:")
    record = json.loads((solfa.home / "service.json").read_text())
    assert str(record["pid"]) in said
    assert solfa.json("list") == []
    already = f"A service runs already in {solfa.home}: {record['url']}"
    assert solfa.run("up") == f"{already}\n"
    for option in (("--slots", "2"), ("--host", "0.0.0.0"), ("--port", "8701")):
        said = solfa.error("up", "--detach", *option, code=6)
        assert said == f"solfa: {already}; its options stay as they were: `solfa down --home {solfa.home}` first.\n"
    assert solfa.run("down") == "The service has stopped.\n"
    wait_for(lambda: not solfa.processes("services"))
    assert not (solfa.home / "service.json").exists()
    assert solfa.error("down", code=4) == f"solfa: No service runs in {solfa.home}.\n"
    assert "The service has stopped. Attempts that were running go on" in (solfa.home / "service.log").read_text()


def test_up_in_front_until_ctrl_c(solfa: Solfa) -> None:
    process = solfa.start("up", "--port", "0")
    wait_for((solfa.home / "service.json").exists, 60)
    assert solfa.run("list").startswith("There are no experiments yet")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Solfa listens on http://127.0.0.1:" in said
    assert "The service has stopped." in said
    assert "Traceback" not in said


def test_a_service_that_was_killed_is_not_taken_for_one_that_runs(solfa: Solfa) -> None:
    solfa.up()
    record = json.loads((solfa.home / "service.json").read_text())
    kill(record["pid"])
    wait_for(lambda: not solfa.processes("services"))
    (solfa.home / "service.json").write_text(json.dumps(record | {"pid": 1}))  # the pid is another process's now
    assert solfa.error("down", code=4) == f"solfa: No service runs in {solfa.home}.\n"
    assert solfa.up().startswith("Solfa listens on")


@pytest.mark.parametrize("detach", [True, False])
def test_a_port_that_is_taken(solfa: Solfa, detach: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = solfa.error("up", "--port", port, *(["--detach"] if detach else []), code=6)
    assert said == f"solfa: Cannot listen on 127.0.0.1:{port}: Address already in use. Choose another with --port, or stop what holds it.\n"


def test_a_home_that_cannot_be_one(solfa: Solfa) -> None:
    solfa.home.write_text("a file")
    said = solfa.error("up", code=2)
    assert said.startswith("solfa: ")
    assert "choose another with SOLFA_HOME or --home" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "words", [("up", "--slots", "0"), ("up", "--port", "80000"), ("token", "create", "me", "--days", "0")], ids=lambda words: words[-2]
)
def test_an_option_that_cannot_be_is_named(solfa: Solfa, words: tuple[str, ...]) -> None:
    assert words[-2] in solfa.error(*words, code=2)


def test_a_home_that_was_named_is_asked_alone(solfa: Solfa) -> None:
    """Whatever listens on the usual port was not meant."""
    said = f"solfa: No service runs in {solfa.home}; start one with `solfa up --home {solfa.home}`.\n"
    assert solfa.error("delete", "again", code=7) == said
    assert solfa.error("list", "--home", str(solfa.home), code=7) == said
    spec = solfa.folder / "spec.yaml"
    spec.write_text(yaml.safe_dump(make_spec().model_dump(mode="json", exclude_unset=True)))
    assert "only the spec itself was checked" in solfa.result("validate", str(spec)).stderr


def test_up_says_where_no_spec_may_read_a_file(solfa: Solfa, monkeypatch: pytest.MonkeyPatch) -> None:
    warning = "No spec may read a file: name folders that specs may read, such as SOLFA_DATA_ROOTS=/data."
    assert warning in solfa.error("up", "--detach", "--port", "0", "--host", "0.0.0.0", code=6)
    plain = Solfa.environment
    monkeypatch.setattr(Solfa, "environment", lambda one, columns=80: {**plain(one, columns), "SOLFA_DATA_ROOTS": "/data"})
    assert warning not in solfa.error("up", "--detach", "--port", "0", "--host", "0.0.0.0", code=6)


def test_commands_say_the_home_that_was_typed(solfa: Solfa) -> None:
    elsewhere = Solfa(solfa.folder / "unused", solfa.folder)
    said = elsewhere.run("up", "--detach", "--port", "0", "--home", "home")
    assert "stop it with `solfa down --home home`" in said
    elsewhere.run("down", "--home", "home")
