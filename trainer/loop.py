"""THE loop, top to bottom: batch, loss, step, weights, report, evaluate, save."""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from api.domains import DomainWeights
from api.errors import NonFiniteLoss
from api.results import EvaluationPoint
from api.spec import Training
from trainer.context import StageContext
from trainer.data import Batch, Batches, PreparedData
from trainer.doremi import averaged
from trainer.evaluate import evaluate
from trainer.history import History
from trainer.meter import Meter
from trainer.optimize import learning_rate, make_optimizer
from trainer.parallel import ParallelModel
from trainer.sampler import MixtureSampler
from trainer.state import Progress, StateStore
from trainer.steps import DoremiStep, Step, StepRecord
from trainer.world import Interrupted, stop_requested

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What is trained, on what, towards what."""

    context: StageContext
    data: PreparedData
    model: ParallelModel
    sampling_weights: NDArray[np.float64]
    """[k]."""
    step: Step


def train(job: Job) -> Progress:
    """Train to the last step, from the newest train state where there is one. Raises NonFiniteLoss, Interrupted after saving."""
    config, world, names = job.context.config, job.context.world, job.data.names
    training = config.spec.training_for(config.plan.kind)
    optimizer = make_optimizer(job.model.model, training)
    sampler = MixtureSampler(job.data.rows, training.seed, [config.spec.domains[name].max_epochs for name in names])
    states, history = StateStore(job.context), History(job.context, names)

    progress = states.restore(job.model.model, optimizer)
    if progress.step:
        sampler.load_state_dict(progress.sampler)
        log.info("resuming after step %d of %d", progress.step, training.steps)
    if isinstance(job.step, DoremiStep) and progress.doremi:
        job.step.state = progress.doremi
    meter = Meter(job.context, job.model, progress)

    with Batches(job.data, sampler, job.sampling_weights, training.global_batch, (world.rank, world.size)) as batches:
        stream = iter(batches)
        while progress.step < training.steps:
            with meter.waiting():
                batch = next(stream)
            step = progress.step + 1
            rate = set_learning_rate(optimizer, step, training)

            seen = job.step(job.model, batch)
            norm = _clip(job.model, training.gradient_clip, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            _advance(progress, batch, seen)
            if isinstance(job.step, DoremiStep):
                progress.doremi = job.step.state
                history.add(step, progress.tokens, job.step.state, seen)
            meter.did_step(seen, norm, rate)

            if step == training.steps or (training.evaluate_every and step % training.evaluate_every == 0):
                with meter.aside("evaluating"):
                    found = evaluate(job.model, job.data, world, training, training.evaluate_sequences, job.context.reporter.moves)
                progress.evaluations.append(EvaluationPoint(step=step, evaluation=found))

            stopping = world.agree(stop_requested())
            if stopping or step % training.save_every == 0 or step == training.steps:
                with meter.aside("saving"):
                    progress.seconds = meter.seconds()
                    progress.history += history.flush()
                    states.save(job.model.model, optimizer, progress)
            if stopping and step < training.steps:
                raise Interrupted
    return progress


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, training: Training) -> float:
    """The schedule's rate for `step`, given to every parameter group."""
    rate = learning_rate(step, training)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def _clip(model: ParallelModel, limit: float | None, step: int) -> float:
    """Clip the gradients to the global norm `limit`; their norm before. Raises NonFiniteLoss before anything was changed by it."""
    norm = torch.nn.utils.clip_grad_norm_(model.model.parameters(), limit or float("inf"))
    value = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
    if not np.isfinite(value):
        raise NonFiniteLoss(f"The gradient at step {step} is NaN or infinite; lower the learning rate or clip more.")
    return value


def _advance(progress: Progress, batch: Batch, seen: StepRecord) -> None:
    progress.step += 1
    progress.tokens += seen.tokens
    progress.sampler = batch.position
    progress.epochs = batch.epochs.tolist()


def weights_of(names: list[str], vector: NDArray[np.float64]) -> DomainWeights:
    """A vector in canonical order with its names."""
    return DomainWeights.of(names, vector.tolist())


def averaged_weights(names: list[str], progress: Progress) -> DomainWeights:
    """The search's answer: the mean of alpha_1 .. alpha_T."""
    if progress.doremi is None:
        raise ValueError("only a proxy has weights to average")
    return weights_of(names, averaged(progress.doremi))
