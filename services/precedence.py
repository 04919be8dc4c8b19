"""Which of an experiment's stages go first where few attempts run at once: those that find the weights, which everybody waits for. Pure."""

from api.experiment import Experiment, Stage
from api.stages import StagePhase


def gives_way(experiment: Experiment, stage: Stage, slots: int) -> bool:
    """Whether a stage that could be launched waits for the search, so that of `slots` one stays free for the search's next stage.

    No stage of the search waits for one that gives way, so none waits for ever: the search ends, in whatever way.
    """
    if experiment.final_proxy.phase.terminal:
        return False
    search = _search(experiment)
    beside = [one for one in experiment.stages if one.name not in search and not one.phase.terminal and one.phase is not StagePhase.BLOCKED]
    return stage.name not in search and len(beside) >= slots - 1


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
