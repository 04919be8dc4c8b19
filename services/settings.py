"""The service's settings: frozen, passed in. The only reader of the environment in this plane."""

import fcntl
import json
import os
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from api.errors import BadRequest
from api.reach import Reach
from api.spec.compute import RESOURCE_PATTERN
from services.access.origin import is_loopback
from services.quotas import Quota

PREFIX = "SOLFA_"
PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME")
PASSED_ON_PREFIXES = ("LC_", "AWS_", "HF_", "NCCL_", "GLOO_", "TORCH_", "TORCHINDUCTOR_", "TRITON_", "SSL_CERT_", "COVERAGE_")
ADMIN_TOKEN_LETTERS = 20
HOME_FILES = ("service.json", "service.log", "service.lock", "env")  # beside the embedded database and bucket
IMAGE_DATA = "/data"  # where trainer images hold texts, if they do
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def _parsed(value: Any) -> Any:
    """An environment variable holds a mapping as a JSON object."""
    try:
        return json.loads(value or "{}") if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"it is no JSON object ({error})") from error


def _split(value: Any) -> Any:
    """An environment variable holds a list with commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _is_secret(name: str, value: str) -> bool:
    """Whether a variable holds one, by its name, or by its value: a URL with a password."""
    ends = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS", "PRIVATE_KEY", "ACCESS_KEY", "API_KEY")
    return (name.upper().endswith(ends) and "DISABLE" not in name.upper()) or bool(
        re.match(r"[a-z0-9+.-]+://[^/@]*:[^/@]*@", value.lower())
    )


Mapped = Annotated[dict[str, str], BeforeValidator(_parsed)]
Quotas = Annotated[dict[str, Quota], BeforeValidator(_parsed)]
Listed = Annotated[tuple[str, ...], BeforeValidator(_split)]


class Settings(BaseModel):
    """All that an operator chooses; each can be set by `SOLFA_<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    home: Path = Path(".solfa")
    """The folder of the embedded defaults: database, bucket, running apps."""
    url: str = ""
    """Where commands find the service; empty: where `solfa up` wrote it down in `home`."""
    token: SecretStr = SecretStr("")
    """What commands show a service that asks for a token; never an option, which a list of processes would show."""
    project: str = ""
    """Whose experiments commands mean; empty: those of the token's project, or of every one."""
    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on."""
    port: int = Field(default=8700, ge=0, le=65535)
    """0: any free one."""
    trusted_proxies: Listed = ()
    """Addresses or networks, with commas between, of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed: who asks, for rates
    and the audit record, and whether over TLS, for the cookie. Empty: nobody's are."""
    access: Literal["auto", "required", "open"] = "auto"
    """Whether a token is asked for: `auto` on every address but this machine's own; `open` lets everybody do everything."""
    admin_token: SecretStr = SecretStr("")
    """The administrator's, of every project: a way in before any token was issued, 20 letters or more."""
    database_url: str = ""
    """`sqlite:///path` or `postgresql+psycopg://user@host/name`; empty: SQLite in `home`."""
    bucket_url: str = ""
    """`file:///folder` or `s3://name/prefix`; empty: a folder in `home`."""
    slots: int | None = Field(default=None, ge=1)
    """Attempts that run at once on this machine; not set: 1. On Kubernetes, where Volcano's queue decides, how many it has room for, if
    they are few: an experiment's baselines then leave one to its search, and weights do not wait for them; not set: any number."""
    reconcile: bool = True
    """Whether this process moves experiments on, or only answers."""
    check_sources: bool = True
    """Whether sources are read at submission; off where the service cannot reach them."""
    data_roots: Listed | None = None
    """Folders that specs may read, with commas between; links out of them are not followed. Not set: every one while listening on
    loopback; in a cluster those of SOLFA_DATA_CLAIMS, or /data where there are none; else none."""
    max_body_bytes: int = Field(default=1_000_000, ge=1000)
    """A larger request is refused."""
    request_seconds: float = Field(default=30.0, gt=0)
    """A request's head must have come within this time, and then its body."""
    requests_per_minute: int | None = Field(default=None, ge=0)
    """Of one token, or of one address where none was shown; more are answered 429. 0: as many as they like. Not set: 1200, but no limit
    while listening on loopback."""
    requests_at_once: int | None = Field(default=None, ge=0)
    """Of one token or address, as above, that may be open together, streams and waits among them; more are answered 429. 0: any number.
    Not set: 500, but no limit while listening on loopback."""
    quotas: Quotas = {}
    """A JSON object: how much of a project may live at once, such as `{"speech": {"experiments": 5, "gpus": 16}, "*": {"replicas": 8}}`;
    `*` is every project that is not named. Devices of a spec's `resources` count as GPUs, but for those that a quota's own
    `resources` names: `{"*": {"gpus": 8, "resources": {"rdma/hca": 16, "nvidia.com/mig-3g.40gb": 4}}}`, or null for no limit."""
    max_wait_seconds: float = Field(default=300.0, ge=0)
    """The longest `?wait=`."""
    heartbeat_seconds: float = Field(default=15.0, gt=0)
    """Between the signs of life of a silent event stream."""
    metrics_experiments: int = Field(default=50, ge=0)
    """Live experiments that have metrics of their own; of those beyond, it is only counted that they have none."""
    cluster: Literal["local", "kubernetes"] = "local"
    """Where attempts run; the settings below are of `kubernetes`."""
    namespace: str = ""
    """Of the training pods; empty: that of the service's own pod, else `default`."""
    trainer_image: str = ""
    """Required."""
    bucket_claim: str = ""
    """A volume claim that holds the `file://` bucket: it is mounted in the training pods where this service has it."""
    queue: str = "default"
    """Volcano's queue."""
    priority_class: str = ""
    trainer_service_account: str = ""
    trainer_secret: str = ""
    """A Secret whose keys become environment of the training pods (AWS_ACCESS_KEY_ID, ...)."""
    image_pull_secrets: Listed = ()
    """Names, with commas between."""
    node_selector: Mapped = {}
    """A JSON object of node labels."""
    gpu_resource: str = Field(default="nvidia.com/gpu", pattern=RESOURCE_PATTERN)
    """What a GPU is called on the cluster, such as `amd.com/gpu`."""
    trainer_env: Mapped = {}
    """A JSON object: environment of the training pods (AWS_ENDPOINT_URL, AWS_REGION, ...)."""
    data_claims: Mapped = {}
    """A JSON object: a volume claim with text to learn from, and where it is mounted in the training pods, read-only."""
    shm_mb: int = Field(default=1024, ge=1)
    """Size of the training pods' /dev/shm, in MiB, within their memory."""
    trainer_metrics_port: int = Field(default=0, ge=0, le=65535)
    """Where training pods answer Prometheus; 0: they do not."""
    release: str = "solfa"
    """The label app.kubernetes.io/instance of all that is launched: two services of one namespace need two."""

    @model_validator(mode="after")
    def _check_cluster(self) -> Self:
        if 0 < len(self.admin_token.get_secret_value()) < ADMIN_TOKEN_LETTERS:
            raise ValueError(f"SOLFA_ADMIN_TOKEN has fewer than {ADMIN_TOKEN_LETTERS} letters")
        if self.cluster == "kubernetes" and not self.trainer_image:
            raise ValueError("SOLFA_CLUSTER=kubernetes needs SOLFA_TRAINER_IMAGE")
        if relative := [root for root in self.data_roots or () if not root.startswith("/")]:
            raise ValueError(f"SOLFA_DATA_ROOTS: {relative[0]} is relative; give absolute paths")
        if secret := next((name for name, value in self.trainer_env.items() if _is_secret(name, value)), None):
            raise ValueError(
                f"SOLFA_TRAINER_ENV is shown to whoever validates a spec; put {secret} into the Secret of SOLFA_TRAINER_SECRET"
            )
        if self.bucket_claim and not re.fullmatch(r"file:///[^/].*/[^/]+", self.bucket_url):
            raise ValueError("SOLFA_BUCKET_CLAIM needs a SOLFA_BUCKET_URL that is a folder within the volume: file:///where/it/is/folder")
        return self

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ip_network(proxy)
            except ValueError as error:
                raise ValueError(f"{proxy} is neither an address nor a network, such as 10.0.0.5 or 10.0.0.0/8 ({error})") from error
        return proxies

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **given: Any) -> Self:
        """Settings from `SOLFA_*`, with `given` (those that are not None) before them. Raises BadRequest for a value that is none."""
        named = {name: environment[PREFIX + name.upper()] for name in cls.model_fields if PREFIX + name.upper() in environment}
        try:
            return cls.model_validate(named | {name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            wrong = "; ".join(f"{PREFIX}{str(one['loc'][0]).upper()}: {one['msg']}" if one["loc"] else one["msg"] for one in error.errors())
            raise BadRequest(f"The settings cannot be used ({wrong}); change them in the environment or by the options.") from error

    def make_home(self) -> None:
        """Make the folder, its owner's alone. Raises BadRequest where it cannot be, or nothing may be written into it or locked in it."""
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            reason = None if os.access(self.home, os.W_OK | os.X_OK) else "nothing may be written into it"
            if reason is None and not _can_lock(self.home):
                reason = "its file system has no file locks (an NFS mount?), by which processes here keep out of each other's way"
        except OSError as error:
            reason = error.strerror
        if reason:
            raise BadRequest(f"The home {self.home.absolute()} cannot be used: {reason}; choose another with SOLFA_HOME or --home.")

    @property
    def on_loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def guarded(self) -> bool:
        """Whether tokens are asked for."""
        return self.access == "required" or (self.access == "auto" and not self.on_loopback)

    @property
    def who_may(self) -> str:
        """A sentence for who starts it."""
        if self.guarded:
            return "It asks for a token: `solfa token create NAME --offline` makes one, SOLFA_TOKEN brings it."
        if self.on_loopback:
            return "It asks for no token, since only this machine reaches it."
        return "EVERYBODY WHO REACHES IT MAY DO EVERYTHING: SOLFA_ACCESS=open was said."

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{(self.home / 'solfa.db').absolute()}"

    @property
    def bucket(self) -> str:
        return self.bucket_url or (self.home / "bucket").absolute().as_uri()

    @property
    def quota_of_requests(self) -> int:
        """A minute, for each caller; 0: no limit."""
        return (0 if self.on_loopback else 1200) if self.requests_per_minute is None else self.requests_per_minute

    @property
    def most_at_once(self) -> int:
        """Open requests of each caller; 0: no limit."""
        return (0 if self.on_loopback else 500) if self.requests_at_once is None else self.requests_at_once

    @property
    def reach(self) -> Reach:
        """What specs may read; on a cluster, in training pods, which have nothing of the service but a bucket on a volume."""
        roots = self.data_roots
        if roots is None and self.cluster == "kubernetes":
            roots = tuple(self.data_claims.values()) or (IMAGE_DATA,)
        elif roots is None and not self.on_loopback:
            roots = ()
        return Reach(roots=roots, closed=self._own_files() if self.cluster == "local" else self._bucket_files())

    def _own_files(self) -> tuple[str, ...]:
        """What the service keeps, wherever it was told to."""
        home, database = self.home.absolute(), urlsplit(self.database)
        files = [self.apps.absolute(), *(home / name for name in HOME_FILES)]
        if database.scheme.startswith("sqlite"):
            path = unquote(database.path).removeprefix("/")
            files += [Path(f"{Path(path).absolute()}{end}") for end in ("", "-wal", "-shm", "-journal")]
        return (*(str(file) for file in files), *self._bucket_files())

    def _bucket_files(self) -> tuple[str, ...]:
        """Of a bucket that is a folder: what training pods have of the service, where it is on a volume."""
        bucket = urlsplit(self.bucket)
        folder = Path(unquote(bucket.path))
        return (str(folder), str(folder.with_name(f".{folder.name}.lock"))) if bucket.scheme == "file" else ()

    @property
    def training_namespace(self) -> str:
        if not self.namespace and POD_NAMESPACE.is_file():
            return POD_NAMESPACE.read_text().strip()
        return self.namespace or "default"

    @property
    def apps(self) -> Path:
        """Where the local cluster keeps what it runs."""
        return self.home / "apps"


def _can_lock(folder: Path) -> bool:
    with TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def passed_on(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What an attempt's processes see of the service's environment: nothing that is not known to be needed."""
    return {name: value for name, value in environment.items() if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)}
