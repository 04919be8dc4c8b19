"""The images under test: built from this tree, with the tests' texts in the trainer's, and pushed to the registry that is named.

SOLFA_TEST_BUILDER is buildah (the default where it is installed) or docker, SOLFA_TEST_BASE_IMAGE the base of both images. Where
SOLFA_TEST_IMAGES names a control image and a trainer image, with a comma between, these are taken as they are.
"""

import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.kube import run
from tests.cluster.search import write_texts

ROOT = Path(__file__).parents[2]
PIP = ("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS")  # of this machine, handed to the build as a secret that leaves no trace in the image


@dataclass(frozen=True)
class Images:
    """Names by which pods pull them."""

    control: str
    trainer: str

    def values(self) -> list[str]:
        """As the chart wants them."""
        chosen = []
        for name, image in (("control", self.control), ("trainer", self.trainer)):
            repository, _, tag = image.rpartition(":")
            chosen += [f"images.{name}.repository={repository}", f"images.{name}.tag={tag}"]
        return chosen


def built_and_pushed(registry: str, folder: Path) -> Images:
    """Both images, named by their content, so that a node that holds one pulls nothing. `folder` is for the texts."""
    if given := os.environ.get("SOLFA_TEST_IMAGES"):
        control, trainer = given.split(",")
        return Images(control, trainer)
    write_texts(folder)
    builder = _Builder(folder.parent / "pip.conf")
    base = os.environ.get("SOLFA_TEST_BASE_IMAGE")
    options = {"BASE_IMAGE": base} if base else {}
    control = builder.build(ROOT / "docker/control/Dockerfile", ROOT, "solfa-control", options)
    plain = builder.build(ROOT / "docker/trainer/Dockerfile", ROOT, "solfa-trainer", options)
    trainer = builder.build(ROOT / "tests/cluster/Dockerfile", folder, "solfa-trainer-with-texts", {"BASE_IMAGE": plain})
    made = Images(*(f"{registry}/{image.removeprefix('localhost/')}" for image in (control, trainer)))
    for image, name in ((control, made.control), (trainer, made.trainer)):
        _push(image, name)
    return made


def relabelled(images: Images) -> Images:
    """The same images under other names: a next version, for an upgrade."""
    newer = Images(f"{images.control}-next", f"{images.trainer}-next")
    for image, name in ((images.control, newer.control), (images.trainer, newer.trainer)):
        _push(f"localhost/{image.partition('/')[2]}", name)
    return newer


def _tool() -> str:
    return os.environ.get("SOLFA_TEST_BUILDER") or ("buildah" if shutil.which("buildah") else "docker")


def _push(image: str, name: str) -> None:
    """A local image to a registry, as `name`, by which pods pull it."""
    begin = time.monotonic()
    if _tool() == "buildah":  # a test registry is plain HTTP as often as not; layers are not worth compressing for one machine
        run("nice", "buildah", "push", "--quiet", "--tls-verify=false", "--disable-compression", image, f"docker://{name}")
    else:
        run("docker", "tag", image, name)
        run("docker", "push", "--quiet", name)
    _say(f"pushed {name} in {time.monotonic() - begin:.0f} s")


class _Builder:
    """buildah, or docker: the same Dockerfiles."""

    def __init__(self, pip: Path) -> None:
        self.pip = pip
        pip.write_text(_pip_conf())
        self.tool = _tool()

    def build(self, dockerfile: Path, context: Path, name: str, options: dict[str, str]) -> str:
        """The image's local name, with its content's digest as its tag."""
        begin = time.monotonic()
        arguments = [word for key, value in options.items() for word in ("--build-arg", f"{key}={value}")]
        arguments += [f"--secret=id=pip,src={self.pip}"]
        way = ["buildah", "bud", "--isolation", "chroot", "--layers"] if self.tool == "buildah" else ["docker", "build"]
        run("nice", *way, *arguments, "--file", str(dockerfile), "--tag", f"localhost/{name}:latest", str(context))
        digest = run(self.tool, "inspect", *self._format(), f"localhost/{name}:latest").strip().removeprefix("sha256:")
        tagged = f"localhost/{name}:{digest[:12]}"
        run(self.tool, "tag", f"localhost/{name}:latest", tagged)
        _say(f"built {tagged} in {time.monotonic() - begin:.0f} s")
        return tagged

    def _format(self) -> list[str]:
        return ["--type", "image", "--format", "{{.FromImageID}}"] if self.tool == "buildah" else ["--format", "{{.Id}}"]


def _pip_conf() -> str:
    """Without folders of this machine, which mean nothing in a build."""
    given = {name: os.environ.get(f"PIP_{name}", "") for name in PIP}
    lines = [f"{name.lower().replace('_', '-')} = {value}" for name, value in given.items() if value.startswith(("http://", "https://"))]
    return "\n".join(["[global]", *lines, ""])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
