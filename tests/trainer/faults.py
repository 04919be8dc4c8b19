"""What a test does to a running attempt at an exact moment: kill it, ask it to stop, fail a call, hold it."""

import functools
import gc
import importlib
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.services.waiting import wait_for

Effect = Callable[[], None]


@dataclass(frozen=True)
class Fault:
    """`effect` at one function of the trainer: at its `call`-th call (None: at each), before it or after it, on one rank or on all."""

    site: str
    """Module and qualified name: `trainer.state:StateStore._publish`."""
    effect: Effect
    call: int | None = 1
    after: bool = False
    rank: int | None = None
    about: str = ""
    """Count only calls that have this in an argument."""

    def install(self, rank: int) -> None:
        """Wrap the function, in this process."""
        if self.rank not in (None, rank):
            return
        module, _, name = self.site.partition(":")
        *parents, last = name.split(".")
        owner = functools.reduce(getattr, parents, importlib.import_module(module))
        whole, calls = getattr(owner, last), 0

        @functools.wraps(whole)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += any(self.about in str(argument) for argument in arguments)
            due = self.call in (None, calls) and any(self.about in str(argument) for argument in arguments)
            if due and not self.after:
                self.effect()
            answer = whole(*arguments, **named)
            if due and self.after:
                self.effect()
            return answer

        setattr(owner, last, wrapped)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_within(seconds: float) -> None:
    """From another thread, while this one goes on."""
    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def hold_until(gate: Path) -> None:
    """Stand still, having said so, until there is `gate`."""
    gate.with_suffix(".held").touch()
    wait_for(gate.exists, 60)


def fail_with(error: Exception) -> None:
    raise error


def break_embeddings(tokens: list[int]) -> None:
    """Make NaN of what the model being trained knows of `tokens`, as a broken device might."""
    torch, model = importlib.import_module("torch"), importlib.import_module("trainer.model")
    (trained,) = (found for found in gc.get_objects() if isinstance(found, model.CausalModel) and found.training)
    with torch.no_grad():
        trained.network.get_input_embeddings().weight[tokens] = float("nan")


@dataclass(frozen=True)
class Witness:
    """Writes down every alpha that a rank computes, a line a step, as `alpha-<rank>` in `folder`."""

    folder: Path

    def install(self, rank: int) -> None:
        doremi = importlib.import_module("trainer.doremi")
        step = doremi.step

        def witnessed(*arguments: Any) -> Any:
            state = step(*arguments)
            with (self.folder / f"alpha-{rank}").open("a") as file:
                file.write(f"{state.alpha.tolist()}\n")
            return state

        doremi.step = witnessed


Disturbance = Fault | Witness
