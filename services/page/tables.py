"""The rows behind each chart: numbers that can be read, copied and heard."""

from dataclasses import dataclass

from api.results import Compared, EvaluationPoint
from api.views import Weights
from services.compared import TITLES
from services.histories import History, thinned
from services.page.figures import by_weight

STEPS = 11  # rows of a table over steps
CHANGED = 1.05  # a ratio below which a weight counts as unchanged


@dataclass(frozen=True)
class WeightRow:
    domain: str
    weight: float
    reference: float

    @property
    def ratio(self) -> str:
        if not self.reference:
            return "new"
        ratio = self.weight / self.reference
        return f"×{ratio:.2f}" if ratio < 10 else f"×{ratio:.0f}"

    @property
    def direction(self) -> str:
        """`up`, `down` or `same`."""
        if self.weight > self.reference * CHANGED:
            return "up"
        return "down" if self.weight < self.reference / CHANGED else "same"


def weight_rows(weights: Weights) -> list[WeightRow]:
    """Largest first."""
    reference = weights.provenance.reference_weights
    return [WeightRow(name, weights.averaged_weights[name], reference[name]) for name in by_weight(weights.averaged_weights)]


@dataclass(frozen=True)
class OverSteps:
    """A row a domain, a column a step: few enough of them to be read."""

    steps: list[int]
    rows: list[tuple[str, list[float]]]


def over_steps(history: History, what: str) -> OverSteps:
    """`what`: `alpha` or `excess`."""
    points = thinned(history.points, STEPS)
    rows = [(name, [getattr(point, what)[place] for point in points]) for place, name in enumerate(history.domains)]
    return OverSteps([point.step for point in points], rows)


@dataclass(frozen=True)
class Cell:
    loss: float
    verdict: str
    """Against the baseline: `better`, `worse`, `same`; empty for the baseline itself, or where there is none."""
    best: bool


@dataclass(frozen=True)
class Comparison:
    titles: list[str]
    rows: list[tuple[str, list[Cell]]]
    """By domain, then `average` and `worst`."""


def comparison(compared: Compared) -> Comparison:
    """The table of all mixtures."""
    domains = sorted(compared.rows[0].evaluation.losses)
    baseline = next((row for row in compared.rows if row.mixture == compared.baseline), None)
    table = [(name, [row.evaluation.losses[name] for row in compared.rows]) for name in domains]
    table.append(("average", [row.evaluation.average for row in compared.rows]))
    table.append(("worst", [row.evaluation.worst for row in compared.rows]))
    rows = [(title, _cells(losses, compared.rows.index(baseline) if baseline else None)) for title, losses in table]
    return Comparison([TITLES.get(row.mixture, row.mixture) for row in compared.rows], rows)


def _cells(losses: list[float], baseline: int | None) -> list[Cell]:
    """`baseline`: the place of the row that the others are compared with."""
    against = None if baseline is None else losses[baseline]
    return [Cell(loss, "" if place == baseline else _verdict(loss, against), loss == min(losses)) for place, loss in enumerate(losses)]


def _verdict(loss: float, against: float | None) -> str:
    if against is None:
        return ""
    return "better" if loss < against else "worse" if loss > against else "same"


@dataclass(frozen=True)
class Validation:
    stages: list[str]
    rows: list[tuple[str, list[float | None]]]


def validation_rows(validation: dict[str, list[EvaluationPoint]]) -> Validation:
    """The newest held-out loss of each stage: a row a domain, then the average."""
    newest = {stage: points[-1].evaluation for stage, points in validation.items()}
    domains = sorted({name for one in newest.values() for name in one.losses})
    rows: list[tuple[str, list[float | None]]] = [(name, [one.losses.get(name) for one in newest.values()]) for name in domains]
    return Validation(list(newest), [*rows, ("average", [one.average for one in newest.values()])])
