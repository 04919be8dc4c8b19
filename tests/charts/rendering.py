"""Rendering the chart with helm: what the golden files and the tests of what is refused look at."""

import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "solfa"
VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))
HELM = shutil.which("helm")
KUBERNETES = "1.34.0"


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert HELM
    return subprocess.run([HELM, *map(str, arguments)], capture_output=True, text=True, check=False)


def render(values: Path, *more: str) -> str:
    """The manifests of a release `solfa` in the namespace `ml`, as text; without empty lines, in which alone helm 3 and helm 4 differ."""
    done = helm("template", "solfa", CHART, "--namespace", "ml", "--values", values, "--kube-version", KUBERNETES, *more)
    assert done.returncode == 0, done.stderr
    text = re.sub(r"^  token: [\w=+/]{56}$", f"  token: {b64encode(b'40 random letters').decode()}", done.stdout, flags=re.MULTILINE)
    return "".join(line + "\n" for line in text.splitlines() if line.strip())


def refusal(*more: str) -> str:
    """What helm says of values that will not do."""
    done = helm("template", "solfa", CHART, "--kube-version", KUBERNETES, "--set", "bucket.url=s3://solfa", *more)
    assert done.returncode != 0, f"accepted: {more}"
    return done.stderr


def objects(text: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(text) if one]


def pods(rendered: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every pod's spec, whatever it is wrapped in."""
    specs = [one["spec"] for one in rendered if one["kind"] == "Pod"]
    return specs + [one["spec"]["template"]["spec"] for one in rendered if one["kind"] in ("Deployment", "Job")]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]
