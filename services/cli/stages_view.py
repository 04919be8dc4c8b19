"""The stages of an experiment: phase, progress, figures, and a sentence where one is needed; and the plan as a tree."""

from datetime import datetime

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from api.plan import Plan
from api.spec import ExperimentSpec
from api.stages import StageKind, StagePhase
from api.views import ExperimentSummary, ExperimentView, StageView

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


def status_view(experiment: ExperimentView, stages: list[StageView], now: datetime) -> RenderableType:
    """A row a stage, with a bar for what runs; `now` is for elapsed times."""
    table = Table(box=None, padding=(0, 1), title=f"{experiment.name}: {experiment.phase}", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("stage", style="bold")
    table.add_column("phase")
    table.add_column("progress", width=24)
    table.add_column("", justify="right")
    table.add_column("what it says", style="dim", overflow="fold", ratio=1)
    for stage in stages:
        mark, style = MARKS[stage.phase]
        phase = "adopted" if stage.adopted else str(stage.phase)
        table.add_row(Text(mark, style=style), stage.name, Text(phase, style=style), _bar(stage), _elapsed(stage, now), _words(stage))
    return table


def _bar(stage: StageView) -> RenderableType:
    report = stage.report
    if stage.phase is StagePhase.SUCCEEDED:
        return ProgressBar(total=1, completed=1, width=24)
    if report is None or stage.phase is not StagePhase.RUNNING:
        return ""
    return ProgressBar(total=report.total or None, completed=report.step, width=24, pulse=not report.total)


def _words(stage: StageView) -> str:
    report = stage.report
    if report is None or stage.phase is not StagePhase.RUNNING:
        tries = f"attempt {len(stage.attempts)}. " if len(stage.attempts) > 1 and not stage.phase.terminal else ""
        return tries + stage.message
    if report.loss is None:
        return f"{report.activity} {report.step / report.total:.0%}" if report.total else report.activity
    figures = [f"{report.step:,}/{report.total:,}", f"loss {report.loss:.3f}"]
    if report.tokens_per_second:
        figures.append(f"{report.tokens_per_second:,.0f} tok/s")
    if report.seconds_left is not None:
        figures.append(f"{clock(report.seconds_left)} left")
    if report.activity != "training":
        figures.append(report.activity)
    return ", ".join(figures)


def _elapsed(stage: StageView, now: datetime) -> str:
    """Time that attempts ran; waiting for a slot is not in it."""
    if stage.adopted:
        return ""
    spans = [(attempt.ended_at or now) - attempt.started_at for attempt in stage.attempts if attempt.started_at]
    return clock(sum(span.total_seconds() for span in spans)) if spans else ""


def clock(seconds: float) -> str:
    """For a person: 42 s, 3:07, 2:15:00."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def change_line(stage: StageView) -> str:
    """One line for a stage that has moved, where nothing can be redrawn."""
    said = f"  {stage.message}" if stage.message else ""
    return f"{stage.name}: {'adopted' if stage.adopted else stage.phase} ({stage.reason}){said}"


def list_view(experiments: list[ExperimentSummary]) -> RenderableType:
    table = Table(box=None, padding=(0, 1))
    for column in ("name", "phase", "stages", "created"):
        table.add_column(column)
    for one in experiments:
        done, total = one.stages.get(StagePhase.SUCCEEDED, 0), sum(one.stages.values())
        table.add_row(one.name, str(one.phase), f"{done} of {total} done", f"{one.created_at:%Y-%m-%d %H:%M}")
    return table if experiments else Text("There are no experiments yet; submit one with `solfa submit SPEC`.")


def plan_view(spec: ExperimentSpec, plan: Plan) -> RenderableType:
    """Each stage, what it trains or makes, and what it needs."""
    tree = Tree(f"[bold]{spec.name}[/]: {len(spec.domains)} domains, {len(plan.stages)} stages")
    for stage in plan.stages:
        needs = f"  [dim]needs {', '.join(stage.needs)}[/]" if stage.needs else ""
        tree.add(f"[bold]{stage.name}[/]  {_purpose(spec, plan, stage.name)}{needs}")
    return Group(tree)


def _purpose(spec: ExperimentSpec, plan: Plan, name: str) -> str:
    stage = plan[name]
    if stage.kind is StageKind.PREPARE:
        return f"tokenise and pack into sequences of {spec.sequence_length}"
    if stage.kind is StageKind.EVALUATE:
        return "held-out loss of each large model, domain by domain"
    training = spec.training_for(stage.kind)
    size = f"{training.steps:,} steps of {training.global_batch} sequences"
    if stage.kind is StageKind.PROXY:
        return f"Group DRO ({stage.objective}), {size}"
    mixture = stage.mixture
    on = "" if mixture is None else f" on {f'the weights of {mixture.stage}' if mixture.stage else f'{mixture.kind} weights'}"
    return f"{size}{on}"
