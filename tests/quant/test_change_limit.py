"""No step changes an s or beta by more than its share, whatever the gradients; ordinary ones keep their bits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import quant
from quant import QuantSpec, Recipe, data, make_quantizer
from quant.change_limit import ChangeLimit
from quant.layers import QMul
from quant.loop import fit
from quant.quantizer import BaseQuantizer
from quant.whole_models import quantizers

CONFIG_4 = QuantSpec.for_config(4, 4)


def ready(spec: QuantSpec, s: float = 0.01, rows: int = 1) -> BaseQuantizer:
    quantizer = make_quantizer(spec, is_weight=rows > 1, rows=rows)
    quantizer.init_from(torch.linspace(-1, 1, 64).repeat(rows, 1) * s * 8)
    return quantizer


def largest_safe_limit(momentum: float) -> float:
    return (1 - math.sqrt(momentum)) / (1 + math.sqrt(momentum))


def test_gradients_beyond_the_bound_are_clipped_to_it_and_others_keep_their_bits() -> None:
    quantizer = ready(CONFIG_4)
    s, beta = quantizer.s, quantizer.beta
    bound = 0.02 * 0.1 / 0.5 * s.detach()
    for factor, kept in ((0.999, True), (-0.999, True), (1e9, False), (-1e9, False)):
        s.grad, beta.grad = bound * factor, 15 * bound * factor
        before = s.grad.clone(), beta.grad.clone()
        ChangeLimit(quantizer, 0.02, 0.9).clip_gradients(0.5)
        if kept:
            assert torch.equal(s.grad, before[0])
            assert torch.equal(beta.grad, before[1])
        else:
            torch.testing.assert_close(s.grad, math.copysign(1, factor) * bound)
            torch.testing.assert_close(beta.grad, math.copysign(1, factor) * 15 * bound)


def test_no_limit_leaves_every_gradient_alone() -> None:
    quantizer = ready(CONFIG_4)
    quantizer.s.grad = torch.tensor(1e30)
    ChangeLimit(quantizer, 0.0, 0.9).clip_gradients(0.01)
    assert quantizer.s.grad == 1e30


def test_a_gradient_that_is_not_a_number_stays_one() -> None:
    quantizer = ready(CONFIG_4)
    quantizer.s.grad = torch.tensor(math.nan)
    ChangeLimit(quantizer, 0.02, 0.9).clip_gradients(0.01)
    assert quantizer.s.grad.isnan()


@pytest.mark.parametrize("momentum", [0.5, 0.9, 0.99])
def test_the_worst_gradients_cannot_bring_s_to_zero(momentum: float) -> None:
    """s falls by a bounded share of itself at every step and never changes its sign."""
    limit = largest_safe_limit(momentum)
    quantizer = ready(CONFIG_4).double()
    optimizer = torch.optim.SGD([quantizer.s], lr=0.1, momentum=momentum)
    guard = ChangeLimit(quantizer, limit, momentum)
    before = quantizer.s.item()
    for _ in range(200):
        quantizer.s.grad = torch.tensor(1e12, dtype=torch.float64)
        guard.clip_gradients(0.1)
        optimizer.step()
        now = quantizer.s.item()
        # The slow root of the recursion is sqrt(m) in the critical case: s falls by less than 1 - sqrt(m) a step.
        assert math.sqrt(momentum) * (1 - 1e-9) * before < now < before
        before = now


def test_beyond_that_limit_it_can() -> None:
    quantizer = ready(CONFIG_4).double()
    optimizer = torch.optim.SGD([quantizer.s], lr=0.1, momentum=0.9)
    guard = ChangeLimit(quantizer, 2 * largest_safe_limit(0.9), 0.9)
    before, rises = quantizer.s.item(), 0
    for _ in range(200):
        quantizer.s.grad = torch.tensor(1e12, dtype=torch.float64)
        guard.clip_gradients(0.1)
        optimizer.step()
        rises += quantizer.s.item() > before  # gradients that all lower s can raise it across 0 only
        before = quantizer.s.item()
    assert rises > 0


def test_the_default_is_within_it() -> None:
    assert 0 < Recipe.change_limit <= largest_safe_limit(Recipe.momentum)


def test_checkpoints_from_before_the_limit_go_on_without_one() -> None:
    old = {name: value for name, value in Recipe(epochs=3).to_dict().items() if name != "change_limit"}
    assert Recipe.from_dict(old) == Recipe(epochs=3, change_limit=0)
    assert Recipe.from_dict(Recipe(epochs=3).to_dict()) == Recipe(epochs=3)


@pytest.mark.parametrize("momentum", [1.0, 1.5])
def test_a_momentum_that_never_forgets_is_refused(momentum: float) -> None:
    with pytest.raises(ValueError, match="momentum: expected a number below 1"):
        Recipe(momentum=momentum)


def test_training_keeps_to_the_limit_and_without_one_does_not() -> None:
    """Three steps at a rate fifty times LSQ's."""
    digits = data.load("digits", validation=64, limit=192)
    moved = {}
    for limit in (0.0, 0.02):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 3), nn.SiLU(), nn.Flatten())
        model, _ = quant.quantize(nn.Sequential(*network, nn.Linear(128, 10)), weight_bits=2, act_bits=2)
        first_values = torch.linspace(-1, 3, 64 * 64).view(64, 1, 8, 8)
        quant.initialise(model, [first_values])
        before = {name: float(q.s.detach()) for name, q in quantizers(model)}
        recipe = Recipe(batch_size=64, learning_rate=0.5, change_limit=limit, augment=False)
        fit(model, digits, replace(recipe, epochs=3), max_steps=3, test=False)
        moved[limit] = max(abs(float(q.s.detach()) / before[name] - 1) for name, q in quantizers(model))
    assert 0 < moved[0.02] < 1.02**3 - 1
    assert moved[0.0] > 0.1


@pytest.mark.parametrize("spec", [
    CONFIG_4, QuantSpec(8, signed=True), QuantSpec(4, signed=False, method="pact"),
    QuantSpec(4, signed=True, method="qil"),
    QuantSpec(4, signed=True, granularity="channel"),
])  # fmt: skip
def test_every_learned_parameter_of_every_method_is_limited(spec: QuantSpec) -> None:
    quantizer = ready(spec, rows=3 if spec.granularity == "channel" else 1)
    before = {name: p.detach().clone() for name, p in quantizer.named_parameters()}
    for p in quantizer.parameters():
        p.grad = torch.full_like(p, -1e20)
    ChangeLimit(quantizer, 0.02, 0.9).clip_gradients(0.01)
    torch.optim.SGD(quantizer.parameters(), lr=0.01, momentum=0.9).step()
    for name, p in quantizer.named_parameters():
        reach = 15 * before["s"] if name == "beta" else before.get("distance", before[name])
        torch.testing.assert_close(p.detach() - before[name], 0.1 * 0.02 * reach, rtol=1e-3, atol=0)


def test_one_update_as_printed_destroys_a_gate_and_the_limit_keeps_it() -> None:
    """A squeeze-excite product of 8 channels: 8-bit gate, s = 0.003, a loss that wants it smaller, LSQ's rate."""
    spec = QuantSpec(8, signed=False)
    left = {}
    for limit in (0.0, Recipe.change_limit):
        torch.manual_seed(0)
        product = QMul(spec, spec)
        gates = torch.rand(64, 8, 1, 1) * 1.2  # a third of them beyond the range, as after an update of what feeds them
        for _, quantizer in quantizers(product):
            quantizer.set_parameters(0.003)
        optimizer = torch.optim.SGD(product.parameters(), lr=0.01, momentum=0.9)
        guard = ChangeLimit(product, limit, 0.9)
        product(torch.full((64, 8, 4, 4), 0.7), gates).sum().mul(0.05).backward()
        guard.clip_gradients(0.01)
        optimizer.step()
        left[limit] = float(product.quantizer_of(1).s.detach()) / 0.003
    assert abs(left[0.0] - 1) > 0.9  # one update moved it by its own size
    assert left[Recipe.change_limit] == pytest.approx(1 - 0.1 * Recipe.change_limit, abs=1e-6)
