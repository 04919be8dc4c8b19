"""Every way an attempt can end badly, as the contract's exit code and one sentence: the one place where an exception becomes either."""

import traceback
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import torch
import torch.distributed as dist

from api.errors import OutOfSpace, SolfaError
from api.stage_config import AttemptFailure, ExitCode
from trainer.world import Interrupted

RETRY = 1  # any code outside the contract
_NO_SPACE = ("No space left on device", "Disk quota exceeded")
_NO_MEMORY = "can't allocate memory"  # torch's allocator on a CPU, in a RuntimeError
_PEER_GONE = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "Broken pipe")  # gloo raises RuntimeErrors
PASSING = ("interrupted", "process_lost")  # ends of a process after which its attempt may go on


@dataclass(frozen=True)
class Failure:
    """What an AttemptFailure says of an error, whichever process it came from."""

    code: str
    message: str
    retryable: bool
    exit_code: int


LOST = Failure("process_lost", "Another process of this attempt ended without a word; it may have been killed.", True, RETRY)


class Ended(Exception):
    """Another process of the attempt has failed, or is lost, so that this one's waiting is over."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def explain(error: Exception) -> Failure:
    """What `error` means for the attempt. Foreign errors are told by their text, since each library wraps the system's in its own."""
    text = str(error)
    if isinstance(error, Ended):
        return error.failure
    if isinstance(error, Interrupted | SolfaError):
        return _named(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or _NO_MEMORY in text:
        return Failure("out_of_memory", "It ran out of memory; lower training.micro_batch, or give it more memory.", True, RETRY)
    if any(sign in text for sign in _NO_SPACE):
        return explain(OutOfSpace("The disk is full. Free some space and retry; what was saved before is as it was."))
    if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError | OSError) and any(sign in text for sign in _PEER_GONE)):
        return LOST
    return Failure("unexpected", f"{type(error).__name__}: {text}", True, RETRY)


def _named(error: Interrupted | SolfaError) -> Failure:
    if isinstance(error, Interrupted):
        return Failure("interrupted", "It was asked to stop, and saved what it had done.", True, ExitCode.INTERRUPTED)
    return Failure(error.code, error.message, error.retryable, RETRY if error.retryable else ExitCode.BAD_CONFIG)


def said(failure: Failure, attempt: int, rank: int) -> AttemptFailure:
    """`failure` as the process of `rank` writes it down, with the last lines of the error in hand where nobody expected it."""
    tail = traceback.format_exc().splitlines()[-20:] if failure.code == "unexpected" else []
    return AttemptFailure(attempt=attempt, **asdict(failure), rank=rank, at=datetime.now(UTC), tail=tail)
