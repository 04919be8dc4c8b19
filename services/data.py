"""Reading what a search trains on: the prepared domains, and the passes that its stages make over them."""

from api.bucket import Bucket
from api.epochs import planned_epochs
from api.errors import NotFound, NotReady
from api.experiment import Experiment
from api.stages import StagePhase
from api.views import DataView
from services.inputs import spec_of
from services.results import result_of


def data(experiment: Experiment, bucket: Bucket) -> DataView:
    """The domains as `prepare` counted them. Raises NotReady that says why they are not there."""
    prepare = experiment.stage("prepare")
    if prepare is None:
        raise NotFound(f"{experiment.name} has no prepare stage.")
    prepared = result_of(experiment, prepare, bucket).prepared
    if prepared is None:
        raise NotReady("The result of prepare holds no counts; it was written by another version. Run it afresh (adopt: never).")
    finished = [stage for stage in experiment.stages if stage.phase is StagePhase.SUCCEEDED and stage is not prepare]
    trained = {stage.name: result_of(experiment, stage, bucket).trained for stage in finished}
    return DataView(
        experiment=experiment.name,
        domains=prepared.domains,
        token_shares=prepared.token_shares,
        vocab_size=prepared.vocab_size,
        sequence_length=prepared.sequence_length,
        planned_epochs=planned_epochs(spec_of(experiment), [stage.plan for stage in experiment.stages], prepared),
        epochs={name: figures.epochs for name, figures in trained.items() if figures},
    )
