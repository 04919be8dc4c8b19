"""Every metric of both planes: name, kind, meaning, labels. What is scraped, the README's table and the golden list are made from it.

One prefix; seconds, bytes and ratios; `_total` for what is counted. No label takes values that are not known beforehand, but for those of
the series of a living experiment, which end with it and of which there are only so many (SOLFA_METRICS_EXPERIMENTS).
"""

from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]


class Metric(NamedTuple):
    """As it is exposed: a counter's name ends in `_total`."""

    name: str
    kind: Kind
    help: str
    """One sentence, with the unit where the name has none."""
    labels: tuple[str, ...] = ()


OF_STAGE = ("experiment", "stage")
OF_DOMAIN = ("experiment", "stage", "domain")
LIVE_STAGE, LIVE_DOMAIN = ("project", *OF_STAGE), ("project", *OF_DOMAIN)

# Read from the database, at most every few seconds, by each replica: take max(), not sum(), over replicas.
RECORDS = (
    Metric("solfa_build_info", "gauge", "What is running.", ("version",)),
    Metric("solfa_store_up", "gauge", "Whether the database answered within the scrape's deadline."),
    Metric("solfa_experiments", "gauge", "Experiments by phase.", ("phase",)),
    Metric("solfa_stages", "gauge", "Stages by phase.", ("phase",)),
    Metric("solfa_attempts", "gauge", "Attempts by the reason they ended for, or live.", ("reason",)),
)

# Counted in each replica.
SERVICE = (
    Metric("solfa_http_request_duration_seconds", "histogram", "Time to answer a request.", ("method", "route", "status")),
    Metric("solfa_bucket_operation_duration_seconds", "histogram", "Time of an operation on the bucket.", ("operation",)),
    Metric("solfa_bucket_errors_total", "counter", "Operations on the bucket that failed, by error code.", ("operation", "code")),
    Metric("solfa_store_operation_duration_seconds", "histogram", "Time of an operation on the database.", ("operation",)),
    Metric("solfa_store_errors_total", "counter", "Operations on the database that failed, by error code.", ("operation", "code")),
    Metric("solfa_leader", "gauge", "Whether this replica moves experiments on: one of all does."),
    Metric("solfa_reconcile_passes_total", "counter", "Passes of the reconciler.", ("outcome",)),
    Metric("solfa_reconcile_moves_total", "counter", "Moves that the reconciler made."),
    Metric("solfa_reconcile_pass_duration_seconds", "histogram", "Time of a pass."),
    Metric("solfa_reconcile_last_pass_timestamp_seconds", "gauge", "When this replica last made a whole pass as leader; 0: never."),
    Metric("solfa_reconcile_lag_seconds", "gauge", "Time since the leader's last whole pass; 0 where another leads."),
    Metric("solfa_reconcile_failures_total", "counter", "Experiments that a pass left for the next one, by error code.", ("code",)),
)

# Counted by the leader, as it moves stages on.
STAGES = (
    Metric("solfa_stage_transitions_total", "counter", "Stages that entered a phase, and why.", ("kind", "phase", "reason")),
    Metric("solfa_stage_phase_duration_seconds", "histogram", "Time that a stage spent in a phase, once it left it.", ("kind", "phase")),
    Metric("solfa_stage_phase_age_seconds", "gauge", "Time that the stage which waits longest has been in its phase.", ("kind", "phase")),
    Metric("solfa_stage_report_age_seconds", "gauge", "Time since the running attempt that is silent longest last reported.", ("kind",)),
    Metric("solfa_stage_progress_age_seconds", "gauge", "Time since the running attempt that stands still longest last got on.", ("kind",)),
    Metric("solfa_attempts_ended_total", "counter", "Attempts that ended, and why.", ("kind", "reason")),
    Metric("solfa_retries_total", "counter", "Attempts that are followed by another one, and why.", ("kind", "reason")),
    Metric("solfa_elastic_restarts_total", "counter", "Restarts of all processes within an attempt, and why.", ("kind", "reason")),
    Metric("solfa_launch_latency_seconds", "histogram", "From the decision to launch an attempt until its workers were up.", ("kind",)),
    Metric("solfa_submit_to_weights_seconds", "histogram", "From a submission until its averaged weights were there."),
    Metric(
        "solfa_experiments_dropped_total", "counter", "Experiments that were ever without series of their own, since too many were live."
    ),
    Metric("solfa_experiments_without_series", "gauge", "Live experiments without series of their own now."),
)

# Of each living experiment, by the leader.
EXPERIMENTS = (
    Metric("solfa_experiment_stage_phase_seconds", "gauge", "How long the stage has been in its phase.", (*LIVE_STAGE, "phase")),
    Metric("solfa_experiment_attempts", "gauge", "Attempts of the stage so far.", LIVE_STAGE),
    Metric("solfa_experiment_domain_weight_ratio", "gauge", "The domain's weight at this step (alpha_t).", LIVE_DOMAIN),
    Metric("solfa_experiment_averaged_weight_ratio", "gauge", "The domain's weight, averaged over all steps so far.", LIVE_DOMAIN),
    Metric("solfa_experiment_reference_weight_ratio", "gauge", "The domain's weight that it started from (alpha_ref).", LIVE_DOMAIN),
    Metric("solfa_experiment_excess_loss", "gauge", "Loss above the reference model's, in nats a token.", LIVE_DOMAIN),
    Metric("solfa_experiment_domain_loss", "gauge", "Training loss on the domain, in nats a token.", LIVE_DOMAIN),
    Metric("solfa_experiment_validation_loss", "gauge", "Loss on the domain's held-out text, in nats a token.", LIVE_DOMAIN),
    Metric("solfa_experiment_epochs", "gauge", "Passes over the domain's text so far.", LIVE_DOMAIN),
    Metric("solfa_experiment_step", "gauge", "Steps done.", LIVE_STAGE),
    Metric("solfa_experiment_target_step", "gauge", "Steps to do.", LIVE_STAGE),
    Metric(
        "solfa_experiment_tokens_per_second",
        "gauge",
        "Tokens trained on a second, on all machines, over the last minute.",
        LIVE_STAGE,
    ),
    Metric("solfa_experiment_loss", "gauge", "Training loss, in nats a token.", LIVE_STAGE),
    Metric("solfa_experiment_gradient_norm", "gauge", "Norm of the gradient before it is clipped.", LIVE_STAGE),
    Metric("solfa_experiment_report_age_seconds", "gauge", "Time since the running attempt last reported.", LIVE_STAGE),
    Metric("solfa_experiment_progress_age_seconds", "gauge", "Time since the running attempt last got on, whatever it does.", LIVE_STAGE),
    Metric(
        "solfa_experiment_data_wait_ratio",
        "gauge",
        "Share of the last minute that was spent waiting for data.",
        LIVE_STAGE,
    ),
    Metric("solfa_experiment_mfu_ratio", "gauge", "Model FLOPs utilisation, where the device's peak is known or given.", LIVE_STAGE),
    Metric("solfa_experiment_processes", "gauge", "Processes that train together.", LIVE_STAGE),
)

# Of a running attempt, on the training pod's own port: only rank 0 tells more than its rank.
TRAINER = (
    Metric("solfa_trainer_rank", "gauge", "Rank of this pod's first process; the rest is told by rank 0.", OF_STAGE),
    Metric("solfa_trainer_attempt", "gauge", "Number of the attempt.", OF_STAGE),
    Metric("solfa_trainer_processes", "gauge", "Processes that train together.", OF_STAGE),
    Metric(
        "solfa_trainer_restarts",
        "gauge",
        "Restarts of all processes within the attempt, those of torchrun's agent itself among them.",
        OF_STAGE,
    ),
    Metric("solfa_trainer_step", "gauge", "Steps done.", OF_STAGE),
    Metric("solfa_trainer_target_step", "gauge", "Steps to do.", OF_STAGE),
    Metric(
        "solfa_trainer_tokens_per_second",
        "gauge",
        "Tokens trained on a second, on all machines, over the last minute.",
        OF_STAGE,
    ),
    Metric("solfa_trainer_loss", "gauge", "Training loss, in nats a token.", OF_STAGE),
    Metric("solfa_trainer_gradient_norm", "gauge", "Norm of the gradient before it is clipped.", OF_STAGE),
    Metric("solfa_trainer_learning_rate", "gauge", "The schedule's rate at this step.", OF_STAGE),
    Metric(
        "solfa_trainer_data_wait_ratio",
        "gauge",
        "Share of the last minute that was spent waiting for data.",
        OF_STAGE,
    ),
    Metric("solfa_trainer_mfu_ratio", "gauge", "Model FLOPs utilisation, where the device's peak is known or given.", OF_STAGE),
    Metric("solfa_trainer_peak_memory_bytes", "gauge", "Most of rank 0's GPU memory that was used at once.", OF_STAGE),
    Metric("solfa_trainer_domain_weight_ratio", "gauge", "The domain's weight at this step (alpha_t).", OF_DOMAIN),
    Metric("solfa_trainer_averaged_weight_ratio", "gauge", "The domain's weight, averaged over all steps so far.", OF_DOMAIN),
    Metric("solfa_trainer_excess_loss", "gauge", "Loss above the reference model's, in nats a token.", OF_DOMAIN),
    Metric("solfa_trainer_domain_loss", "gauge", "Training loss on the domain, in nats a token.", OF_DOMAIN),
    Metric("solfa_trainer_epochs", "gauge", "Passes over the domain's text so far.", OF_DOMAIN),
)

OF_TRAINER = {metric.name: metric for metric in TRAINER}
OF_SERVICE = {metric.name: metric for metric in (*RECORDS, *SERVICE, *STAGES, *EXPERIMENTS)}
