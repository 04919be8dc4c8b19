"""What a spec may read is decided by parts of paths, links followed: nothing is reached by an odd spelling."""

import posixpath
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api import keys
from api.reach import Reach, refusal, refused, refused_key

EXAMPLES = settings(derandomize=True, deadline=None, max_examples=300)
PART = st.sampled_from(["data", "data-of-others", "..", ".", "", "x", "proc", "*", "**", "texts", "home", "solfa.db", "a b", "\u2025"])
PATH = st.lists(PART, min_size=1, max_size=6).map(lambda parts: "/" + "/".join(parts))
REACH = Reach(roots=("/data", "/srv/texts"), closed=("/data/home", "/data/solfa.db"))
ADDRESSES = (
    "http://169.254.169.254/latest/meta-data/",
    "HTTP://169.254.169.254/",
    "http:/169.254.169.254/x.jsonl",
    "http://2852039166/",
    "http://0xA9FEA9FE/",
    "http://0251.0376.0251.0376/",
    "http://[fd00:ec2::254]/latest",
    "http://[::ffff:169.254.169.254]/",
    "http://metadata.google.internal/",
    "https://169.254.169.254.nip.io/",
    "ftp://169.254.169.254/",
    "s3://bucket/experiments/x/spec.yaml",
    "file:///etc/passwd",
    "file:/etc/passwd",
    "hf://datasets/x",
    "zip://x::http://169.254.169.254/",
    "gs://other/x",
    "data:,x",
    "//169.254.169.254/x",
)


@EXAMPLES
@given(PATH, PATH)
@example("/data/../etc/passwd", "/etc/passwd")
@example("/data-of-others/x", "/data-of-others/x")
@example("/data/link", "/etc/passwd")
@example("/data/home/../x", "/data/x")
def test_what_is_allowed_lies_below_a_root_both_as_written_and_as_it_is(written: str, real: str) -> None:
    """Against another rule: with all dots taken out, it begins with a root and a slash."""
    real = posixpath.normpath(real).replace("//", "/")
    if refusal(written, real, REACH) is None:
        for path in (posixpath.normpath("/" + written.lstrip("/")), real):
            assert f"{path}/".startswith(("/data/", "/srv/texts/"))
            assert not f"{path}/".startswith(("/data/home/", "/data/solfa.db/", "/proc/"))


@EXAMPLES
@given(st.lists(st.sampled_from(["a", "b c", "..x", "x..", "*.jsonl", "**"]), min_size=1))
def test_what_lies_below_a_root_is_allowed(parts: list[str]) -> None:
    path = "/srv/texts/" + "/".join(parts)
    assert refusal(path, path, REACH) is None
    assert refusal(path, path, Reach()) is None


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("reach", [Reach(), REACH], ids=["everything", "roots"])
def test_no_address_is_a_file(address: str, reach: Reach) -> None:
    """However it is spelled, nothing is asked of the network: an address is refused, or is a path that is looked up as one."""
    if address.startswith("//"):
        assert reach.roots is None or refusal(address, address, reach)
    else:
        assert "URL" in (refusal(address, address, reach) or "")


@pytest.mark.parametrize(
    "path", ["/proc/self/environ", "/proc/1/root/etc/passwd", "/sys/kernel/x", "/solfa/bucket/experiments/x/spec.yaml"]
)
def test_the_system_and_the_service_are_closed_even_where_everything_is_open(path: str) -> None:
    everything = Reach(closed=("/solfa/bucket",))
    assert refusal(path, path, everything)
    assert refusal("/tmp/link", path, everything)
    assert refusal(path, path, Reach(roots=("/",), closed=("/solfa/bucket",)))
    assert refusal("/solfa/bucket-of-texts/x", "/solfa/bucket-of-texts/x", everything) is None


def test_links_are_followed_and_not_told(tmp_path: Path) -> None:
    texts, secret = tmp_path / "texts", tmp_path / "secret"
    texts.mkdir()
    secret.mkdir()
    (secret / "x.jsonl").write_text("{}")
    (texts / "link.jsonl").symlink_to(secret / "x.jsonl")
    (texts / "folder").symlink_to(secret)
    (texts / "own.jsonl").symlink_to(texts / "folder" / ".." / "texts" / "x.jsonl")
    (texts / "x.jsonl").write_text("{}")
    (tmp_path / "also").symlink_to(texts)
    reach = Reach(roots=(str(tmp_path / "also"),)).followed()
    for name in ("link.jsonl", "folder/x.jsonl"):
        told = refused(tmp_path / "also" / name, reach) or ""
        assert "leads out" in told
        assert "secret" not in told
    assert refused(tmp_path / "also" / "x.jsonl", reach) is None
    assert refused(tmp_path / "also" / "own.jsonl", reach) is None


def test_objects_of_experiments_are_no_tokenizers() -> None:
    for key in (
        keys.result("xaaaaaaaaaa", "prepare"),
        "experiments/x",
        "probes/x",
        "/experiments/x",
        "a/../experiments/x",
        "a//b",
        "./x",
        "",
    ):
        assert refused_key(key), key
    for key in ("tokenizers/mine.json", "mine.json", "experiments-of-mine/x"):
        assert refused_key(key) is None, key
