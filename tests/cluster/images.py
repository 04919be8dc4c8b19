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

from examples.cluster.texts import write_texts
from tests.cluster.kube import run

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
    words = builder_words(folder.parent / "pip.conf")
    control = _build(words, ROOT / "docker/control/Dockerfile", ROOT, "solfa-control")
    plain = _build(words, ROOT / "docker/trainer/Dockerfile", ROOT, "solfa-trainer")
    trainer = _build([*words, "--build-arg", f"TRAINER={plain}"], ROOT / "examples/cluster/Dockerfile", folder, "solfa-trainer-with-texts")
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
    run(_tool(), "tag", image, name)
    run(*pusher_words(), name)
    _say(f"pushed {name} in {time.monotonic() - begin:.0f} s")


def builder_words(pip: Path) -> list[str]:
    """The command that builds an image here. `pip` is written: where packages are found, as a secret that leaves no trace in the image."""
    pip.write_text(_pip_conf())
    way = ["buildah", "bud", "--isolation", "chroot", "--layers"] if _tool() == "buildah" else ["docker", "build"]
    base = os.environ.get("SOLFA_TEST_BASE_IMAGE")
    return ["nice", *way, f"--secret=id=pip,src={pip}", *(["--build-arg", f"BASE_IMAGE={base}"] if base else [])]


def pusher_words() -> list[str]:
    """The command that pushes one. A test registry is plain HTTP as often as not; layers are not worth compressing for one machine."""
    buildah = ["buildah", "push", "--quiet", "--tls-verify=false", "--disable-compression"]
    return ["nice", *(buildah if _tool() == "buildah" else ["docker", "push", "--quiet"])]


def _build(words: list[str], dockerfile: Path, context: Path, name: str) -> str:
    """The image's local name, with its content's digest as its tag."""
    begin = time.monotonic()
    run(*words, "--file", str(dockerfile), "--tag", f"localhost/{name}:latest", str(context))
    template = ["--type", "image", "--format", "{{.FromImageID}}"] if _tool() == "buildah" else ["--format", "{{.Id}}"]
    digest = run(_tool(), "inspect", *template, f"localhost/{name}:latest").strip().removeprefix("sha256:")
    tagged = f"localhost/{name}:{digest[:12]}"
    run(_tool(), "tag", f"localhost/{name}:latest", tagged)
    _say(f"built {tagged} in {time.monotonic() - begin:.0f} s")
    return tagged


def _pip_conf() -> str:
    """Without folders of this machine, which mean nothing in a build."""
    given = {name: os.environ.get(f"PIP_{name}", "") for name in PIP}
    lines = [f"{name.lower().replace('_', '-')} = {value}" for name, value in given.items() if value.startswith(("http://", "https://"))]
    return "\n".join(["[global]", *lines, ""])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
