"""The prepare stage: text to packed rows, streaming, resumable domain by domain, counted in tokens."""

import hashlib
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from api import keys
from api.domains import DomainWeights
from api.epochs import planned_epochs
from api.errors import DataError
from api.results import Prepared, PreparedDomain, StageResult
from api.spec import Domain, HeldOut, Pretokenized, ValidationSource
from api.stages import StageKind
from trainer.context import StageContext
from trainer.rows import RowWriter
from trainer.sources import Document, read_documents, source_files
from trainer.tokenizer import Encoder, load_encoder, make_encoder
from trainer.world import Interrupted, stop_requested

ENCODE_BATCH = 512  # documents handed to the tokenizer at a time: enough to keep its threads busy
BATCH_SIZE = 1 << 20  # characters (or ids) in them, at which a batch is full: documents may be books


class DomainDone(BaseModel):
    """The marker of a finished domain: its counts and the digests of its rows, written last."""

    counts: PreparedDomain
    train_sha256: str
    validation_sha256: str


def run(context: StageContext) -> StageResult:
    """Prepare every domain that no earlier attempt finished. Only rank 0 works; the others wait."""
    result = _prepare(context) if context.world.is_first else None
    context.world.await_first("prepared")
    shared = context.world.share(result)
    if shared is None:
        raise DataError("The first process prepared nothing.")
    return shared


def _prepare(context: StageContext) -> StageResult:
    config, spec = context.config, context.config.spec
    shutil.rmtree(_work(context).parent, ignore_errors=True)  # what an attempt that was killed left there
    encoder = _encoder(context)
    done: dict[str, DomainDone] = {}
    for name in spec.domain_names:
        marker = f"{keys.scratch_prefix(config.experiment_id, config.plan.name)}{name}.json"
        found = context.bucket.find(marker)
        if found is None:
            done[name] = _DomainPass(context, name, encoder).run()
            context.bucket.put(marker, done[name].model_dump_json().encode())
        else:
            done[name] = DomainDone.model_validate_json(found.data)
    prepared = _prepared(context, done, encoder)
    prefix = keys.prepared_prefix(config.experiment_id, config.plan.name)
    return StageResult(
        experiment_id=config.experiment_id,
        stage=config.plan.name,
        kind=StageKind.PREPARE,
        round=config.plan.round,
        attempt=config.attempt,
        digest=config.digest,
        created_at=datetime.now(UTC),
        files={"data": f"{prefix}train/", "validation": f"{prefix}validation/", "tokenizer": f"{prefix}tokenizer.json"},
        prepared=prepared,
    )


def _encoder(context: StageContext) -> Encoder | None:
    """The tokenizer: the one an earlier attempt kept, or a new one; None where all is tokenised already."""
    config, bucket = context.config, context.bucket
    if isinstance(config.spec.tokenizer, Pretokenized):
        return None
    key = f"{keys.prepared_prefix(config.experiment_id, config.plan.name)}tokenizer.json"
    eos_key = f"{key}.eos"
    kept, eos = bucket.find(key), bucket.find(eos_key)
    if kept is not None and eos is not None:
        return load_encoder(kept.data.decode(), eos.data.decode(), key)
    context.reporter.progress("training the tokenizer")
    encoder = make_encoder(config.spec, bucket)
    bucket.put(key, encoder.to_json().encode())
    bucket.put(eos_key, encoder.eos_token.encode())
    return encoder


def _work(context: StageContext) -> Path:
    """Where rows are gathered on this machine before they are a folder."""
    return context.cache / "prepare" / context.config.experiment_id / str(context.config.attempt)


class _DomainPass:
    """One domain, from its documents to two Arrow folders."""

    def __init__(self, context: StageContext, name: str, encoder: Encoder | None) -> None:
        self._context, self._name, self._encoder = context, name, encoder
        self._domain: Domain = context.config.spec.domains[name]
        self._row_length = context.config.spec.sequence_length + 1
        self._bytes = 0
        self._documents = {"train": 0, "validation": 0}

    def run(self) -> DomainDone:
        work = _work(self._context)
        writers = {side: RowWriter(work / f"{self._name}.{side}.raw", self._row_length) for side in ("train", "validation")}
        try:
            for side, ids in self._encoded():
                writers[side].add(ids)
                self._documents[side] += 1
            digests = {side: self._finish(side, writer) for side, writer in writers.items()}
        finally:
            for writer in writers.values():
                writer.close()
        return DomainDone(counts=self._counts(writers), train_sha256=digests["train"], validation_sha256=digests["validation"])

    def _encoded(self) -> Iterator[tuple[str, NDArray[np.int32]]]:
        """Each document's side and ids, in the source's order."""
        validation = self._domain.validation
        total = sum(path.stat().st_size for path in source_files(self._domain.source, self._name))
        self._pause(0, total)
        for batch in _batches(read_documents(self._domain.source, self._name)):
            self._pause(min(batch[-1].position, total), total)
            sides = [_side(document, validation) for document in batch]
            yield from zip(sides, self._encode(batch), strict=True)
        if isinstance(validation, ValidationSource):
            for batch in _batches(read_documents(validation.source, self._name, side="validation")):
                self._pause(total, total)
                yield from (("validation", ids) for ids in self._encode(batch))

    def _encode(self, batch: list[Document]) -> Iterator[NDArray[np.int32]]:
        texts = [document.content for document in batch if isinstance(document.content, str)]
        if texts and self._encoder is not None:
            self._bytes += sum(len(text.encode()) for text in texts)
            yield from self._encoder.encode(texts)
            return
        for document in batch:
            ids = np.asarray(document.content, dtype=np.int32)
            self._check(ids)
            yield ids

    def _check(self, ids: NDArray[np.int32]) -> None:
        vocab_size = self._vocab_size()
        if len(ids) != self._row_length:
            raise DataError(
                f"Domain {self._name}: a row has {len(ids)} ids, but rows of sequence_length {self._row_length - 1} have "
                f"{self._row_length}; correct sequence_length."
            )
        if ids.min() < 0 or ids.max() >= vocab_size:
            raise DataError(
                f"Domain {self._name}: ids reach from {ids.min()} to {ids.max()}, but the vocabulary has {vocab_size}; check vocab_size."
            )

    def _vocab_size(self) -> int:
        tokenizer = self._context.config.spec.tokenizer
        return tokenizer.vocab_size if isinstance(tokenizer, Pretokenized) else self._encoder.vocab_size if self._encoder else 0

    def _pause(self, done: int, total: int) -> None:
        """Between two batches: say how far it is, and stop where that is asked for."""
        self._context.reporter.progress(f"tokenising {self._name}", done, total, "bytes")
        if stop_requested():
            raise Interrupted

    def _finish(self, side: str, writer: RowWriter) -> str:
        config = self._context.config
        key = f"{keys.prepared_prefix(config.experiment_id, config.plan.name)}{side}/{self._name}/"
        in_place = self._context.bucket.local_path(key)
        folder = in_place or _work(self._context) / side / self._name
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left_behind in folder.parent.glob(f".{self._name}.*"):  # by an attempt that was killed
            shutil.rmtree(left_behind, ignore_errors=True)
        if writer.tokens < self._row_length:
            raise DataError(self._too_small(side, writer.tokens))
        digest = writer.finish(folder, config.spec.domain_names.index(self._name))
        if in_place is None:
            for path in sorted(folder.iterdir()):
                self._context.bucket.upload(f"{key}{path.name}", path)
            shutil.rmtree(folder)
        return digest

    def _too_small(self, side: str, tokens: int) -> str:
        need = f"one sequence needs {self._row_length} tokens"
        if self._documents["train"] + self._documents["validation"] == 0:
            return f"Domain {self._name} is empty: its source holds no document; correct the source, or leave the domain out."
        if side == "train":
            return f"Domain {self._name} is too small: {tokens} training tokens, but {need}; add text or shorten sequence_length."
        return f"Domain {self._name} holds out only {tokens} tokens, but {need}; raise validation.fraction or give it a validation source."

    def _counts(self, writers: dict[str, RowWriter]) -> PreparedDomain:
        train, validation = writers["train"], writers["validation"]
        tokens = train.tokens + validation.tokens
        return PreparedDomain(
            documents=self._documents["train"],
            tokens=train.tokens,
            rows=train.rows,
            share=0.0,
            validation_documents=self._documents["validation"],
            validation_tokens=validation.tokens,
            validation_rows=validation.rows,
            bytes_per_token=self._bytes / tokens if self._bytes and tokens else None,
        )


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.content)
        if len(batch) == ENCODE_BATCH or size >= BATCH_SIZE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _side(document: Document, validation: HeldOut | ValidationSource) -> str:
    """Held out or not, by the document's own text: the same whatever else changes."""
    if isinstance(validation, ValidationSource):
        return "train"
    content = document.content.encode() if isinstance(document.content, str) else document.content.tobytes()
    drawn = int.from_bytes(hashlib.sha256(content).digest()[:8], "big") / 2**64
    return "validation" if drawn < validation.fraction else "train"


def _prepared(context: StageContext, done: dict[str, DomainDone], encoder: Encoder | None) -> Prepared:
    spec = context.config.spec
    shares = DomainWeights.normalised({name: domain.counts.tokens for name, domain in done.items()})
    fingerprint = hashlib.sha256()
    for name in spec.domain_names:
        fingerprint.update(f"{name}:{done[name].train_sha256}:{done[name].validation_sha256};".encode())
    vocab_size = encoder.vocab_size if encoder else spec.tokenizer.vocab_size if isinstance(spec.tokenizer, Pretokenized) else 0
    domains = {name: domain.counts.model_copy(update={"share": shares[name]}) for name, domain in done.items()}
    prepared = Prepared(
        domains=domains,
        token_shares=shares,
        vocab_size=vocab_size,
        eos_id=encoder.eos_id if encoder else -1,
        sequence_length=spec.sequence_length,
        fingerprint=fingerprint.hexdigest(),
    )
    planned_epochs(spec, context.config.siblings, prepared)  # caps that no stage could live with are told now, not after the search
    return prepared
