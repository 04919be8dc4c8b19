"""The service dies before and after each launch on a cluster, and is started again: each stage has one job, and one attempt."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from api.experiment import Experiment, Stage, app_name
from api.plan import make_plan
from api.spec import parse_spec
from services.launch.cluster import LaunchRequest
from services.launch.kubernetes import KubernetesCluster
from services.launch.manifest import Place
from services.reconciler import Pace, Reconciler, utc_now
from services.store import ExperimentStore, open_store
from tests.cluster.images import Images
from tests.cluster.kube import Namespace
from tests.cluster.launching import CREDENTIALS, apply, public
from tests.cluster.object_store import ObjectStore
from tests.cluster.search import search_spec
from tests.services.waiting import wait_for

ID = "xcrashcrash"


class Crash(BaseException):
    """The service's death."""


def fragile(launch: Callable[[LaunchRequest], None], at: set[int], passed: list[int]) -> Callable[[LaunchRequest], None]:
    """`launch`, said twice as if an answer had been lost, with a death before or after it at the points in `at`."""

    def point() -> None:
        passed.append(len(passed))
        if passed[-1] in at:
            raise Crash

    def around(request: LaunchRequest) -> None:
        point()
        launch(request)
        launch(request)
        point()

    return around


def test_a_launch_that_is_repeated_after_a_death_finds_the_first(
    namespace: Namespace, images: Images, object_store: ObjectStore, tmp_path: Path
) -> None:
    apply(namespace, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": CREDENTIALS})
    bucket = object_store.bucket(namespace.name)
    place = Place(bucket.url, images.trainer, namespace.name, namespace.name, secret="s3", environment=public(object_store))
    store = open_store(f"sqlite:///{tmp_path}/solfa.db")
    text = search_spec("crash", doremi={"objective": "hardest"}, comparison={"mixtures": []})
    stages = tuple(Stage(plan=planned) for planned in make_plan(parse_spec(text)).stages)
    store.create(
        Experiment(id=ID, name="crash", spec_text=text, spec_sha256="0" * 64, created_at=utc_now(), stages=stages), None, utc_now()
    )

    jobs: set[tuple[str, str]] = set()  # every job that ever was: name and uid
    passed: list[int] = []
    deaths = 0
    while store.get(ID).phase not in ("succeeded", "failed"):
        cluster = KubernetesCluster(place)
        cluster.launch = fragile(cluster.launch, {0, 2, 4}, passed)  # type: ignore[method-assign]  # the fault itself
        reconciler = Reconciler(store, cluster, bucket, utc_now, Pace(interval=0.2, lease=0.5))
        try:
            wait_for(lambda each=reconciler, on=cluster: one_pass(each, on, store, namespace, jobs), 600, every=0.3)
        except Crash:
            deaths += 1
        finally:
            cluster.close()
    record = store.get(ID)
    store.close()
    assert deaths == 3
    assert [(stage.phase.value, len(stage.attempts)) for stage in record.stages] == [("succeeded", 1), ("succeeded", 1)]
    assert sorted(name for name, _ in jobs) == [app_name(ID, "prepare", 1), app_name(ID, "proxy", 1)]
    wait_for(lambda: not namespace.get("jobs.batch.volcano.sh"), 60, every=0.5)


def one_pass(
    reconciler: Reconciler, cluster: KubernetesCluster, store: ExperimentStore, namespace: Namespace, jobs: set[tuple[str, str]]
) -> bool:
    """Whether all is done, and tidy."""
    with contextlib.suppress(KeyError):
        reconciler.run_once()
    jobs |= {(job["metadata"]["name"], job["metadata"]["uid"]) for job in namespace.get("jobs.batch.volcano.sh")}
    return store.get(ID).phase.value in ("succeeded", "failed") and not cluster.look()
