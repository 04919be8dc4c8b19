"""How much of a project may live at once: its limits, what is used, and the sentence for what goes beyond. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from api.errors import QuotaExceeded
from api.experiment import Experiment, Stage
from services.inputs import spec_of

ALL = "*"  # stands for every project that is not named


class Quota(BaseModel):
    """What a project may have at once; None: as much as it likes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    experiments: int | None = Field(default=None, ge=0)
    """Live ones."""
    replicas: int | None = Field(default=None, ge=0)
    """Machines that its live stages may have, those that wait for others included."""
    gpus: int | None = Field(default=None, ge=0)
    """On all of these machines."""


@dataclass(frozen=True)
class Usage:
    """What a project has."""

    experiments: int
    replicas: int
    gpus: int


UNLIMITED = Quota()
WORDS = {"experiments": "live experiments", "replicas": "machines for its live stages", "gpus": "GPUs for its live stages"}


def quota_of(project: str, quotas: Mapping[str, Quota]) -> Quota:
    """Its own, or that of all others."""
    return quotas.get(project) or quotas.get(ALL, UNLIMITED)


def usage(live: Sequence[Experiment]) -> Usage:
    """Of a project's live experiments."""
    claims = [_claim(experiment, stage) for experiment in live for stage in experiment.stages if not stage.phase.terminal]
    return Usage(len(live), sum(replicas for replicas, _ in claims), sum(gpus for _, gpus in claims))


def check(project: str, quota: Quota, before: Usage, after: Usage) -> None:
    """Raises QuotaExceeded for a change that goes beyond. One that takes no more is let through, however much there is already: a limit
    may have been lowered meanwhile."""
    for name, what in WORDS.items():
        limit, used, wanted = getattr(quota, name), getattr(before, name), getattr(after, name)
        if limit is not None and wanted > limit and wanted > used:
            raise QuotaExceeded(
                f"The project {project} may have {limit} {what}, has {used} and would have {wanted}: {wanted - limit} too many. "
                "Wait until something of it has ended, cancel something, or ask whoever runs the service for more."
            )


def quota_guard(changed: Experiment, quotas: Mapping[str, Quota]) -> Callable[[Sequence[Experiment]], None] | None:
    """What holds a change, after which a record is as `changed`, to its project's quota; None where there is none."""
    quota = quota_of(changed.project, quotas)
    if quota == UNLIMITED:
        return None

    def hold(live: Sequence[Experiment]) -> None:
        others = [experiment for experiment in live if experiment.id != changed.id]
        check(changed.project, quota, usage(live), usage([*others, changed]))

    return hold


def _claim(experiment: Experiment, stage: Stage) -> tuple[int, int]:
    """(machines, GPUs) that a live stage may come to have."""
    compute = spec_of(experiment).compute_for(stage.plan.kind)
    replicas = stage.replicas or compute.replicas.max
    return replicas, replicas * compute.gpus
