"""A browser: Debian's chromium, driven by Playwright, with an eye on everything that a page must not do."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.services.running import Running, running

CHROMIUM = shutil.which("chromium")
WIDE, PHONE = {"width": 1360, "height": 900}, {"width": 390, "height": 844}
Open = Callable[..., Page]
LONGEST = 60_000  # milliseconds that anything is waited for: a limit for a machine that does other things too

expect.set_options(timeout=LONGEST)


@dataclass
class Watch:
    """What pages complained of, and whom they asked."""

    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def over(self, page: Page) -> None:
        page.on("console", lambda said: said.type in ("error", "warning", "trace") and self.complaints.append(said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.hosts.add("/".join(request.url.split("/")[:3])))


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """No longer than this package: while Playwright runs, its thread is in an event loop, and asyncio.run of other tests is refused."""
    if CHROMIUM is None:
        pytest.skip("There is no chromium here; install it with `apt-get install chromium`.")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def visit(browser: Browser, watch: Watch) -> Iterator[Open]:
    """Opens an address in a fresh context; at the end no page may have complained, of the Content-Security-Policy least of all."""
    contexts = []

    def opened(url: str, **chosen: Any) -> Page:
        context = browser.new_context(**{"viewport": WIDE, "reduced_motion": "reduce", **chosen})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(LONGEST)
        watch.over(page)
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert watch.complaints == []


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service of its own for the page's tests; nothing is in it at first."""
    with running(tmp_path_factory.mktemp("page")) as service:
        yield service


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Running]:
    """A service that nothing was submitted to. (Tests name their service before `visit`: a browser leaves before it is stopped.)"""
    with running(tmp_path / "empty") as service:
        yield service


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Running]:
    """One that moves nothing on."""
    with running(tmp_path / "idle", reconcile=False) as service:
        yield service


def check_accessible(page: Page) -> None:
    """axe-core finds nothing."""
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def address(service: Running, path: str = "/") -> str:
    return f"{str(service.http.base_url).rstrip('/')}{path}"


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return path.as_uri()
