"""One search while it lives: weights, losses, speed, stages."""

from panels import IDLE, NATS, NOT_YET, OF, STEP, TOKENS, Board, Column, Kind, Panel, of_experiment

BY_STAGE, BY_DOMAIN = "stage", "stage, domain"
DOMAIN = "{{domain}}, {{stage}}"
PROXY = ',stage=~"$proxy"'
STAGE = ',stage=~"$stage"'
WEIGHT, AVERAGED, REFERENCE = (f"solfa_experiment_{which}_weight_ratio" for which in ("domain", "averaged", "reference"))
NOT_LIVE = "This experiment is not live."
PHASES = ("running", "launching", "queued", "backoff", "cancelling", "blocked")
"""Of a stage that has not ended, in the order of its number in the timeline; whoever leads last has said the first of them."""


def of_proxy(metric: str) -> str:
    return of_experiment(metric, "domain", PROXY)


def new_steps() -> str:
    """The proxy's step where it is further than it was at any point before.

    A panel over steps refuses a step that comes twice, as it does between two reports and after a resume.
    """
    step = f"solfa_experiment_step{{{OF}{PROXY}}}"
    return f"(max({step}) unless max({step}) <= max(max_over_time({step}[$__range] offset $__interval)))"


def over_steps(title: str, kind: Kind, description: str, metric: str, most: float | None = None) -> Panel:
    queries = ((f"{of_proxy(metric)} and on () {new_steps()}", "{{domain}}"), (new_steps(), STEP))
    return Panel(title, kind, "percentunit", description, queries, NOT_YET, 12, 11, most=most)


def by_domain(title: str, unit: str, description: str, metric: str, empty: str = IDLE, *, least: float | None = None) -> Panel:
    return Panel(title, "lines", unit, description, ((of_experiment(metric, BY_DOMAIN, STAGE), DOMAIN),), empty, height=9, least=least)


def by_stage(title: str, unit: str, description: str, metric: str, empty: str = IDLE, *, width: int = 12) -> Panel:
    return Panel(title, "lines", unit, description, ((of_experiment(metric, BY_STAGE), "{{stage}}"),), empty, width)


def timeline() -> str:
    """A stage's phase as a number, which the panel names and colours."""
    metric = "solfa_experiment_stage_phase_seconds"
    spells = (of_experiment(metric, BY_STAGE, f',phase="{phase}"') for phase in PHASES)
    return " or ".join(f"0 * {spell} + {number}" for number, spell in enumerate(spells, start=1))


DOMAINS = Panel(
    "Domains",
    "table",
    "none",
    "The proxy's weights against those that the search started from (alpha_ref), and what moves them. "
    "Found: averaged over all steps so far, the search's answer once it ends.",
    (
        (of_proxy(REFERENCE), "Reference"),
        (of_proxy(AVERAGED), "Found"),
        (f"{of_proxy(AVERAGED)} / {of_proxy(REFERENCE)}", "Found / reference"),
        (of_proxy(WEIGHT), "At this step"),
        (of_proxy("solfa_experiment_excess_loss"), "Excess loss"),
        (of_proxy("solfa_experiment_validation_loss"), "Validation loss"),
        (of_proxy("solfa_experiment_epochs"), "Epochs"),
    ),
    NOT_YET,
    24,
    14,
    columns=(
        Column("domain", "string"),
        Column("Reference", "percentunit", bar=True),
        Column("Found", "percentunit", bar=True),
        Column("Found / reference", "none"),
        Column("At this step", "percentunit"),
        Column("Excess loss", NATS),
        Column("Validation loss", NATS),
        Column("Epochs", "none"),
    ),
)

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
                    "A row a stage: the phase it was in, until it ended.",
                    ((timeline(), "{{stage}}"),),
                    NOT_LIVE,
                    24,
                    levels=tuple((number, phase) for number, phase in enumerate(PHASES, start=1)),
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
                    most=1,
                ),
                by_stage(
                    "Attempts",
                    "none",
                    "Attempts of each stage so far; more than one: something failed or was lost.",
                    "solfa_experiment_attempts",
                    NOT_LIVE,
                )._replace(decimals=0),
            ),
        ),
        (
            "Weights of $proxy",
            (
                over_steps("Weights over steps", "shares", "Each domain's weight at that step (alpha_t); they sum to 1.", WEIGHT, most=1),
                over_steps(
                    "Averaged weights over steps",
                    "steps",
                    "Each domain's weight averaged over all steps up to that one: the search's answer, once it ends.",
                    AVERAGED,
                ),
                DOMAINS,
                Panel(
                    "Excess losses",
                    "lines",
                    NATS,
                    "A token's loss above the reference model's: what moves the weights.",
                    ((of_proxy("solfa_experiment_excess_loss"), "{{domain}}"),),
                    NOT_YET,
                    24,
                    9,
                    least=None,
                ),
            ),
        ),
        (
            "Losses",
            (
                by_domain("Training loss by domain", NATS, "A token's, in training.", "solfa_experiment_domain_loss"),
                by_domain(
                    "Validation loss by domain",
                    NATS,
                    "A token's, on held-out text, as last evaluated.",
                    "solfa_experiment_validation_loss",
                    "Nothing was evaluated yet: see evaluate_every of the spec's training.",
                ),
                by_stage("Training loss", NATS, "A token's, over all domains.", "solfa_experiment_loss")._replace(least=None),
                by_stage(
                    "Gradient norm",
                    "none",
                    "Before it is clipped; a rise comes before a loss that diverges.",
                    "solfa_experiment_gradient_norm",
                ),
                by_domain(
                    "Realised epochs",
                    "none",
                    "Passes over each domain's text so far; beyond a few, more weight brings little.",
                    "solfa_experiment_epochs",
                    least=0,
                )._replace(width=24),
            ),
        ),
        (
            "Speed",
            (
                by_stage(
                    "Tokens a second",
                    TOKENS,
                    "On all machines, over the last minute.",
                    "solfa_experiment_tokens_per_second",
                    width=8,
                ),
                by_stage(
                    "Model FLOPs utilisation",
                    "percentunit",
                    "Of the device's peak, where that is known or the spec's compute says it.",
                    "solfa_experiment_mfu_ratio",
                    "Nothing runs, or the device's peak is not known: see peak_flops of the spec's compute.",
                    width=8,
                ),
                by_stage(
                    "Time waiting for data",
                    "percentunit",
                    "Share of the last minute that the loop waited for its next batch.",
                    "solfa_experiment_data_wait_ratio",
                    width=8,
                ),
                by_stage(
                    "Report age",
                    "s",
                    "Time since the running attempt last reported; past a few minutes its machine or its bucket is away.",
                    "solfa_experiment_report_age_seconds",
                    width=8,
                ),
                by_stage(
                    "Standing still",
                    "s",
                    "Time since the running attempt last got on; past a quarter of an hour it hangs.",
                    "solfa_experiment_progress_age_seconds",
                    width=8,
                ),
                by_stage(
                    "Processes",
                    "none",
                    "That train together: it changes as machines come and go.",
                    "solfa_experiment_processes",
                    width=8,
                )._replace(decimals=0),
            ),
        ),
    ),
    of_experiment=True,
)
