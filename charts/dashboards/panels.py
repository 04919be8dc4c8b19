"""What a dashboard is made of: rows of panels, each with its queries, unit, meaning, and what it says when there is nothing to show."""

from typing import Literal, NamedTuple

Kind = Literal["lines", "stack", "number", "bars", "states", "steps", "shares", "table"]
"""`steps` and `shares`: lines and a stack over the steps of training instead of time."""
AT = 'job=~"$job",instance=~"$instance",namespace=~"$namespace"'
OF = f'{AT},experiment=~"$experiment",project=~"$project"'
IDLE = "Nothing runs."
NOT_YET = "No proxy trains: not yet, or no longer; the service keeps what it found."
NATS, TOKENS = "suffix: nats", "si:tok/s"
STEP = "Step"
COLORS = {
    "blocked": "#8a8f98",
    "pending": "#8a8f98",
    "launching": "purple",
    "queued": "yellow",
    "running": "blue",
    "backoff": "orange",
    "cancelling": "#b0b4bb",
    "cancelled": "#5c6068",
    "succeeded": "green",
    "failed": "red",
}
"""Of phases, the same in all panels."""


class Column(NamedTuple):
    """Of a table; `bar`: its numbers are drawn as bars, too."""

    name: str
    unit: str
    bar: bool = False


class Panel(NamedTuple):
    title: str
    kind: Kind
    unit: str
    """Grafana's name of it."""
    description: str
    queries: tuple[tuple[str, str], ...]
    """(PromQL, legend). Over steps, the last is of the steps; of a table, the legend is the name of the column."""
    empty: str = IDLE
    width: int = 12
    height: int = 8
    least: float | None = 0
    """Where the axis begins; None: where the values do."""
    most: float | None = None
    decimals: int | None = None
    levels: tuple[tuple[float | None, str], ...] = ((None, "blue"),)
    """From which value on a number or a bar has which colour."""
    columns: tuple[Column, ...] = ()
    """Of a table, in order; the first is the label by which its rows are joined."""


class Board(NamedTuple):
    name: str
    title: str
    description: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    of_experiment: bool = False


def highest(metric: str, by: str, more: str = "") -> str:
    """Replicas say the same of records, and only the leader speaks of experiments; so what counts is the highest."""
    return f"max by ({by}) ({metric}{{{AT}{more}}})"


def of_all(metric: str, by: str, more: str = "") -> str:
    """Summed over installations; within one, what counts is the highest."""
    return f"sum by ({by}) ({highest(metric, f'namespace, job, {by}', more)})"


def rate(metric: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{AT}{more}}}[$__rate_interval]))"


def total(metric: str, by: str) -> str:
    """Of a counter of what seldom happens: how often it did within the dashboard's range."""
    return f"sum by ({by}) (increase({metric}{{{AT}}}[$__range])) > 0"


def quantile(q: float, metric: str, by: str = "") -> str:
    """Of a histogram, over the dashboard's range: what happens a few times a day has no rate to speak of."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (increase({metric}_bucket{{{AT}}}[$__range])))"


def quick(q: float, metric: str, by: str) -> str:
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', f'le, {by}')})"


def of_experiment(metric: str, by: str, more: str = "") -> str:
    return f"max by ({by}) ({metric}{{{OF}{more}}})"
