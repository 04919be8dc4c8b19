"""/metrics of a running attempt, for a Prometheus that finds its pod: what rank 0 last reported, seconds before the bucket has it.

One process a machine listens, so that every pod that is scraped answers; only rank 0 knows the figures. Training never depends on it.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.metrics import TRAINER
from api.stage_config import StageConfig, StageReport
from trainer.report import Reporter
from trainer.world import World

log = logging.getLogger(__name__)


@contextmanager
def exposed(reporter: Reporter, config: StageConfig, world: World) -> Iterator[None]:
    """Answer on the world's metrics port, where it has one that is free, for as long as the block lasts."""
    if world.metrics_port is None or world.local_rank:
        yield
        return
    registry = CollectorRegistry()
    registry.register(_Reports(reporter, (config.spec.name, config.plan.name), world))
    try:
        server, thread = start_http_server(world.metrics_port, registry=registry)
    except (OSError, OverflowError) as error:
        log.warning("there are no metrics on port %d (%s); training goes on without", world.metrics_port, error)
        yield
        return
    log.info("metrics are on port %d", server.server_port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Reports(Collector):
    def __init__(self, reporter: Reporter, place: tuple[str, str], world: World) -> None:
        self._reporter, self._place, self._world = reporter, place, world

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        families = {one.name: GaugeMetricFamily(one.name, one.help, labels=list(one.labels)) for one in TRAINER}
        families["solfa_trainer_rank"].add_metric([*self._place], self._world.rank)
        if self._world.is_first:
            self._tell(families, self._reporter.report)
        return families.values()

    def _tell(self, families: dict[str, GaugeMetricFamily], report: StageReport) -> None:
        for name, value in (
            ("attempt", report.attempt),
            ("processes", report.world_size),
            ("restarts", report.restarts),
            ("step", report.step if report.unit == "steps" else None),
            ("target_step", report.total if report.unit == "steps" else None),
            ("tokens_per_second", report.tokens_per_second),
            ("loss", report.loss),
            ("gradient_norm", report.gradient_norm),
            ("learning_rate", report.learning_rate),
            ("data_wait_ratio", report.data_wait_share),
            ("mfu_ratio", report.mfu),
            ("peak_memory_bytes", report.peak_memory_bytes),
        ):
            if value is not None:
                families[f"solfa_trainer_{name}"].add_metric([*self._place], value)
        for name, values in (
            ("domain_weight_ratio", report.domain_weights.root if report.domain_weights else {}),
            ("averaged_weight_ratio", report.averaged_weights.root if report.averaged_weights else {}),
            ("excess_loss", report.excess_losses),
            ("domain_loss", report.domain_losses),
            ("epochs", report.epochs),
        ):
            for domain, number in values.items():
                families[f"solfa_trainer_{name}"].add_metric([*self._place, domain], number)
