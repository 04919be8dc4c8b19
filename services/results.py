"""Reading the manifest that a finished stage left."""

from api.bucket import Bucket
from api.errors import NotReady
from api.experiment import Experiment, Stage
from api.results import StageResult
from api.stages import StagePhase, StageReason


def result_of(experiment: Experiment, stage: Stage, bucket: Bucket) -> StageResult:
    """The stage's result. Raises NotReady that says why there is none; its `final` says whether one can still come."""
    if stage.phase is StagePhase.SUCCEEDED and stage.result_key:
        return StageResult.model_validate_json(bucket.get(stage.result_key).data)
    if stage.phase.terminal:
        told = "" if stage.reason is StageReason.CANCELLED_BY_USER else stage.message  # which says the same once more
        raise NotReady(f"{stage.name} of {experiment.name} {_past(stage.phase)}. {told}".strip(), final=True)
    raise NotReady(f"{stage.name} of {experiment.name} is {stage.phase}. {stage.message}".strip(), final=False)


def _past(phase: StagePhase) -> str:
    return "was cancelled" if phase is StagePhase.CANCELLED else str(phase)
