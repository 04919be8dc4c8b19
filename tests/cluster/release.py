"""A release of the chart: installed as a person would, asked through its HTTP API, uninstalled."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.client import Client
from api.errors import SolfaError
from api.views import ExperimentView
from tests.cluster.images import Images
from tests.cluster.kube import Namespace
from tests.cluster.object_store import ObjectStore
from tests.services.waiting import wait_for

CHART = Path(__file__).parents[2] / "charts" / "solfa"
NAME = "solfa"
MINUTES = 60


@dataclass(frozen=True)
class Release:
    """Where it is, and what it was given."""

    namespace: Namespace
    values: tuple[str, ...]

    def install(self) -> None:
        """Or upgrade. Ends when the service is ready, its image pulled."""
        chosen = [word for value in self.values for word in ("--set-string" if _is_text(value) else "--set", value)]
        self.namespace.helm("upgrade", "--install", NAME, str(CHART), *chosen, "--wait", "--timeout", "10m")

    def uninstall(self) -> None:
        """Not with --wait: Helm would wait for a volume's claim, which waits for the pods that its last hook takes away."""
        self.namespace.helm("uninstall", NAME, "--ignore-not-found")

    def admin_token(self) -> str:
        """As NOTES tell a person to find it."""
        return self.namespace.secret(f"{NAME}-admin", "token")

    @contextmanager
    def client(self, token: str | None = None) -> Iterator[Client]:
        """As the administrator, or with a token of one's own."""
        with self.namespace.forwarded(NAME) as url, Client(url, token=token or self.admin_token()) as client:
            wait_for(client.ready, seconds=60, every=0.2)
            yield client

    def finished(self, experiment: str, seconds: float = 30 * MINUTES) -> ExperimentView:
        """The record once it has come to an end, whatever becomes of the service meanwhile."""

        def look() -> ExperimentView | None:
            try:
                with self.client() as client:
                    found = client.get(experiment)
            except (SolfaError, AssertionError):
                return None  # as while its pod is replaced
            return found if found.phase.value in ("succeeded", "failed", "cancelled") else None

        try:
            return wait_for(look, seconds=seconds, every=5)
        except AssertionError as error:
            raise AssertionError(f"{experiment} has not finished\n{self.namespace.describe()}") from error


@contextmanager
def installed(namespace: Namespace, images: Images, store: ObjectStore, *more: str) -> Iterator[Release]:
    """A release that is there while the context is, unless a test has uninstalled it before."""
    release = Release(namespace, (*images.values(), *store.values(namespace.name), *more))
    try:
        try:
            release.install()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{namespace.describe()}") from error
        yield release
    finally:
        release.uninstall()


def _is_text(value: str) -> bool:
    """Tags may be all digits."""
    return ".tag=" in value
