"""What a stage runs on, and how often it may try."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from api.spec.base import Part

RESOURCE_PATTERN = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
ResourceName = Annotated[str, Field(pattern=RESOURCE_PATTERN)]


class Replicas(Part):
    """Machines (pods) of an elastic stage."""

    min: int = Field(default=1, ge=1, le=128)
    """Training goes on while so many are there."""
    max: int = Field(default=1, ge=1, le=128)
    """So many are asked for."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) is below min ({self.min})")
        return self


class Compute(Part):
    """One stage's machines."""

    replicas: Replicas = Replicas()
    """Machines; one on a laptop."""
    processes: int = Field(default=1, ge=1, le=256)
    """Processes a replica; on GPUs, one a GPU."""
    cpus: float = Field(default=1.0, gt=0)
    """CPU cores a replica."""
    memory_mb: int = Field(default=4096, ge=64)
    """Memory a replica, in MiB."""
    gpus: int = Field(default=0, ge=0, le=256)
    """GPUs a replica."""
    resources: dict[ResourceName, Annotated[int, Field(ge=1)]] = Field(default={}, max_length=16)
    """Other devices a replica, by the names that the cluster gives them: `{rdma/hca: 1}`."""
    peak_flops: float | None = Field(default=None, gt=0)
    """Dense bfloat16 FLOP/s of one process's device at best: what MFU is a share of. Known of H100, H200, A100 and L4; others are told."""
    parallelism: Literal["ddp", "fsdp"] = "ddp"
    """Replicated, or sharded with FSDP2."""
    retries: int = Field(default=3, ge=0, le=100)
    """Attempts after the first that a failing program may use; preemption and lost nodes use none."""
    deadline_seconds: int | None = Field(default=None, ge=1)
    """From the stage's first launch; past it the stage fails. None: no deadline."""
    stall_seconds: int = Field(default=1800, ge=10)
    """Without a report for so long, a running attempt is ended and tried again."""


class StageCompute(Part):
    """Compute for each kind of stage; what is left out is as `default`."""

    default: Compute = Compute()
    """For every kind that is not named."""
    prepare: Compute | None = None
    reference: Compute | None = None
    proxy: Compute | None = None
    main: Compute | None = None
    """Of `main` and every `baseline`."""
    evaluate: Compute | None = None
