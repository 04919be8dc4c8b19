"""What the leader measures of stages and living experiments, told by hand at times of our own."""

from datetime import datetime, timedelta
from typing import Any

from api.domains import DomainWeights
from api.experiment import Experiment, Stage
from api.stage_config import StageReport
from api.stages import StagePhase, StageReason
from services.decide import Move
from services.metrics import Metrics
from services.metrics.fleet import Restarted
from services.transition import apply
from services.watch import Pass
from tests.builders import START, make_experiment

NAMES = ("books", "code", "web")


class NoCounts:
    """Of a store, what a whole scrape asks for."""

    def counts(self) -> dict[str, dict[str, int]]:
        return {}


class Hand:
    """A reconciler's place: it moves records on and tells of it."""

    def __init__(self, experiments: int = 50) -> None:
        self.now = START
        self.metrics = Metrics(NoCounts(), experiments, lambda: self.now)  # type: ignore[arg-type]  # all that a scrape asks of a store

    def move(self, experiment: Experiment, name: str, seconds: float, phase: StagePhase, reason: StageReason) -> Experiment:
        """After so many seconds, into `phase`."""
        self.now += timedelta(seconds=seconds)
        before = stage_of(experiment, name)
        after = apply(experiment, before, Move(phase, reason), self.now)
        self.metrics.moved(before, stage_of(after, name), after)
        return after

    def run(self, experiment: Experiment, name: str) -> Experiment:
        """Until it runs: 1 s, 2 s and 30 s."""
        experiment = self.move(experiment, name, 1, StagePhase.LAUNCHING, StageReason.READY)
        experiment = self.move(experiment, name, 2, StagePhase.QUEUED, StageReason.ACCEPTED)
        return self.move(experiment, name, 30, StagePhase.RUNNING, StageReason.STARTED)

    def report(self, experiment: Experiment, name: str, **said: Any) -> None:
        weights = DomainWeights.uniform(NAMES)
        given = {"attempt": 1, "updated_at": self.now, "activity": "training", "step": 3, "domain_weights": weights, **said}
        self.metrics.reported(experiment, stage_of(experiment, name), StageReport(**given))

    def passed(self, *, leads: bool = True, failed: bool = False) -> None:
        self.metrics.passed(Pass(0.1, 0, failed, leads))

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            f"solfa_{name}", {"project": "default", **labels} if name.startswith("experiment_") else labels
        )

    def series(self, name: str) -> list[dict[str, str]]:
        found = [one for family in self.metrics.registry.collect() for one in family.samples if one.name == f"solfa_{name}"]
        return [sample.labels for sample in found]


def stage_of(experiment: Experiment, name: str) -> Stage:
    stage = experiment.stage(name)
    assert stage
    return stage


def many(number: int) -> list[Experiment]:
    return [make_experiment(f"x{chr(97 + index) * 10}", f"search-{index}") for index in range(number)]


def test_a_stages_times_are_those_between_its_moves() -> None:
    hand = Hand()
    experiment = hand.run(make_experiment(), "prepare")
    hand.move(experiment, "prepare", 500, StagePhase.SUCCEEDED, StageReason.COMPLETED)
    left = ("blocked", "queued", "running")
    seconds = {phase: hand.value("stage_phase_duration_seconds_sum", kind="prepare", phase=phase) for phase in left}
    assert seconds == {"blocked": 1, "queued": 30, "running": 500}
    assert hand.value("launch_latency_seconds_sum", kind="prepare") == 32
    assert hand.value("attempts_ended_total", kind="prepare", reason="completed") == 1
    assert hand.value("stage_transitions_total", kind="prepare", phase="running", reason="started") == 1
    assert hand.value("retries_total", kind="prepare", reason="completed") is None


def test_a_retry_is_counted_with_its_reason_and_a_launch_once_an_attempt() -> None:
    hand = Hand()
    experiment = hand.run(make_experiment(), "prepare")
    experiment = hand.move(experiment, "prepare", 10, StagePhase.QUEUED, StageReason.PREEMPTED)
    experiment = hand.move(experiment, "prepare", 10, StagePhase.RUNNING, StageReason.STARTED)
    experiment = hand.move(experiment, "prepare", 10, StagePhase.BACKOFF, StageReason.NODE_LOST)
    assert hand.value("launch_latency_seconds_count", kind="prepare") == 1
    assert hand.value("retries_total", kind="prepare", reason="node_lost") == 1
    hand.run(experiment, "prepare")
    assert hand.value("launch_latency_seconds_count", kind="prepare") == 2


def test_what_can_happen_has_its_series_before_it_does() -> None:
    hand = Hand()
    before = {name: hand.series(name) for name in ("attempts_ended_total", "stage_transitions_total", "retries_total")}
    experiment = hand.run(make_experiment(), "prepare")
    experiment = hand.move(experiment, "prepare", 10, StagePhase.BACKOFF, StageReason.NODE_LOST)
    experiment = hand.move(experiment, "prepare", 10, StagePhase.LAUNCHING, StageReason.RETRYING)
    hand.move(experiment, "prepare", 10, StagePhase.CANCELLING, StageReason.CANCEL_REQUESTED)
    hand.move(hand.run(experiment, "proxy"), "proxy", 10, StagePhase.FAILED, StageReason.ATTEMPTS_EXHAUSTED)
    assert before == {name: hand.series(name) for name in before}


def test_a_launch_of_twenty_seconds_is_told_from_one_of_fifty() -> None:
    bounds = {float(labels["le"]) for labels in Hand().series("launch_latency_seconds_bucket")}
    assert {10, 15, 20, 30, 45, 60, 90, 120} < bounds
    assert {60, 120} < {float(labels["le"]) for labels in Hand().series("reconcile_pass_duration_seconds_bucket")}


def test_the_time_to_weights_ends_with_the_last_proxy() -> None:
    hand = Hand()
    experiment = make_experiment(doremi={"rounds": 2})
    for name in ("proxy-1", "proxy-2"):
        assert hand.value("submit_to_weights_seconds_count") == 0
        experiment = hand.move(hand.run(experiment, name), name, 67, StagePhase.SUCCEEDED, StageReason.COMPLETED)
    assert hand.value("submit_to_weights_seconds_sum") == 200


def test_only_so_many_experiments_have_series_and_the_others_are_counted_once() -> None:
    hand = Hand(2)
    live = [hand.run(one, "prepare") for one in many(5)]
    for _ in range(3):
        hand.metrics.sees(live)
        for one in live:
            hand.report(one, "prepare")
    for name in ("experiment_domain_weight_ratio", "experiment_report_age_seconds", "experiment_stage_phase_seconds"):
        assert {labels["experiment"] for labels in hand.series(name)} == {"search-0", "search-1"}
    assert hand.value("experiments_dropped_total") == 3
    hand.metrics.sees(live[1:])
    for one in live[1:]:
        hand.report(one, "prepare")
    assert {labels["experiment"] for labels in hand.series("experiment_step")} == {"search-1", "search-2"}
    assert hand.value("experiments_dropped_total") == 3


def test_the_longest_wait_counts_all_that_are_live_whatever_the_cap() -> None:
    hand = Hand(0)
    experiment = hand.move(make_experiment(), "prepare", 1, StagePhase.LAUNCHING, StageReason.READY)
    hand.metrics.sees([hand.move(experiment, "prepare", 1, StagePhase.QUEUED, StageReason.ACCEPTED)])
    hand.now += timedelta(seconds=3000)
    assert hand.value("stage_phase_age_seconds", kind="prepare", phase="queued") == 3000
    assert hand.series("experiment_stage_phase_seconds") == []


def test_those_that_run_have_series_before_those_that_wait() -> None:
    hand = Hand(2)
    live = [*many(5)[:4], hand.run(many(5)[4], "prepare")]
    hand.metrics.sees(live)
    assert {labels["experiment"] for labels in hand.series("experiment_attempts")} == {"search-0", "search-4"}
    assert hand.value("experiments_without_series") == 3


def test_who_leads_again_does_not_count_the_same_experiments_again() -> None:
    hand = Hand(1)
    for leads in (True, False, True):
        hand.passed(leads=leads)
        hand.metrics.sees(many(2))
    assert hand.value("experiments_dropped_total") == 1


def test_one_without_series_that_falls_silent_is_told_by_its_kind() -> None:
    hand = Hand(0)
    experiment = hand.run(make_experiment(), "proxy")
    hand.metrics.sees([experiment])
    hand.report(experiment, "proxy", progressed_at=hand.now - timedelta(seconds=600))
    hand.now += timedelta(seconds=90)
    assert hand.series("experiment_report_age_seconds") == []
    assert hand.value("stage_report_age_seconds", kind="proxy") == 90
    assert hand.value("stage_progress_age_seconds", kind="proxy") == 90, "it was given its machine then"
    hand.report(experiment, "proxy", progressed_at=hand.now - timedelta(seconds=80))
    hand.now += timedelta(seconds=10)
    assert (hand.value("stage_report_age_seconds", kind="proxy"), hand.value("stage_progress_age_seconds", kind="proxy")) == (10, 90)


def test_an_attempt_that_never_reported_is_silent_since_it_began_to_run() -> None:
    hand = Hand()
    hand.metrics.sees([hand.run(make_experiment(), "prepare")])
    hand.now += timedelta(seconds=1700)
    for name in ("report", "progress"):
        assert hand.value(f"experiment_{name}_age_seconds", experiment="pile", stage="prepare") == 1700
        assert hand.value(f"stage_{name}_age_seconds", kind="prepare") == 1700


def test_a_new_leader_knows_how_long_a_stage_has_waited_since_it_lost_its_machine() -> None:
    first, second = Hand(), Hand()
    experiment = first.move(first.run(make_experiment(), "prepare"), "prepare", 36_000, StagePhase.QUEUED, StageReason.PREEMPTED)
    second.now = first.now + timedelta(seconds=20)
    second.metrics.sees([experiment])
    assert second.value("stage_phase_age_seconds", kind="prepare", phase="queued") == 20
    second.move(experiment, "prepare", 5, StagePhase.RUNNING, StageReason.STARTED)
    assert second.value("stage_phase_duration_seconds_sum", kind="prepare", phase="queued") == 25


def test_a_report_of_an_older_version_does_not_say_that_it_stands_still() -> None:
    hand = Hand()
    experiment = hand.run(make_experiment(), "prepare")
    hand.metrics.sees([experiment])
    hand.now += timedelta(seconds=600)
    hand.report(experiment, "prepare")
    assert hand.value("experiment_progress_age_seconds", experiment="pile", stage="prepare") == 0


def test_a_new_leader_takes_times_from_the_record() -> None:
    first, second = Hand(), Hand()
    experiment = first.run(make_experiment(), "prepare")
    second.metrics.sees([experiment])
    second.now = first.now + timedelta(seconds=60)
    assert second.value("experiment_stage_phase_seconds", experiment="pile", stage="prepare", phase="running") == 60
    assert second.value("stage_phase_age_seconds", kind="proxy", phase="blocked") == 93


def test_reports_age_until_the_stage_has_ended() -> None:
    hand = Hand()
    experiment = hand.run(make_experiment(), "prepare")
    hand.metrics.sees([experiment])
    hand.report(experiment, "prepare")
    hand.now += timedelta(seconds=90)
    assert hand.value("experiment_report_age_seconds", experiment="pile", stage="prepare") == 90
    hand.metrics.sees([hand.move(experiment, "prepare", 1, StagePhase.SUCCEEDED, StageReason.COMPLETED)])
    assert hand.series("experiment_report_age_seconds") == []
    assert hand.series("experiment_domain_weight_ratio") == []


def test_elastic_restarts_are_counted_from_reports_and_worlds_say_why() -> None:
    hand = Hand()
    experiment = hand.run(make_experiment(), "proxy")
    for attempt, restarts, processes in ((1, 0, 4), (1, 2, 3), (1, 2, 3), (1, 3, 4), (1, 4, 4), (2, 0, 4), (2, 1, 4)):
        hand.report(experiment, "proxy", attempt=attempt, restarts=restarts, world_size=processes)
    counted = {reason: hand.value("elastic_restarts_total", kind="proxy", reason=reason) for reason in Restarted}
    assert counted == {Restarted.FEWER: 2, Restarted.MORE: 1, Restarted.SAME: 2}


def test_a_restart_is_counted_though_the_stage_waited_for_a_machine_meanwhile() -> None:
    hand = Hand()
    experiment = hand.run(make_experiment(), "proxy")
    hand.report(experiment, "proxy", restarts=0, world_size=2)
    waiting = hand.move(experiment, "proxy", 1, StagePhase.QUEUED, StageReason.PREEMPTED)
    hand.metrics.sees([waiting])
    running = hand.move(waiting, "proxy", 9, StagePhase.RUNNING, StageReason.STARTED)
    hand.metrics.sees([running])
    hand.report(running, "proxy", restarts=1, world_size=2)
    assert hand.value("elastic_restarts_total", kind="proxy", reason=Restarted.SAME) == 1


def test_a_leader_that_takes_over_does_not_count_what_the_one_before_has_counted() -> None:
    first, second = Hand(), Hand()
    experiment = first.run(make_experiment(), "proxy")
    for restarts in (0, 2):
        first.report(experiment, "proxy", restarts=restarts)
    for restarts in (2, 3):
        second.report(experiment, "proxy", restarts=restarts)
    total = sum(hand.value("elastic_restarts_total", kind="proxy", reason=Restarted.SAME) or 0 for hand in (first, second))
    assert total == 3


def test_one_that_follows_says_nothing_of_experiments_and_that_it_follows() -> None:
    hand = Hand()
    experiment = hand.run(make_experiment(), "prepare")
    hand.metrics.sees([experiment])
    hand.report(experiment, "prepare")
    hand.passed()
    assert (hand.value("leader"), len(hand.series("experiment_step"))) == (1, 1)
    hand.passed(leads=False)
    assert (hand.value("leader"), hand.series("experiment_step"), hand.series("stage_phase_age_seconds")) == (0, [], [])
    hand.now += timedelta(hours=1)
    assert hand.value("reconcile_lag_seconds") == 0
    assert hand.value("reconcile_passes_total", outcome="follows") == 1


def test_lag_grows_from_the_last_whole_pass() -> None:
    hand = Hand()
    hand.passed()
    when = hand.value("reconcile_last_pass_timestamp_seconds")
    hand.now += timedelta(seconds=40)
    hand.passed(failed=True)
    assert hand.value("reconcile_lag_seconds") == 40
    assert hand.value("reconcile_last_pass_timestamp_seconds") == when == datetime.timestamp(START)
    hand.passed()
    assert hand.value("reconcile_lag_seconds") == 0
