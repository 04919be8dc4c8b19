"""The charts as plotly.js reads them: data and layout, colours as variables of the style sheet that the browser fills in."""

from typing import Any

from api.domains import DomainWeights
from api.results import EvaluationPoint
from api.views import Weights
from services.histories import History, Point
from services.page.palette import COLOURS, DASHES, SYMBOLS, Look

Figure = dict[str, Any]
ROW, ABOVE, BELOW = 25, 6, 44  # of a chart with a row a domain, in pixels: rows as high as those of the table beside it
PATTERN = {"fillmode": "overlay", "size": 7, "fgcolor": "var(--surface)", "fgopacity": 0.75, "solidity": 0.3}
MARKED = 12  # marks on a line that has them
STAGE_MARKS = ("circle", "diamond-open", "square", "x", "triangle-up-open", "star", "cross-open")


def alphas(history: History, looks: dict[str, Look], stacked: bool) -> Figure:
    """alpha_t of each domain over steps; stacked they fill the height, for they sum to 1."""
    traces = [
        _over_steps(name, history.points, [point.alpha[place] for point in history.points], looks[name])
        for place, name in enumerate(history.domains)
    ]
    if stacked:
        for trace, name in zip(traces, history.domains, strict=True):
            trace |= {"stackgroup": "one", "mode": "lines", "fillcolor": looks[name].variable}
            trace["line"] = {"width": 0.5, "color": "var(--surface)"}
            trace["fillpattern"] = {"shape": looks[name].pattern, "bgcolor": looks[name].variable, **PATTERN}
            trace.pop("marker", None)
    return _figure(traces, "domain weight", {"range": [0, 1]} if stacked else {"rangemode": "tozero"}, history)


def excess(history: History, looks: dict[str, Look]) -> Figure:
    """The excess loss that each update used, of each domain over steps."""
    traces = [
        _over_steps(name, history.points, [point.excess[place] for point in history.points], looks[name])
        for place, name in enumerate(history.domains)
    ]
    return _figure(traces, "excess loss, nats per token", {"rangemode": "tozero"}, history)


def final(weights: Weights, looks: dict[str, Look]) -> Figure:
    """A bar a domain, largest first, and a mark where its reference weight stands."""
    ordered = by_weight(weights.averaged_weights)[::-1]
    reference = weights.provenance.reference_weights
    bars = [
        {
            "type": "bar", "orientation": "h", "name": name, "y": [name], "x": [weights.averaged_weights[name]], "width": 0.66,
            "marker": {"color": looks[name].variable, "pattern": {"shape": looks[name].pattern, **PATTERN}},
            "hovertemplate": "%{y}: %{x:.4f}, averaged<extra></extra>",
        }
        for name in ordered
    ]  # fmt: skip
    marks = {
        "type": "scatter", "mode": "markers", "name": "reference", "y": ordered, "x": [reference[name] for name in ordered],
        "marker": {"symbol": "line-ns", "size": 15, "line": {"width": 2.5, "color": "var(--ink)"}},
        "hovertemplate": "%{y}: %{x:.4f}, reference<extra></extra>",
    }  # fmt: skip
    return _rows([*bars, marks], "weight, fraction of tokens", ordered, {"rangemode": "tozero"})


def validation_by_domain(validation: dict[str, list[EvaluationPoint]]) -> Figure:
    """A row a domain, a mark a stage: the newest held-out losses."""
    newest = {stage: points[-1].evaluation.losses for stage, points in validation.items()}
    names = sorted({name for losses in newest.values() for name in losses}, reverse=True)
    traces = [
        {
            "type": "scatter", "mode": "markers", "name": stage, "y": names, "x": [losses.get(name) for name in names],
            "marker": {
                "symbol": STAGE_MARKS[place % len(STAGE_MARKS)], "size": 9,
                "color": _of_stage(place), "line": {"width": 1.5, "color": _of_stage(place)},
            },
            "hovertemplate": "%{y}: %{x:.4f}, " + stage + "<extra></extra>",
        }
        for place, (stage, losses) in enumerate(newest.items())
    ]  # fmt: skip
    return _rows(traces, "held-out loss, nats per token", names, {}) | {"legend": True}


def validation_over_steps(validation: dict[str, list[EvaluationPoint]]) -> Figure:
    """The average held-out loss of each stage over its steps."""
    traces = [
        {
            "type": "scatter", "mode": "lines+markers", "name": stage, "x": [point.step for point in points],
            "y": [point.evaluation.average for point in points],
            "line": {"color": _of_stage(place), "width": 1.75, "dash": DASHES[place % len(DASHES)]},
            "marker": {"symbol": STAGE_MARKS[place % len(STAGE_MARKS)], "size": 6},
            "hovertemplate": stage + ": %{y:.4f} at step %{x:,}<extra></extra>",
        }
        for place, (stage, points) in enumerate(validation.items())
    ]  # fmt: skip
    return _figure(traces, "average held-out loss", {}) | {"legend": True}


def by_weight(weights: DomainWeights) -> list[str]:
    """Names, largest first."""
    return [name for name, _ in sorted(weights.items(), key=lambda item: (-item[1], item[0]))]


def _of_stage(place: int) -> str:
    return f"var(--c{place % COLOURS})"


def _over_steps(name: str, points: list[Point], values: list[float], look: Look) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [point.step for point in points],
        "y": [float(f"{value:.6g}") for value in values],
        "line": {"color": look.variable, "width": 1.75, "dash": look.dash},
        "hovertemplate": name + ": %{y:.4f} at step %{x:,}<extra></extra>",
    }
    if look.symbol in SYMBOLS[1:]:
        trace |= {"mode": "lines+markers", "marker": {"symbol": look.symbol, "size": 6, "maxdisplayed": MARKED}}
    return trace


def _figure(traces: list[dict[str, Any]], y_title: str, y_axis: dict[str, Any], history: History | None = None) -> Figure:
    """`stage` and `saved` tell charts.js which points it may keep: those of the same stage that no save has yet."""
    layout = {
        "height": 320,
        "xaxis": {"title": {"text": "step"}, "rangemode": "tozero", "tickformat": ",d"},
        "yaxis": {"title": {"text": y_title}, **y_axis},
    }
    return {"data": traces, "layout": layout, "stage": history.stage if history else "", "saved": history.saved if history else 0}


def _rows(traces: list[dict[str, Any]], x_title: str, rows: list[str], x_axis: dict[str, Any]) -> Figure:
    """`rows`, from below; charts.js labels them, for it knows how much room there is."""
    layout = {
        "height": ABOVE + ROW * len(rows) + BELOW,
        "margin": {"l": 48, "r": 12, "t": ABOVE, "b": BELOW},
        "barmode": "overlay",
        "xaxis": {"title": {"text": x_title}, **x_axis},
        "yaxis": {"automargin": True, "ticklabelstandoff": 6, "showgrid": False, "range": [-0.5, len(rows) - 0.5]},
    }
    return {"data": traces, "layout": layout, "stage": "", "saved": 0, "rows": rows}
