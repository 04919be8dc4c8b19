"""`python -m trainer --bucket URL --config KEY`: read a StageConfig, run its stage, publish the result; torchrun's entry."""

import argparse
import logging
import sys
import traceback
from datetime import UTC, datetime

import torch

from api import keys
from api.bucket import Bucket, open_bucket
from api.errors import AlreadyExists, SolfaError
from api.results import StageResult
from api.stage_config import AttemptFailure, ExitCode, StageConfig
from trainer import stages
from trainer.context import StageContext
from trainer.report import Reporter
from trainer.world import Interrupted, World, is_lost_peer, joined_world

log = logging.getLogger("trainer")
RETRY = 1  # any code outside the contract


def main() -> int:
    """The process's exit code (api.stage_config.ExitCode, or 1 for a failure that may be retried)."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    parser.add_argument("--bucket", required=True, help="file:///folder or s3://name/prefix")
    parser.add_argument("--config", required=True, help="bucket key of the StageConfig")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    try:
        bucket = open_bucket(arguments.bucket)
        config = StageConfig.model_validate_json(bucket.get(arguments.config).data)
    except (SolfaError, ValueError) as error:
        log.error("the stage config %s cannot be read: %s", arguments.config, error)
        return RETRY if isinstance(error, SolfaError) and error.retryable else ExitCode.BAD_CONFIG
    with joined_world() as world:
        return _run(config, bucket, world)


def _run(config: StageConfig, bucket: Bucket, world: World) -> int:
    if over := world.share(_over(config, bucket) if world.is_first else None):
        log.info(over)
        return ExitCode.DONE  # agents and pods start again what fails: an end without an error is the only one that lasts
    try:
        with Reporter(config, bucket, world) as reporter:
            result = stages.run(StageContext(config, bucket, world, reporter, world.cache))
            if world.is_first:
                _publish(bucket, keys.result(config.experiment_id, config.plan.name), result)
            world.barrier()
    except Interrupted:
        _record(config, bucket, world, ("interrupted", "It was asked to stop; the train state is saved.", True, ExitCode.INTERRUPTED))
        log.info("%s was asked to stop; the train state is saved", config.plan.name)
        return ExitCode.INTERRUPTED
    except SolfaError as error:
        code = RETRY if error.retryable else ExitCode.BAD_CONFIG
        log.error("%s failed: %s", config.plan.name, error)
        _record(config, bucket, world, (error.code, error.message, error.retryable, code))
        return code
    except (MemoryError, torch.OutOfMemoryError) as error:
        log.error("%s ran out of memory: %s", config.plan.name, error)
        message = "It ran out of memory; lower training.micro_batch, or give it more memory."
        _record(config, bucket, world, ("out_of_memory", message, True, RETRY))
        return RETRY
    except Exception as error:  # the last line: whatever it was is written down before the process ends
        log.exception("%s failed", config.plan.name)
        if not is_lost_peer(error):  # the process that was lost has said why, and that must not be hidden
            _record(config, bucket, world, ("unexpected", f"{type(error).__name__}: {error}", True, RETRY))
        return RETRY
    log.info("%s is done", config.plan.name)
    return ExitCode.DONE


def _over(config: StageConfig, bucket: Bucket) -> str | None:
    """Why there is nothing to do, if so. An interrupted attempt goes on: elastic agents stop all for a newcomer."""
    name = config.plan.name
    if bucket.exists(keys.result(config.experiment_id, name)):
        return f"{name} is done already"
    blob = bucket.find(keys.attempt_failure(config.experiment_id, name, config.attempt))
    if blob is not None and AttemptFailure.model_validate_json(blob.data).exit_code != ExitCode.INTERRUPTED:
        return f"attempt {config.attempt} of {name} has failed, and is over"
    return None


def _publish(bucket: Bucket, key: str, result: StageResult) -> None:
    """Commit the result: create-if-absent, so that of two attempts one counts."""
    try:
        bucket.create(key, result.model_dump_json().encode())
    except AlreadyExists:
        log.info("another attempt committed its result first; this one is dropped")


def _record(config: StageConfig, bucket: Bucket, world: World, failure: tuple[str, str, bool, int]) -> None:
    """Say why the attempt ends; a bucket that is away must not hide the first error."""
    code, message, retryable, exit_code = failure
    tail = traceback.format_exc().splitlines()[-20:] if code == "unexpected" else []
    said = AttemptFailure(
        attempt=config.attempt,
        code=code,
        message=message,
        retryable=retryable,
        exit_code=exit_code,
        rank=world.rank,
        at=datetime.now(UTC),
        tail=tail,
    )
    try:
        bucket.put(keys.attempt_failure(config.experiment_id, config.plan.name, config.attempt), said.model_dump_json().encode())
    except SolfaError as error:
        log.error("the failure could not be recorded: %s", error)


if __name__ == "__main__":
    sys.exit(main())
