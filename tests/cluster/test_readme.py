"""examples/cluster/README.md, its commands run as they stand: from an empty cluster to weights, and nothing left."""

import os
import subprocess
from pathlib import Path

from tests.api.s3_servers import ACCESS_KEY, SECRET
from tests.cluster.images import ROOT, builder_words, pusher_words
from tests.cluster.kube import run
from tests.cluster.object_store import ObjectStore
from tests.cluster.search import DOMAINS

GUIDE = ROOT / "examples" / "cluster" / "README.md"
END = "## With text and GPUs of your own"


def commands(guide: str) -> tuple[str, str]:
    """What says what is the reader's, and all that follows it, as one script each: the indented blocks, in order."""
    blocks, before = [""], ""
    for line in guide.partition(END)[0].splitlines():
        if line.startswith("    "):
            blocks[-1] += line[4:] + "\n"
        elif before.startswith("    "):
            blocks.append("")
        before = line
    return blocks[0], "".join(blocks[1:])


def test_the_guides_commands_lead_from_an_empty_cluster_to_weights(object_store: ObjectStore, tmp_path: Path) -> None:
    yours, script = commands(GUIDE.read_text())
    given = {
        "REGISTRY": os.environ["SOLFA_TEST_REGISTRY"],
        "BUCKET": "s3://solfa/guide",
        "S3_ENDPOINT": object_store.endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "BUILD": " ".join(builder_words(tmp_path / "pip.conf")),
        "PUSH": " ".join(pusher_words()),
    }
    assert all(f"{name}=" in yours for name in given)
    try:
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", script], cwd=ROOT, env={**os.environ, **given}, capture_output=True, text=True, check=False
        )
    finally:
        run("kubectl", "delete", "namespace", "solfa", "--ignore-not-found", "--wait=false", check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert all(domain in done.stdout for domain in DOMAINS)
    assert "--data-path" in done.stdout
