"""SeaweedFS on this machine, at the address that pods reach: the S3 of the tests on a cluster."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.bucket import Bucket, open_bucket
from api.errors import BucketError
from tests.services.waiting import wait_for

ACCESS_KEY, SECRET = "solfa-cluster", "solfa-cluster-secret"  # of a server that lives as long as the tests
WEED = shutil.which("weed", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])) or "weed"


@dataclass(frozen=True)
class ObjectStore:
    """Where it listens, and its process group, for those who stop it on purpose."""

    endpoint: str
    group: int

    def values(self, prefix: str) -> list[str]:
        """As the chart wants them; `prefix` is a folder of the bucket."""
        return [
            f"bucket.url=s3://solfa/{prefix}",
            f"bucket.endpoint={self.endpoint}",
            f"bucket.accessKeyId={ACCESS_KEY}",
            f"bucket.secretAccessKey={SECRET}",
        ]

    @property
    def environment(self) -> dict[str, str]:
        """AWS_*, by which both planes reach it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def bucket(self, prefix: str) -> Bucket:
        options: dict[str, Any] = {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET,
        }
        return open_bucket(f"s3://solfa/{prefix}", options | {"client_options": {"allow_http": True, "timeout": "5s"}})

    def send(self, number: signal.Signals) -> None:
        """STOP hangs it, CONT lets it go on."""
        os.killpg(self.group, number)


@contextmanager
def seaweedfs(host: str, folder: Path) -> Iterator[ObjectStore]:
    """A server that holds its data in `folder`, and goes when the context ends."""
    identity = {"name": "tests", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = ["master", "volume", "filer", "s3"]
    ports = _free_ports(host, 2 * len(names))
    command = [WEED, "-logtostderr=true", "server", f"-dir={folder}", f"-ip={host}", f"-ip.bind={host}", "-filer", "-s3"]
    for name, port, grpc in zip(names, ports[::2], ports[1::2], strict=True):
        command += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc}"]
    command += [
        f"-s3.config={folder / 's3.json'}",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-volume.max=8",
        "-master.volumeSizeLimitMB=64",
    ]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True, env={"TMPDIR": str(folder)})
    store = ObjectStore(f"http://{host}:{ports[-2]}", process.pid)
    try:
        wait_for(lambda: _answers(store) or process.poll() is not None, seconds=60, every=0.2)
        assert process.poll() is None, (folder / "weed.log").read_text()[-2000:]
        yield store
    finally:
        with suppress(ProcessLookupError):
            store.send(signal.SIGKILL)
        process.wait()


def _answers(store: ObjectStore) -> bool:
    try:
        store.bucket("ready").put("ready", b"")
    except BucketError:
        return False
    return True


def _free_ports(host: str, count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((host, 0))
        return [one.getsockname()[1] for one in sockets]
