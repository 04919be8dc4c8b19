"""What a person sees of a running loop: the report's figures and a log line now and then, measured without slowing the steps."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from api.domains import DomainWeights
from trainer.context import StageContext
from trainer.doremi import averaged
from trainer.pace import Pace
from trainer.parallel import ParallelModel
from trainer.state import Progress
from trainer.steps import StepRecord

log = logging.getLogger(__name__)
REPORT_SECONDS = 0.5
LOG_SECONDS = 5.0
PEAK_BF16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4 ": 121e12}  # dense FLOP/s, from the makers' data sheets


class Meter:
    """Timers and figures of one attempt."""

    def __init__(
        self, context: StageContext, model: ParallelModel, progress: Progress, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._clock = clock
        self._context, self._progress = context, progress
        self._training = context.config.spec.training_for(context.config.plan.kind)
        self._flops = model.model.flops_per_token(context.config.spec.sequence_length)
        self._started = clock()
        self._seconds_before = progress.seconds
        self._first_step = progress.step
        self._waited, self._aside = 0.0, 0.0
        self._pace = Pace(self._started, progress.tokens)
        self._reported = self._logged = float("-inf")
        self._fields: dict[str, Any] = {"resumed_from": progress.step}
        self.doing("training")

    def seconds(self) -> float:
        """Training time of all attempts so far."""
        return self._seconds_before + self._clock() - self._started

    def doing(self, activity: str) -> None:
        self._context.reporter.progress(activity, self._progress.step, self._training.steps, **self._fields)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within it the loop waits for its next batch."""
        began = self._clock()
        yield
        self._waited += self._clock() - began

    @contextmanager
    def aside(self, activity: str) -> Iterator[None]:
        """Within it the loop does `activity`: its time is none of training, so that a speed tells of steps alone."""
        began = self._clock()
        self.doing(activity)
        yield
        self._aside += self._clock() - began

    def did_step(self, seen: StepRecord, norm: float, rate: float) -> None:
        now = self._clock()
        if now - self._reported >= REPORT_SECONDS or self._progress.step == self._training.steps:
            self._reported = now
            self._fields = self._figures(seen, norm, rate, now)
            self.doing("training")
        if now - self._logged >= LOG_SECONDS or self._progress.step == self._training.steps:
            self._logged = now
            self._log(seen)

    def _figures(self, seen: StepRecord, norm: float, rate: float, now: float) -> dict[str, Any]:
        progress, names = self._progress, self._context.config.spec.domain_names
        self._pace.add(now - self._aside, progress.tokens, self._waited)
        speed = self._pace.tokens_per_second
        a_step = (now - self._started) / (progress.step - self._first_step)  # with evaluations and saves, which come again too
        fields: dict[str, Any] = {
            "resumed_from": self._first_step,
            "loss": seen.loss,
            "gradient_norm": norm,
            "learning_rate": rate,
            "tokens_per_second": speed,
            "data_wait_share": self._pace.wait_share,
            "seconds_left": a_step * (self._training.steps - progress.step),
            "mfu": self._mfu(speed),
            "epochs": dict(zip(names, progress.epochs, strict=True)),
            "domain_losses": {name: float(loss) for name, loss in zip(names, seen.domain_losses, strict=True) if not np.isnan(loss)},
            "evaluations": list(progress.evaluations),
        }
        if torch.cuda.is_available():
            fields["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
        if progress.doremi is not None and seen.scores is not None:
            fields["domain_weights"] = DomainWeights.of(names, progress.doremi.alpha.tolist())
            fields["averaged_weights"] = DomainWeights.of(names, averaged(progress.doremi).tolist())
            fields["excess_losses"] = dict(zip(names, seen.scores.tolist(), strict=True))
        return fields

    def _mfu(self, tokens_per_second: float) -> float | None:
        config = self._context.config
        peak = config.spec.compute_for(config.plan.kind).peak_flops or _known_peak()
        return peak and tokens_per_second * self._flops / (peak * self._context.world.size)

    def _log(self, seen: StepRecord) -> None:
        if not self._context.world.is_first:
            return
        fields, progress = self._fields, self._progress
        top = ""
        if progress.doremi is not None:
            ranked = sorted(zip(progress.doremi.alpha, self._context.config.spec.domain_names, strict=True), reverse=True)[:3]
            top = "  alpha " + ", ".join(f"{name} {weight:.3f}" for weight, name in ranked)
        speed, left = fields.get("tokens_per_second", 0.0), fields.get("seconds_left", 0.0)
        log.info("step %d/%d  loss %.4f  %.0f tokens/s  %.0f s left%s", progress.step, self._training.steps, seen.loss, speed, left, top)


def _known_peak() -> float | None:
    """FLOP/s of this process's GPU at best."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((flops for name, flops in PEAK_BF16.items() if name in device), None)
