"""S3 servers on loopback: SeaweedFS, a real one; one that takes no notice of conditions; one that takes calls and says nothing."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from api.bucket import Bucket, open_bucket
from api.errors import BucketError
from tests.services.waiting import wait_for

ACCESS_KEY, SECRET = "solfa-access", "solfa-secret-do-not-show"  # of the server below, which lives as long as the tests
WEED = shutil.which("weed", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])) or "weed"


class CannotStart(Exception):
    """The server cannot run on this machine; the message says why."""


def options(port: int, secret: str = SECRET, retries: int = 2, host: str = "127.0.0.1") -> dict[str, Any]:
    return {
        "endpoint": f"http://{host}:{port}",
        "region": "us-east-1",
        "access_key_id": ACCESS_KEY,
        "secret_access_key": secret,
        "client_options": {"allow_http": True, "timeout": "30s"},
        "retry_config": {"max_retries": retries, "retry_timeout": timedelta(seconds=60)},
    }


@dataclass(frozen=True)
class Server:
    """Where it listens, and its process group, for those who stop it on purpose."""

    host: str
    port: int
    group: int

    def send(self, number: signal.Signals) -> None:
        """STOP hangs it, CONT lets it go on."""
        os.killpg(self.group, number)


@contextmanager
def seaweedfs(folder: Path, host: str = "127.0.0.1", secret: str = SECRET) -> Iterator[Server]:
    """A SeaweedFS with one identity, running in `folder`, that goes when the context ends. Raises CannotStart."""
    identity = {"name": "tests", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": secret}], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = ["master", "volume", "filer", "s3"]
    ports = free_ports(2 * len(names), host)
    command = [str(WEED), "-logtostderr=true", "server", f"-dir={folder}", f"-ip={host}", f"-ip.bind={host}", "-filer", "-s3"]
    for name, port, grpc in zip(names, ports[::2], ports[1::2], strict=True):
        command += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc}"]
    command += [f"-s3.config={folder / 's3.json'}", "-s3.iam=false", "-volume.max=8", "-master.volumeSizeLimitMB=64"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # they would listen at fixed ports
    with (folder / "weed.log").open("wb") as log:
        try:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        except OSError as error:
            raise CannotStart(f"{WEED}: {error.strerror}") from error
        server = Server(host, ports[-2], process.pid)
        try:
            wait_for(lambda: _answers(server, secret) or process.poll() is not None, seconds=60, every=0.1)
            if process.poll() is not None:
                raise CannotStart(f"weed ended with {process.returncode}: {(folder / 'weed.log').read_text()[-500:]}")
            yield server
        finally:
            with suppress(ProcessLookupError):
                server.send(signal.SIGKILL)  # asked nicely it takes half a minute, and its folder goes anyway
            process.wait()
            for left in (path for one in ports for path in Path(gettempdir()).glob(f"seaweedfs-*-{one}.sock")):
                left.unlink(missing_ok=True)


def _answers(server: Server, secret: str) -> bool:
    try:
        open_bucket("s3://tests/ready", options(server.port, secret, retries=0, host=server.host)).put("ready", b"")
    except BucketError:
        return False
    return True


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((host, 0))
        return [one.getsockname()[1] for one in sockets]


class _Careless(BaseHTTPRequestHandler):
    """Stores what it is given, whatever If-Match and If-None-Match say, as `rclone serve s3` does."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]

    def do_PUT(self) -> None:
        self.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, self.objects[self.path], body=False)

    def do_GET(self) -> None:
        found = self.objects.get(self.path)
        self._answer(404 if found is None else 200, found or b"", body=True)

    def do_POST(self) -> None:
        """DeleteObjects, the one POST that a bucket makes."""
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        for key in re.findall("<Key>(.*?)</Key>", asked):
            self.objects.pop(f"{self.path.partition('?')[0]}/{key}")
        self._answer(200, b'<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>', body=True)

    def _answer(self, status: int, data: bytes, body: bool) -> None:
        self.send_response(status)
        self.send_header("ETag", f'"{md5(data).hexdigest()}"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("Content-Length", str(len(data) if body else 0))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def careless_server() -> Iterator[tuple[int, dict[str, bytes]]]:
    """Its port, and what it holds."""
    objects: dict[str, bytes] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Careless", (_Careless,), {"objects": objects}))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_port, objects
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def silent_server() -> Iterator[int]:
    """The port of one that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def bucket_at(port: int, name: str, **changes: Any) -> Bucket:
    return open_bucket(f"s3://{name}", options(port) | changes)
