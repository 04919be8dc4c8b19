"""Logs that outlive their apps: the bucket has the lines before anything takes the processes away that wrote them, and loses none later."""

import re
from collections import defaultdict

from api import keys
from api.bucket import Blob, Bucket
from api.errors import AlreadyExists, ClusterUnavailable, EtagMismatch
from services.launch.cluster import Cluster

LINES = 20_000  # kept of an attempt's log, the newest
TRIES = 5  # of a compare-and-swap, which another keeper of the same log may win
REPLICA = re.compile(r"\[[0-9]+\] ")  # before each line, where an app has several machines


class LogKeeper:
    """Reads what a cluster still has of an attempt's log, and what the bucket has already."""

    def __init__(self, cluster: Cluster, bucket: Bucket) -> None:
        self._cluster, self._bucket = cluster, bucket

    def keep(self, experiment_id: str, stage: str, attempt: int, app: str) -> None:
        """Add to the bucket what is new. To be called before the app is ended, healed or removed; again is harmless, also by two at once.

        Raises BucketError or ClusterUnavailable: then it is not kept, and nothing may be taken away yet.
        """
        key, fresh = keys.attempt_log(experiment_id, stage, attempt), self._cluster.logs(app, LINES)
        for left in reversed(range(TRIES)):
            blob = self._bucket.find(key)
            kept = _lines(blob)
            lines = merged(kept, fresh)[-LINES:]
            if blob and lines == kept:
                return
            data = "".join(f"{line}\n" for line in lines).encode()
            try:
                _ = self._bucket.replace(key, data, blob.etag) if blob else self._bucket.create(key, data)
                return
            except (AlreadyExists, EtagMismatch):
                if not left:
                    raise

    def kept(self, experiment_id: str, stage: str, attempt: int) -> list[str]:
        """What is in the bucket; [] where nothing is."""
        return _lines(self._bucket.find(keys.attempt_log(experiment_id, stage, attempt)))

    def read(self, experiment_id: str, stage: str, attempt: int, app: str) -> list[str]:
        """All that there is; what is kept does for a cluster that does not answer."""
        kept = self.kept(experiment_id, stage, attempt)
        try:
            return merged(kept, self._cluster.logs(app))
        except ClusterUnavailable:
            if not kept:
                raise
            return kept


def merged(kept: list[str], fresh: list[str]) -> list[str]:
    """`kept`, and after it what `fresh` has beyond it, machine by machine: a machine that is gone takes nothing of the others' along.

    `fresh` may begin later than `kept` did (only the newest lines are read), and end earlier (machines go one by one); the last line
    that is kept of a machine may have been half of one, which `fresh` completes.
    """
    lines, skipped, known_places = list(kept), {}, _places(kept)
    for replica, places in _places(fresh).items():
        known = [kept[place] for place in known_places.get(replica, [])]
        news = [fresh[place] for place in places]
        skipped[replica], whole = _begun(known, news)
        if whole:
            lines[known_places[replica][-1]] = news[skipped[replica] - 1]
    for line in fresh:
        replica = _replica(line)
        if skipped[replica]:
            skipped[replica] -= 1
        else:
            lines.append(line)
    return lines


def _begun(known: list[str], news: list[str]) -> tuple[int, bool]:
    """How many of `news` are known, and whether the last of these completes the last that is known."""
    before = known[:-1]
    if known and len(news) >= len(known) and news[: len(before)] == before and news[len(before)].startswith(known[-1]):
        return len(known), news[len(before)] != known[-1]
    found, shorter = _overlap(known, news), _overlap(before, news)
    if max(found, 1) <= shorter < len(news) and news[shorter].startswith(known[-1]):
        return shorter + 1, True
    return found, False


def _lines(blob: Blob | None) -> list[str]:
    """Ended by a line feed and by nothing else: a form feed is part of a line, as for those who wrote it."""
    return blob.data.decode(errors="replace").removesuffix("\n").split("\n") if blob and blob.data else []


def _places(lines: list[str]) -> dict[str, list[int]]:
    """Where in `lines` those of each machine are."""
    found: dict[str, list[int]] = defaultdict(list)
    for place, line in enumerate(lines):
        found[_replica(line)].append(place)
    return found


def _replica(line: str) -> str:
    match = REPLICA.match(line)
    return match[0] if match else ""


def _overlap(old: list[str], new: list[str]) -> int:
    """How many of the first lines of `new` are the last ones of `old`, or all where `old` has them anywhere (Knuth, Morris, Pratt)."""
    fallback = [0] * len(new)
    for place in range(1, len(new)):
        matched = fallback[place - 1]
        while matched and new[place] != new[matched]:
            matched = fallback[matched - 1]
        fallback[place] = matched + (new[place] == new[matched])
    matched = 0
    for line in old:
        if matched == len(new):
            break
        while matched and line != new[matched]:
            matched = fallback[matched - 1]
        matched += line == new[matched]
    return matched
