"""/metrics of a training process: what rank 0 reports; and no stage that fails over it."""

import socket
from collections.abc import Iterator

import httpx
import pytest
from obstore.store import MemoryStore
from prometheus_client.parser import text_string_to_metric_families

from api import keys
from api.bucket import Bucket
from api.domains import DomainWeights
from api.metrics import OF_TRAINER
from api.stage_config import StageConfig
from tests.trainer.stage_runner import StageRunner
from trainer.exposition import exposed
from trainer.report import Reporter
from trainer.world import World


@pytest.fixture
def config(undisturbed: StageRunner) -> StageConfig:
    return StageConfig.model_validate_json(undisturbed.bucket.get(keys.attempt_config(undisturbed.experiment, "proxy", 1)).data)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        yield listener.getsockname()[1]


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scraped(config: StageConfig, world: World) -> str:
    """What a process of `world` answers in the middle of a proxy."""
    reporter = Reporter(config, Bucket(MemoryStore(), "memory://"), world)
    weights = DomainWeights.uniform(config.spec.domain_names)
    by_domain = dict.fromkeys(config.spec.domain_names, 0.5)
    figures = {"loss": 2.5, "gradient_norm": 1.5, "learning_rate": 0.1, "tokens_per_second": 9.0, "data_wait_share": 0.25, "mfu": 0.5}
    domains = {"domain_weights": weights, "averaged_weights": weights, "excess_losses": by_domain, "domain_losses": by_domain}
    reporter.progress("training", 7, 12, **figures, **domains, epochs=by_domain, peak_memory_bytes=1024)
    with exposed(reporter, config, world):
        answer = httpx.get(f"http://127.0.0.1:{world.metrics_port}/metrics", trust_env=False)
    assert answer.status_code == 200
    return answer.text


def test_rank_0_tells_all_of_its_report_as_it_was_reviewed(config: StageConfig) -> None:
    text = scraped(config, World(metrics_port=free(), size=3))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families.keys() == OF_TRAINER.keys()
    for name, family in families.items():
        assert (family.type, family.documentation) == (OF_TRAINER[name].kind, OF_TRAINER[name].help)
        assert family.samples, name
        assert all(set(sample.labels) == set(OF_TRAINER[name].labels) for sample in family.samples), name
    assert f'solfa_trainer_step{{experiment="{config.spec.name}",stage="proxy"}} 7.0' in text
    assert len(families["solfa_trainer_domain_weight_ratio"].samples) == len(config.spec.domain_names)


def test_another_pods_first_process_answers_with_its_rank_alone(config: StageConfig) -> None:
    text = scraped(config, World(rank=4, size=8, metrics_port=free()))
    told = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert [(sample.name, sample.value) for sample in told] == [("solfa_trainer_rank", 4)]


@pytest.mark.parametrize("world", [World(), World(rank=1, size=2, local_rank=1, metrics_port=1)], ids=["no port", "second of a pod"])
def test_the_others_do_not_listen(config: StageConfig, world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with exposed(Reporter(config, Bucket(MemoryStore(), "memory://"), world), config, world):
        pass
    assert "metrics" not in caplog.text


def test_a_stage_whose_port_is_taken_trains_without(config: StageConfig, taken: int, caplog: pytest.LogCaptureFixture) -> None:
    world = World(metrics_port=taken)
    went_on = False
    with exposed(Reporter(config, Bucket(MemoryStore(), "memory://"), world), config, world):
        went_on = True
    assert went_on
    assert f"there are no metrics on port {taken}" in caplog.text
    assert "Address already in use" in caplog.text
