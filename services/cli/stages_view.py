"""The stages of an experiment: phase, progress, figures, and a sentence where one is needed; and the plan as a tree."""

from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from api.plan import Plan, PlannedStage
from api.spec import Compute, ExperimentSpec
from api.stage_config import ExitCode
from api.stages import StageKind, StagePhase
from api.views import ExperimentSummary, ExperimentView, StageView
from services.progress import elapsed, progress

MARKS = {
    StagePhase.SUCCEEDED: ("✔", "#009e73"),
    StagePhase.FAILED: ("✘", "bold #d55e00"),
    StagePhase.CANCELLED: ("–", "dim"),
    StagePhase.RUNNING: ("▶", "#56b4e9"),
    StagePhase.BACKOFF: ("↻", "#e69f00"),
    StagePhase.CANCELLING: ("…", "#e69f00"),
    StagePhase.QUEUED: ("◷", "dim"),
    StagePhase.LAUNCHING: ("◷", "dim"),
    StagePhase.BLOCKED: ("·", "dim"),
}
BAR_WIDTH = 24
LAST_LINES = 8  # of a failed stage; `solfa logs` has the rest
ROOMY = 110  # columns from which a terminal has room for words beside the bars


def status_view(experiment: ExperimentView, stages: list[StageView], now: datetime, width: int) -> RenderableType:
    """A row a stage, with a bar for what runs; `now` is for elapsed times, `width` the terminal's: below ROOMY, words stand under bars."""
    table = Table(box=None, padding=(0, 1))
    table.add_column("", no_wrap=True)
    table.add_column("stage", style="bold", no_wrap=True)
    table.add_column("phase", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("progress", overflow="fold")
    for stage in stages:
        mark, style = MARKS[stage.phase]
        phase = "adopted" if stage.adopted else str(stage.phase)
        parts = [part for part in (_bar(stage), Text(_words(stage, now), style="dim")) if part]
        progress = Text("  " if width >= ROOMY else "\n").join(parts)
        table.add_row(Text(mark, style=style), stage.name, Text(phase, style=style), elapsed(stage, now), progress)
    last_words = [part for stage in stages for part in _last_words(stage)]
    return Group(Text(f"{experiment.name}: {experiment.phase}", style="bold"), table, *last_words)


def _last_words(stage: StageView) -> list[Text]:
    """Of a stage that failed: where and how, and the last lines that were written there."""
    failure = stage.failure
    if failure is None or not failure.last_lines or (failure.rank is not None and failure.exit_code == ExitCode.BAD_CONFIG):
        return []  # the last: its sentence, which the stage's row shows, says it all
    told = {"exit code": failure.exit_code, "rank": failure.rank, "replica": failure.replica}
    known = ", ".join(f"{name} {value}" for name, value in told.items() if value is not None)
    lines = [Text(f"   {line}", style="dim") for line in failure.last_lines[-LAST_LINES:]]
    return [Text(f"\n {stage.name} ended with:" if not known else f"\n {stage.name} ended with {known}:"), *lines]


def _bar(stage: StageView) -> Text:
    """How much is done; nothing where that is not known."""
    report = stage.report
    done = 0.0
    if stage.phase is StagePhase.SUCCEEDED and not stage.adopted:
        done = 1.0
    elif stage.phase is StagePhase.RUNNING and report and report.total:
        done = min(1.0, report.step / report.total)
    else:
        return Text()
    cells = round(done * BAR_WIDTH)
    return Text.assemble(("━" * cells, MARKS[stage.phase][1]), ("─" * (BAR_WIDTH - cells), "dim"))


def _words(stage: StageView, now: datetime) -> str:
    asked = f"({_machines(stage.replicas)} asked for)" if stage.replicas and not stage.phase.terminal else ""
    return " ".join(part for part in (progress(stage, now), asked) if part)


def _machines(count: int) -> str:
    return f"{count} {'machine' if count == 1 else 'machines'}"


def change_line(stage: StageView) -> str:
    """One line for a stage that has moved, where nothing can be redrawn."""
    said = f". {stage.message}" if stage.message else ""
    return f"{stage.name}: {'adopted' if stage.adopted else stage.phase}{said}"


def list_view(experiments: list[ExperimentSummary], project: str) -> RenderableType:
    """A row an experiment; `project` is the one that was meant, "" for whichever may be seen."""
    if not experiments:
        within = f" in the project {project}" if project else ""
        return Text(f"There are no experiments{within} yet; submit one with `solfa submit SPEC`.")
    several = len({one.project for one in experiments}) > 1
    table = Table(box=None, padding=(0, 1))
    for column in ("name", "id", *(("project",) if several else ()), "phase", "stages", "created"):
        table.add_column(column)
    for one in experiments:
        done, total = one.stages.get(StagePhase.SUCCEEDED, 0), sum(one.stages.values())
        told = (str(one.phase), f"{done} of {total} done", f"{one.created_at.astimezone():%Y-%m-%d %H:%M}")
        table.add_row(one.name, one.id, *((one.project,) if several else ()), *told)
    return table


def plan_view(spec: ExperimentSpec, plan: Plan) -> RenderableType:
    """Each stage, what it trains or makes, what it needs, and what it waits for."""
    tree = Tree(Text.assemble((spec.name, "bold"), f": {len(spec.domains)} domains, {len(plan.stages)} stages"))
    for stage in plan.stages:
        on = (f"\n  on {_compute(spec.compute_for(stage.kind))}", "dim")
        after = (f"\n  after {', '.join(stage.needs)}", "dim") if stage.needs else ""
        tree.add(Text.assemble((stage.name, "bold"), f"  {_purpose(spec, stage)}", on, after))
    return tree


def _compute(compute: Compute) -> str:
    """The machines of a stage, and what each of them has."""
    least, most = compute.replicas.min, compute.replicas.max
    machines = _machines(most) if least == most else f"{least} to {most} machines"
    devices = {"GPU": compute.gpus, **compute.resources}
    has = [_count(compute.cpus, "CPU"), *(_count(number, name) for name, number in devices.items() if number), f"{compute.memory_mb:,} MiB"]
    return f"{machines} with {', '.join(has)}"


def _count(number: float, name: str) -> str:
    return f"{number:g} {name}{'s' if number != 1 and '/' not in name else ''}"


def _purpose(spec: ExperimentSpec, stage: PlannedStage) -> str:
    if stage.kind is StageKind.PREPARE:
        return f"tokenise and pack into sequences of {spec.sequence_length:,} tokens"
    if stage.kind is StageKind.EVALUATE:
        return "held-out loss of each large model, domain by domain"
    training = spec.training_for(stage.kind)
    tokens = training.steps * training.global_batch * spec.sequence_length
    size = f"{training.steps:,} steps of {training.global_batch:,} sequences ({tokens:,} tokens)"
    if stage.kind is StageKind.PROXY:
        return f"Group DRO ({stage.objective}), {size}"
    return f"{size} on {_mixture(stage)}"


def _mixture(stage: PlannedStage) -> str:
    if stage.mixture is None:
        return "no mixture"
    if stage.mixture.stage:
        return f"the weights of {stage.mixture.stage}"
    return {"tokens": "token shares", "uniform": "uniform weights"}.get(stage.mixture.kind, "given weights")
