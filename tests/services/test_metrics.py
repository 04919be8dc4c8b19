"""The service's metrics: a golden list of all there are, by the conventions; a scrape that nothing which is away holds up."""

import re
import secrets
import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.errors import StoreUnavailable
from api.metrics import EXPERIMENTS, OF_SERVICE, TRAINER, Metric
from services.metrics import Metrics
from services.metrics.records import RecordsCollector
from tests.reference import assert_golden
from tests.services.running import Running, running
from tests.services.waiting import wait_for

UNITS = ("_seconds", "_bytes", "_ratio")
BOUND = {"method", "route", "status", "operation", "code", "outcome", "kind", "phase", "reason", "version"}
"""Labels whose values are known beforehand."""


def scraped(service: Running) -> str:
    return service.http.get("/metrics").text


def test_they_are_those_that_were_reviewed() -> None:
    lines = [f"{one.name} {one.kind} {{{', '.join(one.labels)}}}\n    {one.help}\n" for one in sorted((*OF_SERVICE.values(), *TRAINER))]
    assert_golden("metrics.txt", "".join(lines))


def test_a_scrape_holds_nothing_else(gallery: Running) -> None:
    gallery.get("/done")
    found = list(text_string_to_metric_families(scraped(gallery)))
    for family in found:
        metric = OF_SERVICE[family.name + {"counter": "_total"}.get(family.type, "")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), sample.name
    assert {family.name.removesuffix("_total") for family in found} == {name.removesuffix("_total") for name in OF_SERVICE}


@pytest.mark.parametrize("metric", [*OF_SERVICE.values(), *TRAINER], ids=lambda metric: metric.name)
def test_their_names_keep_the_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"solfa_[a-z_]+", metric.name)
    assert metric.help.endswith(".")
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.kind != "histogram" or metric.name.endswith(UNITS)
    unbound = set(metric.labels) - BOUND
    assert metric in (*EXPERIMENTS, *TRAINER) or not unbound, "a label of any value is for living experiments, which are capped"


def test_counts_of_records_are_what_the_store_holds(gallery: Running) -> None:
    wait_for(lambda: 'solfa_experiments{phase="cancelled"} 1.0' in scraped(gallery))  # it counts at most every few seconds
    samples = {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(scraped(gallery))
        for sample in family.samples
    }
    assert {phase: samples["solfa_experiments", (phase,)] for phase in ("succeeded", "failed", "cancelled", "running")} == {
        "succeeded": 1,
        "failed": 1,
        "cancelled": 1,
        "running": 1,
    }
    assert samples["solfa_stages", ("failed",)] == 1
    assert samples["solfa_attempts", ("worker_failed_permanently",)] == 1
    assert samples["solfa_store_up", ()] == 1
    assert samples["solfa_reconcile_passes_total", ("done",)] > 0
    assert samples["solfa_reconcile_moves_total", ()] > 20
    assert samples["solfa_http_request_duration_seconds_count", ("GET", "/v1/experiments/{experiment}", "200")] > 0


def test_what_is_asked_of_tokens_and_of_the_audit_record_is_measured_too() -> None:
    class Part:
        def find(self, sha256: str) -> None:
            raise StoreUnavailable("It is away.")

        def page(self, *narrowed: object) -> list[object]:
            return []

    class Whole:
        tokens = audit = Part()

        def within(self, project: str) -> "Whole":
            return self

    metrics = Metrics(Whole())  # type: ignore[arg-type]  # what is asked of it here
    store = metrics.timed_store(Whole()).within("one")  # type: ignore[arg-type]  # as above
    assert store.audit.page(None, 1, None) == []
    with pytest.raises(StoreUnavailable):
        store.tokens.find("0" * 64)
    value = metrics.registry.get_sample_value
    for operation in ("find_token", "read_audit"):
        assert value("solfa_store_operation_duration_seconds_count", {"operation": operation}) == 1
    assert value("solfa_store_errors_total", {"operation": "find_token", "code": "store_unavailable"}) == 1


def test_a_request_that_waits_for_an_answer_has_a_bucket_as_long(served: Running) -> None:
    served.http.get("/healthz")
    text = "".join(series(served))
    assert all(f'le="{bound}"' in text for bound in ("30.0", "60.0", "120.0", "300.0"))


def series(service: Running) -> set[str]:
    return {line.rpartition(" ")[0] for line in scraped(service).splitlines() if line.startswith("solfa_http")}


def test_whatever_is_asked_for_makes_no_more_than_a_few_series(served: Running) -> None:
    def ask() -> None:
        word = secrets.token_hex(8)
        for path in (f"/v1/experiments/{word}", f"/v1/experiments/{word}/stages/{word}/logs", f"/{word}", f"/v1/experiments?phase={word}"):
            served.http.get(path)
            served.http.request(word.translate(str.maketrans("0123456789", "ghijklmnop")).upper(), path)

    scraped(served)  # makes a series of its own
    ask()
    before = series(served)
    for _ in range(10):
        ask()
    assert series(served) == before
    assert 'method="other"' in "".join(before)
    assert any('route="/v1/experiments/{experiment}/stages/{stage}/logs"' in one for one in before)
    assert any('route="none"' in one for one in before)


def test_a_database_that_is_away_is_told_and_hides_nothing_else() -> None:
    class Away:
        def counts(self) -> None:
            raise StoreUnavailable("It is away.")

    registry = Metrics(Away()).registry  # type: ignore[arg-type]  # all that a scrape asks of a store
    assert registry.get_sample_value("solfa_store_up") == 0
    assert registry.get_sample_value("solfa_experiments", {"phase": "running"}) is None
    assert registry.get_sample_value("solfa_reconcile_moves_total") == 0


def test_a_database_that_hangs_holds_up_no_scrape() -> None:
    """The scrape comes back while the reading still waits, and the next one has what that found."""
    free = threading.Event()

    class Slow:
        def counts(self) -> dict[str, dict[str, int]]:
            free.wait(60)
            return {"experiments": {"running": 7}}

    collector = RecordsCollector(Slow(), deadline=0.01)  # type: ignore[arg-type]  # as above

    def value(name: str) -> list[float]:
        return [sample.value for family in collector.collect() if family.name == name for sample in family.samples]

    assert value("solfa_store_up") == [0]
    assert value("solfa_experiments") == []
    free.set()
    wait_for(lambda: value("solfa_store_up") == [1])
    assert sum(value("solfa_experiments")) == 7


def test_many_scrapes_read_the_database_once() -> None:
    readings = []

    class Counting:
        def counts(self) -> dict[str, dict[str, int]]:
            readings.append(1)
            return {}

    collector = RecordsCollector(Counting(), max_age=3600)  # type: ignore[arg-type]  # as above
    for _ in range(10):
        list(collector.collect())
    assert len(readings) == 1


def test_a_living_experiment_has_series_of_its_own_and_a_finished_one_has_none(gallery: Running) -> None:
    of_live = 'experiment="live",project="default",stage="proxy"'
    text = wait_for(
        lambda: text if f'solfa_experiment_averaged_weight_ratio{{domain="books",{of_live}}}' in (text := scraped(gallery)) else ""
    )
    assert f"solfa_experiment_step{{{of_live}}} 6.0" in text
    assert f'solfa_experiment_excess_loss{{domain="web",{of_live}}} 0.25' in text
    assert 'solfa_experiment_stage_phase_seconds{experiment="live",phase="running",project="default",stage="proxy"}' in text
    assert 'experiment="done"' not in text
    assert "solfa_leader 1.0" in text
    assert 'solfa_attempts_ended_total{kind="reference",reason="worker_failed_permanently"} 1.0' in text
    assert "solfa_submit_to_weights_seconds_count 1.0" in text
    assert 'solfa_launch_latency_seconds_count{kind="proxy"}' in text


def test_what_fails_in_the_bucket_is_counted_and_the_scrape_goes_on(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        service.submit("kept", {"hang": {"prepare": [1]}}, comparison={"mixtures": []})
        service.until_stage("kept", "prepare", "running")
        before = scraped(service)
        assert 'solfa_bucket_operation_duration_seconds_count{operation="put"}' in before
        assert 'code="bucket_unavailable"' not in before
        service.bucket.root.rename(tmp_path / "away")  # type: ignore[attr-defined]  # it is a folder
        wait_for(lambda: 'solfa_bucket_errors_total{code="bucket_unavailable",operation="exists"}' in scraped(service))
        wait_for(lambda: 'solfa_reconcile_failures_total{code="bucket_unavailable"}' in scraped(service))
        (tmp_path / "away").rename(service.bucket.root)  # type: ignore[attr-defined]  # as above
