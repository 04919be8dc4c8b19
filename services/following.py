"""What streams follow: an experiment's record and events, all that its page shows, a page of the list; each looked at once for all."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from api import keys
from api.bucket import Bucket
from api.errors import BadRequest, SolfaError
from api.experiment import ExperimentPhase
from api.views import Weights
from services.experiments import TERMINAL
from services.fanout import Fanout, Shared
from services.store import Event, ExperimentStore
from services.weights import averaged

EVENT_SECONDS = 0.5  # between two looks at what changes
PAGE_SECONDS = 1.0  # a person looks at it
PAGE = 500  # events that are read at once


@dataclass(frozen=True)
class Listing:
    """A page of the list, as somebody asked for it."""

    project: str | None
    """None: of all projects."""
    limit: int
    cursor: str | None = None
    phase: ExperimentPhase | None = None
    name_prefix: str | None = None


@dataclass(frozen=True)
class Told:
    """Events of an experiment after one that is known; `over`: it had ended before they were read, so none will follow them."""

    over: bool
    events: list[Event]


class Following:
    """By experiment id, so that one who follows an experiment never goes on with another of its name; who may follow it, the routes ask."""

    def __init__(self, store: ExperimentStore, bucket: Bucket) -> None:
        self._store, self._bucket = store, bucket
        self._reports = lru_cache(maxsize=4096)(self._reports_of)
        self.versions: Fanout[str, int] = Fanout(self._versions, EVENT_SECONDS)
        """The version of an experiment's record."""
        self.pages: Fanout[str, str] = Fanout(self._pages, PAGE_SECONDS)
        """A digest of all that an experiment's page shows."""
        self.lists: Fanout[Listing, str] = Fanout(self._lists, PAGE_SECONDS)
        """A digest of a page of the list."""
        self._events: Shared[tuple[str, int, int], Told] = Shared(self._told)
        self._weights: Shared[tuple[str, int], Weights] = Shared(self._averaged)

    async def events(self, experiment_id: str, version: int, after: int) -> Told:
        """Events after `after`, of an experiment that is at `version` at least. Raises NotFound, StoreError."""
        return await self._events.get((experiment_id, version, after))

    async def weights(self, experiment_id: str, version: int) -> Weights:
        """Of an experiment that is at `version` at least. Raises NotReady, NotFound, StoreError, BucketError."""
        return await self._weights.get((experiment_id, version))

    def _averaged(self, asked: tuple[str, int]) -> Weights:
        return averaged(self._store.get(asked[0]), self._bucket)

    def _versions(self, ids: Sequence[str]) -> Mapping[str, int]:
        return self._store.versions(ids)

    def _told(self, asked: tuple[str, int, int]) -> Told:
        experiment_id, _, after = asked
        over = self._store.get(experiment_id).phase in TERMINAL
        return Told(over, self._store.events(experiment_id, after, PAGE))

    def _pages(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        return {one: self._page(one, version) for one, version in self._store.versions(ids).items()}

    def _page(self, experiment_id: str, version: int) -> str | None:
        """None where the bucket or the database does not answer for it."""
        try:
            found = [self._bucket.find(key) for key in self._reports(experiment_id, version)]
        except SolfaError:  # away; or deleted since, which the next look sees
            return None
        return _digest(f"{version} {[blob.etag for blob in found if blob]}")

    def _reports_of(self, experiment_id: str, _: int) -> list[str]:
        """Bucket keys of what the live attempts of an experiment say of themselves, as its record has them at a version."""
        live = [stage for stage in self._store.get(experiment_id).stages if not stage.phase.terminal]
        return [keys.attempt_report(experiment_id, stage.name, stage.attempt.number) for stage in live if stage.attempt]

    def _lists(self, asked: Sequence[Listing]) -> Mapping[Listing, str | None]:
        """Without what cannot be listed."""
        return {one: digest for one in asked if (digest := self._list(one)) != ""}

    def _list(self, asked: Listing) -> str | None:
        try:
            page = self._store.within(asked.project).page(asked.limit, asked.cursor, asked.phase, asked.name_prefix)
            return _digest(repr(page))
        except BadRequest:
            return ""
        except SolfaError:
            return None


def _digest(state: str) -> str:
    return hashlib.sha256(state.encode()).hexdigest()[:16]
