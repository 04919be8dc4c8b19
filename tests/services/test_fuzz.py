"""Whatever is posted as a spec is answered with 2xx or 4xx, soon, and leaves the service no larger.

SOLFA_FUZZ sets how many are posted; `make fuzz` posts 10,000 and says what they were answered.
"""

import asyncio
import os
import resource
import time
from collections import Counter
from pathlib import Path

import httpx

from api.bucket import open_bucket
from services.app import create_app
from services.launch.local import LocalCluster
from services.settings import Settings
from services.store import open_store
from tests.services.fuzzing import fuzzed
from tests.services.running import PROGRAM

NUMBER = int(os.environ.get("SOLFA_FUZZ", "150"))
CPU_SECONDS = 10  # for the slowest of them: a thousand domains are read in two
GROWTH = 300  # MiB; what a service does once, such as its OpenAPI document, is within it


async def post_all(app: object, number: int) -> tuple[Counter[int], float]:
    """How often each status came, and the CPU seconds of the slowest answer."""
    statuses: Counter[int] = Counter()
    slowest = 0.0
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # type: ignore[arg-type]  # it is FastAPI
    async with httpx.AsyncClient(transport=transport, base_url="http://solfa") as http:
        for count, body in enumerate(fuzzed(number)):
            began = time.process_time()
            answer = await http.post("/v1/experiments", params={"validate_only": count % 2 == 0}, content=body)
            slowest = max(slowest, time.process_time() - began)
            statuses[answer.status_code] += 1
            assert answer.status_code // 100 in (2, 4), (count, answer.status_code, body[:2000], answer.text)
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == "application/problem+json", (count, answer.text)
                assert answer.json()["detail"].strip()
    return statuses, slowest


def test_fuzzed_specs_get_only_2xx_and_4xx_and_leave_nothing_large(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, check_sources=False, data_roots=("/data",))
    store, bucket = open_store(settings.database), open_bucket(settings.bucket)
    cluster = LocalCluster(settings.apps, bucket.url, 1, PROGRAM)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    statuses, slowest = asyncio.run(post_all(create_app(settings, store, bucket, cluster), NUMBER))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{NUMBER} specs: {dict(sorted(statuses.items()))}; slowest {slowest:.2f} CPU s; the process grew by {grown:.0f} MiB")
    assert slowest < CPU_SECONDS
    assert grown < GROWTH
    assert {200, 202, 422} <= set(statuses)  # some are still valid, or again
    cluster.close()
    store.close()
