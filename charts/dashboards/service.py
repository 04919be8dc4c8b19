"""The control service itself: requests, reconciling, bucket and database."""

from panels import AT, Board, Panel, quick, rate


def operations(what: str, port: str, empty: str) -> tuple[Panel, ...]:
    """Of a port: how many, how long, how many failed."""
    metric = f"solfa_{port}_operation_duration_seconds"
    return (
        Panel(
            f"{what} operations",
            "lines",
            "ops",
            "Operations a second, by kind.",
            ((rate(f"{metric}_count", "operation"), "{{operation}}"),),
            empty,
            8,
        ),
        Panel(
            f"{what} time, 95 %",
            "lines",
            "s",
            "95th percentile, by kind of operation.",
            ((quick(0.95, metric, "operation"), "{{operation}}"),),
            empty,
            8,
        ),
        Panel(
            f"{what} errors",
            "lines",
            "ops",
            "Failed operations a second, by error code; what is merely not there is none.",
            ((rate(f"solfa_{port}_errors_total", "operation, code"), "{{operation}} {{code}}"),),
            "No operation failed.",
            8,
        ),
    )


SERVICE = Board(
    "service",
    "Service",
    "The control service: requests, reconciling, bucket and database.",
    (
        (
            "Health",
            (
                Panel(
                    "Leaders",
                    "number",
                    "none",
                    "Replicas that move experiments on: one of all, and not more.",
                    ((f"sum(solfa_leader{{{AT}}})", "leaders"),),
                    "The service is not scraped.",
                    6,
                    4,
                    levels=((None, "red"), (1, "green"), (2, "red")),
                ),
                Panel(
                    "Database",
                    "number",
                    "none",
                    "Replicas that reach the database.",
                    ((f"sum(solfa_store_up{{{AT}}})", "replicas"),),
                    "The service is not scraped.",
                    6,
                    4,
                    levels=((None, "red"), (1, "green")),
                ),
                Panel(
                    "Reconcile lag",
                    "number",
                    "s",
                    "Time since the leader's last whole pass.",
                    ((f"max(solfa_reconcile_lag_seconds{{{AT}}})", "lag"),),
                    "The service is not scraped.",
                    6,
                    4,
                    levels=((None, "green"), (30, "yellow"), (60, "red")),
                ),
                Panel(
                    "Experiments without series",
                    "number",
                    "none",
                    "Live experiments that the cap on series leaves out (SOLFA_METRICS_EXPERIMENTS): now, and new ones.",
                    (
                        (f"max(solfa_experiments_without_series{{{AT}}})", "now"),
                        (f"sum(increase(solfa_experiments_dropped_total{{{AT}}}[$__range]))", "in this time"),
                    ),
                    "0",
                    6,
                    4,
                    levels=((None, "green"), (1, "orange")),
                ),
            ),
        ),
        (
            "Requests",
            (
                Panel(
                    "Requests",
                    "lines",
                    "reqps",
                    "Requests a second, by route.",
                    ((rate("solfa_http_request_duration_seconds_count", "method, route"), "{{method}} {{route}}"),),
                    "Nobody asks.",
                ),
                Panel(
                    "Time to answer, 95 %",
                    "lines",
                    "s",
                    "95th percentile up to the first byte, by route; a route that waits for a change takes as long as it was told to.",
                    ((quick(0.95, "solfa_http_request_duration_seconds", "method, route"), "{{method}} {{route}}"),),
                    "Nobody asks.",
                ),
                Panel(
                    "Answers by status",
                    "stack",
                    "reqps",
                    "4xx: requests that cannot be met. 5xx: the service, or what it stands on.",
                    ((rate("solfa_http_request_duration_seconds_count", "status"), "{{status}}"),),
                    "Nobody asks.",
                    24,
                ),
            ),
        ),
        (
            "Reconcile",
            (
                Panel(
                    "Passes",
                    "lines",
                    "ops",
                    "Passes a second, by outcome; one that follows only looks whether another leads.",
                    ((rate("solfa_reconcile_passes_total", "outcome"), "{{outcome}}"),),
                    "The service is not scraped.",
                ),
                Panel(
                    "Time of a pass, 95 %",
                    "lines",
                    "s",
                    "95th percentile, by replica.",
                    ((quick(0.95, "solfa_reconcile_pass_duration_seconds", "instance"), "{{instance}}"),),
                    "The service is not scraped.",
                ),
                Panel(
                    "Moves",
                    "lines",
                    "ops",
                    "Changes of records a second.",
                    ((f"sum(rate(solfa_reconcile_moves_total{{{AT}}}[$__rate_interval]))", "moves"),),
                    "The service is not scraped.",
                ),
                Panel(
                    "Experiments left for the next pass",
                    "lines",
                    "ops",
                    "A second, by error code: what did not answer.",
                    ((rate("solfa_reconcile_failures_total", "code"), "{{code}}"),),
                    "None was left.",
                ),
                Panel(
                    "Stages that moved",
                    "lines",
                    "ops",
                    "Into each phase, a second.",
                    ((rate("solfa_stage_transitions_total", "phase"), "{{phase}}"),),
                    "No stage moved.",
                    24,
                ),
            ),
        ),
        ("Bucket", operations("Bucket", "bucket", "The bucket is not used.")),
        ("Database", operations("Database", "store", "The database is not used.")),
    ),
)
