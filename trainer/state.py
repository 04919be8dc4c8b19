"""TrainState: all that a resume needs, saved by torch.distributed.checkpoint and published by one small pointer.

A state saved on one world size loads on another, replicated or sharded: its tensors are named, not numbered by rank.
"""

import io
import json
import logging
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from api import keys
from api.bucket import Blob
from api.errors import AlreadyExists, DataError, EtagMismatch, SolfaError, Superseded
from api.results import EvaluationPoint
from api.stage_config import TrainStatePointer
from trainer.context import StageContext
from trainer.doremi import DoremiState
from trainer.files import reading, writing

log = logging.getLogger(__name__)
EXTRA = "extra.json"


_STATE = re.compile(r"(\d+)-a(\d+)")  # the last part of keys.state_prefix: step and attempt


@dataclass
class Progress:
    """The counters of a training run, beside model and optimiser."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    sampler: dict[str, Any] = field(default_factory=dict)
    epochs: list[float] = field(default_factory=list)
    doremi: DoremiState | None = None
    evaluations: list[EvaluationPoint] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    """Keys of the history segments up to `step`."""


class StateStore:
    """Saves and restores one stage's train states."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._ids = (context.config.experiment_id, context.config.plan.name)

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """Load the newest published state into model and optimiser; a fresh Progress where there is none."""
        found = self._find() if self._context.world.is_first else None
        text = self._context.world.share(found.data.decode() if found else None)
        if text is None:
            return Progress()
        pointer = TrainStatePointer.model_validate_json(text)
        with reading(self._context.bucket, pointer.state, self._cache()) as folder:
            tensors, optimizer_state = get_state_dict(model, optimizer)
            state: dict[str, Any] = {"model": tensors, "optimizer": optimizer_state}
            with _own_error():
                load(state, checkpoint_id=str(folder), no_dist=not dist.is_initialized())
            set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
            extra = json.loads((folder / EXTRA).read_text())
            self._restore_rng(folder)
        return _progress(extra, pointer)

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Write a state under a prefix of its own, then move the pointer to it. Raises Superseded when a newer attempt has moved it.

        An attempt's processes may be there twice for a while, the former ones cut off on a node that is taken for dead: neither writes
        where the other does, and the pointer stays with those that are further on.
        """
        config, world = self._context.config, self._context.world
        prefix = keys.state_prefix(*self._ids, progress.step, config.attempt)
        prefix = world.share(f"{prefix}{uuid.uuid4().hex}/")
        try:
            self._write(prefix, model, optimizer, progress)
            world.barrier()
        except Exception:
            if world.is_first:
                self._remove([prefix])  # half of a state is of no use, and a full disk may be why
            raise
        failure = self._publish(prefix, progress) if world.is_first else None
        if problem := world.share(failure):
            raise Superseded(problem)

    def _write(self, prefix: str, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        world = self._context.world
        with writing(self._context.bucket, prefix, self._cache()) as folder:
            tensors, optimizer_state = get_state_dict(model, optimizer)
            state: dict[str, Any] = {"model": tensors, "optimizer": optimizer_state}
            with _own_error():
                save(state, checkpoint_id=str(folder), no_dist=not dist.is_initialized())
            rng = io.BytesIO()
            torch.save(_rng(), rng)
            (folder / f"rng-{world.rank}.pt").write_bytes(rng.getvalue())
            if world.is_first:
                (folder / EXTRA).write_text(json.dumps(_extra(progress)))

    def _publish(self, prefix: str, progress: Progress) -> str | None:
        attempt = self._context.config.attempt
        pointer = TrainStatePointer(
            step=progress.step, attempt=attempt, state=prefix, history=progress.history, created_at=datetime.now(UTC)
        )
        data, key = pointer.model_dump_json().encode(), keys.latest_state(*self._ids)
        while True:
            found = self._find()
            before = TrainStatePointer.model_validate_json(found.data) if found else None
            if before and before.attempt > attempt:
                self._remove([prefix])
                return f"Attempt {attempt} of {self._ids[1]} stops: a newer attempt has taken over its train state."
            if before and before.attempt == attempt and before.step > progress.step:
                self._remove([prefix])
                log.warning("step %d is not saved: other processes of this attempt have saved step %d", progress.step, before.step)
                return None
            try:
                if found is None:
                    self._context.bucket.create(key, data)
                else:
                    self._context.bucket.replace(key, data, found.etag)
                break
            except (AlreadyExists, EtagMismatch):
                continue
        self._remove(self._superfluous([prefix, before.state] if before else [prefix], progress.step))
        return None

    def _superfluous(self, kept: list[str], step: int) -> list[str]:
        """All states but the newest, and the one before it (for a reader that had just looked): older ones, and what ended attempts left
        half-written. Not ours to remove: what a newer attempt is writing, or processes of this one that are past `step`."""
        folder = keys.latest_state(*self._ids).removesuffix("latest.json")
        names = {entry.key.removeprefix(folder).partition("/")[0] for entry in self._context.bucket.list(folder)}
        found = [match for name in names if (match := _STATE.fullmatch(name))]
        ours = {match[0] for match in found if (int(match[2]), int(match[1])) <= (self._context.config.attempt, step)}
        return [f"{folder}{name}/" for name in sorted(ours - {state.removeprefix(folder).partition("/")[0] for state in kept})]

    def _remove(self, prefixes: list[str]) -> None:
        try:
            for prefix in prefixes:
                self._context.bucket.delete_prefix(prefix)
        except SolfaError as error:  # space is not worth a stage: the next save tries again
            log.warning("an old train state was not removed: %s", error)

    def _find(self) -> Blob | None:
        return self._context.bucket.find(keys.latest_state(*self._ids))

    def _cache(self) -> Path:
        return self._context.cache / "states"

    def _restore_rng(self, folder: Path) -> None:
        path = folder / f"rng-{self._context.world.rank}.pt"
        if path.exists():  # a rank that was not there when the state was saved keeps its seed
            rng = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
            torch.set_rng_state(rng["cpu"])
            if "cuda" in rng and torch.cuda.is_available():
                torch.cuda.set_rng_state(rng["cuda"])


@contextmanager
def _own_error() -> Iterator[None]:
    """What torch's checkpointing failed with, in place of its CheckpointException, which is not even an Exception."""
    try:
        yield
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from error


def _rng() -> dict[str, torch.Tensor]:
    cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def _extra(progress: Progress) -> dict[str, Any]:
    """As JSON, which keeps every bit of a float64."""
    doremi = progress.doremi
    return {
        "step": progress.step,
        "tokens": progress.tokens,
        "seconds": progress.seconds,
        "sampler": progress.sampler,
        "epochs": progress.epochs,
        "doremi": doremi
        and {
            "alpha": doremi.alpha.tolist(),
            "weight_sum": doremi.weight_sum.tolist(),
            "count": doremi.count,
            "last_scores": doremi.last_scores.tolist(),
        },
        "evaluations": [point.model_dump(mode="json") for point in progress.evaluations],
    }


def _progress(extra: dict[str, Any], pointer: TrainStatePointer) -> Progress:
    if extra["step"] != pointer.step:
        raise DataError(f"The train state {pointer.state} is of step {extra['step']}, not {pointer.step}; delete it and retry.")
    doremi = extra["doremi"]
    vectors = {name: np.asarray(doremi[name]) for name in ("alpha", "weight_sum", "last_scores")} if doremi else {}
    return Progress(
        step=extra["step"],
        tokens=extra["tokens"],
        seconds=extra["seconds"],
        sampler=extra["sampler"],
        epochs=extra["epochs"],
        doremi=DoremiState(count=doremi["count"], **vectors) if doremi else None,
        evaluations=[EvaluationPoint.model_validate(point) for point in extra["evaluations"]],
        history=list(pointer.history),
    )
