"""The weight history as a proxy writes it: one record a step, kept until the next save, then one segment in the bucket."""

import numpy as np

from api import keys
from api.weights import HistoryHeader, WeightCheckpoint, write_segment
from trainer.context import StageContext
from trainer.doremi import DoremiState
from trainer.steps import StepRecord


class History:
    """Records of the steps since the last save."""

    def __init__(self, context: StageContext, names: list[str]) -> None:
        self._context, self._names = context, names
        self._records: list[WeightCheckpoint] = []

    def add(self, step: int, tokens: int, state: DoremiState, seen: StepRecord) -> None:
        scores = seen.scores if seen.scores is not None else np.zeros(len(self._names))
        losses = [None if np.isnan(loss) else float(loss) for loss in seen.domain_losses]
        self._records.append(
            WeightCheckpoint(
                step=step,
                attempt=self._context.config.attempt,
                tokens_seen=tokens,
                domain_weights=state.alpha.tolist(),
                weight_sum=state.weight_sum.tolist(),
                count=state.count,
                excess_losses=scores.tolist(),
                domain_tokens=seen.domain_tokens.tolist(),
                domain_losses=losses,
            )
        )

    def flush(self) -> list[str]:
        """Write what has been added as one segment (rank 0 does); its key, or nothing where nothing was added."""
        if not self._records:
            return []
        config, settings = self._context.config, self._context.config.spec.doremi
        first, last = self._records[0].step, self._records[-1].step
        header = HistoryHeader(
            experiment=config.experiment_id,
            stage=config.plan.name,
            domains=self._names,
            eta=settings.eta,
            smoothing=settings.smoothing,
            objective=config.plan.objective or settings.objective,
            first_step=first,
        )
        key = keys.history_segment(config.experiment_id, config.plan.name, first, last, config.attempt)
        if self._context.world.is_first:
            self._context.bucket.put(key, write_segment(header, self._records))
        self._records = []
        return [key]
