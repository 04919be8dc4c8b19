"""Log-perplexity by domain on held-out text, and the comparison of mixtures."""

from collections.abc import Callable

import numpy as np
import torch

from api.results import Compared, Evaluation, EvaluationPoint, MixtureRow, StageResult
from api.spec import Training
from trainer.data import PreparedData
from trainer.objective import domain_sums
from trainer.parallel import MASKED, ParallelModel, shares, to_device
from trainer.steps import refuse_non_finite
from trainer.world import World

NO_ROW_IDS = np.empty(0, dtype=np.int64)  # only precomputed reference losses are looked up by row


def evaluate(
    model: ParallelModel, data: PreparedData, world: World, training: Training, sequences: int | None, moves: Callable[[], None]
) -> Evaluation:
    """Mean token loss (nats) of each domain's held-out rows, `sequences` of them at most, shared out over the ranks. It `moves` with each
    batch.

    Raises NonFiniteLoss, which names the domain.
    """
    k = len(data.names)
    sums, counts = torch.zeros(k, dtype=torch.float64), torch.zeros(k, dtype=torch.int64)
    model.model.eval()
    with torch.no_grad():
        for domain in range(k):
            total = min(data.validation_rows[domain], sequences or data.validation_rows[domain])
            for start, stop in shares(total, world.size, world.rank, training.micro_batch):
                rows = torch.from_numpy(data.take_validation(domain, start, stop).copy()).long()
                if start == stop:  # other ranks still have rows, and each forward pass is a collective
                    rows = torch.full((1, data.sequence_length + 1), MASKED)
                micro = to_device(rows, torch.full((len(rows),), domain), NO_ROW_IDS, world)
                more, number = domain_sums(model.losses(micro), micro.mask, micro.domain_ids, k)
                moves()
                sums += more.cpu()
                counts += number.cpu()
    model.model.train()
    means = world.sum(sums) / world.sum(counts).clamp(min=1)
    refuse_non_finite(means, data.names, "held-out loss")
    losses = dict(zip(data.names, means.tolist(), strict=True))
    tokens = dict(zip(data.names, counts.tolist(), strict=True))
    return Evaluation(losses=losses, tokens=tokens, average=sum(losses.values()) / k, worst=max(losses.values()))


def compare(rows: list[tuple[StageResult, str, Evaluation]]) -> Compared:
    """The comparison from each model's (training result, mixture name, final evaluation); the baseline is the `reference` mixture."""
    baseline = next(((result, evaluation) for result, name, evaluation in rows if name == "reference"), None)
    return Compared(
        baseline="reference" if baseline else None, rows=[_row(result, name, evaluation, baseline) for result, name, evaluation in rows]
    )


def _row(result: StageResult, name: str, evaluation: Evaluation, baseline: tuple[StageResult, Evaluation] | None) -> MixtureRow:
    trained = result.trained
    if trained is None:
        raise ValueError(f"the result of {result.stage} is not a trained model's")
    better: list[str] = []
    worse: list[str] = []
    steps_to_baseline = None
    if baseline and name != "reference":
        against = baseline[1].losses
        better = [domain for domain, loss in evaluation.losses.items() if loss < against[domain]]
        worse = [domain for domain, loss in evaluation.losses.items() if loss > against[domain]]
        steps_to_baseline = _first_reaching(trained.evaluations, baseline[0])
    return MixtureRow.model_validate(
        {
            "mixture": name,
            "stage": result.stage,
            "sampling_weights": trained.sampling_weights,
            "evaluation": evaluation,
            "curve": trained.evaluations,
            "better": better,
            "worse": worse,
            "steps_to_baseline": steps_to_baseline,
        }
    )


def _first_reaching(curve: list[EvaluationPoint], baseline: StageResult) -> int | None:
    """First evaluated step at or below the baseline's last average during training: the same held-out rows on both sides."""
    if baseline.trained is None or not baseline.trained.evaluations:
        return None
    target = baseline.trained.evaluations[-1].evaluation.average
    return next((point.step for point in curve if point.evaluation.average <= target), None)
