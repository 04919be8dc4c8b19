"""What a project may have at once: the rule by itself, over HTTP, and against many who ask at the same moment."""

import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.errors import BadRequest, QuotaExceeded
from api.experiment import Experiment
from api.stages import StagePhase
from services.access.changes import change_by
from services.access.principal import LOCAL
from services.quotas import Quota, Usage, check, quota_guard, quota_of, usage
from services.settings import Settings
from services.store import open_store
from tests.builders import START, make_experiment
from tests.services.running import Running, problem, running

EXAMPLES = settings(derandomize=True, deadline=None, max_examples=200)
COUNTS = st.builds(Usage, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
LIMIT = st.none() | st.integers(0, 9)
QUOTAS = st.builds(Quota, experiments=LIMIT, replicas=LIMIT, gpus=LIMIT)
NOTHING: dict[str, Any] = {"comparison": {"mixtures": []}}


@EXAMPLES
@given(QUOTAS, COUNTS, COUNTS)
def test_nothing_grows_beyond_its_limit_and_nothing_else_is_refused(quota: Quota, before: Usage, after: Usage) -> None:
    grows = [
        name
        for name in ("experiments", "replicas", "gpus")
        if getattr(quota, name) is not None and getattr(after, name) > max(getattr(quota, name), getattr(before, name))
    ]
    if not grows:
        check("speech", quota, before, after)
        return
    with pytest.raises(QuotaExceeded) as caught:
        check("speech", quota, before, after)
    limit, wanted = getattr(quota, grows[0]), getattr(after, grows[0])
    assert f"may have {limit} " in caught.value.message
    assert f"has {getattr(before, grows[0])} and would have {wanted}: {wanted - limit} too many" in caught.value.message


def test_what_counts_are_machines_that_live_stages_may_come_to_have() -> None:
    compute = {"default": {"replicas": {"min": 1, "max": 3}, "gpus": 2}, "prepare": {"gpus": 0}}
    experiment = make_experiment(compute=compute, **NOTHING)  # prepare, reference, proxy
    assert usage([experiment]) == Usage(1, 7, 12)
    proxy = experiment.stages[2]
    assert usage([experiment.with_stage(proxy.model_copy(update={"replicas": 1}))]) == Usage(1, 5, 8)
    assert usage([experiment.with_stage(proxy.model_copy(update={"phase": StagePhase.SUCCEEDED}))]) == Usage(1, 4, 6)
    assert usage([]) == Usage(0, 0, 0)


@pytest.mark.parametrize("device", ["nvidia.com/mig-3g.40gb", "amd.com/gpu", "nvidia.com/gpu.shared", "habana.ai/gaudi"])
def test_a_gpu_by_another_name_is_not_had_beside_the_limit(device: str) -> None:
    experiment = make_experiment(compute={"default": {"resources": {device: 8}}, "prepare": {}}, **NOTHING)
    beyond = "may have 1 GPUs and other devices for its live stages, has 0 and would have 16: 15 too many"
    assert _refused(experiment, Quota(gpus=1)).endswith(beyond)
    assert _refused(experiment, Quota(gpus=16)) == _refused(experiment, Quota(experiments=1)) == ""
    assert _refused(experiment, Quota(gpus=1, resources={"rdma/hca": 99})).endswith(beyond)


def test_a_device_that_a_quota_names_has_the_limit_that_it_says() -> None:
    compute = {"default": {"replicas": {"min": 1, "max": 2}, "gpus": 1, "resources": {"rdma/hca": 2}}, "prepare": {}}
    experiment = make_experiment(compute=compute, **NOTHING)
    assert usage([experiment]) == Usage(1, 5, 4, {"rdma/hca": 8})
    for passes in (Quota(gpus=4, resources={"rdma/hca": 8}), Quota(gpus=4, resources={"rdma/hca": None}), Quota(gpus=12)):
        assert _refused(experiment, passes) == ""
    assert _refused(experiment, Quota(resources={"rdma/hca": 7})).endswith(
        "7 rdma/hca for its live stages, has 0 and would have 8: 1 too many"
    )
    assert _refused(experiment, Quota(gpus=3, resources={"rdma/hca": None})).endswith("has 0 and would have 4: 1 too many")
    with pytest.raises(BadRequest, match="SOLFA_QUOTAS"):
        Settings.from_environment({"SOLFA_QUOTAS": '{"speech": {"resources": {"cpu": 1}}}'})


def _refused(experiment: Experiment, quota: Quota) -> str:
    """The sentence for what goes beyond, or nothing."""
    guard = quota_guard(experiment, {experiment.project: quota})
    try:
        if guard:
            guard([])
    except QuotaExceeded as error:
        return error.message.partition(". ")[0]
    return ""


def test_a_project_has_its_own_quota_or_that_of_all_others() -> None:
    quotas = {"speech": Quota(gpus=1), "*": Quota(experiments=2)}
    assert quota_of("speech", quotas) == Quota(gpus=1)
    assert quota_of("vision", quotas) == Quota(experiments=2)
    assert quota_of("vision", {}) == Quota()
    read = Settings.from_environment({"SOLFA_QUOTAS": '{"speech": {"gpus": 1}, "*": {"experiments": 2}}'})
    assert read.quotas == quotas
    with pytest.raises(BadRequest, match="SOLFA_QUOTAS"):
        Settings.from_environment({"SOLFA_QUOTAS": '{"speech": {"cpus": 1}}'})


def names(service: Running) -> set[str]:
    return {one["name"] for one in service.get("?limit=200").json()["experiments"]}


def test_of_many_submissions_at_once_only_so_many_pass(tmp_path: Path) -> None:
    with running(tmp_path, reconcile=False, quotas={"default": Quota(experiments=3)}) as service:
        specs = [service.spec(f"raced-{number}") for number in range(10)]
        answers: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda text=text: answers.append(service.post(text))) for text in specs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        passed = [answer for answer in answers if answer.status_code == 202]
        assert len(passed) == len(names(service)) == 3
        for refused in (answer for answer in answers if answer not in passed):
            detail = problem(refused, 429, "quota_exceeded")["detail"]
            assert detail.startswith("The project default may have 3 live experiments, has 3 and would have 4: 1 too many. ")
        assert sum(entry.key.endswith("/spec.yaml") for entry in service.bucket.list("experiments/")) == 3


def test_a_retry_and_a_resize_are_held_to_it_too_and_a_cancellation_never(tmp_path: Path) -> None:
    compute = {"default": {"replicas": {"min": 1, "max": 2}}}
    with running(tmp_path, quotas={"*": Quota(experiments=1, replicas=6)}) as service:
        service.submit("failed", {"permanent": ["prepare"]}, **NOTHING)
        service.until("failed")
        service.submit("live", {"hang": {"prepare": [1]}}, compute=compute, **NOTHING)
        assert "live experiments" in problem(service.http.post("/v1/experiments/failed/retry"), 429, "quota_exceeded")["detail"]
        service.until_stage("live", "prepare", "running")
        assert service.http.patch("/v1/experiments/live/stages/proxy", json={"replicas": 1}).status_code == 200
        assert service.http.patch("/v1/experiments/live/stages/proxy", json={"replicas": 2}).status_code == 200
        assert service.http.post("/v1/experiments/live/cancel").status_code == 202
        service.until("live")
        assert service.http.post("/v1/experiments/failed/retry").status_code == 202


def test_a_resize_beyond_it_is_refused(tmp_path: Path) -> None:
    compute = {"default": {"replicas": {"min": 1, "max": 2}}}
    with running(tmp_path, reconcile=False, quotas={"*": Quota(replicas=6)}) as service:
        service.submit("wide", compute=compute, **NOTHING)
        for stage in ("proxy", "reference"):
            assert service.http.patch(f"/v1/experiments/wide/stages/{stage}", json={"replicas": 1}).status_code == 200
        service.submit("narrow", doremi={"objective": "hardest"}, **NOTHING)  # two stages of a machine each take what is left
        answer = service.http.patch("/v1/experiments/wide/stages/proxy", json={"replicas": 2})
        assert "6 machines for its live stages, has 6 and would have 7" in problem(answer, 429, "quota_exceeded")["detail"]


def test_two_services_over_one_database_cannot_both_pass(database_url: str) -> None:
    """Each with a connection of its own, at the same moment, of which one has looked already."""
    stores = [open_store(database_url) for _ in range(2)]
    meet, passed, refused = threading.Barrier(2), [], []

    def submit(index: int, experiment: Experiment) -> None:
        guard = quota_guard(experiment, {"*": Quota(experiments=1)})
        meet.wait()
        try:
            stores[index].create(experiment, None, START, change_by(LOCAL, "submit", START, guard=guard))
            passed.append(experiment.name)
        except QuotaExceeded:
            refused.append(experiment.name)

    for turn in range(10):
        both = [make_experiment(f"x{'abcdefghij'[turn]}{letter * 9}", f"run-{turn}-{letter}") for letter in "ab"]
        threads = [threading.Thread(target=submit, args=pair) for pair in enumerate(both)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(passed), len(refused)) == (1, 1)
        stores[0].delete(stores[0].get(passed.pop()).id)
        refused.clear()
    for store in stores:
        store.close()
