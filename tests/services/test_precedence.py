"""Where few attempts run at once, the search goes first, nothing waits for ever, and no slot is idle that somebody could use."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from api.experiment import Experiment, Stage
from api.stages import StageKind, StagePhase
from services.decide import Terms, decide
from services.launch.cluster import AppPhase, AppStatus
from services.observation import Observation
from services.retry import Backoff
from services.transition import apply
from tests.api.test_plan import PLANS
from tests.builders import START, make_experiment, make_spec

P = StagePhase
TERMS = Terms(make_spec().compute.default, Backoff())


def carried_out(experiment: Experiment, slots: int | None, order: int = 1) -> list[list[str]]:
    """Which stages ran together, round by round, where `slots` attempts run at once in the order in which they were launched; `order` -1:
    a pass comes upon the last stage first."""
    rounds: list[list[str]] = []
    now, queue = START, list[str]()
    while any(not stage.phase.terminal for stage in experiment.stages):
        for name in [stage.name for stage in experiment.stages][::order]:
            experiment, launched = passed(experiment, name, slots)
            queue += [name] * launched
        running, queue = queue[:slots], queue[slots:] if slots else []
        assert running, "they wait for each other"
        rounds.append(running)
        now += timedelta(minutes=1)
        for name in running:
            stage = of(experiment, name)
            move = decide(experiment, stage, Observation(committed=f"experiments/{experiment.id}/stages/{name}/result.json"), TERMS, now)
            assert move
            experiment = apply(experiment, stage, move, now)
    return rounds


def of(experiment: Experiment, name: str) -> Stage:
    found = experiment.stage(name)
    assert found
    return found


def passed(experiment: Experiment, name: str, slots: int | None) -> tuple[Experiment, bool]:
    """The record after a pass over one stage, and whether it was launched."""
    stage = of(experiment, name)
    if stage.phase is not P.BLOCKED:
        return experiment, False
    move = decide(experiment, stage, Observation(AppStatus(AppPhase.ABSENT)), replace(TERMS, slots=slots), START)
    assert move
    return apply(experiment, stage, move, START), move.phase is P.LAUNCHING


def of_plan(changes: dict[str, Any]) -> list[str]:
    return [stage.name for stage in make_experiment(**changes).stages]


def weights_after(experiment: Experiment, slots: int | None) -> int:
    """Rounds until the weights are there."""
    return [experiment.final_proxy.name in running for running in carried_out(experiment, slots)].index(True)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_the_weights_come_as_soon_as_if_there_were_nothing_else(plan: str, slots: int) -> None:
    experiment = make_experiment(**PLANS[plan])
    alone = make_experiment(**{**PLANS[plan], "comparison": {"mixtures": []}})
    assert weights_after(experiment, slots) == weights_after(alone, None)
    done = [name for running in carried_out(experiment, slots) for name in running]
    assert sorted(done) == sorted(stage.name for stage in experiment.stages)


@pytest.mark.parametrize("plan", [name for name, changes in PLANS.items() if "main" in of_plan(changes)])
@pytest.mark.parametrize("order", [1, -1])
def test_the_large_model_on_the_weights_goes_before_its_baselines_in_whatever_order_a_pass_comes_upon_them(plan: str, order: int) -> None:
    """It comes upon baselines that gave way first: those that wait for the search itself it passes over until that has ended."""
    experiment = make_experiment(**PLANS[plan])
    done = [name for (name,) in carried_out(experiment, 1, order)]
    baselines = {stage.name for stage in experiment.stages if stage.plan.kind is StageKind.BASELINE}
    assert baselines.isdisjoint(done[: done.index("main")])


def test_what_is_not_of_the_search_uses_the_slots_that_the_search_leaves() -> None:
    experiment = make_experiment(**PLANS["ablations"])
    assert carried_out(experiment, 1)[:3] == [["prepare"], ["reference"], ["proxy"]]
    assert [len(running) for running in carried_out(experiment, 2)[:3]] == [1, 2, 2]
    assert carried_out(experiment, None)[1] == ["reference", "proxy-hardest", "baseline-reference", "baseline-uniform"]


def test_who_waits_says_for_what() -> None:
    experiment, _ = passed(make_experiment(), "prepare", 1)
    done = of(experiment, "prepare").model_copy(update={"phase": P.SUCCEEDED, "result_key": "k"})
    experiment, launched = passed(experiment.with_stage(done), "baseline-uniform", 1)
    assert not launched
    assert of(experiment, "baseline-uniform").message == (
        "It waits until proxy has found the weights: one attempt runs at a time here, and the search goes first."
    )
    ended = of(experiment, "proxy").model_copy(update={"phase": P.CANCELLED})
    assert passed(experiment.with_stage(ended), "baseline-uniform", 1)[1], "a search that failed holds nothing up"
