"""What a proxy step costs beside a plain one, on the CPU; and on a CUDA device, how near the hardware's limit plain steps come.

The steps are the trainer's own (`trainer.steps`), optimiser included, on fixed batches. Kinds of step take turns within each round, so
that a machine that slows down slows all of them; a ratio is the median of the rounds' ratios.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from api.bucket import FileBucket
from api.domains import DomainWeights
from api.plan import PlannedStage
from api.results import Prepared, PreparedDomain, StageResult
from api.spec import Compute, Doremi, ExperimentSpec, Model, Training
from api.stage_config import StageConfig
from api.stages import StageKind
from tests.builders import START, make_spec
from trainer.context import StageContext
from trainer.data import Batch, PreparedData
from trainer.meter import PEAK_BF16
from trainer.model import build_model
from trainer.optimize import make_optimizer
from trainer.parallel import ParallelModel
from trainer.reference_losses import LiveReference, StoredReference, store_losses
from trainer.report import Reporter
from trainer.steps import DoremiStep, PlainStep, Step
from trainer.world import World

Figure = dict[str, Any]
DOMAINS = [f"d{number}" for number in range(8)]
CPU_VOCABULARY, CPU_LENGTH, CPU_BATCH = 4096, 128, 16
CPU_MODEL = {"model_type": "llama", "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 384}
GPU_VOCABULARY, GPU_LENGTH = 32_768, 1024
GPU_SHAPES: Mapping[str, tuple[int, int, int, int, int, float]] = {  # layers, width, heads, feed-forward, micro-batch, aimed MFU
    "120M": (12, 768, 12, 2304, 64, 0.45),
    "280M": (18, 1024, 16, 3072, 32, 0.50),
    "1B": (18, 2048, 16, 5632, 16, 0.60),
}


def measure(quick: bool) -> list[Figure]:
    """The proxy's cost on the CPU, and the figures of a CUDA device where there is one."""
    figures = _on_cpu(rounds=4 if quick else 25)
    return figures + (_on_cuda(rounds=3 if quick else 15) if torch.cuda.is_available() else _without_cuda())


def _on_cpu(rounds: int) -> list[Figure]:
    training = Training(steps=1000, global_batch=CPU_BATCH, micro_batch=CPU_BATCH)
    world, shape = World(), Model(config={**CPU_MODEL, "tie_word_embeddings": True})
    rows = [
        np.random.default_rng(number).integers(0, CPU_VOCABULARY, (64, CPU_LENGTH + 1), dtype=np.int32) for number in range(len(DOMAINS))
    ]
    data = PreparedData(_prepared(rows), rows, rows)

    def fresh() -> ParallelModel:
        torch.manual_seed(0)
        return ParallelModel(build_model(shape, CPU_VOCABULARY, CPU_LENGTH), world, Compute(), training, compiled=False)

    with _stored(fresh(), data, world) as stored:
        kinds = {
            "plain": PlainStep(world, DOMAINS),
            "live": DoremiStep(world, DOMAINS, Doremi(), "excess", LiveReference(fresh())),
            "precomputed": DoremiStep(world, DOMAINS, Doremi(), "excess", stored),
        }
        times = _in_turn({name: _stepper(fresh(), step, training) for name, step in kinds.items()}, _batches(data, CPU_BATCH), rounds)
    tokens = CPU_BATCH * CPU_LENGTH
    how = (
        f"{fresh().model.num_parameters() / 1e6:.1f}M parameters, {tokens:,} tokens a step, {CPU_VOCABULARY:,} ids, "
        f"{torch.get_num_threads()} threads; {rounds} rounds in turn"
    )
    return [
        _ratio("proxy step with a live reference / plain step, CPU", times["live"], times["plain"], "at most 1.35", how),
        _ratio("proxy step with precomputed reference losses / plain step, CPU", times["precomputed"], times["plain"], None, how),
        _figure("plain step, CPU", [tokens / seconds for seconds in times["plain"]], "tokens/s", None, how),
    ]


def _on_cuda(rounds: int) -> list[Figure]:
    world = World(device=torch.device("cuda", 0))
    device = torch.cuda.get_device_name()
    peak = next((flops for name, flops in PEAK_BF16.items() if name in device), None)
    figures: list[Figure] = []
    for name, (layers, width, heads, feed_forward, micro, aim) in GPU_SHAPES.items():
        config = {"model_type": "llama", "num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
        shape = Model(config={**config, "intermediate_size": feed_forward, "tie_word_embeddings": True})
        training = Training(steps=1000, global_batch=micro, micro_batch=micro, precision="bfloat16")
        rows = [
            np.random.default_rng(number).integers(0, GPU_VOCABULARY, (64, GPU_LENGTH + 1), dtype=np.int32)
            for number in range(len(DOMAINS))
        ]
        data = PreparedData(_prepared(rows), rows, rows)
        models = [
            ParallelModel(build_model(shape, GPU_VOCABULARY, GPU_LENGTH), world, Compute(), training, compiled=True) for _ in range(2)
        ]
        batches = _batches(data, micro)

        plain = _stepper(models[0], PlainStep(world, DOMAINS), training)
        torch.cuda.reset_peak_memory_stats()
        alone = _in_turn({"plain": plain}, batches, rounds)["plain"]
        memory = torch.cuda.max_memory_allocated()
        proxy = _stepper(models[0], DoremiStep(world, DOMAINS, Doremi(), "excess", LiveReference(models[1])), training)
        times = _in_turn({"plain": plain, "proxy": proxy}, batches, rounds)

        tokens, flops = micro * GPU_LENGTH, models[0].model.flops_per_token(GPU_LENGTH)
        size = f"{models[0].model.num_parameters() / 1e6:.0f}M parameters, {tokens:,} tokens a step"
        how = f"{device}; bf16, torch.compile, fused AdamW; {size}"
        figures.append(_figure(f"plain step, {name}, CUDA", [tokens / seconds for seconds in alone], "tokens/s", None, how))
        figures.append(_figure(f"peak memory, {name}, CUDA", [memory / 2**30], "GiB", None, how))
        mfu = [100 * tokens * flops / seconds / peak for seconds in alone] if peak else []
        by = f"{how}; model FLOPs, causal attention counted once, of {peak or 0:.3g} FLOP/s"
        figures.append(_figure(f"MFU, {name}, CUDA", mfu, "%", f"aim {100 * aim:.0f}", by))
        figures.append(_ratio(f"proxy step / plain step, {name}, CUDA", times["proxy"], times["plain"], "at most 1.30", how))
        del models, plain, proxy
        torch.cuda.empty_cache()
    return figures


def _without_cuda() -> list[Figure]:
    reason = "no CUDA device here; this part of the benchmark has not been run"
    figures = []
    for name, (*_, aim) in GPU_SHAPES.items():
        figures.append(_figure(f"MFU, {name}, CUDA", [], "%", f"aim {100 * aim:.0f}", reason))
        figures.append(_figure(f"proxy step / plain step, {name}, CUDA", [], "", "at most 1.30", reason))
    return figures


def _stepper(model: ParallelModel, step: Step, training: Training) -> Callable[[Batch], None]:
    """One step as the loop takes it: gradients, clip, update."""
    optimizer = make_optimizer(model.model, training)

    def take(batch: Batch) -> None:
        step(model, batch)
        torch.nn.utils.clip_grad_norm_(model.model.parameters(), 1.0).item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return take


def _in_turn(steppers: Mapping[str, Callable[[Batch], None]], batches: list[Batch], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step by kind, one a round, after two rounds that warm up."""
    times: dict[str, list[float]] = {name: [] for name in steppers}
    for number in range(-2, rounds):
        for name, take in steppers.items():
            began = time.perf_counter()
            take(batches[number % len(batches)])
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number >= 0:
                times[name].append(time.perf_counter() - began)
    return times


def _batches(data: PreparedData, size: int, number: int = 4) -> list[Batch]:
    domain_ids = np.arange(size) % len(DOMAINS)
    random = np.random.default_rng(0)
    batches = []
    for _ in range(number):
        row_ids = random.integers(0, min(data.rows), size)
        batches.append(Batch(data.take(domain_ids, row_ids), domain_ids, row_ids, {}, np.zeros(len(DOMAINS))))
    return batches


@contextmanager
def _stored(reference: ParallelModel, data: PreparedData, world: World) -> Iterator[StoredReference]:
    """The reference's losses, computed once and read from disk, by the trainer's own means."""
    with TemporaryDirectory() as folder:
        bucket = FileBucket(Path(folder))
        spec: ExperimentSpec = make_spec(domains={name: {"source": {"type": "jsonl", "paths": ["/none"]}} for name in DOMAINS})
        stage = PlannedStage(name="reference", kind=StageKind.REFERENCE)
        config = StageConfig(experiment_id="x", spec=spec, spec_sha256="", plan=stage, siblings=(stage,), attempt=1, digest=None)
        context = StageContext(config, bucket, world, Reporter(config, bucket, world), Path(folder) / "cache")
        store_losses(context, reference, data, "losses/")
        result = StageResult(
            experiment_id="x",
            stage="reference",
            kind=stage.kind,
            round=1,
            attempt=1,
            digest=None,
            created_at=START,
            files={"losses": "losses/"},
        )
        yield StoredReference(context, result, data)


def _prepared(rows: list[np.ndarray]) -> Prepared:
    counts = PreparedDomain(
        documents=1,
        tokens=rows[0].size,
        rows=len(rows[0]),
        share=1 / len(rows),
        validation_documents=0,
        validation_tokens=0,
        validation_rows=0,
    )
    return Prepared(
        domains=dict.fromkeys(DOMAINS, counts),
        token_shares=DomainWeights.uniform(DOMAINS),
        vocab_size=int(max(part.max() for part in rows)) + 1,
        eos_id=0,
        sequence_length=rows[0].shape[1] - 1,
        fingerprint="0" * 64,
    )


def _ratio(what: str, above: list[float], below: list[float], reach: str | None, how: str) -> Figure:
    pairs = [a / b for a, b in zip(above, below, strict=True)]
    return _figure(what, pairs, "", reach, f"{how}; ratio of neighbours")


def _figure(what: str, values: list[float], unit: str, reach: str | None, how: str) -> Figure:
    """The median of `values`, and how they spread; nothing measured gives None."""
    value = statistics.median(values) if values else None
    spread = f"; min {min(values):.4g}, median {value:.4g}, max {max(values):.4g} of {len(values)}" if len(values) > 1 else ""
    return {"what": what, "value": value, "unit": unit, "reach": reach, "detail": f"{how}{spread}"}
