"""What an attempt is given: from the records to its StageConfig. Pure, so that the same record always gives the same config."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from api.experiment import Experiment, Stage
from api.plan import PlannedStage
from api.spec import Compute, ExperimentSpec, parse_spec
from api.stage_config import Inputs, StageConfig
from api.stages import StageKind


def spec_of(experiment: Experiment) -> ExperimentSpec:
    """The parsed spec of a record; it was checked when it was posted. Raises SpecError if this version no longer reads it."""
    return _parsed(experiment.spec_text)


@lru_cache(maxsize=512)
def _parsed(text: str) -> ExperimentSpec:
    return parse_spec(text)


@dataclass(frozen=True)
class Rules:
    """What each pass over a record asks of its spec: a twentieth of it, so that it can be kept of every live experiment."""

    compute: Mapping[StageKind, Compute]
    adopt: Literal["same_digest", "never"]
    tolerance: float


def rules_of(experiment: Experiment) -> Rules:
    """As `spec_of`."""
    return _rules(experiment.spec_text)


@lru_cache(maxsize=4096)  # a pass asks for those of all live experiments, in turn: one place too few, and each is parsed anew
def _rules(text: str) -> Rules:
    spec = parse_spec(text)
    return Rules({kind: spec.compute_for(kind) for kind in StageKind}, spec.adopt, spec.doremi.tolerance)


def stage_config(experiment: Experiment, stage: Stage, attempt: int) -> StageConfig:
    """The input of attempt number `attempt` of `stage`."""
    return StageConfig(
        experiment_id=experiment.id,
        spec=spec_of(experiment),
        spec_sha256=experiment.spec_sha256,
        plan=stage.plan,
        siblings=tuple(sibling.plan for sibling in experiment.stages),
        attempt=attempt,
        digest=stage.digest,
        inputs=inputs(experiment, stage.plan),
    )


def inputs(experiment: Experiment, planned: PlannedStage) -> Inputs:
    """Result keys by role; None for a result that is not there yet."""
    averaged = planned.mixture.stage if planned.mixture and planned.mixture.kind == "averaged" else None
    models = [need for name in planned.needs if (need := experiment.stage(name)) and need.plan.mixture_name]
    return Inputs(
        prepare=_key(experiment, "prepare"),
        reference=_key(experiment, planned.reference),
        averaged=_key(experiment, averaged),
        models={model.name: model.result_key for model in models if model.result_key},
    )


def _key(experiment: Experiment, name: str | None) -> str | None:
    stage = experiment.stage(name) if name else None
    return stage.result_key if stage else None
