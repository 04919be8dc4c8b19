"""What specs may read, as a service answers it: told at submission, and handed to every attempt."""

import json
from pathlib import Path
from typing import Any

import pytest

from api import keys
from services.server import place
from services.settings import Settings
from tests.services.running import Running, problem, running


def jsonl(*paths: str) -> dict[str, Any]:
    return {"books": {"source": {"type": "jsonl", "paths": list(paths)}}}


def refused(service: Running, **changes: Any) -> dict[str, str]:
    found = problem(service.post(service.spec("refused", **changes)), 422, "invalid_spec")["problems"]
    return {one["pointer"]: one["message"] for one in found}


def test_what_the_service_keeps_is_closed_on_a_laptop_too(served: Running) -> None:
    made = served.submit("closed", comparison={"mixtures": []})
    copy = served.root / "bucket" / keys.spec(made["id"])
    assert copy.is_file()
    (served.root / "innocent").symlink_to(served.root / "bucket")
    closed = (
        str(copy),
        str(served.root / "solfa.db"),
        f"{served.root}/apps/*/request.json",
        f"{served.root}/./bucket/experiments/*/spec.yaml",
        f"{served.root}/innocent/experiments/*/spec.yaml",
        f"{served.root}/x/../bucket/experiments/*/spec.yaml",
        "/proc/self/environ",
    )
    told = refused(served, domains=jsonl(*closed))
    assert set(told) == {f"/domains/books/source/paths/{number}" for number in range(len(closed))}
    assert refused(served, tokenizer={"type": "file", "path": f"bucket:{keys.spec(made['id'])}"}).keys() == {"/tokenizer/path"}
    assert refused(served, tokenizer={"type": "file", "path": str(copy)}).keys() == {"/tokenizer/path"}
    addresses = refused(served, domains=jsonl("http://169.254.169.254/latest", "s3://bucket/x", "file:///etc/passwd"))
    assert all("URL" in message for message in addresses.values())


def test_roots_are_all_that_is_open_and_attempts_are_told(tmp_path: Path) -> None:
    texts, others = tmp_path / "texts", tmp_path / "others"
    for folder in (texts, others):
        folder.mkdir()
        (folder / "a.jsonl").write_text('{"text": "do re mi"}\n')
    (texts / "link.jsonl").symlink_to(others / "a.jsonl")
    with running(tmp_path / "home", data_roots=(str(texts),)) as service:
        paths = (f"{others}/a.jsonl", f"{texts}/../others/a.jsonl", f"{texts}/link.jsonl", f"{others}/there-is-none", "/e*/passwd")
        told = refused(service, domains=jsonl(*paths))
        assert len(told) == len(paths)
        assert "leads out" in told["/domains/books/source/paths/2"]
        assert "no file" not in "".join(told.values())  # nothing is said of what is there
        shown = service.http.post("/v1/experiments?validate_only=true", content=service.spec("open", domains=jsonl(f"{texts}/a.jsonl")))
        for launch in shown.json()["launches"]:
            reach = json.loads(launch["environment"]["SOLFA_REACH"])
            assert reach["roots"] == [str(texts)]
            assert str(service.root / "bucket") in reach["closed"]


def settings(**chosen: Any) -> Settings:
    return Settings(home=Path("/var/lib/solfa"), **chosen)


def test_what_is_open_where_nobody_chose() -> None:
    cluster: dict[str, Any] = {"cluster": "kubernetes", "trainer_image": "x", "host": "0.0.0.0"}
    assert settings().reach.roots is None
    assert settings(host="::1").reach.roots is None
    assert settings(host="localhost").reach.roots is None
    assert settings(host="0.0.0.0").reach.roots == ()
    assert settings(**cluster).reach.roots == ("/data",)
    assert settings(**cluster, data_claims={"pile": "/corpora/pile"}).reach.roots == ("/corpora/pile",)
    assert settings(**cluster, data_claims={"pile": "/corpora/pile"}, data_roots="/corpora, /data").reach.roots == ("/corpora", "/data")
    assert settings(data_roots="").reach.roots == ()
    with pytest.raises(ValueError, match="relative"):
        settings(data_roots="corpora")


def test_the_volume_of_the_bucket_is_closed_to_training_pods() -> None:
    bucket = "file:///var/lib/solfa-bucket/objects"
    chosen = settings(cluster="kubernetes", trainer_image="x", bucket_url=bucket, bucket_claim="b")
    assert place(chosen, bucket).reach.closed == ("/var/lib/solfa-bucket/objects", "/var/lib/solfa-bucket/.objects.lock")


def test_a_database_elsewhere_is_closed() -> None:
    closed = settings(database_url="sqlite:////var/lib/db/s.db").reach.closed
    assert {"/var/lib/db/s.db", "/var/lib/db/s.db-wal", "/var/lib/solfa/apps", "/var/lib/solfa/bucket"} <= set(closed)
