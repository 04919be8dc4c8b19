"""How each domain looks: a colour, a dash and a pattern together, so that no two of 96 look alike and none needs its colour to be known.

The colours are variables of the style sheet (Okabe and Ito's, made darker on white and lighter on black).
"""

from dataclasses import dataclass

COLOURS = 8
DASHES = ("solid", "6px,3px", "1.5px,2.5px", "9px,3px,2px,3px")
PATTERNS = ("", "/", "x", ".")
PATTERN_PATHS = {"/": "M30 5L35 0M30 10L40 0M35 10L40 5", "x": "M30 0L40 10M30 10L40 0", ".": "M32 3h2M36 3h2M32 7h2M36 7h2"}
"""Each in the square of a legend's swatch, as SVG draws it."""
SYMBOLS = ("", "circle", "diamond")


@dataclass(frozen=True)
class Look:
    """Of one domain, in every chart and table."""

    colour: int
    """Which `--c<n>` of the style sheet."""
    dash: str
    pattern: str
    symbol: str
    """Marks on its line, from the 33rd domain on; empty: none."""

    @property
    def variable(self) -> str:
        return f"var(--c{self.colour})"

    @property
    def strokes(self) -> str:
        """The dash as SVG has it; empty: solid."""
        return "" if self.dash == "solid" else self.dash.replace("px", "")


def looks(domains: list[str]) -> dict[str, Look]:
    """By name; `domains` in canonical order, so that a domain looks the same whatever its weight."""
    return {name: _look(place) for place, name in enumerate(domains)}


def _look(place: int) -> Look:
    turn = place // COLOURS
    kind = turn % len(DASHES)
    return Look(place % COLOURS, DASHES[kind], PATTERNS[kind], SYMBOLS[turn // len(DASHES) % len(SYMBOLS)])
