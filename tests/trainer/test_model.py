"""Models: built as the spec says, causal without a mask, the same from the same seed, or refused with a sentence."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from api.errors import DataError
from api.spec import PRESETS, Model
from trainer.model import CAUSAL_SDPA, CausalModel, build_model

torch.set_num_threads(1)

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 64}
LLAMA = {"model_type": "llama", **SMALL}
VOCABULARY, LENGTH = 300, 16


def build(seed: int = 0, **config: Any) -> CausalModel:
    torch.manual_seed(seed)
    return build_model(Model(config=config or LLAMA), VOCABULARY, LENGTH)


def ids(rows: int = 2, seed: int = 1) -> Tensor:
    return torch.randint(VOCABULARY, (rows, LENGTH), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool]]:
    """For each attention call: whether it had a mask, and whether it was told to be causal."""
    seen: list[tuple[bool, bool]] = []
    attend = functional.scaled_dot_product_attention

    def spy(*args: Any, attn_mask: Tensor | None = None, is_causal: bool = False, **rest: Any) -> Tensor:
        seen.append((attn_mask is not None, is_causal))
        return attend(*args, attn_mask=attn_mask, is_causal=is_causal, **rest)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", spy)
    return seen


FAMILIES: list[dict[str, Any]] = [
    LLAMA,
    {**LLAMA, "tie_word_embeddings": True},
    {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2},
    {"model_type": "gpt_neox", **SMALL},
    {"model_type": "qwen3", "head_dim": 16, **SMALL},
    {"model_type": "opt", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 64, "word_embed_proj_dim": 16},
    {"model_type": "phi", **SMALL},  # a head with a bias
    {"model_type": "mistral", **SMALL},
]


@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config["model_type"])
def test_any_causal_lm_config_answers_its_own_token_losses(config: dict[str, Any], masks: list[tuple[bool, bool]]) -> None:
    model = build(**config).eval()
    masks.clear()
    tokens, targets = ids(), ids(seed=2)
    found = model(tokens, targets)
    assert set(masks) == {(False, True)}  # SDPA's causal path, and no mask
    logits = model.network(input_ids=tokens).logits
    expected = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(2, LENGTH)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert found.dtype == torch.float32
    assert (model.network.config.vocab_size, model.network.config.max_position_embeddings) == (VOCABULARY, LENGTH)
    assert len(model.block_modules()) == model.network.config.num_hidden_layers
    assert model.head_weight.shape[0] == VOCABULARY
    assert model.training is False
    assert build(**config).training is True


def test_a_model_with_a_window_keeps_its_mask(masks: list[tuple[bool, bool]]) -> None:
    config = {"model_type": "mistral", "sliding_window": 4, **SMALL, "num_hidden_layers": 1}
    model = build(**config).eval()
    masks.clear()
    tokens = ids(1)
    changed = tokens.clone()
    changed[0, 0] = (changed[0, 0] + 1) % VOCABULARY
    difference = (model.hidden(tokens) - model.hidden(changed)).abs().amax(-1)[0]
    assert masks[0][0]
    assert difference[3] > 1e-6
    assert torch.all(difference[4:] < 1e-6)  # out of the window's reach
    model.network.set_attn_implementation(CAUSAL_SDPA)
    assert CausalModel(model.network).network.config._attn_implementation == "sdpa"  # as when it is loaded


def test_under_compile_attention_still_has_no_mask(masks: list[tuple[bool, bool]]) -> None:
    model = build()
    masks.clear()
    compiled = torch.compile(model.body, backend="eager", dynamic=False)
    compiled(input_ids=ids(), use_cache=False)
    assert set(masks) == {(False, True)}


def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    first, second, other = build(seed=3), build(seed=3), build(seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    assert not torch.equal(first.head_weight, other.head_weight)


def test_checking_a_model_draws_no_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2}  # its dropout would draw in train mode
    build(seed=3, **config)
    checked = torch.get_rng_state()
    monkeypatch.setattr("trainer.model._check_computes_what_we_do", lambda built, model_type: None)
    build(seed=3, **config)
    assert torch.equal(checked, torch.get_rng_state())


def test_a_preset_ties_its_embedding_and_has_the_shape_of_the_paper() -> None:
    torch.manual_seed(0)
    model = build_model(Model(preset="70m"), 1000, 64)
    config = model.network.config
    shape = PRESETS["70m"]
    assert (config.num_hidden_layers, config.num_attention_heads, config.hidden_size, config.intermediate_size) == tuple(shape)
    assert model.head_weight is model.network.get_input_embeddings().weight
    per_layer = 4 * shape.width**2 + 3 * shape.width * shape.feed_forward + 2 * shape.width
    assert model.num_parameters() == 1000 * shape.width + shape.layers * per_layer + shape.width
    assert model.flops_per_token(64) == 6 * model.num_parameters() + 6 * shape.layers * shape.width * 64


@pytest.mark.parametrize(("preset", "size"), [("70m", 70e6), ("150m", 150e6), ("280m", 280e6), ("1b", 1e9), ("8b", 8e9)])
def test_with_the_papers_vocabulary_a_tied_preset_is_about_as_large_as_its_name(preset: Any, size: float) -> None:
    with torch.device("meta"):
        model = build_model(Model(preset=preset), 256_000, 1024)
    assert 0.8 < model.num_parameters() / size < 1.75  # a Llama's feed-forward has three matrices where the paper's has two


def test_an_untied_embedding_that_is_only_looked_up_costs_no_flops() -> None:
    tied, untied = build(**{**LLAMA, "tie_word_embeddings": True}), build()
    assert untied.num_parameters() - tied.num_parameters() == VOCABULARY * 32
    assert untied.flops_per_token(LENGTH) == tied.flops_per_token(LENGTH)


def test_sizes_given_larger_are_kept() -> None:
    model = build(**LLAMA, vocab_size=320, max_position_embeddings=64)
    assert (model.head_weight.shape[0], model.network.config.max_position_embeddings) == (320, 64)


def test_every_embedding_row_is_trained() -> None:
    """Default special ids of a config (pad_token_id) would freeze the row of an ordinary token."""
    model = build(**LLAMA, pad_token_id=5)
    model(ids(), torch.full((2, LENGTH), 5)).sum().backward()
    assert model.network.get_input_embeddings().padding_idx is None


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "nonsense"}, "knows no model type `nonsense`"),
        ({"model_type": "t5"}, "Unrecognized configuration class"),
        ({"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}, "lets a token see later ones"),
        ({"model_type": "granite", "logits_scaling": 8.0, **SMALL}, "changes its logits after the head"),
        ({"model_type": "llama", **SMALL, "num_attention_heads": 3}, "not a multiple of the number of attention heads"),
        ({"model_type": "llama", "hidden_size": "wide"}, "hidden_size"),
        ({"model_type": "llama", "hidden_sise": 32}, "did you mean `hidden_size`"),
        ({**LLAMA, "vocab_size": 100}, "`vocab_size` is 100, but there are 300 ids"),
        ({"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 8}, "is 8, but there are 16 positions"),
    ],
)
def test_a_config_that_cannot_work_is_one_sentence(config: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        build(**config)
    assert "\n" not in caught.value.message
    assert caught.value.message.endswith((".", "?"))
