"""Three made-up hours of two replicas of the service and of one search over 22 domains, as a Prometheus would have scraped them."""

import itertools
import math
import random
from collections.abc import Iterator

from api.metrics import OF_SERVICE
from tests.services.page.seeded import PILE as DOMAINS

EVERY, SPAN = 30, 3 * 3600
STEPS = 20_000
LABELS = {
    "phase": ("running", "pending", "queued", "succeeded", "failed"),
    "reason": ("node_lost", "preempted", "program_failed"),
    "kind": ("prepare", "train", "evaluate"),
    "code": ("unavailable",),
    "operation": ("get", "put", "list", "delete"),
    "outcome": ("led", "followed"),
    "status": ("200", "404"),
    "method": ("GET",),
    "route": ("/v1/experiments", "/v1/experiments/{name}/weights", "/metrics"),
    "version": ("0.1.0",),
}
PLAN = {"prepare": (0, 5), "reference": (7, 80), "proxy": (82, 200)}
"""Minutes from which and until which a stage runs."""
Sample = tuple[str, dict[str, str], float]
"""Name with suffix, labels, value."""


class Made:
    """What is drawn at random, from one seed."""

    def __init__(self) -> None:
        self._random = random.Random(7)
        self._last: dict[object, float] = {}
        weights = [self._random.lognormvariate(0, 1) for _ in DOMAINS]
        self.reference = [weight / sum(weights) for weight in weights]
        self.weights, self.averaged, self._step = list(self.reference), list(self.reference), 0

    def about(self, key: object, mean: float, spread: float) -> float:
        """A value that wanders around `mean`."""
        last = self._last.get(key, mean)
        self._last[key] = last + self._random.gauss(0, spread) + 0.05 * (mean - last)
        return max(0.0, self._last[key])

    def count(self, key: object, chance: float) -> float:
        self._last[key] = self._last.get(key, 0) + (self._random.random() < chance)
        return self._last[key]

    def histogram(self, name: str, labels: dict[str, str], scale: float) -> Iterator[Sample]:
        counts = [self.count((name, *labels.values(), place), 0.5) for place in range(12)]
        totals = list(itertools.accumulate(counts))
        for place, total in enumerate(totals):
            yield f"{name}_bucket", {**labels, "le": str(scale * 2.0 ** (place - 6))}, total
        yield f"{name}_bucket", {**labels, "le": "+Inf"}, totals[-1]
        yield f"{name}_count", labels, totals[-1]
        yield f"{name}_sum", labels, totals[-1] * scale

    def move(self, step: int) -> None:
        """The weights, up to a step of the proxy."""
        pushed = [weight * math.exp(self._random.gauss(0, 0.03)) for weight in self.weights]
        self.weights = [0.999 * weight / sum(pushed) + 0.001 / len(DOMAINS) for weight in pushed]
        share = max(0, step - self._step) / max(1, step)
        self._step = max(self._step, step)
        self.averaged = [old + (new - old) * share for old, new in zip(self.averaged, self.weights, strict=True)]


def samples() -> Iterator[tuple[float, Sample]]:
    """(seconds since the beginning, sample), in the order of time."""
    made = Made()
    for at in range(0, SPAN + 1, EVERY):
        for replica in ("solfa-0", "solfa-1"):
            leads = replica == ("solfa-0" if at < SPAN * 2 / 3 else "solfa-1")
            place = {"job": "solfa", "namespace": "solfa", "instance": replica}
            told = itertools.chain(_service(made, place, at, leads), _search(made, place, at / 60) if leads else ())
            yield from ((at, sample) for sample in told)


def _service(made: Made, place: dict[str, str], at: int, leads: bool) -> Iterator[Sample]:
    fixed = {"solfa_leader": float(leads), "solfa_store_up": 1.0, "solfa_build_info": 1.0}
    for name, metric in OF_SERVICE.items():
        if name.startswith("solfa_experiment_"):
            continue
        for values in itertools.product(*(LABELS[label] for label in metric.labels)):
            labels = {**place, **dict(zip(metric.labels, values, strict=True))}
            if metric.kind == "histogram":
                yield from made.histogram(
                    name, labels, 7200.0 if "weights" in name else 60.0 if "stage" in name or "launch" in name else 0.05
                )
            elif metric.kind == "counter":
                yield name, labels, made.count((name, *labels.values()), 0.5 if name.startswith("solfa_reconcile_") else 0.01)
            elif name in fixed:
                yield name, labels, fixed[name]
            elif name in ("solfa_experiments", "solfa_stages", "solfa_attempts"):
                yield name, labels, 3 + 5 * len(values[0]) % 17 + at // 2400
            elif leads:
                yield name, labels, made.about((name, *values), 1.0 if "lag" in name else 100.0, 0.3 if "lag" in name else 8.0)


def _search(made: Made, place: dict[str, str], minute: float) -> Iterator[Sample]:
    search = {**place, "project": "default", "experiment": "pile-280m"}
    for stage, (begin, end) in PLAN.items():
        lost = stage == "proxy" and 128 <= minute < 131
        if minute < end:
            phase = "blocked" if minute < begin - 2 else "launching" if minute < begin else "queued" if lost else "running"
            yield "solfa_experiment_stage_phase_seconds", {**search, "stage": stage, "phase": phase}, 60 * minute
            attempts = float(minute >= begin) + float(stage == "proxy" and minute >= 131)
            yield "solfa_experiment_attempts", {**search, "stage": stage}, attempts
        if stage != "prepare" and begin <= minute < end and not lost:
            ran = minute - begin - (5 if minute >= 131 else 0)  # the machine's way back, and what is done again
            yield from _stage(made, {**search, "stage": stage}, int(ran / (end - begin) * STEPS))


def _stage(made: Made, labels: dict[str, str], step: int) -> Iterator[Sample]:
    stage, fallen = labels["stage"], 6 * math.exp(-step / 900)
    numbers = {
        "step": step,
        "target_step": STEPS,
        "loss": made.about((stage, "loss"), 3.1, 0.01) + fallen,
        "tokens_per_second": made.about((stage, "speed"), 410e3, 4e3),
        "gradient_norm": made.about((stage, "norm"), 0.6, 0.05),
        "report_age_seconds": made.about((stage, "age"), 6, 3),
        "data_wait_ratio": made.about((stage, "wait"), 0.02, 0.004),
        "mfu_ratio": made.about((stage, "mfu"), 0.41, 0.005),
        "processes": 16,
    }
    yield from ((f"solfa_experiment_{name}", labels, value) for name, value in numbers.items())
    if stage == "proxy":
        made.move(step)
    for place, domain in enumerate(DOMAINS):
        level = 2 + place * 37 % 22 / 9
        of_domain = {
            "domain_loss": made.about((stage, domain), level, 0.02) + fallen,
            "validation_loss": level + 6 * math.exp(-(step // 1000 * 1000) / 900),
            "epochs": step / STEPS * (0.2 + place * 13 % 22 / 10),
        }
        if stage == "proxy":
            weights = {"domain": made.weights, "averaged": made.averaged, "reference": made.reference}
            of_domain |= {f"{name}_weight_ratio": values[place] for name, values in weights.items()}
            of_domain["excess_loss"] = made.about((stage, domain, "excess"), 0.15 + place % 5 * 0.05, 0.02)
        yield from ((f"solfa_experiment_{name}", {**labels, "domain": domain}, value) for name, value in of_domain.items())


def openmetrics(end: int) -> str:
    """All of it as text, its last scrape at `end`: a family after the other, of each series all samples in the order of time."""
    families: dict[str, dict[str, list[str]]] = {name: {} for name in OF_SERVICE}
    for at, (name, labels, value) in samples():
        family = name if name in OF_SERVICE else name.rsplit("_", 1)[0]
        told = ",".join(f'{label}="{text}"' for label, text in labels.items())
        series = f"{name}{{{told}}}"
        families[family].setdefault(series, []).append(f"{series} {value} {end - SPAN + at}")
    lines = []
    for name, all_series in families.items():
        lines.append(f"# TYPE {name.removesuffix('_total') if OF_SERVICE[name].kind == 'counter' else name} {OF_SERVICE[name].kind}")
        lines.extend(itertools.chain.from_iterable(all_series.values()))
    return "\n".join((*lines, "# EOF", ""))
