"""`python -m tests.charts.preview [FOLDER]` draws each dashboard into FOLDER (.cache/preview), from a real Prometheus with made-up series.

It needs Node.js with npm, Debian's chromium and prometheus. What it draws with is Grafana's component library; Grafana itself is not there.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Page, sync_playwright

from tests.charts.preview.series import EVERY, SPAN, openmetrics
from tests.e2e.prometheus import PROMTOOL, ROOT, Prometheus, asked, prometheus

HERE = Path(__file__).parent
BUILD = ROOT / ".cache" / "preview"
BOARDS = ROOT / "charts" / "solfa" / "files" / "dashboards"
CHOSEN = {"experiment": "pile-280m", "proxy": "proxy", "__interval": f"{EVERY}s", "__rate_interval": f"{4 * EVERY}s", "__range": f"{SPAN}s"}
ORIGIN = "http://preview.invalid/"
"""Nothing is asked there: a page without an origin may keep nothing, as Grafana's components wish to."""
PICTURED, ROW = "Weights of", 38
"""The row that the README shows; pixels of a row of Grafana's grid."""
LOADED = ("svg", "woff2", "ttf")


def built() -> Path:
    """The folder with app.js and app.css."""
    for name in ("package.json", "package-lock.json", ".npmrc", "app.tsx"):
        shutil.copy(HERE / name, BUILD / name)
    subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=BUILD, check=True)
    loaders = [f"--loader:.{kind}=dataurl" for kind in LOADED]
    bundle = ["--bundle", "--format=iife", "--jsx=automatic", "--log-level=warning", '--define:process.env.NODE_ENV="production"']
    subprocess.run(["node_modules/.bin/esbuild", "app.tsx", "--outfile=app.js", *bundle, *loaders], cwd=BUILD, check=True)
    return BUILD


def answers(server: Prometheus, board: dict[str, Any], end: int) -> dict[str, list[Any]]:
    """By a panel's number, what each of its queries gave."""
    found: dict[str, list[Any]] = {}
    for panel in (panel for panel in board["panels"] if panel["type"] != "row"):
        found[str(panel["id"])] = []
        for target in panel["targets"]:
            expr = asked(target["expr"], **CHOSEN)
            when = {"time": end} if target.get("instant") else {"start": end - SPAN, "end": end, "step": EVERY}
            told = server.get("/query" if target.get("instant") else "/query_range", query=expr, **when)
            found[str(panel["id"])].append(told["result"])
    return found


def picture(page: Page, board: dict[str, Any], data: tuple[dict[str, list[Any]], int], to: Path) -> None:
    """The whole dashboard, with the name of what was chosen in its titles."""
    found, now = data
    page.route(ORIGIN, lambda route: route.fulfill(body="<!doctype html><body style='margin:0'>", content_type="text/html"))
    page.goto(ORIGIN)
    page.add_style_tag(path=BUILD / "app.css")
    page.add_script_tag(path=BUILD / "app.js")
    chosen = json.loads(json.dumps(board).replace("$proxy", CHOSEN["proxy"]))
    page.evaluate("([board, found, start, end]) => draw(board, found, start, end, 'dark')", [chosen, found, now - SPAN, now])
    page.wait_for_selector("canvas, section")
    page.wait_for_load_state("networkidle")
    page.screenshot(path=to, full_page=True)
    if any(panel["title"].startswith(PICTURED) for panel in board["panels"]):
        below = [panel["gridPos"]["y"] for panel in board["panels"] if panel["type"] == "row"]
        begin = next(panel["gridPos"]["y"] for panel in board["panels"] if panel["title"].startswith(PICTURED))
        end = min(y for y in below if y > begin)
        clip: Any = {"x": 0, "y": begin * ROW, "width": 1600, "height": (end - begin) * ROW}
        page.screenshot(path=ROOT / "docs" / "images" / "dashboard.png", full_page=True, clip=clip)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    built()
    end = int(time.time()) // EVERY * EVERY
    with TemporaryDirectory() as scratch, sync_playwright() as playwright:
        text = Path(scratch) / "series.txt"
        text.write_text(openmetrics(end))
        subprocess.run([str(PROMTOOL), "tsdb", "create-blocks-from", "openmetrics", str(text), f"{scratch}/data"], check=True)
        with prometheus(Path(scratch), []) as server:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for path in sorted(BOARDS.glob("*.json")):
                board = json.loads(path.read_text())
                page = browser.new_page(viewport={"width": 1600, "height": 1000})
                page.on("pageerror", lambda error: print(f"an error in the page: {error}", file=sys.stderr))
                picture(page, board, (answers(server, board, end), end), folder / f"{path.stem}.png")
                print(folder / f"{path.stem}.png")
            browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else BUILD)
