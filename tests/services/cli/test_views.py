"""What a person sees, against golden files of 80 and of 120 columns."""

import io
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from rich.console import Console, RenderableType

from api.domains import DomainWeights
from api.experiment import Attempt, ExperimentPhase
from api.plan import make_plan
from api.results import Compared, Evaluation, MixtureRow, PreparedDomain
from api.stage_config import StageReport
from api.stages import StagePhase, StageReason
from api.views import CurrentWeights, DataView, ExperimentSummary, ExperimentView, FailureView, Provenance, StageView, Weights
from services.cli.compare_view import compare_view
from services.cli.data_view import data_view
from services.cli.stages_view import list_view, plan_view, status_view
from services.cli.weights_view import current_view, weights_view
from tests.builders import START, make_spec
from tests.reference import assert_golden

DOMAINS = {"a-domain-with-quite-a-long-name": 0.42, "books": 0.3, "code": 0.2, "noise": 0.0004, "web": 0.0796}
MIXTURES = ["averaged", "reference", "uniform", "hardest", "easiest"]
NOW = START + timedelta(hours=1)
FAILURE = FailureView(attempt=1, exit_code=1, rank=3, replica=None, last_lines=[f"line {number}" for number in range(12)])


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Moments are shown in the reader's own time."""
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def plan(_: int) -> RenderableType:
    spec = make_spec(comparison={"mixtures": MIXTURES}, doremi={"rounds": 2})
    return plan_view(spec, make_plan(spec))


def status(width: int) -> RenderableType:
    """One stage in each phase, and one adopted."""
    stages = [
        _stage("prepare", StagePhase.SUCCEEDED, "Taken over from prepare of experiment xaaaaaaaaaa: same inputs.", adopted=True),
        _stage("reference", StagePhase.SUCCEEDED, seconds=8000),
        _stage("proxy", StagePhase.RUNNING, seconds=75, report=_report()),
        _stage("proxy-hardest", StagePhase.QUEUED, "It waits for a free slot on this machine.").model_copy(update={"replicas": 2}),
        _stage("main", StagePhase.BLOCKED, "It waits for proxy."),
        _stage("baseline-reference", StagePhase.BACKOFF, "Its launcher was killed (SIGKILL). Tried again in 4 s.", seconds=9, tries=2),
        _stage("baseline-uniform", StagePhase.FAILED, "Domain noise holds out no tokens; raise validation.fraction.", seconds=3).model_copy(
            update={"failure": FAILURE}
        ),
        _stage("baseline-hardest", StagePhase.CANCELLING, "It is being ended: somebody cancelled it."),
        _stage("evaluate", StagePhase.CANCELLED, "It was cancelled."),
    ]
    record = {"id": "xaaaaaaaaaa", "spec_sha256": "0" * 64, "created_at": START, "cancel_requested_at": None, "version": 1}
    return status_view(ExperimentView(name="pile", phase=ExperimentPhase.RUNNING, stages=stages, **record), stages, NOW, width)


def projects(_: int) -> RenderableType:
    """One name in two projects."""
    made = [("xaaaaaaaaaa", "speech", StagePhase.SUCCEEDED), ("xbbbbbbbbbb", "text", StagePhase.RUNNING)]
    return list_view(
        [
            ExperimentSummary(id=one, name="pile", project=project, phase=ExperimentPhase.RUNNING, created_at=START, stages={phase: 7})
            for one, project, phase in made
        ],
        "",
    )


def _stage(
    name: str,
    phase: StagePhase,
    message: str = "",
    *,
    seconds: int | None = None,
    tries: int = 1,
    report: StageReport | None = None,
    adopted: bool = False,
) -> StageView:
    started = None if seconds is None else NOW - timedelta(seconds=seconds)
    attempt = Attempt(number=1, app=f"xaaaaaaaaaa-{name}-1", created_at=START, started_at=started, ended_at=None if report else NOW)
    return StageView(
        name=name,
        kind="prepare",
        round=1,
        needs=[],
        phase=phase,
        reason=StageReason.PLANNED,
        message=message,
        adopted=adopted,
        digest=None,
        result_key=None,
        not_before=None,
        first_launched_at=None,
        finished_at=None,
        attempts=[attempt, *([attempt.model_copy(update={"started_at": None})] * (tries - 1))],
        report=report,
    )


def _report() -> StageReport:
    figures = {"loss": 3.14159, "tokens_per_second": 21234.5, "seconds_left": 4000.0}
    return StageReport(attempt=1, updated_at=NOW, activity="training", step=1500, total=4000, **figures)


def weights(width: int) -> RenderableType:
    provenance = Provenance(
        experiment="pile",
        experiment_id="xaaaaaaaaaa",
        spec_sha256="0" * 64,
        stage="proxy",
        round=1,
        steps=4000,
        eta=0.1,
        smoothing=1e-3,
        objective="excess",
        tokenizer="byte-level BPE of 512, trained on the data",
        sequence_length=128,
        proxy="llama",
        reference_weights=DomainWeights({**dict.fromkeys(DOMAINS, 0.25), "noise": 0.0}),
    )
    found = Weights(
        averaged_weights=DomainWeights(DOMAINS), delta=0.17, mean_document_tokens=dict.fromkeys(DOMAINS, 100.0), provenance=provenance
    )
    return weights_view(found, width)


def current(width: int) -> RenderableType:
    alpha = DomainWeights(DOMAINS)
    now = CurrentWeights(
        stage="proxy", step=1500, total=4000, updated_at=NOW, domain_weights=alpha, averaged_weights=alpha, excess_losses={}
    )
    return current_view(now, width)


def compare(width: int) -> RenderableType:
    return compare_view(_compared(MIXTURES[:3]), width)


def compare_five(width: int) -> RenderableType:
    return compare_view(_compared(MIXTURES), width)


def _compared(mixtures: list[str]) -> Compared:
    """The first loses one domain to the baseline, the third is equal to it."""
    rows = []
    for number, mixture in enumerate(mixtures):
        losses = {name: 3.0 + index - (0, 0, 0, 0.25, 0.5)[number] * index for index, name in enumerate(DOMAINS)}
        if number == 0:
            losses |= {"books": 4.5, "web": 6.0}
        average, worst = sum(losses.values()) / len(losses), max(losses.values())
        rows.append(
            MixtureRow(
                mixture=mixture,
                stage="main",
                sampling_weights=DomainWeights(DOMAINS),
                evaluation=Evaluation(losses=losses, tokens=dict.fromkeys(DOMAINS, 1000), average=average, worst=worst),
                curve=[],
                better=["web"] if number == 0 else [],
                worse=["books"] if number == 0 else [],
                steps_to_baseline=3000 if number == 0 else None,
            )
        )
    return Compared(baseline="reference", rows=rows)


def data(_: int) -> RenderableType:
    counts = {"documents": 12_345, "rows": 100_000, "validation_documents": 600, "validation_tokens": 654_321, "validation_rows": 600}
    domains = {
        name: PreparedDomain(tokens=round(1e9 * share), share=share, bytes_per_token=None if name == "noise" else 3.2, **counts)
        for name, share in DOMAINS.items()
    }
    epochs = {name: 0.5 + share for name, share in DOMAINS.items()}
    return data_view(
        DataView(
            experiment="pile",
            domains=domains,
            token_shares=DomainWeights(DOMAINS),
            vocab_size=50_257,
            sequence_length=1024,
            planned_epochs={"reference": epochs, "proxy": epochs, "baseline-reference": epochs},
            epochs={"reference": {name: 2 * value for name, value in epochs.items()}},
        )
    )


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("view", [plan, status, projects, weights, current, compare, compare_five, data], ids=lambda view: view.__name__)
def test_a_view_fits_its_terminal(view: Callable[[int], RenderableType], width: int) -> None:
    file = io.StringIO()
    Console(file=file, width=width, no_color=True, markup=False, emoji=False).print(view(width))
    shown = "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"
    assert max(map(len, shown.splitlines())) <= width
    assert_golden(f"cli/{view.__name__}-{width}.txt", shown)
