"""The tokenizer of an experiment: trained on its text, or loaded; documents end with its end-of-text token."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from api.bucket import Bucket
from api.errors import DataError, SolfaError
from api.reach import Reach, refused_key
from api.spec import ExperimentSpec, FileTokenizer, HubTokenizer, TrainedTokenizer
from trainer.opening import opened
from trainer.sources import first_line, read_documents
from trainer.world import Interrupted, stop_requested

EOS = "<|endoftext|>"
BUCKET = "bucket:"
_HUB_EOS = (EOS, "</s>", "<eos>", "<|end_of_text|>", "<|im_end|>")


class Encoder:
    """Text to ids, the end-of-text id after each document."""

    def __init__(self, backend: Backend, eos: str) -> None:
        found = backend.token_to_id(eos)
        if found is None:
            raise DataError(f"The tokenizer has no token `{eos}` to end documents with; name one that it has as eos_token.")
        self._backend, self.eos_token, self.eos_id = backend, eos, found
        backend.encode_special_tokens = True  # only a document's end is written as one, whatever its text spells
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1  # a vocabulary may have gaps

    def encode(self, texts: list[str]) -> Iterator[NDArray[np.int32]]:
        for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False):
            yield np.asarray([*encoding.ids, self.eos_id], dtype=np.int32)

    def to_json(self) -> str:
        return str(self._backend.to_str(pretty=False))


def make_encoder(spec: ExperimentSpec, bucket: Bucket, reach: Reach) -> Encoder:
    """Train or load the spec's tokenizer. Raises DataError when it cannot be had, or does not fit."""
    chosen = spec.tokenizer
    if isinstance(chosen, TrainedTokenizer):
        return Encoder(_train(_sample(spec, chosen.sample_bytes, reach), chosen.vocab_size), EOS)
    if isinstance(chosen, FileTokenizer):
        return load_encoder(_read(chosen.path, bucket, reach), chosen.eos_token, chosen.path)
    if isinstance(chosen, HubTokenizer):
        return _from_hub(chosen)
    raise DataError("A spec with pretokenized sources has no tokenizer to encode text with.")


def load_encoder(text: str, eos: str, name: str) -> Encoder:
    """From the text of a tokenizer.json."""
    try:
        backend = Backend.from_str(text)
    except Exception as error:  # `tokenizers` raises bare Exception for whatever it cannot read
        raise DataError(f"{name} is not a usable tokenizer.json ({first_line(error)}); give one of the tokenizers library.") from error
    backend.no_padding()
    backend.no_truncation()
    return Encoder(backend, eos)


def _read(path: str, bucket: Bucket, reach: Reach) -> str:
    try:
        return (_of_bucket(path.removeprefix(BUCKET), bucket) if path.startswith(BUCKET) else _of_file(Path(path), reach)).decode()
    except (OSError, UnicodeDecodeError, SolfaError) as error:
        raise DataError(f"The tokenizer {path} cannot be read ({first_line(error)}); correct tokenizer.path.") from error


def _of_bucket(key: str, bucket: Bucket) -> bytes:
    if reason := refused_key(key):
        raise DataError(f"The tokenizer: {reason}.")
    return bucket.get(key).data


def _of_file(path: Path, reach: Reach) -> bytes:
    with opened(path, reach, "The tokenizer") as file:
        return file.read()


def _from_hub(chosen: HubTokenizer) -> Encoder:
    try:
        backend = Backend.from_pretrained(chosen.name, revision=chosen.revision)
    except Exception as error:  # `tokenizers` raises bare Exception for a missing name and a missing network alike
        raise DataError(
            f"The tokenizer {chosen.name} could not be fetched ({first_line(error)}); check its name and the network, "
            "or give a tokenizer.json by path."
        ) from error
    eos = next((token for token in _HUB_EOS if backend.token_to_id(token) is not None), None)
    if eos is None:
        raise DataError(f"The tokenizer {chosen.name} has none of {', '.join(_HUB_EOS)}; give its tokenizer.json and eos_token instead.")
    return load_encoder(str(backend.to_str()), eos, chosen.name)


def _train(texts: Iterable[str], vocab_size: int) -> Backend:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[EOS], initial_alphabet=sorted(alphabet), show_progress=False)
    )
    return backend


def _sample(spec: ExperimentSpec, budget: int, reach: Reach) -> Iterator[str]:
    """The same number of bytes of each domain (or all it has), its files in turn."""
    for name in spec.domain_names:
        left = budget // len(spec.domain_names)
        for document in read_documents(spec.domains[name].source, name, reach, interleave=True):
            if left <= 0:
                break
            if stop_requested():
                raise Interrupted
            text = str(document.content)[:left]  # characters are at least a byte each: never over the budget by much
            left -= len(text.encode())
            yield text
