"""Networks out of torch modules: every MAC counted, every operator priced, free for a stated reason, or refused."""

from __future__ import annotations

import csv
import logging
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import hwsim
from hwsim.errors import UnsupportedOp, WorkloadError
from hwsim.frontends.lowering.lower import lower
from hwsim.frontends.lowering.table import HANDLERS
from hwsim.frontends.torch_export import as_at_inference, extract, recorded
from hwsim.network.layer import Layer, Loops
from hwsim.network.saved import load_workload
from hwsim.network.workload import Workload
from quant import models
from quant.layers import QAdd, QConv2d, QEmbedding, QLinear, QMatmul, QMul
from quant.spec import QuantSpec

REFERENCE = Path(__file__).parent.parent / "reference"
ROOT = Path(__file__).resolve().parents[2]
# Zoo name -> (source, name) in model_counts.csv.
COUNTED = {
    "resnet18": ("tv", "resnet18"),
    "resnet34": ("timm", "resnet34"),
    "resnet50": ("tv", "resnet50"),
    "preact_resnet50": ("timm", "resnetv2_50"),
    "mobilenet_v2": ("tv", "mobilenet_v2"),
    "efficientnet_b0": ("tv", "efficientnet_b0"),
    "mixnet_s": ("timm", "mixnet_s"),
    "vit_b_16": ("timm", "vit_base_patch16_224"),
}
SHAPED = {
    "resnet18": "resnet18",
    "mobilenet_v2": "mobilenetv2_100",
    "efficientnet_b0": "efficientnet_b0",
    "mixnet_s": "mixnet_s",
}
# Deeper or wider twins of networks that the plain run has anyway.
TWINS = {"resnet32", "resnet44", "resnet56", "resnet34", "preact_resnet34", "preact_resnet50", "mobilenet_v1"}
ZOO = [pytest.param(name, marks=pytest.mark.slow if name in TWINS else ()) for name in models.names()]
ATTENTION_MACS = 2 * 12 * 197 * 197 * 768  # ViT-B/16's functional products, which module hooks miss


@cache
def zoo(name: str) -> Workload:
    """A network of the zoo at its default input; the meta device costs no memory."""
    with torch.device("meta"):
        return extract(models.create(name), torch.zeros(1, *models.info(name).input_shape), name=name)


def rows(file: str) -> list[dict[str, str]]:
    with (REFERENCE / file).open() as f:
        return list(csv.DictReader(f))


def by_name(net: Workload) -> dict[str, Layer]:
    return {layer.name: layer for layer in net}


def only(net: Workload, op: str) -> Layer:
    """The one layer of that kind."""
    (layer,) = (layer for layer in net if layer.op == op)
    return layer


class Chain(nn.Sequential):
    """Modules in a row, with a name of its own for messages."""


class Lambda(nn.Module):
    """A function as a network."""

    def __init__(self, function: Any, **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *x: Tensor) -> Any:
        return self.function(self, *x)


# -- against counts measured elsewhere -------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("name", [p for p in ZOO if p.values[0] in COUNTED])
def test_macs_of_whole_networks_equal_the_measured_ones(name: str) -> None:
    source, known = COUNTED[name]
    row = next(r for r in rows("model_counts.csv") if (r["source"], r["model"]) == (source, known))
    extra = ATTENTION_MACS if name == "vit_b_16" else 0
    assert zoo(name).macs == int(row["conv_fc_macs"]) + extra


def test_vision_transformer_has_its_functional_attention() -> None:
    products = [layer for layer in zoo("vit_b_16") if layer.op == "matmul"]
    assert sum(layer.macs for layer in products) == ATTENTION_MACS
    assert round(zoo("vit_b_16").macs / 1e9, 3) == 17.564
    assert {layer.loops for layer in products} == {Loops(1, 12, 197, 64, 197), Loops(1, 12, 64, 197, 197)}
    assert all(layer.weight_is_activation for layer in products)


@pytest.mark.parametrize("name", SHAPED)
def test_every_layer_equals_the_measured_one_in_order(name: str) -> None:
    measured = [row for row in rows("layer_shapes_measured.csv") if row["model"] == SHAPED[name]]
    layers = [layer for layer in zoo(name) if layer.has_macs]
    assert len(layers) == len(measured)
    for layer, row in zip(layers, measured, strict=True):
        assert layer.weight is not None
        assert layer.macs == int(row["macs"]), layer.name
        assert layer.weight.elements == int(row["weights"]), layer.name
        assert layer.inputs[0].elements == int(row["in_elems"]), layer.name
        assert layer.output.elements == int(row["out_elems"]), layer.name
        assert int(row["groups"]) == layer.loops.G, layer.name
        assert "x".join(map(str, layer.weight.shape)) == row["weight_shape"], layer.name
        assert layer.name == row["name"], layer.name


@pytest.mark.long
@pytest.mark.parametrize("name", ZOO)
def test_the_whole_zoo_is_covered_and_connected(name: str) -> None:
    net = zoo(name)
    assert net.coverage.uncosted == ()
    assert net.shares.macs == net.shares.elements == net.shares.operators == 1.0
    assert {layer.op for layer in net} <= {
        "conv", "linear", "matmul", "add", "mul", "relu", "relu6", "silu", "sigmoid", "gelu", "softmax", "layer_norm",
        "batch_norm", "max_pool", "avg_pool", "reduce_mean", "concat", "pad",
    }  # fmt: skip
    inputs = {t.name for layer in net for t in layer.inputs} - {layer.output.name for layer in net}
    assert len(inputs) == 1
    outputs = [layer for layer in net if net.graph.out_degree(layer.name) == 0]
    assert [layer.name for layer in outputs] == [net.layers[-1].name]


# -- two front ends that share nothing but the handlers --------------------------------------------------


def geometry(net: Workload) -> list[tuple[Any, ...]]:
    return [
        (
            *(x.name, x.op, x.loops, x.stride, x.dilation, x.padding, x.bias, x.window, x.kernel),
            *(x.output.elements, x.output.origin),
        )
        for x in net
    ]


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18", "mixnet_s", "vit_b_16", "resnet20", "ds_cnn"])
def test_the_recorder_sees_what_export_sees(name: str) -> None:
    with torch.device("meta"):
        model, x = models.create(name), torch.zeros(1, *models.info(name).input_shape)
        with as_at_inference(model):
            graph = recorded(model, (x,), {}, name, ValueError("not tried"))
        net = lower(graph, HANDLERS)
    assert geometry(net) == geometry(zoo(name))


def test_a_model_that_branches_on_values_is_refused_or_recorded_when_asked() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.second(y) if y.sum().item() > 1e9 else F.relu(y)

    model = Lambda(run, first=nn.Linear(8, 4), second=nn.Linear(4, 4))
    with pytest.raises(UnsupportedOp, match=r"looks at the input's values \(test_extract\.py:\d+: return self\.second"):
        extract(model, torch.zeros(2, 8), name="branches")
    net = extract(model, torch.zeros(2, 8), name="branches", allow_uncosted=True)
    assert [layer.name for layer in net] == ["first", "sum", "relu"]
    assert "recorded from one run" in net.notes[0]


def test_the_model_is_left_as_it_was() -> None:
    model = models.create("resnet8").train()
    model.bn1.eval() if hasattr(model, "bn1") else None
    before = {name: (m.training, len(m._forward_hooks)) for name, m in model.named_modules()}
    extract(model, torch.zeros(1, 3, 32, 32))
    assert {name: (m.training, len(m._forward_hooks)) for name, m in model.named_modules()} == before


# -- operators -------------------------------------------------------------------------------------------


def reference_macs(function: Any, *inputs: Tensor) -> int:
    """MACs by torch's own FLOP counter: an independent oracle."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        function(*inputs)
    return counter.get_total_flops() // 2


W = torch.zeros
PRODUCTS: dict[str, tuple[Any, tuple[Tensor, ...]]] = {
    "conv1d": (nn.Conv1d(6, 4, 3, stride=2, padding=1, groups=2), (W(2, 6, 11),)),
    "conv2d": (nn.Conv2d(6, 9, (3, 5), (2, 1), (1, 2), (1, 2), groups=3), (W(2, 6, 12, 20),)),
    "conv2d same": (nn.Conv2d(3, 4, 4, padding="same", dilation=(1, 2)), (W(1, 3, 9, 9),)),
    "conv2d unbatched": (nn.Conv2d(3, 4, 3), (W(3, 9, 9),)),
    "depthwise": (nn.Conv2d(8, 16, 3, groups=8), (W(1, 8, 9, 9),)),
    "linear": (nn.Linear(5, 7), (W(3, 5),)),
    "linear tokens": (nn.Linear(5, 7, bias=False), (W(3, 11, 5),)),
    "mm": (torch.mm, (W(3, 4), W(4, 5))),
    "bmm": (torch.bmm, (W(2, 3, 4), W(2, 4, 5))),
    "matmul shared": (torch.matmul, (W(2, 3, 4), W(4, 5))),
    "matmul batches": (torch.matmul, (W(2, 1, 3, 4), W(6, 4, 5))),
    "addmm": (torch.addmm, (W(5), W(3, 4), W(4, 5))),
    "baddbmm": (torch.baddbmm, (W(2, 3, 5), W(2, 3, 4), W(2, 4, 5))),
    "attention": (F.scaled_dot_product_attention, (W(2, 3, 7, 4), W(2, 3, 9, 4), W(2, 3, 9, 4))),
    "einsum": (lambda a, b: torch.einsum("bhqd,bhkd->bhqk", a, b), (W(2, 3, 7, 4), W(2, 3, 9, 4))),
    "multihead": (
        Lambda(lambda self, x: self.attention(x, x, x, need_weights=False)[0], attention=nn.MultiheadAttention(8, 2)),
        (W(5, 2, 8),),
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_macs_equal_torchs_own_flop_counter(name: str) -> None:
    function, inputs = PRODUCTS[name]
    model = function if isinstance(function, nn.Module) else Lambda(lambda _, *x: function(*x))
    net = extract(model, inputs)
    assert net.macs == reference_macs(model, *inputs)
    assert net.shares.operators == 1.0


def test_a_vector_is_a_matrix_of_one_column() -> None:
    net = extract(Lambda(lambda _, a, b: a @ b), (W(2, 3, 4), W(4)))
    assert [layer.loops for layer in net] == [Loops(K=1, C=4, P=6)]


def test_grouped_queries_share_their_keys() -> None:
    query, key = W(2, 8, 7, 4), W(2, 2, 9, 4)
    model = Lambda(lambda _, q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True))
    net = extract(model, (query, key, key))
    assert [layer.loops for layer in net if layer.has_macs] == [Loops(1, 4, 9, 4, 28), Loops(1, 4, 4, 9, 28)]
    assert net.macs == 2 * (2 * 8 * 7 * 9 * 4)


def test_a_parameter_is_the_weight_on_either_side() -> None:
    class Mix(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Parameter(torch.zeros(6, 5))

        def forward(self, x: Tensor) -> Tensor:
            return self.mix @ x

    layer = only(extract(Mix(), W(2, 5, 7)), "linear")
    assert layer.weight is not None
    assert (layer.weight.name, layer.weight.shape) == ("mix", (6, 5))
    assert layer.loops == Loops(N=2, K=6, C=5, P=7)


def test_residual_gate_and_concatenation_are_layers() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = y * torch.sigmoid(y.mean((2, 3), keepdim=True))
        return torch.cat([y + x, x], 1)

    net = extract(Lambda(run, conv=nn.Conv2d(3, 3, 1)), W(1, 3, 4, 4))
    assert [(layer.name, layer.op, layer.window) for layer in net] == [
        ("conv", "conv", 1),
        ("mean", "avg_pool", 16),
        ("sigmoid", "sigmoid", 1),
        ("mul", "mul", 1),
        ("add", "add", 1),
        ("cat", "concat", 1),
    ]
    assert [t.name for t in by_name(net)["cat"].inputs] == ["add.out", by_name(net)["conv"].inputs[0].name]


def test_multi_call_modules_count_once_per_call() -> None:
    net = extract(Lambda(lambda self, x: self.conv(self.conv(self.conv(x))), conv=nn.Conv2d(3, 3, 1)), W(1, 3, 4, 4))
    assert [layer.name for layer in net] == ["conv", "conv#2", "conv#3"]
    assert net.macs == 3 * 9 * 16
    assert len({layer.weight.name for layer in net if layer.weight}) == 1


def test_in_place_operators_rename_what_they_overwrite() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        y = self.conv(x)
        self.relu(y)  # result unused: y itself is overwritten
        y += x
        return y

    net = extract(Lambda(run, conv=nn.Conv2d(3, 3, 1), relu=nn.ReLU(inplace=True)), W(1, 3, 4, 4))
    assert [layer.op for layer in net] == ["conv", "relu", "add"]
    assert [t.name for t in net.layers[-1].inputs] == ["relu.out", net.layers[0].inputs[0].name]


def test_batch_norm_folds_as_inference_would() -> None:
    folded = extract(Chain(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()), W(1, 3, 6, 6))
    assert [layer.op for layer in folded] == ["conv", "relu"]
    assert folded.layers[0].bias
    before = extract(Chain(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3)), W(1, 3, 6, 6))
    assert [layer.op for layer in before] == ["batch_norm", "relu", "conv"]

    def shared(self: Any, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + y  # the unnormalised output is read as well: nothing can fold

    kept = extract(Lambda(shared, conv=nn.Conv2d(3, 3, 1), norm=nn.BatchNorm2d(3)), W(1, 3, 6, 6))
    assert [layer.op for layer in kept] == ["conv", "batch_norm", "add"]
    linear = extract(Chain(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4)), W(2, 3))
    assert [(layer.op, layer.bias) for layer in linear] == [("linear", True)]


def test_batch_norm_behind_a_concatenation_folds_into_all_parts() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.norm(torch.cat([self.left(x), self.right(x)], 1))

    parts = {"left": nn.Conv2d(3, 2, 1, bias=False), "right": nn.Conv2d(3, 4, 3, padding=1, bias=False)}
    net = extract(Lambda(run, norm=nn.BatchNorm2d(6), **parts), W(1, 3, 6, 6))
    assert [(layer.op, layer.bias) for layer in net] == [("conv", True), ("conv", True), ("concat", False)]
    assert [(f.op, f.count) for f in net.coverage.free] == [("batch_norm", 1)]


def test_a_constant_per_channel_folds_into_the_layer_before() -> None:
    class Scaled(nn.Module):
        def __init__(self, shape: tuple[int, ...], twice: bool = False) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1, bias=False)
            self.gamma, self.twice = nn.Parameter(torch.ones(shape)), twice

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            z = y * self.gamma + 0.5 * self.gamma
            return z + y if self.twice else z

    def ops(*arguments: Any) -> list[str]:
        return [layer.op for layer in extract(Scaled(*arguments), W(1, 3, 4, 4))]

    assert ops((4, 1, 1)) == ["conv"]
    assert ops((1,)) == ["conv", "add"]  # the factor folds into the step size, the summand is not per channel
    assert ops((4,)) == ["conv", "mul", "add"]  # per column, not per channel
    assert ops((4, 1, 1), True) == ["conv", "mul", "add", "add"]  # the unscaled output is read as well


def test_zero_padding_is_taken_over_by_the_convolution() -> None:
    net = extract(Chain(nn.ZeroPad2d((1, 2, 3, 4)), nn.Conv2d(3, 4, 3, padding=1)), W(1, 3, 8, 8))
    layer = only(net, "conv")
    assert len(net) == 1
    assert layer.padding == (4, 5, 2, 3)
    assert layer.inputs[0].shape == (1, 3, 8, 8)


def test_other_padding_is_a_layer_of_its_own() -> None:
    reflect = extract(Chain(nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3)), W(1, 3, 8, 8))
    assert [layer.op for layer in reflect] == ["pad", "conv"]
    ones = extract(Chain(nn.ConstantPad2d(1, 1.0), nn.Conv2d(3, 4, 3)), W(1, 3, 8, 8))
    assert [layer.op for layer in ones] == ["pad", "conv"]
    pooled = extract(Chain(nn.ZeroPad2d(1), nn.MaxPool2d(2)), W(1, 3, 8, 8))
    assert [(layer.op, layer.output.shape) for layer in pooled] == [
        ("pad", (1, 3, 10, 10)),
        ("max_pool", (1, 3, 5, 5)),
    ]


def test_computation_on_constants_alone_costs_nothing() -> None:
    class Standardized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std()
            return F.conv2d(x, weight) + torch.arange(6)

    net = extract(Standardized(), W(1, 3, 8, 8))
    assert [layer.op for layer in net] == ["conv", "add"]


def test_views_keep_the_tensor_and_cost_nothing() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        y = self.fc(x)
        a, b = y.chunk(2, -1)
        return a.transpose(1, 2).reshape(2, -1) + b.permute(0, 2, 1).flatten(1)

    net = extract(Lambda(run, fc=nn.Linear(4, 6)), W(2, 5, 4))
    assert [layer.op for layer in net] == ["linear", "add"]
    assert [(t.name, t.shape) for t in net.layers[1].inputs] == [("fc.out", (2, 15)), ("fc.out", (2, 15))]
    assert {free.why for free in net.coverage.free} == {"address arithmetic"}
    moved = extract(Lambda(lambda _, x: x.roll(1, 2).repeat(1, 2, 1, 1)), W(1, 3, 4, 4))
    assert [layer.op for layer in moved] == ["copy", "copy"]


def test_embedding_reads_indices_as_wide_as_its_table() -> None:
    net = extract(Chain(nn.Embedding(1000, 16), nn.Linear(16, 4)), torch.zeros(2, 7, dtype=torch.long))
    table = net.layers[0]
    assert (table.op, table.inputs[0].bits, table.inputs[0].origin) == ("embedding", 10, "index")
    assert table.weight is not None
    assert table.weight.shape == (1000, 16)
    assert net.layers[1].loops == Loops(N=2, K=4, C=16, P=7)


ORIGINS: dict[str, tuple[Any, str, str]] = {
    "relu": (F.relu, "relu", "relu"),
    "relu6": (F.relu6, "relu6", "relu6"),
    "clamp": (lambda x: x.clamp(0, 3), "relu6", "relu6"),
    "clamp below": (lambda x: x.clamp(-1, 1), "relu6", "linear"),
    "leaky": (F.leaky_relu, "leaky_relu", "leaky_relu"),
    "silu": (F.silu, "silu", "silu"),
    "silu by hand": (lambda x: x * torch.sigmoid(x), "mul", "silu"),
    "hswish": (F.hardswish, "hswish", "hswish"),
    "hsigmoid": (F.hardsigmoid, "hsigmoid", "hsigmoid"),
    "sigmoid": (torch.sigmoid, "sigmoid", "sigmoid"),
    "gelu": (F.gelu, "gelu", "gelu"),
    "tanh": (torch.tanh, "tanh", "tanh"),
    "softmax": (lambda x: F.softmax(x, -1), "softmax", "softmax"),
    "max pool keeps": (lambda x: F.max_pool2d(F.silu(x), 2), "max_pool", "silu"),
    "avg pool keeps": (lambda x: F.adaptive_avg_pool2d(F.relu(x), 1), "avg_pool", "relu"),
    "gated keeps": (lambda x: F.silu(x) * torch.sigmoid(x.mean((2, 3), keepdim=True)), "mul", "silu"),
    "add": (lambda x: F.relu(x) + x, "add", "add"),
    "concat of equals": (lambda x: torch.cat([F.relu(x), F.relu(x)], 1), "concat", "relu"),
    "concat of others": (lambda x: torch.cat([F.relu(x), x], 1), "concat", "concat"),
    "view keeps": (lambda x: F.relu(F.relu(x).flatten(1)), "relu", "relu"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", ORIGINS)
def test_origin_says_what_made_a_tensor(name: str) -> None:
    function, op, origin = ORIGINS[name]
    net = extract(Lambda(lambda self, x: function(self.conv(x)), conv=nn.Conv2d(3, 4, 1)), W(1, 3, 4, 4))
    assert (net.layers[-1].op, net.layers[-1].output.origin) == (op, origin)
    assert (net.layers[0].inputs[0].origin, net.layers[0].output.origin) == ("image", "linear")


# -- names -----------------------------------------------------------------------------------------------


def test_modules_lend_their_names_and_functions_add_theirs() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.fc2(F.relu(self.fc1(x)))

    net = extract(Chain(Block(), Block(), nn.MultiheadAttention(4, 2) if False else nn.Linear(4, 2)), W(2, 4))
    assert [layer.name for layer in net] == [
        "0.fc1", "0.relu", "0.fc2", "0.add", "1.fc1", "1.relu", "1.fc2", "1.add", "2",
    ]  # fmt: skip


def test_attention_inside_one_module_is_named_by_its_parts() -> None:
    function, inputs = PRODUCTS["multihead"]
    names = [layer.name for layer in extract(function, inputs)]
    assert names == ["attention.linear", "attention.qk", "attention.softmax", "attention.pv", "attention.linear#2"]


# -- quantized networks ----------------------------------------------------------------------------------


W4 = QuantSpec(4, True, granularity="channel")
A4 = QuantSpec(4, False, True)
A3 = QuantSpec(3, True)


def test_bits_come_from_the_quantizers() -> None:
    model = Chain(
        QConv2d(3, 8, 3, padding=1, weight_spec=W4, input_spec=QuantSpec(8, True)),
        nn.SiLU(),
        QConv2d(8, 8, 3, groups=8, padding=1, weight_spec=W4, input_spec=A4, padding_policy="border_bias"),
        nn.Flatten(),
        QLinear(512, 10, weight_spec=QuantSpec(2, True), input_spec=A3),
    )
    first, silu, second, last = extract(model, W(1, 3, 8, 8)).layers
    assert first.weight is not None
    assert second.weight is not None
    assert last.weight is not None
    assert (first.inputs[0].bits, first.inputs[0].signed, first.inputs[0].offset) == (8, True, False)
    assert (first.weight.bits, first.weight.scales, last.weight.bits, last.weight.scales) == (4, 8, 2, 1)
    assert (second.inputs[0].bits, second.inputs[0].signed, second.inputs[0].offset) == (4, False, True)
    # The activation runs on the accumulator: what it reads has the codes of what it makes.
    assert (first.output.bits, silu.output.bits, second.output.bits) == (4, 4, 3)
    assert (first.padding_policy, second.padding_policy) == ("pad_code", "border_bias")
    assert last.output.bits == 32


def test_asymmetric_padding_of_a_quantized_layer_stays_with_it() -> None:
    model = QConv2d(3, 4, 3, stride=2, weight_spec=W4, input_spec=A4, extra_padding=(0, 1, 0, 1))
    (layer,) = extract(model, W(1, 3, 8, 8)).layers
    assert (layer.padding, layer.padding_policy, layer.inputs[0].shape) == ((0, 1, 0, 1), "pad_code", (1, 3, 8, 8))


def test_one_tensor_under_two_quantizers_costs_a_requantization() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        return self.add(self.b(y), y)

    parts = {
        "a": QConv2d(3, 3, 1, weight_spec=W4, input_spec=A3),
        "b": QConv2d(3, 3, 1, weight_spec=W4, input_spec=QuantSpec(4, False)),
        "add": QAdd(QuantSpec(8, True), QuantSpec(6, False)),
    }
    net = extract(Lambda(run, **parts), W(1, 3, 4, 4))
    assert [layer.name for layer in net] == ["a", "relu", "b.input_quantizer", "b", "add"]
    assert [layer.output.bits for layer in net] == [6, 6, 4, 8, 32]  # stored at the widest form that is read
    assert net.layers[2].op == "requantize"
    assert [(t.name, t.bits) for t in net.layers[4].inputs] == [("b.out", 8), ("relu.out", 6)]


def test_a_tensor_also_read_unquantized_stays_wide() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(y) + y

    parts = {name: QConv2d(3, 3, 1, weight_spec=W4, input_spec=A3) for name in "ab"}
    net = extract(Lambda(run, **parts), W(1, 3, 4, 4))
    assert [(layer.name, layer.output.bits) for layer in net] == [
        ("a", 32), ("b.input_quantizer", 3), ("b", 32), ("add", 32),
    ]  # fmt: skip
    assert "pass no quantizer" in net.notes[0]


def test_codes_pass_through_pooling_and_views() -> None:
    model = Chain(
        QConv2d(3, 4, 3, weight_spec=W4, input_spec=A3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        QLinear(36, 5, weight_spec=W4, input_spec=QuantSpec(2, False)),
    )
    net = extract(model, W(1, 3, 8, 8))
    assert [(layer.op, layer.output.bits) for layer in net][:3] == [("conv", 2), ("relu", 2), ("max_pool", 2)]


def test_quantizers_go_in_front_of_what_only_moves_values() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        both = torch.cat([F.pad(y, (0, 0, 0, 0, 1, 1)), F.max_pool2d(y, 3, 1, 1)], 1)
        return self.b(both)

    parts = {
        "a": QConv2d(3, 4, 1, weight_spec=W4, input_spec=A3),
        "b": QConv2d(10, 3, 1, weight_spec=W4, input_spec=A4),
    }
    net = extract(Lambda(run, **parts), W(1, 3, 6, 6))
    assert [(layer.op, layer.output.bits, layer.output.offset) for layer in net] == [
        ("conv", 4, True), ("relu", 4, True), ("pad", 4, True), ("max_pool", 4, True), ("concat", 4, True),
        ("conv", 32, False),
    ]  # fmt: skip


def test_average_pools_sum_before_rounding() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        y = F.silu(self.a(x))
        return self.mul(y, torch.sigmoid(self.b(y.mean((2, 3), keepdim=True))))

    parts = {
        "a": QConv2d(3, 4, 1, weight_spec=W4, input_spec=A3),
        "b": QConv2d(4, 4, 1, weight_spec=W4, input_spec=QuantSpec(2, False)),
        "mul": QMul(QuantSpec(6, False, True), QuantSpec(5, False)),
    }
    net = extract(Lambda(run, **parts), W(1, 3, 6, 6))
    assert [(layer.op, layer.output.bits) for layer in net] == [
        ("conv", 6), ("silu", 6), ("avg_pool", 2), ("conv", 5), ("sigmoid", 5), ("mul", 32),
    ]  # fmt: skip
    assert any("average pool" in note for note in net.notes)


def test_disjoint_parts_of_a_tensor_may_have_quantizers_of_their_own() -> None:
    def run(self: Any, x: Tensor, overlapping: bool = False) -> Tensor:
        y = self.a(x)
        left, right = y.split([1, 3], 1)
        return torch.cat([self.b(left), self.c(y[:, :3] if overlapping else right)], 1)

    def parts(bits: int) -> dict[str, nn.Module]:
        return {
            "a": QConv2d(3, 4, 1, weight_spec=W4, input_spec=A3),
            "b": QConv2d(1, 2, 1, weight_spec=W4, input_spec=A4),
            "c": QConv2d(3, 2, 1, weight_spec=W4, input_spec=QuantSpec(bits, False, True)),
        }

    same = extract(Lambda(run, **parts(4)), W(1, 3, 6, 6))
    assert [layer.op for layer in same] == ["conv", "conv", "conv", "concat"]
    wider = extract(Lambda(run, **parts(5)), W(1, 3, 6, 6))
    assert [layer.op for layer in wider] == ["conv", "requantize", "conv", "conv", "concat"]
    overlap = extract(Lambda(lambda self, x: run(self, x, overlapping=True), **parts(4)), W(1, 3, 6, 6))
    assert [layer.op for layer in overlap] == ["conv", "conv", "requantize", "conv", "concat"]


def test_products_and_embeddings_carry_their_quantizers() -> None:
    def run(self: Any, index: Tensor) -> Tensor:
        x = self.table(index)
        return self.product(x, x.transpose(1, 2))

    parts = {"table": QEmbedding(50, 6, weight_spec=QuantSpec(5, True)), "product": QMatmul(A3, QuantSpec(4, True))}
    net = extract(Lambda(run, **parts), torch.zeros(1, 3, dtype=torch.long))
    table, product = by_name(net)["table"], by_name(net)["product"]
    assert table.weight is not None
    assert product.weight is not None
    assert (table.weight.bits, product.inputs[0].bits, product.weight.bits) == (5, 3, 4)


# -- what is refused -------------------------------------------------------------------------------------


def strange(_: Any, x: Tensor) -> Tensor:
    y = torch.special.i0e(x)
    return torch.special.i1(torch.special.i0e(y))


def test_unknown_operators_are_refused_by_name_all_at_once() -> None:
    with pytest.raises(UnsupportedOp) as error:
        extract(Lambda(strange), W(1, 3, 4, 4), name="odd")
    message = str(error.value)
    assert "model odd: 3 operators have no price" in message
    assert "aten.special_i0e: 2x" in message
    assert "aten.special_i1: 1x" in message
    assert "--allow-uncosted" in message


def test_allowed_unknown_operators_are_listed_with_their_size() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.fc(torch.special.i1(self.fc(x)))

    net = extract(Lambda(run, fc=nn.Linear(4, 4)), W(2, 4), allow_uncosted=True)
    assert [(u.op, u.elements, u.macs) for u in net.coverage.uncosted] == [("aten.special_i1", 8, None)]
    assert net.coverage.ops_costed == net.coverage.ops_total - 1
    assert net.shares.operators < 1.0
    assert net.shares.unknown_macs == 1
    assert [layer.name for layer in net] == ["fc", "fc#2"]


def test_an_unknown_operator_that_makes_one_number_may_hide_macs() -> None:
    """A determinant is a scalar, and no less a sum of products."""
    net = extract(
        Lambda(lambda self, x: torch.linalg.det(self.fc(x)), fc=nn.Linear(4, 4)), W(4, 4), allow_uncosted=True
    )
    assert [(u.elements, u.macs) for u in net.coverage.uncosted] == [(1, None)]
    assert net.shares.unknown_macs == 1
    assert not any("not counted" in note for note in net.notes)


def test_indices_of_a_table_are_32_bits_where_it_is_not_known_and_no_wider_than_it() -> None:
    net = extract(Lambda(lambda self, x: self.table(x), table=nn.Embedding(10, 4)), torch.zeros(3, dtype=torch.long))
    assert [t.bits for t in next(iter(net)).inputs] == [4]
    counted = extract(Lambda(lambda self, x: torch.maximum(x, x.flip(0))), torch.zeros(3, dtype=torch.long))
    assert {t.bits for layer in counted for t in layer.inputs} == {32}


def test_macs_of_a_known_shape_count_against_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("aten.conv2d", "aten.convolution"):
        monkeypatch.delitem(HANDLERS, name)

    def run(self: Any, x: Tensor) -> Tensor:
        return F.conv2d(x, self.make(x.mean((2, 3))).reshape(3, 2, 3, 3))  # filters made from the input

    net = extract(Lambda(run, make=nn.Linear(2, 54)), W(1, 2, 5, 5), allow_uncosted=True)
    assert [(u.op, u.macs) for u in net.coverage.uncosted] == [("aten.conv2d", 3 * 9 * 2 * 9)]
    assert net.shares.macs == 2 * 54 / (2 * 54 + 486)


def test_what_would_be_guesswork_is_refused() -> None:
    with pytest.raises(UnsupportedOp, match="no price"):
        extract(Lambda(lambda _, x: torch.cdist(x, x)), W(3, 8))


def test_torch_logs_no_traceback_of_an_input_that_does_not_fit() -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    logger.addHandler(handler)
    try:
        with pytest.raises(WorkloadError, match="does not run on an input"):
            extract(nn.Linear(4, 2), torch.zeros(1, 5), name="net")
        assert said == []
        assert logging.root.manager.disable == logging.NOTSET
    finally:
        logger.removeHandler(handler)


def test_an_input_that_does_not_fit_is_named() -> None:
    with pytest.raises(WorkloadError, match=r"model net does not run on an input of shape \(1, 5\): .*--input"):
        extract(nn.Linear(4, 4), W(1, 5), name="net")
    with pytest.raises(WorkloadError, match=r"expected a torch.nn.Module, got list"):
        extract([nn.Linear(4, 4)], W(1, 4))  # type: ignore[arg-type]


# -- size, speed, saving ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["efficientnet_b0", "vit_b_16"])
def test_extracted_networks_survive_saving(name: str, tmp_path: Path) -> None:
    zoo(name).save(tmp_path / "net.json")
    assert load_workload(tmp_path / "net.json") == zoo(name)


def test_extract_is_public_and_the_core_needs_no_torch() -> None:
    assert hwsim.extract(nn.Linear(2, 3), W(1, 2)).macs == 6
    modules = "sys, hwsim, hwsim.frontends.lowering.table, hwsim.frontends.files.pt2"
    code = f"import {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_free_operators_say_why() -> None:
    reasons = Counter({free.why: free.count for free in zoo("mixnet_s").coverage.free})
    assert reasons["folded into the layer before"] == 49
    assert zoo("mixnet_s").coverage.ops_total == len(zoo("mixnet_s")) + sum(
        f.count for f in zoo("mixnet_s").coverage.free
    )
