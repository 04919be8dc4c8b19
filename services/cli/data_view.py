"""The prepared domains as tables: what there is, and how often each stage passes over it."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from api.views import DataView

NAME_WIDTH = 20


def data_view(data: DataView) -> RenderableType:
    """Counts by domain, largest first; then a line a stage with the most and the least that it passes over a domain."""
    counts = _table("domain", "documents", "tokens", "share", "held out", "B/token")
    for name, domain in sorted(data.domains.items(), key=lambda item: -item[1].tokens):
        size = f"{domain.bytes_per_token:.2f}" if domain.bytes_per_token else ""
        counts.add_row(name, f"{domain.documents:,}", f"{domain.tokens:,}", f"{domain.share:.4f}", f"{domain.validation_tokens:,}", size)
    passes = _table("stage", "", "most", "", "least", "")
    for stage, epochs in {**data.planned_epochs, **data.epochs}.items():
        most, least = max(epochs, key=epochs.__getitem__), min(epochs, key=epochs.__getitem__)
        when = "realised" if stage in data.epochs else "planned"
        passes.add_row(stage, when, f"{epochs[most]:.2f}", most, f"{epochs[least]:.2f}", least)
    title = f"Data of {data.experiment}: sequences of {data.sequence_length:,} tokens, {data.vocab_size:,} ids"
    return Group(Text(title, style="bold"), counts, Text(), Text("Passes over a domain", style="bold"), passes)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 1))
    table.add_column(first, style="bold", no_wrap=True, overflow="ellipsis", max_width=NAME_WIDTH)
    for title in others:
        table.add_column(title, justify="right" if title else "left", no_wrap=True, overflow="ellipsis", max_width=NAME_WIDTH)
    return table
