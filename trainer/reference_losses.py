"""The reference's token losses: live beside the proxy, or computed once over all training rows and read from disk.

Stored losses are float16 (bfloat16's spacing would bias the clipped excess by 1 %), one file a domain and part, [rows, sequence_length],
tied to the data and to the reference by a small JSON file. One pass serves every proxy, seed and sweep.
"""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from api.errors import DataError
from api.results import StageResult
from trainer.context import StageContext
from trainer.data import PreparedData
from trainer.files import reading, writing
from trainer.parallel import MASKED, Micro, ParallelModel, to_device
from trainer.world import Interrupted, stop_requested

TIES = "ties.json"
NO_ROW_IDS: NDArray[np.int64] = np.empty(0, dtype=np.int64)


class LiveReference:
    """Runs the reference without gradient."""

    def __init__(self, model: ParallelModel) -> None:
        self._model = model
        model.model.eval()

    def __call__(self, micro: Micro) -> Tensor:
        with torch.no_grad():
            return self._model.losses(micro)


class StoredReference:
    """Reads what `store_losses` wrote. Raises DataError when it belongs to other data or another reference."""

    def __init__(self, context: StageContext, reference: StageResult, data: PreparedData) -> None:
        self._device = context.world.device
        prefix = reference.files.get("losses")
        if prefix is None:
            raise DataError(f"{reference.stage} stored no losses; run it with doremi.reference_losses: precomputed.")
        expected = _ties(data, reference.experiment_id, reference.stage, reference.attempt)
        with reading(context.bucket, prefix, context.cache) as folder:
            found = json.loads((folder / TIES).read_text())
            for name, value in expected.items():
                if found.get(name) != value:
                    raise DataError(f"The stored reference losses are of another {name} ({found.get(name)}); compute them anew.")
            self._losses = [
                self._map(folder, domain, rows, data, found["parts"]) for domain, rows in zip(data.names, data.rows, strict=True)
            ]

    def _map(self, folder: Path, domain: str, rows: int, data: PreparedData, parts: int) -> list[NDArray[np.float16]]:
        files = [folder / f"{domain}.{part}" for part in range(parts)]
        mapped = [np.fromfile(file, dtype=np.float16) if file.stat().st_size == 0 else np.memmap(file, np.float16, "r") for file in files]
        shaped = [np.asarray(part).reshape(-1, data.sequence_length) for part in mapped]
        if sum(map(len, shaped)) != rows:
            raise DataError(f"The stored reference losses of {domain} cover other rows than the data; compute them anew.")
        return shaped

    def __call__(self, micro: Micro) -> Tensor:
        out = torch.zeros(micro.targets.shape, dtype=torch.float32)
        domains = micro.domain_ids.cpu().numpy()[: len(micro.row_ids)]
        for index, (domain, row) in enumerate(zip(domains, micro.row_ids, strict=True)):
            part, left = 0, int(row)
            while left >= len(self._losses[domain][part]):
                left -= len(self._losses[domain][part])
                part += 1
            out[index] = torch.from_numpy(self._losses[domain][part][left].astype(np.float32))
        return out.to(self._device)


def store_losses(context: StageContext, model: ParallelModel, data: PreparedData, prefix: str) -> None:
    """Write the model's loss of every token of every training row under `prefix`; the ranks take contiguous parts."""
    world = context.world
    chunk = context.config.spec.training_for(context.config.plan.kind).micro_batch
    model.model.eval()
    with writing(context.bucket, prefix, context.cache) as folder, torch.no_grad():
        for domain, (name, rows) in enumerate(zip(data.names, data.rows, strict=True)):
            context.reporter.progress(f"storing reference losses of {name}", domain, len(data.names), "domains")
            share = -(-rows // world.size)
            begin, end = min(rows, world.rank * share), min(rows, (world.rank + 1) * share)
            with (folder / f"{name}.{world.rank}").open("wb") as file:
                for start in range(0, share, chunk):
                    if world.agree(stop_requested()):
                        raise Interrupted
                    context.reporter.moves()
                    ids = np.arange(min(end, begin + start), min(end, begin + start + chunk))
                    file.write(_losses_of(model, data, domain, ids, context).astype(np.float16).tobytes())
        if world.is_first:
            config = context.config
            ties = _ties(data, config.experiment_id, config.plan.name, config.attempt)
            (folder / TIES).write_text(json.dumps({**ties, "parts": world.size}))
    world.barrier()


def _losses_of(model: ParallelModel, data: PreparedData, domain: int, ids: NDArray[np.int64], context: StageContext) -> NDArray[np.float32]:
    rows = torch.from_numpy(data.take(np.full(len(ids), domain), ids)).long()
    if len(ids) == 0:  # other ranks still have rows, and each forward pass is a collective
        rows = torch.full((1, data.sequence_length + 1), MASKED)
    micro = to_device(rows, torch.full((len(rows),), domain), NO_ROW_IDS, context.world)
    found: NDArray[np.float32] = model.losses(micro).float().cpu().numpy()
    return found[: len(ids)]


def _ties(data: PreparedData, experiment: str, stage: str, attempt: int) -> dict[str, str | int]:
    """What stored losses belong to: the rows (dataset, tokenizer and packing in one digest), their length, the reference."""
    return {"dataset": data.fingerprint, "sequence length": data.sequence_length, "reference": f"{experiment}/{stage}/{attempt}"}
