"""Transposed, three-dimensional and recurrent operators against brute force; states, branches, vanishing operators."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hwsim.errors import UnsupportedOp, WorkloadError
from hwsim.frontends.lowering.convolutions import Axis, phases
from hwsim.frontends.lowering.ir import Meta, Op, OpGraph, Ref
from hwsim.frontends.lowering.lower import Handler, lower
from hwsim.frontends.lowering.table import HANDLERS
from hwsim.frontends.torch_export import extract


def scattered(size: int, taps: int, stride: int, dilation: int, cut: int, out: int) -> list[tuple[int, int, int]]:
    """(output, input, tap) of every product of a transposed convolution along one axis, by its definition."""
    found = []
    for i, r in itertools.product(range(size), range(taps)):
        y = i * stride + r * dilation - cut
        if 0 <= y < out:
            found.append((y, i, r))
    return sorted(found)


def gathered(axis: Axis) -> int:
    """Products of one phase whose input exists."""
    return sum(0 <= t - axis.before + j * axis.dilation < axis.size for t in range(axis.out) for j in range(axis.taps))


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 7), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(0, 2)
)  # fmt: skip
def test_phases_make_the_products_of_a_transposed_convolution(
    size: int, taps: int, stride: int, dilation: int, cut: int, extra: int
) -> None:
    out = (size - 1) * stride - 2 * cut + dilation * (taps - 1) + 1 + min(extra, stride - 1)
    if out < 1:
        return
    found = phases(size, taps, stride, dilation, cut, out)
    products = scattered(size, taps, stride, dilation, cut, out)
    assert sum(gathered(axis) for axis in found if axis) == len(products)
    assert sum(axis.taps for axis in found if axis) <= taps
    for a, axis in enumerate(found):
        reached = {y for y, _, _ in products if y % stride == a}
        if axis is None:
            assert not reached
        else:
            assert axis.out == len(range(a, out, stride))
            assert axis.size + axis.before + axis.after == (axis.taps - 1) * axis.dilation + axis.out


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.ConvTranspose2d(3, 5, 2, 2), (1, 3, 4, 4), 16 * 3 * 5 * 4),
        (nn.ConvTranspose2d(3, 5, 4, 2, 1), (2, 3, 4, 4), 2 * 64 * 3 * 5 * 4),
        (nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2), (1, 4, 4, 4), 16 * 9 * 2 * 6),
        (nn.ConvTranspose1d(3, 5, 4, 4), (1, 3, 9), 9 * 4 * 15),
        (nn.ConvTranspose3d(2, 3, 2, 2), (1, 2, 3, 3, 3), 27 * 8 * 6),
        (nn.Conv3d(2, 3, 3, padding=1), (1, 2, 4, 5, 5), 100 * 27 * 6),
        (nn.Conv3d(2, 3, (3, 1, 1), stride=(2, 1, 1)), (1, 2, 5, 4, 4), 2 * 16 * 3 * 6),
        (nn.Conv3d(2, 3, (1, 3, 3)), (1, 2, 5, 4, 4), 5 * 4 * 9 * 6),
    ],
)
def test_macs_of_transposed_and_3d_convolutions(layer: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    net = extract(layer, torch.zeros(shape))
    assert net.macs == macs
    weights = {item.weight.name: item.weight.elements for item in net if item.weight is not None}
    assert sum(weights.values()) == next(layer.parameters()).numel()


@pytest.mark.parametrize(
    ("layer", "gates"),
    [(nn.LSTM(6, 8, 2, bidirectional=True), 4), (nn.GRU(6, 8), 3), (nn.RNN(6, 8, batch_first=True), 1)],
)
def test_recurrent_layers_count_every_step_and_their_weights_once(layer: Any, gates: int) -> None:
    net = extract(layer, torch.zeros(2, 2, 6))
    ways = 2 if layer.bidirectional else 1
    sizes = [6] + [8 * ways] * (layer.num_layers - 1)
    assert net.macs == sum(2 * 2 * ways * gates * 8 * (size + 8) for size in sizes)
    weights = {item.weight.name: item.weight.elements for item in net if item.has_macs and item.weight is not None}
    assert sum(weights.values()) == sum(p.numel() for name, p in layer.named_parameters() if "weight" in name)


@pytest.mark.long
@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.integers(2, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.integers(0, 3),
    st.integers(0, 2),
)  # fmt: skip
def test_a_transposed_convolution_counts_its_products_and_those_with_the_border(
    axes: int, size: int, taps: int, stride: int, dilation: int, cut: int, extra: int
) -> None:
    """As a forward convolution does: outputs times the taps of their phase, of which those with an input exist."""
    cut, extra = min(cut, dilation * (taps - 1)), min(extra, max(stride, dilation) - 1)
    out = (size - 1) * stride - 2 * cut + dilation * (taps - 1) + 1 + extra
    if out < 1:
        return
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
    layer = kind(2, 3, taps, stride, cut, extra, dilation=dilation)
    products = scattered(size, taps, stride, dilation, cut, out)
    if not products:
        return
    phases_taps = [{r for y, _, r in products if y % stride == a} for a in range(min(stride, out))]
    every = sum(len(range(a, out, stride)) * len(taps_of) for a, taps_of in enumerate(phases_taps))
    net = extract(layer, torch.zeros(1, 2, *[size] * axes))
    assert len(products) ** axes * 6 <= net.macs
    if all(len(used) == len(spread(a, taps, stride, dilation, cut)) for a, used in enumerate(phases_taps)):
        assert net.macs == every**axes * 6
    if not cut and not extra and dilation * (taps - 1) < stride:
        assert net.macs == len(products) ** axes * 6  # no output sees two inputs, none the border


def spread(a: int, taps: int, stride: int, dilation: int, cut: int) -> list[int]:
    """Taps that may reach outputs a, a + stride, ... wherever inputs lie."""
    return [r for r in range(taps) if (a + cut - r * dilation) % stride == 0]


class Started(nn.Module):
    """A recurrent layer whose first state another layer makes."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.layer, self.begin = kind(6, 8, **options), nn.Linear(6, 8)
        self.states = self.layer.num_layers * (2 if self.layer.bidirectional else 1)

    def forward(self, x: Tensor) -> Tensor:
        state = self.begin(x[:1]).expand(self.states, -1, -1)
        return self.layer(x, (state, state) if isinstance(self.layer, nn.LSTM) else state)[0]


@pytest.mark.long
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(("options", "states"), [({}, 1), ({"num_layers": 2, "bidirectional": True}, 4)])
def test_the_first_step_reads_the_state_that_another_layer_makes(kind: Any, options: Any, states: int) -> None:
    net = extract(Started(kind, **options), torch.zeros(3, 2, 6))
    made = next(layer.output.name for layer in net if layer.name.endswith("begin"))
    first = [layer for layer in net if layer.name.endswith("t0.state")]
    assert [layer.inputs[0].name for layer in first] == [made] * states
    assert {t.name for layer in net for t in layer.inputs} - {layer.output.name for layer in net} == {"x"}


class Weighted(nn.Module):
    """A bag of words, each with a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(50, 8, mode="sum")

    def forward(self, index: Tensor, shares: Tensor) -> Tensor:
        return self.bag(index, per_sample_weights=shares)


def test_weights_of_the_words_of_a_bag_are_read_and_multiplied() -> None:
    net = extract(Weighted(), (torch.zeros(4, 3, dtype=torch.int64), torch.ones(4, 3)))
    assert [layer.op for layer in net] == ["embedding", "mul", "reduce_sum"]
    assert net.layers[1].inputs[1].name == "shares"


class Written(nn.Module):
    """A cache that is written in place, then read."""

    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Linear(8, 8, bias=False)
        self.register_buffer("cache", torch.zeros(1, 16, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.k(x)
        self.cache[:, 3:4] = y
        return y @ self.cache.transpose(1, 2)


class Branch(nn.Module):
    """A branch on a value of the input."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) if x.sum() > 0 else torch.tanh(x)


class Held:
    """A cache as libraries hand it over."""

    def __init__(self) -> None:
        self.keys = torch.zeros(1, 15, 8)


class Reads(nn.Module):
    """Concatenates to a cache inside an object."""

    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor, cache: Held) -> Tensor:
        y = self.k(x)
        return y @ torch.cat([cache.keys, y], 1).transpose(1, 2)


def test_caches_are_activations() -> None:
    for net in (extract(Written(), torch.zeros(1, 1, 8)), extract(Reads(), (torch.zeros(1, 1, 8), Held()))):
        assert net.macs == 64 + 16 * 8
        assert [layer.weight.name for layer in net if layer.weight and not layer.weight_is_activation] == ["k.weight"]


def test_a_branch_on_values_is_refused_with_the_line_of_user_code() -> None:
    with pytest.raises(UnsupportedOp, match=r"test_operators\.py:\d+: return torch.relu\(x\) if x.sum\(\) > 0"):
        extract(Branch(), torch.zeros(1, 8))


def test_an_expanded_operand_is_read_once() -> None:
    class Heads(nn.Module):
        def forward(self, q: Tensor, k: Tensor) -> Tensor:
            k = k[:, :, None].expand(1, 2, 3, 5, 4).reshape(1, 6, 5, 4)
            return q @ k.transpose(2, 3)

    net = extract(Heads(), (torch.zeros(1, 6, 7, 4), torch.zeros(1, 2, 5, 4)))
    (layer,) = net.layers
    assert layer.weight is not None
    assert (layer.macs, layer.weight.elements) == (6 * 7 * 5 * 4, 2 * 5 * 4)


def graph(op: Op, dependent: frozenset[str] = frozenset()) -> OpGraph:
    metas = {"x": Meta((1, 4)), "w": Meta((4, 4)), "y": Meta((1, 4)), "z": Meta((1, 4))}
    relu = Op("aten.relu", {"self": Ref("x")}, ("z",))
    return OpGraph("net", ("x",), {"w": "w"}, metas, (relu, op), ("y",), dependent=dependent)


def test_what_depends_on_an_input_is_never_a_parameter() -> None:
    lost = graph(Op("aten.relu", {"self": Ref("w")}, ("y",)), frozenset(("x", "y")))
    with pytest.raises(WorkloadError, match="'y' depends on an input of the network"):
        lower(lost, HANDLERS)


def test_a_handler_cannot_make_an_operator_vanish() -> None:
    def forgetful(walk: Any, op: Op) -> None:
        walk.bind(op, walk.values["x"])

    handlers: dict[str, Handler] = {**HANDLERS, "aten.odd": forgetful}
    with pytest.raises(WorkloadError, match="vanished from the account"):
        lower(graph(Op("aten.odd", {"self": Ref("x")}, ("y",))), handlers)


def test_every_operator_is_a_layer_free_or_named() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 2))
    found = extract(net, torch.zeros(1, 3, 8, 8))
    free = sum(item.count for item in found.coverage.free)
    assert found.coverage.ops_total == len(found) + free
    assert math.isclose(found.shares.macs, 1.0)


class Overwrites(nn.Module):
    """Sets a part of a map to a constant, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        y[:, ::2] = 0
        return y.sub_(1.0)


def test_constants_written_in_place_cost_the_elements_written() -> None:
    net = extract(Overwrites(), torch.zeros(1, 3, 6, 6))
    assert [(layer.op, layer.output.elements) for layer in net] == [("conv", 288), ("copy", 144), ("sub", 288)]
