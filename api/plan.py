"""From a spec to the stages of its search and what each needs: a pure function, rounds and ablations included."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from api.domains import DomainWeights
from api.spec import ExperimentSpec, MixtureName, Objective
from api.stages import StageKind

RESULT_FORMAT = 1  # part of every digest: raise it when the same inputs would give another result


class Mixture(BaseModel):
    """What a stage samples from: `tokens` and `uniform` follow from the data, `given` holds weights, `averaged` names a proxy stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tokens", "uniform", "given", "averaged"]
    weights: DomainWeights | None = None
    stage: str | None = None


class PlannedStage(BaseModel):
    """One node of the plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: StageKind
    round: int = 1
    needs: tuple[str, ...] = ()
    """Names of the stages whose results it reads, or whose work it would repeat."""
    mixture: Mixture | None = None
    """What a reference, main or baseline stage samples from; of a proxy, which samples uniformly, its round's alpha_ref."""
    mixture_name: MixtureName | None = None
    """The comparison's row that a main or baseline stage makes."""
    objective: Objective | None = None
    """Of a proxy stage."""
    reference: str | None = None
    """The reference stage a proxy or a later reader takes losses from."""


class Plan(BaseModel):
    """The stages in an order in which each comes after all that it needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: tuple[PlannedStage, ...]

    def __getitem__(self, name: str) -> PlannedStage:
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def final_proxy(self) -> PlannedStage:
        """The stage whose averaged weights are the search's answer."""
        return final_proxy(self.stages)


def final_proxy(stages: Iterable[PlannedStage]) -> PlannedStage:
    """The last proxy that is no ablation's."""
    return [stage for stage in stages if stage.kind is StageKind.PROXY and not stage.name.endswith(("-hardest", "-easiest"))][-1]


def make_plan(spec: ExperimentSpec) -> Plan:
    """The plan of `spec`: prepare, then rounds of reference and proxy, then one large model a mixture, then evaluate."""
    stages = [PlannedStage(name="prepare", kind=StageKind.PREPARE)]
    alpha_ref = _reference_mixture(spec)
    numbered = spec.doremi.rounds > 1
    for round_number in range(1, spec.doremi.rounds + 1):
        suffix = f"-{round_number}" if numbered else ""
        before = f"proxy-{round_number - 1}"
        mixture = alpha_ref if round_number == 1 else Mixture(kind="averaged", stage=before)
        earlier = () if round_number == 1 else (before,)
        needs_reference = spec.doremi.objective != "hardest"
        if needs_reference:
            stages.append(_reference(f"reference{suffix}", round_number, ("prepare", *earlier), mixture))
        reference = f"reference{suffix}" if needs_reference else None
        stages.append(_proxy(f"proxy{suffix}", round_number, spec.doremi.objective, reference, mixture, earlier))
    final = stages[-1].name
    stages += _ablations(spec, stages, "reference-1" if numbered else "reference")
    stages += _large_models(spec, alpha_ref, final)
    models = tuple(stage.name for stage in stages if stage.mixture_name)
    if models:
        stages.append(PlannedStage(name="evaluate", kind=StageKind.EVALUATE, needs=("prepare", *models)))
    return Plan(stages=tuple(_after_twins(spec, stages)))


def _reference(name: str, round_number: int, needs: tuple[str, ...], mixture: Mixture) -> PlannedStage:
    return PlannedStage(name=name, kind=StageKind.REFERENCE, round=round_number, needs=needs, mixture=mixture)


def _proxy(
    name: str, round_number: int, objective: Objective, reference: str | None, mixture: Mixture, earlier: tuple[str, ...] = ()
) -> PlannedStage:
    needs = ("prepare", *earlier, *((reference,) if reference else ()))
    return PlannedStage(
        name=name, kind=StageKind.PROXY, round=round_number, needs=needs, mixture=mixture, objective=objective, reference=reference
    )


def _reference_mixture(spec: ExperimentSpec) -> Mixture:
    chosen = spec.doremi.reference_weights
    if isinstance(chosen, dict):
        return Mixture(kind="given", weights=DomainWeights.normalised(chosen))
    return Mixture(kind=chosen)


def _ablations(spec: ExperimentSpec, stages: list[PlannedStage], reference: str) -> list[PlannedStage]:
    added: list[PlannedStage] = []
    have_reference = any(stage.name == reference for stage in stages)
    if "hardest" in spec.comparison.mixtures:
        added.append(_proxy("proxy-hardest", 1, "hardest", None, _reference_mixture(spec)))
    if "easiest" in spec.comparison.mixtures:
        if not have_reference:
            added.append(_reference(reference, 1, ("prepare",), _reference_mixture(spec)))
        added.append(_proxy("proxy-easiest", 1, "easiest", reference, _reference_mixture(spec)))
    return added


def _large_models(spec: ExperimentSpec, alpha_ref: Mixture, final_proxy: str) -> list[PlannedStage]:
    stages = []
    for name in spec.comparison.mixtures:
        if name == "averaged":
            kind, stage_name, mixture = StageKind.MAIN, "main", Mixture(kind="averaged", stage=final_proxy)
        else:
            kind, stage_name = StageKind.BASELINE, f"baseline-{name}"
            if name == "reference":
                mixture = alpha_ref
            elif name == "uniform":
                mixture = Mixture(kind="uniform")
            else:
                mixture = Mixture(kind="averaged", stage=f"proxy-{name}")
        needs = ("prepare", *((mixture.stage,) if mixture.stage else ()))
        stages.append(PlannedStage(name=stage_name, kind=kind, needs=needs, mixture=mixture, mixture_name=name))
    return stages


def _after_twins(spec: ExperimentSpec, stages: list[PlannedStage]) -> list[PlannedStage]:
    """A stage that would repeat an earlier one of this plan waits for it, and then adopts its result."""
    if spec.adopt == "never":
        return stages
    digests = stage_digests(spec, Plan(stages=tuple(stages)), dict.fromkeys(spec.domains, ""))
    first: dict[str, str] = {}
    ordered = []
    for stage in stages:
        twin = first.setdefault(digests[stage.name], stage.name)
        ordered.append(stage if twin == stage.name else stage.model_copy(update={"needs": (*stage.needs, twin)}))
    return ordered


def stage_digests(spec: ExperimentSpec, plan: Plan, fingerprints: Mapping[str, str]) -> dict[str, str]:
    """sha256 of what determines each stage's result: equal digests mean that one result serves both.

    `fingerprints` holds, for each domain, a digest of the files its source names (see services: sources can change under one path).
    Compute and micro_batch are left out: how a batch is divided changes a result by rounding only.
    """
    digests: dict[str, str] = {}
    for stage in plan.stages:
        material = _material(spec, stage, fingerprints, digests)
        whole = {"format": RESULT_FORMAT, "kind": _digest_kind(stage.kind), **material}
        canonical = json.dumps(whole, sort_keys=True, separators=(",", ":"))
        digests[stage.name] = hashlib.sha256(canonical.encode()).hexdigest()
    return digests


def _digest_kind(kind: StageKind) -> str:
    return "main" if kind is StageKind.BASELINE else kind.value  # the same work under two names


def _material(spec: ExperimentSpec, stage: PlannedStage, fingerprints: Mapping[str, str], digests: Mapping[str, str]) -> dict[str, Any]:
    if stage.kind is StageKind.PREPARE:
        domains = {
            name: {**domain.model_dump(mode="json", exclude={"max_epochs"}), "fingerprint": fingerprints[name]}
            for name, domain in spec.domains.items()
        }
        return {"domains": domains, "tokenizer": spec.tokenizer.model_dump(), "sequence_length": spec.sequence_length}
    material: dict[str, Any] = {
        "data": digests["prepare"],
        "model": spec.model_for(stage.kind).model_dump(),
        "compile": spec.models.compile,
        "training": spec.training_for(stage.kind).model_dump(exclude={"save_every", "micro_batch"}),
        "sequences": spec.comparison.sequences,
    }
    if stage.kind is StageKind.EVALUATE:
        rows = [[need, digests[need]] for need in stage.needs]
        return {**material, "models": rows, "mixtures": spec.comparison.mixtures}
    material["max_epochs"] = {name: domain.max_epochs for name, domain in sorted(spec.domains.items())}
    if stage.mixture:
        material["mixture"] = stage.mixture.model_dump(exclude={"stage"})
        material["mixture"]["averaged"] = digests[stage.mixture.stage] if stage.mixture.stage else None
    if stage.kind is StageKind.REFERENCE:
        material["reference_losses"] = spec.doremi.reference_losses
    if stage.kind is StageKind.PROXY:
        doremi = spec.doremi.model_dump(include={"eta", "smoothing", "normalisation", "absent_domain"})
        material |= {"doremi": doremi, "objective": stage.objective}
        if stage.reference:
            material |= {"reference": digests[stage.reference], "reference_losses": spec.doremi.reference_losses}
    return material
