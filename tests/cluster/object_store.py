"""The S3 of the tests on a cluster, as the service, training pods and the tests reach it."""

from dataclasses import dataclass

from api.bucket import Bucket, open_bucket
from tests.api.s3_servers import ACCESS_KEY, SECRET, Server, options


@dataclass(frozen=True)
class ObjectStore:
    """A server at an address that pods reach. `port` is a proxy's, where one is before it."""

    server: Server
    port: int

    @property
    def endpoint(self) -> str:
        return f"http://{self.server.host}:{self.port}"

    def values(self, prefix: str) -> list[str]:
        """As the chart wants them; `prefix` is a folder of the bucket."""
        return [
            f"bucket.url=s3://solfa/{prefix}",
            f"bucket.endpoint={self.endpoint}",
            f"bucket.accessKeyId={ACCESS_KEY}",
            f"bucket.secretAccessKey={SECRET}",
        ]

    def bucket(self, prefix: str) -> Bucket:
        return open_bucket(f"s3://solfa/{prefix}", options(self.port, host=self.server.host))
