"""Systolic arrays: the cost model against a register-by-register simulation and against the published closed forms.

The simulation moves operands one register per cycle and multiplies for real; it knows no formula. The closed forms are
those of a public cycle simulator, whose printed value is one less per matrix. Held operand by dataflow: outputs (os),
weights (ws), inputs (is).
"""

from __future__ import annotations

import csv
import dataclasses
import math
import random
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import OPERANDS, Accelerator, Array, Axis, Memory, Operand
from hwsim.nest.count import count_accesses
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal
from hwsim.network.layer import Layer, Loops
from hwsim.pricing.layer import price
from hwsim.search.layer import search
from tests.strategies import conv, machine, product

Flow = Literal["os", "ws", "is"]
FLOWS: tuple[Flow, ...] = ("os", "ws", "is")
ARRAYS = ((12, 14), (32, 32), (128, 128))
SHAPES = Path(__file__).resolve().parents[1] / "reference" / "layer_shapes_measured.csv"
HELD: dict[Flow, tuple[Operand, str, str, str]] = {
    "os": ("output", "P", "K", "C"),  # held, dim on the rows, dim on the columns, dim that streams through
    "ws": ("weight", "C", "K", "P"),
    "is": ("input", "C", "P", "K"),
}
Matrix = NDArray[np.int64]


def systolic_machine(rows: int, columns: int, flow: Flow) -> Accelerator:
    """Outermost memory, R x C systolic array, one single-buffered register for the operand that stays."""
    held, row_dim, column_dim, _ = HELD[flow]
    array = Array("array", (Axis("rows", rows, (row_dim,)), Axis("columns", columns, (column_dim,))), systolic=True)
    base = machine(Memory("dram", None, OPERANDS), array, Memory("register", 64, (held,), double_buffered=False))
    return dataclasses.replace(base, vector=dataclasses.replace(base.vector, lanes=10**9))


def systolic_mapping(layer: Layer, accelerator: Accelerator, flow: Flow) -> Mapping:
    """Tiles one after another, the array's unrolling, the held operand, the streaming loop."""
    held, row_dim, column_dim, streaming = HELD[flow]
    bounds = layer.loops.as_dict()
    used = {dim: min(axis.size, bounds[dim]) for axis in accelerator.arrays[0].axes for dim in axis.dims}
    nodes: tuple[Node, ...] = (
        Hold("dram", OPERANDS),
        Temporal("G", bounds["G"]),
        *(Temporal(dim, math.ceil(bounds[dim] / used[dim])) for dim in (row_dim, column_dim)),
        Spatial(row_dim, used[row_dim], "array", "rows"),
        Spatial(column_dim, used[column_dim], "array", "columns"),
        Hold("register", (held,)),
        Temporal(streaming, bounds[streaming]),
    )
    return Mapping(tuple(node for node in nodes if isinstance(node, Hold) or node.factor > 1))


def modelled_cycles(layer: Layer, rows: int, columns: int, flow: Flow) -> int:
    """What the cost model says the array needs."""
    accelerator = systolic_machine(rows, columns, flow)
    mapping = systolic_mapping(layer, accelerator, flow)
    assert validate(mapping, layer, accelerator) == []
    return dict(price(layer, count_accesses(layer, mapping, accelerator), accelerator).cycles)["compute"]


def closed_form(m: int, k: int, n: int, rows: int, columns: int, flow: Flow) -> int:
    """Cycles of an M x K by K x N product on an R x C array."""
    if flow == "os":
        return math.ceil(m / rows) * math.ceil(n / columns) * (k + rows + columns - 2)
    if flow == "ws":
        return math.ceil(k / rows) * math.ceil(n / columns) * (m + 2 * rows + columns - 2)
    return math.ceil(k / rows) * math.ceil(m / columns) * (n + 2 * rows + columns - 2)


# --- the oracle: registers, one step per cycle ------------------------------------------------------------------------


def skewed(values: Matrix, lane: int, cycle: int) -> int:
    """What enters lane `lane` at `cycle` when lane i starts i cycles late; zero outside the stream."""
    place = cycle - lane
    return int(values[lane, place]) if 0 <= place < values.shape[1] else 0


def run_stationary(still: Matrix, stream: Matrix, rows: int, columns: int) -> tuple[int, Matrix]:
    """One pass with `still` (taps x lanes) in the array and `stream` (taps x steps) going through.

    The held operand shifts in from the top, a row per cycle, as many cycles as the array has rows. Stream values move
    right, sums move down; the pass ends when the last column has let its last sum out. Cycles and lanes x steps.
    """
    registers = np.zeros((rows, columns), np.int64)
    padded = np.zeros((rows, columns), np.int64)
    padded[: still.shape[0], : still.shape[1]] = still
    cycles = 0
    for row in reversed(range(rows)):
        registers = np.vstack([padded[row], registers[:-1]])
        cycles += 1
    assert np.array_equal(registers, padded)
    fed = np.zeros((rows, stream.shape[1]), np.int64)
    fed[: stream.shape[0]] = stream
    moving, sums = np.zeros((rows, columns), np.int64), np.zeros((rows, columns), np.int64)
    result = np.zeros((columns, stream.shape[1]), np.int64)
    done = 0
    cycle = 0
    while done < columns * stream.shape[1]:
        entering = np.array([[skewed(fed, row, cycle)] for row in range(rows)], np.int64)
        moving = np.hstack([entering, moving[:, :-1]])
        sums = np.vstack([np.zeros((1, columns), np.int64), sums[:-1]]) + moving * registers
        for column in range(columns):
            step = cycle - (rows - 1) - column
            if 0 <= step < stream.shape[1]:
                result[column, step] = sums[-1, column]
                done += 1
        cycle += 1
    return cycles + cycle, result


def run_outputs_held(left: Matrix, right: Matrix, rows: int, columns: int) -> tuple[int, Matrix]:
    """One pass of left (rows x taps) times right (taps x columns) with every sum staying where it grows."""
    taps = left.shape[1]
    a, b = np.zeros((rows, taps), np.int64), np.zeros((columns, taps), np.int64)
    a[: left.shape[0]], b[: right.shape[1]] = left, right.T
    right_moving, down_moving = np.zeros((rows, columns), np.int64), np.zeros((rows, columns), np.int64)
    sums, products = np.zeros((rows, columns), np.int64), np.zeros((rows, columns), np.int64)
    cycle = 0
    while products.min() < taps:
        right_moving = np.hstack([[[skewed(a, row, cycle)] for row in range(rows)], right_moving[:, :-1]])
        down_moving = np.vstack([[[skewed(b, column, cycle) for column in range(columns)]], down_moving[:-1]])
        sums += right_moving * down_moving
        for row in range(rows):
            for column in range(columns):
                products[row, column] += 0 <= cycle - row - column < taps
        cycle += 1
    return cycle, sums


def simulate(left: Matrix, right: Matrix, rows: int, columns: int, flow: Flow) -> tuple[int, Matrix]:
    """Cycles and result of left (M x K) times right (K x N), tile by tile."""
    (m, k), n = left.shape, right.shape[1]
    result = np.zeros((m, n), np.int64)
    cycles = 0
    if flow == "os":
        for i in range(0, m, rows):
            for j in range(0, n, columns):
                used, sums = run_outputs_held(left[i : i + rows], right[:, j : j + columns], rows, columns)
                tile = result[i : i + rows, j : j + columns]
                tile += sums[: tile.shape[0], : tile.shape[1]]
                cycles += used
        return cycles, result
    for c in range(0, k, rows):
        taps = slice(c, c + rows)
        for j in range(0, n if flow == "ws" else m, columns):
            lanes = slice(j, j + columns)
            if flow == "ws":
                used, sums = run_stationary(right[taps, lanes], left[:, taps].T, rows, columns)
                result[:, lanes] += sums[: result[:, lanes].shape[1]].T
            else:
                used, sums = run_stationary(left[lanes, taps].T, right[taps], rows, columns)
                result[lanes] += sums[: result[lanes].shape[0]]
            cycles += used
    return cycles, result


# --- claims -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 3), (4, 6, 8), (9, 4, 5), (7, 11, 2)])
@pytest.mark.parametrize("array", [(1, 1), (2, 3), (4, 4), (5, 2)])
def test_cycles_equal_a_register_by_register_simulation(
    flow: Flow, shape: tuple[int, int, int], array: tuple[int, int]
) -> None:
    m, k, n = shape
    rng = np.random.default_rng(m * 100 + k * 10 + n)
    left, right = rng.integers(-8, 8, (m, k)), rng.integers(-8, 8, (k, n))
    cycles, result = simulate(left, right, *array, flow)
    assert np.array_equal(result, left @ right)
    assert cycles == closed_form(m, k, n, *array, flow)
    assert modelled_cycles(product(Loops(P=m, C=k, K=n)), *array, flow) == cycles


def matrices(model: str) -> list[tuple[str, int, int, int, int]]:
    """(layer, groups, M = output pixels, K = taps, N = outputs per group) of every convolution and linear layer."""
    found: list[tuple[str, int, int, int, int]] = []
    with SHAPES.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["model"] == model:
                weight = [int(size) for size in row["weight_shape"].split("x")]
                groups = int(row["groups"] or 1)
                pixels = math.prod(int(size) for size in row["out_shape_CHW"].split("x")[1:])
                found.append((row["name"], groups, pixels, math.prod(weight[1:]), weight[0] // groups))
    return found


@pytest.mark.parametrize(("model", "layers"), [("resnet18", 21), ("mobilenetv2_100", 53)])
@pytest.mark.parametrize("flow", FLOWS)
def test_every_layer_of_both_networks_takes_the_closed_forms_cycles(model: str, layers: int, flow: Flow) -> None:
    found = matrices(model)
    assert len(found) == layers
    seen: dict[tuple[int, ...], tuple[int, ...]] = {}
    for name, groups, m, k, n in found:
        shape = (groups, m, k, n)
        if shape not in seen:
            layer = product(Loops(G=groups, P=m, C=k, K=n))
            seen[shape] = tuple(modelled_cycles(layer, *array, flow) for array in ARRAYS)
        assert seen[shape] == tuple(groups * closed_form(m, k, n, *array, flow) for array in ARRAYS), name


def test_a_convolution_unrolled_over_channels_alone_takes_as_long_as_its_matrix_product() -> None:
    """Taps that the array does not flatten are passes of their own: equal where C fills whole rows."""
    folded = conv(Loops(K=64, C=64, P=8, Q=8, R=3, S=3))
    flat = product(Loops(K=64, C=64 * 9, P=64))
    accelerator = systolic_machine(32, 32, "ws")
    nodes: tuple[Node, ...] = (
        Hold("dram", OPERANDS),
        Temporal("R", 3),
        Temporal("S", 3),
        Temporal("C", 2),
        Temporal("K", 2),
        Spatial("C", 32, "array", "rows"),
        Spatial("K", 32, "array", "columns"),
        Hold("register", ("weight",)),
        Temporal("P", 8),
        Temporal("Q", 8),
    )
    cycles = dict(price(folded, count_accesses(folded, Mapping(nodes), accelerator), accelerator).cycles)["compute"]
    assert cycles == modelled_cycles(flat, 32, 32, "ws")


def test_a_nest_takes_as_long_however_it_is_spelt() -> None:
    """Loops over tiles may stand around the array or between it and its registers: 3,454 cycles once, by a report."""
    layer = product(Loops(P=256, C=768, K=256))
    accelerator = systolic_machine(128, 128, "ws")
    spatial: tuple[Node, ...] = (Spatial("C", 128, "array", "rows"), Spatial("K", 128, "array", "columns"))
    tiles: tuple[Node, ...] = (Temporal("K", 2), Temporal("C", 6))
    for spelling in ((*tiles, *spatial), (*spatial, *tiles), (tiles[0], *spatial, tiles[1])):
        nodes = (Hold("dram", OPERANDS), *spelling, Hold("register", ("weight",)), Temporal("P", 256))
        cost = price(layer, count_accesses(layer, Mapping(nodes), accelerator), accelerator)
        assert dict(cost.cycles)["compute"] == 12 * (256 + 2 * 128 + 128 - 2) == 7_656


SIDES = ((8, 32), (32, 8), (1, 64), (64, 1), (16, 16), (5, 7), (128, 4), (2, 3))


def cut(rng: random.Random, dim: str, extent: int) -> list[Node]:
    """Loops over a dim whose factors multiply to its extent."""
    loops: list[Node] = []
    while extent > 1:
        factor = rng.choice([n for n in range(2, extent + 1) if extent % n == 0])
        loops.append(Temporal(dim, factor))
        extent //= factor
    return loops


def respelt(seed: int) -> tuple[int, int]:
    """Cycles of a product in whole tiles under a nest spelt at random, and tiles x rows streamed + fills."""
    rng = random.Random(seed)
    flow, (rows, columns) = rng.choice(FLOWS), rng.choice(SIDES)
    held, row_dim, column_dim, streaming = HELD[flow]
    down, across, streamed = rng.randint(1, 6), rng.randint(1, 6), rng.choice((1, 7, 16, 49, 100))
    accelerator, hidden = systolic_machine(rows, columns, flow), rng.random() < 0.4
    dram, array, register = accelerator.hierarchy
    assert isinstance(register, Memory)
    kept = dataclasses.replace(register, double_buffered=hidden)
    accelerator = dataclasses.replace(accelerator, hierarchy=(dram, array, kept))
    layer = product(Loops(**{row_dim: rows * down, column_dim: columns * across, streaming: streamed}))
    tiles, inner = [*cut(rng, row_dim, down), *cut(rng, column_dim, across)], cut(rng, streaming, streamed)
    unrolled: list[Node] = [Spatial(row_dim, rows, "array", "rows"), Spatial(column_dim, columns, "array", "columns")]
    rng.shuffle(tiles), rng.shuffle(inner), rng.shuffle(unrolled)
    place = rng.randint(0, len(tiles))
    nodes = (Hold("dram", OPERANDS), *tiles[:place], *unrolled, *tiles[place:], Hold("register", (held,)), *inner)
    mapping = Mapping(tuple(node for node in nodes if isinstance(node, Hold) or node.factor > 1))
    assert validate(mapping, layer, accelerator) == []
    fills = 1 if hidden else down * across
    fill = rows + columns - 2 + (rows if flow != "os" else 0)
    cost = price(layer, count_accesses(layer, mapping, accelerator), accelerator)
    return dict(cost.cycles)["compute"], down * across * streamed + fills * fill


@pytest.mark.parametrize("seed", range(60))
def test_any_spelling_of_a_nest_takes_its_tiles_and_fills(seed: int) -> None:
    cycles, expected = respelt(seed)
    assert cycles == expected


@pytest.mark.slow
def test_any_of_5000_spellings_takes_its_tiles_and_fills() -> None:
    assert [seed for seed in range(100, 5100) if len(set(respelt(seed))) > 1] == []


def test_loops_that_reuse_what_is_still_start_no_tile() -> None:
    """Rows of outputs around the registers' hold leave their weights where they are: one fill, not eight."""
    layer = product(Loops(P=256, C=128, K=128))
    accelerator = systolic_machine(128, 128, "ws")
    spatial: tuple[Node, ...] = (Spatial("C", 128, "array", "rows"), Spatial("K", 128, "array", "columns"))
    nodes = (Hold("dram", OPERANDS), Temporal("P", 8), *spatial, Hold("register", ("weight",)), Temporal("P", 32))
    cost = price(layer, count_accesses(layer, Mapping(nodes), accelerator), accelerator)
    assert dict(cost.cycles)["compute"] == 256 + 2 * 128 + 128 - 2


def test_gemminis_first_layer_takes_its_kernel_elements_one_after_another() -> None:
    """ResNet's first layer: 49 taps x 12,544 pixels x 4 column groups; 2,464,902 cycles in RTL simulation (FireSim)."""
    layer, gemmini = conv(Loops(K=64, C=3, P=112, Q=112, R=7, S=7), stride=(2, 2)), load_accelerator("gemmini_16x16")
    counts = search(layer, gemmini, "latency").counts
    cycles = dict(price(layer, counts, gemmini).cycles)["compute"]
    assert cycles >= 49 * 112 * 112 * 4
    assert cycles == pytest.approx(2_464_902, rel=0.005)


def test_a_product_with_one_row_waits_for_gemminis_weights() -> None:
    """16 x 16 weights take 16 cycles to shift in, whether or not another tile is at work: 12 tiles, 192 cycles."""
    layer, gemmini = product(Loops(K=32, C=96)), load_accelerator("gemmini_16x16")
    cost = price(layer, search(layer, gemmini, "latency").counts, gemmini)
    assert dict(cost.cycles)["weight_register write"] == 12 * 16
