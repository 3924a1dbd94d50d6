"""The certified search against exhaustive enumeration of its declared space, on random small instances.

The enumeration knows nothing of lattices or bounds: it writes every nest of perfect factors (every unrolling, order,
place of the array and of every hold), counts it with `count_accesses`, and adds up what each operand costs. With
remainders unrollings need not divide; nests in which an idle element keeps a tile (`keeps_by_remainder`) stand outside
the declared space, but are enumerated too: what is found may not be cheaper than all of them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence

import pytest

from hwsim.machine.parts import OPERANDS, Accelerator, Array, Axis, Memory, Operand
from hwsim.nest.count import count_accesses
from hwsim.nest.legal import factor_problems, tile_bits, validate
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal
from hwsim.nest.points import relevant_dims
from hwsim.network.layer import DIMS, Layer, Loops
from hwsim.pricing.layer import TIMED, price
from hwsim.pricing.unit_prices import unit_prices
from hwsim.search.proof.certify import certified_search
from hwsim.search.space.problem import Problem
from tests.strategies import BITS, drawn_conv, prime_factors, primes, word_machine, word_memory

Variant = Callable[[random.Random, Accelerator], Accelerator]  # a machine with keys that some machines have


def small_layer(rng: random.Random) -> Layer:
    """A convolution of at most four prime factors."""

    def bounds() -> dict[str, int]:
        dims = rng.sample(("K", "C", "P", "Q", "R", "S", "G"), k=rng.randint(2, 4))
        return {dim: rng.choice((2, 3, 4) if dim in "PQ" else (2, 3)) for dim in dims}

    return drawn_conv(rng, bounds, few_primes)


def few_primes(loops: Loops) -> bool:
    """Whether all bounds together have at most four prime factors."""
    return prime_factors(loops) <= 4


def uneven_layer(rng: random.Random, small: Callable[[Loops], bool] = few_primes) -> Layer:
    """A small convolution whose bounds the arrays' two and three elements rarely divide."""

    def bounds() -> dict[str, int]:
        dims = rng.sample(("K", "C", "P", "Q", "R", "G"), k=rng.randint(1, 3))
        return {dim: rng.choice((2, 3) if dim == "R" else (2, 3, 4, 5, 5, 7)) for dim in dims}

    return drawn_conv(rng, bounds, lambda loops: small(loops) and max(loops.as_tuple()) > 4)


def small_machine(rng: random.Random) -> Accelerator:
    """DRAM, perhaps a shared buffer, an array of two axes, and scratchpads of a few words."""

    def memory(name: str, words: int | None, keeps: tuple[Operand, ...]) -> Memory:
        energy = rng.choice((1, 2, 5, 20)) if words else 100.0
        return word_memory(name, words, keeps, energy, energy + rng.randint(0, 2))

    nodes: list[Memory | Array] = [memory("dram", None, OPERANDS)]
    buffer = rng.random() < 0.5
    if buffer:
        keeps = tuple(rng.sample(OPERANDS, k=rng.randint(1, 2)))
        nodes.append(memory("buffer", rng.choice((6, 12, 24)), keeps))
    dims = tuple(rng.sample(DIMS, k=5))
    nodes.append(Array("pe", (Axis("rows", rng.choice((1, 2)), dims), Axis("columns", rng.choice((2, 3)), DIMS))))
    pads = rng.sample(OPERANDS, k=1 if buffer else rng.randint(1, 2))
    if len(pads) == 2 and rng.random() < 0.5:
        nodes.append(memory("pad", rng.choice((3, 5, 8)), tuple(pads)))
    else:
        nodes.extend(memory(f"{operand}_pad", rng.choice((1, 2, 4, 8)), (operand,)) for operand in pads)
    return word_machine(*nodes)


def as_it_is(_: random.Random, machine: Accelerator) -> Accelerator:
    """The machine itself."""
    return machine


def with_lanes(rng: random.Random, machine: Accelerator) -> Accelerator:
    """The machine with units of several products at once, and power that makes energy a matter of time."""
    products = rng.choice((2, 3, 4))
    mac = dataclasses.replace(
        machine.mac,
        macs_per_cycle=products / rng.choice((1, 2)),
        sustained=rng.choice((1.0, 0.7)),
        lanes=tuple(rng.sample(DIMS, k=rng.randint(1, 3))),
    )
    powers = {"static_power_mw": rng.choice((0.0, 0.5)), "control_power_mw": rng.choice((0.0, 0.2))}
    return dataclasses.replace(machine, mac=mac, **powers)


def systolic(rng: random.Random, machine: Accelerator) -> Accelerator:
    """The machine with a systolic array that waits for one operand's tiles, or hides their fills."""
    array = dataclasses.replace(machine.arrays[0], systolic=True)
    operand = rng.choice(OPERANDS)
    still = Memory(
        "still", rng.choice((1, 2)) * BITS, (operand,), word_bits=BITS, read_energy_pj=1.0, write_energy_pj=1.0,
        double_buffered=rng.random() < 0.3,
    )  # fmt: skip
    outside = machine.hierarchy[: machine.hierarchy.index(machine.arrays[0])]
    return dataclasses.replace(machine, hierarchy=(*outside, array, still), static_power_mw=rng.choice((0.0, 0.5)))


def unrollings(layer: Layer, array: Array, remainders: bool) -> Iterator[tuple[list[Node], dict[str, int]]]:
    """Every choice of spatial factors: its loops, and the steps that every dim takes.

    With remainders: also factors that do not divide, none of which could be smaller.
    """
    bounds = {dim: n for dim, n in layer.loops.as_dict().items() if n > 1}
    places = [(axis, dim) for axis in array.axes for dim in axis.dims if dim in bounds]
    for factors in itertools.product(*(range(1, axis.size + 1) for axis, _ in places)):
        used = dict.fromkeys((axis.name for axis in array.axes), 1)
        each: dict[str, list[int]] = {dim: [] for dim in bounds}
        loops: list[Node] = []
        for (axis, dim), factor in zip(places, factors, strict=True):
            if factor > 1:
                loops.append(Spatial(dim, factor, array.name, axis.name))
                used[axis.name] *= factor
                each[dim].append(factor)
        steps = {dim: -(-n // math.prod(each[dim])) for dim, n in bounds.items()}
        uneven = {dim for dim, n in bounds.items() if n % math.prod(each[dim])}
        if any(used[axis.name] > axis.size for axis in array.axes) or (uneven and not remainders):
            continue
        if not any(could_be_smaller(bounds[dim], each[dim], steps[dim]) for dim in uneven):
            yield loops, steps


def could_be_smaller(bound: int, factors: Sequence[int], steps: int) -> bool:
    """Whether one factor less gives as few steps."""
    total = math.prod(factors)
    return any(-(-bound // (total // f * (f - 1))) <= steps for f in factors)


def keeps_by_remainder(mapping: Mapping, layer: Layer, machine: Accelerator, operand: Operand) -> bool:
    """Whether some tile of an operand is kept by an array element only because a remainder leaves it one iteration.

    When a loop that reuses the operand advances, a tile is kept where each dim that moves it in between has only one
    iteration with work, counted for every array element and every iteration further out.
    """
    relevant, steps = relevant_dims(operand), mapping.steps()
    places = [i for i, n in enumerate(mapping.nodes) if isinstance(n, Hold) and operand in n.operands][1:]
    if operand in machine.mac.latches:
        places.append(len(mapping.nodes))
    loops = [
        (i, n, step) for i, (n, step) in enumerate(zip(mapping.nodes, steps, strict=True)) if not isinstance(n, Hold)
    ]
    for place in places:
        outside = [loop for loop in loops if loop[0] < place]
        for above, advancing, _ in outside:
            if isinstance(advancing, Spatial) or advancing.dim in relevant or advancing.factor < 2:
                continue
            moving = [x for x in outside if x[0] > above and isinstance(x[1], Temporal) and x[1].dim in relevant]
            dims = {node.dim for _, node, _ in moving if node.factor > 1}
            alone = [loop for loop in outside if loop not in moving]
            if dims and all(may_be_single(layer, dim, moving, alone) for dim in dims):
                return True
    return False


def may_be_single(layer: Layer, dim: str, moving: list, alone: list) -> bool:  # type: ignore[type-arg]
    """Whether the moving loops of a dim have one iteration with work somewhere."""

    def offsets(loops: list) -> list[int]:  # type: ignore[type-arg]
        ranges = [[i * step for i in range(node.factor)] for _, node, step in loops if node.dim == dim]
        return [sum(choice) for choice in itertools.product(*ranges)]

    bound, inner = layer.loops.as_dict()[dim], offsets(moving)
    return any(sum(start + offset < bound for offset in inner) == 1 for start in offsets(alone))


def options(order: tuple[Node, ...], cut: int, operand: Operand, machine: Accelerator) -> list[list[tuple[int, Hold]]]:
    """Every choice of places for the holds of one operand: position p stands above p loops, counted from the inside."""
    memories = [m for m in machine.memories[1:] if operand in m.keeps]
    above = machine.hierarchy.index(machine.arrays[0])
    ranges = [range(cut, len(order) + 1) if machine.hierarchy.index(m) < above else range(cut + 1) for m in memories]
    return [
        [(place, Hold(m.name, (operand,))) for place, m in zip(places, memories, strict=True)]
        for places in itertools.product(*ranges)
        if list(places) == sorted(places, reverse=True)
    ]


def nest(
    order: tuple[Node, ...], cut: int, spatial: list[Node], holds: list[tuple[int, Hold]], machine: Accelerator
) -> Mapping:
    """The mapping of loops (innermost first) with the array above the first `cut` of them."""
    nodes: list[Node] = [Hold(machine.memories[0].name, OPERANDS)]
    above = machine.hierarchy.index(machine.arrays[0])
    depth = {m.name: machine.hierarchy.index(m) for m in machine.memories}
    for position in range(len(order), -1, -1):
        here = sorted((h for place, h in holds if place == position), key=lambda h: depth[h.memory])
        nodes.extend(h for h in here if depth[h.memory] < above)
        if position == cut:
            nodes.extend(spatial)
        nodes.extend(h for h in here if depth[h.memory] > above)
        if position:
            nodes.append(order[position - 1])
    return Mapping(tuple(nodes))


def exhaustive(
    layer: Layer, machine: Accelerator, remainders: bool = False, everything: bool = False
) -> tuple[float, float, float]:
    """(least energy, least latency, least product) over all mappings declared; `everything`: those outside as well."""
    unit = unit_prices(layer, machine)
    best = [math.inf, math.inf, math.inf]
    for spatial, rest in unrollings(layer, machine.arrays[0], remainders):
        narrow = remainders and not everything
        loops = [Temporal(dim, p) for dim, n in rest.items() for p in primes(n)]
        for order in set(itertools.permutations(loops)):
            for cut in range(len(order) + 1):
                for energy, cycles in cheapest(layer, machine, order, cut, spatial, unit, narrow):
                    best = [min(best[0], energy), min(best[1], cycles), min(best[2], energy * cycles)]
    return best[0], best[1], best[2]


def cheapest(layer, machine, order, cut, spatial, unit, narrow) -> list[tuple[float, float]]:  # type: ignore[no-untyped-def]
    """(least energy over all places of holds, cycles) for one order of loops, per time that it may take.

    The places of the operand that is still in a systolic array decide on the time, those of the others do not.
    `narrow`: without holds that a remainder alone keeps.
    """
    per_operand = {operand: options(order, cut, operand, machine) for operand in OPERANDS}
    if any(
        rate for m in machine.memories for rate in (m.read_bandwidth_bits_per_cycle, m.write_bandwidth_bits_per_cycle)
    ):
        return together(layer, machine, order, cut, spatial, per_operand, narrow)
    still = {operand for m in machine.memories if m.name == "still" for operand in m.keeps}
    costs: dict[str, list[tuple[float, dict[str, int], float | None]]] = {operand: [] for operand in OPERANDS}
    fixed: dict[float, float] = {}
    cycles = 0.0
    for i in range(max(map(len, per_operand.values()))):
        holds = [hold for choices in per_operand.values() for hold in choices[min(i, len(choices) - 1)]]
        mapping = nest(order, cut, spatial, holds, machine)
        if list(factor_problems(mapping, layer)):
            return []
        counts = count_accesses(layer, mapping, machine)
        cost = price(layer, counts, machine)
        cycles = float(cost.latency_cycles)
        timed = sum(cost.energy_pj.get(component, 0.0) for component in TIMED)
        fixed[cycles] = unit.fixed_pj + layer.macs * unit.mac_pj + timed
        for operand, choices in per_operand.items():
            if i < len(choices) and not (narrow and keeps_by_remainder(mapping, layer, machine, operand)):
                energy = sum(
                    t.reads * unit.traffic_pj[t.memory, operand, t.kind, "read"]
                    + t.writes * unit.traffic_pj[t.memory, operand, t.kind, "write"]
                    for t in counts.traffic
                    if t.operand == operand
                )
                sizes = {m.name: tile_bits(mapping, layer, machine, m).get(operand, 0) for m in machine.memories[1:]}
                costs[operand].append((energy, sizes, cycles if operand in still else None))
    limits = {m.name: m.size_bits or 0 for m in machine.memories[1:]}
    least: dict[float, float] = {}
    for choice in itertools.product(*costs.values()):
        if all(sum(sizes[name] for _, sizes, _ in choice) <= limit for name, limit in limits.items()):
            time = next((taken for _, _, taken in choice if taken is not None), cycles)
            least[time] = min(least.get(time, math.inf), sum(energy for energy, _, _ in choice) + fixed[time])
    return [(energy, time) for time, energy in least.items()]


def together(layer, machine, order, cut, spatial, per_operand, narrow) -> list[tuple[float, float]]:  # type: ignore[no-untyped-def]
    """(energy, cycles) of every choice of places, each priced whole: where ports are slow, all of them decide on the
    time."""
    limits = {m.name: m.size_bits or 0 for m in machine.memories[1:]}
    found = []
    for choice in itertools.product(*per_operand.values()):
        mapping = nest(order, cut, spatial, [hold for holds in choice for hold in holds], machine)
        if list(factor_problems(mapping, layer)):
            return []
        if narrow and any(keeps_by_remainder(mapping, layer, machine, operand) for operand in OPERANDS):
            continue
        held = {m.name: sum(tile_bits(mapping, layer, machine, m).values()) for m in machine.memories[1:]}
        if all(held[name] <= limit for name, limit in limits.items()):
            cost = price(layer, count_accesses(layer, mapping, machine), machine)
            found.append((cost.total_energy_pj, float(cost.latency_cycles)))
    return found


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


def compare(seed: int, variant: Variant = as_it_is) -> None:
    rng = random.Random(seed)
    layer, machine = small_layer(rng), variant(rng, small_machine(rng))
    wanted = exhaustive(layer, machine)
    for objective, expected in zip(("energy", "latency", "edp"), wanted, strict=True):
        best, bound, finished = certified(layer, machine, objective)
        text = f"seed {seed}, {objective}: {layer.loops}, {machine.hierarchy}"
        assert finished, text
        assert best == pytest.approx(expected, rel=1e-6), text
        assert bound <= best * (1 + 1e-9), text
        assert bound == pytest.approx(best, rel=1e-6), text


@pytest.mark.parametrize("seed", range(6))
def test_search_equals_exhaustive_enumeration(seed: int) -> None:
    compare(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 400))
def test_search_equals_exhaustive_enumeration_on_300_instances(seed: int) -> None:
    compare(seed)


def compare_uneven(seed: int, variant: Variant = as_it_is) -> int:
    """How many objectives left a gap; asserts everything else."""
    rng = random.Random(seed)
    layer, machine = uneven_layer(rng), variant(rng, small_machine(rng))
    declared = exhaustive(layer, machine, remainders=True)
    everything = exhaustive(layer, machine, remainders=True, everything=True)
    gaps = 0
    for objective, expected, least in zip(("energy", "latency", "edp"), declared, everything, strict=True):
        best, bound, finished = certified(layer, machine, objective, remainders=True)
        text = f"seed {seed}, {objective}: {layer.loops}, {layer.stride}, {machine.hierarchy}"
        assert bound <= expected * (1 + 1e-9), f"bound {bound} above the optimum {expected}: {text}"
        assert best >= least * (1 - 1e-6), f"{best} below every mapping enumerated: {text}"
        assert not finished or best <= expected * (1 + 1e-6), f"{best} found, {expected} exists: {text}"
        gaps += bound < best * (1 - 1e-6)
    return gaps


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 12, 29, 34])  # windows on two or three elements in the last ones
def test_search_equals_enumeration_where_unrollings_do_not_divide(seed: int) -> None:
    assert compare_uneven(seed) == 0


@pytest.mark.parametrize("seed", range(4))
def test_search_equals_enumeration_with_several_products_at_once(seed: int) -> None:
    compare(seed, with_lanes)
    assert compare_uneven(seed, with_lanes) == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 300))
def test_search_equals_enumeration_with_several_products_at_once_on_400_instances(seed: int) -> None:
    compare(seed, with_lanes)
    assert compare_uneven(seed, with_lanes) == 0


@pytest.mark.parametrize("seed", range(6))
def test_search_and_bounds_hold_on_systolic_arrays(seed: int) -> None:
    compare_gaps(seed, systolic)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 300))
def test_search_and_bounds_hold_on_200_systolic_arrays(seed: int) -> None:
    compare_gaps(seed, systolic)


def compare_gaps(seed: int, variant: Variant) -> None:
    """As `compare`, where bounds may stay below the optimum."""
    rng = random.Random(seed)
    layer, machine = small_layer(rng), variant(rng, small_machine(rng))
    for objective, expected in zip(("energy", "latency", "edp"), exhaustive(layer, machine), strict=True):
        best, bound, finished = certified(layer, machine, objective)
        text = f"seed {seed}, {objective}: {layer.loops}, {machine.hierarchy}"
        assert best >= expected * (1 - 1e-6), text
        assert bound <= expected * (1 + 1e-6), f"{bound} above {expected}: {text}"
        assert not finished or best <= expected * (1 + 1e-6), f"{best} found, {expected} exists: {text}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2000, 2300))
def test_search_equals_enumeration_where_unrollings_do_not_divide_on_300_instances(seed: int) -> None:
    assert compare_uneven(seed) == 0
