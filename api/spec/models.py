"""The models' shapes: a preset of the paper, or any `transformers` causal LM config."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from api.spec.base import Part

FETCHING = ("auto_map", "attn_implementation", "experts_implementation", "backbone", "use_pretrained_backbone", "trust_remote_code")
"""Fields of a config by which `transformers` may fetch code or weights from a hub; and those that begin with `_`, its own."""


class Shape(NamedTuple):
    """A decoder's shape: layers, attention heads, model width, feed-forward width."""

    layers: int
    heads: int
    width: int
    feed_forward: int


PresetName = Literal["70m", "150m", "280m", "510m", "760m", "1b", "8b"]
PRESETS: dict[str, Shape] = {  # Xie et al. 2023, table 8; named by the size they have with its 256k vocabulary
    "70m": Shape(3, 4, 256, 1024),
    "150m": Shape(6, 8, 512, 2048),
    "280m": Shape(12, 12, 768, 3072),
    "510m": Shape(12, 16, 1024, 8192),
    "760m": Shape(12, 20, 1280, 8192),
    "1b": Shape(16, 32, 2048, 8192),
    "8b": Shape(32, 32, 4096, 24576),
}


class Model(Part):
    """Exactly one of `preset` and `config`. The vocabulary's size and the sequence length are filled in from the spec."""

    preset: PresetName | None = None
    """A shape of the paper, built as a Llama-style decoder."""
    config: dict[str, Any] | None = None
    """A `transformers` causal-LM config with its `model_type`, for example {model_type: llama, hidden_size: 128, ...}."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.preset is None) == (self.config is None):
            raise ValueError("give exactly one of `preset` and `config`")
        if self.config is not None and not isinstance(self.config.get("model_type"), str):
            raise ValueError("`config` needs a `model_type`, for example llama or gpt_neox")
        if fetching := sorted({name for name in _fields(self.config or {}) if name in FETCHING or name.startswith("_")}):
            raise ValueError(f"`config` may not have `{fetching[0]}`, by which code or weights could be fetched; leave it out")
        return self


def _fields(config: dict[str, Any]) -> Iterator[str]:
    """Names, those of mappings within included."""
    for name, value in config.items():
        yield str(name)
        if isinstance(value, dict):
            yield from _fields(value)


class Models(Part):
    """The two shapes of a search."""

    proxy: Model
    """The proxy's shape; the reference has the same."""
    main: Model | None = None
    """The large model's shape; None: the proxy's."""
    compile: bool = Field(default=False)
    """Whether to `torch.compile` with static shapes (worth it on a GPU)."""
