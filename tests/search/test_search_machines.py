"""The certified search against exhaustive enumeration on machines of every kind the search knows.

Two arrays with windows spread over both, memories that may be bypassed, latches at the MAC, ports of limited bandwidth,
memories without a second buffer. The enumeration writes every nest of perfect factors, counts it with `count_accesses`
and adds up what every operand costs and moves over each port; it knows nothing of lattices, stages or bounds.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Iterator

import numpy as np
import pytest

from hwsim.machine.mac import MacCost
from hwsim.machine.parts import OPERANDS, Accelerator, Array, Axis, Memory, Operand
from hwsim.nest.count import count_accesses
from hwsim.nest.legal import factor_problems, validate
from hwsim.nest.legal import tile_bits as bits_of_tiles
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal
from hwsim.network.layer import DIMS, Layer
from hwsim.pricing.latency import port_loads, split_loads
from hwsim.pricing.layer import price
from hwsim.pricing.moves import fixed_moves, moved_words, operand_bits
from hwsim.pricing.offsets import offset_cost
from hwsim.pricing.unit_prices import unit_prices
from hwsim.search.layer import search
from hwsim.search.proof.certify import certified_search
from hwsim.search.space.problem import Problem
from tests.oracles import walk_unit_steps
from tests.search.test_search_exhaustive import (
    Variant,
    as_it_is,
    could_be_smaller,
    keeps_by_remainder,
    with_lanes,
)
from tests.strategies import BITS, drawn_conv, prime_factors, primes, word_machine, word_memory

PRIMES = 3


def uneven_layer(rng: random.Random) -> Layer:
    """A convolution of at most three prime factors, some of which no array divides."""

    def bounds() -> dict[str, int]:
        windows = {dim: rng.choice((2, 3, 5)) for dim in rng.choice((("P", "R"), ("P",), ()))}
        dims = rng.sample(("K", "C", "P", "G"), k=rng.randint(0, 2))
        return windows | {dim: rng.choice((2, 3, 5, 5, 7)) for dim in dims}

    return drawn_conv(rng, bounds, lambda loops: prime_factors(loops) <= PRIMES and max(loops.as_tuple()) > 4)


def small_layer(rng: random.Random) -> Layer:
    """A convolution of at most three prime factors, windows more often than not."""

    def bounds() -> dict[str, int]:
        windows = {dim: rng.choice((2, 3)) for dim in rng.choice((("P", "R"), ("Q", "S"), ("P", "R"), ()))}
        dims = rng.sample(("K", "C", "P", "G"), k=rng.randint(0, 2))
        return windows | {dim: rng.choice((2, 3, 4) if dim == "P" else (2, 3)) for dim in dims}

    return drawn_conv(rng, bounds, lambda loops: 1 <= prime_factors(loops) <= PRIMES)


def some_memory(rng: random.Random, name: str, timed: bool) -> Memory:
    """A small memory of one or more operands, some of which it may leave out."""
    keeps = tuple(o for o in OPERANDS if rng.random() < 0.5) or (rng.choice(OPERANDS),)
    bypass = tuple(o for o in keeps if rng.random() < 0.3)
    energy = rng.choice((1, 2, 5, 20))
    return word_memory(
        name,
        rng.choice((2, 4, 6, 12)) * len(keeps),
        keeps,
        energy,
        energy + rng.randint(0, 2),
        bypass=bypass,
        read_bandwidth_bits_per_cycle=rng.choice((None, 4.0, 8.0, 24.0)) if timed else None,
        write_bandwidth_bits_per_cycle=rng.choice((None, 4.0, 16.0)) if timed else None,
        shared_port=timed and rng.random() < 0.3,
        double_buffered=not timed or rng.random() < 0.6,
    )


def some_machine(rng: random.Random) -> Accelerator:
    """DRAM, one or two arrays, up to two memories around them, any latches."""
    timed = rng.random() < 0.6
    limit = rng.choice((None, 2.0, 8.0)) if timed else None
    nodes: list[Memory | Array] = [
        word_memory(
            "dram", None, OPERANDS, 100.0, 101.0, read_bandwidth_bits_per_cycle=limit, shared_port=limit is not None
        )
    ]
    arrays = rng.choice((1, 2, 2))
    memories = rng.sample(range(arrays + 1), k=rng.randint(1, min(2, arrays + 1)))
    for place in range(arrays + 1):
        if place in memories:
            nodes.append(some_memory(rng, f"memory{place}", timed))
        if place < arrays:
            dims = DIMS if rng.random() < 0.5 else tuple(rng.sample(DIMS, k=5))
            nodes.append(Array(f"array{place}", (Axis("lanes", rng.choice((2, 3)), dims),)))
    return word_machine(*nodes, latches=tuple(o for o in OPERANDS if rng.random() < 0.3))


def roomy(machine: Accelerator, times: int) -> Accelerator:
    """The machine with memories so many times as large."""
    nodes = (
        dataclasses.replace(node, size_bits=node.size_bits * times)
        if isinstance(node, Memory) and node.size_bits
        else node
        for node in machine.hierarchy
    )
    return dataclasses.replace(machine, hierarchy=tuple(nodes))


# --- every nest -------------------------------------------------------------------------------------------------------


def all_unrollings(
    layer: Layer, machine: Accelerator, remainders: bool
) -> Iterator[tuple[dict[str, list[Node]], dict[str, int]]]:
    """Every choice of spatial factors: loops per array, and the steps that every dim takes.

    With remainders: also factors that do not divide a dim, all on one array, none of them too large.
    """
    bounds = {dim: n for dim, n in layer.loops.as_dict().items() if n > 1}
    places = [(array, axis, dim) for array in machine.arrays for axis in array.axes for dim in axis.dims]
    places = [place for place in places if place[2] in bounds]
    sizes = {(array.name, axis.name): axis.size for array in machine.arrays for axis in array.axes}
    for factors in itertools.product(*(range(1, axis.size + 1) for _, axis, _ in places)):
        loops = {array.name: list[Node]() for array in machine.arrays}
        used = dict.fromkeys(sizes, 1)
        each: dict[str, list[int]] = {dim: [] for dim in bounds}
        for (array, axis, dim), factor in zip(places, factors, strict=True):
            if factor > 1:
                loops[array.name].append(Spatial(dim, factor, array.name, axis.name))
                used[array.name, axis.name] *= factor
                each[dim].append(factor)
        steps = {dim: -(-n // math.prod(each[dim])) for dim, n in bounds.items()}
        uneven = {dim for dim, n in bounds.items() if n % math.prod(each[dim])}
        if any(used[key] > sizes[key] for key in used) or (uneven and not remainders):
            continue
        spread = {dim for dim in uneven if sum(any(n.dim == dim for n in mine) for mine in loops.values()) > 1}  # type: ignore[union-attr]
        if not spread and not any(could_be_smaller(bounds[dim], each[dim], steps[dim]) for dim in uneven):
            yield loops, steps


Placed = list[tuple[int, Hold]]


def hold_choices(operand: Operand, machine: Accelerator, cuts: tuple[int, ...], top: int) -> list[Placed]:
    """Every choice of held memories and their places; place p stands above p loops, counted from the inside."""
    arrays = list(reversed(machine.arrays))
    borders = [0, *cuts, top]
    found: list[Placed] = [[]]
    for memory in reversed(machine.memories[1:]):  # innermost first
        if operand not in memory.keeps:
            continue
        inside = sum(machine.hierarchy.index(a) > machine.hierarchy.index(memory) for a in arrays)
        longer: list[Placed] = []
        for holds in found:
            if operand in memory.bypass:
                longer.append(holds)
            lowest = max([borders[inside], *(place for place, _ in holds)])
            longer.extend(
                [*holds, (place, Hold(memory.name, (operand,)))] for place in range(lowest, borders[inside + 1] + 1)
            )
        found = longer
    return found


def written(
    order: tuple[Node, ...], cuts: tuple[int, ...], spatial: dict[str, list[Node]], holds: Placed, machine: Accelerator
) -> Mapping:
    """The nest of loops (innermost first) with arrays and holds at their places."""
    depth = {node.name: i for i, node in enumerate(machine.hierarchy)}
    nodes: list[Node] = [Hold(machine.memories[0].name, OPERANDS)]
    arrays = list(zip(reversed(machine.arrays), cuts, strict=True))
    for position in range(len(order), -1, -1):
        here: list[tuple[int, list[Node]]] = [(depth[h.memory], [h]) for place, h in holds if place == position]
        here.extend((depth[array.name], spatial[array.name]) for array, cut in arrays if cut == position)
        for _, some in sorted(here, key=lambda pair: pair[0]):
            nodes.extend(some)
        if position:
            nodes.append(order[position - 1])
    return Mapping(tuple(nodes))


class Enumeration:
    """Least energy, latency and product over every nest; `narrow`: without tiles that only a remainder keeps."""

    def __init__(self, layer: Layer, machine: Accelerator, remainders: bool = False, narrow: bool = True) -> None:
        self.layer, self.machine, self.narrow = layer, machine, remainders and narrow
        self.unit = unit_prices(layer, machine)
        self.best = [math.inf, math.inf, math.inf]
        self.energy_at: dict[int, float] = {}  # cycles -> least energy
        self.ports = [(m.name, d) for m in machine.memories for d in ("read", "write")]
        fixed = port_loads(fixed_moves(layer, machine, offset_cost(layer, machine.capabilities)))
        self.fixed = np.array([fixed.get(port, 0) for port in self.ports])  # type: ignore[call-overload]
        self.waits = [(m.name, *port) for m in machine.memories[1:] for port in self.ports]
        for spatial, rest in all_unrollings(layer, machine, remainders):
            loops = [Temporal(dim, p) for dim, n in rest.items() for p in primes(n)]
            for order in sorted(set(itertools.permutations(loops)), key=str):
                for cuts in itertools.combinations_with_replacement(range(len(order) + 1), len(machine.arrays)):
                    self.add(order, cuts, spatial)

    def add(self, order: tuple[Node, ...], cuts: tuple[int, ...], spatial: dict[str, list[Node]]) -> None:
        """All places of holds of one order of loops."""
        choices = {o: hold_choices(o, self.machine, cuts, len(order)) for o in OPERANDS}
        rows: dict[str, list[list[float]]] = {o: [] for o in OPERANDS}
        cycles, used = 0, dict[str, int]()
        for i in range(max(map(len, choices.values()))):
            holds = [hold for mine in choices.values() for hold in mine[min(i, len(mine) - 1)]]
            mapping = written(order, cuts, spatial, holds, self.machine)
            if list(factor_problems(mapping, self.layer)):
                return
            counts = count_accesses(self.layer, mapping, self.machine)
            one, mac = self.unit.mac.products == 1, self.unit.mac
            cycles = math.ceil(counts.steps * mac.cycles) if one else unit_cycles(self.layer, mapping, mac)
            used = {**used, **{k: max(n, used.get(k, 1)) for k, n in counts.instances}}
            for operand, mine in choices.items():
                if i < len(mine) and not (
                    self.narrow and keeps_by_remainder(mapping, self.layer, self.machine, operand)
                ):
                    rows[operand].append(self.row(operand, mapping))
        if not all(rows.values()):
            return
        self.combine([np.array(rows[operand]) for operand in OPERANDS], cycles, used)

    def row(self, operand: Operand, mapping: Mapping) -> list[float]:
        """[pJ, bits per port, waiting bits per memory and port, bits held per memory] of one operand."""
        layer, machine = self.layer, self.machine
        counts = count_accesses(layer, mapping, machine)
        memories = {m.name: m for m in machine.memories}
        mine = [t for t in counts.traffic if t.operand == operand]
        energy = sum(
            t.reads * self.unit.traffic_pj[t.memory, operand, t.kind, "read"]
            + t.writes * self.unit.traffic_pj[t.memory, operand, t.kind, "write"]
            for t in mine
        )
        moved = tuple(
            moved_words(
                memories[t.memory], operand, t.kind, operand_bits(layer, machine, operand, t.kind), t.reads, t.writes
            )
            for t in mine
        )
        exposed, overlapped = split_loads(counts, machine, moved)
        assert sum(port_loads(moved).values()) == sum(overlapped.values()) + sum(
            sum(load.values()) for load in exposed.values()
        )
        held = bits_of(mapping, layer, machine, operand)
        return [
            energy,
            *(overlapped.get(port, 0) for port in self.ports),  # type: ignore[call-overload]
            *(exposed.get(m, {}).get((n, d), 0) for m, n, d in self.waits),  # type: ignore[call-overload]
            *(held[m.name] for m in machine.memories[1:]),
        ]

    def combine(self, rows: list[np.ndarray], compute: int, used: dict[str, int]) -> None:
        """Every combination of the operands' choices, priced."""
        machine, unit = self.machine, self.unit
        total = rows[0][:, None, None] + rows[1][None, :, None] + rows[2][None, None, :]
        total = total.reshape(-1, total.shape[-1])
        first, second = 1 + len(self.ports), 1 + len(self.ports) + len(self.waits)
        sizes = np.array([m.size_bits or 0 for m in machine.memories[1:]])
        total = total[(total[:, second:] <= sizes).all(axis=1)]
        if not len(total):
            return
        busy = self.slowest(total[:, 1:first] + self.fixed, used, machine)
        cycles = np.maximum(np.maximum(busy, compute), unit.fixed_cycles)
        for i in range(len(machine.memories) - 1):
            start = first + i * len(self.ports)
            cycles = cycles + self.slowest(total[:, start : start + len(self.ports)], used, machine)
        energy = total[:, 0] + unit.fixed_pj + self.layer.macs * unit.mac_pj + unit.static_pj_per_cycle * cycles
        for n in np.unique(cycles).tolist():
            least = float(energy[cycles == n].min())
            self.energy_at[n] = min(least, self.energy_at.get(n, math.inf))
        found = (energy.min(), cycles.min(), (energy * cycles).min())
        self.best = [min(pair) for pair in zip(self.best, map(float, found), strict=True)]

    def slowest(self, bits: np.ndarray, used: dict[str, int], machine: Accelerator) -> np.ndarray:
        """Cycles of the slowest port."""
        found = np.zeros(len(bits))
        for i, memory in enumerate(machine.memories):
            read, write = bits[:, 2 * i], bits[:, 2 * i + 1]
            ports = [(read, memory.read_bandwidth_bits_per_cycle), (write, memory.write_bandwidth_bits_per_cycle)]
            if memory.shared_port:
                ports = [(read + write, memory.read_bandwidth_bits_per_cycle)]
            for load, limit in ports:
                if limit is not None:
                    found = np.maximum(found, np.ceil(load / used.get(memory.name, 1) / limit - 1e-9))
        return found


def unit_cycles(layer: Layer, mapping: Mapping, mac: MacCost) -> int:
    """Cycles of the MAC units, step by step."""
    return math.ceil(walk_unit_steps(layer, mapping, mac.lanes, mac.products) * mac.step_cycles)


def bits_of(mapping: Mapping, layer: Layer, machine: Accelerator, operand: Operand) -> dict[str, int]:
    """Bits that an operand's tiles take in every memory."""
    return {m.name: bits_of_tiles(mapping, layer, machine, m).get(operand, 0) for m in machine.memories[1:]}


def certified(
    layer: Layer, machine: Accelerator, objective: str, remainders: bool = False
) -> tuple[float, float, bool]:
    """(best exact price, lower bound, whether it ended by itself) of the certified search, from nothing."""

    def value(mapping: Mapping) -> float | None:
        if validate(mapping, layer, machine):
            return None
        cost = price(layer, count_accesses(layer, mapping, machine), machine)
        energy, cycles = cost.total_energy_pj, float(cost.latency_cycles)
        return {"energy": energy, "latency": cycles, "edp": energy * cycles}[objective]

    search = certified_search(Problem(layer, machine), objective, value, remainders)
    assert search is not None
    proof = search.run(0.0, math.inf)
    return search.best, proof.lower_bound, proof.finished


def with_wide_sums(layer: Layer, machine: Accelerator, bits: int) -> tuple[Layer, Accelerator]:
    """Partial sums of so many bits, where finished outputs have BITS; outputs are kept more often than not."""
    nodes = tuple(
        dataclasses.replace(node, keeps=OPERANDS, size_bits=node.size_bits and node.size_bits + bits)
        if isinstance(node, Memory)
        else node
        for node in machine.hierarchy
    )
    mac = dataclasses.replace(machine.mac, accumulator_bits=bits)
    return dataclasses.replace(layer, accumulator_bits=bits), dataclasses.replace(machine, hierarchy=nodes, mac=mac)


def compare(seed: int, sum_bits: int = BITS, variant: Variant = as_it_is) -> dict[str, float]:
    """Gaps by objective; asserts that values are optimal wherever the search says so, and bounds never above."""
    rng = random.Random(seed)
    layer, machine = small_layer(rng), variant(rng, some_machine(rng))
    if sum_bits != BITS:
        layer, machine = with_wide_sums(layer, machine, sum_bits)
    wanted = Enumeration(layer, machine).best
    gaps: dict[str, float] = {}
    for objective, expected in zip(("energy", "latency", "edp"), wanted, strict=True):
        best, bound, finished = certified(layer, machine, objective)
        text = f"seed {seed}, {objective}: {layer.loops}, {layer.stride}, {machine.hierarchy}, {machine.mac.latches}"
        assert best >= expected * (1 - 1e-6), f"below every enumerated mapping: {text}"
        assert bound <= expected * (1 + 1e-6), f"bound {bound} above the optimum {expected}: {text}"
        if finished:
            slack = 8.0 / expected if objective == "latency" else 0.0
            assert best <= expected * (1 + 1e-6 + slack), f"{best} found, {expected} exists: {text}"
        gaps[objective] = best / bound - 1 if math.isfinite(expected) else 0.0
    return gaps


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_search_equals_exhaustive_enumeration_on_machines_of_every_kind(seed: int) -> None:
    compare(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1300))
def test_search_equals_exhaustive_enumeration_on_300_machines_of_every_kind(seed: int) -> None:
    compare(seed)


@pytest.mark.parametrize("seed", [4001, 4003])
def test_tiles_of_finished_outputs_take_their_own_width(seed: int) -> None:
    assert max(compare(seed, 24).values()) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4000, 4200))
def test_tiles_of_finished_outputs_take_their_own_width_on_200_machines(seed: int) -> None:
    compare(seed, random.Random(seed).choice((16, 24)))


def compare_in_order(seed: int, slack: float) -> None:
    """Least energy among the fastest nests, within a slack, and the reverse, equal those of the enumeration."""
    rng = random.Random(seed)
    layer, machine = small_layer(rng), some_machine(rng)
    energy_at = Enumeration(layer, machine).energy_at
    for objective in ("latency", "energy"):
        if not energy_at:
            return
        certificate = search(layer, machine, objective, effort="perfect", slack=slack).certificate  # type: ignore[arg-type]
        assert certificate.then_bound <= certificate.then_value * (1 + 1e-9)
        if certificate.value < 0.999 * (min(energy_at) if objective == "latency" else min(energy_at.values())):
            continue  # temporal remainders, which are not enumerated, were better
        text = f"seed {seed}, {objective}: {certificate}, {layer.loops}, {layer.stride}, {machine.hierarchy}"
        if objective == "latency":
            most = certificate.lower_bound * (1 + slack) + 1e-9
            least = min(energy for cycles, energy in energy_at.items() if cycles <= most)
            assert certificate.then_bound <= least * (1 + 1e-6), text
            assert certificate.then_value <= least * (1 + 1e-6) + 1, text
        else:
            most = min(energy_at.values()) * (1 + max(slack, 1e-6))
            least = min(cycles for cycles, energy in energy_at.items() if energy <= most)
            assert certificate.then_bound <= certificate.then_value, text
            if slack:
                assert certificate.then_bound <= least, text


@pytest.mark.parametrize("seed", [1, 2, 3, 7])
@pytest.mark.parametrize("slack", [0.0, 0.2])
def test_objectives_in_order_equal_enumeration(seed: int, slack: float) -> None:
    compare_in_order(seed, slack)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5000, 5200))
def test_objectives_in_order_equal_enumeration_on_200_machines(seed: int) -> None:
    compare_in_order(seed, random.Random(seed).choice((0.0, 0.05, 0.3)))


def compare_uneven(seed: int, variant: Variant = as_it_is) -> dict[str, float]:
    """Gaps by objective where unrollings need not divide; asserts that no bound lies above the declared optimum."""
    rng = random.Random(seed)
    layer, machine = uneven_layer(rng), variant(rng, some_machine(rng))
    declared = Enumeration(layer, machine, remainders=True).best
    everything = Enumeration(layer, machine, remainders=True, narrow=False).best
    gaps: dict[str, float] = {}
    for objective, expected, least in zip(("energy", "latency", "edp"), declared, everything, strict=True):
        best, bound, finished = certified(layer, machine, objective, remainders=True)
        text = f"seed {seed}, {objective}: {layer.loops}, {layer.stride}, {machine.hierarchy}, {machine.mac.latches}"
        assert bound <= expected * (1 + 1e-6), f"bound {bound} above the optimum {expected}: {text}"
        assert best >= least * (1 - 1e-6), f"{best} below every mapping enumerated ({least}): {text}"
        if finished:
            slack = 8.0 / expected if objective == "latency" else 0.0
            assert best <= expected * (1 + 1e-6 + slack), f"{best} found, {expected} exists: {text}"
        gaps[objective] = best / bound - 1 if math.isfinite(expected) else 0.0
    return gaps


@pytest.mark.long
@pytest.mark.parametrize("seed", [7, 10, 21])
def test_search_and_bounds_hold_with_several_products_at_once(seed: int) -> None:
    compare(seed, variant=with_lanes)
    assert all(gap > -1e-6 for gap in compare_uneven(seed, with_lanes).values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_search_and_bounds_hold_with_several_products_at_once_on_400_machines(seed: int) -> None:
    compare(seed, variant=with_lanes)
    assert all(gap > -1e-6 for gap in compare_uneven(seed, with_lanes).values())


@pytest.mark.long
@pytest.mark.parametrize("seed", [pytest.param(6, marks=pytest.mark.slow), 10, 20, 34])
def test_bounds_hold_where_unrollings_do_not_divide(seed: int) -> None:
    assert all(gap > -1e-6 for gap in compare_uneven(seed).values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3000, 3300))
def test_bounds_hold_where_unrollings_do_not_divide_on_300_machines_of_every_kind(seed: int) -> None:
    assert all(gap > -1e-6 for gap in compare_uneven(seed).values())
