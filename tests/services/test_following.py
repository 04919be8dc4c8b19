"""What streams follow: each within its project, and one that cannot be answered is in no other's way."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from api import keys
from api.bucket import Bucket, open_bucket
from api.errors import BucketUnavailable
from api.experiment import Attempt, Experiment
from api.stages import StagePhase
from services import following
from services.following import Following, Listing
from services.store import ExperimentStore, NewEvent, open_store
from tests.builders import START, make_experiment


class Away(Bucket):
    """A bucket that does not answer for one experiment."""

    away = ""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def find(self, key: str) -> object:  # type: ignore[override]  # a Blob, or None
        if self.away and key.startswith(keys.experiment_prefix(self.away)):
            raise BucketUnavailable("It is away.")
        return self._bucket.find(key)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExperimentStore:
    for name in ("EVENT_SECONDS", "PAGE_SECONDS"):
        monkeypatch.setattr(following, name, 0.005)
    return open_store(f"sqlite:///{tmp_path}/solfa.db")


def stored(store: ExperimentStore, letter: str, project: str = "default") -> Experiment:
    record = make_experiment("x" + letter * 10, f"run-{letter}").model_copy(update={"project": project})
    running = {"phase": StagePhase.RUNNING, "attempts": (Attempt(number=1, app="app", created_at=START),)}
    return store.create(record.with_stage(record.stages[0].model_copy(update=running)), None, datetime.now(UTC))


async def told(*streams: AsyncGenerator[str], within: float = 20) -> list[str]:
    async with asyncio.timeout(within):
        return [await anext(stream) for stream in streams]


def test_a_list_is_followed_within_its_project_and_one_that_is_none_ends(store: ExperimentStore) -> None:
    async def test() -> None:
        watched = Following(store, open_bucket("memory://"))
        ours, theirs, every = (watched.lists.follow(Listing(project, 50)) for project in ("ours", "theirs", None))
        odd = watched.lists.follow(Listing("ours", 50, cursor="%"))
        before = await told(ours, theirs, every)
        assert [one async for one in odd] == []
        stored(store, "a", "theirs")
        after = await told(theirs, every)
        assert not set(after) & set(before)
        stored(store, "b", "ours")
        [changed] = await told(ours)  # the first that it heard of: the one before was not its own
        store.delete("x" + "b" * 10)
        assert changed != before[0]
        assert await told(ours) == [before[0]]
        for stream in (ours, theirs, every):
            await stream.aclose()

    asyncio.run(test())


def test_a_page_changes_with_its_record_and_its_reports_and_goes_with_them(store: ExperimentStore) -> None:
    async def test() -> None:
        bucket = Away(open_bucket("memory://"))
        watched = Following(store, bucket)
        first, second = (stored(store, letter) for letter in "ab")
        pages = [watched.pages.follow(one.id) for one in (first, second)]
        seen = {*await told(*pages)}
        bucket.away = first.id
        for number in range(3):
            bucket._bucket.put(keys.attempt_report(second.id, "prepare", 1), b"%d" % number)
            seen |= {*await told(pages[1])}
        bucket.away = ""
        bucket._bucket.put(keys.attempt_report(first.id, "prepare", 1), b"news")
        store.replace(second, [NewEvent("cancel_requested")], datetime.now(UTC))
        seen |= {*await told(*pages)}
        assert len(seen) == 1 + 3 + 2  # both began alike
        store.delete(first.id)
        assert [one async for one in pages[0]] == []
        await pages[1].aclose()

    asyncio.run(test())
