"""What each kind of stage runs: it opens its inputs, trains or evaluates, and says what it made."""

from collections.abc import Callable
from datetime import UTC, datetime

import torch

from api import keys
from api.domains import DomainWeights
from api.errors import DataError
from api.results import Prepared, Searched, StageResult, Trained
from api.stages import StageKind
from trainer import prepare
from trainer.context import StageContext
from trainer.crew import Crew, Tally
from trainer.data import PreparedData, open_prepared
from trainer.evaluate import compare, evaluate
from trainer.loop import Job, averaged_weights, train, weights_of
from trainer.model import CausalModel, build_model
from trainer.model_files import load_model, save_model
from trainer.parallel import ParallelModel
from trainer.reference_losses import LiveReference, StoredReference, store_losses
from trainer.state import Progress
from trainer.steps import DoremiStep, PlainStep, ReferenceLosses, Step
from trainer.world import Interrupted, stop_requested


def run(context: StageContext) -> StageResult:
    """Run the stage that the config names; its result, not yet published."""
    return _RUNNERS[context.config.plan.kind](context)


def _run_plain(context: StageContext) -> StageResult:
    """A reference, main or baseline stage: the ordinary loss, on data sampled from the stage's mixture."""
    data = _open_data(context)
    weights = mixture_weights(context, data.prepared)
    model = _parallel(context, _fresh(context, data))
    progress = train(_job(context, data, model, weights, PlainStep(context.world, data.names)))
    result = _trained(context, data, model, weights, progress)
    config = context.config
    if config.plan.kind is StageKind.REFERENCE and config.spec.doremi.reference_losses == "precomputed":
        prefix = f"{_output(context)}losses/"
        store_losses(context, model, data, prefix)
        result = result.model_copy(update={"files": {**result.files, "losses": prefix}})
    return result


def _run_proxy(context: StageContext) -> StageResult:
    """Group DRO: uniform sampling, whatever alpha_ref is; alpha moves at every step."""
    config, data = context.config, _open_data(context)
    objective = config.plan.objective
    if objective is None:
        raise DataError(f"The stage {config.plan.name} has no objective.")
    reference = _reference(context, data) if config.plan.reference else None
    uniform = DomainWeights.uniform(data.names)
    model = _parallel(context, _fresh(context, data))
    step = DoremiStep(context.world, data.names, config.spec.doremi, objective, reference)
    alpha_ref = mixture_weights(context, data.prepared)
    context.reporter.progress("starting", reference_weights=alpha_ref)
    progress = train(_job(context, data, model, uniform, step))
    result = _trained(context, data, model, uniform, progress)
    averaged = averaged_weights(data.names, progress)
    searched = Searched(
        averaged_weights=averaged,
        final_weights=weights_of(data.names, step.state.alpha),
        reference_weights=alpha_ref,
        delta=averaged.max_difference(alpha_ref),
        history=progress.history,
    )
    return result.model_copy(update={"searched": searched})


def _run_evaluate(context: StageContext) -> StageResult:
    """Each large model on all held-out text, and the comparison."""
    config, data = context.config, _open_data(context)
    rows = []
    stages = [stage for stage in config.siblings if stage.name in config.inputs.models]
    for number, stage in enumerate(stages):
        if context.world.agree(stop_requested()):
            raise Interrupted
        context.reporter.progress(f"evaluating {stage.name}", number, len(stages), "models")
        result = _read(context, config.inputs.models[stage.name])
        model = _parallel(context, load_model(context.bucket, result.files["model"], context.cache))
        training = config.spec.training_for(StageKind.EVALUATE)
        found = evaluate(model, data, context.world, training, config.spec.comparison.sequences, context.reporter.moves)
        named = result.model_copy(update={"stage": stage.name})  # an adopted result keeps its first owner's name
        rows.append((named, str(stage.mixture_name), found))
    return _result(context).model_copy(update={"compared": compare(rows)})


_RUNNERS: dict[StageKind, Callable[[StageContext], StageResult]] = {
    StageKind.PREPARE: prepare.run,
    StageKind.REFERENCE: _run_plain,
    StageKind.PROXY: _run_proxy,
    StageKind.MAIN: _run_plain,
    StageKind.BASELINE: _run_plain,
    StageKind.EVALUATE: _run_evaluate,
}


def mixture_weights(context: StageContext, prepared: Prepared) -> DomainWeights:
    """The weights that the stage's mixture stands for. Raises DataError when what it names is not there."""
    mixture, inputs = context.config.plan.mixture, context.config.inputs
    if mixture is None:
        raise DataError(f"The stage {context.config.plan.name} has no mixture.")
    if mixture.kind == "tokens":
        return prepared.token_shares
    if mixture.kind == "uniform":
        return DomainWeights.uniform(prepared.domains)
    if mixture.kind == "given" and mixture.weights:
        return mixture.weights
    searched = _read(context, inputs.averaged).searched if inputs.averaged else None
    if searched is None:
        raise DataError(f"The stage {context.config.plan.name} needs the averaged weights of {mixture.stage}, and was not given them.")
    return searched.averaged_weights


def _open_data(context: StageContext) -> PreparedData:
    key = context.config.inputs.prepare
    if key is None:
        raise DataError(f"The stage {context.config.plan.name} was given no prepared data.")
    with Crew(context.world) as crew:
        tally = Tally(crew, context.reporter, "fetching prepared data")
        data = open_prepared(context.bucket, _read(context, key), context.cache, tally)
        crew.meet("fetched", tally.say)  # the collectives that follow would not wait for a slow node as long as this does
    return data


def _read(context: StageContext, key: str) -> StageResult:
    return StageResult.model_validate_json(context.bucket.get(key).data)


def _reference(context: StageContext, data: PreparedData) -> ReferenceLosses:
    key = context.config.inputs.reference
    if key is None:
        raise DataError(f"The proxy stage {context.config.plan.name} needs a reference model, and was not given one.")
    result = _read(context, key)
    if context.config.spec.doremi.reference_losses == "precomputed":
        return StoredReference(context, result, data)
    return LiveReference(_parallel(context, load_model(context.bucket, result.files["model"], context.cache)))


def _fresh(context: StageContext, data: PreparedData) -> CausalModel:
    """A new model, the same on every rank."""
    spec, kind = context.config.spec, context.config.plan.kind
    torch.manual_seed(spec.training_for(kind).seed)
    return build_model(spec.model_for(kind), data.prepared.vocab_size, spec.sequence_length)


def _parallel(context: StageContext, model: CausalModel) -> ParallelModel:
    spec, kind = context.config.spec, context.config.plan.kind
    return ParallelModel(model, context.world, spec.compute_for(kind), spec.training_for(kind), spec.models.compile)


def _job(context: StageContext, data: PreparedData, model: ParallelModel, weights: DomainWeights, step: Step) -> Job:
    return Job(context, data, model, torch.tensor(weights.vector(data.names), dtype=torch.float64).numpy(), step)


def _output(context: StageContext) -> str:
    config = context.config
    return keys.output_prefix(config.experiment_id, config.plan.name, config.attempt)


def _trained(context: StageContext, data: PreparedData, model: ParallelModel, weights: DomainWeights, progress: Progress) -> StageResult:
    prefix = f"{_output(context)}model/"
    context.reporter.progress("saving the model", progress.step, progress.step)
    parameters = model.model.num_parameters()
    save_model(model, context.bucket, prefix, context.world, context.cache)
    trained = Trained(
        steps=progress.step,
        tokens=progress.tokens,
        parameters=parameters,
        sampling_weights=weights,
        epochs=dict(zip(data.names, progress.epochs, strict=True)),
        final_loss=progress.evaluations[-1].evaluation.average,
        evaluations=progress.evaluations,
        seconds=progress.seconds,
        tokens_per_second=progress.tokens / max(progress.seconds, 1e-9),
    )
    return _result(context).model_copy(update={"files": {"model": prefix}, "trained": trained})


def _result(context: StageContext) -> StageResult:
    config = context.config
    return StageResult(
        experiment_id=config.experiment_id,
        stage=config.plan.name,
        kind=config.plan.kind,
        round=config.plan.round,
        attempt=config.attempt,
        digest=config.digest,
        created_at=datetime.now(UTC),
    )
