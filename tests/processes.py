"""Processes of this machine as /proc tells of them: who is below whom, and where they listen."""

from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

LISTENING = "0A"


def below(root: int) -> set[int]:
    """`root`'s children, theirs, and so on."""
    parents = {}
    for path in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    while more := {pid for pid, parent in parents.items() if parent in found | {root}} - found:
        found |= more
    return found


def listening(pids: Iterable[int]) -> set[IPv4Address | IPv6Address]:
    """The addresses at which any of `pids` takes TCP connections."""
    sockets = set()
    for pid in pids:
        with suppress(OSError):  # it has just ended
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    sockets.add(str(descriptor.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, here, _, state, *_, inode = line.split()[:10]
            if state == LISTENING and f"socket:[{inode}]" in sockets:
                found.add(_address(here.partition(":")[0]))
    return found


def _address(words: str) -> IPv4Address | IPv6Address:
    """Of one or four hexadecimal words, each with its bytes reversed."""
    address = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
    if len(address) == 4:
        return IPv4Address(address)
    return IPv6Address(address).ipv4_mapped or IPv6Address(address)
