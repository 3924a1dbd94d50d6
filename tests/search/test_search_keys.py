"""The certified search against enumeration on machines with rarer keys: borders made on the way, compressed codes,
weights in whole tiles, ideal registers, iterations and commands that come in whole multiples, first tiles that nothing
hides, starts of layers and slow ports.

As `test_search_exhaustive`, whose enumeration it uses. Where a key only adds to what is bounded, the bound may stay
below the best price, never above it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

import pytest

from hwsim.machine.parts import OPERANDS, Accelerator, Array, Granule, Memory, ZeroCoding
from hwsim.nest.count import count_accesses
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Temporal
from hwsim.network.layer import DIMS, Layer
from hwsim.pricing.layer import price
from hwsim.pricing.rounding import rounding_pj
from hwsim.pricing.unit_prices import unit_prices
from hwsim.search.layer import search
from tests.search.test_search_every_nest import OBJECTIVES
from tests.search.test_search_exhaustive import (
    Variant,
    certified,
    exhaustive,
    keeps_by_remainder,
    nest,
    options,
    primes,
    small_layer,
    small_machine,
    systolic,
    uneven_layer,
    unrollings,
)


def bordered(rng: random.Random, layer: Layer) -> Layer:
    """The layer with part of its input's rows and columns as a border."""
    x = layer.inputs[0]
    rows, columns = x.shape[2:]
    top, left = rng.randint(0, min(1, rows - 1)), rng.randint(0, min(1, columns - 1))
    own = dataclasses.replace(x, shape=(*x.shape[:2], rows - top, columns - left))
    return dataclasses.replace(layer, inputs=(own,), padding=(top, 0, left, 0))


def with_shares(rng: random.Random, machine: Accelerator) -> Accelerator:
    """The machine with memories that make borders or compress codes."""

    def changed(memory: Memory) -> Memory:
        """Words of one bit leave little to round."""
        known = (0.3, 0.8, ZeroCoding(0.6, "bitmap"), ZeroCoding(0.9, "run_length", 2))
        ratios = tuple((operand, rng.choice(known)) for operand in memory.keeps if rng.random() < 0.5)
        return dataclasses.replace(
            memory, padding=rng.choice(("stored", "inserted")), compression=ratios, word_bits=1,
            read_energy_pj=memory.read_energy_pj / 8, write_energy_pj=memory.write_energy_pj / 8,
        )  # fmt: skip

    nodes = tuple(changed(node) if isinstance(node, Memory) else node for node in machine.hierarchy)
    return dataclasses.replace(machine, hierarchy=nodes)


def with_whole_tiles(rng: random.Random, machine: Accelerator) -> Accelerator:
    """The machine with an array whose weights come in whole tiles, and words of one bit."""
    dims = rng.sample(("G", "K", "C", "R", "S"), k=4)
    split = rng.randint(1, 3)
    array = dataclasses.replace(
        machine.arrays[0], loads_whole_tiles=True,
        axes=tuple(dataclasses.replace(axis, dims=(*mine, "P", "Q")) for axis, mine in
                   zip(machine.arrays[0].axes, (dims[:split], dims[split:]), strict=True)),
    )  # fmt: skip
    return with_shares(rng, dataclasses.replace(
        machine, hierarchy=tuple(array if isinstance(node, Array) else node for node in machine.hierarchy),
    ))  # fmt: skip


def with_ideal_registers(rng: random.Random, machine: Accelerator) -> Accelerator:
    """The machine with memories inside the array whose accesses cost nothing, or only one way."""
    inside = machine.hierarchy[machine.hierarchy.index(machine.arrays[0]) + 1 :]
    nodes = tuple(
        dataclasses.replace(node, read_energy_pj=0.0, write_energy_pj=rng.choice((0.0, node.write_energy_pj)))
        if isinstance(node, Memory) and node in inside
        else node
        for node in machine.hierarchy
    )
    return dataclasses.replace(machine, hierarchy=nodes)


def with_granules(rng: random.Random, machine: Accelerator) -> Accelerator:
    """The machine with iterations that go by whole multiples, and power that makes energy a matter of time."""
    ways = tuple(
        Granule(tuple(rng.sample(DIMS, k=rng.randint(1, 3))), rng.choice((2, 3, 4))) for _ in range(rng.randint(1, 2))
    )
    mac = dataclasses.replace(machine.mac, granules=ways)
    return dataclasses.replace(machine, mac=mac, static_power_mw=rng.choice((0.0, 0.5)))


def in_commands(rng: random.Random, machine: Accelerator) -> Accelerator:
    """A systolic array that works in commands of several steps."""
    found = systolic(rng, machine)
    nodes = tuple(
        dataclasses.replace(node, command_steps=rng.choice((2, 3, 4))) if node is found.arrays[0] else node
        for node in found.hierarchy
    )
    return dataclasses.replace(found, hierarchy=nodes)


def with_starts(rng: random.Random, machine: Accelerator) -> Accelerator:
    """The machine with layers that take cycles to start, slow ports, and power that makes energy a matter of time."""

    def ports(memory: Memory) -> Memory:
        rates = (rng.choice((None, 3.2, 8.0, 14.4)), rng.choice((None, 5.6, 16.0)))
        return dataclasses.replace(
            memory, read_bandwidth_bits_per_cycle=rates[0], write_bandwidth_bits_per_cycle=rates[1],
            shared_port=rates[0] is not None and rng.random() < 0.5,
        )  # fmt: skip

    nodes = tuple(ports(node) if isinstance(node, Memory) else node for node in machine.hierarchy)
    return dataclasses.replace(
        machine, hierarchy=nodes, layer_overhead_cycles=rng.choice((1, 7, 500)), static_power_mw=rng.choice((0.0, 0.5)),
        control_power_mw=rng.choice((0.0, 0.2)),
    )  # fmt: skip


def every_price(
    layer: Layer, machine: Accelerator, remainders: bool = False, narrow: bool = False
) -> list[tuple[float, float]]:
    """(energy, cycles) of every nest and all places of its holds; `narrow`: of those that are declared."""
    found: list[tuple[float, float]] = []
    for spatial, rest in unrollings(layer, machine.arrays[0], remainders):
        loops = [Temporal(dim, p) for dim, n in rest.items() for p in primes(n)]
        for order in set(itertools.permutations(loops)):
            for cut in range(len(order) + 1):
                for choice in itertools.product(*(options(order, cut, o, machine) for o in OPERANDS)):
                    mapping = nest(order, cut, spatial, [hold for holds in choice for hold in holds], machine)
                    kept = narrow and any(keeps_by_remainder(mapping, layer, machine, o) for o in OPERANDS)
                    if not kept and not validate(mapping, layer, machine):
                        cost = price(layer, count_accesses(layer, mapping, machine), machine)
                        found.append((cost.total_energy_pj, float(cost.latency_cycles)))
    return found


def least_prices(
    layer: Layer, machine: Accelerator, remainders: bool = False, everything: bool = False
) -> tuple[float, float, float]:
    """`exhaustive` without its short cut: each nest by its own energy and its own time."""
    prices = every_price(layer, machine, remainders, narrow=remainders and not everything)
    return min(e for e, _ in prices), min(c for _, c in prices), min(e * c for e, c in prices)


def bounded_ports(memory: Memory) -> bool:
    """Whether a memory has a port of limited bandwidth."""
    return memory.read_bandwidth_bits_per_cycle is not None or memory.write_bandwidth_bits_per_cycle is not None


def compare(seed: int, variant: Variant, *, exact: bool = True, remainders: bool = False) -> None:
    """The certified search of all objectives; `exact`: its bound equals its best price."""
    rng = random.Random(seed)
    layer = bordered(rng, uneven_layer(rng) if remainders else small_layer(rng))
    machine = variant(rng, small_machine(rng))
    # Where a port may bound the time, every place of a hold counts: no least energy and least time apart.
    enumerate_prices = least_prices if any(bounded_ports(memory) for memory in machine.memories) else exhaustive
    declared = enumerate_prices(layer, machine, remainders)
    least = enumerate_prices(layer, machine, remainders, everything=True) if remainders else declared
    for objective, expected, lowest in zip(OBJECTIVES, declared, least, strict=True):
        best, bound, finished = certified(layer, machine, objective, remainders)
        text = f"seed {seed}, {objective}: {layer.loops}, {machine.hierarchy}"
        words = 0.0 if objective == "latency" else rounding_pj(unit_prices(layer, machine), machine)
        words *= expected / declared[0] if objective == "edp" else 1.0
        assert best >= lowest * (1 - 1e-6), text
        assert bound <= expected * (1 + 1e-6), f"bound {bound} above {expected}: {text}"
        assert not finished or best <= expected * (1 + 1e-6) + words, f"{best} found, {expected} exists: {text}"
        assert not exact or (finished and best * (1 - 1e-6) - words <= bound <= best * (1 + 1e-6)), text


VARIANTS = (with_shares, with_granules, with_whole_tiles, with_ideal_registers, with_starts)


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(4))
def test_search_equals_enumeration(seed: int, variant: Variant) -> None:
    compare(seed, variant, exact=variant is not with_starts)  # cycles of ports are whole, bounds take fractions
    compare(seed, variant, exact=variant not in (with_granules, with_starts), remainders=True)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(100, 250))
def test_search_equals_enumeration_on_1500_instances(seed: int, variant: Variant) -> None:
    compare(seed, variant, exact=variant is not with_starts)
    compare(seed, variant, exact=False, remainders=True)


@pytest.mark.parametrize("seed", range(6))
def test_bounds_hold_on_arrays_that_work_in_commands(seed: int) -> None:
    compare(seed, in_commands, exact=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 300))
def test_bounds_hold_on_200_arrays_that_work_in_commands(seed: int) -> None:
    compare(seed, in_commands, exact=False)


def with_first_fills(rng: random.Random, machine: Accelerator) -> Accelerator:
    """Ports of limited bandwidth around a buffer whose first tiles are waited for."""
    dram = dataclasses.replace(machine.outermost, read_bandwidth_bits_per_cycle=rng.choice((4.0, 16.0)))
    keeps = tuple(rng.sample(("weight", "input"), k=rng.randint(1, 2)))
    buffer = Memory(
        "first", rng.choice((8, 16, 32)) * 8, keeps, word_bits=8, read_energy_pj=2.0, write_energy_pj=2.0,
        write_bandwidth_bits_per_cycle=rng.choice((None, 8.0)), first_fill="exposed",
    )  # fmt: skip
    return dataclasses.replace(machine, hierarchy=(dram, buffer, machine.arrays[0]), static_power_mw=0.3)


def compare_first_fills(seed: int) -> list[float]:
    """How far the search is above enumeration, by objective; asserts that no bound is."""
    rng = random.Random(seed)
    layer = small_layer(rng)
    while math.prod(layer.loops.as_tuple()) > 24:
        layer = small_layer(rng)
    machine = with_first_fills(rng, small_machine(rng))
    prices = every_price(layer, machine)
    above: list[float] = []
    for place, objective in enumerate(OBJECTIVES):
        least = min((energy, cycles, energy * cycles)[place] for energy, cycles in prices)
        certificate = search(layer, machine, objective, effort="perfect").certificate
        text = f"seed {seed}, {objective}: {layer.loops}, {machine.hierarchy}"
        assert certificate.lower_bound <= least * (1 + 1e-6), text
        above.append(certificate.value / least - 1)
    return above


@pytest.mark.parametrize("seed", range(5))
def test_bounds_hold_where_first_tiles_are_waited_for(seed: int) -> None:
    assert max(compare_first_fills(seed)) < 0.25


@pytest.mark.slow
def test_search_is_near_the_best_where_first_tiles_are_waited_for() -> None:
    above = [gap for seed in range(100, 160) for gap in compare_first_fills(seed)]
    assert sum(above) / len(above) < 0.02, above
