"""The Volcano job of an attempt: what TorchX renders, with names, labels, security and policies of ours. Pure.

TorchX gives one task a replica; what is said here of a pod holds for each of them.
"""

import copy
import math
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from torchx.specs import AppDef

from api.errors import LaunchRejected
from api.reach import EVERYTHING, Reach
from api.spec import Compute
from services.launch.appdef import ROLE, Site, identity, make_app
from services.launch.cluster import LaunchRequest

SCHEDULER = "kubernetes"  # TorchX's name of it
USER = 10001  # of the trainer image; by number, so that runAsNonRoot can be checked
CACHE, TEMPORARY, SHARED_MEMORY = "/var/cache/solfa", "/tmp", "/dev/shm"  # noqa: S108  # a folder of the pod alone
RENDEZVOUS_PORT = 29500
LOST_AFTER = 5  # seconds that a pod stays bound to a node that is not ready; Kubernetes' default is 300
GRACE = 45  # seconds to save the train state when a pod is asked to end: torchrun gives its workers 30
TIME_TO_LIVE = 86_400  # seconds that an ended job stays, should this service not come to remove it
METRICS = "metrics"  # the port that the chart's PodMonitor names
RESTARTS = 10  # of the workers of one agent; past it the container starts afresh, and crash loops are ended by services.launch.pods
NEVER = 1_000_000  # Volcano counts evictions as retries, and they are to spend none
REQUEST_ANNOTATION = "solfa.dev/request"
MANAGED_BY, INSTANCE = "app.kubernetes.io/managed-by", "app.kubernetes.io/instance"
JOB_LABEL = "volcano.sh/job-name"  # set by Volcano on every pod
RANDOM_ENVIRONMENT = ("TORCHX_INTERNAL_SESSION_ID", "TORCHX_RANK0_HOST", "TORCHX_IMAGE")  # random, or of no use to the trainer
RENDEZVOUS = {  # measured: with these a lost node is noticed, and a returned one taken in, within seconds
    "last_call_timeout": 5,
    "keep_alive_interval": 2,
    "keep_alive_max_attempt": 2,
    "join_timeout": 300,
    "read_timeout": 20,
    "is_host": "$(SOLFA_HOSTS_RENDEZVOUS)",
}


@dataclass(frozen=True)
class Place:
    """Where and as what attempts run: an operator's choices."""

    bucket_url: str
    image: str
    namespace: str = "default"
    release: str = "solfa"
    """Of the service that launches: its apps are told from another's by it."""
    queue: str = "default"
    priority_class: str | None = None
    service_account: str | None = None
    secret: str | None = None
    """A Secret whose keys become environment of the training pods; only its name is known here."""
    pull_secrets: tuple[str, ...] = ()
    bucket_claim: str | None = None
    """A volume claim whose folder is a `file://` bucket, which keeps its lock beside it; None: the bucket is reached over the network."""
    node_selector: dict[str, str] = field(default_factory=dict)
    gpu_resource: str = "nvidia.com/gpu"
    """What a GPU is called on this cluster."""
    environment: dict[str, str] = field(default_factory=dict)
    shm_mb: int = 1024
    data_claims: dict[str, str] = field(default_factory=dict)
    """Volume claims with text to learn from, and where each is mounted in every training pod, read-only."""
    reach: Reach = EVERYTHING
    """What training pods may read for a spec."""
    metrics_port: int = 0
    """On which training pods answer Prometheus; 0: they do not."""
    slots: int | None = None
    """Attempts that the queue has room for at once, where an operator says so; the queue itself is asked for more all the same."""

    @property
    def selector(self) -> str:
        """Label selector of all that this service launched."""
        return f"{MANAGED_BY}=solfa,{INSTANCE}={self.release}"


def app_for(request: LaunchRequest, place: Place) -> AppDef:
    """The app as TorchX is to render it: torchrun's elastic agent in each replica. Raises LaunchRejected for what cannot be asked for."""
    compute = _compute(request)
    if place.gpu_resource in compute.resources:
        stage = request.config.plan.name
        raise LaunchRejected(f"{stage} asks for {place.gpu_resource} by name, which is a GPU here; say how many with compute.gpus.")
    site = Site(place.bucket_url, image=place.image, reach=place.reach)
    return make_app(request, replace(site, command=tuple(elastic_torchrun(request.app, compute, site.python))))


def elastic_torchrun(app: str, compute: Compute, python: str) -> list[str]:
    """An agent whose rendezvous is kept by pod 0, found by the host name that Volcano's svc plugin gives it."""
    return [
        *(python, "-m", "torch.distributed.run"),
        *("--nnodes", f"{compute.replicas.min}:{compute.replicas.max}", "--nproc-per-node", str(compute.processes)),
        *("--max-restarts", str(RESTARTS), "--rdzv-backend", "c10d", "--rdzv-id", app),
        *("--rdzv-endpoint", f"{app}-{ROLE}-0-0.{app}:{RENDEZVOUS_PORT}"),
        *("--rdzv-conf", ",".join(f"{name}={value}" for name, value in RENDEZVOUS.items())),
        *("--local-addr", "$(SOLFA_POD_IP)"),  # peers then find each other without DNS
        *("-m", "trainer"),
    ]


def dressed(rendered: dict[str, Any], request: LaunchRequest, place: Place) -> dict[str, Any]:
    """The job as it is created: equal for equal requests, whatever TorchX drew at random."""
    job = copy.deepcopy(rendered)
    compute, labels = _compute(request), labels_of(request, place)
    annotations = {REQUEST_ANNOTATION: identity(request)}
    job["metadata"] = {"name": request.app, "namespace": place.namespace, "labels": labels, "annotations": annotations}
    spec = job["spec"]
    spec["minAvailable"] = compute.replicas.min
    spec["maxRetry"] = NEVER
    spec["ttlSecondsAfterFinished"] = TIME_TO_LIVE
    spec["plugins"] = {"env": [], "svc": ["--publish-not-ready-addresses=true", "--disable-network-policy=true"]}
    for index, task in enumerate(spec["tasks"]):
        task["replicas"] = int(index < (request.replicas or compute.replicas.max))  # more of them may be asked for later, up to all
        task["maxRetry"] = NEVER
        task["policies"] = [{"event": "TaskCompleted", "action": "CompleteJob"}] if index == 0 else []
        template = task["template"]
        template["metadata"]["labels"] = {**template["metadata"]["labels"], **labels}
        template["metadata"]["annotations"] = {**template["metadata"].get("annotations", {}), **annotations}
        _dress_pod(template["spec"], place, request.app)
        _dress_container(template["spec"]["containers"][0], request, place, index)
    return job


def labels_of(request: LaunchRequest, place: Place) -> dict[str, str]:
    """By which a person finds all of a project, an experiment, a stage or an attempt."""
    config = request.config
    return {
        "app.kubernetes.io/name": "solfa-trainer",
        INSTANCE: place.release,
        MANAGED_BY: "solfa",
        "solfa.dev/project": request.project,
        "solfa.dev/experiment": config.experiment_id,
        "solfa.dev/stage": config.plan.name,
        "solfa.dev/attempt": str(config.attempt),
    }


def _dress_pod(spec: dict[str, Any], place: Place, app: str) -> None:
    spec["restartPolicy"] = "OnFailure"  # an agent that lost its rendezvous starts again in place, without waiting for a new pod
    spec["terminationGracePeriodSeconds"] = GRACE
    spec["automountServiceAccountToken"] = False
    spec["enableServiceLinks"] = False
    spec["shareProcessNamespace"] = True  # process 1 is deaf to SIGTERM until it listens: a pod that still starts would take all its grace
    spec["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    keys = ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
    spec["tolerations"] = [{"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": LOST_AFTER} for key in keys]
    spec["nodeSelector"] = {**spec.get("nodeSelector", {}), **place.node_selector}
    if place.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in place.pull_secrets]
    apart = {"labelSelector": {"matchLabels": {JOB_LABEL: app}}, "topologyKey": "kubernetes.io/hostname"}
    preferred = [{"weight": 100, "podAffinityTerm": apart}]  # a lost node should take one replica with it
    spec["affinity"] = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    spec["volumes"] = [
        {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{place.shm_mb}Mi"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "cache", "emptyDir": {}},
        *(
            {"name": f"data-{number}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
            for number, claim in enumerate(place.data_claims)
        ),
        *([{"name": "bucket", "persistentVolumeClaim": {"claimName": place.bucket_claim}}] if place.bucket_claim else []),
    ]


def _dress_container(container: dict[str, Any], request: LaunchRequest, place: Place, index: int) -> None:
    given = {entry["name"]: entry for entry in container["env"] if entry["name"] not in RANDOM_ENVIRONMENT}
    ours = {
        "HOME": TEMPORARY,
        "SOLFA_CACHE": CACHE,
        "SOLFA_HOSTS_RENDEZVOUS": "true" if index == 0 else "false",
        "TORCHX_JOB_ID": f"{SCHEDULER}://torchx/{place.namespace}:{request.app}",
        **({"SOLFA_METRICS_PORT": str(place.metrics_port)} if place.metrics_port else {}),
        **place.environment,
    }
    given |= {name: {"name": name, "value": value} for name, value in ours.items()}
    given["SOLFA_POD_IP"] = {"name": "SOLFA_POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    container["env"] = [given[name] for name in sorted(given)]
    if place.secret:
        container["envFrom"] = [{"secretRef": {"name": place.secret}}]
    container["resources"] = _resources(_compute(request), place.gpu_resource)
    container["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }
    container["volumeMounts"] = [
        {"name": "dshm", "mountPath": SHARED_MEMORY},
        {"name": "tmp", "mountPath": TEMPORARY},
        {"name": "cache", "mountPath": CACHE},
        *({"name": f"data-{n}", "mountPath": path, "readOnly": True} for n, path in enumerate(place.data_claims.values())),
        *([{"name": "bucket", "mountPath": _bucket_mount(place)}] if place.bucket_claim else []),
    ]
    if place.metrics_port:
        container["ports"] = [*container.get("ports", []), {"name": METRICS, "containerPort": place.metrics_port, "protocol": "TCP"}]
    container["terminationMessagePolicy"] = "FallbackToLogsOnError"


def _bucket_mount(place: Place) -> str:
    return str(PurePosixPath(unquote(urlsplit(place.bucket_url).path)).parent)


def _resources(compute: Compute, gpu: str) -> dict[str, dict[str, str]]:
    """What the spec asks for; CPU may be used up to the next whole one, since threads are whole."""
    devices = {**compute.resources, **({gpu: compute.gpus} if compute.gpus else {})}
    fixed = {"memory": f"{compute.memory_mb}Mi", **{name: str(count) for name, count in sorted(devices.items())}}
    return {
        "requests": {"cpu": f"{math.ceil(compute.cpus * 1000)}m", **fixed},
        "limits": {"cpu": f"{math.ceil(compute.cpus) * 1000}m", **fixed},
    }


def _compute(request: LaunchRequest) -> Compute:
    return request.config.spec.compute_for(request.config.plan.kind)
