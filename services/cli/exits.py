"""What the exit codes mean, and how an error becomes one."""

from enum import IntEnum

from api.errors import BadRequest, Conflict, Forbidden, NotFound, NotReady, ServiceUnreachable, SolfaError, SpecError, Unauthorized


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
    REFUSED = 9  # no token where one is asked for, or one that may not do this
    INTERRUPTED = 130  # Ctrl-C; the run goes on


TABLE = (
    "Exit codes: 0 done; 1 the experiment failed or was cancelled, or another error; 2 wrong usage; 3 a bad spec; 4 not found; "
    "5 not there yet; 6 a conflict, such as a name that is taken; 7 no service answers; 8 a replay that disagrees; "
    "9 a token is missing, or may not do this; 130 Ctrl-C (the run goes on)."
)

_CODES: tuple[tuple[type[SolfaError], Exit], ...] = (
    (BadRequest, Exit.USAGE),
    (SpecError, Exit.BAD_SPEC),
    (NotFound, Exit.NOT_FOUND),
    (NotReady, Exit.NOT_READY),
    (Conflict, Exit.CONFLICT),
    (ServiceUnreachable, Exit.UNREACHABLE),
    (Unauthorized, Exit.REFUSED),
    (Forbidden, Exit.REFUSED),
)


def exit_code(error: SolfaError) -> Exit:
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FAILED)
