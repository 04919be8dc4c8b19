"""The life of a stage: each row of the table, and what holds whatever is seen."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.experiment import Attempt, Experiment, Stage
from api.stage_config import AttemptFailure, ExitCode
from api.stages import LEGAL, TERMINAL, StagePhase, StageReason, is_legal
from services.decide import Effect, Move, Terms, decide, only_waits
from services.launch.cluster import AppPhase, AppStatus
from services.observation import Observation, StandIn
from services.retry import Backoff
from services.transition import apply, events, is_change
from tests.builders import START, make_experiment, make_spec

P, R, A = StagePhase, StageReason, AppPhase
NOW = START + timedelta(hours=1)
RESULT = "experiments/xaaaaaaaaaa/stages/prepare/result.json"
TERMS = Terms(make_spec(compute={"default": {"retries": 1, "stall_seconds": 60, "deadline_seconds": 100_000}}).compute.default, Backoff())
ABSENT, PENDING, RUNNING = AppStatus(A.ABSENT), AppStatus(A.PENDING), AppStatus(A.RUNNING, workers_up=1)
ENDED = {phase: AppStatus(phase) for phase in (A.SUCCEEDED, A.FAILED, A.CANCELLED)}
UNKNOWN = AppStatus(A.UNKNOWN)


def failure(message: str = "It broke.", retryable: bool = True, code: str = "unexpected", exit_code: int = 1) -> AttemptFailure:
    return AttemptFailure(attempt=1, code=code, message=message, retryable=retryable, exit_code=exit_code, rank=0, at=NOW)


def stage_in(phase: StagePhase, attempts: int = 1, **changes: object) -> Stage:
    """`prepare` in `phase`, its newest attempt begun at NOW; earlier ones failed."""
    made = [
        Attempt(number=n, app=f"xaaaaaaaaaa-prepare-{n}", created_at=NOW, launched_at=NOW, started_at=NOW) for n in range(1, attempts + 1)
    ]
    earlier = [attempt.model_copy(update={"ended_at": NOW, "reason": R.WORKER_FAILED}) for attempt in made[:-1]]
    stage = make_experiment().stages[0]
    return stage.model_copy(
        update={"phase": phase, "attempts": (*earlier, *made[-1:]), "first_launched_at": NOW if attempts else None, **changes}
    )


def move_of(stage: Stage, seen: Observation, now: datetime = NOW, cancel: bool = False, terms: Terms = TERMS) -> Move | None:
    experiment = make_experiment().with_stage(stage)
    if cancel:
        experiment = experiment.model_copy(update={"cancel_requested_at": NOW})
    return decide(experiment, stage, seen, terms, now)


ROWS = {
    "blocked, all there": (stage_in(P.BLOCKED, 0), Observation(), P.LAUNCHING, R.READY, Effect.LAUNCH),
    "blocked, adopted": (
        stage_in(P.BLOCKED, 0),
        Observation(stand_in=StandIn(RESULT, R.ADOPTED, "", None)),
        P.SUCCEEDED,
        R.ADOPTED,
        Effect.NONE,
    ),
    "blocked, an old attempt alive": (stage_in(P.BLOCKED), Observation(RUNNING), P.BLOCKED, R.PLANNED, Effect.CANCEL),
    "launching, no app": (stage_in(P.LAUNCHING), Observation(ABSENT), P.LAUNCHING, R.SUBMITTED, Effect.LAUNCH),
    "launching, app there": (stage_in(P.LAUNCHING), Observation(PENDING), P.QUEUED, R.ACCEPTED, Effect.NONE),
    "launching, app ended already": (stage_in(P.LAUNCHING), Observation(ENDED[A.FAILED]), P.QUEUED, R.ACCEPTED, Effect.NONE),
    "launching, refused": (stage_in(P.LAUNCHING), Observation(rejected="No."), P.FAILED, R.LAUNCH_REJECTED, Effect.NONE),
    "queued, up": (stage_in(P.QUEUED), Observation(RUNNING), P.RUNNING, R.STARTED, Effect.NONE),
    "queued, gone": (stage_in(P.QUEUED), Observation(ABSENT), P.BACKOFF, R.APP_LOST, Effect.NONE),
    "running, pending again": (stage_in(P.RUNNING), Observation(PENDING), P.QUEUED, R.PREEMPTED, Effect.NONE),
    "running, committed": (stage_in(P.RUNNING), Observation(RUNNING, committed=RESULT), P.SUCCEEDED, R.COMPLETED, Effect.NONE),
    "running, committed but failed": (
        stage_in(P.RUNNING),
        Observation(ENDED[A.FAILED], committed=RESULT, failure=failure()),
        P.SUCCEEDED,
        R.COMPLETED,
        Effect.NONE,
    ),
    "running, done without a result": (stage_in(P.RUNNING), Observation(ENDED[A.SUCCEEDED]), P.BACKOFF, R.RESULT_MISSING, Effect.NONE),
    "running, failed": (stage_in(P.RUNNING), Observation(ENDED[A.FAILED]), P.BACKOFF, R.WORKER_FAILED, Effect.NONE),
    "running, failed and exits 0": (
        stage_in(P.RUNNING),
        Observation(ENDED[A.SUCCEEDED], failure=failure(retryable=False)),
        P.FAILED,
        R.WORKER_FAILED_PERMANENTLY,
        Effect.NONE,
    ),
    "running, out of memory": (
        stage_in(P.RUNNING),
        Observation(ENDED[A.FAILED], failure=failure(code="out_of_memory")),
        P.BACKOFF,
        R.OUT_OF_MEMORY,
        Effect.NONE,
    ),
    "running, bad config": (
        stage_in(P.RUNNING),
        Observation(AppStatus(A.FAILED, exit_code=ExitCode.BAD_CONFIG)),
        P.FAILED,
        R.WORKER_FAILED_PERMANENTLY,
        Effect.NONE,
    ),
    "running, interrupted": (
        stage_in(P.RUNNING),
        Observation(AppStatus(A.FAILED, exit_code=ExitCode.INTERRUPTED)),
        P.BACKOFF,
        R.INTERRUPTED,
        Effect.NONE,
    ),
    "running, machine lost": (stage_in(P.RUNNING), Observation(AppStatus(A.FAILED, lost=True)), P.BACKOFF, R.NODE_LOST, Effect.NONE),
    "running, ended from outside": (stage_in(P.RUNNING), Observation(ENDED[A.CANCELLED]), P.BACKOFF, R.PREEMPTED, Effect.NONE),
    "running, last attempt failed": (stage_in(P.RUNNING, 2), Observation(ENDED[A.FAILED]), P.FAILED, R.ATTEMPTS_EXHAUSTED, Effect.NONE),
    "running, crashing for ever": (
        stage_in(P.RUNNING),
        Observation(AppStatus(A.RUNNING, 1, "It ended with 3.", exit_code=3, crashes=True)),
        P.BACKOFF,
        R.WORKER_FAILED,
        Effect.CANCEL,
    ),
    "queued, crashing for good": (
        stage_in(P.QUEUED),
        Observation(AppStatus(A.PENDING, exit_code=3, crashes=True), failure=failure(retryable=False)),
        P.FAILED,
        R.WORKER_FAILED_PERMANENTLY,
        Effect.CANCEL,
    ),
    "backoff, its time has come": (stage_in(P.BACKOFF, not_before=NOW), Observation(ABSENT), P.LAUNCHING, R.RETRYING, Effect.LAUNCH),
    "backoff, still alive": (stage_in(P.BACKOFF, not_before=NOW), Observation(RUNNING), P.BACKOFF, R.PLANNED, Effect.CANCEL),
    "backoff, committed late": (stage_in(P.BACKOFF), Observation(ABSENT, committed=RESULT), P.SUCCEEDED, R.COMPLETED, Effect.NONE),
    "cancelling, alive": (stage_in(P.CANCELLING), Observation(RUNNING), P.CANCELLING, R.PLANNED, Effect.CANCEL),
    "cancelling, gone": (stage_in(P.CANCELLING), Observation(ABSENT), P.CANCELLED, R.CANCELLED_BY_USER, Effect.NONE),
    "cancelling, committed": (stage_in(P.CANCELLING), Observation(RUNNING, committed=RESULT), P.SUCCEEDED, R.COMPLETED, Effect.NONE),
}


@pytest.mark.parametrize("row", ROWS)
def test_each_row_of_the_table(row: str) -> None:
    stage, seen, phase, reason, effect = ROWS[row]
    move = move_of(stage, seen)
    assert move is not None
    assert (move.phase, move.reason, move.effect) == (phase, reason, effect)
    assert is_legal(stage.phase, move.phase)


STAY = {
    "launching, the cluster does not know": (stage_in(P.LAUNCHING), Observation(UNKNOWN), NOW),
    "running, the cluster does not know": (stage_in(P.RUNNING), Observation(UNKNOWN), NOW),
    "running, reported lately": (stage_in(P.RUNNING), Observation(RUNNING, reported_at=NOW + timedelta(hours=1)), NOW + timedelta(hours=1)),
    "backoff, too early": (stage_in(P.BACKOFF, not_before=NOW + timedelta(seconds=1)), Observation(ABSENT), NOW),
}


@pytest.mark.parametrize("case", STAY)
def test_what_is_as_it_should_be_stays(case: str) -> None:
    stage, seen, now = STAY[case]
    assert move_of(stage, seen, now) is None


@pytest.mark.parametrize("phase", sorted(TERMINAL))
def test_terminal_is_final(phase: StagePhase) -> None:
    for seen in (Observation(), Observation(RUNNING), Observation(committed=RESULT)):
        assert move_of(stage_in(phase), seen, cancel=True) is None


def test_a_stage_is_not_called_silent_for_the_time_in_which_it_waited_for_another_machine() -> None:
    stage = stage_in(P.RUNNING, entered_at=NOW + timedelta(hours=1))
    assert move_of(stage, Observation(RUNNING, reported_at=NOW), NOW + timedelta(hours=1, seconds=30)) is None
    move = move_of(stage, Observation(RUNNING, reported_at=NOW), NOW + timedelta(hours=1, seconds=61))
    assert move
    assert move.reason is R.STALLED


def test_a_silent_stage_is_ended_before_it_is_tried_again() -> None:
    stage = stage_in(P.RUNNING)
    late = NOW + timedelta(seconds=61)
    move = move_of(stage, Observation(RUNNING, reported_at=NOW), late)
    assert move is not None
    assert (move.phase, move.reason, move.effect) == (P.BACKOFF, R.STALLED, Effect.CANCEL)
    assert "60 s" in move.message
    waiting = apply(make_experiment().with_stage(stage), stage, move, late).stages[0]
    much_later = late + timedelta(hours=1)
    again = move_of(waiting, Observation(RUNNING), much_later)
    assert again is not None
    assert (again.phase, again.effect) == (P.BACKOFF, Effect.CANCEL)
    gone = move_of(waiting, Observation(ENDED[A.CANCELLED]), much_later)
    assert gone is not None
    assert (gone.phase, gone.effect) == (P.LAUNCHING, Effect.LAUNCH)


def test_past_its_deadline_a_stage_fails_and_is_ended() -> None:
    for phase in (P.LAUNCHING, P.QUEUED, P.RUNNING, P.BACKOFF):
        move = move_of(stage_in(phase), Observation(RUNNING), NOW + timedelta(seconds=100_001))
        assert move is not None
        assert (move.phase, move.reason, move.effect) == (P.FAILED, R.DEADLINE_EXCEEDED, Effect.CANCEL)
        assert "100000 s" in move.message


def test_a_cancel_ends_every_live_phase() -> None:
    assert move_of(stage_in(P.BLOCKED, 0), Observation(), cancel=True) == Move(P.CANCELLED, R.CANCELLED_BY_USER, "It was cancelled.")
    for phase in (P.LAUNCHING, P.QUEUED, P.RUNNING, P.BACKOFF):
        move = move_of(stage_in(phase), Observation(RUNNING), cancel=True)
        assert move is not None
        assert (move.phase, move.effect) == (P.CANCELLING, Effect.CANCEL)


def test_a_stage_waits_for_what_it_needs_and_ends_with_it() -> None:
    experiment = make_experiment()
    evaluate = experiment.stages[-1]
    waits = decide(experiment, evaluate, Observation(), TERMS, NOW)
    assert waits is not None
    assert (waits.phase, waits.effect) == (P.BLOCKED, Effect.NONE)
    assert "prepare" in waits.message
    failed = experiment.with_stage(experiment.stages[0].model_copy(update={"phase": P.FAILED}))
    ends = decide(failed, evaluate, Observation(), TERMS, NOW)
    assert ends is not None
    assert (ends.phase, ends.reason) == (P.CANCELLED, R.PREDECESSOR_FAILED)
    assert "prepare" in ends.message


def test_an_elastic_stage_runs_when_its_minimum_is_up() -> None:
    terms = Terms(make_spec(compute={"default": {"replicas": {"min": 2, "max": 4}}}).compute.default, Backoff())
    few = move_of(stage_in(P.QUEUED), Observation(RUNNING), terms=terms)
    assert few is not None
    assert (few.phase, few.message) == (P.QUEUED, "1 of at least 2 machines are up.")
    enough = move_of(stage_in(P.QUEUED), Observation(AppStatus(A.RUNNING, workers_up=2)), terms=terms)
    assert enough is not None
    assert enough.phase is P.RUNNING


def test_the_sentence_holds_what_the_attempt_said() -> None:
    move = move_of(stage_in(P.RUNNING), Observation(ENDED[A.FAILED], failure=failure("The file web.jsonl cannot be read.")))
    assert move is not None
    assert move.message == "The file web.jsonl cannot be read. It is tried again in 2 s, 1 retry left."
    last = move_of(stage_in(P.RUNNING, 2), Observation(ENDED[A.FAILED], failure=failure("It broke.")))
    assert last is not None
    assert last.message == "It broke. That was the last of 2 attempts."


def test_the_record_of_an_attempt_tells_when_and_why() -> None:
    experiment = make_experiment()
    seconds = 0

    def step(seen: Observation) -> Stage:
        nonlocal experiment, seconds
        seconds += 1
        now = NOW + timedelta(seconds=seconds)
        move = decide(experiment, experiment.stages[0], seen, TERMS, now)
        assert move is not None
        experiment = apply(experiment, experiment.stages[0], move, now)
        return experiment.stages[0]

    step(Observation())
    step(Observation(PENDING))
    step(Observation(RUNNING))
    step(Observation(PENDING))
    step(Observation(RUNNING))
    first = step(Observation(AppStatus(A.FAILED, lost=True, message="The node went away."))).attempt
    assert first is not None
    assert [at and (at - NOW).seconds for at in (first.created_at, first.launched_at, first.started_at, first.ended_at)] == [1, 2, 3, 6]
    assert first.free
    assert first.reason is R.NODE_LOST
    assert "The node went away." in first.message
    seconds += 10
    assert [attempt.app for attempt in step(Observation(ABSENT)).attempts] == ["xaaaaaaaaaa-prepare-1", "xaaaaaaaaaa-prepare-2"]
    done = step(Observation(RUNNING, committed=RESULT))
    assert done.result_key == RESULT
    assert done.finished_at == NOW + timedelta(seconds=seconds)
    assert (done.first_launched_at or NOW) - NOW == timedelta(seconds=1)


def test_what_is_not_in_the_table_is_refused() -> None:
    stage = stage_in(P.SUCCEEDED)
    with pytest.raises(ValueError, match="may not go"):
        apply(make_experiment(), stage, Move(P.LAUNCHING, R.READY), NOW)


def test_an_experiment_that_ends_is_told_of_once() -> None:
    experiment = make_experiment(comparison={"mixtures": []})
    for stage in experiment.stages[1:]:
        experiment = experiment.with_stage(stage.model_copy(update={"phase": P.SUCCEEDED}))
    stage = experiment.stages[0].model_copy(update={"phase": P.RUNNING})
    experiment = experiment.with_stage(stage)
    after = apply(experiment, stage, Move(P.SUCCEEDED, R.COMPLETED, result_key=RESULT), NOW)
    assert [event.kind for event in events(experiment, after, "prepare")] == ["stage_changed", "experiment_finished"]


statuses = st.builds(
    AppStatus,
    phase=st.sampled_from(A),
    workers_up=st.integers(0, 3),
    message=st.sampled_from(["", "OOMKilled"]),
    exit_code=st.sampled_from([None, 0, 1, 64, 75, -9]),
    lost=st.booleans(),
    crashes=st.booleans(),
    stranded=st.booleans(),
    replicas=st.sampled_from([None, 1, 2]),
)
failures = st.none() | st.builds(failure, retryable=st.booleans(), exit_code=st.sampled_from([1, 64, 75]))
stand_ins = st.none() | st.just(StandIn(RESULT, R.ADOPTED, "", None)) | st.just(StandIn(RESULT, R.CONVERGED, "", "d" * 64))
observations = st.builds(
    Observation,
    app=statuses,
    committed=st.sampled_from([None, None, None, None, RESULT]),
    failure=failures,
    stand_in=stand_ins,
    rejected=st.sampled_from([None, None, None, "No."]),
)
steps = st.lists(st.tuples(observations, st.integers(0, 200), st.integers(0, 40)), max_size=60)


@given(steps)
@settings(max_examples=300, deadline=None)
def test_any_walk_stays_inside_the_table(walk: list[tuple[Observation, int, int]]) -> None:
    """Whatever is seen: legal transitions only (apply refuses others), no attempt beside one that may be alive, numbered one by one."""
    experiment, now = make_experiment(), NOW
    for seen, seconds, cancel in walk:
        now += timedelta(seconds=seconds)
        if cancel == 40:
            experiment = experiment.model_copy(update={"cancel_requested_at": now})
        for name in [stage.name for stage in experiment.stages]:
            experiment = _step(experiment, name, seen, now)


def _step(experiment: Experiment, name: str, seen: Observation, now: datetime) -> Experiment:
    stage = experiment.stage(name)
    assert stage is not None
    if stage.attempt is None:
        seen = Observation(stand_in=seen.stand_in, rejected=seen.rejected)
    move = decide(experiment, stage, seen, TERMS, now)
    if only_waits(experiment, stage):  # then a pass may leave it unseen
        assert decide(experiment, stage, Observation(), TERMS, now + timedelta(days=9)) == move
    if move is None:
        return experiment
    after = apply(experiment, stage, move, now)
    assert is_change(stage, move) is (after != experiment)
    changed = after.stage(name)
    assert changed is not None
    assert not stage.phase.terminal
    assert [attempt.number for attempt in changed.attempts] == list(range(1, len(changed.attempts) + 1))
    if len(changed.attempts) > len(stage.attempts):
        assert not seen.alive
        assert all(attempt.ended_at for attempt in stage.attempts)
        assert sum(not attempt.free for attempt in stage.attempts) <= TERMS.compute.retries
    assert (changed.finished_at is not None) == changed.phase.terminal
    assert (changed.result_key is not None) == (changed.phase is P.SUCCEEDED)
    if changed.phase.terminal and changed.attempt:
        assert changed.attempt.ended_at
    return after


def test_every_phase_is_reached_and_every_live_one_has_a_way_to_an_end() -> None:
    reached = {P.BLOCKED}
    for _ in LEGAL:
        reached |= {after for before in reached for after in LEGAL[before]}
    assert reached == set(P)
    for phase in P:
        ends = {phase}
        for _ in LEGAL:
            ends |= {after for before in ends for after in LEGAL[before]}
        assert ends & TERMINAL
    assert all(not LEGAL[phase] for phase in TERMINAL)
