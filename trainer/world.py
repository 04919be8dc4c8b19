"""The process's place among the others: rank, size, device, the request to stop. The only reader of the environment in this plane."""

import os
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import FileStore, HashStore, Store  # type: ignore[attr-defined]  # they are documented, but not in its __all__

from api.reach import EVERYTHING, Reach

T = TypeVar("T")


class Interrupted(Exception):
    """The process was asked to stop, and what was to be saved has been saved."""


@dataclass(frozen=True)
class World:
    """This process among those of its attempt."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    restarts: int = 0
    """Elastic restarts of this process within the attempt."""
    cache: Path = Path(tempfile.gettempdir()) / "solfa-cache"
    """Where what is fetched from a remote bucket is kept."""
    reach: Reach = EVERYTHING
    """What may be read for a spec."""
    store: Store = field(default_factory=HashStore, compare=False)
    """Small values that all ranks read and write, kept by rank 0's process, or in a file."""
    metrics_port: int | None = None
    """Where the first process of each machine answers Prometheus; None: nowhere."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Added over all ranks, in place, the same everywhere."""
        if self.size > 1:
            on_device = values.to(self.device)
            dist.all_reduce(on_device)
            values.copy_(on_device)
        return values

    def agree(self, flag: bool) -> bool:
        """True on every rank as soon as it is on one."""
        return bool(self.sum(torch.tensor([int(flag)])).item())

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def share(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]


class StopFlag:
    """Raised by SIGTERM; the loop looks at it between steps."""

    def __init__(self) -> None:
        self.raised = False

    def listen(self) -> None:
        signal.signal(signal.SIGTERM, self._raise)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.raised = True


stop_flag = StopFlag()


def stop_requested() -> bool:
    """Whether SIGTERM has come."""
    return stop_flag.raised


def join_world(patience: timedelta) -> World:
    """The world that torchrun's environment describes. `patience`: how long a process waits for the others in a collective."""
    stop_flag.listen()
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    store: Store = HashStore()
    cache, port = os.environ.get("SOLFA_CACHE"), os.environ.get("SOLFA_METRICS_PORT", "")
    # One process too: FSDP and checkpoints of a process group of one are the same code as of many.
    if "MASTER_ADDR" in os.environ:
        backend, meeting = "nccl" if device.type == "cuda" else "gloo", _meeting(size, patience)
        dist.init_process_group(backend, timeout=patience, store=meeting, rank=rank, world_size=size)
        store = dist.distributed_c10d._get_default_store()
    return World(
        rank=rank,
        size=size,
        local_rank=local_rank,
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        device=device,
        restarts=int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
        store=store,
        metrics_port=int(port) if port.isdecimal() else None,
        reach=Reach.model_validate_json(os.environ.get("SOLFA_REACH", "{}")).followed(),
        **({"cache": Path(cache)} if cache else {}),
    )


def _meeting(size: int, patience: timedelta) -> Store | None:
    """Where processes that are all on this machine meet: a file of their own, and loopback. None: where torchrun says, over TCP."""
    folder = os.environ.get("SOLFA_MEETING")
    if folder is None:
        return None
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    # Those whom the agent starts anew need a new file: what the killed ones wrote stays in theirs. With one agent, all have its count.
    store = FileStore(f"{folder}/store-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", size)
    store.set_timeout(patience)
    return store


def leave_world() -> None:
    """Take the process group down, where all its processes have come to the same end. One that failed just ends, since this may wait for
    the others, and torchrun ends them only when it sees that a process is gone."""
    if dist.is_initialized():
        dist.destroy_process_group()
