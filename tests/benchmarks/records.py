"""10,000 stored experiments as a long life leaves them, some of them at every point of theirs: put into a database by the store's own rows.

What is live is as the reconciler would have left it after a pass, so that the first pass over it moves nothing by itself.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256

import yaml

from api import keys
from api.experiment import Attempt, Experiment, Stage, app_name
from api.plan import make_plan
from api.spec import parse_spec
from api.stages import StagePhase, StageReason
from services.decide import Terms, decide
from services.experiments import ID_LETTERS
from services.inputs import spec_of
from services.observation import Observation
from services.retry import Backoff
from services.store.database import migrate_engine, open_engine, writing
from services.store.rows import attempt_rows, experiment_row, stage_rows
from services.store.schema import attempts, experiments, stages
from services.transition import apply
from tests.builders import spec_mapping

STORED, ACTIVE, ROWS_AT_ONCE = 10_000, 2_000, 1_000
DOMAINS = [f"domain-{number:02}" for number in range(22)]  # as many as The Pile has
MIXTURES = ["averaged", "reference", "hardest"]  # eight stages
WAITS = "It waits for a machine."
DONE, RUNNING, QUEUED, BACKOFF = StagePhase.SUCCEEDED, StagePhase.RUNNING, StagePhase.QUEUED, StagePhase.BACKOFF
PHASES: tuple[Mapping[str, StagePhase], ...] = (  # of those that are active, in turn; every other stage is blocked
    {"prepare": QUEUED},
    {"prepare": DONE, "reference": RUNNING, "proxy-hardest": QUEUED, "baseline-reference": BACKOFF},
    {"prepare": DONE, "reference": DONE, "proxy": RUNNING, "proxy-hardest": RUNNING, "baseline-reference": DONE},
    {
        **dict.fromkeys(("prepare", "reference", "proxy", "proxy-hardest", "baseline-reference"), DONE),
        "main": RUNNING,
        "baseline-hardest": QUEUED,
    },
)


def spec_text(name: str, source: str = "/data/text.jsonl") -> str:
    """What a person posts: 22 domains, eight stages."""
    return _template(source).replace("name: template\n", f"name: {name}\n")


@cache
def _template(source: str) -> str:
    domains = {domain: {"source": {"type": "jsonl", "paths": [source]}} for domain in DOMAINS}
    return yaml.safe_dump(spec_mapping("template", domains=domains, comparison={"mixtures": MIXTURES}))


def fill(database: str) -> list[Experiment]:
    """Store them, the active ones newest; returns those."""
    engine, now = open_engine(database), datetime.now(UTC)
    migrate_engine(engine)
    shapes = _shapes(now)
    kept = []
    with writing(engine) as connection:
        for start in range(0, STORED, ROWS_AT_ONCE):
            some = [_record(number, shapes, now) for number in range(start, min(STORED, start + ROWS_AT_ONCE))]
            connection.execute(experiments.insert(), [experiment_row(record) for record in some])
            connection.execute(stages.insert(), [row for record in some for row in stage_rows(record).values()])
            connection.execute(attempts.insert(), [row for record in some for row in attempt_rows(record).values()])
            kept += some[max(0, STORED - ACTIVE - start) :]
    engine.dispose()
    return kept


def _shapes(now: datetime) -> list[tuple[Stage, ...]]:
    """For each of PHASES its stages with none tried, and with what a pass writes beside each that is blocked: what it waits for."""
    blank = tuple(Stage(plan=planned) for planned in make_plan(parse_spec(spec_text("template"))).stages)
    shapes = []
    for phases in PHASES:
        record = _of(0, tuple(_tried(stage, "x", phases.get(stage.name), now, now) for stage in blank), now)
        for stage in record.stages:
            if stage.phase is StagePhase.BLOCKED:
                move = decide(record, stage, Observation(), Terms(spec_of(record).compute_for(stage.plan.kind), Backoff()), now)
                record = apply(record, stage, move, now) if move else record
        shapes.append(tuple(told if told.phase is StagePhase.BLOCKED else old for told, old in zip(record.stages, blank, strict=True)))
    return shapes


def _record(number: int, shapes: list[tuple[Stage, ...]], now: datetime) -> Experiment:
    at = now - timedelta(minutes=STORED - number)
    shape = shapes[number % len(shapes)]
    if number >= STORED - ACTIVE:
        phases = PHASES[number % len(PHASES)]
    else:  # every twentieth has failed in the end
        phases = {stage.name: DONE for stage in shape} | ({"evaluate": StagePhase.FAILED} if number % 20 == 0 else {})
    return _of(number, tuple(_tried(stage, _identity(number), phases.get(stage.name), at, now) for stage in shape), at)


def _of(number: int, tried: tuple[Stage, ...], at: datetime) -> Experiment:
    name = f"run-{number}"
    return Experiment(
        id=_identity(number),
        name=name,
        spec_text=spec_text(name),
        spec_sha256=f"{number:064x}",
        created_at=at,
        version=30,
        stages=tried,
    )


def _identity(number: int) -> str:
    return "x" + "".join(ID_LETTERS[number // 32**place % 32] for place in range(10))


def _tried(stage: Stage, identity: str, phase: StagePhase | None, at: datetime, now: datetime) -> Stage:
    """`stage` after one attempt; None: it is blocked."""
    if phase is None:
        return stage
    started = None if phase is QUEUED else now if phase is RUNNING else at
    attempt = Attempt(number=1, app=app_name(identity, stage.name, 1), created_at=at, launched_at=at, started_at=started)
    whole = {"phase": phase, "first_launched_at": at, "digest": sha256(f"{identity}/{stage.name}".encode()).hexdigest()}
    match phase:
        case StagePhase.RUNNING:
            return stage.model_copy(update={**whole, "reason": StageReason.STARTED, "attempts": (attempt,)})
        case StagePhase.QUEUED:
            return stage.model_copy(update={**whole, "reason": StageReason.ACCEPTED, "message": WAITS, "attempts": (attempt,)})
        case StagePhase.BACKOFF:
            ended = attempt.model_copy(update={"ended_at": at, "reason": StageReason.WORKER_FAILED})
            later = {"not_before": now + timedelta(days=1), "reason": StageReason.WORKER_FAILED, "attempts": (ended,)}
            return stage.model_copy(update={**whole, **later})
    reason = StageReason.COMPLETED if phase is DONE else StageReason.WORKER_FAILED_PERMANENTLY
    ended = attempt.model_copy(update={"ended_at": at, "reason": reason})
    result = keys.result(identity, stage.name) if phase is DONE else None
    return stage.model_copy(
        update={**whole, "reason": reason, "message": "", "result_key": result, "finished_at": at, "attempts": (ended,)}
    )
