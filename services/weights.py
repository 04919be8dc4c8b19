"""Reading what a search has found: averaged weights, their history, the weights of now, and the comparison."""

import csv
import io
import json
from collections.abc import Iterator

from api import keys
from api.bucket import Bucket
from api.errors import BadRequest, NotReady
from api.experiment import Experiment, Stage
from api.results import Compared
from api.spec import ExperimentSpec, HubTokenizer, Pretokenized, TrainedTokenizer
from api.stage_config import StageReport, TrainStatePointer
from api.stages import StageKind, StagePhase
from api.views import CurrentWeights, Provenance, Weights
from api.weights import HistoryHeader, WeightCheckpoint, read_segment
from services.inputs import spec_of
from services.results import result_of


def averaged(experiment: Experiment, bucket: Bucket) -> Weights:
    """The answer of the last round. Raises NotReady that says why it is not there."""
    stage = experiment.final_proxy
    result = result_of(experiment, stage, bucket)
    prepare = experiment.stage("prepare")
    prepared = result_of(experiment, prepare, bucket).prepared if prepare else None
    if result.searched is None or prepared is None:
        raise NotReady(f"The result of {stage.name} holds no weights; it was written by another version. Run it afresh (adopt: never).")
    spec = spec_of(experiment)
    return Weights(
        averaged_weights=result.searched.averaged_weights,
        delta=result.searched.delta,
        mean_document_tokens={name: domain.tokens / max(1, domain.documents) for name, domain in prepared.domains.items()},
        provenance=Provenance(
            experiment=experiment.name,
            experiment_id=experiment.id,
            spec_sha256=experiment.spec_sha256,
            stage=result.stage,
            round=result.round,
            steps=result.trained.steps if result.trained else 0,
            eta=spec.doremi.eta,
            smoothing=spec.doremi.smoothing,
            objective=stage.plan.objective or spec.doremi.objective,
            tokenizer=_tokenizer(spec),
            sequence_length=spec.sequence_length,
            proxy=_shape(spec),
            reference_weights=result.searched.reference_weights,
        ),
    )


def current(experiment: Experiment, stage: Stage, report: StageReport | None) -> CurrentWeights:
    """alpha_t of the running proxy. Raises NotReady while none has taken a step."""
    if report is None or report.domain_weights is None:
        raise NotReady(f"No proxy of {experiment.name} is taking steps: {stage.name} is {stage.phase}. {stage.message}".strip())
    return CurrentWeights(
        stage=stage.name,
        step=report.step,
        total=report.total,
        updated_at=report.updated_at,
        domain_weights=report.domain_weights,
        averaged_weights=report.averaged_weights,
        excess_losses=report.excess_losses,
    )


def comparison(experiment: Experiment, bucket: Bucket) -> Compared:
    """Raises NotReady that says why it is not there."""
    stage = next((stage for stage in experiment.stages if stage.plan.kind is StageKind.EVALUATE), None)
    if stage is None:
        raise NotReady(f"{experiment.name} compares nothing: its spec's comparison.mixtures is empty.")
    compared = result_of(experiment, stage, bucket).compared
    if compared is None:
        raise NotReady(f"The result of {stage.name} holds no comparison.")
    return compared


def newest_proxy(experiment: Experiment) -> Stage:
    """The proxy that runs, or the last one that did, or the first that will."""
    proxies = [stage for stage in experiment.stages if stage.plan.kind is StageKind.PROXY]
    started = [stage for stage in proxies if stage.attempts]
    live = [stage for stage in started if not stage.phase.terminal]
    return (live or started or proxies)[-1 if started else 0]


def history(experiment: Experiment, stage: Stage, bucket: Bucket, every: int) -> Iterator[tuple[HistoryHeader, WeightCheckpoint]]:
    """Every `every`-th record of a proxy stage, and its last, read segment by segment. Raises NotReady, at once, before the first save."""
    if stage.plan.kind is not StageKind.PROXY:
        raise BadRequest(f"{stage.name} is no proxy, so it has no history of weights; leave `stage` away, or name a proxy stage.")
    return _records(segments(experiment, stage, bucket), bucket, every)


def _records(keys_of_segments: list[str], bucket: Bucket, every: int) -> Iterator[tuple[HistoryHeader, WeightCheckpoint]]:
    for number, key in enumerate(keys_of_segments):
        header, records = read_segment(bucket.get(key).data)
        for record in records:
            is_last = number == len(keys_of_segments) - 1 and record is records[-1]
            if record.step % every == 0 or is_last:
                yield header, record


def history_json(records: Iterator[tuple[HistoryHeader, WeightCheckpoint]]) -> Iterator[str]:
    """One JSON object {"header", "checkpoints"}, streamed."""
    first = True
    for header, record in records:
        yield ('{"header":' + header.model_dump_json() + ',"checkpoints":[' if first else ",") + record.model_dump_json()
        first = False
    yield '{"header":null,"checkpoints":[]}' if first else "]}"


def history_csv(records: Iterator[tuple[HistoryHeader, WeightCheckpoint]]) -> Iterator[str]:
    """One line a step and domain."""
    yield "step,domain,domain_weight,averaged_weight,excess_loss,domain_tokens,domain_loss\r\n"
    for header, record in records:
        text = io.StringIO()
        writer = csv.writer(text)
        for index, name in enumerate(header.domains):
            loss = record.domain_losses[index]
            average = record.weight_sum[index] / record.count
            tokens, excess = record.domain_tokens[index], record.excess_losses[index]
            writer.writerow([record.step, name, record.domain_weights[index], average, excess, tokens, "" if loss is None else loss])
        yield text.getvalue()


def segments(experiment: Experiment, stage: Stage, bucket: Bucket) -> list[str]:
    """Keys of the history of a proxy stage, in order. Raises NotReady before the first save."""
    if stage.phase is StagePhase.SUCCEEDED:
        searched = result_of(experiment, stage, bucket).searched
        return searched.history if searched else []
    blob = bucket.find(keys.latest_state(experiment.id, stage.name))
    if blob is None:
        raise NotReady(f"{stage.name} of {experiment.name} has saved no history yet: it is {stage.phase}. {stage.message}".strip())
    return TrainStatePointer.model_validate_json(blob.data).history


def _tokenizer(spec: ExperimentSpec) -> str:
    chosen = spec.tokenizer
    if isinstance(chosen, TrainedTokenizer):
        return f"byte-level BPE trained on the data, {chosen.vocab_size} ids"
    if isinstance(chosen, HubTokenizer):
        return f"{chosen.name}@{chosen.revision}"
    return f"pretokenized, {chosen.vocab_size} ids" if isinstance(chosen, Pretokenized) else chosen.path


def _shape(spec: ExperimentSpec) -> str:
    model = spec.models.proxy
    return model.preset if model.preset else json.dumps(model.config, sort_keys=True)
