"""From an attempt and its stage config to a TorchX AppDef: pure, so that what would be launched can be shown and compared."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torchx.specs import AppDef, Resource, RetryPolicy, Role, macros

from api.reach import EVERYTHING, Reach
from api.spec import Compute
from services.launch.cluster import LaunchRequest

ROLE = "trainer"  # [a-z0-9]+ only: TorchX finds rank 0 by it, and a dash breaks that
QUIET = 3600  # seconds: each of the agent's signs of life makes the file longer, and there is no other agent to read them
FOLDER = f"{macros.img_root}/{macros.app_id}"  # of an app on this machine, which nobody but the service's user may enter


@dataclass(frozen=True)
class Site:
    """Where apps run, as far as rendering one has to know."""

    bucket_url: str
    threads: int | None = None
    """CPU threads that one app may use, where its spec does not say how many CPUs it gets; None: as its spec's default."""
    command: tuple[str, ...] | None = None
    """What reads the stage config, in place of the trainer under torchrun."""
    python: str = "python"
    """The interpreter that has the trainer."""
    image: str = ""
    reach: Reach = EVERYTHING
    """What the trainer may read for a spec."""


def make_app(request: LaunchRequest, site: Site) -> AppDef:
    """The app of `request`: one role, a replica a machine, torchrun's agent in each."""
    config = request.config
    compute = config.spec.compute_for(config.plan.kind)
    first, *rest = [*(site.command or torchrun(compute, site.python)), "--bucket", site.bucket_url, "--config", request.config_key]
    role = Role(
        name=ROLE,
        image=site.image,
        entrypoint=first,
        args=rest,
        env={
            "OMP_NUM_THREADS": str(threads(compute, site)),
            "GOMP_SPINCOUNT": "20000",  # spin for a moment, then sleep: threads that spin on starve, 20 times slower, beside any other load
            "PYTHONUNBUFFERED": "1",
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # without it torch 2.13 hangs when a worker is lost
            **({} if site.command else {"SOLFA_MEETING": FOLDER}),
            **({} if site.reach == EVERYTHING else {"SOLFA_REACH": site.reach.model_dump_json()}),
        },
        num_replicas=compute.replicas.max,
        min_replicas=compute.replicas.min,
        retry_policy=RetryPolicy.REPLICA,
        resource=Resource(cpu=math.ceil(compute.cpus), gpu=compute.gpus, memMB=compute.memory_mb),
    )
    metadata = {"experiment": config.experiment_id, "stage": config.plan.name, "attempt": str(config.attempt), "request": identity(request)}
    return AppDef(name=request.app, roles=[role], metadata=metadata)


def identity(request: LaunchRequest) -> str:
    """sha256 of what is asked for, in terms that no upgrade changes: a second launch with the same one is an adoption."""
    config = request.config
    parts = [request.app, request.config_key, config.spec_sha256, config.plan.name, str(config.attempt), config.digest or ""]
    return hashlib.sha256("\n".join([*parts, config.inputs.model_dump_json(exclude_defaults=True)]).encode()).hexdigest()


def torchrun(compute: Compute, python: str) -> Sequence[str]:
    """One agent with `processes` workers on this machine; attempts, not the agent, restart what failed.

    Its rendezvous is a file: a TCP store listens on every address, asks nobody who they are, and what lies in it is unpickled.
    """
    return [
        *(python, "-m", "torch.distributed.run"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"{FOLDER}/rendezvous", "--rdzv-id", macros.app_id),
        *("--rdzv-conf", f"store_type=file,keep_alive_interval={QUIET}", "--local-addr", "127.0.0.1"),
        *("--nnodes", "1", "--nproc-per-node", str(compute.processes), "--max-restarts", "0"),
        *("-m", "trainer"),
    ]


def threads(compute: Compute, site: Site) -> int:
    """CPU threads a process: the app's share of the machine, or the CPUs its spec asks for, divided among its processes."""
    asked = math.ceil(compute.cpus)
    share = asked if site.threads is None else site.threads
    return max(1, (min(asked, share) if "cpus" in compute.model_fields_set else share) // compute.processes)
