"""The metrics: a golden list of all there are, by the conventions, with labels that only take values known beforehand."""

import re
import secrets

from prometheus_client.parser import text_string_to_metric_families

from api.errors import StoreUnavailable
from services.metrics import Metrics
from tests.reference import assert_golden
from tests.services.running import Running

UNITS = ("_seconds", "_bytes", "_ratio")


def scraped(service: Running) -> str:
    return service.http.get("/metrics").text


def families(text: str) -> list[tuple[str, str, str, list[str]]]:
    """(name, type, help, labels but for a histogram's bounds)."""
    found = []
    for family in text_string_to_metric_families(text):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = family.name + {"counter": "_total"}.get(family.type, "")
        found.append((name, family.type, family.documentation, sorted(labels)))
    return sorted(found)


def test_they_are_those_that_were_reviewed(gallery: Running) -> None:
    gallery.get("/done")
    lines = [f"{name} {kind} {{{', '.join(labels)}}}\n    {words}\n" for name, kind, words, labels in families(scraped(gallery))]
    assert_golden("metrics.txt", "".join(lines))


def test_their_names_keep_the_conventions(gallery: Running) -> None:
    for name, kind, words, labels in families(scraped(gallery)):
        assert re.fullmatch(r"solfa_[a-z_]+", name), name
        assert words.endswith("."), name
        assert not any(label in ("experiment", "name", "path", "id") for label in labels), name
        if kind == "counter":
            assert name.endswith("_total")
        elif kind == "histogram":
            assert name.endswith(UNITS), f"{name} has no base unit"
        else:
            assert not name.endswith(("_total", "_created")), name


def test_counts_of_records_are_what_the_store_holds(gallery: Running) -> None:
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
