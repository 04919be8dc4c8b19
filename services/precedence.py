"""Which of an experiment's stages go first where few attempts run at once: those that find the weights, then the model on them. Pure."""

from api.experiment import Experiment, Stage
from api.stages import StageKind, StagePhase


def gives_way(experiment: Experiment, stage: Stage, slots: int) -> bool:
    """Whether a stage that could be launched waits for the search, so that of `slots` one stays free for the search's next stage.

    No stage of the search waits for one that gives way, so none waits for ever: the search ends, in whatever way. What is due then, moves
    in the pass that follows.
    """
    if experiment.final_proxy.phase.terminal:
        return any(one.plan.kind is StageKind.MAIN and one.name != stage.name and _is_due(experiment, one) for one in experiment.stages)
    search = _search(experiment)
    beside = [one for one in experiment.stages if one.name not in search and not one.phase.terminal and one.phase is not StagePhase.BLOCKED]
    return stage.name not in search and len(beside) >= slots - 1


def _is_due(experiment: Experiment, stage: Stage) -> bool:
    needs = [need for name in stage.plan.needs if (need := experiment.stage(name))]
    return stage.phase is StagePhase.BLOCKED and all(need.phase is StagePhase.SUCCEEDED for need in needs)


def _search(experiment: Experiment) -> frozenset[str]:
    """Names of the stages that lead to the weights: the last proxy, and all that it needs."""
    found: set[str] = set()
    ahead = [experiment.final_proxy.name]
    while ahead:
        name = ahead.pop()
        if name not in found and (stage := experiment.stage(name)):
            found.add(name)
            ahead += stage.plan.needs
    return frozenset(found)
