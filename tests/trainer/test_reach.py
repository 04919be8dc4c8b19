"""The trainer reads what the operator opened, whatever the spec's paths, the links below them and a data folder's own description say."""

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Image
from pydantic import TypeAdapter

from api.bucket import FileBucket
from api.errors import DataError
from api.reach import Reach
from api.spec import Source
from tests.trainer.preparing import byte_tokenizer, jsonl, preparing, texts, write_jsonl
from trainer.opening import opened
from trainer.sources import pieces, read_documents, read_piece
from trainer.tokenizer import make_encoder
from trainer.world import join_world

SECRET = "nobody may read this"


def source_of(raw: dict[str, Any]) -> Source:
    return TypeAdapter(Source).validate_python(raw)


def open_to(folder: Path) -> Reach:
    return Reach(roots=(str(folder),)).followed()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """(open, closed): two folders beside each other, with secrets of every kind in the closed one."""
    mine, theirs = tmp_path / "texts", tmp_path / "texts-of-others"
    mine.mkdir()
    theirs.mkdir()
    write_jsonl(theirs / "secret.jsonl", [SECRET])
    pq.write_table(pa.table({"text": [SECRET]}), theirs / "secret.parquet")
    Dataset.from_dict({"text": [SECRET]}).save_to_disk(theirs / "saved")
    Dataset.from_dict({"text": ["mine"]}).save_to_disk(mine / "saved")
    return mine, theirs


def link_to_file(mine: Path, theirs: Path) -> dict[str, Any]:
    (mine / "link.jsonl").symlink_to(theirs / "secret.jsonl")
    return jsonl(str(mine / "*.jsonl"))


def link_to_folder(mine: Path, theirs: Path) -> dict[str, Any]:
    (mine / "link").symlink_to(theirs)
    return {"type": "parquet", "paths": [str(mine / "**/*.parquet")]}


def link_to_saved(mine: Path, theirs: Path) -> dict[str, Any]:
    (mine / "link").symlink_to(theirs / "saved")
    return {"type": "datasets", "path": str(mine / "link")}


def link_within_saved(mine: Path, theirs: Path) -> dict[str, Any]:
    rows = next((mine / "saved").glob("*.arrow"))
    rows.unlink()
    rows.symlink_to(next((theirs / "saved").glob("*.arrow")))
    return {"type": "datasets", "path": str(mine / "saved")}


def description(mine: Path, theirs: Path) -> dict[str, Any]:
    state = json.loads((mine / "saved/state.json").read_text())
    state["_data_files"] = [{"filename": str(next((theirs / "saved").glob("*.arrow")))}]
    (mine / "saved/state.json").write_text(json.dumps(state))
    return {"type": "datasets", "path": str(mine / "saved")}


OUTWARD: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "a path elsewhere": lambda _, theirs: jsonl(str(theirs / "secret.jsonl")),
    "a path that goes up": lambda mine, _: jsonl(f"{mine}/../texts-of-others/secret.jsonl"),
    "a pattern over all": lambda mine, _: jsonl(f"{mine.parent}/*/secret.jsonl"),
    "a link to a file": link_to_file,
    "a link to a folder": link_to_folder,
    "a link to a saved folder": link_to_saved,
    "a link among saved files": link_within_saved,
    "a description that names files elsewhere": description,
    "the environment of this process": lambda *_: jsonl("/proc/self/environ"),
}


@pytest.mark.parametrize("way", OUTWARD)
def test_no_way_leads_out(folders: tuple[Path, Path], way: str) -> None:
    source = source_of(OUTWARD[way](*folders))
    with pytest.raises(DataError) as caught:
        list(read_documents(source, "books", open_to(folders[0])))
    assert SECRET not in str(caught.value)


def test_what_is_open_is_read_through_links_among_it(folders: tuple[Path, Path], tmp_path: Path) -> None:
    mine, _ = folders
    write_jsonl(mine / "a.jsonl", ["mine"])
    (mine / "b.jsonl").symlink_to("a.jsonl")
    (tmp_path / "mount").symlink_to(mine)
    for raw in (jsonl(f"{tmp_path}/mount/*.jsonl"), {"type": "datasets", "path": f"{tmp_path}/mount/saved"}):
        found = [document.content for document in read_documents(source_of(raw), "books", open_to(tmp_path / "mount"))]
        assert set(found) == {"mine"}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_link_that_is_changed_after_it_was_looked_at_gains_nothing(folders: tuple[Path, Path], kind: str) -> None:
    mine, theirs = folders
    write_jsonl(mine / "real.jsonl", ["mine"])
    pq.write_table(pa.table({"text": ["mine"]}), mine / "real.parquet")
    link = mine / f"link.{kind}"
    link.symlink_to(mine / f"real.{kind}")
    source = source_of({"type": kind, "paths": [str(link)]})
    (piece,) = pieces(source, "books", open_to(mine))
    assert [document.content for document in read_piece(source, piece.path, "books", open_to(mine))] == ["mine"]
    link.unlink()
    link.symlink_to(theirs / f"secret.{kind}")
    with pytest.raises(DataError, match="leads out"):
        list(read_piece(source, piece.path, "books", open_to(mine)))


def test_what_is_decided_about_is_the_open_file(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that points at the secret only while it is being opened."""
    mine, theirs = folders
    write_jsonl(mine / "real.jsonl", ["mine"])
    link, real_open = mine / "link.jsonl", os.open
    link.symlink_to(mine / "real.jsonl")

    def swap(path: Any, *arguments: Any) -> int:
        link.unlink()
        link.symlink_to(theirs / "secret.jsonl")
        try:
            return real_open(path, *arguments)
        finally:
            link.unlink()
            link.symlink_to(mine / "real.jsonl")

    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(DataError, match="leads out"), opened(link, open_to(mine), "It") as file:
        file.read()


def test_pipes_and_devices_are_no_text_and_hold_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(DataError, match="is no file of text"), opened(tmp_path / name, Reach(), "It"):
            pass
        with pytest.raises(DataError, match="no file matches"):
            pieces(source_of(jsonl(str(tmp_path / name))), "books", Reach())


def test_a_column_that_would_be_fetched_is_not_decoded(tmp_path: Path) -> None:
    """An image column holds addresses, and reading a row fetches them: from a metadata service, for one."""
    folder, rows = tmp_path / "saved", [{"bytes": None, "path": "http://169.254.169.254/latest/meta-data"}]
    Dataset.from_dict({"text": rows}).save_to_disk(folder)
    described, schema = json.loads((folder / "dataset_info.json").read_text()), Features({"text": Image()}).arrow_schema
    (folder / "dataset_info.json").write_text(json.dumps(described | {"features": {"text": {"_type": "Image"}}}))
    with pa.ipc.new_stream(next(folder.glob("*.arrow")), schema) as stream:
        stream.write_table(pa.table({"text": rows}, schema))
    with pytest.raises(DataError, match="is Image, not text"):
        list(read_documents(source_of({"type": "datasets", "path": str(folder)}), "books", Reach()))


def test_a_tokenizer_is_held_to_the_same(tmp_path: Path) -> None:
    mine = tmp_path / "texts"
    source, bucket = jsonl(write_jsonl(mine / "a.jsonl", texts(5))), FileBucket(tmp_path / "bucket")
    (tmp_path / "others").mkdir()
    other = byte_tokenizer(tmp_path / "others" / "tokenizer.json")
    (mine / "tokenizer.json").symlink_to(other)
    bucket.put("experiments/xaaaaaaaaaa/stages/prepare/data/tokenizer.json", other.read_bytes())
    for path in (other, mine / "tokenizer.json", "bucket:experiments/xaaaaaaaaaa/stages/prepare/data/tokenizer.json"):
        made = preparing(tmp_path / "made", {"books": source}, bucket, tokenizer={"type": "file", "path": str(path)})
        with pytest.raises(DataError, match=r"outside of|leads out|belongs to an experiment"):
            make_encoder(made.spec, bucket, open_to(mine))


def test_the_environment_says_what_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mount").symlink_to(tmp_path)
    monkeypatch.setenv("SOLFA_REACH", Reach(roots=(str(tmp_path / "mount"),)).model_dump_json())
    assert join_world(timedelta(seconds=1)).reach.roots == (str(tmp_path / "mount"), str(tmp_path))
