"""Offset classes: by rule, and with the extra work that an explicit computation shows to be needed."""

from __future__ import annotations

import dataclasses
import itertools
import random

import numpy as np
import pytest

from hwsim.machine.parts import OPERANDS, Capabilities, Memory, Operand
from hwsim.nest.count import count_accesses
from hwsim.nest.counts import Counts
from hwsim.nest.mapping import Hold, Mapping, Temporal
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.layer import price
from hwsim.pricing.network import NetworkCost, price_network
from hwsim.pricing.offsets import NO_OFFSET, offset_cost, tap_sets
from tests.strategies import machine, product

ANY = tuple(range(1, 33))
PLAIN = Capabilities(ANY, ANY, ANY)
PADS = dataclasses.replace(PLAIN, pad_value="any_code")
BORDERS = dataclasses.replace(PLAIN, border_bias=True)


def conv(
    policy: str = "pad_code", size: int = 8, stride: int = 1, bias: bool = True, offset: bool = True, **geometry: int
) -> Layer:
    """A padded 3x3 convolution, 4 -> 6 channels, 4-bit inputs with an offset."""
    kernel, padding, dilation = geometry.get("kernel", 3), geometry.get("padding", 1), geometry.get("dilation", 1)
    out = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return Layer(
        "conv",
        "conv",
        (Tensor("x", (1, 4, size, size), 4, signed=False, offset=offset),),
        Tensor("y", (1, 6, out, out), 4),
        weight=Tensor("w", (6, 4, kernel, kernel), 4),
        loops=Loops(K=6, C=4, P=out, Q=out, R=kernel, S=kernel),
        stride=(stride, stride),
        dilation=(dilation, dilation),
        padding=(padding,) * 4,
        padding_policy=policy if padding else "",
        bias=bias,
    )


def test_without_an_offset_nothing_is_charged() -> None:
    for policy, can in itertools.product(
        ("pad_code", "snap_offset", "pad_beta", "border_bias"), (PLAIN, PADS, BORDERS)
    ):
        assert offset_cost(conv(policy, offset=False), can) == NO_OFFSET


def test_inside_data_the_offset_folds_into_the_bias_for_free() -> None:
    free = offset_cost(conv(padding=0), PLAIN)
    assert (free.kind, free.extra_bits, free.extra_adds, free.extra_read_bits) == ("folded", 0, 0, 0)
    bare = offset_cost(conv(padding=0, bias=False), PLAIN)
    assert (bare.kind, bare.extra_bits, bare.extra_adds, bare.extra_read_bits) == ("folded", 6 * 32, 6 * 36, 6 * 32)


@pytest.mark.parametrize("policy", ["pad_code", "snap_offset"])
def test_a_border_of_codes_needs_a_pad_value_or_a_copy(policy: str) -> None:
    able = offset_cost(conv(policy), PADS)
    assert (able.kind, able.extra_bits, able.extra_adds) == ("folded", 4, 0)  # a register with the pad code
    copy = offset_cost(conv(policy), PLAIN)
    assert copy.kind == "padded_copy"
    border = 4 * (10 * 10 - 8 * 8)  # its reading is part of the input's, which is counted in the padded map
    assert copy.extra_bits == copy.extra_write_bits == border * 4
    assert (copy.border_codes, copy.extra_read_bits) == (border, 0)
    assert offset_cost(dataclasses.replace(conv(policy), pad_code=0), PLAIN).kind == "folded"
    assert offset_cost(dataclasses.replace(conv(policy), pad_code=3), PLAIN) == copy


def test_padding_that_no_tap_meets_costs_nothing() -> None:
    # 8 columns, kernel 2, stride 2: a column of padding after the data lies beyond the last window.
    layer = dataclasses.replace(conv(padding=0, size=8, kernel=2, stride=2), padding=(0, 1, 0, 1))
    for policy in ("pad_code", "border_bias"):
        for can in (PLAIN, PADS, BORDERS):
            assert offset_cost(dataclasses.replace(layer, padding_policy=policy), can).kind == "folded"
    before = dataclasses.replace(layer, padding=(0, 0, 1, 0), padding_policy="border_bias")
    assert offset_cost(before, PLAIN).kind == "border_bias"


def test_padding_with_beta_is_code_zero_and_free() -> None:
    assert offset_cost(conv("pad_beta"), PLAIN).kind == "folded"
    assert offset_cost(conv("pad_beta"), PLAIN).extra_bits == 0


def test_nine_border_classes_of_a_padded_3x3() -> None:
    able = offset_cost(conv("border_bias"), BORDERS)
    assert (able.kind, able.extra_bits, able.extra_adds) == ("border_bias", 8 * 6 * 32, 0)
    unable = offset_cost(conv("border_bias"), PLAIN)
    assert unable.extra_adds == (64 - 36) * 6  # the vector unit adds along the border of an 8x8 map
    assert offset_cost(conv("border_bias", bias=False), BORDERS).extra_bits == 9 * 6 * 32


@pytest.mark.parametrize("seed", range(40))
def test_border_classes_equal_those_of_an_explicit_convolution(seed: int) -> None:
    """Sum generic weights over the taps that see data: positions with equal sums are one class."""
    rng = random.Random(seed)
    kernel, dilation = rng.choice((1, 2, 3, 5)), rng.choice((1, 1, 2))
    layer = conv("border_bias", size=rng.randint(5, 11), stride=rng.choice((1, 2, 3)), kernel=kernel,
                 padding=rng.randint(1, 3), dilation=dilation)  # fmt: skip
    weights = np.random.default_rng(seed).normal(size=(kernel, kernel))
    size, pad, stride = layer.inputs[0].shape[-1], layer.padding[0], layer.stride[0]
    inside = np.zeros((size + 2 * pad, size + 2 * pad))
    inside[pad : pad + size, pad : pad + size] = 1.0
    span = dilation * (kernel - 1) + 1
    sums = [
        round(float((inside[y : y + span : dilation, x : x + span : dilation] * weights).sum()), 9)
        for y in range(0, layer.loops.P * stride, stride)
        for x in range(0, layer.loops.Q * stride, stride)
    ]
    rows, columns = tap_sets(layer, 0), tap_sets(layer, 1)
    empty = (() in rows) + (() in columns)  # classes that see no data at all coincide in the sums
    classes = len(rows) * len(columns)
    if not empty:
        assert classes == len(set(sums))
    assert sum(rows.values()) == layer.loops.P
    assert sum(columns.values()) == layer.loops.Q


@pytest.mark.parametrize("seed", range(20))
def test_products_of_two_activations_need_exactly_their_row_and_column_sums(seed: int) -> None:
    """(a + za)(b + zb) summed over C = ab + zb*rows(a) + za*columns(b) + C*za*zb, and the sums cost what is charged."""
    rng = np.random.default_rng(seed)
    g, p, c, k = (int(n) for n in rng.integers(1, 6, size=4))
    a, b = rng.integers(0, 16, (g, p, c)), rng.integers(0, 16, (g, k, c))
    za, zb = int(rng.integers(0, 2)) * 3, int(rng.integers(0, 2)) * 5
    rows, columns = a.sum(2)[:, :, None], b.sum(2)[:, None, :]
    exact = np.einsum("gpc,gkc->gpk", a + za, b + zb)
    assert (exact == np.einsum("gpc,gkc->gpk", a, b) + zb * rows + za * columns + c * za * zb).all()
    layer = product(Loops(G=g, P=p, C=c, K=k), "matmul", bits=(4, 4, 8))
    assert layer.weight is not None
    layer = dataclasses.replace(
        layer,
        inputs=(dataclasses.replace(layer.inputs[0], offset=bool(za)),),
        weight=dataclasses.replace(layer.weight, offset=bool(zb)),
    )
    cost = offset_cost(layer, PADS)
    sums = bool(zb) * rows.size + bool(za) * columns.size
    terms = bool(za) + bool(zb)
    assert cost.kind == ("dynamic" if terms else "none")
    assert cost.extra_adds == bool(zb) * a.size + bool(za) * b.size + terms * exact.size
    assert cost.extra_bits == cost.extra_read_bits == cost.extra_write_bits == sums * 32


def test_weights_with_an_offset_need_the_sum_of_every_window() -> None:
    layer = conv(padding=0)
    assert layer.weight is not None
    cost = offset_cost(dataclasses.replace(layer, weight=dataclasses.replace(layer.weight, offset=True)), PADS)
    assert cost.kind == "dynamic"
    assert cost.extra_adds == 36 * 4 * 9 + 36 * 6


def test_elementwise_operators() -> None:
    x, y = (Tensor(n, (1, 4, 2, 2), 4, offset=True) for n in "xy")
    gate = dataclasses.replace(y, offset=False)
    out = Tensor("out", (1, 4, 2, 2), 4)
    assert offset_cost(Layer("m", "mul", (x, y), out), PADS).extra_adds == 32
    assert offset_cost(Layer("m", "mul", (x, gate), out), PADS).extra_adds == 16
    assert offset_cost(Layer("m", "mul", (x, gate), out), PADS).kind == "dynamic"
    assert offset_cost(Layer("a", "add", (x, y), out), PADS).kind == "folded"
    assert offset_cost(Layer("p", "avg_pool", (x,), out), PADS).kind == "none"
    assert offset_cost(Layer("m", "mul", (gate, gate), out), PADS) == NO_OFFSET


def chain(policy: str, through: tuple[Operand, ...]) -> NetworkCost:
    """A 1x1 and a padded 3x3 convolution on DRAM (2 and 3 pJ a bit) and a buffer (0.5 and 0.25 pJ a bit).

    `through`: operands that the second takes through the buffer; without its input, that input lies in the DRAM.
    """
    second = conv(policy)
    x = second.inputs[0]
    first = Layer(
        "first", "conv", (Tensor("image", (1, 4, 8, 8), 4),), x, Tensor("first.w", (4, 4, 1, 1), 4),
        Loops(K=4, C=4, P=8, Q=8), bias=True,
    )  # fmt: skip
    accelerator = machine(
        Memory("dram", None, OPERANDS, word_bits=1, read_energy_pj=2.0, write_energy_pj=3.0),
        Memory("buffer", 10**6, OPERANDS, word_bits=1, read_energy_pj=0.5, write_energy_pj=0.25),
    )
    counts: dict[str, Counts] = {}
    for layer, held in ((first, OPERANDS), (second, through)):
        loops = [Temporal(d, n) for d, n in layer.loops.as_dict().items() if n > 1]
        mapping = Mapping((Hold("dram", OPERANDS), Hold("buffer", held), *loops))
        counts[layer.name] = count_accesses(layer, mapping, accelerator)
    return price_network(Workload("chain", [first, second]), accelerator, counts)


@pytest.mark.parametrize(
    ("through", "place", "pj_per_bit"), [(OPERANDS, "buffer", 0.25), (("weight", "output"), "dram", 3.0)]
)
def test_a_border_is_written_where_its_input_lies(through: tuple[Operand, ...], place: str, pj_per_bit: float) -> None:
    """4 channels of 8x8 codes of 4 bits inside a ring of one code: 4 * (10*10 - 8*8) = 144 codes, 576 bits."""
    cost, free = chain("pad_code", through), chain("pad_beta", through)
    assert cost.resident == free.resident == (("x",) if place == "buffer" else ())
    layer, plain = cost.layers[1], free.layers[1]
    assert (layer.offset.kind, plain.offset.kind) == ("padded_copy", "folded")
    assert {m.memory: m.write_words for m in layer.moved if m.operand == "offset"} == {place: 576}
    bill = {(p.component, p.detail): p.energy_pj for p in layer.parts}
    assert bill[place, "offset"] == 576 * pj_per_bit
    # `pad_beta` needs no border in memory; all else is the same.
    assert layer.total_energy_pj - plain.total_energy_pj == 576 * pj_per_bit
    assert layer.traffic_bits - plain.traffic_bits == 576


def test_the_price_carries_the_offset() -> None:
    accelerator = machine(Memory("dram", None, OPERANDS, word_bits=1, read_energy_pj=2.0, write_energy_pj=3.0))
    plain, offset = conv(offset=False), conv("pad_code")
    loops = tuple(Temporal(d, n) for d, n in plain.loops.as_dict().items() if n > 1)
    counts = count_accesses(plain, Mapping((Hold("dram", OPERANDS), *loops)), accelerator)
    without, with_copy = price(plain, counts, accelerator), price(offset, counts, accelerator)
    extra = offset_cost(offset, accelerator.capabilities)
    assert with_copy.offset == extra
    bill = {(p.component, p.detail): p.energy_pj for p in with_copy.parts}
    assert bill["dram", "offset"] == 2.0 * extra.extra_read_bits + 3.0 * extra.extra_write_bits
    assert with_copy.total_energy_pj - without.total_energy_pj == pytest.approx(bill["dram", "offset"], abs=1e-2)
    assert extra.to_dict()["class"] == "padded_copy"
