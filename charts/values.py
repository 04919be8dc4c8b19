"""The chart's values: the one source of values.yaml, values.schema.json and the table in the chart's README.

`python charts/values.py` writes the three; a test holds them equal to what this would write.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

CHART = Path(__file__).resolve().parent / "solfa"
NAME = r"^$|^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
MARKS = ("<!-- values -->", "<!-- /values -->")
Environment = dict[str, str]


class Group(BaseModel):
    """A mapping in values.yaml: no field but those named here."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True)


class Image(Group):
    repository: str = Field(min_length=1)
    """Name of the image, below `images.registry` where that is given."""
    tag: str = ""
    """Empty: the chart's appVersion."""
    digest: str = Field(default="", pattern=r"^$|^sha256:[0-9a-f]{64}$")
    """`sha256:...`; taken instead of the tag."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When a node asks the registry again."""


class Credentials(Group):
    username: str = ""
    """For the registry, kept in an image-pull Secret that the chart makes. Empty: none is made."""
    password: str = ""
    """Goes with it."""


class Images(Group):
    registry: str = ""
    """Put before both repositories, for example `registry.example.com/ml`; these two images are all that is ever pulled."""
    control: Image = Image(repository="solfa-control")
    trainer: Image = Image(repository="solfa-trainer")
    pull_secrets: list[str] = []
    """Names of image-pull Secrets of your own, for the service and for training pods."""
    credentials: Credentials = Credentials()


class Volume(Group):
    size: str = Field(default="2Gi", pattern=r"^[0-9]+(Mi|Gi|Ti)$")
    """Of the claim that is made."""
    storage_class: str = ""
    """Empty: the cluster's default."""
    existing_claim: str = Field(default="", pattern=NAME)
    """A claim of your own, instead of a new one."""
    keep: bool = False
    """Whether the claim outlives `helm uninstall`."""


class SharedVolume(Volume):
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = "ReadWriteOnce"
    """ReadWriteOnce keeps the service and all training pods on one node: enough to try it out. ReadWriteMany is for more nodes."""


class Database(Group):
    url: str = Field(default="", pattern=r"^$|^postgresql(\+psycopg)?://")
    """`postgresql+psycopg://user:password@host/name`, kept in a Secret that the chart makes.
    Empty, and no Secret named: SQLite on a volume, one replica."""
    existing_secret: str = Field(default="", pattern=NAME)
    """A Secret of your own that holds the URL, instead."""
    key: str = Field(default="url", min_length=1)
    """Its key."""
    volume: Volume = Volume()


class Bucket(Group):
    url: str = Field(default="", pattern=r"^$|^s3://[^/]+")
    """`s3://bucket/prefix`, where training pods leave their results. It must honour conditional writes; the service checks that
    when it starts. Empty: a folder on a volume."""
    endpoint: str = Field(default="", pattern=r"^$|^https?://")
    """Of an S3 that is not Amazon's. An `http://` one is allowed as it is."""
    region: str = "us-east-1"
    """Of the bucket."""
    access_key_id: str = ""
    """Kept in a Secret that the chart makes. Empty, and no Secret named: the pods' own identity (annotate both service accounts)."""
    secret_access_key: str = ""
    """Goes with it."""
    existing_secret: str = Field(default="", pattern=NAME)
    """A Secret of your own with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, instead."""
    volume: SharedVolume = SharedVolume(size="10Gi")


class Account(Group):
    create: bool = True
    """Whether the chart makes it."""
    name: str = Field(default="", pattern=NAME)
    """Empty: named for the release."""
    annotations: Environment = {}
    """Such as a cloud identity."""


class Training(Group):
    queue: str = Field(default="default", min_length=1)
    """Volcano's queue for training jobs."""
    slots: int = Field(default=0, ge=0)
    """How many attempts that queue has room for at once, if they are few: an experiment's baselines, which are large, then leave one to its
    search, and weights do not wait for them. 0: any number; baselines begin beside the search."""
    priority_class: str = Field(default="", pattern=NAME)
    """Of training pods."""
    node_selector: Environment = {}
    """Labels of the nodes that train."""
    gpu_resource: str = Field(default="nvidia.com/gpu", pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    """What a GPU is called on this cluster."""
    environment: Environment = {}
    """More variables for training pods, such as NCCL_SOCKET_IFNAME."""
    data_claims: Environment = {}
    """Claims that hold the text, each with the folder at which every training pod reads it: `{corpus: /data}`.
    They must be of a kind that all nodes can mount at once."""
    shm_mb: int = Field(default=1024, ge=1)
    """Size of /dev/shm, in MiB."""
    metrics_port: int = Field(default=9400, ge=0, le=65535)
    """Where training pods answer Prometheus, which finds them with `monitoring.monitor`. 0: they do not."""
    service_account: Account = Account()


class Access(Group):
    mode: Literal["required", "open"] = "required"
    """Whether the service asks for a token. `open` lets everybody who reaches it do everything."""
    existing_secret: str = Field(default="", pattern=NAME)
    """A Secret of your own with the administrator's token, 20 letters or more.
    Empty: the chart makes a random one and keeps it over upgrades (name one of your own where manifests are rendered without a cluster)."""
    key: str = Field(default="token", min_length=1)
    """Its key."""


class Quota(Group):
    experiments: int | None = Field(default=None, ge=0)
    """Live ones."""
    replicas: int | None = Field(default=None, ge=0)
    """Pods that their stages may have at once."""
    gpus: int | None = Field(default=None, ge=0)
    """Of all these pods; a device of a spec's `resources` is one too, unless the next names it."""
    resources: dict[str, Annotated[int, Field(ge=0)]] = {}
    """Other devices by name, with a limit of their own: `{rdma/hca: 16}`."""


class Limits(Group):
    quotas: dict[str, Quota] = {}
    """How much of a project may live at once, for example `{speech: {experiments: 5, gpus: 16}, "*": {replicas: 8}}`;
    `*` is every project that is not named."""
    data_roots: list[Annotated[str, Field(pattern="^/")]] = []
    """Folders that specs may read. Empty: those of `training.dataClaims`, or `/data` where there are none."""
    requests_per_minute: int = Field(default=1200, ge=0)
    """Of one token, or of one address where none was shown, at each replica; 0: as many as they like."""
    requests_at_once: int = Field(default=500, ge=0)
    """Of the same that may be open together, streams and waits among them; 0: any number."""


class Service(Group):
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """How the service is reached."""
    port: int = Field(default=8700, ge=1, le=65535)
    """Of the Service object."""
    annotations: Environment = {}
    """Of the Service object."""
    trusted_proxies: list[Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+(/[0-9]+)?$")]] = []
    """Addresses or networks of the Ingress controller's or Gateway's pods, whose X-Forwarded-For and X-Forwarded-Proto are believed:
    for rates, the audit record, and a cookie that goes over TLS alone. Empty: nobody's are."""


class Ingress(Group):
    enabled: bool = False
    """Whether there is one."""
    class_name: str = ""
    """Empty: the cluster's default."""
    host: str = ""
    """The name that people type; required with `enabled`."""
    tls_secret: str = Field(default="", pattern=NAME)
    """The certificate's Secret. Empty: no TLS."""
    annotations: Environment = {}
    """Event streams want buffering off and a long read time-out."""


class Gateway(Group):
    enabled: bool = False
    """Whether there is an HTTPRoute (of the Gateway API, 1.2 or newer): instead of an Ingress, or beside one, or neither."""
    parent_refs: list[dict[str, Any]] = []
    """The Gateways it attaches to, as in an HTTPRoute: `[{name: public, namespace: gateways}]`; required with `enabled`."""
    hostnames: list[str] = []
    """The names that people type. Empty: those of the Gateway."""
    annotations: Environment = {}
    """Of the route."""


class NetworkPolicy(Group):
    enabled: bool = True
    """Whether the service answers on its port only, and training pods take connections from those of their release only."""
    clients: list[dict[str, Any]] = []
    """NetworkPolicyPeers that may reach the service, and training pods' metrics: Prometheus among them. Empty: anyone reaches the
    service, which asks for a token, and nobody the metrics of training pods, which ask for none."""


class DisruptionBudget(Group):
    enabled: bool = True
    """Whether at most one replica may be drained at a time."""


class Autoscaling(Group):
    enabled: bool = False
    """Whether an HPA sets the replicas; needs PostgreSQL."""
    min_replicas: int = Field(default=2, ge=1)
    """At least."""
    max_replicas: int = Field(default=4, ge=1)
    """At most."""
    cpu_percent: int = Field(default=80, ge=1, le=1000)
    """Of the CPU that a replica requests."""


class Monitoring(Group):
    monitor: Literal["", "ServiceMonitor", "PodMonitor"] = ""
    """`ServiceMonitor` or `PodMonitor`, an object of the Prometheus operator; each replica is scraped either way. Empty: none is made."""
    token_secret: str = Field(default="", pattern=NAME)
    """A Secret of your own under whose key `token` Prometheus finds a token that reads, of every project. Empty: the administrator's."""
    interval: str = Field(default="30s", pattern=r"^[0-9]+(s|m)$")
    """Between scrapes."""
    rules: bool = False
    """Whether a PrometheusRule with the alerts of charts/alerts.py is made."""
    runbooks: str = Field(default="", pattern=r"^$|^https?://")
    """Where people at your place read docs/runbooks, such as a URL of the repository's folder. Empty: alerts name the page by its path."""
    dashboards: bool = False
    """Whether Grafana's dashboards are made, as ConfigMaps with the label that its sidecar looks for."""
    additional_labels: Environment = {}
    """Such as `release`, without which kube-prometheus-stack looks past it."""


class Values(Group):
    replicas: int = Field(default=1, ge=1)
    """Of the service; one leads and all answer. More than one needs PostgreSQL."""
    images: Images = Images()
    database: Database = Database()
    bucket: Bucket = Bucket()
    access: Access = Access()
    limits: Limits = Limits()
    training: Training = Training()
    check_sources: bool = False
    """Whether the service itself looks for a spec's files at submission; off, because training pods see them and it does not."""
    service: Service = Service()
    ingress: Ingress = Ingress()
    gateway: Gateway = Gateway()
    service_account: Account = Account()
    network_policy: NetworkPolicy = NetworkPolicy()
    disruption_budget: DisruptionBudget = DisruptionBudget()
    autoscaling: Autoscaling = Autoscaling()
    monitoring: Monitoring = Monitoring()
    environment: Environment = {}
    """More variables for the service, such as SOLFA_MAX_BODY_BYTES."""
    resources: dict[str, Any] = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
    """Of the service's container."""
    pod_annotations: Environment = {}
    """Of the service's pods."""
    node_selector: Environment = {}
    """Of the service's pods."""
    tolerations: list[dict[str, Any]] = []
    """Of the service's pods."""
    affinity: dict[str, Any] = {}
    """Of the service's pods. Empty: replicas keep to different nodes where they can."""
    priority_class: str = Field(default="", pattern=NAME)
    """Of the service's pods."""


def fields(group: type[Group], prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """(path, description, default) of every value that is no group."""
    for name, field in group.model_fields.items():
        path = f"{prefix}{to_camel(name)}"
        if isinstance(field.default, Group):
            for inner, description, _ in fields(type(field.default), f"{path}."):
                yield inner, description, _at(field.default, inner.removeprefix(f"{path}."))
        else:
            yield path, " ".join((field.description or "").split()), field.default


def _at(group: Group, path: str) -> Any:
    found: Any = group.model_dump(by_alias=True)
    for part in path.split("."):
        found = found[part]
    return found


def schema_text() -> str:
    schema = Values.model_json_schema(by_alias=True)
    document = {"$schema": "http://json-schema.org/draft-07/schema#", **_plain(schema)}
    document["properties"]["global"] = {"type": "object", "description": "Helm hands it to a chart that another one contains; not used."}
    return json.dumps(document, indent=2) + "\n"


def _plain(node: Any) -> Any:
    """Without the titles that pydantic makes of names, and without classes' docstrings."""
    if isinstance(node, list):
        return [_plain(one) for one in node]
    if not isinstance(node, dict):
        return node
    return {key: _plain(value) for key, value in node.items() if not (key == "title" and isinstance(value, str))}


def values_text() -> str:
    lines = ["# Generated by charts/values.py: change it there. Each value, with its default.", *_yaml(Values())]
    return "\n".join(lines) + "\n"


def _yaml(group: Group, indent: str = "") -> Iterator[str]:
    for name, field in type(group).model_fields.items():
        value = getattr(group, name)
        if isinstance(value, Group):
            yield f"{indent}{to_camel(name)}:"
            yield from _yaml(value, f"{indent}  ")
            continue
        yield f"{indent}# {' '.join((field.description or '').split())}"
        text = yaml.safe_dump({to_camel(name): value}, sort_keys=False, width=1000).rstrip("\n")
        yield from (f"{indent}{line}" for line in text.splitlines())


def table_text() -> str:
    rows = ["| value | default | what it is |", "|---|---|---|"]
    rows += [f"| `{path}` | `{json.dumps(default)}` | {description} |" for path, description, default in fields(Values)]
    return "\n".join([MARKS[0], *rows, MARKS[1]])


def readme_text(readme: str) -> str:
    """The README with its table brought up to date."""
    before, after = readme.partition(MARKS[0])[0], readme.partition(MARKS[1])[2]
    return before + table_text() + after


def generated() -> dict[Path, str]:
    """What each generated file should hold."""
    readme = CHART / "README.md"
    return {
        CHART / "values.yaml": values_text(),
        CHART / "values.schema.json": schema_text(),
        readme: readme_text(readme.read_text()),
    }


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text)
