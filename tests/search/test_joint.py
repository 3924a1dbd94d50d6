"""The network's plan against enumeration: every nest of every layer times every set of tensors that stay on chip.

The enumeration knows nothing of staircases or live sets: it writes every nest of every layer, counts each operand, and
says itself what staying at home leaves of the traffic. Small chains and residual blocks, machines with a shared buffer
of a few words, a narrow port at the outermost memory, so that time depends on what stays as well. With lifetimes of
rows each nest's room is what a walk over its outermost loops finds, code by code.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from hwsim.machine.parts import OPERANDS, Accelerator, Array, Axis, Memory, Operand, VectorUnit
from hwsim.nest.count import count_accesses
from hwsim.nest.counts import Counts
from hwsim.nest.legal import factor_problems, validate
from hwsim.nest.mapping import Hold, Mapping, Node, Temporal
from hwsim.network.layer import DIMS, Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.area import static_power_mw
from hwsim.pricing.layer import price, price_fused, price_stage
from hwsim.pricing.lifetimes import WHOLE_TENSORS, Lifetimes
from hwsim.pricing.moves import parameter_bits
from hwsim.pricing.network import price_network
from hwsim.pricing.residents import Life, lifetimes
from hwsim.pricing.stages import Stage, fuse
from hwsim.pricing.stages import effective_layer as effective
from hwsim.search import cache as search_cache
from hwsim.search.network import Plan, plan_network
from hwsim.search.objective import OBJECTIVES, Objective
from tests.search.test_search_every_nest import orders, spatial_loops
from tests.search.test_search_exhaustive import nest, options
from tests.strategies import BITS, word_machine, word_memory

PORT = 4  # bits per cycle at the outermost memory
MACS = 12  # of a layer, about: its nests are listed
Point = tuple[int, float, float]  # bits taken at home, pJ, cycles
Pattern = tuple[frozenset[Operand], bool, int]  # operands at home; whether the input dies; dying operands behind
Patterns = dict[Pattern, list[Point]]
ROWS = Lifetimes(rows=True)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(search_cache.ENVIRONMENT, "")


# --- random instances -------------------------------------------------------------------------------------------------


def machine_of(rng: random.Random, lanes: int = 64, shared: float = 0.3) -> Accelerator:
    """DRAM with a narrow port, a home for inputs and outputs (perhaps weights), an array, a scratchpad or none."""

    def memory(name: str, words: int | None, keeps: tuple[Operand, ...], energy: float) -> Memory:
        return word_memory(
            name, words, keeps, energy, energy + rng.randint(0, 1), shared_port=words is None, double_buffered=True,
            read_bandwidth_bits_per_cycle=PORT if words is None else None,
        )  # fmt: skip

    kept: tuple[Operand, ...] = OPERANDS if rng.random() < shared else ("input", "output")
    nodes: list[Memory | Array] = [
        memory("dram", None, OPERANDS, 40.0),
        memory("home", rng.choice((6, 9, 12, 16, 20)), kept, rng.choice((2.0, 5.0))),
        Array("pe", (Axis("columns", rng.choice((1, 2)), DIMS),)),
    ]
    if rng.random() < 0.5:
        nodes.append(memory("pad", rng.choice((1, 2, 4)), (rng.choice(OPERANDS),), 1.0))
    unit = VectorUnit(lanes=lanes, energy_pj_per_op=0.5, lookup_energy_pj=0.0)
    made = word_machine(*nodes, vector=unit, fused=("elementwise",) if rng.random() < 0.5 else ())
    return dataclasses.replace(made, static_power_mw=rng.choice((0.0, 0.2)))


def network_of(rng: random.Random) -> Workload:
    """Two to five layers on one signal: convolutions of one or two taps, a residual addition where channels agree."""
    channels, length, count = rng.choice((1, 2)), rng.choice((2, 3)), rng.randint(2, 4)
    x = Tensor("x0", (1, channels, length, 1), BITS)
    layers: list[Layer] = []
    made = [x]
    for i in range(count):
        taps = rng.choice((1, 1, 2)) if x.shape[2] > 2 else 1
        out = rng.choice([n for n in (1, 2, 3, 4) if n * x.shape[1] * taps * x.shape[2] <= MACS] or [1])
        rows = x.shape[2] - taps + 1
        y = Tensor(f"x{i + 1}", (1, out, rows, 1), BITS)
        layers.append(
            Layer(
                name=f"l{i}",
                op="conv",
                inputs=(x,),
                output=y,
                weight=Tensor(f"w{i}", (out, x.shape[1], taps, 1), BITS),
                loops=Loops(K=out, C=x.shape[1], P=rows, R=taps),
                accumulator_bits=rng.choice((BITS, BITS, 2 * BITS)),
            )
        )
        made.append(y)
        alike = [t for t in made[:-1] if t.shape == y.shape and t is not x]
        if alike and len(layers) < 5 and rng.random() < 0.6:
            total = Tensor(f"s{i}", y.shape, BITS)
            layers.append(Layer(name=f"a{i}", op="add", inputs=(y, rng.choice(alike)), output=total))
            made.append(total)
        x = made[-1]
    return Workload("random", layers)


# --- enumeration ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One operand of one nest: pJ and bits at the DRAM in DRAM and at home, and the bits of its tiles."""

    away: tuple[float, int]
    at_home: tuple[float, int] | None
    tiles: dict[str, int]
    partial: bool


def part_of(operand: Operand, counts: Counts, layer: Layer, machine: Accelerator, held: frozenset[str]) -> Part:
    """What an operand costs; where it stays, DRAM goes, and fills of home or drains of finished outputs with it."""
    memories = {memory.name: memory for memory in machine.memories}
    width = {
        "code": 1,
        "final": 1,
        "partial": -(-machine.mac.partial_sum_bits(layer.accumulator_bits_needed()) // BITS),
    }
    sums = [[0.0, 0], [0.0, 0]]
    drained = counts.writes("dram", operand)
    for t in counts.traffic:
        if t.operand != operand:
            continue
        memory, each = memories[t.memory], width[t.kind]
        stays = [t.reads, t.writes]
        if t.memory == "dram":
            stays = [0, 0]
        elif t.memory == "home" and operand != "output":
            stays[1] = 0
        elif t.memory == "home" and t.kind == "final":
            stays[0] -= drained
        for kept, (reads, writes) in enumerate(((t.reads, t.writes), stays)):
            sums[kept][0] += each * (reads * memory.read_energy_pj + writes * memory.write_energy_pj)
            sums[kept][1] += each * (reads + writes) * BITS if t.memory == "dram" else 0
    tile = next((t for t in counts.tiles if t.memory == "home" and t.operand == operand), None)
    spills = operand == "output" and counts.reads("dram", "output") > 0
    partial = tile is not None and tile.partial
    tiles = {t.memory: t.elements * BITS * width["partial" if t.partial else "code"] for t in counts.tiles
             if t.operand == operand and t.memory in held}  # fmt: skip
    home = None if tile is None or spills else (sums[1][0], sums[1][1])
    return Part((sums[0][0], sums[0][1]), home, tiles, partial)


def points_of(
    layer: Layer,
    machine: Accelerator,
    fused: tuple[Layer, ...],
    perfect: bool,
    freeing: Lifetimes = WHOLE_TENSORS,
    shared: bool = False,
) -> Patterns:
    """The least (taken, pJ, cycles) of all nests of a layer, by operands at home and what dies there.

    `shared`: other layers multiply its weight, too.
    """
    limits = {memory.name: memory.size_bits or 0 for memory in machine.memories[1:]}
    keeps = frozenset(limits)
    mine: tuple[Operand, ...] = ("input", "output", "weight") if shared else ("input", "output")
    patterns: Patterns = {
        (frozenset(h), dies, behind): []
        for n in range(len(mine) + 1)
        for h in itertools.combinations(mine, n)
        for dies in ((False, True) if freeing.rows and {"input", "output"} <= {*h} else (False,))
        for behind in ((0, 1) if freeing.rows and "output" in h else (0,))
    }
    bounds = {dim: n for dim, n in layer.loops.as_dict().items() if n > 1}
    for spatial in spatial_loops(layer, machine.arrays[0]):
        for order, cut in orders(bounds, spatial):
            if perfect and not divides(bounds, order, spatial):
                continue
            per_operand = {operand: options(order, cut, operand, machine) for operand in OPERANDS}
            parts: dict[Operand, list[Part]] = {operand: [] for operand in OPERANDS}
            base = 0.0
            cycles: dict[str, int] = {}
            legal = True
            for i in range(max(map(len, per_operand.values()))):
                holds = [hold for choices in per_operand.values() for hold in choices[min(i, len(choices) - 1)]]
                mapping = nest(order, cut, spatial, holds, machine)
                if list(factor_problems(mapping, layer)):
                    legal = False
                    break
                counts = count_accesses(layer, mapping, machine)
                for operand, choices in per_operand.items():
                    if i < len(choices):
                        parts[operand].append(part_of(operand, counts, layer, machine, keeps))
                if not i:
                    cost = price(layer, counts, machine, fused=fused)
                    cycles = dict(cost.cycles)
                    base = sum(cost.energy_pj.get(name, 0.0) for name in ("mac", "vector", "offset"))
                    base += sum(p.energy_pj for p in cost.parts if p.component == "dram" and p.detail == "parameters")
            if legal:
                saved = {(dies, behind): 0 for _, dies, behind in patterns}
                saved |= {key: walked(order, cut, spatial, layer, *key) for key in saved if any(key)}
                for choice in itertools.product(*parts.values()):
                    for (at_home, dies, behind), points in patterns.items():
                        point = combined(
                            dict(zip(OPERANDS, choice, strict=True)), at_home, limits, base, cycles, layer, machine
                        )
                        if point is not None:
                            points.append((point[0] - saved[dies, behind], *point[1:]))
    return {at_home: least(points) for at_home, points in patterns.items()}


def walked(order: tuple[Node, ...], cut: int, spatial: list[Node], layer: Layer, dies: bool, behind: int) -> int:
    """Bits that dying tensors and the output save in a nest: code by code, block by block of its outermost loops.

    Those before the first reduction and before a dim that comes back after another one.
    """
    blocks: list[tuple[str, int, int]] = []  # dim, iterations, step
    bounds = layer.loops.as_dict()
    for i in reversed(range(cut if spatial else 0, len(order))):  # the innermost loop comes first
        loop = order[i]
        assert isinstance(loop, Temporal)
        if loop.dim in "CRS" or (loop.dim in {b[0] for b in blocks} and loop.dim != blocks[-1][0]):
            break
        later = [n for n in (*order[:i], *spatial) if not isinstance(n, Hold)]
        inside = math.prod(other.factor for other in later if other.dim == loop.dim)
        blocks.append((loop.dim, loop.factor, inside))
    read: dict[int, int] = {}
    made: dict[tuple[int, int], int] = {}
    for time, at in enumerate(itertools.product(*(range(n) for _, n, _ in blocks))):
        first = dict.fromkeys(DIMS, 0)
        size = dict(bounds)
        for (dim, _, step), i in zip(blocks, at, strict=True):
            first[dim], size[dim] = first[dim] + i * step, step
        for k in range(first["K"], min(first["K"] + size["K"], bounds["K"])):
            for p in range(first["P"], min(first["P"] + size["P"], bounds["P"])):
                made.setdefault((k, p), time)
                for c, r in itertools.product(range(bounds["C"]), range(bounds["R"])):
                    read[c * 100 + p + r] = time
    end = max(made.values())
    x = layer.inputs[0].elements
    peak = 0
    for now in range(end + 1):
        held = sum(start <= now for start in made.values())
        held += dies * (x - sum(last < now for last in read.values()))
        held += behind * sum(start >= now for start in made.values())
        peak = max(peak, held)
    return (len(made) * (1 + behind) + dies * x - peak) * BITS


def divides(bounds: dict[str, int], order: tuple[Node, ...], spatial: list[Node]) -> bool:
    """Whether the factors of a nest multiply to its bounds."""
    loops = [node for node in (*order, *spatial) if not isinstance(node, Hold)]
    return all(math.prod(n.factor for n in loops if n.dim == dim) == bound for dim, bound in bounds.items())


def combined(
    parts: dict[Operand, Part], at_home: frozenset[Operand], limits: dict[str, int], base: float,
    cycles: dict[str, int], layer: Layer, machine: Accelerator,
) -> Point | None:  # fmt: skip
    """(bits taken at home, pJ, cycles) of a nest with some operands at home; None where it is illegal."""
    used = dict.fromkeys(limits, 0)
    for part in parts.values():
        for name, bits in part.tiles.items():
            used[name] += bits
    if any(used[name] > limit for name, limit in limits.items()):
        return None
    found = [parts[o].at_home if o in at_home else parts[o].away for o in OPERANDS]
    if any(part is None for part in found):
        return None
    energy = base + sum(part[0] for part in found if part)
    bits = sum(part[1] for part in found if part) + parameters(layer, machine)
    taken = sum(p.tiles.get("home", 0) for o, p in parts.items() if o not in at_home or p.partial)
    latency = max(cycles["compute"], cycles["vector"], -(-bits // PORT))
    static = static_power_mw(machine) * latency / machine.clock_mhz * 1e3
    return taken, energy + static, float(latency)


def parameters(layer: Layer, machine: Accelerator) -> int:
    """Bits of constants at the DRAM, in whole words."""
    return -(-parameter_bits(layer, machine.capabilities) // BITS) * BITS


def least(points: list[Point]) -> list[Point]:
    """Those that no other one equals or beats in all three."""
    found: list[Point] = []
    for point in sorted(set(points)):
        if not any(all(x <= y for x, y in zip(other, point, strict=True)) for other in found):
            found.append(point)
    return found


def enumerated(
    workload: Workload, machine: Accelerator, perfect: bool, freeing: Lifetimes = WHOLE_TENSORS
) -> dict[Objective, float]:
    """The least energy, latency and product over every set of tensors that stays and every nest of every layer."""
    stages = fuse(workload, machine.capabilities)
    lives = lifetimes(stages)
    read = {t.name for stage in stages for t in stage.inputs}
    tenants = [life for life in lives if life.born >= 0 and life.tensor.name in read]
    weights = shared_lives(stages) if "weight" in machine.memories[1].keeps else []
    tenants += weights
    multiplied = {life.tensor.name for life in weights}
    patterns = {
        i: points_of(
            effective(stage),
            machine,
            stage.fused,
            perfect,
            freeing,
            stage.layer.weight is not None and stage.layer.weight.name in multiplied,
        )
        for i, stage in enumerate(stages)
        if stage.layer.has_macs
    }
    size = machine.memories[1].size_bits or 0
    best: dict[Objective, float] = dict.fromkeys(OBJECTIVES, math.inf)
    for n in range(len(tenants) + 1):
        for chosen in itertools.combinations(tenants, n):
            names = frozenset(life.tensor.name for life in chosen)
            front = [(0.0, 0.0)]
            for i, stage in enumerate(stages):
                room = size - sum(life.tensor.elements * BITS for life in chosen if life.born <= i <= life.last)
                alive = any(life.born <= i <= life.last for life in chosen)
                dying = [life.tensor for life in chosen if life.last == i and freeing.rows]
                dying = dying if stage.output.name in names else []
                points = stage_points(stage, machine, names, patterns.get(i), room if alive else None, dying)
                here = [life.tensor for life in chosen if life in weights and life.born == i]
                pj, took = fetching(machine, sum(t.elements for t in here))
                front = grown(front, [(energy + pj, cycles + took) for energy, cycles in points])
            for energy, cycles in front:
                values = {"energy": energy, "latency": cycles, "edp": energy * cycles}
                best = {o: min(best[o], values[o]) for o in OBJECTIVES}
    return best


def shared_lives(stages: tuple[Stage, ...]) -> list[Life]:
    """Weights that several stages multiply, from the first of them to the last."""
    named = [(i, s.layer.weight) for i, s in enumerate(stages) if s.layer.weight is not None]
    users = {w.name: [i for i, other in named if other.name == w.name] for _, w in named}
    tensors = {w.name: w for _, w in named}
    return [Life(tensors[name], mine[0], mine[-1]) for name, mine in users.items() if len(mine) > 1]


def fetching(machine: Accelerator, codes: int) -> tuple[float, float]:
    """(pJ, cycles) of codes that are read from DRAM and written at home before a layer begins."""
    dram, home = machine.memories[:2]
    cycles = -(-codes * BITS // PORT)
    static = static_power_mw(machine) * cycles / machine.clock_mhz * 1e3
    return codes * (dram.read_energy_pj + home.write_energy_pj) + static, float(cycles)


def stage_points(stage, machine, names, patterns, room, dying) -> Iterator[tuple[float, float]]:  # type: ignore[no-untyped-def]
    """(pJ, cycles) of a stage while some tensors stay; `dying`: those whose place the output may take."""
    more = sum(price_fused(f, machine, stage, names).total_energy_pj for f in stage.fused)
    if patterns is None:
        n, lanes = stage.output.elements, machine.vector.lanes
        if dying and room is not None:  # element by element, or as many as there are lanes
            held = [min(n, i + lanes) + sum(n - i for t in dying) for i in range(0, n, lanes)]
            room += (n + sum(n for t in dying) - max(held)) * BITS
        if room is None or room >= 0:
            cost = price_stage(stage, machine, None, names)
            yield cost.total_energy_pj, float(cost.latency_cycles)
        return
    layer = effective(stage)
    tensors: dict[Operand, str] = {"input": layer.inputs[0].name, "output": layer.output.name}
    if layer.weight is not None:
        tensors["weight"] = layer.weight.name
    at_home = frozenset(o for o, name in tensors.items() if name in names)
    behind = [t.name for follower in stage.fused for t in follower.inputs]
    dies = any(t.name == tensors["input"] for t in dying) and tensors["input"] not in behind
    others = sum(t.name in behind and t.name != tensors["input"] for t in dying)
    for taken, energy, cycles in patterns[at_home, dies, others]:
        if room is None or taken <= room:
            yield energy + more, cycles


def grown(front: list[tuple[float, float]], points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Sums of two fronts that no other sum beats."""
    found: list[tuple[float, float]] = []
    for energy, cycles in sorted((e + f, c + d) for e, c in front for f, d in points):
        if not found or cycles < found[-1][1]:
            found.append((energy, cycles))
    return found


# --- the claims -------------------------------------------------------------------------------------------------------


def billed(plan: Plan, workload: Workload, machine: Accelerator) -> None:
    """The plan's certificate says what its bill says, and its mappings are legal."""
    assert plan.certificate is not None
    totals = plan.cost.totals
    values = {
        "energy": totals.energy_pj,
        "latency": totals.latency_cycles,
        "edp": totals.energy_pj * totals.latency_cycles,
    }
    assert plan.certificate.value == values[plan.certificate.objective]
    again = price_network(
        workload, machine, {n: f.counts for n, f in plan.found.items()}, resident=frozenset(plan.cost.resident)
    )
    assert again.totals.energy_pj == totals.energy_pj
    mappings: dict[str, Mapping] = {name: found.mapping for name, found in plan.found.items()}
    for stage in fuse(workload, machine.capabilities):
        if stage.layer.has_macs:
            assert not validate(mappings[stage.layer.name], effective(stage), machine)


def steps_of(rng: random.Random) -> Workload:
    """Two to four layers one after another that multiply the same weight, perhaps with another one between them."""
    n = rng.choice((2, 3))
    x = Tensor("x0", (1, n, 1, 1), BITS)
    layers: list[Layer] = []
    for i, name in enumerate(rng.choice(("ww", "www", "wvw", "wvwv", "vww"))):
        y = Tensor(f"x{i + 1}", x.shape, BITS)
        weight = Tensor(name, (n, n, 1, 1), BITS)
        layers.append(Layer(f"l{i}", "conv", (x,), y, weight, Loops(K=n, C=n), accumulator_bits=BITS))
        x = y
    return Workload("steps", layers)


def compare(seed: int, freeing: Lifetimes = WHOLE_TENSORS, *, steps: bool = False) -> list[float]:
    """How far plans are above the enumeration of all nests, per objective; asserts what must never happen."""
    rng = random.Random(seed)
    machine = machine_of(rng, 1 if freeing.rows else 64, shared=0.8 if steps else 0.3)
    workload = steps_of(rng) if steps else network_of(rng)
    every, perfect = (enumerated(workload, machine, only, freeing) for only in (False, True))
    if not all(math.isfinite(value) for value in every.values()):
        return []
    above: list[float] = []
    for objective in OBJECTIVES:
        plan = plan_network(workload, machine, objective, effort="proven", lifetimes=freeing)
        billed(plan, workload, machine)
        known = plan.certificate
        assert known is not None
        text = f"seed {seed}, {objective}: {known}, {every}, {perfect}"
        assert known.value >= every[objective] * (1 - 1e-6), text
        assert known.lower_bound <= perfect[objective] * (1 + 1e-6), text
        if objective != "edp" and not freeing.rows:
            assert known.value <= perfect[objective] * (1 + 1e-6), text
        above.append(known.value / every[objective] - 1)
    return above


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8))
def test_a_plan_is_the_best_of_all_homes_and_nests(seed: int) -> None:
    above = compare(seed)
    assert max(above[:2], default=0.0) <= 1e-6
    assert max(above, default=0.0) <= 0.02


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 110))
def test_a_plan_with_a_weight_for_several_layers_is_the_best_of_all(seed: int) -> None:
    above = compare(seed, steps=True)
    assert max(above[:2], default=0.0) <= 1e-6
    assert max(above, default=0.0) <= 0.02


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20, 26))
def test_no_bound_is_above_the_best_of_all_nests_where_rows_are_freed(seed: int) -> None:
    above = compare(seed, ROWS)
    assert max(above, default=0.0) <= 0.02


@pytest.mark.slow
def test_plans_are_the_best_of_all_homes_and_nests_on_200_networks() -> None:
    found = [above for seed in range(1000, 1230) if (above := compare(seed))]
    assert len(found) >= 200
    missed = [above for above in found if max(above[:2]) > 1e-6]
    assert len(missed) <= 0.01 * len(found), missed
    products = [above[2] for above in found if above[2] > 1e-6]
    assert len(products) <= 0.2 * len(found)
    assert max(products, default=0.0) < 0.05
