"""Domain weights as bars, against the reference."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from api.domains import DomainWeights
from api.views import CurrentWeights, Weights

SHORTEST_BAR, LONGEST_BAR = 12, 40
NAME_WIDTH = 24
FIGURES_WIDTH = 32  # the columns beside the bar and the name
UP, DOWN, SAME = "bold #e69f00", "bold #56b4e9", "dim"  # Okabe and Ito's orange and sky blue: told apart by everybody


def weights_view(weights: Weights, width: int) -> RenderableType:
    """The answer: averaged weights, largest first, each beside the reference's; `width` is the terminal's."""
    source = weights.provenance
    note = (
        f"mean of alpha over {source.steps:,} steps of {source.stage}; eta {source.eta:g}, smoothing {source.smoothing:g}, "
        f"objective {source.objective}; largest change against the reference {weights.delta:.3f}"
    )
    return Group(
        Text(f"Domain weights of {source.experiment}, fractions of tokens", style="bold"),
        bars(weights.averaged_weights, source.reference_weights, "reference", width),
        Text(note, style="dim"),
    )


def current_view(current: CurrentWeights, width: int) -> RenderableType:
    """alpha_t while the proxy runs, against where it began."""
    title = f"alpha at step {current.step:,} of {current.total:,} ({current.stage})"
    start = DomainWeights.uniform(current.domain_weights.names)
    return Group(Text(title, style="bold"), bars(current.domain_weights, start, "uniform", width))


def bars(weights: DomainWeights, reference: DomainWeights, against: str, width: int) -> Table:
    """One row a domain: a bar of the weight, and a mark where the reference stands."""
    longest = max(*[value for _, value in weights.items()], *[value for _, value in reference.items()])
    names = min(NAME_WIDTH, max(len(name) for name in [*weights.names, "domain"]))
    bar_width = max(SHORTEST_BAR, min(LONGEST_BAR, width - names - FIGURES_WIDTH))
    table = Table(box=None, padding=(0, 1))
    table.add_column("domain", style="bold", no_wrap=True, overflow="ellipsis", max_width=NAME_WIDTH)
    table.add_column(f"│ {against}"[:bar_width], width=bar_width)
    table.add_column("weight", justify="right")
    table.add_column(against, justify="right", style="dim")
    table.add_column("ratio", justify="right")
    for name, weight in sorted(weights.items(), key=lambda item: -item[1]):
        other = reference[name]
        ratio = weight / other if other else float("inf")
        style = UP if ratio > 1.05 else DOWN if ratio < 1 / 1.05 else SAME
        bar = _bar(weight / longest, other / longest, style, bar_width)
        table.add_row(name, bar, f"{weight:.4f}", f"{other:.4f}", Text(_times(ratio), style=style))
    return table


def _bar(share: float, mark: float, style: str, width: int) -> Text:
    filled = round(share * width * 8)
    cells = "█" * (filled // 8) + (" ▏▎▍▌▋▊▉"[filled % 8] if filled % 8 else "")
    text = Text(cells.ljust(width)[:width], style=style)
    at = min(width - 1, round(mark * width))
    return text[:at] + Text("│", style="bold") + text[at + 1 :]


def _times(ratio: float) -> str:
    if ratio == float("inf"):
        return "new"
    return f"×{ratio:.2f}" if ratio < 10 else f"×{ratio:.0f}"
