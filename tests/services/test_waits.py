"""`?wait=`: however many wait for the weights of an experiment, they cost what one does."""

import threading
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from api.experiment import Experiment
from api.stages import StagePhase
from services.store import NewEvent
from services.store.sql import SqlStore
from tests.builders import START
from tests.services.running import Running, problem, running
from tests.services.waiting import wait_for

MANY = 20


class Waiting:
    """Many who wait for the weights of one experiment, and what the database was asked meanwhile."""

    def __init__(self, service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        self._service = service
        self.id = service.submit("awaited")["id"]
        self.reads, self.looks = 0, 0
        get, versions = SqlStore.get, SqlStore.versions

        def counted_get(store: SqlStore, name: str) -> Experiment:
            record = get(store, name)
            self.reads += 1  # afterwards: who is counted has the record
            return record

        def counted_versions(store: SqlStore, ids: Sequence[str]) -> dict[str, int]:
            self.looks += 1
            return versions(store, ids)

        monkeypatch.setattr(SqlStore, "get", counted_get)
        monkeypatch.setattr(SqlStore, "versions", counted_versions)
        self._answers: list[httpx.Response] = []
        self._threads = [threading.Thread(target=self._wait) for _ in range(MANY)]
        for thread in self._threads:
            thread.start()
        wait_for(lambda: self.reads == MANY and self.looks)  # each has looked once

    def _wait(self) -> None:
        self._answers.append(self._service.get("/awaited/weights?wait=25"))

    def answers(self) -> list[httpx.Response]:
        for thread in self._threads:
            thread.join(60)
        return self._answers


def test_many_who_wait_are_one_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path, reconcile=False) as service:
        waiting = Waiting(service, monkeypatch)
        before = waiting.looks
        wait_for(lambda: waiting.looks >= before + 3)
        assert waiting.reads == MANY, "nobody looks by themselves while nothing changes"
        record = service.store.get(waiting.id)
        ended = tuple(stage.model_copy(update={"phase": StagePhase.CANCELLED}) for stage in record.stages)
        service.store.replace(record.model_copy(update={"stages": ended}), [NewEvent("experiment_finished")], START)
        answers = waiting.answers()
        assert [problem(answer, 409, "not_ready")["final"] for answer in answers] == [True] * MANY
        assert waiting.reads <= MANY + 3, "one has looked for all"


def test_who_waits_for_what_is_deleted_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path, reconcile=False) as service:
        waiting = Waiting(service, monkeypatch)
        service.store.delete(waiting.id)
        service.submit("awaited")  # the next of its name is another
        for answer in waiting.answers():
            assert problem(answer, 404, "not_found")["detail"] == "There is no experiment awaited any more."
