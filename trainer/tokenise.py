"""One unit of a prepare stage, from its documents to a shard of ids for each side."""

import hashlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from api.errors import DataError
from api.reach import Reach
from api.spec import ExperimentSpec, HeldOut, Pretokenized, ValidationSource
from trainer.shards import ShardWriter
from trainer.sources import Document, read_piece
from trainer.tokenizer import Encoder
from trainer.units import Side, Unit

ENCODE_BATCH = 512  # documents handed to the tokenizer at a time: enough to keep its threads busy
BATCH_SIZE = 1 << 20  # characters (or ids) in them, at which a batch is full: documents may be books


class Tokeniser:
    """Text to ids by the experiment's tokenizer; rows that are tokenised already are checked, and go through as they are."""

    def __init__(self, spec: ExperimentSpec, encoder: Encoder | None, reach: Reach) -> None:
        self._spec, self._encoder, self._reach = spec, encoder, reach
        self._row_length = spec.sequence_length + 1
        self._vocab_size = spec.tokenizer.vocab_size if isinstance(spec.tokenizer, Pretokenized) else 0

    def run(self, unit: Unit, writers: Mapping[Side, ShardWriter], advance: Callable[[int], None]) -> int:
        """Write each document's ids to its side, in the piece's order; the bytes of text. `advance` is told, between batches, the bytes of
        the piece read since it was told last."""
        validation = self._spec.domains[unit.domain].validation
        seen = text_bytes = 0
        for batch in _batches(read_piece(unit.source_of(self._spec), unit.path, unit.domain, self._reach)):
            position = min(batch[-1].position, unit.size)
            advance(position - seen)
            seen = position
            for document, ids in zip(batch, self._encode(batch, unit.domain), strict=True):
                writers["validation" if unit.source == "validation" else _side(document, validation)].add(ids)
            text_bytes += sum(len(document.content.encode()) for document in batch if isinstance(document.content, str))
        advance(unit.size - seen)
        return text_bytes

    def _encode(self, batch: list[Document], domain: str) -> Iterator[NDArray[np.int32]]:
        texts = [document.content for document in batch if isinstance(document.content, str)]
        if texts and self._encoder is not None:
            yield from self._encoder.encode(texts)
            return
        for document in batch:
            ids = np.asarray(document.content, dtype=np.int32)
            self._check(ids, domain)
            yield ids

    def _check(self, ids: NDArray[np.int32], domain: str) -> None:
        if len(ids) != self._row_length:
            raise DataError(
                f"Domain {domain}: a row has {len(ids)} ids, but rows of sequence_length {self._row_length - 1} have "
                f"{self._row_length}; correct sequence_length."
            )
        if ids.min() < 0 or ids.max() >= self._vocab_size:
            raise DataError(
                f"Domain {domain}: ids reach from {ids.min()} to {ids.max()}, but the vocabulary has {self._vocab_size}; check vocab_size."
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


def _side(document: Document, validation: HeldOut | ValidationSource) -> Side:
    """Held out or not, by the document's own text: the same whatever else changes."""
    if isinstance(validation, ValidationSource):
        return "train"
    content = document.content.encode() if isinstance(document.content, str) else document.content.tobytes()
    drawn = int.from_bytes(hashlib.sha256(content).digest()[:8], "big") / 2**64
    return "validation" if drawn < validation.fraction else "train"
