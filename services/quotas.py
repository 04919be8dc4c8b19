"""How much of a project may live at once: its limits, what is used, and the sentence for what goes beyond. Pure."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from api.errors import QuotaExceeded
from api.experiment import Experiment, Stage
from api.spec.compute import ResourceName
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
    """On all of these machines. Each device of a spec's `resources` is one too, unless `resources` here names it: a slice of a GPU, or one
    by another name, is not to be had beside the limit."""
    resources: dict[ResourceName, Annotated[int, Field(ge=0)] | None] = {}
    """Other devices, by the names that specs ask for them: a limit of their own, such as `{"rdma/hca": 8}`."""


@dataclass(frozen=True)
class Usage:
    """What a project has."""

    experiments: int
    replicas: int
    gpus: int
    devices: Mapping[str, int] = field(default_factory=dict)
    """Others, by name."""

    def of(self, name: str, quota: Quota) -> int:
        """What counts against a limit of `quota`: of the project itself, or of a device that it names."""
        if name in quota.resources:
            return self.devices.get(name, 0)
        unnamed = sum(number for device, number in self.devices.items() if device not in quota.resources)
        return int(getattr(self, name)) + (unnamed if name == "gpus" else 0)


UNLIMITED = Quota()
WORDS = {
    "experiments": "live experiments",
    "replicas": "machines for its live stages",
    "gpus": "GPUs and other devices for its live stages",
}


def quota_of(project: str, quotas: Mapping[str, Quota]) -> Quota:
    """Its own, or that of all others."""
    return quotas.get(project) or quotas.get(ALL, UNLIMITED)


def usage(live: Sequence[Experiment]) -> Usage:
    """Of a project's live experiments."""
    claims = [_claim(experiment, stage) for experiment in live for stage in experiment.stages if not stage.phase.terminal]
    devices: Counter[str] = Counter()
    for _, _, others in claims:
        devices.update(others)
    return Usage(len(live), sum(replicas for replicas, _, _ in claims), sum(gpus for _, gpus, _ in claims), dict(devices))


def check(project: str, quota: Quota, before: Usage, after: Usage) -> None:
    """Raises QuotaExceeded for a change that goes beyond. One that takes no more is let through, however much there is already: a limit
    may have been lowered meanwhile."""
    limits = {name: getattr(quota, name) for name in WORDS} | quota.resources
    for name, limit in limits.items():
        what, used, wanted = WORDS.get(name, f"{name} for its live stages"), before.of(name, quota), after.of(name, quota)
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


def _claim(experiment: Experiment, stage: Stage) -> tuple[int, int, dict[str, int]]:
    """(machines, GPUs, other devices by name) that a live stage may come to have."""
    compute = spec_of(experiment).compute_for(stage.plan.kind)
    replicas = stage.replicas or compute.replicas.max
    return replicas, replicas * compute.gpus, {name: replicas * number for name, number in compute.resources.items()}
