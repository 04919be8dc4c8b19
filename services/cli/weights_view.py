"""Domain weights as bars, against the reference."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from api.domains import DomainWeights
from api.views import CurrentWeights, Weights

BAR_WIDTH = 28
UP, DOWN, SAME = "bold #e69f00", "bold #56b4e9", "dim"  # Okabe and Ito's orange and sky blue: told apart by everybody


def weights_view(weights: Weights) -> RenderableType:
    """The answer: averaged weights, largest first, each beside the reference's."""
    source = weights.provenance
    title = f"Domain weights of {source.experiment}, fractions of tokens"
    note = (
        f"mean of alpha over {source.steps:,} steps of {source.stage}; eta {source.eta:g}, smoothing {source.smoothing:g}, "
        f"objective {source.objective}; largest change against the reference {weights.delta:.3f}"
    )
    return Group(bars(title, weights.averaged_weights, source.reference_weights), Text(note, style="dim"))


def current_view(current: CurrentWeights, reference: DomainWeights | None = None) -> RenderableType:
    """alpha_t while the proxy runs."""
    title = f"alpha at step {current.step:,} of {current.total:,} ({current.stage})"
    return bars(title, current.domain_weights, reference or DomainWeights.uniform(current.domain_weights.names), "uniform")


def bars(title: str, weights: DomainWeights, reference: DomainWeights, against: str = "reference") -> Table:
    """One row a domain: a bar of the weight, and a mark where the reference stands."""
    longest = max(*[value for _, value in weights.items()], *[value for _, value in reference.items()])
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1), title_style="bold")
    table.add_column("domain", style="bold", overflow="ellipsis", max_width=24)
    table.add_column(f"(│ {against})", width=BAR_WIDTH)
    table.add_column("weight", justify="right")
    table.add_column(against, justify="right", style="dim")
    table.add_column("ratio", justify="right")
    for name, weight in sorted(weights.items(), key=lambda item: -item[1]):
        other = reference[name]
        ratio = weight / other if other else float("inf")
        style = UP if ratio > 1.05 else DOWN if ratio < 1 / 1.05 else SAME
        table.add_row(
            name, _bar(weight / longest, other / longest, style), f"{weight:.4f}", f"{other:.4f}", Text(f"{_times(ratio)}", style=style)
        )
    return table


def _bar(share: float, mark: float, style: str) -> Text:
    filled = round(share * BAR_WIDTH * 8)
    cells = "█" * (filled // 8) + (" ▏▎▍▌▋▊▉"[filled % 8] if filled % 8 else "")
    text = Text(cells.ljust(BAR_WIDTH)[:BAR_WIDTH], style=style)
    at = min(BAR_WIDTH - 1, round(mark * BAR_WIDTH))
    return text[:at] + Text("│", style="bold") + text[at + 1 :]


def _times(ratio: float) -> str:
    if ratio == float("inf"):
        return "new"
    return f"×{ratio:.2f}" if ratio < 10 else f"×{ratio:.0f}"
