"""One domain of a prepare stage, from the shards of all its units to two Arrow folders, whichever processes tokenised them."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel

from api import keys
from api.bucket import Bucket
from api.errors import Damaged, DataError
from api.results import PreparedDomain
from api.stage_config import StageConfig
from trainer.rows import RowWriter
from trainer.shards import read_shard
from trainer.units import SIDES, Side, Unit, UnitDone, shard_key, unit_marker


class DomainDone(BaseModel):
    """The marker of a finished domain: its counts and the digests of its rows, written last."""

    counts: PreparedDomain
    train_sha256: str
    validation_sha256: str


class Packer:
    """Concatenates ids in the source's order and cuts them into rows."""

    def __init__(self, config: StageConfig, bucket: Bucket, work: Path) -> None:
        """`work`: a folder of this process's own for what is not whole yet."""
        self._config, self._bucket, self._work = config, bucket, work
        self._scratch = keys.scratch_prefix(config.experiment_id, config.plan.name)
        self._row_length = config.spec.sequence_length + 1

    def run(self, domain: str, units: Sequence[Unit], look: Callable[[], None]) -> DomainDone:
        """Pack `units`, all that the domain has. `look` is called now and then, and may raise.

        Raises DataError where there is too little, and Damaged for a shard that is not as written, whose unit is then as if never done.
        """
        done = [(unit, UnitDone.model_validate_json(self._bucket.get(unit_marker(self._scratch, unit)).data)) for unit in units]
        writers = {side: RowWriter(self._work / f"{domain}.{side}.raw", self._row_length) for side in SIDES}
        try:
            for unit, marker in done:
                self._add(unit, marker, writers, look)
            documents = {side: sum(getattr(marker, side).documents for _, marker in done) for side in SIDES}
            digests = {side: self._finish(domain, side, writer, documents) for side, writer in writers.items()}
        finally:
            for writer in writers.values():
                writer.close()
        train, validation = (writers[side] for side in SIDES)
        tokens, text_bytes = train.tokens + validation.tokens, sum(marker.text_bytes for _, marker in done)
        counts = PreparedDomain(
            documents=documents["train"],
            tokens=train.tokens,
            rows=train.rows,
            share=0.0,
            validation_documents=documents["validation"],
            validation_tokens=validation.tokens,
            validation_rows=validation.rows,
            bytes_per_token=text_bytes / tokens if text_bytes and tokens else None,
        )
        return DomainDone(counts=counts, train_sha256=digests["train"], validation_sha256=digests["validation"])

    def _add(self, unit: Unit, marker: UnitDone, writers: dict[Side, RowWriter], look: Callable[[], None]) -> None:
        for side in SIDES:
            try:
                for ids in read_shard(self._bucket, shard_key(self._scratch, unit, side), getattr(marker, side), self._work):
                    look()
                    writers[side].add(ids)
            except Damaged:
                self._bucket.delete(unit_marker(self._scratch, unit))
                raise

    def _finish(self, domain: str, side: Side, writer: RowWriter, documents: dict[Side, int]) -> str:
        key = f"{keys.prepared_prefix(self._config.experiment_id, self._config.plan.name)}{side}/{domain}/"
        in_place = self._bucket.local_path(key)
        folder = in_place or self._work / side / domain
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left_behind in folder.parent.glob(f".{domain}.*"):  # by a process that was killed
            shutil.rmtree(left_behind, ignore_errors=True)
        if writer.tokens < self._row_length:
            raise DataError(self._too_small(domain, side, writer.tokens, documents))
        digest = writer.finish(folder, self._config.spec.domain_names.index(domain))
        if in_place is None:
            for path in sorted(folder.iterdir()):
                self._bucket.upload(f"{key}{path.name}", path)
            shutil.rmtree(folder)
        return digest

    def _too_small(self, domain: str, side: Side, tokens: int, documents: dict[Side, int]) -> str:
        need = f"one sequence needs {self._row_length} tokens"
        if not any(documents.values()):
            return f"Domain {domain} is empty: its source holds no document; correct the source, or leave the domain out."
        if side == "train":
            return f"Domain {domain} is too small: {tokens} training tokens, but {need}; add text or shorten sequence_length."
        return f"Domain {domain} holds out only {tokens} tokens, but {need}; raise validation.fraction or give it a validation source."
