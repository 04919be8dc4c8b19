"""What a person does to a stage that trains, through the service: fewer machines and more again, and an end whose last lines are kept."""

import json

from tests.cluster.survival import House, Outcome, prepared, survivor_spec, watched
from tests.services.waiting import wait_for


def test_a_stage_is_made_smaller_and_larger_while_it_trains(house: House, undisturbed: Outcome) -> None:
    with watched(house, survivor_spec("resized", least=1)) as survivor:
        before = survivor.until_training()
        first = survivor.pods()[0]["metadata"]["uid"]
        _resize(house, survivor.id, 1)
        before = survivor.until_resumed(before, (1,))
        wait_for(lambda: [pod["metadata"]["uid"] for pod in survivor.pods()] == [first], 60, every=0.5)
        before = survivor.until_training(world=1)
        _resize(house, survivor.id, 2)
        survivor.until_resumed(before, (2,))
        assert survivor.pods()[0]["metadata"]["uid"] == first
        assert survivor.outcome().difference(undisturbed) < 1e-3
        assert survivor.attempts() == 1


def test_a_wish_for_fewer_machines_holds_for_the_next_attempt(house: House) -> None:
    with watched(house, survivor_spec("resized-lost", least=1)) as survivor:
        before = survivor.until_training()
        _resize(house, survivor.id, 1)
        before = survivor.until_resumed(before, (1,))
        survivor.until_training(world=1)
        house.namespace.kubectl("delete", "jobs.batch.volcano.sh", "--selector", f"solfa.dev/experiment={survivor.id}", "--wait=false")
        survivor.until_resumed(before, (1,))
        assert len(survivor.pods()) == 1
        assert survivor.attempts() == 2


def test_a_cancelled_stage_keeps_its_last_lines_though_the_service_dies(house: House) -> None:
    with watched(house, survivor_spec("cancelled-kept")) as survivor:
        survivor.until_training()
        with house.release.client() as client:
            client.cancel(survivor.id)
        wait_for(lambda: house.phases(survivor.id)["proxy"] in ("cancelling", "cancelled"), 60, every=0.05)
        house.namespace.kubectl("delete", "pod", *house.service_pods(), "--grace-period=0", "--force", "--wait=false")
        record = house.release.finished(survivor.id)
        assert {stage.name: stage.phase.value for stage in record.stages} == {"prepare": "succeeded", "proxy": "cancelled"}
        wait_for(lambda: not survivor.pods(), 120, every=0.5)
        with house.release.client() as client:
            lines = client.logs(survivor.id, "proxy").lines
        assert any(" step " in line for line in lines)  # all up to the cancel


def test_an_app_that_belongs_to_no_record_is_swept_away(house: House) -> None:
    with house.release.client() as client:
        shown = json.dumps(client.validate(survivor_spec("orphan")).launches[0])
    orphan = json.loads(shown.replace("x0000000000", "xaaaaaaaaaa"))  # as it would be launched, of an experiment that is not there
    house.namespace.kubectl("create", "--filename", "-", stdin=json.dumps(orphan))
    name = orphan["metadata"]["name"]
    wait_for(lambda: name not in [job["metadata"]["name"] for job in house.namespace.get("jobs.batch.volcano.sh")], 120, every=0.5)
    wait_for(lambda: not house.training_pods(orphan["metadata"]["labels"]["solfa.dev/experiment"]), 120, every=0.5)


def test_one_pod_prepares_the_same_bytes_as_two(house: House, undisturbed: Outcome) -> None:
    compute = {"default": {"cpus": 0.3, "memory_mb": 1536}}
    with watched(house, survivor_spec("prepared-alone", compute=compute)) as survivor:
        wait_for(lambda: house.phases(survivor.id)["prepare"] == "succeeded", 180, every=0.2)
        alone = prepared(house.bucket, survivor.id)
    assert undisturbed.prepared == alone


def _resize(house: House, experiment: str, replicas: int) -> None:
    with house.release.client() as client:
        assert client.resize(experiment, "proxy", replicas).replicas == replicas
