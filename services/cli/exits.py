"""What the exit codes mean, and how an error becomes one."""

from enum import IntEnum

from api.errors import BadRequest, Conflict, NotFound, NotReady, ServiceUnreachable, SolfaError, SpecError


class Exit(IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1  # the experiment failed or was cancelled, or an error that has no code of its own
    USAGE = 2  # wrong words on the command line (typer's own too), a file that cannot be read, settings that are none
    BAD_SPEC = 3
    NOT_FOUND = 4
    NOT_READY = 5
    CONFLICT = 6
    UNREACHABLE = 7
    DISAGREES = 8  # a replay that does not agree with what was recorded
    INTERRUPTED = 130  # Ctrl-C; the run goes on


TABLE = (
    "Exit codes: 0 done; 1 the experiment failed, or another error; 2 wrong usage; 3 a bad spec; 4 not found; 5 not there yet; "
    "6 a conflict, such as a name that is taken; 7 no service answers; 8 a replay that disagrees; 130 Ctrl-C (the run goes on)."
)

_CODES: tuple[tuple[type[SolfaError], Exit], ...] = (
    (BadRequest, Exit.USAGE),
    (SpecError, Exit.BAD_SPEC),
    (NotFound, Exit.NOT_FOUND),
    (NotReady, Exit.NOT_READY),
    (Conflict, Exit.CONFLICT),
    (ServiceUnreachable, Exit.UNREACHABLE),
)


def exit_code(error: SolfaError) -> Exit:
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FAILED)
