"""The history of the weights, as few points as a chart has room for: segments never change, so each is read once."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

from api.bucket import Bucket
from api.domains import DomainWeights
from api.errors import NotReady
from api.experiment import Experiment, Stage
from api.stage_config import StageReport
from api.weights import WeightCheckpoint, read_segment
from services import weights as reading

T = TypeVar("T")
POINTS = 240  # that a chart shows of a stage
KEPT = 512  # segments whose points are remembered


@dataclass(frozen=True)
class Point:
    """One step; vectors in the order of `History.domains`."""

    step: int
    alpha: list[float]
    average: list[float]
    excess: list[float]


@dataclass(frozen=True)
class History:
    """Of one proxy stage, thinned: the first and the last step are always there."""

    stage: str
    domains: list[str]
    points: list[Point]
    saved: int
    """Last step that the bucket has; a point behind it is the newest report's."""


class Histories:
    """Reads histories, and remembers what it has read."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._read: OrderedDict[str, tuple[list[str], list[Point]]] = OrderedDict()

    def read(self, experiment: Experiment, stage: Stage, report: StageReport | None, bucket: Bucket) -> History:
        """Raises NotReady where no step is known yet, BucketError."""
        try:
            found = [self._segment(key, bucket) for key in reading.segments(experiment, stage, bucket)]
        except NotReady:
            if report is None or report.domain_weights is None:
                raise
            found = []
        points = [point for _, some in found for point in some]
        saved = points[-1].step if points else 0
        alpha = report.domain_weights if report else None
        domains = found[0][0] if found else list(alpha.names) if alpha else []
        if report and alpha and report.step > saved:
            points.append(_of_report(report, alpha, domains))
        return History(stage.name, domains, thinned(points, POINTS), saved)

    def _segment(self, key: str, bucket: Bucket) -> tuple[list[str], list[Point]]:
        with self._lock:
            if key in self._read:
                self._read.move_to_end(key)
                return self._read[key]
        header, records = read_segment(bucket.get(key).data)
        found = header.domains, [_point(record) for record in thinned(records, POINTS)]
        with self._lock:
            self._read[key] = found
            while len(self._read) > KEPT:
                self._read.popitem(last=False)
        return found


def thinned(items: list[T], most: int) -> list[T]:
    """At most `most` of them, evenly apart, with the first and the last."""
    if len(items) <= most:
        return items
    return [items[round(number * (len(items) - 1) / (most - 1))] for number in range(most)]


def _point(record: WeightCheckpoint) -> Point:
    return Point(record.step, record.domain_weights, [one / record.count for one in record.weight_sum], record.excess_losses)


def _of_report(report: StageReport, alpha: DomainWeights, domains: list[str]) -> Point:
    average = report.averaged_weights or alpha
    return Point(
        report.step,
        [alpha[name] for name in domains],
        [average[name] for name in domains],
        [report.excess_losses.get(name, 0.0) for name in domains],
    )
