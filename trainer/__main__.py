"""`python -m trainer --bucket URL --config KEY`: read a StageConfig, run its stage, publish the result; torchrun's entry."""

import argparse
import logging
import sys
from datetime import timedelta

from api import keys
from api.bucket import Bucket, open_bucket
from api.errors import AlreadyExists, SolfaError
from api.results import StageResult
from api.stage_config import AttemptFailure, ExitCode, StageConfig
from trainer import stages
from trainer.context import StageContext
from trainer.crew import tell_others
from trainer.exposition import exposed
from trainer.failures import PASSING, RETRY, Failure, explain, said
from trainer.report import Reporter
from trainer.world import World, join_world, leave_world

log = logging.getLogger("trainer")
PATIENCE = timedelta(minutes=30)  # with another process, in a collective
BUCKET_PATIENCE = timedelta(minutes=4)  # with a bucket that is away: another attempt would find it so too


def main() -> int:
    """The process's exit code (api.stage_config.ExitCode, or 1 for a failure that may be retried)."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    parser.add_argument("--bucket", required=True, help="file:///folder or s3://name/prefix")
    parser.add_argument("--config", required=True, help="bucket key of the StageConfig")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    try:
        bucket = open_bucket(arguments.bucket, patience=BUCKET_PATIENCE)
    except SolfaError as error:
        log.error("%s", error)
        return explain(error).exit_code
    try:
        config = StageConfig.model_validate_json(bucket.get(arguments.config).data)
    except (SolfaError, ValueError) as error:
        return _refuse(bucket, arguments.config, error)
    world = join_world(PATIENCE)
    code = run(config, bucket, world)
    if code in (ExitCode.DONE, ExitCode.INTERRUPTED):
        leave_world()
    return code


def run(config: StageConfig, bucket: Bucket, world: World) -> int:
    """Run the stage and publish its result, unless that is there already; whatever goes wrong is written down. The exit code."""
    ids = (config.experiment_id, config.plan.name)
    try:
        if over := world.share(_over(config, bucket) if world.is_first else None):
            log.info(over)
            return ExitCode.DONE  # agents and pods start again what fails: an end without an error is the only one that lasts
        with Reporter(config, bucket, world) as reporter, exposed(reporter, config, world):
            result = stages.run(StageContext(config, bucket, world, reporter, world.cache))
            if world.is_first:
                _publish(bucket, keys.result(*ids), result)
            world.barrier()
    except Exception as error:  # the last line: whatever it was is written down before the process ends
        failure = explain(error)
        if failure.code in ("unexpected", "process_lost"):
            log.exception("%s failed", config.plan.name)
        else:
            log.error("%s ends: %s", config.plan.name, failure.message)
        _record(bucket, keys.attempt_failure(*ids, config.attempt), said(failure, config.attempt, world.rank))
        tell_others(world, failure)
        return failure.exit_code
    log.info("%s is done", config.plan.name)
    return ExitCode.DONE


def _over(config: StageConfig, bucket: Bucket) -> str | None:
    """Why there is nothing to do, if so: the stage is done, or this attempt has failed.

    An attempt whose processes were stopped, or lost one of them, goes on when an elastic agent starts them again: what it said of that
    is void.
    """
    name = config.plan.name
    if bucket.exists(keys.result(config.experiment_id, name)):
        return f"{name} is done already"
    key = keys.attempt_failure(config.experiment_id, name, config.attempt)
    blob = bucket.find(key)
    if blob is None:
        return None
    if AttemptFailure.model_validate_json(blob.data).code not in PASSING:
        return f"attempt {config.attempt} of {name} has failed, and is over"
    bucket.delete(key)
    return None


def _publish(bucket: Bucket, key: str, result: StageResult) -> None:
    """Commit the result: create-if-absent, so that of two attempts one counts."""
    try:
        bucket.create(key, result.model_dump_json().encode())
    except AlreadyExists:
        log.info("another attempt committed its result first; this one is dropped")


def _refuse(bucket: Bucket, config_key: str, error: SolfaError | ValueError) -> int:
    """Write down, beside a config that cannot be read, that it cannot: torchrun's exit code does not tell."""
    reason = str(error).partition("\n")[0].rstrip(".")
    log.error("the stage config %s cannot be read: %s", config_key, error)
    if isinstance(error, SolfaError) and error.retryable:
        return RETRY
    message = f"The stage config {config_key} cannot be read ({reason}); is the trainer of the service's version?"
    failure = Failure("bad_config", message, False, ExitCode.BAD_CONFIG)
    folder, _, _ = config_key.rpartition("/")
    _, _, attempt = folder.rpartition("/")
    if attempt.isdecimal():
        _record(bucket, f"{folder}/failure.json", said(failure, int(attempt), 0))
    return failure.exit_code


def _record(bucket: Bucket, key: str, failure: AttemptFailure) -> None:
    """Say why the attempt ends. The first process to fail has the word: what the others then see is only that it is gone."""
    try:
        bucket.create(key, failure.model_dump_json().encode())
    except AlreadyExists:
        log.info("another process has said why the attempt ends")
    except SolfaError as error:  # a bucket that is away must not hide the first error
        log.error("the failure could not be recorded: %s", error)


if __name__ == "__main__":
    sys.exit(main())
