"""How often a search's stages would pass over each domain: from the spec and the counts of the prepared data. Pure.

It belongs to the spec and not to the prepared data, which another experiment may have made.
"""

from collections.abc import Iterable, Mapping

from api.domains import DomainWeights
from api.errors import DataError
from api.plan import PlannedStage
from api.results import Prepared
from api.spec import ExperimentSpec
from api.stages import StageKind


def planned_epochs(spec: ExperimentSpec, stages: Iterable[PlannedStage], prepared: Prepared) -> dict[str, dict[str, float]]:
    """Passes over each domain in every stage whose mixture is known before it runs: {stage: {domain: epochs}}.

    Raises:
        DataError: caps (`max_epochs`) leave such a stage fewer rows than it would draw.
    """
    rows = {name: prepared.domains[name].rows for name in spec.domain_names}
    limits = {name: row_limit(rows[name], spec.domains[name].max_epochs) for name in rows}
    epochs: dict[str, dict[str, float]] = {}
    for stage in stages:
        weights = known_weights(stage, prepared)
        if weights is None:
            continue
        training = spec.training_for(stage.kind)
        total = training.steps * training.global_batch
        drawn = shared_out(weights, total, limits)
        if sum(drawn.values()) < total - 0.5:
            raise DataError(
                f"The stage {stage.name} would draw {total} sequences, but max_epochs allows {round(sum(drawn.values()))}; "
                "raise a cap or train for fewer steps."
            )
        epochs[stage.name] = {name: drawn[name] / rows[name] for name in rows}
    return epochs


def known_weights(stage: PlannedStage, prepared: Prepared) -> DomainWeights | None:
    """What a stage samples from, where that is known before the search has run."""
    if stage.kind is StageKind.PROXY or (stage.mixture and stage.mixture.kind == "uniform"):
        return DomainWeights.uniform(prepared.domains)
    if stage.mixture is None or stage.mixture.kind == "averaged":
        return None
    return stage.mixture.weights or prepared.token_shares


def row_limit(rows: int, max_epochs: float | None) -> int | None:
    """The most rows that may be drawn of a domain; None: no limit."""
    if max_epochs is None:
        return None
    return int(max_epochs * rows * (1 + 1e-12))  # the nudge keeps 0.29 of 100 rows at 29, which floating point puts just below


def shared_out(weights: DomainWeights, total: int, limits: Mapping[str, int | None]) -> dict[str, float]:
    """`total` rows in proportion to the weights; what is over a domain's limit goes to the others in proportion, while any has room."""
    drawn = dict.fromkeys(weights.names, 0.0)
    open_to = {name: weight for name, weight in weights.items() if weight > 0 and limits[name] != 0}
    left = float(total)
    while open_to and left > 0:
        scale = left / sum(open_to.values())
        full = {name: limit for name, weight in open_to.items() if (limit := limits[name]) is not None and weight * scale > limit}
        if not full:
            return drawn | {name: weight * scale for name, weight in open_to.items()}
        drawn |= {name: float(limit) for name, limit in full.items()}
        left -= sum(full.values())
        open_to = {name: weight for name, weight in open_to.items() if name not in full}
    return drawn
