"""Which tokenizer turns text into ids."""

from typing import Annotated, Literal

from pydantic import Field

from api.spec.base import Part, Text


class TrainedTokenizer(Part):
    """Byte-level BPE trained on the experiment's own text, each domain seen alike."""

    type: Literal["train"] = "train"
    vocab_size: int = Field(default=32768, ge=258)
    """Ids, the end-of-text token included; at least 256 bytes + 2."""
    sample_bytes: int = Field(default=64_000_000, ge=1)
    """Bytes of text to train on, over all domains."""


class FileTokenizer(Part):
    """A `tokenizer.json`, by path or bucket key (`bucket:<key>`)."""

    type: Literal["file"] = "file"
    path: Text
    """An absolute path, or `bucket:<key>`."""
    eos_token: Text = "<|endoftext|>"  # noqa: S105  # a token of text
    """The token appended to each document; it must be in the vocabulary."""


class HubTokenizer(Part):
    """A tokenizer by its hub name; needs a network, or a cache, where `prepare` runs."""

    type: Literal["hub"] = "hub"
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$")
    """For example `EleutherAI/gpt-neox-20b`."""
    revision: Text = "main"
    """Branch, tag or commit; a commit makes the run repeatable."""


class Pretokenized(Part):
    """No tokenizer: every domain's source holds ids already."""

    type: Literal["pretokenized"] = "pretokenized"
    vocab_size: int = Field(ge=2)
    """Ids are below this."""


Tokenizer = Annotated[TrainedTokenizer | FileTokenizer | HubTokenizer | Pretokenized, Field(discriminator="type")]
