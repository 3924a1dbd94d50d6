"""Batch norms folded: the same function in eval mode, the same weight codes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quant
from quant.fold import foldable
from quant.models import create, info


def with_statistics(model: nn.Module) -> nn.Module:
    """Running statistics and affine parameters of a trained network, factors of both signs."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.double()


def norms(model: nn.Module) -> int:
    return sum(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in model.modules())


@pytest.mark.parametrize(("name", "left"), [("resnet20", 0), ("silu_se_net", 0), ("anomaly_autoencoder", 0)])
def test_folding_is_exact_in_float(name: str, left: int) -> None:
    torch.manual_seed(0)
    model = with_statistics(create(name)).eval()
    folded = quant.fold_batchnorm(model)
    x = torch.randn(2, *info(name).input_shape, dtype=torch.float64)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)
    assert norms(folded) == left
    assert norms(model) > left


@pytest.mark.parametrize("policy", ["pad_code", "border_bias"])
def test_folding_a_quantized_network_keeps_codes_and_function(policy: str) -> None:
    torch.manual_seed(0)
    model, _ = quant.quantize(
        with_statistics(create("silu_se_net", image_size=16, depth=1)), weight_bits=4, act_bits=4, init="minmax",
        padding_policy=policy,
    )  # fmt: skip
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    quant.initialise(model, [x]).eval()
    folded = quant.fold_batchnorm(model)
    assert norms(folded) == 0
    torch.testing.assert_close(folded(x), model(x), rtol=1e-9, atol=1e-9)
    layers = dict(folded.named_modules())
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            codes = layer.weight_quantizer.codes(layer.weight)
            assert torch.equal(codes, layers[name].weight_quantizer.codes(layers[name].weight))
    assert layers["conv_stem"].output_scale.shape == (16,)


def test_norms_that_read_a_sum_or_a_pool_stay() -> None:
    with torch.device("meta"):
        model = create("preact_resnet18")
    assert norms(model) - len(foldable(model)) == 9


class Joined(nn.Module):
    """A norm behind the concatenation of two convolutions; another that has a second reader."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(6, 6, 1)
        self.bn1, self.bn2 = nn.BatchNorm2d(6), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(torch.cat([self.a(x), self.b(x)], dim=1))
        x = self.c(x)
        return self.bn2(x) + x


def test_folding_goes_through_concatenations_and_spares_shared_outputs() -> None:
    torch.manual_seed(0)
    model = with_statistics(Joined()).eval()
    folded = quant.fold_batchnorm(model)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-12, atol=1e-12)
    assert isinstance(folded.bn1, nn.Identity)
    assert isinstance(folded.bn2, nn.BatchNorm2d)


def test_a_norm_without_statistics_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(ValueError, match="without running statistics"):
        quant.fold_batchnorm(model)


def linear_norm(features: int, channels: int) -> nn.Module:
    return with_statistics(nn.Sequential(nn.Linear(6, features), nn.BatchNorm1d(channels), nn.ReLU())).eval()


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize(("features", "channels"), [(5, 5), (5, 4)])
def test_a_norm_on_another_axis_than_the_linear_layers_stays_right(
    features: int, channels: int, quantized: bool
) -> None:
    """(batch, channels, features): the norm's axis is not the layer's, also where both have as many entries."""
    torch.manual_seed(0)
    model = linear_norm(features, channels)
    x = torch.randn(8, channels, 6, dtype=torch.float64)
    if quantized:
        model, _ = quant.quantize(model, weight_bits=8, act_bits=8)
        quant.initialise(model, [x]).eval()
    for folded in (quant.fold_batchnorm(model), quant.fold_batchnorm(model, example=x)):
        torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)
    if features == channels:
        flat = x[:, 0]
        torch.testing.assert_close(quant.fold_batchnorm(model)(flat), model(flat), rtol=1e-10, atol=1e-10)
        assert norms(quant.fold_batchnorm(model, example=x)) == 1
        assert type(quant.fold_batchnorm(model, example=flat)[0]) is type(model[0])


def test_a_flattened_map_shows_that_the_axes_are_one() -> None:
    torch.manual_seed(0)
    model = with_statistics(nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5))).eval()
    folded = quant.fold_batchnorm(model)
    assert type(folded[1]) is nn.Linear
    x = torch.randn(4, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_a_weight_that_is_computed_keeps_its_norm(norm: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(norm(nn.Conv2d(3, 6, 3)), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1)).eval()
    model[1].running_var.uniform_(0.5, 2)
    folded = quant.fold_batchnorm(model)
    x = torch.randn(2, 3, 8, 8)
    assert isinstance(folded[1], nn.BatchNorm2d)
    torch.testing.assert_close(folded(x), model(x))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_hooks_that_compute_weights_are_refused_with_the_way_out() -> None:
    model = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 6, 3)), nn.BatchNorm2d(6)).eval()
    model(torch.randn(2, 3, 8, 8))
    with pytest.raises(ValueError, match="remove_weight_norm"):
        quant.fold_batchnorm(model)
