"""Diagnostics against what they claim to measure."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import quant
from quant.diagnostics import initial_scales, inspect, plot_offsets, plot_weight_scales, to_frame


def network(**choices: object) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.SiLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    model, _ = quant.quantize(model, **{"weight_bits": 4, "act_bits": 4, "first_last": "same", **choices})
    return quant.initialise(model, [torch.randn(64, 6)])


def test_numbers_are_those_of_the_quantizers() -> None:
    model = network()
    x = torch.randn(256, 6)
    found = {d.name: d for d in inspect(model, [x])}
    assert set(found) == {name for name, _ in quant.quantizers(model)}
    quantizer, d = model[2].input_quantizer, found["2.input_quantizer"]
    with torch.no_grad():
        read = model[1](model[0](x))
        codes = quantizer.codes(read)
    v = (read - quantizer.beta) / quantizer.s
    assert (d.s, d.beta) == (quantizer.s.item(), quantizer.beta.item())
    assert (d.minimum, d.maximum) == (read.min().item(), read.max().item())
    assert d.histogram == tuple(int((codes == c).sum()) for c in range(16))
    assert d.clipped_low == pytest.approx((v <= 0).double().mean().item())
    assert d.clipped_high == pytest.approx((v >= 15).double().mean().item())
    assert d.error == pytest.approx((quantizer(read) - read).square().mean().item(), rel=1e-5)
    assert d.optimal_error <= d.error * 1.001
    share = torch.tensor([h for h in d.histogram if h]) / codes.numel()
    assert d.effective_bits == pytest.approx(-(share * share.log2()).sum().item(), rel=1e-5)
    assert d.effective_bits < 4


@pytest.mark.parametrize("policy", ["pad_code", "pad_beta", "border_bias"])
def test_padded_convolutions_are_seen(policy: str) -> None:
    """Their quantizers return more than x_hat; what they read is still the activation, without its padding."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 4, 3, padding=1))
    model, _ = quant.quantize(model, weight_bits=4, act_bits=4, first_last="same", padding_policy=policy)
    x = torch.randn(8, 2, 6, 6)
    quant.initialise(model, [x])
    found = {d.name: d for d in inspect(model, [x])}
    assert len(found) == 4
    assert sum(found["2.input_quantizer"].histogram) == 8 * 4 * 6 * 6


def test_a_step_away_from_the_optimum_shows() -> None:
    model = network()
    x = torch.randn(256, 6)
    near = next(d for d in inspect(model, [x]) if d.name == "2.weight_quantizer")
    model[2].weight_quantizer.set_parameters(near.optimal_s)
    at = next(d for d in inspect(model, [x]) if d.name == "2.weight_quantizer")
    model[2].weight_quantizer.set_parameters(3 * near.optimal_s)
    far = next(d for d in inspect(model, [x]) if d.name == "2.weight_quantizer")
    assert at.distance_from_optimum == pytest.approx(0, abs=1e-6)
    assert at.error == pytest.approx(at.optimal_error, rel=1e-5)
    assert far.distance_from_optimum == pytest.approx(2 / 3)
    assert far.error > 2 * far.optimal_error


def test_r_is_lsqs_ratio_and_nothing_is_left_behind() -> None:
    model = network().train()
    x, y = torch.randn(64, 6), torch.randint(0, 4, (64,))
    model(x).sum().backward()
    before = {n: p.grad.clone() for n, p in model.named_parameters()}
    found = {d.name: d for d in inspect(model, [(x, y)], loss=lambda m, b: F.cross_entropy(m(b[0]), b[1]))}
    assert model.training
    assert all(torch.equal(before[n], p.grad) for n, p in model.named_parameters())
    model.zero_grad()
    model.eval()
    F.cross_entropy(model(x), y).backward()
    layer = model[2]
    expected = (layer.weight_quantizer.s.grad.abs() / layer.weight_quantizer.s) / (
        layer.weight.grad.norm() / layer.weight.norm()
    )
    assert found["2.weight_quantizer"].gradient_ratio == pytest.approx(expected.item(), rel=1e-4)
    assert found["2.input_quantizer"].gradient_ratio is None
    assert inspect(model, [x])[0].gradient_ratio is None


def test_the_gradient_scale_brings_r_down_by_root_of_count_times_p() -> None:
    """LSQ 2.2: without the scale R is sqrt(N*p) times larger."""
    model = network()
    layer = model[2]
    weight, quantizer = layer.weight, layer.weight_quantizer
    g = torch.randn_like(weight)
    ratios = []
    for features in (weight.numel(), None):
        model.zero_grad()
        x_hat = quantizer(weight, features if features else 1)
        (x_hat * g).sum().backward()
        scale = 1.0 if features else math.sqrt(quantizer.spec.p)  # undo the p that features=1 leaves
        ratios.append(quantizer.s.grad.abs().item() * scale)
    assert ratios[1] / ratios[0] == pytest.approx(math.sqrt(weight.numel() * quantizer.spec.p), rel=1e-4)


@pytest.mark.parametrize("choices", [{"weight_granularity": "channel"}, {"method": "pact"}, {"method": "qil"},
                                     {"method": "dsq"}, {"weight_bits": 1, "act_bits": 1}, {"config": 3},
                                     {"weight_bits": 16, "act_bits": 16, "init": "minmax"}])  # fmt: skip
def test_every_method_can_be_inspected(choices: dict) -> None:
    model = network(**choices)
    found = inspect(model, [torch.randn(64, 6)])
    assert len(found) == 6
    for d in found:
        assert math.isfinite(d.error)
        assert 0 <= d.effective_bits <= d.bits
    frame = to_frame(found)
    rows = frame if isinstance(frame, list) else frame.to_dict("records")
    assert [row["name"] for row in rows] == [d.name for d in found]


def test_figure_2_draws_beta_and_the_minimum(tmp_path: Path) -> None:
    for config in (3, 4):
        model = network(config=config)
        found = inspect(model, [torch.randn(256, 6)])
        axes = plot_offsets(found)
        minimum, lowest, _ = (line.get_ydata() for line in axes.get_lines())
        shown = [d for d in found if d.name in ("2.input_quantizer", "4.input_quantizer")]
        assert list(minimum) == [d.minimum for d in shown]
        for d, drawn in zip(shown, lowest, strict=True):
            assert drawn == pytest.approx(d.beta + (-8 * d.s if config == 3 else 0))
            assert abs(drawn - d.minimum) < 0.2  # Eq. 8 leaves the lowest code near the minimum
        axes.figure.savefig(tmp_path / "figure.png")
    with pytest.raises(ValueError, match="no activation quantizer has an offset"):
        plot_offsets(inspect(network(config=1), [torch.randn(256, 6)]))


def test_figure_1_draws_starts_against_the_end(tmp_path: Path) -> None:
    model = network()
    layer = model[2]
    starts = initial_scales(layer.weight, layer.weight_quantizer.spec)
    assert starts["lsqplus"] == pytest.approx(layer.weight_quantizer.s.item())
    assert starts["lsq"] == pytest.approx(2 * layer.weight.abs().mean().item() / math.sqrt(7))
    axes = plot_weight_scales([starts["lsqplus"], starts["mse"] * 1.1, starts["mse"]], starts)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "mse start (0% from the end)" in labels
    axes.figure.savefig(tmp_path / "figure.png")
    with pytest.raises(ValueError, match="got none"):
        plot_weight_scales([], starts)
