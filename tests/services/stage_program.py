"""A small real stage: it reads its StageConfig, keeps a diary of when it ran, and publishes a result as the trainer does.

Run as `python stage_program.py --bucket <file url> --config <key>`. The stage's behaviour is in the spec's description, as JSON:
{"seconds": how long it works, "fail": {stage: [attempts that fail]}, "permanent": [stages that can never work], "hang": {stage: attempts}}.
The diary, `<bucket>/diary.txt`, gets a line `<start|stop> <stage> <attempt> <pid> <monotonic seconds>` by one atomic append each.
"""

import argparse
import json
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from api import keys
from api.bucket import open_bucket
from api.domains import DomainWeights
from api.errors import AlreadyExists
from api.results import Searched, StageResult
from api.stage_config import AttemptFailure, ExitCode, StageConfig, StageReport
from api.stages import StageKind


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--config", required=True)
    arguments = parser.parse_args()
    bucket = open_bucket(arguments.bucket)
    config = StageConfig.model_validate_json(bucket.get(arguments.config).data)
    who = (config.experiment_id, config.plan.name, config.attempt)
    behaviour = json.loads(config.spec.description or "{}")
    diary = Path(unquote(urlsplit(arguments.bucket).path)) / "diary.txt"
    note(diary, "start", *who[:2], config.attempt)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ExitCode.INTERRUPTED))
    try:
        print(f"{config.plan.name} attempt {config.attempt} reads {config.inputs.model_dump(exclude_defaults=True)}", flush=True)
        report = StageReport(attempt=config.attempt, updated_at=datetime.now(UTC), activity="working")
        bucket.put(keys.attempt_report(*who), report.model_dump_json().encode())
        hanging = config.attempt in behaviour.get("hang", {}).get(config.plan.name, [])
        time.sleep(1000 if hanging else behaviour.get("seconds", 0))
        permanent = config.plan.name in behaviour.get("permanent", [])
        if permanent or config.attempt in behaviour.get("fail", {}).get(config.plan.name, []):
            code = ExitCode.BAD_CONFIG if permanent else 1
            failure = AttemptFailure(
                attempt=config.attempt,
                code="bad_data" if permanent else "unexpected",
                message="This stage was told to fail.",
                retryable=not permanent,
                exit_code=code,
                rank=0,
                at=datetime.now(UTC),
            )
            bucket.put(keys.attempt_failure(*who), failure.model_dump_json().encode())
            return code
        publish(bucket, config, behaviour)
        print("done", flush=True)
        return 0
    finally:
        note(diary, "stop", *who[:2], config.attempt)


def publish(bucket, config: StageConfig, behaviour: dict) -> None:
    weights = DomainWeights.uniform(config.spec.domain_names)
    searched = None
    if config.plan.kind is StageKind.PROXY:
        delta = behaviour.get("delta", 0.5)
        searched = Searched(averaged_weights=weights, final_weights=weights, reference_weights=weights, delta=delta, history=[])
    result = StageResult(
        experiment_id=config.experiment_id,
        stage=config.plan.name,
        kind=config.plan.kind,
        round=config.plan.round,
        attempt=config.attempt,
        digest=config.digest,
        created_at=datetime.now(UTC),
        searched=searched,
    )
    try:
        bucket.create(keys.result(config.experiment_id, config.plan.name), result.model_dump_json().encode())
    except AlreadyExists:
        print("another attempt was first", flush=True)


def note(diary: Path, what: str, experiment: str, stage: str, attempt: int) -> None:
    line = f"{what} {experiment} {stage} {attempt} {os.getpid()} {time.monotonic():.6f}\n"
    descriptor = os.open(diary, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
