"""The comparison: held-out loss of each mixture's model, domain by domain, and what it amounts to in words."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from api.results import Compared
from services.compared import TITLES, sentences

BEST = "bold #009e73"
NAME_WIDTH = 24
WITH_SHARE = 17  # columns of a mixture's loss and share


def compare_view(compared: Compared, width: int) -> RenderableType:
    """The table, then a sentence for each mixture, also where it lost. Shares are left out where `width` has no room for them."""
    table = Table(box=None, padding=(0, 1))
    table.add_column("domain", style="bold", no_wrap=True, overflow="ellipsis", max_width=NAME_WIDTH)
    domains = sorted(compared.rows[0].evaluation.losses)
    names = min(NAME_WIDTH, max(len(name) for name in [*domains, "average"]))
    with_shares = names + 2 + WITH_SHARE * len(compared.rows) <= width
    for row in compared.rows:
        table.add_column(TITLES.get(row.mixture, row.mixture), justify="right", no_wrap=True)
        if with_shares:
            table.add_column("share", justify="right", style="dim")
    for domain in domains:
        losses = [row.evaluation.losses[domain] for row in compared.rows]
        shares = [f"{row.sampling_weights[domain]:.3f}" for row in compared.rows]
        table.add_row(domain, *_cells(losses, shares if with_shares else None))
    table.add_section()
    none = [""] * len(compared.rows) if with_shares else None
    table.add_row("average", *_cells([row.evaluation.average for row in compared.rows], none))
    table.add_row("worst", *_cells([row.evaluation.worst for row in compared.rows], none))
    title = Text("Held-out loss by domain, nats per token", style="bold")
    legend = Text(
        "Lower is better; * marks the best of a row" + ("; share is what the model sampled." if with_shares else "."), style="dim"
    )
    return Group(title, table, legend, Text(), *[Text(sentence) for sentence in sentences(compared)])


def _cells(losses: list[float], shares: list[str] | None) -> list[Text]:
    best = min(losses)
    cells = [Text(f"{loss:.4f}*", style=BEST) if loss == best else Text(f"{loss:.4f} ") for loss in losses]
    return cells if shares is None else [cell for pair in zip(cells, map(Text, shares), strict=True) for cell in pair]
