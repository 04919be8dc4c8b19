"""The fleet: what runs, waits, fails, and how long it takes."""

from panels import COLORS, TOKENS, Board, Panel, highest, of_all, quantile, total

PHASES = ("running", "pending", "failed", "succeeded")


def of_experiments(metric: str) -> str:
    """Of each, over its stages and all installations that run it."""
    return f"sum by (project, experiment) ({highest(metric, 'namespace, job, project, experiment, stage')})"


OVERVIEW = Board(
    "overview",
    "Overview",
    "The fleet: what runs, what waits, what fails, and how long it takes.",
    (
        (
            "Now",
            tuple(
                Panel(
                    f"Experiments {phase}",
                    "number",
                    "none",
                    f"Experiments that are {phase} now."
                    if phase in ("running", "pending")
                    else f"Experiments that have {phase}, of all there are.",
                    ((of_all("solfa_experiments", "phase", f',phase="{phase}"'), phase),),
                    "0",
                    6,
                    4,
                    levels=((None, COLORS[phase]),),
                )
                for phase in PHASES
            ),
        ),
        (
            "Work",
            (
                Panel(
                    "Experiments by phase",
                    "stack",
                    "none",
                    "All experiments in the database, by phase.",
                    ((of_all("solfa_experiments", "phase"), "{{phase}}"),),
                    "No experiment has been posted.",
                ),
                Panel(
                    "Stages by phase",
                    "stack",
                    "none",
                    "All stages in the database, by phase.",
                    ((of_all("solfa_stages", "phase"), "{{phase}}"),),
                    "No experiment has been posted.",
                ),
                Panel(
                    "Longest time in a phase",
                    "lines",
                    "s",
                    "How long the stage that waits longest has been in its phase. Queued: it waits for machines.",
                    ((highest("solfa_stage_phase_age_seconds", "kind, phase"), "{{kind}} {{phase}}"),),
                ),
                Panel(
                    "Silent and still",
                    "lines",
                    "s",
                    "Of running stages, by kind: how long the most silent has not reported, and how long the stillest has not got on.",
                    (
                        (highest("solfa_stage_report_age_seconds", "kind"), "{{kind}}, silent"),
                        (highest("solfa_stage_progress_age_seconds", "kind"), "{{kind}}, still"),
                    ),
                ),
                Panel(
                    "Tokens a second, by experiment",
                    "stack",
                    TOKENS,
                    "Training speed of all that runs.",
                    ((of_experiments("solfa_experiment_tokens_per_second"), "{{project}} / {{experiment}}"),),
                    width=24,
                ),
            ),
        ),
        (
            "Failures",
            (
                Panel(
                    "Attempts by how they ended",
                    "stack",
                    "none",
                    "All attempts in the database, by the reason that they ended for; live ones have not.",
                    ((of_all("solfa_attempts", "reason"), "{{reason}}"),),
                    "No attempt was made.",
                ),
                Panel(
                    "Attempts that ended",
                    "bars",
                    "none",
                    "Attempts that ended within the range of time, by kind and reason.",
                    ((total("solfa_attempts_ended_total", "kind, reason"), "{{kind}} {{reason}}"),),
                    "No attempt ended in this time.",
                    decimals=0,
                ),
                Panel(
                    "Retries",
                    "bars",
                    "none",
                    "Attempts followed by another one within the range of time, by reason: node_lost and preempted are the platform's.",
                    ((total("solfa_retries_total", "kind, reason"), "{{kind}} {{reason}}"),),
                    "Nothing was tried again.",
                    decimals=0,
                ),
                Panel(
                    "Elastic restarts",
                    "bars",
                    "none",
                    "Restarts of all processes within an attempt, in the range of time: machines left or joined, or one was replaced.",
                    ((total("solfa_elastic_restarts_total", "kind, reason"), "{{kind}} {{reason}}"),),
                    "No machine came or went.",
                    decimals=0,
                ),
            ),
        ),
        (
            "How long",
            (
                Panel(
                    "Launch latency",
                    "bars",
                    "s",
                    "From the decision to launch an attempt until its workers were up: median and 95th percentile by kind.",
                    (
                        (quantile(0.5, "solfa_launch_latency_seconds", "kind"), "{{kind}}, median"),
                        (quantile(0.95, "solfa_launch_latency_seconds", "kind"), "{{kind}}, 95 %"),
                    ),
                    "Nothing was launched in this time.",
                ),
                Panel(
                    "From submission to weights",
                    "bars",
                    "s",
                    "Median and 95th percentile of searches that found their weights in the range of time.",
                    (
                        (quantile(0.5, "solfa_submit_to_weights_seconds"), "median"),
                        (quantile(0.95, "solfa_submit_to_weights_seconds"), "95 %"),
                    ),
                    "No search found its weights in this time.",
                ),
                Panel(
                    "Time in a phase",
                    "bars",
                    "s",
                    "Median time that stages spent in each phase that they left in the range of time.",
                    ((quantile(0.5, "solfa_stage_phase_duration_seconds", "kind, phase"), "{{kind}} {{phase}}"),),
                    "No stage moved in this time.",
                    24,
                ),
            ),
        ),
    ),
)
