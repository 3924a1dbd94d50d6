"""Integer networks give the codes of the float64 fake-quantized ones: every family, policy, configuration, bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hwsim.errors import UnsupportedOp, WorkloadError
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.certificate import certify
from hwsim.integer.proof.compare import Difference, compare, reference, reference_codes
from hwsim.integer.run import AccumulatorOverflow, Machine, Mode
from quant import initialise, models
from quant.convert import quantize
from quant.layers import QConv1d, QConv2d
from quant.models.ops import Add, Concat
from quant.spec import PADDING_POLICIES, QuantSpec
from tests.integer.nets import quantized, zoo

SILU_SMALL: dict[str, Any] = {"image_size": 8, "in_channels": 3, "depth": 1}
VIT_SMALL: dict[str, Any] = {"image_size": 32, "dim": 24, "depth": 1, "heads": 2}


def differences(machine: Machine, model: nn.Module, images: Tensor) -> tuple[Difference, ...]:
    """Of every quantizer call, both networks on the same images."""
    _, expected = reference_codes(reference(model), images)
    return compare(machine.model, machine.run(images, keep=set(machine.model.quantizers.values())).codes, expected)


def differing(model: nn.Module, images: Tensor) -> tuple[int, int]:
    """(elements, differing codes) end to end."""
    found = differences(Machine(lower(model, images)), model, images)
    assert found
    return sum(d.elements for d in found), sum(d.differing for d in found)


@pytest.mark.long
@pytest.mark.parametrize(("bits", "policy"), [(2, "border_bias"), (8, "pad_beta"), (4, "pad_code"), (8, "snap_offset")])
def test_silu_depthwise_squeeze_excite_is_exact_under_every_policy(bits: int, policy: str) -> None:
    model, images = zoo("silu_se_net", bits, arguments=SILU_SMALL, padding_policy=policy)
    assert differing(model, images)[1] == 0


@pytest.mark.long
@pytest.mark.parametrize("config", [1, 2, 3, 4])
def test_every_configuration_is_exact(config: int) -> None:
    model, images = zoo("silu_se_net", 4, arguments=SILU_SMALL, config=config, padding_policy="border_bias")
    assert differing(model, images)[1] == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "arguments", "choices"),
    [
        ("resnet20", {"width": 0.5}, {"config": 4, "padding_policy": "border_bias"}),
        ("resnet8", {"image_size": 16}, {"first_last": "8bit", "weight_granularity": "channel"}),
        ("ds_cnn", {"width": 0.25}, {"config": 4, "padding_policy": "border_bias"}),
        ("vit_b_16", VIT_SMALL, {"config": 4}),
        ("anomaly_autoencoder", {"features": 32}, {"config": 4}),
    ],
)
def test_families_are_exact(name: str, arguments: dict[str, Any], choices: dict[str, Any]) -> None:
    model, images = zoo(name, 4, batch=2, arguments=arguments, **choices)
    assert differing(model, images)[1] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", models.names())
def test_every_network_of_the_zoo_is_exact(name: str) -> None:
    """Narrow and on small images; what stays float is softmax and layer norm alone."""
    known = models.info(name).arguments()
    small = {"width": 0.125, "image_size": 64, "features": 32} | (VIT_SMALL if name == "vit_b_16" else {})
    arguments = {key: value for key, value in small.items() if key in known}
    model, images = zoo(name, 4, batch=2, arguments=arguments, config=4, padding_policy="border_bias")
    assert differing(model, images)[1] == 0
    kept = {operator.split()[0] for operator in lower(model, images).float_operators}
    assert kept == ({"softmax", "layer_norm"} if name == "vit_b_16" else set())


class OneConvolution(nn.Module):
    """A convolution whose output is quantized again: all of LSQ+ Eq. 5 in two layers."""

    def __init__(self, first: QConv1d | QConv2d, channels: int, spec: QuantSpec) -> None:
        super().__init__()
        self.first = first
        self.last = type(first)(channels, 2, 1, weight_spec=QuantSpec(4, True), input_spec=spec)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))


GEOMETRY = {
    "kernel": st.tuples(st.integers(1, 7), st.integers(1, 7)), "stride": st.integers(1, 3),
    "dilation": st.integers(1, 3), "sides": st.tuples(*[st.integers(0, 5)] * 4), "groups": st.integers(1, 3),
    "channels": st.integers(1, 3), "beyond": st.integers(0, 6), "weight_bits": st.integers(1, 8),
    "act_bits": st.integers(1, 8), "config": st.integers(1, 4), "policy": st.sampled_from(PADDING_POLICIES),
    "axes": st.sampled_from((1, 2, 2)), "seed": st.integers(0, 10**6),
}  # fmt: skip


def check_geometry(
    *, kernel: tuple[int, int], stride: int, dilation: int, sides: tuple[int, int, int, int], groups: int,
    channels: int, beyond: int, weight_bits: int, act_bits: int, config: int, policy: str, axes: int,
    seed: int,
) -> None:  # fmt: skip
    """All codes equal for one convolution over 1 or 2 axes, on a map `beyond` larger than the smallest it fits on."""
    reach = [dilation * (k - 1) + 1 for k in kernel]
    left, right, top, bottom = sides
    size = [max(1, reach[0] - top - bottom) + beyond, max(1, reach[1] - left - right) + beyond][-axes:]
    torch.manual_seed(seed)
    offset = config in (3, 4)
    spec = QuantSpec.for_config(act_bits, config, snap_offset=offset and policy == "snap_offset")
    first = (QConv1d, QConv2d)[axes - 1](
        channels * groups, 2 * groups, kernel[-axes:], stride, 0, dilation, groups, bias=bool(seed % 2),
        extra_padding=sides[: 2 * axes], weight_spec=QuantSpec(weight_bits, True), input_spec=spec,
        padding_policy=policy,
    )  # fmt: skip
    model = OneConvolution(first, 2 * groups, QuantSpec(act_bits, False, offset=True))
    images = torch.nn.functional.silu(torch.randn(3, channels * groups, *size) * 2)
    model = initialise(model, [images]).eval()
    elements, off = differing(model, images)
    assert elements > 0
    assert off == 0


@pytest.mark.filterwarnings("ignore:.*saw one value only")
@settings(max_examples=20, deadline=None)
@given(**GEOMETRY)
def test_any_geometry_is_exact(**drawn: Any) -> None:
    check_geometry(**drawn)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*saw one value only")
@settings(max_examples=500, deadline=None)
@given(**GEOMETRY)
def test_hundreds_of_geometries_are_exact(**drawn: Any) -> None:
    check_geometry(**drawn)


class Mixture(nn.Module):
    """1-D convolutions, concatenation, max and average pools, shifts, slices: operators the zoo does not combine."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(2, 4, 3, padding=2, dilation=2)
        self.two = nn.Conv1d(4, 4, 5, padding=2, stride=2, groups=2)
        self.concat, self.add = Concat(1), Add()
        self.last = nn.Conv1d(8, 3, 3, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        y = torch.nn.functional.leaky_relu(self.one(x), 0.1)
        a, b = self.two(y), torch.nn.functional.hardswish(self.two(y)) * 0.5 + 0.25
        z = self.concat([self.add(a, b), torch.nn.functional.gelu(a[:, :, :])])
        return self.last(z).mean(2)


@pytest.mark.parametrize("bits", [2, 8])
def test_one_dimensional_networks_are_exact(bits: int) -> None:
    torch.manual_seed(1)
    images = torch.randn(4, 2, 24)
    model = quantized(Mixture().eval(), images, bits, padding_policy="border_bias")
    assert differing(model, images)[1] == 0


def test_a_max_pool_compares_codes() -> None:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 3, padding=1),
                        nn.AvgPool2d(2), nn.ReLU(), nn.Conv2d(4, 2, 1))  # fmt: skip
    images = torch.randn(4, 3, 15, 15)
    assert differing(quantized(net.eval(), images, 3, padding_policy="border_bias"), images)[1] == 0


def test_the_naive_constant_bias_is_wrong_at_the_border_and_only_there() -> None:
    model, images = zoo("silu_se_net", 4, arguments=SILU_SMALL, padding_policy="border_bias")
    found = certify(model, images)
    assert found.equal
    naive = [layer.naive for layer in found.layers if layer.naive is not None]
    assert naive
    assert all(n.inside_differing == 0 for n in naive)
    assert sum(n.border_differing for n in naive) > 0
    assert max(n.border_relative_rms for n in naive) > 0.02


@pytest.mark.long
def test_the_class_follows_the_policy_and_the_machine() -> None:
    from hwsim.machine.parts import Capabilities

    plain = Capabilities((8,), (8,), (8,), pad_value="zero_only", border_bias=False)
    classes = {}
    for policy in ("pad_code", "pad_beta", "border_bias"):
        model, images = zoo("silu_se_net", 4, batch=1, arguments=SILU_SMALL, padding_policy=policy)
        found = certify(model, images, capabilities=plain, machine="zero only")
        layer = next(x for x in found.layers if x.name == "blocks.1.0.conv_dw")
        classes[policy] = layer.offset.kind
        mul = next(x for x in found.layers if x.op == "mul")
        assert mul.offset.kind == "dynamic"
        assert mul.offset.extra_adds > 0
        assert {p: c.kind for p, c in layer.policies.items()} == {
            "pad_code": "padded_copy", "snap_offset": "padded_copy", "pad_beta": "folded", "border_bias": "border_bias",
        }  # fmt: skip
    assert classes["pad_beta"] == "folded"
    assert classes["border_bias"] == "border_bias"
    assert classes["pad_code"] == "padded_copy"


@pytest.mark.long
def test_fixed_point_comes_close_and_wider_comes_closer() -> None:
    model, images = zoo("silu_se_net", 4, arguments=SILU_SMALL, padding_policy="border_bias")
    lowered = lower(model, images)
    off = []
    for mode in (
        Mode("fixed", 8, bias_unit="product", table_bits=8),
        Mode("fixed", 32, bias_unit="product", table_bits=16),
    ):
        found = differences(Machine(lowered, mode), model, images)
        off.append(sum(d.differing for d in found) / sum(d.elements for d in found))
    assert off[1] < off[0]
    assert 0 < off[0] < 0.6
    assert off[1] < 0.03


def test_accumulators_are_checked_wrapped_or_saturated() -> None:
    model, images = zoo("resnet8", 8, batch=2, arguments={"image_size": 16}, first_last="same")
    lowered = lower(model, images)
    needed = max(n.range.reach for n in lowered.convolutions).bit_length() + 1
    exact = Machine(lowered).run(images).values
    assert torch.equal(Machine(lowered, Mode(accumulator_bits=needed)).run(images).values, exact)
    with pytest.raises(AccumulatorOverflow, match=r"layer .* sums do not fit an accumulator of 10 bits"):
        Machine(lowered, Mode(accumulator_bits=10)).run(images)
    wrapped = Machine(lowered, Mode(accumulator_bits=10, overflow="wrap")).run(images)
    assert any(name.startswith("overflow") and count for name, count in wrapped.tally.items())
    saturated = Machine(lowered, Mode(accumulator_bits=10, overflow="saturate")).run(images).values
    each = Machine(lowered, Mode(accumulator_bits=10, overflow="saturate_each")).run(images).values
    assert not torch.equal(wrapped.values, saturated)
    assert not torch.equal(saturated, each)


def test_an_adc_loses_nothing_with_enough_bits() -> None:
    model, images = zoo("resnet8", 4, batch=2, arguments={"image_size": 16})
    lowered = lower(model, images)
    exact = Machine(lowered).run(images).values
    assert torch.equal(Machine(lowered, Mode(adc_bits=24, adc_rows=64)).run(images).values, exact)
    assert not torch.equal(Machine(lowered, Mode(adc_bits=4, adc_rows=64)).run(images).values, exact)


def test_a_float_network_and_an_untrained_quantizer_are_refused() -> None:
    with pytest.raises(WorkloadError, match="has no quantizers"):
        lower(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.zeros(1, 3, 8, 8))
    made, _ = quantize(nn.Sequential(nn.Conv2d(3, 4, 3)), weight_bits=4, act_bits=4)
    with pytest.raises(WorkloadError, match="no step size yet"):
        lower(made, torch.zeros(1, 3, 8, 8))


def test_a_layer_left_in_float_is_named() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    images = torch.randn(2, 3, 12, 12)
    model = quantized(net, images, 4, overrides={"2": {"skip": True}})
    with pytest.raises(UnsupportedOp, match=r"layer 2: .*quantize"):
        lower(model, images, allow_float=False)


def test_a_result_that_is_no_sum_per_channel_is_named() -> None:
    images = torch.randn(2, 3, 6, 6)
    model = quantized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), images, 4)
    with pytest.raises(UnsupportedOp, match=r"its result is no affine sum per channel .* quantize it"):
        lower(model, images)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_codes() -> None:
    model, images = zoo("silu_se_net", 4, arguments=SILU_SMALL, padding_policy="border_bias")
    lowered = lower(model, images)
    keep = set(lowered.quantizers.values())
    here = Machine(lowered).run(images, keep=keep).codes
    there = Machine(lowered, device="cuda").run(images, keep=keep).codes
    assert all(torch.equal(here[n], there[n].cpu()) for n in keep)
