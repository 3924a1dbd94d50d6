"""What training may add to LSQ+: each method against a small oracle, off by default, and resumed to the bit."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import quant
from quant import data
from quant.checkpoint import Meta
from quant.functional import lsq_plus
from quant.kernels import Problem
from quant.layers import QLinear
from quant.loop import fit
from quant.methods import Damping, Freezing, methods_of
from quant.recipe import Recipe
from quant.spec import QuantSpec

ALL = {"ewgs": 0.2, "damping": 0.01, "freezing": 0.02}


def layer(bits: int = 2, granularity: str = "tensor") -> QLinear:
    torch.manual_seed(0)
    made: QLinear = quant.layers.quantized_like(
        nn.Linear(5, 4), QuantSpec(bits, True, granularity=granularity), QuantSpec(8, True)
    )
    return made


@pytest.mark.parametrize("config", [1, 4])
def test_ewgs_scales_gradients_by_the_rounding_error(config: int) -> None:
    """g + delta |g| (v - round v) in range, 0 where clipped; s and beta learn as before."""
    spec = QuantSpec.for_config(3, config)
    x = torch.randn(200, dtype=torch.float64)
    g = torch.randn(200, dtype=torch.float64)
    found = {}
    for delta in (0.0, 0.2):
        quantizer = quant.Quantizer(spec).double()
        quantizer.set_parameters(0.3, -0.4 if config == 4 else None)
        quantizer.ewgs = delta
        at = x.clone().requires_grad_()
        (quantizer(at) * g).sum().backward()
        found[delta] = (at.grad, quantizer.s.grad, None if quantizer.beta is None else quantizer.beta.grad)
    v = (x + (0.4 if config == 4 else 0.0)) / 0.3
    inside = (v > spec.n) & (v < spec.p)
    expected = torch.where(inside, g + 0.2 * g.abs() * (v - v.round()), 0.0)
    torch.testing.assert_close(found[0.2][0], expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[0.0][0], torch.where(inside, g, 0.0))
    for plain, changed in zip(found[0.0][1:], found[0.2][1:], strict=True):
        assert (plain is None) == (changed is None)
        if plain is not None and changed is not None:
            torch.testing.assert_close(changed, plain)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_damping_is_the_gradient_of_the_squared_distance_to_the_code(granularity: str) -> None:
    made = layer(3, granularity)
    strength, progress = 0.05, 0.7
    weight, quantizer = made.weight, made.weight_quantizer
    with torch.no_grad():
        weight[0, 0] = 1e3  # far outside its range: not pulled
    at = weight.detach().clone().requires_grad_()
    step = quantizer.step().detach().reshape(-1, 1) if granularity == "channel" else quantizer.step().detach()
    w_hat = lsq_plus(at.detach(), step, None, quantizer.spec.n, quantizer.spec.p)
    inside = (at.detach() >= quantizer.spec.n * step) & (at.detach() <= quantizer.spec.p * step)
    factor = strength * (1 - math.cos(math.pi * progress)) / 2
    (factor * ((at - w_hat).square() * inside).sum()).backward()
    weight.grad = torch.full_like(weight, 0.25)
    Damping(made, strength).before_step(progress)
    torch.testing.assert_close(weight.grad, 0.25 + at.grad)
    assert weight.grad[0, 0] == 0.25
    weight.grad = torch.zeros_like(weight)
    Damping(made, strength).before_step(0.0)  # it grows from nothing
    assert not weight.grad.any()


def frozen_by_hand(codes: list[float], threshold: float, steps: int) -> tuple[float, float, float | None]:
    """(f, mean, held code or None) after following one weight's codes, with floats and if."""
    f, mean, direction, before = 0.0, codes[0], 0.0, codes[0]
    for i, code in enumerate(codes[1:], start=1):
        moved = math.copysign(1, code - before) if code != before else 0.0
        f = 0.98 * f + 0.02 * (1.0 if moved * direction < 0 else 0.0)
        mean = 0.98 * mean + 0.02 * code
        direction = moved or direction
        before = code
        if f > threshold * (1 + 4 * (1 + math.cos(math.pi * i / steps)) / 2):
            return f, mean, float(round(mean))
    return f, mean, None


def test_freezing_holds_the_weights_that_turn_back_too_often_at_their_mean_code() -> None:
    """One weight oscillates between codes 0 and 1, one drifts upwards, one rests; the oracle follows them by hand."""
    made = layer(4)
    made.weight_quantizer.set_parameters(0.1)
    method, steps = Freezing(made, 0.02), 60
    paths = [[float(i % 3 > 0) for i in range(steps)], [float(min(i // 9, 7)) for i in range(steps)], [2.0] * steps]
    held: dict[int, float] = {}
    for i in range(steps):
        with torch.no_grad():
            for j, path in enumerate(paths):
                made.weight[0, j] = path[i] * 0.1
        method.after_step(i / steps)
        for j, path in enumerate(paths):
            expected = frozen_by_hand(path[: i + 1], 0.02, steps)[2]
            if expected is not None:
                held.setdefault(j, expected)
            assert made.weight[0, j].item() == pytest.approx(0.1 * held.get(j, path[i]))
    assert set(held) == {0}
    assert [int(track.frozen.sum()) for track in method.tracks.values()] == [1]
    made.weight_quantizer.set_parameters(0.2)  # s moves: the code is held, not the value
    method.after_step(1.0)
    assert made.weight[0, 0].item() == pytest.approx(0.2 * held[0])


def test_methods_leave_8_bits_alone_and_are_off_by_default() -> None:
    wide = layer(8)
    wide.weight.grad = torch.zeros_like(wide.weight)
    Damping(wide, 1.0).before_step(1.0)
    assert not wide.weight.grad.any()
    assert Freezing(wide, 0.01).weights == {}
    assert methods_of(wide, Recipe()) == []
    assert Problem(0, 15).ewgs == 0
    for name in ALL:
        with pytest.raises(ValueError, match=f"recipe: {name}: expected a number not below 0"):
            Recipe(**{name: -1.0})


def network() -> nn.Module:
    torch.manual_seed(0)
    float_network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
                                  nn.Flatten(), nn.Linear(128, 10))  # fmt: skip
    return quant.quantize(float_network, weight_bits=2, act_bits=2)[0]


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def test_a_run_with_every_method_resumes_to_the_bit(tmp_path: Path) -> None:
    digits = data.load("digits", validation=64, limit=192)
    recipe = Recipe(epochs=8, batch_size=32, learning_rate=0.1, freezing=0.004, ewgs=0.2, damping=0.01)
    meta = Meta("x:y")
    whole = network()
    fit(whole, digits, recipe, test=False)
    fit(network(), digits, recipe, meta=meta, out=tmp_path, max_steps=21, test=False)
    parts = network()
    fit(parts, digits, recipe, meta=meta, out=tmp_path, resume=True, test=False)
    expected = state_of(whole)
    assert all(torch.equal(value, expected[name]) for name, value in state_of(parts).items() if "observed" not in name)
    kept = quant.checkpoint.load_training_state(tmp_path)
    assert any(bool(v.any()) for k, v in kept.items() if k.endswith("/frozen"))


@pytest.mark.long
@pytest.mark.parametrize("method", ALL)
def test_each_method_changes_training(method: str) -> None:
    digits = data.load("digits", validation=64, limit=192)
    ends = []
    for value in (0.0, 10 * ALL[method] if method == "damping" else ALL[method] / (10 if method == "freezing" else 1)):
        model = network()
        fit(model, digits, Recipe(epochs=8, batch_size=32, learning_rate=0.1, **{method: value}), test=False)
        ends.append(copy.deepcopy(model.state_dict()))
    assert any(not torch.equal(ends[0][name], ends[1][name]) for name in ends[0] if name.endswith("weight"))
