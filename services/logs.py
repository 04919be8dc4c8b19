"""Logs that outlive their apps: the bucket has the lines before anything takes the processes away that wrote them, and loses none later."""

import re
from collections import defaultdict

from api import keys
from api.bucket import Bucket
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
            kept = blob.data.decode(errors="replace").splitlines() if blob else []
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
        blob = self._bucket.find(keys.attempt_log(experiment_id, stage, attempt))
        return blob.data.decode(errors="replace").splitlines() if blob else []

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

    `fresh` may begin later than `kept` did (only the newest lines are read), and end earlier (machines go one by one).
    """
    known = _by_replica(kept)
    news = {replica: lines[_overlap(known.get(replica, []), lines) :] for replica, lines in _by_replica(fresh).items()}
    skipped = {replica: len(lines) - len(news[replica]) for replica, lines in _by_replica(fresh).items()}
    added = []
    for line in fresh:
        replica = _replica(line)
        if skipped[replica]:
            skipped[replica] -= 1
        else:
            added.append(line)
    return kept + added


def _by_replica(lines: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        found[_replica(line)].append(line)
    return found


def _replica(line: str) -> str:
    match = REPLICA.match(line)
    return match[0] if match else ""


def _overlap(old: list[str], new: list[str]) -> int:
    """How many of the first lines of `new` are the last ones of `old`: the most that can be, in linear time (Knuth, Morris, Pratt)."""
    if not new:
        return 0
    fallback = [0] * len(new)
    for place in range(1, len(new)):
        matched = fallback[place - 1]
        while matched and new[place] != new[matched]:
            matched = fallback[matched - 1]
        fallback[place] = matched + (new[place] == new[matched])
    matched = 0
    for line in old[-len(new) :]:
        while matched and (matched == len(new) or line != new[matched]):
            matched = fallback[matched - 1]
        matched += line == new[matched]
    return matched
