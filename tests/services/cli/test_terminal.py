"""In a terminal the table is redrawn in place, in colour, and what is left at the end is the last picture and a sentence."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import termios

from tests.services.cli.test_changing import write
from tests.services.running import Running
from tests.solfa import Solfa

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_the_live_table_draws_and_ends_tidily(solfa: Solfa, served: Running) -> None:
    path = write(solfa, served, "drawn", {"seconds": 0.3})
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    process = solfa.start("submit", path, "--wait", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while part := os.read(ours, 65536):
            seen += part
    os.close(ours)
    assert process.wait(60) == 0
    text = seen.decode()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor is hidden, and shown again"
    assert text.count("\x1b[1A\x1b[2K") > 10, "it was redrawn in place"
    frames = CONTROL.sub("", text).replace("\r", "")
    assert "prepare" in frames.split("drawn: ")[1]
    last = frames.rpartition("drawn: ")[2].splitlines()
    assert last[0] == "succeeded"
    assert [line.split()[1:3] for line in last[2:5]] == [[name, "succeeded"] for name in ("prepare", "reference", "proxy")]
    assert last[5:] == ["drawn succeeded. Look at `solfa weights drawn`."]
    assert max(map(len, last)) <= 80
