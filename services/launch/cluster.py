"""The Cluster port: what the reconciler and the log routes ask of whatever runs attempts."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from api.access import DEFAULT_PROJECT
from api.stage_config import StageConfig


class AppPhase(StrEnum):
    """What a cluster says of an app; total: whatever it says maps to one of these."""

    ABSENT = "absent"
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class AppStatus:
    """One look at an app."""

    phase: AppPhase
    workers_up: int = 0
    message: str = ""
    """One sentence: why it waits or failed, as far as the cluster knows."""
    exit_code: int | None = None
    """Of the first process that failed."""
    failed_replica: int | None = None
    """The machine that it ran on, by number."""
    lost: bool = False
    """Ended by the platform (preempted, evicted, node or supervisor lost), not by its program."""
    crashes: bool = False
    """Its program would crash for ever: it is to be ended, and will not end by itself."""
    stranded: bool = False
    """Some of it is on a machine that is lost, and stays there until it is healed."""
    ending: bool = False
    """Its processes are being taken away, and their logs with them."""
    replicas: int | None = None
    """Machines that it is asked to have, up or not; None: that cannot be changed, here or any more."""


@dataclass(frozen=True)
class LaunchRequest:
    """What is launched: an app's name and the attempt it serves."""

    app: str
    config_key: str
    """Bucket key of the StageConfig."""
    config: StageConfig
    replicas: int | None = None
    """Machines to begin with, fewer than the spec's most; no part of the app's identity, since it may change while the app runs."""
    project: str = DEFAULT_PROJECT
    """Whose it is: for people and their tools; what runs is not told."""


class Cluster(Protocol):
    """Every call is idempotent by the app's name. Raises LaunchRejected (for good) or ClusterUnavailable (try again)."""

    slots: int | None
    """Attempts that it has room for at once, as far as is known; None: any number."""

    def launch(self, request: LaunchRequest) -> None:
        """Start the app, or find it started by an earlier call with the same request."""

    def render(self, request: LaunchRequest) -> dict[str, Any]:
        """Exactly what `launch` would create, as JSON-able data."""

    def status(self, app: str) -> AppStatus:
        """ABSENT for an app that is not there. A look, which changes nothing: anybody may ask, at any time."""

    def heal(self, app: str) -> None:
        """Give up what is stranded of an app, so that it is replaced elsewhere; one that is well, or absent, is left alone."""

    def resize(self, app: str, replicas: int) -> None:
        """Ask a live app to go on with so many machines, within its spec's range, the first of which stays; absent or ended is fine."""

    def cancel(self, app: str) -> None:
        """Ask the app to end (SIGTERM, then SIGKILL after its grace) and leave nothing running; an absent app is fine."""

    def remove(self, app: str) -> None:
        """Forget an ended app and what it left on the cluster; an absent app is fine."""

    def look(self) -> dict[str, AppStatus]:
        """All apps of this service by name, as one look finds them: at the cost of a few questions, however many there are."""

    def logs(self, app: str, tail: int | None = None) -> list[str]:
        """The last `tail` lines of all its processes, or all; [] for an absent app."""

    def follow(self, app: str) -> Iterator[str | None]:
        """Lines from the beginning until the app ends; None where there is none yet, so that the caller waits in its own way."""

    def close(self) -> None:
        """Let go of what this process holds. Apps run on."""
