"""Domain weights in the formats of downstream trainers: pure, one file a format."""

from api.exports.export import Export, FractionOf, document_weights
from api.exports.gpt_neox import GPT_NEOX
from api.exports.interleave import INTERLEAVE
from api.exports.levanter import LEVANTER
from api.exports.llama_factory import LLAMA_FACTORY
from api.exports.megatron import BLEND, DATA_PATH
from api.exports.nanotron import DOREMI, NANOSET
from api.exports.nemo import NEMO
from api.exports.olmo import OLMO
from api.exports.original import ORIGINAL
from api.exports.plain import CSV, JSON
from api.exports.streaming import STREAMING

_ALL = (
    JSON,
    CSV,
    DATA_PATH,
    BLEND,
    NEMO,
    STREAMING,
    INTERLEAVE,
    OLMO,
    LEVANTER,
    GPT_NEOX,
    NANOSET,
    DOREMI,
    LLAMA_FACTORY,
    ORIGINAL,
)
FORMATS: dict[str, Export] = {export.name: export for export in _ALL}

__all__ = ["FORMATS", "Export", "FractionOf", "document_weights"]
