"""One search while it lives: weights, losses, speed, stages."""

from panels import IDLE, NOT_YET, Board, Kind, Panel, of_experiment

BY_STAGE, BY_DOMAIN = "stage", "stage, domain"
DOMAIN = "{{stage}} {{domain}}"


def by_domain(title: str, kind: Kind, unit: str, description: str, metric: str, empty: str = NOT_YET) -> Panel:
    return Panel(title, kind, unit, description, ((of_experiment(metric, BY_DOMAIN), DOMAIN),), empty)


def by_stage(title: str, unit: str, description: str, metric: str, empty: str = IDLE) -> Panel:
    return Panel(title, "lines", unit, description, ((of_experiment(metric, BY_STAGE), "{{stage}}"),), empty)


EXPERIMENT = Board(
    "experiment",
    "Experiment",
    "One search while it lives: its weights, losses, speed and stages. Series end with it; the service's API keeps the results.",
    (
        (
            "Stages",
            (
                Panel(
                    "Stage timeline",
                    "states",
                    "none",
                    "A row a stage and phase: when the stage was in it, until it ended.",
                    ((of_experiment("solfa_experiment_stage_phase_seconds", "stage, phase") + " >= bool 0", "{{stage}} {{phase}}"),),
                    "This experiment is not live.",
                    24,
                ),
                Panel(
                    "Progress",
                    "lines",
                    "percentunit",
                    "Share of a stage's steps that are done.",
                    (
                        (
                            of_experiment("solfa_experiment_step", BY_STAGE)
                            + " / "
                            + of_experiment("solfa_experiment_target_step", BY_STAGE),
                            "{{stage}}",
                        ),
                    ),
                ),
                by_stage(
                    "Attempts",
                    "none",
                    "Attempts of each stage so far; more than one: something failed or was lost.",
                    "solfa_experiment_attempts",
                    "This experiment is not live.",
                ),
            ),
        ),
        (
            "Weights",
            (
                by_domain(
                    "Weights over steps",
                    "stack",
                    "percentunit",
                    "Each domain's weight at this step (alpha_t); they sum to 1.",
                    "solfa_experiment_domain_weight_ratio",
                ),
                by_domain(
                    "Averaged weights",
                    "lines",
                    "percentunit",
                    "Each domain's weight averaged over all steps so far: the search's answer, once it ends.",
                    "solfa_experiment_averaged_weight_ratio",
                ),
                Panel(
                    "Weights against the reference",
                    "bars",
                    "percentunit",
                    "Averaged so far, beside those that the search started from (alpha_ref).",
                    (
                        (of_experiment("solfa_experiment_averaged_weight_ratio", BY_DOMAIN), "{{domain}} found"),
                        (of_experiment("solfa_experiment_reference_weight_ratio", BY_DOMAIN), "{{domain}} reference"),
                    ),
                    NOT_YET,
                ),
                by_stage("Step", "none", "The step that the weights beside this are of.", "solfa_experiment_step"),
            ),
        ),
        (
            "Losses",
            (
                by_domain(
                    "Excess losses",
                    "lines",
                    "none",
                    "Loss above the reference model's, in nats a token: what moves the weights.",
                    "solfa_experiment_excess_loss",
                ),
                by_domain("Training loss by domain", "lines", "none", "In nats a token.", "solfa_experiment_domain_loss", IDLE),
                by_domain(
                    "Validation loss by domain",
                    "lines",
                    "none",
                    "On held-out text, in nats a token, as last evaluated.",
                    "solfa_experiment_validation_loss",
                    "Nothing was evaluated yet: see evaluate_every of the spec's training.",
                ),
                by_stage("Training loss", "none", "Over all domains, in nats a token.", "solfa_experiment_loss"),
                by_stage(
                    "Gradient norm",
                    "none",
                    "Before it is clipped; a rise comes before a loss that diverges.",
                    "solfa_experiment_gradient_norm",
                ),
                by_domain(
                    "Realised epochs",
                    "bars",
                    "none",
                    "Passes over each domain's text so far; beyond a few, more weight brings little.",
                    "solfa_experiment_epochs",
                    IDLE,
                ),
            ),
        ),
        (
            "Speed",
            (
                by_stage("Tokens a second", "none", "On all machines together, over the last minute or so.", "solfa_experiment_tokens_per_second"),
                by_stage(
                    "Time waiting for data",
                    "percentunit",
                    "Share of the last minute or so that the loop waited for its next batch.",
                    "solfa_experiment_data_wait_ratio",
                ),
                by_stage(
                    "Report age",
                    "s",
                    "Time since the running attempt last reported; past a few minutes it hangs.",
                    "solfa_experiment_report_age_seconds",
                ),
                by_stage(
                    "Model FLOPs utilisation",
                    "percentunit",
                    "Of the device's peak, where that is known.",
                    "solfa_experiment_mfu_ratio",
                    "The device's peak is not known, or nothing runs.",
                ),
                by_stage("Processes", "none", "That train together: it changes as machines come and go.", "solfa_experiment_processes"),
            ),
        ),
    ),
    of_experiment=True,
)
