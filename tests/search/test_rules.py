"""Searches under rules against the enumeration of all nests that keep them, on random small machines.

The enumeration's own filter looks at loops, the array's place and the places of holds as numbers; it shares nothing
with `nest/ruled.py`. An array without spatial loops may stand anywhere: the enumeration lists all of its places.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from experiments.validation.networks import conv, linear
from hwsim.errors import InfeasibleMapping
from hwsim.evaluate import main
from hwsim.machine.load import load_accelerator, shipped_specs
from hwsim.machine.parts import OPERANDS, Accelerator, Memory, Operand
from hwsim.machine.ruled_levels import alternatives
from hwsim.machine.rules import REST, Limit, Rule, Rules
from hwsim.machine.rules_file import load_rules
from hwsim.nest.count import count_accesses
from hwsim.nest.legal import factor_problems, tile_bits, validate
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal
from hwsim.nest.points import relevant_dims
from hwsim.nest.ruled import broken_rules
from hwsim.network.bits import assign_bits
from hwsim.network.layer import Layer
from hwsim.network.workload import Workload
from hwsim.pricing.layer import price
from hwsim.pricing.unit_prices import unit_prices
from hwsim.search.layer import search
from hwsim.search.network import OwnSchedule, plan_network
from hwsim.search.objective import Objective, value_of
from hwsim.search.proof.certify import certified_search
from hwsim.search.proof.native import why_no_kernel
from hwsim.search.result import Effortful
from hwsim.search.space.problem import Problem
from tests.search.test_search_exhaustive import nest, small_machine, uneven_layer, unrollings
from tests.small_workloads import residual
from tests.strategies import drawn_conv, prime_factors, primes

Places = dict[tuple[str, Operand], int]  # (memory, operand): loops that its hold stands above


def tiny_layer(rng: random.Random) -> Layer:
    """A convolution of at most three prime factors."""

    def bounds() -> dict[str, int]:
        dims = rng.sample(("K", "C", "P", "Q", "R", "G"), k=rng.randint(1, 3))
        return {dim: rng.choice((2, 2, 3, 4)) for dim in dims}

    return drawn_conv(rng, bounds, lambda loops: 2 <= prime_factors(loops) <= 3, dilations=())


def with_bypass(rng: random.Random, machine: Accelerator) -> Accelerator:
    """The machine, some operands of which may go past some memories."""
    nodes = [
        dataclasses.replace(node, bypass=tuple(o for o in node.keeps if rng.random() < 0.3))
        if isinstance(node, Memory) and node is not machine.outermost
        else node
        for node in machine.hierarchy
    ]
    return dataclasses.replace(machine, hierarchy=tuple(nodes))


def random_limit(rng: random.Random) -> Limit:
    return rng.choice((Limit(1), Limit(2), Limit(3), Limit(2, exact=False), Limit(None), Limit(3, exact=False)))


def random_rules(rng: random.Random, layer: Layer, machine: Accelerator) -> Rules:
    """Rules for one to three levels, of which not all contradict each other."""
    dims = [dim for dim, n in layer.loops.as_dict().items() if n > 1]
    found: list[Rule] = []
    for node in rng.sample(machine.hierarchy, k=rng.randint(1, min(3, len(machine.hierarchy)))):
        array = not isinstance(node, Memory)
        order = tuple(rng.sample(dims, k=rng.randint(0, len(dims)))) if rng.random() < 0.6 else ()
        if order and rng.random() < 0.5:
            place = rng.randint(0, len(order))
            order = (*order[:place], REST, *order[place:])
        factors = tuple((dim, random_limit(rng)) for dim in dims if rng.random() < 0.35)
        rule = Rule(node.name, order=order, factors=factors)
        if array and rng.random() < 0.6:
            axis = rng.choice(node.axes).name
            rule = dataclasses.replace(rule, unroll=((axis, ((rng.choice(dims), random_limit(rng)),)),))
        if array and rng.random() < 0.3:
            rule = dataclasses.replace(rule, min_use=rng.choice((0.5, 1.0)))
        if not array and node is not machine.outermost:
            if rng.random() < 0.4:
                rule = dataclasses.replace(rule, tile=((rng.choice(dims), random_limit(rng)),))
            if node.bypass and rng.random() < 0.5:
                rule = dataclasses.replace(rule, **{rng.choice(("keep", "bypass")): node.bypass[:1]})
        found.append(rule)
    levels = [rule.level for rule in found if rule.has_loops]
    above = machine.hierarchy.index(machine.arrays[0])
    inside = {m.name for m in machine.memories if machine.hierarchy.index(m) > above}
    if machine.arrays[0].name in levels and inside & set(levels):  # loops inside the array have one rule,
        if rng.random() < 0.5:
            return tuple(rule for rule in found if rule.level not in inside)
        never = tuple((dim, Limit(1)) for dim in dims if rng.random() < 0.5)  # or may not run outside the memories'
        found = [dataclasses.replace(rule, order=(), factors=never) if rule.level == machine.arrays[0].name else rule
                 for rule in found]  # fmt: skip
    return tuple(found)


def still_rules(rng: random.Random, layer: Layer, machine: Accelerator) -> Rules:
    """Loops that may not run inside some memories, and orders: what is reused often runs outside its memory then."""
    dims = [dim for dim, n in layer.loops.as_dict().items() if n > 1]
    found: list[Rule] = []
    for memory in machine.memories:
        factors = tuple((dim, Limit(1)) for dim in dims if rng.random() < 0.4)
        order = tuple(rng.sample(dims, k=rng.randint(0, len(dims)))) if rng.random() < 0.4 else ()
        found.append(Rule(memory.name, order=order, factors=factors))
    return tuple(rule for rule in found if rule.has_loops)


# --- the enumeration --------------------------------------------------------------------------------------------------


def choices(order: Sequence[Node], cut: int, operand: Operand, machine: Accelerator) -> Iterator[Places]:
    """Every place of an operand's holds, left out where it may go past a memory."""
    above = machine.hierarchy.index(machine.arrays[0])
    memories = [m for m in machine.memories[1:] if operand in m.keeps]
    for held in itertools.product(*((True, False) if operand in m.bypass else (True,) for m in memories)):
        mine = [m for m, kept in zip(memories, held, strict=True) if kept]
        ranges = [range(cut, len(order) + 1) if machine.hierarchy.index(m) < above else range(cut + 1) for m in mine]
        for places in itertools.product(*ranges):
            if list(places) == sorted(places, reverse=True):
                yield {(m.name, operand): place for m, place in zip(mine, places, strict=True)}


def may_run(limit: Limit, factor: int, left: int) -> bool:
    if limit.most is None:
        return factor == left
    return factor == min(limit.most, left) if limit.exact else factor <= limit.most


def keeps(layer, machine, rules, order, cut, spatial, places: Places) -> bool:  # type: ignore[no-untyped-def]
    """Whether a nest keeps rules: loops by number, the innermost is 0; `cut` of them in the array."""
    depth = {m.name: i for i, m in enumerate(reversed(machine.memories))}
    above = machine.hierarchy.index(machine.arrays[0])
    segment = {m.name: int(machine.hierarchy.index(m) < above) for m in machine.memories}
    around = [min([len(depth) - 1, *(depth[m] for (m, _), p in places.items() if p > i)]) for i in range(len(order))]
    bounds, array = layer.loops.as_dict(), machine.arrays[0]

    def side(axis: str | None, dim: str) -> int:
        return math.prod(s.factor for s in spatial if s.dim == dim and axis in (None, s.axis))

    for rule in rules:
        if any((rule.level, o) not in places for o in rule.keep) or any((rule.level, o) in places for o in rule.bypass):
            return False
        for axis, limits in rule.unroll:
            size = next(a.size for a in array.axes if a.name == axis)
            for dim, limit in limits:
                wish = min(size, bounds[dim], limit.most or size)
                exact = limit.exact or limit.most is None
                steps = [math.ceil(bounds[dim] / n) for n in (side(axis, dim), wish)]
                if side(axis, dim) > wish or (exact and steps[0] != steps[1]):
                    return False
        if math.prod(s.factor for s in spatial) < rule.min_use * array.size:
            return False
        for dim, limit in rule.tile:
            for (name, operand), place in places.items():
                if name == rule.level and dim in relevant_dims(operand):
                    extent = math.prod(t.factor for t in order[:place] if t.dim == dim)
                    extent *= side(None, dim) if segment[name] else 1
                    if not may_run(limit, extent, bounds[dim]):
                        return False
        if not rule.has_loops:
            continue
        if rule.level == array.name:
            theirs = {depth[other.level] for other in rules if other.has_loops and not segment.get(other.level, 1)
                      and any(name == other.level for name, _ in places)}  # fmt: skip
            mine, first = [i for i in range(cut) if around[i] not in theirs], 0
        else:
            if rule.level != machine.outermost.name and not any(name == rule.level for name, _ in places):
                continue
            own = range(cut, len(order)) if segment[rule.level] else range(cut)
            mine = [i for i in own if around[i] == depth[rule.level]]
            first = next((i for i in own if around[i] >= depth[rule.level]), own.stop)
        names = [order[i].dim if order[i].dim in rule.order else REST for i in mine]
        listed = [rule.order.index(name) for name in names if name in rule.order]
        if listed != sorted(listed):
            return False
        for dim, limit in rule.factors:
            inside = math.prod(order[i].factor for i in range(first) if order[i].dim == dim)
            total = math.prod(t.factor for t in order if t.dim == dim)
            if not may_run(limit, math.prod(order[i].factor for i in mine if order[i].dim == dim), total // inside):
                return False
    return True


def enumerated(layer: Layer, machine: Accelerator, rules: Rules) -> dict[str, float]:
    """Least energy, latency and product over all nests of perfect factors that keep the rules; infinite without any."""
    unit = unit_prices(layer, machine)
    limits = {m.name: m.size_bits or 0 for m in machine.memories[1:]}
    best = dict.fromkeys(("energy", "latency", "edp"), math.inf)
    for spatial, rest in unrollings(layer, machine.arrays[0], remainders=False):
        loops = [Temporal(dim, p) for dim, n in rest.items() for p in primes(n)]
        for order in sorted(set(itertools.permutations(loops)), key=str):
            for cut in range(len(order) + 1):
                for places, energy, cycles in nests(layer, machine, order, cut, spatial, unit, limits):
                    if keeps(layer, machine, rules, order, cut, spatial, places):
                        found = {"energy": energy, "latency": cycles, "edp": energy * cycles}
                        best = {name: min(best[name], value) for name, value in found.items()}
    return best


def nests(layer, machine, order, cut, spatial, unit, limits):  # type: ignore[no-untyped-def]
    """(places of holds, energy, cycles) of every nest of one order that fits."""
    per_operand = {operand: list(choices(order, cut, operand, machine)) for operand in OPERANDS}
    costs: dict[Operand, list[tuple[Places, float, dict[str, int]]]] = {operand: [] for operand in OPERANDS}
    fixed = cycles = 0.0
    for i in range(max(map(len, per_operand.values()))):
        mine = {operand: found[min(i, len(found) - 1)] for operand, found in per_operand.items()}
        holds = [(p, Hold(m, (o,))) for places in mine.values() for (m, o), p in places.items()]
        mapping = nest(order, cut, spatial, holds, machine)
        if list(factor_problems(mapping, layer)):
            return
        counts = count_accesses(layer, mapping, machine)
        cost = price(layer, counts, machine)
        cycles = float(cost.latency_cycles)
        fixed = unit.fixed_pj + layer.macs * unit.mac_pj + cost.energy_pj.get("static", 0.0)
        for operand, found in per_operand.items():
            if i < len(found):
                energy = sum(
                    t.reads * unit.traffic_pj[t.memory, operand, t.kind, "read"]
                    + t.writes * unit.traffic_pj[t.memory, operand, t.kind, "write"]
                    for t in counts.traffic
                    if t.operand == operand
                )
                sizes = {m.name: tile_bits(mapping, layer, machine, m).get(operand, 0) for m in machine.memories[1:]}
                costs[operand].append((found[i], energy, sizes))
    for combination in itertools.product(*costs.values()):
        if all(sum(sizes[name] for _, _, sizes in combination) <= limit for name, limit in limits.items()):
            places = {key: place for mine, _, _ in combination for key, place in mine.items()}
            yield places, fixed + sum(energy for _, energy, _ in combination), cycles


# --- the comparison ---------------------------------------------------------------------------------------------------


def proven(
    layer: Layer, machine: Accelerator, rules: Rules, objective: str, remainders: bool = False
) -> tuple[float, float]:
    """(best price, lower bound) of the proof; infinite where no mapping keeps the rules."""

    def value(mapping: Mapping) -> float | None:
        broken = broken_rules(mapping, layer, machine, rules)
        assert not validate(mapping, layer, machine)
        assert not broken, f"the proof wrote a nest that breaks a rule: {broken}\n{mapping.nodes}"
        cost = price(layer, count_accesses(layer, mapping, machine), machine)
        energy, cycles = cost.total_energy_pj, float(cost.latency_cycles)
        return {"energy": energy, "latency": cycles, "edp": energy * cycles}[objective]

    best, bound = math.inf, math.inf
    for choice in alternatives(rules, machine):
        problem = Problem(layer, machine, rules=choice)
        assert not why_no_kernel(problem)
        hunt = certified_search(problem, objective, value, remainders)
        assert hunt is not None
        proof = hunt.run(0.0, math.inf, best)
        assert proof.finished or remainders
        best, bound = min(best, hunt.best), min(bound, proof.lower_bound)
    return best, bound


def compare(seed: int, some_rules: Callable[[random.Random, Layer, Accelerator], Rules] = random_rules) -> bool:
    """Whether some nest keeps the rules; asserts that the proof agrees."""
    rng = random.Random(seed)
    layer, machine = tiny_layer(rng), with_bypass(rng, small_machine(rng))
    rules = some_rules(rng, layer, machine)
    wanted = enumerated(layer, machine, rules)
    text = f"seed {seed}: {layer.loops}\n{machine.hierarchy}\n{rules}"
    for objective, expected in wanted.items():
        best, bound = proven(layer, machine, rules, objective)
        assert best == pytest.approx(expected, rel=1e-6), f"{objective}, {text}"
        assert bound == pytest.approx(expected, rel=1e-6), f"{objective}, {text}"
    return wanted["energy"] < math.inf


@pytest.mark.parametrize("seed", range(12))
def test_proof_under_rules_equals_the_enumeration_of_nests_that_keep_them(seed: int) -> None:
    compare(seed)


@pytest.mark.parametrize("seed", [16, 55, 94, 104, 107, 110, 145])
def test_what_a_memory_reuses_may_run_outside_it(seed: int) -> None:
    """A loop that an operand does not see costs it nothing right outside its memory, where rules ban it inside."""
    assert compare(seed, still_rules)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1300))
def test_proof_under_rules_of_loops_that_stand_still_equals_the_enumeration(seed: int) -> None:
    compare(seed, still_rules)


@pytest.mark.parametrize("seed", [118, 192, 206, 361, 437])
def test_loops_that_may_not_run_between_an_array_and_its_memories(seed: int) -> None:
    assert compare(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 400))
def test_proof_under_rules_equals_the_enumeration_on_300_instances(seed: int) -> None:
    compare(seed)


@pytest.mark.parametrize("seed", range(6))
def test_every_effort_keeps_the_rules_and_none_is_better_than_the_enumeration(seed: int) -> None:
    rng = random.Random(seed)
    layer, machine = tiny_layer(rng), with_bypass(rng, small_machine(rng))
    rules = random_rules(rng, layer, machine)
    wanted = enumerated(layer, machine, rules)["energy"]
    for effort in ("quick", "perfect", "proven"):
        if wanted == math.inf and effort != "proven":
            with pytest.raises(InfeasibleMapping):
                search(layer, machine, effort="perfect", rules=rules)
        elif wanted < math.inf:
            found = search(layer, machine, effort=effort, rules=rules)
            assert not broken_rules(found.mapping, layer, machine, rules)
            assert found.certificate.lower_bound <= wanted * (1 + 1e-6)
            assert effort == "quick" or found.cost.total_energy_pj <= wanted * (1 + 1e-6)


@pytest.mark.parametrize("seed", range(30, 34))
def test_bounds_with_remainders_hold_under_rules(seed: int) -> None:
    rng = random.Random(seed)
    layer, machine = (
        uneven_layer(rng, lambda loops: prime_factors(loops) <= 3),
        small_machine(rng),
    )
    rules = random_rules(rng, layer, machine)
    for objective, least in enumerated(layer, machine, rules).items():
        best, bound = proven(layer, machine, rules, objective, remainders=True)
        assert best <= least * (1 + 1e-6)
        assert bound <= best * (1 + 1e-9)


def eyeriss_layer() -> Layer:
    return conv("conv", 16, 32, 14, 3)


def test_rules_that_exclude_each_other_are_named_with_their_places(tmp_path: Path) -> None:
    machine = load_accelerator("eyeriss_v1")
    path = tmp_path / "rules.yaml"
    path.write_text(
        "constraints:\n"
        "  - level: filter_spad\n    tile: {K: 16}\n"
        "  - level: pe\n    order: [S, K]\n    factors:\n      S: all\n      K: 1\n"
    )
    rules = load_rules(path, machine)
    with pytest.raises(InfeasibleMapping) as caught:
        search(eyeriss_layer(), machine, effort="proven", rules=rules)
    text = str(caught.value)
    assert "2 constraints cannot be met together" in text
    assert f"{path}:3: constraints[0].tile.K: K 16 in a tile of filter_spad" in text
    assert f"{path}:8: constraints[1].factors.K: K 1 at pe" in text
    assert "order" not in text


def test_rules_may_ask_for_unrollings_that_do_not_divide() -> None:
    machine = load_accelerator("eyeriss_v1")
    rules = (Rule("pe", unroll=(("columns", (("P", Limit(7)),)),), min_use=7 / 168),)
    found = search(conv("conv", 4, 4, 55, 1), machine, effort="perfect", rules=rules)
    assert [n.factor for n in found.mapping.loops if isinstance(n, Spatial) and n.dim == "P"] == [7]


def test_one_impossible_rule_is_named_alone() -> None:
    rules = (Rule("filter_spad", tile=(("C", Limit(512)), ("K", Limit(8)))), Rule("pe", order=("S", "C")))
    layer = conv("conv", 512, 32, 14, 3)
    with pytest.raises(
        InfeasibleMapping, match=r"1 constraint cannot be met \(tiles divide the loops\):\nfilter_spad.tile.C"
    ):
        search(layer, load_accelerator("eyeriss_v1"), effort="perfect", rules=rules)


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "eyeriss_v1", "tpu_v1", "gemmini_16x16", "nvdla_large", "nvdla_small",
        "ethos_u55_256", "ethos_u65_512", "ethos_u85_256",
    ],
)  # fmt: skip
def test_own_schedules_run_all_kinds_of_layers_and_are_never_better_than_the_best(name: str) -> None:
    machine = load_accelerator(name)
    layers = [
        conv("a", 3, 16, 16, 7, 2),
        conv("b", 16, 16, 8, 3, groups=16),
        conv("c", 24, 40, 14, 1),
        linear("d", 64, 10),
    ]
    for layer in layers:
        own = search(layer, machine, effort="perfect", rules=machine.constraints)
        best = search(layer, machine, effort="perfect")
        assert not broken_rules(own.mapping, layer, machine, machine.constraints)
        assert own.cost.total_energy_pj >= best.cost.total_energy_pj * (1 - 1e-9)


def test_eight_shipped_specs_have_schedules_of_their_own() -> None:
    own = {name for name in shipped_specs() if load_accelerator(name).constraints}
    ethos = {"ethos_u55_256", "ethos_u65_512", "ethos_u85_256"}
    assert own == ethos | {"eyeriss_v1", "tpu_v1", "gemmini_16x16", "nvdla_large", "nvdla_small"}


def test_ethos_finishes_the_sums_of_a_block_before_it_leaves() -> None:
    machine = load_accelerator("ethos_u55_256")
    mapping = search(conv("c", 64, 64, 28, 3), machine, "latency", rules=machine.constraints).mapping
    block = mapping.hold_index("shram", "output")
    assert block is not None
    outside = [node.dim for node in mapping.nodes[:block] if isinstance(node, Temporal) and node.factor > 1]
    assert not {"C", "R", "S"} & set(outside)


def test_row_stationary_keeps_filter_rows_in_the_array_and_output_rows_whole() -> None:
    machine = load_accelerator("eyeriss_v1")
    found = search(eyeriss_layer(), machine, effort="perfect", rules=machine.constraints)
    assert [n.factor for n in found.mapping.loops if isinstance(n, Spatial) and n.dim == "R"] == [3]
    inside = found.mapping.nodes[max(i for i, n in enumerate(found.mapping.nodes) if isinstance(n, Spatial)) :]
    columns = math.prod(n.factor for n in inside if isinstance(n, Temporal) and n.dim == "Q")
    assert columns == 14


def test_the_report_shows_both_schedules(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    Workload("net", [eyeriss_layer()]).save(path)
    reports = []
    for options in ([], ["--constraints", "own"]):
        assert main([str(path), "eyeriss_v1", "--quick", "--json", *options]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    free, own = reports
    assert (
        free["schedules"]["best"]["energy_pj"] == free["totals"]["energy_pj"] == own["schedules"]["best"]["energy_pj"]
    )
    assert free["schedules"]["own"] == own["schedules"]["own"]
    assert own["totals"]["energy_pj"] == own["schedules"]["own"]["energy_pj"]
    assert main([str(path), "eyeriss_v1", "--quick"]) == 0
    assert re.search(r"schedule own [0-9.]+ µJ in [0-9,]+ cycles: [+-]", capsys.readouterr().out)


OWN_SPECS = ("eyeriss_v1", "tpu_v1", "gemmini_16x16", "nvdla_small")


@pytest.mark.long
@pytest.mark.parametrize("objective", ["energy", "latency", "edp"])
@pytest.mark.parametrize("name", OWN_SPECS)
def test_no_effort_is_worse_than_the_own_schedule_or_a_weaker_effort(name: str, objective: Objective) -> None:
    """Own schedules are searched under rules, and may leave maps on chip that the free search's mappings do not."""
    machine, network = load_accelerator(name), assign_bits(residual(), "W4A4")
    values: list[float] = []
    efforts: tuple[Effortful, ...] = ("quick", "auto")
    for effort in efforts:
        own = OwnSchedule(network, machine, {})
        plan, mine = plan_network(network, machine, objective, effort=effort), own.plan(objective, effort=effort)
        assert mine is not None
        assert plan.value(objective) <= mine.value(objective)
        values.append(plan.value(objective))
    assert values[1] <= values[0]


@pytest.mark.parametrize("objective", ["energy", "latency"])
def test_the_quick_search_under_rules_is_near_the_proof(objective: Objective) -> None:
    """NVDLA's own orders: the quick search's first nest that keeps them took 20 times the cycles of the best."""
    machine = load_accelerator("nvdla_small")
    for layer in (conv("a", 144, 32, 28, 1), conv("b", 16, 96, 56, 1), conv("c", 32, 32, 14, 3, groups=32)):
        quick, proven = (
            search(layer, machine, objective, effort=effort, rules=machine.constraints) for effort in ("quick", "auto")
        )
        assert value_of(quick.cost, objective) <= 1.2 * value_of(proven.cost, objective)
