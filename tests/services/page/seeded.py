"""Finished searches with figures that look like a search's, put into a service's store and bucket: what a page is judged by.

They are made up from a seed, by the real update over made-up losses, and written as the trainer writes them.
"""

import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

from api import keys
from api.domains import DomainWeights
from api.experiment import Attempt, Experiment, Stage, app_name
from api.plan import PlannedStage, make_plan
from api.replay import next_weights
from api.results import Compared, Evaluation, EvaluationPoint, MixtureRow, Prepared, PreparedDomain, Searched, StageResult, Trained
from api.spec import ExperimentSpec, parse_spec
from api.stage_config import StageReport, TrainStatePointer
from api.stages import StageKind, StagePhase, StageReason
from api.weights import HistoryHeader, WeightCheckpoint, write_segment
from services.experiments import ID_LETTERS
from services.store import NewEvent
from tests.builders import spec_mapping
from tests.services.running import Running

BEGAN = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
PILE = [
    "arxiv",
    "bookcorpus2",
    "books3",
    "dm_mathematics",
    "enron",
    "europarl",
    "freelaw",
    "github",
    "gutenberg",
    "hackernews",
    "nih_exporter",
    "opensubtitles",
    "openwebtext2",
    "philpapers",
    "pile_cc",
    "pubmed_abstracts",
    "pubmed_central",
    "stackexchange",
    "ubuntu_irc",
    "uspto",
    "wikipedia",
    "youtube_subtitles",
]
LONG = [f"common_crawl_2024_snapshot_filtered_by_language_and_quality_{number:02}" for number in range(12)]
STEPS, SAVED_EVERY, ETA = 400, 100, 0.03


def seed(service: Running, name: str, domains: list[str], seconds: float = 0, rounds: int = 1) -> Experiment:
    """A search over `domains` that succeeded, `seconds` after BEGAN."""
    mixtures = {"mixtures": ["averaged", "reference", "uniform"]}
    changes: dict[str, Any] = {
        "domains": {domain: {"source": {"type": "jsonl", "paths": [f"data/{domain}/*.jsonl.zst"]}} for domain in domains},
        "comparison": mixtures,
        "doremi": {"eta": ETA, "rounds": rounds},
    }
    changes["description"] = f"{len(domains)} domains, a 70M proxy, three large models."
    text = yaml.safe_dump(spec_mapping(name, **changes), sort_keys=False)
    spec, made = parse_spec(text), "x" + "".join(random.Random(name).choices(ID_LETTERS, k=10))
    plan, figures = make_plan(spec), Figures(service, made, spec)
    stages = []
    for number, planned in enumerate(plan.stages):
        at = BEGAN + timedelta(seconds=seconds, minutes=7 * number)
        result = figures.of(planned, at)
        service.bucket.put(keys.result(made, planned.name), result.model_dump_json().encode())
        attempt = Attempt(
            number=1, app=app_name(made, planned.name, 1), created_at=at, launched_at=at, started_at=at, ended_at=at + timedelta(minutes=7)
        )
        ended = {"phase": StagePhase.SUCCEEDED, "reason": StageReason.COMPLETED, "attempts": (attempt,), "finished_at": attempt.ended_at}
        stages.append(Stage(plan=planned, result_key=keys.result(made, planned.name), **ended))
        lines = [f"[0] {planned.name}: step {step:,} loss {3 + 5 / (step + 1):.3f}" for step in range(0, STEPS, 25)]
        service.bucket.put(keys.attempt_log(made, planned.name, 1), ("\n".join(lines) + "\n").encode())
    sha256 = "0" * 64
    record = Experiment(
        id=made, name=name, spec_text=text, spec_sha256=sha256, created_at=BEGAN + timedelta(seconds=seconds), stages=tuple(stages)
    )
    stored = service.store.create(record, None, record.created_at)
    events = [NewEvent("stage_changed", stage.name, {"from": "running", "to": "succeeded", "message": ""}) for stage in stages]
    return service.store.replace(stored, [*events, NewEvent("experiment_finished", data={"phase": "succeeded"})], BEGAN)


class Figures:
    """What the stages of one search found."""

    def __init__(self, service: Running, experiment: str, spec: ExperimentSpec) -> None:
        self._service, self._experiment, self._names = service, experiment, sorted(spec.domains)
        self._chance = random.Random(experiment)
        shares = [self._chance.lognormvariate(0, 1) for _ in self._names]
        self._reference = DomainWeights.normalised(dict(zip(self._names, shares, strict=True)))
        self._hard = {name: self._chance.uniform(0.0, 0.6) for name in self._names}
        self._averaged = self._reference

    def of(self, planned: PlannedStage, at: datetime) -> StageResult:
        found: dict[str, Any] = {}
        if planned.kind is StageKind.PREPARE:
            found["prepared"] = self._prepared()
        elif planned.kind is StageKind.EVALUATE:
            found["compared"] = self._compared()
        elif planned.kind is StageKind.PROXY:
            found["searched"] = self._searched(planned.name)
        if planned.kind not in (StageKind.PREPARE, StageKind.EVALUATE):
            found["trained"] = self._trained(planned.mixture_name or planned.kind.value)
        return StageResult(
            experiment_id=self._experiment,
            stage=planned.name,
            kind=planned.kind,
            round=planned.round,
            attempt=1,
            digest=None,
            created_at=at,
            **found,
        )

    def _prepared(self) -> Prepared:
        counted = {
            name: PreparedDomain(
                documents=100,
                tokens=100_000,
                rows=90,
                share=self._reference[name],
                validation_documents=5,
                validation_tokens=900,
                validation_rows=3,
            )
            for name in self._names
        }
        return Prepared(domains=counted, token_shares=self._reference, vocab_size=512, eos_id=0, sequence_length=1024, fingerprint="0" * 64)

    def _searched(self, stage: str) -> Searched:
        count = len(self._names)
        alpha, total, written, records = [1 / count] * count, [0.0] * count, [], []
        level = [self._hard[name] for name in self._names]
        for step in range(1, STEPS + 1):
            excess = [max(0.0, one * math.exp(-step / 150) + self._chance.gauss(0, 0.012)) for one in level]
            alpha = list(next_weights(alpha, excess, ETA, 0.001))
            total = [before + one for before, one in zip(total, alpha, strict=True)]
            records.append(
                WeightCheckpoint(
                    step=step, attempt=1, tokens_seen=step, domain_weights=alpha, weight_sum=list(total), count=step,
                    excess_losses=excess, domain_tokens=[1] * count, domain_losses=[3.0] * count,
                )
            )  # fmt: skip
            if step % SAVED_EVERY == 0:
                header = HistoryHeader(
                    experiment=self._experiment, stage=stage, domains=self._names, eta=ETA, smoothing=0.001, objective="excess",
                    first_step=records[0].step,
                )  # fmt: skip
                key = keys.history_segment(self._experiment, stage, records[0].step, step, 1)
                self._service.bucket.put(key, write_segment(header, records))
                written.append(key)
                records = []
        averaged = DomainWeights.normalised({name: one / STEPS for name, one in zip(self._names, total, strict=True)})
        last = DomainWeights.normalised(dict(zip(self._names, alpha, strict=True)))
        self._averaged = averaged
        return Searched(
            averaged_weights=averaged, final_weights=last, reference_weights=self._reference,
            delta=max(abs(averaged[name] - self._reference[name]) for name in self._names), history=written,
        )  # fmt: skip

    def _trained(self, mixture: str) -> Trained:
        points = [EvaluationPoint(step=step, evaluation=self._evaluation(mixture, step)) for step in range(50, STEPS + 1, 50)]
        return Trained(
            steps=STEPS, tokens=1, parameters=1, sampling_weights=self._reference, epochs={}, final_loss=3.0, evaluations=points,
            seconds=420, tokens_per_second=1000,
        )  # fmt: skip

    def _evaluation(self, mixture: str, step: int = STEPS) -> Evaluation:
        chance = random.Random(f"{self._experiment} {mixture}")
        better = {"averaged": -0.06, "uniform": 0.03}.get(mixture, 0.0)
        losses = {
            name: 2.4 + 1.5 * self._hard[name] + 3 * math.exp(-step / 120) + (better + chance.gauss(0, 0.05) if better else 0)
            for name in self._names
        }
        return Evaluation(
            losses=losses, tokens=dict.fromkeys(losses, 900), average=sum(losses.values()) / len(losses), worst=max(losses.values())
        )

    def _compared(self) -> Compared:
        baseline = self._evaluation("reference")
        rows = []
        for mixture in ("averaged", "reference", "uniform"):
            found = self._evaluation(mixture)
            rows.append(
                MixtureRow(
                    mixture=mixture, stage=mixture, sampling_weights=self._averaged, evaluation=found, curve=[],
                    better=[name for name in self._names if found.losses[name] < baseline.losses[name]],
                    worse=[name for name in self._names if found.losses[name] > baseline.losses[name]],
                    steps_to_baseline=250 if mixture == "averaged" else None,
                )
            )  # fmt: skip
        return Compared(baseline="reference", rows=rows)


def unfinished(service: Running, name: str, domains: list[str], saved: int) -> Experiment:
    """The same while its proxy runs: a state was saved at step `saved`, a multiple of SAVED_EVERY."""
    return reopened(service, seed(service, name, domains), saved)


def reopened(service: Running, record: Experiment, saved: int) -> Experiment:
    """A finished one whose proxy of the first round runs again."""
    proxy = first_proxy(record)
    lasts = range(SAVED_EVERY, saved + 1, SAVED_EVERY)
    written = [keys.history_segment(record.id, proxy.name, last - SAVED_EVERY + 1, last, 1) for last in lasts]
    pointer = TrainStatePointer(step=saved, attempt=1, state="state/", history=written, created_at=BEGAN)
    service.bucket.put(keys.latest_state(record.id, proxy.name), pointer.model_dump_json().encode())
    changed = proxy.model_copy(update={"phase": StagePhase.RUNNING, "result_key": None, "finished_at": None})
    return service.store.replace(record.with_stage(changed), [], BEGAN)


def first_proxy(record: Experiment) -> Stage:
    return next(stage for stage in record.stages if stage.plan.kind is StageKind.PROXY)


def ended(service: Running, record: Experiment, stage: str, phase: StagePhase, message: str) -> Experiment:
    """A finished one whose `stage` did not succeed after all."""
    found = record.stage(stage)
    assert found is not None
    changed = found.model_copy(
        update={"phase": phase, "reason": StageReason.WORKER_FAILED_PERMANENTLY, "message": message, "result_key": None}
    )
    return service.store.replace(record.with_stage(changed), [], BEGAN)


def report(service: Running, record: Experiment, step: int, weights: DomainWeights) -> None:
    """What the running proxy says of itself."""
    figures: dict[str, Any] = {"step": step, "total": STEPS, "loss": 3.1, "tokens_per_second": 1200}
    moved: dict[str, Any] = {"domain_weights": weights, "averaged_weights": weights, "excess_losses": dict.fromkeys(weights.names, 0.1)}
    said = StageReport(attempt=1, updated_at=BEGAN + timedelta(seconds=step), activity="training", **figures, **moved)
    service.bucket.put(keys.attempt_report(record.id, first_proxy(record).name, 1), said.model_dump_json().encode())
