"""Optimisers and schedules: what decays, what is fused, and the learning rate as a pure function of the step."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from api.spec import Adafactor, AdamW, CosineSchedule, ExponentialSchedule, Training, WarmupStableDecaySchedule
from trainer.optimize import learning_rate, make_optimizer

torch.set_num_threads(1)
relaxed = settings(deadline=None, derandomize=True)

schedules = st.one_of(
    st.builds(ExponentialSchedule, warmup_fraction=st.floats(0, 0.9), final_fraction=st.floats(0.01, 1)),
    st.builds(CosineSchedule, warmup_fraction=st.floats(0, 0.9), final_fraction=st.floats(0, 1)),
    st.builds(
        WarmupStableDecaySchedule, warmup_fraction=st.floats(0, 0.5), decay_fraction=st.floats(0, 0.5), final_fraction=st.floats(0, 1)
    ),
)


def training(steps: int = 100, **changes: Any) -> Training:
    return Training(steps=steps, learning_rate=1e-3, **changes)


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 11))


@relaxed
@given(schedules, st.integers(1, 400))
def test_any_schedule_rises_to_the_peak_then_falls_to_its_final_rate(schedule: Any, steps: int) -> None:
    chosen = training(steps, schedule=schedule)
    rates = [learning_rate(step, chosen) for step in range(1, steps + 1)]
    warmup = round(schedule.warmup_fraction * steps)
    assert all(0 <= rate <= 1e-3 * (1 + 1e-12) for rate in rates)
    assert all(a < b for a, b in pairwise(rates[:warmup]))
    assert all(a >= b - 1e-18 for a, b in pairwise(rates[max(warmup - 1, 0) :]))
    if warmup:
        assert rates[warmup - 1] == pytest.approx(1e-3)
    decays = not isinstance(schedule, WarmupStableDecaySchedule) or round(schedule.decay_fraction * steps) > 0
    if warmup < steps and decays:
        assert rates[-1] == pytest.approx(1e-3 * schedule.final_fraction, abs=1e-18)
    assert learning_rate(steps + 5, chosen) == rates[-1]


def test_the_papers_schedule_falls_from_1e_3_to_1e_4_by_a_constant_factor() -> None:
    chosen = training(1000, schedule=ExponentialSchedule())
    assert learning_rate(30, chosen) == pytest.approx(0.5e-3)  # 6 % linear warm-up
    assert learning_rate(60, chosen) == pytest.approx(1e-3)
    assert learning_rate(1000, chosen) == pytest.approx(1e-4)
    ratios = [learning_rate(step + 1, chosen) / learning_rate(step, chosen) for step in range(60, 1000)]
    assert max(ratios) == pytest.approx(min(ratios))


def test_cosine_is_half_way_in_the_middle() -> None:
    chosen = training(100, schedule=CosineSchedule(warmup_fraction=0.0, final_fraction=0.2))
    assert learning_rate(50, chosen) == pytest.approx(0.6e-3)


def test_warmup_stable_decay_is_flat_then_linear() -> None:
    chosen = training(100, schedule=WarmupStableDecaySchedule(warmup_fraction=0.1, decay_fraction=0.2))
    assert {learning_rate(step, chosen) for step in range(10, 81)} == {1e-3}
    assert [learning_rate(step, chosen) for step in (90, 100)] == pytest.approx([0.5e-3, 0.0])


@pytest.mark.parametrize("optimizer", [AdamW(weight_decay=0.1), Adafactor(weight_decay=0.1)])
def test_weight_decay_spares_norms_and_biases(optimizer: AdamW | Adafactor) -> None:
    model = small_model()
    made = make_optimizer(model, training(optimizer=optimizer))
    decays = {id(parameter): group["weight_decay"] for group in made.param_groups for parameter in group["params"]}
    assert len(decays) == len(list(model.parameters()))
    assert all(decays[id(parameter)] == (0.1 if parameter.dim() >= 2 else 0.0) for parameter in model.parameters())


def test_a_tied_parameter_is_updated_once() -> None:
    model = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 11, bias=False))
    model[1].weight = model[0].weight
    assert sum(len(group["params"]) for group in make_optimizer(model, training()).param_groups) == 1


def test_frozen_parameters_are_left_out() -> None:
    model = small_model()
    model[0].weight.requires_grad_(False)
    held = {id(parameter) for group in make_optimizer(model, training()).param_groups for parameter in group["params"]}
    assert id(model[0].weight) not in held


def test_adamw_is_fused_and_as_the_spec_says() -> None:
    made = make_optimizer(small_model(), training(optimizer=AdamW(beta1=0.8, beta2=0.9, epsilon=1e-6), schedule=CosineSchedule()))
    assert isinstance(made, torch.optim.AdamW)
    group = made.param_groups[0]
    assert (group["betas"], group["eps"], group["fused"]) == ((0.8, 0.9), 1e-6, True)
    assert group["lr"] == learning_rate(1, training(schedule=CosineSchedule()))


def steps_of(model: nn.Module, made: torch.optim.Optimizer, steps: int = 6) -> list[Tensor]:
    """The model's parameters after some steps on fixed data."""
    ids = torch.randint(11, (64,), generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        nn.functional.cross_entropy(model(ids), (ids * 3) % 11).backward()
        made.step()
        made.zero_grad()
    return [parameter.full_tensor() if isinstance(parameter, DTensor) else parameter.detach() for parameter in model.parameters()]


def test_adafactor_computes_what_torchs_does() -> None:
    ours, theirs = small_model(), small_model()
    chosen = training(optimizer=Adafactor(weight_decay=0.0))
    made = make_optimizer(ours, chosen)
    after = steps_of(theirs, torch.optim.Adafactor(theirs.parameters(), lr=made.param_groups[0]["lr"]))
    for found, expected in zip(steps_of(ours, made), after, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one, in which sharding is real: its tensors are DTensors."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("optimizer", [AdamW(), Adafactor()])
def test_sharded_parameters_take_the_same_steps(optimizer: AdamW | Adafactor) -> None:
    whole, sharded = small_model(), small_model()
    fully_shard(sharded)
    chosen = training(optimizer=optimizer)
    expected = steps_of(whole, make_optimizer(whole, chosen))
    for found, wanted in zip(steps_of(sharded, make_optimizer(sharded, chosen)), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("optimizer", [AdamW(), Adafactor()])
def test_it_learns_and_resumes_bit_for_bit(optimizer: AdamW | Adafactor) -> None:
    chosen = training(optimizer=optimizer, steps=30, schedule=CosineSchedule())
    ids = torch.randint(11, (64,), generator=torch.Generator().manual_seed(1))

    def train(model: nn.Module, made: torch.optim.Optimizer, steps: range) -> list[float]:
        losses = []
        for step in steps:
            for group in made.param_groups:
                group["lr"] = 10 * learning_rate(step, chosen)
            loss = nn.functional.cross_entropy(model(ids), (ids + 1) % 11)
            loss.backward()
            made.step()
            made.zero_grad()
            losses.append(loss.item())
        return losses

    model = small_model()
    made = make_optimizer(model, chosen)
    early = train(model, made, range(1, 16))
    saved_model = {name: value.clone() for name, value in model.state_dict().items()}
    saved_optimizer = torch.optim.Optimizer.state_dict(made)
    resumed = small_model()
    resumed.load_state_dict(saved_model)
    remade = make_optimizer(resumed, chosen)
    remade.load_state_dict(
        {**saved_optimizer, "state": {k: {n: v.clone() for n, v in s.items()} for k, s in saved_optimizer["state"].items()}}
    )
    late = train(model, made, range(16, 31))
    assert train(resumed, remade, range(16, 31)) == late
    assert late[-1] < early[0] - 0.3
