"""What a dashboard is made of: rows of panels, each with its queries, unit, meaning, and what it says when there is nothing to show."""

from typing import Literal, NamedTuple

Kind = Literal["lines", "stack", "number", "bars", "states"]
AT = 'job=~"$job",instance=~"$instance",namespace=~"$namespace"'
OF = f'{AT},experiment=~"$experiment",project=~"$project"'
IDLE = "Nothing runs."
NOT_YET = "Not yet: it comes with the first steps of a proxy."


class Panel(NamedTuple):
    title: str
    kind: Kind
    unit: str
    """Grafana's name of it."""
    description: str
    queries: tuple[tuple[str, str], ...]
    """(PromQL, legend)."""
    empty: str = IDLE
    width: int = 12


class Board(NamedTuple):
    name: str
    title: str
    description: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    of_experiment: bool = False


def highest(metric: str, by: str, more: str = "") -> str:
    """Replicas say the same of records, and only the leader speaks of experiments; so what counts is the highest."""
    return f"max by ({by}) ({metric}{{{AT}{more}}})"


def rate(metric: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{AT}{more}}}[$__rate_interval]))"


def quantile(q: float, metric: str, by: str = "") -> str:
    """Of a histogram, over the dashboard's range: what happens a few times a day has no rate to speak of."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (increase({metric}_bucket{{{AT}}}[$__range])))"


def quick(q: float, metric: str, by: str) -> str:
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', f'le, {by}')})"


def of_experiment(metric: str, by: str, more: str = "") -> str:
    return f"max by ({by}) ({metric}{{{OF}{more}}})"
