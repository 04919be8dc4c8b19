"""How a model is spread over processes: as it is, replicated (DDP) or sharded (FSDP2); and how a rank's rows become micro-batches."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from api.spec import Compute, Training
from trainer.data import Batch
from trainer.model import CausalModel
from trainer.world import World

MASKED = -1  # target of a token that does not count


@dataclass(frozen=True)
class Micro:
    """One micro-batch on the device: inputs and targets [n, s] int64, mask [n, s] bool, domain_ids [n] int64, row_ids [n] int64 (host)."""

    inputs: Tensor
    targets: Tensor
    mask: Tensor
    domain_ids: Tensor
    row_ids: NDArray[np.int64]


class ParallelModel:
    """A model as the loop calls it: forward under the spec's precision, gradients summed over ranks once a step."""

    def __init__(self, model: CausalModel, world: World, compute: Compute, training: Training, compiled: bool) -> None:
        self.model, self._world, self._training = model.to(world.device), world, training
        self._wrapped: nn.Module = self.model
        if world.size > 1 and compute.parallelism == "fsdp":
            for block in model.block_modules():
                fully_shard(block)
            fully_shard(self.model)
        elif world.size > 1:
            ids = [world.device.index] if world.device.type == "cuda" else None
            self._wrapped = DistributedDataParallel(self.model, device_ids=ids)
        self._compiled = compiled
        self._callable = torch.compile(self._wrapped, dynamic=False) if compiled else self._wrapped

    def losses(self, micro: Micro) -> Tensor:
        """Token losses, nats, [n, s] float32; 0 where masked."""
        with torch.autocast(self._world.device.type, torch.bfloat16, enabled=self._training.precision == "bfloat16"):
            losses: Tensor = self._callable(micro.inputs, micro.targets)
        return losses

    def synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of a micro-batch: gradients go over the network in the last one only."""
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_gradient_sync(last)
        elif isinstance(self._wrapped, DistributedDataParallel) and not last:
            return self._wrapped.no_sync()
        return nullcontext()

    def micro_batches(self, batch: Batch) -> list[Micro]:
        """The rank's rows in micro-batches, equally many on every rank, since each is a collective."""
        largest_share = -(-self._training.global_batch // self._world.size)
        number = max(1, -(-largest_share // self._training.micro_batch))
        parts = np.array_split(np.arange(len(batch.rows)), number)
        return [self._micro(batch, part) for part in parts]

    def _micro(self, batch: Batch, part: NDArray[np.int64]) -> Micro:
        rows = torch.from_numpy(batch.rows[part]).long()
        padding = max(self._training.micro_batch - len(part) if self._compiled else 0, 1 - len(part))
        domain_ids = torch.from_numpy(batch.domain_ids[part])
        if padding > 0:  # masked rows: static shapes for the compiler, and something to call where a rank has no row left
            rows = torch.cat((rows, torch.full((padding, batch.rows.shape[1]), MASKED)))
            domain_ids = torch.cat((domain_ids, torch.zeros(padding, dtype=torch.int64)))
        return to_device(rows, domain_ids, batch.row_ids[part], self._world)


def to_device(rows: Tensor, domain_ids: Tensor, row_ids: NDArray[np.int64], world: World) -> Micro:
    """Rows [n, s + 1] (MASKED throughout where a row is padding) as a Micro on the world's device."""
    if world.device.type == "cuda":
        rows = rows.pin_memory().to(world.device, non_blocking=True)
    targets = rows[:, 1:].contiguous()
    return Micro(rows[:, :-1].clamp(min=0), targets, targets >= 0, domain_ids.to(world.device), row_ids)


def shares(total: int, size: int, rank: int, chunk: int) -> Iterator[tuple[int, int]]:
    """A rank's [start, stop) pieces of `total` rows, at most `chunk` each; equally many on every rank, the last perhaps empty."""
    for start in range(0, total, chunk * size):
        begin = min(total, start + rank * chunk)
        yield begin, min(total, begin + chunk)
