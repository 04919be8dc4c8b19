"""The chart's alert rules: the one source of files/alerts.yaml, which rules.yaml puts into a PrometheusRule.

`python charts/alerts.py` writes it; a test holds it equal to what this would write. Each rule has a page in docs/runbooks.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

FILE = Path(__file__).resolve().parent / "solfa" / "files" / "alerts.yaml"
RUNBOOKS = "docs/runbooks"
SERVICE = "namespace, job"  # of one release: what another one in the namespace does must not hide it
STAGE = f"{SERVICE}, project, experiment, stage"
PROXY = '{stage=~"proxy.*"}'
FREE = "app_lost|interrupted|node_lost|preempted"  # the platform's doing: a busy queue makes many of them
HANDOVER = "5m"  # what only the leader tells is not there for a moment when another one takes over: that ends no alert
BUCKET = (  # by operation: where every put fails, a hundred reads a second do not
    f"sum by ({SERVICE}, operation) (rate(solfa_bucket_errors_total[5m]))"
    f" / sum by ({SERVICE}, operation) (rate(solfa_bucket_operation_duration_seconds_count[5m])) > 0.05"
)
OF_STAGE = "{{ if $labels.stage }}{{ $labels.stage }} of {{ $labels.experiment }}{{ else }}A {{ $labels.kind }} stage{{ end }}"
WHERE = "{{ $labels.job }} in {{ $labels.namespace }}"


def silent(name: str, seconds: int) -> str:
    """By name where the stage has series of its own; by kind, which no cap limits, where none that has some is."""
    of_each = f"max by ({STAGE}) (solfa_experiment_{name}_age_seconds) > {seconds}"
    return f"({of_each} or on ({SERVICE}) max by ({SERVICE}, kind) (solfa_stage_{name}_age_seconds) > {seconds})"


class Alert(NamedTuple):
    name: str
    severity: Literal["warning", "critical"]
    wait: str
    """For how long it must be so before anybody is told."""
    expr: str
    summary: str
    description: str
    keep: str | None = None
    """For how long it goes on once it is so no longer."""


ALERTS = (
    Alert(
        "SolfaGone",
        "critical",
        "5m",
        f"group by ({SERVICE}) (max_over_time(solfa_build_info[1d])) unless group by ({SERVICE}) (solfa_build_info)",
        f"No replica of {WHERE} is scraped any more.",
        "None runs, or none can be reached; the other alerts are quiet meanwhile, since they need somebody who measures.",
    ),
    Alert(
        "SolfaStageStalled",
        "warning",
        "2m",
        f"{silent('report', 300)} unless on ({SERVICE}) ({BUCKET})",
        f"{OF_STAGE} has reported nothing for {{{{ $value | humanizeDuration }}}}.",
        "Its processes are gone or cannot write to the bucket; past compute's stall_seconds the attempt is ended and tried again.",
        HANDOVER,
    ),
    Alert(
        "SolfaStageHangs",
        "warning",
        "2m",
        f"{silent('progress', 900)} unless {silent('report', 300)} unless on ({SERVICE}) ({BUCKET})",
        f"{OF_STAGE} lives, but has not got on for {{{{ $value | humanizeDuration }}}}.",
        "Its heartbeat goes on, so nobody ends it: a collective that waits, a read that never ends, a deadlock.",
        HANDOVER,
    ),
    Alert(
        "SolfaRetriesClimbing",
        "warning",
        "0m",
        f'round(sum by ({SERVICE}, kind) (increase(solfa_retries_total{{reason!~"{FREE}"}}[1h]))) > 3'
        f' or round(sum by ({SERVICE}, kind) (increase(solfa_retries_total{{reason=~"{FREE}"}}[1h]))) > 30',
        f"{{{{ $labels.kind }}}} stages of {WHERE} were tried again {{{{ $value }}}} times in an hour.",
        "Programs that fail, or machines that go, of which more is borne: solfa_retries_total tells them apart by reason.",
    ),
    Alert(
        "SolfaNoLeader",
        "critical",
        "2m",
        f"max by ({SERVICE}) (solfa_leader) == 0 or min by ({SERVICE}) (solfa_reconcile_lag_seconds and solfa_leader == 1) > 120",
        f"No replica of {WHERE} moves experiments on.",
        "What runs goes on running, but nothing is started, ended or tried again.",
    ),
    Alert(
        "SolfaWeightsCollapsed",
        "warning",
        "15m",
        f"max by ({STAGE}, domain) (solfa_experiment_averaged_weight_ratio) > 0.9",
        "{{ $labels.experiment }} gives {{ $labels.domain }} {{ $value | humanizePercentage }} of all weight.",
        "A search seldom means that: the domain may be noise that no model learns, or eta too large.",
        HANDOVER,
    ),
    Alert(
        "SolfaProxyDiverging",
        "warning",
        "5m",
        f"max by ({STAGE}) (solfa_experiment_loss{PROXY}) > 1.3 * min by ({STAGE}) (min_over_time(solfa_experiment_loss{PROXY}[6h]))"
        f" and max by ({STAGE}) (solfa_experiment_step{PROXY}) >= max by ({STAGE}) (max_over_time(solfa_experiment_step{PROXY}[6h]))",
        "The loss of {{ $labels.stage }} of {{ $labels.experiment }} rises: it is {{ $value | humanize }}.",
        "It is more than 1.3 times the lowest of the last six hours; weights found by a proxy that diverges mean nothing.",
        HANDOVER,
    ),
    Alert(
        "SolfaBucketErrors",
        "critical",
        "5m",
        BUCKET,
        f"{{{{ $value | humanizePercentage }}}} of the {{{{ $labels.operation }}}} operations of {WHERE} on the bucket fail.",
        "Stages cannot be started or finished, and training pods may be unable to save.",
    ),
    Alert(
        "SolfaQueueWait",
        "warning",
        "5m",
        f'max by ({SERVICE}, kind) (solfa_stage_phase_age_seconds{{phase="queued"}}) > 1800',
        f"A {{{{ $labels.kind }}}} stage of {WHERE} has waited for machines for {{{{ $value | humanizeDuration }}}}.",
        "The queue is full, or nothing that is there fits what the spec's compute asks for.",
        HANDOVER,
    ),
    Alert(
        "SolfaStoreDown",
        "critical",
        "5m",
        f"max by ({SERVICE}) (solfa_store_up) == 0",
        f"The database answers no replica of {WHERE}.",
        "Nothing can be posted, shown or moved on until it is back; what runs goes on running.",
    ),
)


def rules() -> dict[str, Any]:
    """As Prometheus reads them; the chart puts its own address before a runbook's path where it has one."""
    return {
        "groups": [
            {
                "name": "solfa",
                "rules": [
                    {
                        "alert": one.name,
                        "expr": one.expr,
                        "for": one.wait,
                        **({"keep_firing_for": one.keep} if one.keep else {}),
                        "labels": {"severity": one.severity},
                        "annotations": {
                            "summary": one.summary,
                            "description": one.description,
                            "runbook_url": f"{RUNBOOKS}/{one.name}.md",
                        },
                    }
                    for one in ALERTS
                ],
            }
        ]
    }


def generated() -> dict[Path, str]:
    """What the generated file should hold."""
    head = "# Generated by charts/alerts.py: change it there.\n"
    return {FILE: head + yaml.safe_dump(rules(), sort_keys=False, width=1000)}


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
