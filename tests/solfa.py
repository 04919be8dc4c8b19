"""The command `solfa` as a user runs it: a process of its own, in a home of its own; and the processes that it leaves behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from api.client import Client
from services.cli.connection import running
from tests.services.waiting import wait_for

COMMAND = [sys.executable, "-m", "services.cli"]
Part = Literal["services", "supervisors", "programs"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for what it runs behind, and as a program would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class Solfa:
    """The command over one home, run from `folder`."""

    home: Path
    folder: Path
    url: str | None = None
    """Of a service that was not started by `up`."""

    def run(self, *arguments: str, code: int = 0, columns: int = 80, stdin: str | None = None) -> str:
        """Standard output of a command that ends with `code`."""
        return self.result(*arguments, code=code, columns=columns, stdin=stdin).stdout

    def error(self, *arguments: str, code: int, stdin: str | None = None) -> str:
        """Standard error of a command that ends with `code`, having said nothing on standard output."""
        found = self.result(*arguments, code=code, stdin=stdin)
        assert found.stdout == ""
        return found.stderr

    def json(self, *arguments: str, code: int = 0, stdin: str | None = None) -> Any:
        """What is on standard output, which is one JSON document and nothing else."""
        return json.loads(self.run(*arguments, "--json", code=code, stdin=stdin))

    def result(self, *arguments: str, code: int = 0, columns: int = 80, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        found = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment(columns),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=500,  # the whole search is one command
            check=False,
        )
        assert found.returncode == code, f"{arguments} ended with {found.returncode}\n{found.stdout}\n{found.stderr}"
        assert "Traceback" not in found.stderr + found.stdout, found.stderr
        return found

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """A command that goes on."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen([*COMMAND, *arguments], cwd=self.folder, env=self.environment(), text=True, **pipes)

    def environment(self, columns: int = 80) -> dict[str, str]:
        """This process's, without a home of the tester's own."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SOLFA_")}
        where = {"SOLFA_URL": self.url} if self.url else {"SOLFA_HOME": str(self.home)}
        return {**kept, **where, "COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "xterm", "TZ": "UTC", "OMP_NUM_THREADS": "1"}

    def up(self, *arguments: str) -> str:
        return self.run("up", "--detach", "--port", "0", *arguments)

    def client(self) -> Client:
        """Of the service that runs."""
        found = wait_for(lambda: running(self.home))
        assert found
        return Client(found.url)

    def processes(self, *parts: Part) -> list[int]:
        """Living processes of this home: services; supervisors; programs (agents, workers, and all that they started)."""
        home = str(self.home).encode()
        marks: dict[Part, tuple[bytes, ...]] = {
            "services": (b"services.cli\0up\0", home),
            "supervisors": (b"supervisor.py\0", home + b"/apps/"),
            "programs": (b"--config\0experiments/", b"file://" + home),
        }
        return [pid for pid, line in command_lines() for part in parts if all(mark in line for mark in marks[part])]

    def end(self) -> None:
        """Kill everything."""
        while pids := self.processes("services", "supervisors", "programs"):
            for pid in pids:
                kill(pid)

    def until_tidy(self) -> None:
        """Until no app is left, nor what belonged to one."""
        wait_for(lambda: not [path for path in (self.home / "apps").iterdir() if path.name != ".slots"], 60)


def command_lines() -> Iterator[tuple[int, bytes]]:
    """(pid, arguments) of every living process."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                line = (path / "cmdline").read_bytes()
                if line:  # a zombie has none
                    yield int(path.name), line


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
