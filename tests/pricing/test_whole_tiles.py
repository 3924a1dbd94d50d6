"""Arrays that load whole tiles: weights come from outside with zeros for the elements that have no work."""

from __future__ import annotations

import dataclasses
import itertools
import random
from fractions import Fraction

import pytest

from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import OPERANDS, Accelerator, Array, Axis, Memory
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.layer import price
from hwsim.pricing.network import price_network
from hwsim.pricing.shares import whole_tile_share
from hwsim.search.layer import search
from hwsim.search.network import plan_network
from tests.strategies import conv, machine

DRAM = Memory("dram", None, OPERANDS, word_bits=8, read_energy_pj=100.0, write_energy_pj=100.0)
REGISTER = Memory("register", 8, ("weight",), word_bits=8)


def loading(rows: int, columns: int, row_dims: tuple[str, ...] = ("C", "R", "S")) -> Accelerator:
    """A machine whose array loads whole tiles of rows x columns weights."""
    axes = (Axis("rows", rows, row_dims), Axis("columns", columns, ("K", "P")))
    return machine(DRAM, Array("grid", axes, loads_whole_tiles=True), REGISTER)


def tiles_one_by_one(layer: Layer, array: Array) -> int:
    """Tiles that hold a weight: every weight goes to the tile of its place along the axes, one after another."""
    bounds: dict[str, int] = dict(layer.loops.as_dict())
    sides = [[dim for dim in axis.dims if dim in ("G", "K", "C", "R", "S")] for axis in array.axes]
    others = [dim for dim in ("G", "K", "C", "R", "S") if not any(dim in side for side in sides)]
    tiles: set[tuple[object, ...]] = set()
    for values in itertools.product(*(range(bounds[dim]) for dim in ("G", "K", "C", "R", "S"))):
        at: dict[str, int] = dict(zip(("G", "K", "C", "R", "S"), values, strict=True))
        place: list[object] = [at[dim] for dim in others]
        for axis, side in zip(array.axes, sides, strict=True):
            index = 0
            for dim in side:
                index = index * bounds[dim] + at[dim]
            place.append(index // axis.size)
        tiles.add(tuple(place))
    return len(tiles)


@pytest.mark.parametrize("seed", range(40))
def test_the_share_is_counted_tile_by_tile(seed: int) -> None:
    rng = random.Random(seed)
    layer = conv(Loops(G=rng.randint(1, 3), **{dim: rng.randint(1, 6) for dim in ("K", "C", "R", "S", "P")}))
    dims = tuple(rng.sample(("C", "R", "S"), k=rng.randint(1, 3)))
    accelerator = loading(rng.randint(1, 7), rng.randint(1, 7), dims)
    array, loops = accelerator.arrays[0], layer.loops
    held = array.axes[0].size * array.axes[1].size
    moved = Fraction(tiles_one_by_one(layer, array) * held, loops.G * loops.K * loops.C * loops.R * loops.S)
    assert whole_tile_share(layer, accelerator, accelerator.outermost) == moved


def weight_words(cost_of: Layer, accelerator: Accelerator, memory: str) -> int:
    """Words of weights that a memory reads under the best mapping."""
    cost = price(cost_of, search(cost_of, accelerator, "latency", effort="quick").counts, accelerator)
    return sum(m.read_words for m in cost.moved if (m.memory, m.operand) == (memory, "weight"))


def test_tpu_v1_loads_nine_tiles_for_600_by_600_weights() -> None:
    tpu, matrices = load_accelerator("tpu_v1"), {n: conv(Loops(N=8, K=n, C=n)) for n in (600, 768)}
    assert weight_words(matrices[600], tpu, "dram") == 9 * 256 * 256
    assert weight_words(matrices[600], tpu, "weight_fifo") == 9 * 256 * 256
    assert weight_words(matrices[768], tpu, "dram") == 768 * 768


def test_a_matrix_costs_less_only_by_whole_tiles() -> None:
    """Of more rows or columns never less; up to the next multiple of the array's side exactly as many words."""
    words = [weight_words(conv(Loops(N=2, K=4, C=n)), loading(8, 4, ("C",)), "dram") for n in range(1, 25)]
    assert words == [-(-n // 8) * 32 for n in range(1, 25)]


def test_memories_inside_the_array_hold_the_weights_in_use() -> None:
    accelerator = loading(8, 8)
    layer = conv(Loops(K=3, C=3))
    assert whole_tile_share(layer, accelerator, REGISTER) == 1
    assert whole_tile_share(layer, accelerator, DRAM) == Fraction(64, 9)
    plain = dataclasses.replace(accelerator.arrays[0], loads_whole_tiles=False)
    assert whole_tile_share(layer, machine(DRAM, plain, REGISTER), DRAM) == 1


def test_the_report_says_what_moves_more() -> None:
    accelerator, layer = loading(8, 8), conv(Loops(K=4, C=4))
    counts = {layer.name: search(layer, accelerator, "energy", effort="quick").counts}
    said = " ".join(price_network(Workload("n", [layer]), accelerator, counts).assumptions)
    assert "weights go to grid in whole tiles, of which a layer takes the fewest that hold its matrix" in said
    assert f"up to 4 times its own weights move ({layer.name})" in said


def test_a_weight_that_stays_on_chip_is_fetched_in_whole_tiles() -> None:
    """Two layers share 9 weights of a tile of 64: the buffer gets one tile, each layer takes one from there."""
    home = dataclasses.replace(DRAM, name="home", size_bits=10**5, read_energy_pj=1.0, write_energy_pj=1.0)
    axes = (Axis("rows", 8, ("C",)), Axis("columns", 8, ("K",)))
    accelerator = machine(DRAM, home, Array("grid", axes, loads_whole_tiles=True), REGISTER)
    weight, x, layers = Tensor("w", (3, 3), 8), Tensor("x0", (1, 3), 8), list[Layer]()
    for i in range(2):
        y = Tensor(f"x{i + 1}", (1, 3), 8)
        layers.append(Layer(f"t{i}", "linear", (x,), y, weight, Loops(K=3, C=3), accumulator_bits=8))
        x = y
    plan = plan_network(Workload("steps", layers), accelerator, effort="proven")
    moved = [
        (m.memory, m.read_words)
        for c in plan.cost.layers
        for m in c.moved
        if m.operand == "weight" and m.memory != "register" and m.read_words
    ]
    assert sorted(moved) == [("dram", 64), ("home", 64), ("home", 64)]
    assert plan.certificate is not None
    assert plan.certificate.lower_bound <= plan.certificate.value * (1 + 1e-9)
