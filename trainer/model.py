"""Causal language models from a preset or a `transformers` config, body and head apart so that logits are never held whole."""

import copy
import difflib
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from api.errors import DataError, SolfaError
from api.spec import PRESETS, Model
from trainer.losses import token_losses

CAUSAL_SDPA = "solfa_causal_sdpa"
"""SDPA that is never given a mask, for models whose every layer attends to all earlier tokens. transformers' own "sdpa" builds a mask
as soon as torch.compile traces it, to tell packed sequences apart, and a mask shuts the fast kernels out."""
AttentionInterface.register(CAUSAL_SDPA, sdpa_attention_forward)

PROBE_TOKENS = 8


class CausalModel(nn.Module):
    """A decoder that answers the loss of each token.

    `network` is the transformers model (for `save_pretrained`); which attention it runs is set here, so that a loaded model is as a
    built one. Any dropout its config asks for is active in train mode.
    """

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        network.set_attn_implementation(CAUSAL_SDPA if _attends_to_everything_before(network.config) else "sdpa")
        self.network = network

    @property
    def body(self) -> nn.Module:
        """From ids to hidden states, without the head: the part worth compiling (`model.body.compile(dynamic=False)`)."""
        return cast(nn.Module, self.network.base_model)

    @property
    def head_weight(self) -> nn.Parameter:
        """[v, d]; the input embedding itself where the config ties them."""
        return cast(nn.Parameter, self.network.get_output_embeddings().weight)

    @property
    def head_bias(self) -> nn.Parameter | None:
        """[v], or None as in most models."""
        return cast(nn.Parameter | None, self.network.get_output_embeddings().bias)

    def hidden(self, input_ids: Tensor) -> Tensor:
        """The body's last hidden states: [b, s] int64 to [b, s, d]. No mask is given, so that SDPA takes its causal path."""
        return cast(Tensor, self.body(input_ids=input_ids, use_cache=False, return_dict=True).last_hidden_state)

    def forward(self, input_ids: Tensor, targets: Tensor) -> Tensor:
        """The loss of each target in nats: [b, s] and [b, s] int64 to [b, s] float32; a target below 0 is masked and gets 0."""
        return token_losses(self.hidden(input_ids), self.head_weight, targets, head_bias=self.head_bias)

    def num_parameters(self) -> int:
        """Trained numbers, a tied head counted once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def block_modules(self) -> list[nn.Module]:
        """The repeated layers: what FSDP2 shards one by one."""
        lists = [list(module) for module in self.network.modules() if isinstance(module, nn.ModuleList) and len(module)]
        return max(lists, key=lambda blocks: sum(parameter.numel() for block in blocks for parameter in block.parameters()), default=[])

    def flops_per_token(self, sequence_length: int) -> float:
        """Model FLOPs of one token's forward and backward pass.

        6 for each weight that multiplies (an embedding that is only looked up does not), and 6 * layers * width * s for attention: 12 a
        pair of tokens and unit of width, of which a causal model needs half. Recomputed work does not count. Of a mixture of experts
        all experts count, so it is an upper bound.
        """
        config = self.network.config
        tables = [module.weight for module in self.network.modules() if isinstance(module, nn.Embedding)]
        looked_up = sum(table.numel() for table in tables if table is not self.head_weight)
        heads = int(config.num_attention_heads)
        width = heads * int(getattr(config, "head_dim", None) or config.hidden_size // heads)
        return 6.0 * (self.num_parameters() - looked_up) + 6.0 * int(config.num_hidden_layers) * width * sequence_length


def build_model(model: Model, vocab_size: int, sequence_length: int) -> CausalModel:
    """A float32 model on the default device, in train mode; its weights follow from the torch RNG that the caller seeded.

    A preset is a Llama with its embedding tied to its head: only so does it have the size that the paper calls it by, with 256k ids (at
    768 wide, each such matrix holds 197M of the "280M").

    Raises:
        DataError: the config is not one of a causal LM, does not fit the vocabulary or the sequence length, or computes something that
            Solfa's loss would not (a mask that looks ahead, logits that are scaled or capped after the head).
    """
    try:
        config = _config(model, vocab_size, sequence_length)
        network = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
        built = CausalModel(network)
        _check_computes_what_we_do(built, config.model_type)
    except SolfaError:
        raise
    except Exception as error:  # transformers raises whatever its config classes hit: KeyError, ValueError, TypeError, RuntimeError, ...
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise DataError(f"A model cannot be built from the spec's `models`: {reason or type(error).__name__}.") from error
    return built.train()


def _config(model: Model, vocab_size: int, sequence_length: int) -> PreTrainedConfig:
    given = _preset(cast(str, model.preset)) if model.config is None else copy.deepcopy(model.config)
    model_type = given.pop("model_type")
    try:
        config = AutoConfig.for_model(model_type, **given)
    except ValueError as error:
        if "Unrecognized model identifier" in str(error):
            raise DataError(f"transformers knows no model type `{model_type}`; `models` wants one such as llama or gpt_neox.") from error
        raise
    _refuse_misspelt(given, config)
    own = {*given, *(config.attribute_map.get(name, name) for name in given)}  # gpt2's n_positions is max_position_embeddings
    _fill(config, "vocab_size", vocab_size, own, "ids that the tokenizer has")
    _fill(config, "max_position_embeddings", sequence_length, own, "positions that a sequence has")
    config.use_cache = False
    config.bos_token_id = config.eos_token_id = config.pad_token_id = (
        None  # the tokenizer's, not a default's; and no embedding stays untrained
    )
    return cast(PreTrainedConfig, config)


def _refuse_misspelt(given: dict[str, Any], config: PreTrainedConfig) -> None:
    """transformers keeps any field it is given. One that is no field of this config, but looks like one, is refused."""
    known = {*type(config)().to_dict(), *config.attribute_map}
    for name in sorted(set(given) - known):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if near:
            raise DataError(f"A {config.model_type} config has no field `{name}`; did you mean `{near[0]}`?")


def _preset(name: str) -> dict[str, Any]:
    shape = PRESETS[name]
    return {
        "model_type": "llama",
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "tie_word_embeddings": True,
    }


def _fill(config: PreTrainedConfig, name: str, wanted: int, own: set[str], what: str) -> None:
    """Set a size unless the spec's config gives it; what it gives may be larger (padded for the hardware), never smaller."""
    given = config.attribute_map.get(name, name) in own or name in own
    if not given:
        setattr(config, name, wanted)
    elif getattr(config, name) < wanted:
        raise DataError(f"`{name}` is {getattr(config, name)}, but there are {wanted} {what}; leave it out and it is filled in.")


def _attends_to_everything_before(config: PreTrainedConfig) -> bool:
    """Whether no layer has a window, chunk or state of its own that a mask would have to tell it about."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    chunk = getattr(config, "attention_chunk_size", None)
    longest = config.max_position_embeddings
    return kinds == {"full_attention"} and all(reach is None or reach >= longest for reach in (window, chunk))


def _check_computes_what_we_do(built: CausalModel, model_type: str) -> None:
    """Refuse a model whose own logits differ from its hidden states times its head, or whose earlier tokens see later ones."""
    if any(parameter.is_meta for parameter in built.parameters()):
        return  # built without weights, after rank 0 has built and checked the same
    if not isinstance(built.network.get_output_embeddings(), nn.Linear):
        raise DataError(f"The model type `{model_type}` has no linear output head, which Solfa's loss needs.")
    device = built.head_weight.device
    ids = torch.arange(PROBE_TOKENS, device=device).unsqueeze(0) % built.network.config.vocab_size
    changed = ids.clone()
    changed[0, -1] = (changed[0, -1] + 1) % built.network.config.vocab_size
    built.eval()
    with torch.no_grad():
        hidden = built.hidden(ids)
        ours = nn.functional.linear(hidden, built.head_weight, built.head_bias)
        theirs = built.network(input_ids=ids, use_cache=False).logits
        seen_ahead = not torch.allclose(hidden[:, :-1], built.hidden(changed)[:, :-1], rtol=1e-3, atol=1e-4)
    if seen_ahead:
        raise DataError(f"The model type `{model_type}`, as configured, lets a token see later ones; choose a causal LM such as llama.")
    if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4):
        raise DataError(f"The model type `{model_type}` changes its logits after the head, which Solfa's loss does not; choose another.")
