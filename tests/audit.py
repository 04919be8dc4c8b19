"""`make audit`: asks the package index of each locked pin whether it was withdrawn or is known to be vulnerable. No part of `make test`.

The index is the one that pip is configured for. One that tells vulnerabilities of each release is believed; of one that tells them of the
newest release alone, the others are listed as not told. (pip-audit does the same where the index is the public one, or its own databases
can be reached; where neither is so, it passes over every package and says that it found nothing.)
"""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.version import InvalidVersion, Version
from pip._internal.models.index import PyPI

LOCK = Path(__file__).parents[1] / "requirements.lock"
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


@dataclass
class Answer:
    """What the index says of one pin."""

    name: str
    version: str
    withdrawn: str | None = None
    vulnerabilities: list[str] = field(default_factory=list)
    told: bool = False
    """Whether it tells vulnerabilities of this version."""
    missing: bool = False

    @property
    def is_bad(self) -> bool:
        return self.withdrawn is not None or bool(self.vulnerabilities) or self.missing


def index() -> str:
    """Where the JSON API is: beside the simple index that pip uses, without what may be in its address of a login."""
    asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    configured = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    parts = urlsplit(configured or PyPI.url)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/simple')}/pypi"


def fetch(url: str) -> dict[str, Any] | None:
    """None for what is not there."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def ask(base: str, name: str, version: str) -> Answer:
    answer = Answer(name, version)
    found = fetch(f"{base}/{name}/{version}/json")
    if found is not None:
        answer.told, files = True, found["urls"]
    else:
        found = fetch(f"{base}/{name}/json") or {"info": {}, "releases": {}}
        answer.told = _same(found["info"].get("version"), version)
        files = next((files for release, files in found["releases"].items() if _same(release, version)), [])
    answer.missing = not files
    if files and all(file.get("yanked") for file in files):
        answer.withdrawn = files[0].get("yanked_reason") or "without a reason"
    if answer.told:
        known = (one for one in found.get("vulnerabilities", ()) if not one.get("withdrawn"))
        answer.vulnerabilities = [f"{one['id']} (mended in {', '.join(one.get('fixed_in', ())) or 'no release'})" for one in known]
    return answer


def _same(one: str | None, other: str) -> bool:
    """13.0.3 is 13.0.3.0."""
    try:
        return one is not None and Version(one) == Version(other)
    except InvalidVersion:
        return False


def main() -> int:
    base, pins = index(), PIN.findall(LOCK.read_text())
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda pin: ask(base, *pin), pins))
    for answer in answers:
        pin = f"{answer.name}=={answer.version}"
        for words in answer.vulnerabilities:
            print(f"{pin}: vulnerable, {words}")
        if answer.withdrawn is not None:
            print(f"{pin}: withdrawn, {answer.withdrawn}")
        if answer.missing:
            print(f"{pin}: the index has no such release")
    untold = [f"{answer.name}=={answer.version}" for answer in answers if not answer.told and not answer.missing]
    if untold:
        print(f"not told of vulnerabilities, since a newer release is out: {', '.join(untold)}")
    bad = sum(answer.is_bad for answer in answers)
    print(f"{len(answers)} pins: {bad} to see to, {len(answers) - bad - len(untold)} clean, {len(untold)} not withdrawn and else not told")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
