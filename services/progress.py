"""How far a stage has come, in words: the same in a terminal and in a browser."""

from datetime import datetime

from api.stage_config import StageReport
from api.stages import StagePhase
from api.views import StageView

FRESH = 60  # seconds for which a report needs no word on its age: one is written every few


def progress(stage: StageView, now: datetime) -> str:
    """Step, loss, speed and time left of what runs, and the age of a report that is old; of the rest, why it waits or how it ended."""
    report = stage.report
    if report is None or stage.phase is not StagePhase.RUNNING:
        tries = f"Attempt {len(stage.attempts)}. " if len(stage.attempts) > 1 and not stage.phase.terminal else ""
        return tries + stage.message
    age = (now - report.updated_at).total_seconds()
    return _figures(report) + (f", reported {clock(age)} ago" if age > FRESH else "")


def _figures(report: StageReport) -> str:
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


def elapsed(stage: StageView, now: datetime) -> str:
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
