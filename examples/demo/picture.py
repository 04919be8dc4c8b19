"""The README's picture of a finished search: `python -m examples.demo.picture demo examples/demo/demo.svg`, while the service is up."""

import argparse
import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from services.cli.compare_view import compare_view
from services.cli.connection import connect
from services.cli.weights_view import weights_view

WIDTH = 100


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.demo.picture", description=__doc__)
    parser.add_argument("name", help="the experiment")
    parser.add_argument("path", type=Path, help="the SVG file to write")
    parser.add_argument("--home", type=Path, default=None, help="the service's folder (default: .solfa)")
    chosen = parser.parse_args()
    with connect(None, chosen.home) as client, Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor", highlight=False)
        console.print("$ solfa weights " + chosen.name, style="dim")
        console.print(weights_view(client.weights(chosen.name), WIDTH))
        console.print("\n$ solfa compare " + chosen.name, style="dim")
        console.print(compare_view(client.comparison(chosen.name).compared, WIDTH))
    own_fonts = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)  # nothing is loaded from another host
    chosen.path.write_text(console.export_svg(title=f"solfa {chosen.name}", code_format=own_fonts))


if __name__ == "__main__":
    main()
