"""Work that comes in whole multiples (granules of loops, commands of a systolic array), and first tiles that are waited
for, against walks of the nest and closed forms."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

import pytest

from hwsim.machine.parts import OPERANDS, Accelerator, Array, Axis, Granule, Memory
from hwsim.nest.count import count_accesses
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal
from hwsim.network.layer import DIMS, Layer, Loops
from hwsim.pricing.layer import price
from hwsim.tables.grid import Grid
from hwsim.tables.pool import Pool, Widths, anonymous
from tests.strategies import conv, machine, product

DRAM = Memory("dram", None, OPERANDS, word_bits=8, read_energy_pj=1.0, write_energy_pj=1.0)


def compute(layer: Layer, accelerator: Accelerator, mapping: Mapping) -> int:
    """Cycles of the MAC units."""
    return dict(price(layer, count_accesses(layer, mapping, accelerator), accelerator).cycles)["compute"]


@pytest.mark.parametrize("seed", range(30))
def test_granules_round_up_their_loops_together(seed: int) -> None:
    """Walked step by step: iterations of the granule's loops wait until so many are together, or none is left."""
    rng = random.Random(seed)
    loops = tuple(rng.sample(DIMS, k=rng.randint(1, 3)))
    granule = Granule(loops, rng.randint(2, 5))
    bounds = {dim: rng.randint(1, 3) for dim in DIMS}
    layer = conv(Loops(**bounds))
    accelerator = machine(DRAM)
    accelerator = dataclasses.replace(accelerator, mac=dataclasses.replace(accelerator.mac, granules=(granule,)))
    order = rng.sample(DIMS, k=len(DIMS))
    mapping = Mapping((Hold("dram", OPERANDS), *(Temporal(d, bounds[d]) for d in order if bounds[d] > 1)))
    others: dict[tuple[int, ...], int] = {}
    for step in itertools.product(*(range(bounds[dim]) for dim in DIMS)):
        key = tuple(i for dim, i in zip(DIMS, step, strict=True) if dim not in loops)
        others[key] = others.get(key, 0) + 1
    steps = sum(granule.size * math.ceil(n / granule.size) for n in others.values())
    assert compute(layer, accelerator, mapping) == steps


def test_nine_kernel_elements_by_four_take_twelve_steps() -> None:
    accelerator = machine(DRAM)
    by_four = dataclasses.replace(accelerator.mac, granules=(Granule(("R", "S"), 4),))
    layer = conv(Loops(K=2, R=3, S=3))
    mapping = Mapping((Hold("dram", OPERANDS), Temporal("K", 2), Temporal("R", 3), Temporal("S", 3)))
    assert compute(layer, accelerator, mapping) == 18
    assert compute(layer, dataclasses.replace(accelerator, mac=by_four), mapping) == 24


@pytest.mark.parametrize(("channels", "taps", "steps"), [(1, 9, 12), (2, 9, 24), (4, 9, 36), (3, 1, 4), (8, 1, 8)])
def test_a_layer_takes_the_way_to_work_that_has_fewest_steps(channels: int, taps: int, steps: int) -> None:
    """Kernel elements by four, or channels by four: min(C * ceil(taps / 4) * 4, ceil(C / 4) * 4 * taps)."""
    side = math.isqrt(taps)
    ways = (Granule(("R", "S"), 4), Granule(("C",), 4))
    accelerator = machine(DRAM)
    accelerator = dataclasses.replace(accelerator, mac=dataclasses.replace(accelerator.mac, granules=ways))
    layer = conv(Loops(C=channels, R=side, S=side))
    loops = [Temporal(dim, n) for dim, n in (("C", channels), ("R", side), ("S", side)) if n > 1]
    assert compute(layer, accelerator, Mapping((Hold("dram", OPERANDS), *loops))) == steps


def mesh(command_steps: int) -> Accelerator:
    """A weight-stationary 4 x 4 array that works in commands."""
    axes = (Axis("rows", 4, ("C",)), Axis("columns", 4, ("K",)))
    array = Array("mesh", axes, systolic=True, command_steps=command_steps)
    return machine(DRAM, array, Memory("still", 8, ("weight",), word_bits=8), latches=("weight",))


@pytest.mark.parametrize("pixels", [1, 15, 16, 17, 49, 64])
def test_every_tile_of_weights_sees_whole_commands(pixels: int) -> None:
    """C / 4 * K / 4 tiles, each ceil(pixels / 16) commands of 16 steps."""
    layer = conv(Loops(C=8, K=12, P=pixels))
    inside: tuple[Node, ...] = (
        Spatial("C", 4, "mesh", "rows"),
        Spatial("K", 4, "mesh", "columns"),
        Hold("still", ("weight",)),
    )
    nodes = (Hold("dram", OPERANDS), Temporal("C", 2), Temporal("K", 3), *inside, Temporal("P", pixels))
    by_one, by_sixteen = (compute(layer, mesh(n), Mapping(nodes)) for n in (1, 16))
    assert by_sixteen - by_one == 6 * (16 * math.ceil(pixels / 16) - pixels)


def test_commands_do_not_depend_on_how_a_nest_is_spelt() -> None:
    """Two spellings of one nest: pixels inside the hold of the weights, or directly around it."""
    layer = conv(Loops(C=8, K=4, P=7, Q=7))
    array: tuple[Node, ...] = (Spatial("C", 4, "mesh", "rows"), Spatial("K", 4, "mesh", "columns"))
    outside: tuple[Node, ...] = (Hold("dram", OPERANDS), Temporal("C", 2))
    pixels: tuple[Node, ...] = (Temporal("P", 7), Temporal("Q", 7))
    inner = Mapping((*outside, *array, Hold("still", ("weight",)), *pixels))
    outer = Mapping((*outside, *pixels, *array, Hold("still", ("weight",))))
    assert compute(layer, mesh(16), inner) == compute(layer, mesh(16), outer)
    parted = Mapping(
        (
            Hold("dram", OPERANDS),
            Temporal("P", 7),
            Temporal("C", 2),
            *array,
            Hold("still", ("weight",)),
            Temporal("Q", 7),
        )
    )
    assert compute(layer, mesh(16), parted) == compute(layer, mesh(16), inner) - 2 * 64 + 14 * 16


def buffered(first_fill: str) -> Accelerator:
    """A port of 8 bits per cycle, a double-buffered buffer for weights and inputs."""
    dram = dataclasses.replace(DRAM, read_bandwidth_bits_per_cycle=8.0)
    buffer = Memory("buffer", 10**6, ("weight", "input"), word_bits=8, first_fill=first_fill)  # type: ignore[arg-type]
    found = machine(dram, buffer, latches=("output",))
    return dataclasses.replace(found, vector=dataclasses.replace(found.vector, lanes=10**9))


@pytest.mark.parametrize("tiles", [1, 2, 4, 8])
def test_a_layer_waits_for_its_first_tiles(tiles: int) -> None:
    """K in tiles: the first brings K/tiles rows of weights and all inputs, the port has the rest while MACs work."""
    layer = product(Loops(K=8, C=16, P=4))
    inside = (Temporal("K", 8 // tiles), Temporal("P", 4), Temporal("C", 16))
    mapping = Mapping((Hold("dram", OPERANDS), Temporal("K", tiles), Hold("buffer", ("weight", "input")), *inside))
    hidden, exposed = (
        price(layer, count_accesses(layer, mapping, m), m).latency_cycles for m in map(buffered, ("hidden", "exposed"))
    )
    parameters = 5  # multiplier and shift of the tensor's scale, in bytes
    weights, inputs, macs = 8 * 16, 16 * 4, 8 * 16 * 4
    first = weights // tiles + inputs
    assert hidden == max(macs, weights + inputs + parameters)
    assert exposed == first + max(macs, weights - weights // tiles + parameters)


def test_an_input_that_stays_on_chip_is_not_waited_for() -> None:
    layer, accelerator = product(Loops(K=8, C=16, P=4)), buffered("exposed")
    buffer = dataclasses.replace(accelerator.memories[1], keeps=OPERANDS)
    accelerator = dataclasses.replace(accelerator, hierarchy=(accelerator.outermost, buffer))
    loops = (Temporal("K", 8), Temporal("P", 4), Temporal("C", 16))
    counts = count_accesses(layer, Mapping((Hold("dram", OPERANDS), Hold("buffer", OPERANDS), *loops)), accelerator)
    apart, stays = (price(layer, counts, accelerator, resident=r).latency_cycles for r in ({}, {"input": "x"}))
    assert apart - stays == 16 * 4


@pytest.mark.parametrize("tiles", [1, 2, 8])
def test_tables_wait_for_first_tiles_as_bills_do(tiles: int) -> None:
    layer, accelerator = product(Loops(K=8, C=16, P=4)), buffered("exposed")
    inside = (Temporal("K", 8 // tiles), Temporal("P", 4), Temporal("C", 16))
    mapping = Mapping((Hold("dram", OPERANDS), Temporal("K", tiles), Hold("buffer", ("weight", "input")), *inside))
    counts, plain = count_accesses(layer, mapping, accelerator), anonymous(layer)
    grid = Grid(plain, accelerator, Widths((8,), (8,), (8,)))
    cycles = grid.prices(Pool(plain, accelerator, (mapping,), (counts,))).cycles(grid.vector)
    assert cycles[0, 0, 0, 0] == price(layer, counts, accelerator).latency_cycles
