"""Which locked packages one image needs: `python docker/requirements.py services` prints a part of requirements.lock, hashes and all.

An image holds one plane, the lock holds both and the developers' tools. What an extra of pyproject.toml asks for is followed through
the lock by its `# via` notes, so nothing is resolved again and no index is asked. Standard library only: it runs in a bare base image.
"""

import argparse
import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "solfa (pyproject.toml)"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
CUDA = re.compile(r"nvidia-.*|cuda-.*|triton")  # what a build of torch for CUDA brings along, and one for CPU does not


@dataclass
class Locked:
    """One entry of the lock: its lines as they stand, and who asked for it."""

    name: str
    lines: list[str] = field(default_factory=list)
    via: set[str] = field(default_factory=set)


def read_lock(text: str) -> list[Locked]:
    """Every entry; a package may have several, for different Pythons."""
    entries: list[Locked] = []
    for line in text.splitlines():
        if not line.startswith((" ", "#")) and line.strip():
            entries.append(Locked(_normal(line)))
        if not entries:
            continue
        note = line.strip().removeprefix("#").strip()
        if not line.lstrip().startswith("#"):
            entries[-1].lines.append(line)
        elif asker := note.removeprefix("via").strip():
            entries[-1].via.add(asker if asker == PROJECT else _normal(asker))
    return entries


def wanted(project: dict, extra: str) -> set[str]:
    """What the distribution itself and one of its extras ask for by name."""
    asked = [*project["dependencies"], *project["optional-dependencies"][extra]]
    return {_normal(one) for one in asked}


def closure(entries: list[Locked], roots: set[str], without: re.Pattern[str] | None = None) -> list[Locked]:
    """The entries of `roots` and of all that these need, but for names that match `without`. Ends for a root that is not locked."""
    if missing := roots - {entry.name for entry in entries}:
        sys.exit(f"not in the lock: {', '.join(sorted(missing))}")
    needed = set(roots)
    while more := {entry.name for entry in entries if entry.via & needed and not (without and without.fullmatch(entry.name))} - needed:
        needed |= more
    return [entry for entry in entries if entry.name in needed]


def subset(lock: str, project: dict, extra: str, torch: str = "locked") -> str:
    """The part of the lock for one image.

    `torch`: `locked`; `base`, the base image's own; or a requirement with its hash, such as a build for CPU alone.
    """
    chosen = closure(read_lock(lock), wanted(project, extra), CUDA if torch != "locked" else None)
    lines = [line for entry in chosen if torch == "locked" or entry.name != "torch" for line in entry.lines]
    if torch not in ("locked", "base"):
        lines.append(torch)
    return "\n".join(lines) + "\n"


def _normal(requirement: str) -> str:
    """The package's name in a requirement, as the index spells it."""
    match = NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("extra", help="an extra of pyproject.toml")
    parser.add_argument("--torch", default="locked", help="locked, base, or a requirement with --hash")
    arguments = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    sys.stdout.write(subset((ROOT / "requirements.lock").read_text(), project, arguments.extra, arguments.torch))


if __name__ == "__main__":
    main()
