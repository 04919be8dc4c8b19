"""Where a domain's text comes from, and what of it is held out for validation."""

from typing import Annotated, Literal

from pydantic import Field

from api.spec.base import Part, Text


class JsonlSource(Part):
    """Lines of JSON, plain, .gz or .zst, one document a line."""

    type: Literal["jsonl"] = "jsonl"
    paths: list[Text] = Field(min_length=1, max_length=10_000)
    """Files or globs; relative paths are resolved against the folder the spec was submitted from."""
    text_field: Text = "text"
    """The member of each object that holds the text."""


class ParquetSource(Part):
    """Parquet files, one document a row."""

    type: Literal["parquet"] = "parquet"
    paths: list[Text] = Field(min_length=1, max_length=10_000)
    """Files or globs."""
    text_field: Text = "text"
    """The column that holds the text."""


class DatasetSource(Part):
    """A folder written by `datasets.Dataset.save_to_disk`, one document a row."""

    type: Literal["datasets"] = "datasets"
    path: Text
    """The folder."""
    text_field: Text = "text"
    """The column that holds the text."""


class NanotronSource(Part):
    """One domain's folder of nanotron's DoReMi layout: already tokenised rows of sequence_length + 1 `input_ids`."""

    type: Literal["nanotron"] = "nanotron"
    path: Text
    """The domain's own folder (`<data root>/<domain>`)."""


class DoremiSource(Part):
    """One domain of the original DoReMi layout: `<path>/train/<domain>/<shard>/`, already tokenised."""

    type: Literal["doremi"] = "doremi"
    path: Text
    """The root that holds `train/` and, where there is one, `validation/`."""
    domain: Text | None = None
    """The folder's name below `train/`, where it differs from the domain's."""


Source = Annotated[JsonlSource | ParquetSource | DatasetSource | NanotronSource | DoremiSource, Field(discriminator="type")]


class HeldOut(Part):
    """Hold out a share of the documents, chosen by a hash of each document's text, so that a document never changes sides."""

    type: Literal["held_out"] = "held_out"
    fraction: float = Field(default=0.05, gt=0, lt=0.5)
    """Share of the documents."""


class ValidationSource(Part):
    """Validate on text of its own."""

    type: Literal["source"] = "source"
    source: Source
    """All of it is held out."""


Validation = Annotated[HeldOut | ValidationSource, Field(discriminator="type")]


class Domain(Part):
    """A named source of text."""

    source: Source
    """Where its text is."""
    max_epochs: float | None = Field(default=None, gt=0)
    """Never pass over the domain's data more often than this; what is over goes to the other domains. None: no cap."""
    validation: Validation = HeldOut()
    """What the domain is evaluated on."""
