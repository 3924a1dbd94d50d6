"""Depth-first groups: their bills against layers by themselves, their choice against enumeration of everything."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator

import pytest

from hwsim.errors import WorkloadError
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.nest.count import count_accesses
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Mapping
from hwsim.network.layer import Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.fused import Cut, Steps, distinct_steps, memory_taken, split, whole_words
from hwsim.pricing.groups import Group
from hwsim.pricing.latency import port_cycles, port_loads
from hwsim.pricing.layer import TIMED, LayerCost, memory_parts, price_fused, price_stage
from hwsim.pricing.moves import Moved, fixed_moves
from hwsim.pricing.offsets import offset_cost
from hwsim.pricing.stages import effective_layer
from hwsim.pricing.tiles import filled_once, held_still, tile_layer, weight_memory, weight_pool
from hwsim.search.fusion.bound import GroupsBound
from hwsim.search.fusion.choices import Choice
from hwsim.search.fusion.costs import GroupCosts
from hwsim.search.fusion.groups import cuts_of, network_group, weights_beside
from hwsim.search.fusion.plan import alone, fused_plan
from hwsim.search.fusion.programme import Programme
from hwsim.search.fusion.tiles import Tiles
from hwsim.search.joint.optimum import Optimum
from hwsim.search.joint.programme import seen
from hwsim.search.joint.schedule import Schedule
from hwsim.search.joint.staircase import Weights
from hwsim.search.network import Plan, plan_network
from hwsim.search.objective import OBJECTIVES
from hwsim.search.quick.neighbours import trimmed
from tests.small_workloads import chain, conv, max_pool, pooled, residual

ENERGY, LATENCY = Weights(0.0), Weights(None)


def machine(name: str = "simba", home_bits: int | None = None) -> Accelerator:
    """A shipped machine, perhaps with another size of the maps' memory."""
    found = load_accelerator(name)
    if home_bits is None:
        return found
    home = found.activation_memory
    nodes = tuple(
        dataclasses.replace(node, size_bits=home_bits) if node is home else node
        for node in found.hierarchy  # type: ignore[type-var]
    )
    return dataclasses.replace(found, hierarchy=nodes)  # type: ignore[arg-type]


def tiles_of(workload: Workload, accelerator: Accelerator) -> tuple[Tiles, Plan]:
    """Nests of a network's tiles, with the quick plan's nests known."""
    plan = plan_network(workload, accelerator, effort="quick")
    optimum = Optimum(Schedule(workload, accelerator), None)
    optimum.add((name, found.mapping) for name, found in plan.found.items())
    return Tiles(optimum), plan


def whole_group(tiles: Tiles) -> Group:
    """All stages of a network as one group."""
    group = network_group(tiles.optimum.schedule, 0, len(tiles.optimum.schedule.stages))
    assert group is not None
    return group


def some_choice(tiles: Tiles, group: Group, cut: Cut, *, stay: bool) -> Choice:
    """The first nests that serve."""
    steps = Steps(group, cut)
    nests: list[Mapping | None] = []
    for position, stage in enumerate(group.stages):
        if not stage.layer.has_macs:
            nests.append(None)
            continue
        tile = max(steps.tiles(position))
        for mapping in tiles.known(group.first + position, tile):
            bills = [tiles.bill(group.first + position, mapping, each) for each in steps.tiles(position)]
            if all(bill is not None and (bill.can_stay or not stay) for bill in bills):
                nests.append(mapping)
                break
    assert len(nests) == len(group.stages)
    staying = frozenset(p for p, nest in enumerate(nests) if nest is not None) if stay else frozenset[int]()
    return Choice(group, cut, tuple(nests), staying)


@pytest.mark.parametrize("spec", ["simba", "eyeriss_v1", "ethos_u55_256"])
@pytest.mark.parametrize("workload", [chain(), residual(), pooled()], ids=lambda w: w.name)
def test_one_tile_costs_what_the_layers_cost_with_their_maps_on_chip(spec: str, workload: Workload) -> None:
    """One step, all tensors on chip whole: the sum of the layers' bills, but for static power."""
    accelerator = machine(spec)
    tiles, _ = tiles_of(workload, accelerator)
    group = whole_group(tiles)
    high, wide = group.maps[-1].shape[2:]
    choice = some_choice(tiles, group, Cut(high, wide), stay=False)
    cost = choice.price(tiles, group.names)
    assert cost is not None
    for position, stage in enumerate(group.stages):
        nest = choice.mappings[position]
        bill = tiles.bill(position, nest, (stage.output.shape[2], stage.output.shape[3]))
        assert bill is not None
        counts = None
        if nest is not None:
            layer = effective_layer(stage)
            counts = count_accesses(layer, trimmed(nest, layer), accelerator)
        alone_ = price_stage(stage, accelerator, counts, group.names)
        wanted = sum(part.energy_pj for part in alone_.parts if part.component not in TIMED)
        found = sum(p.energy_pj for p in cost.layers[stage.layer.name].parts if p.component not in TIMED)
        assert found == wanted, stage.layer.name
        for follower in stage.fused:
            behind = price_fused(follower, accelerator, stage, group.names)
            assert cost.layers[follower.name].total_energy_pj == behind.total_energy_pj


@pytest.mark.parametrize("halos", ["kept", "recomputed"])
@pytest.mark.parametrize("images", [1, 3])
def test_steps_that_are_alike_are_all_steps(halos: str, images: int) -> None:
    tiles, _ = tiles_of(chain(images=images), machine())
    group = whole_group(tiles)
    for cut in (Cut(1, 8, halos), Cut(2, 3, halos), Cut(3, 5, halos), Cut(8, 8, halos)):
        steps = Steps(group, cut)
        alike = list(distinct_steps(group, steps))
        assert sum(step.times for step in alike) == steps.runs
        assert sum(step.first for step in alike) == 1
        assert sum(step.times for step in alike if step.fills) == steps.columns.steps * images
        for position in range(len(group.stages)):
            made: dict[tuple[int, int], int] = {}
            for step in alike:
                tile = step.tiles[group.places[position]]
                if all(tile):
                    made[tile] = made.get(tile, 0) + step.times
            assert made == steps.tiles(position)


@pytest.mark.parametrize("spec", ["simba", "eyeriss_v1"])
@pytest.mark.parametrize("columns", [8, 3])
def test_a_group_moves_its_ends_and_weights_through_the_outermost_memory_and_nothing_else(
    spec: str, columns: int
) -> None:
    """Input, with the columns that strips share again, output, weights and constants once; weights again if they go."""
    accelerator = machine(spec)
    workload = chain()
    tiles, _ = tiles_of(workload, accelerator)
    group = whole_group(tiles)
    cut = Cut(2, columns)
    steps = Steps(group, cut)
    width = 16 if spec == "eyeriss_v1" else 8
    weights = sum(layer.weight.elements for layer in workload if layer.weight is not None)
    brought = int(steps.rows.made[:, 0].sum() * steps.columns.made[:, 0].sum()) * 4
    for stay in (True, False):
        cost = some_choice(tiles, group, cut, stay=stay).price(tiles, frozenset())
        assert cost is not None
        moved = [m for layer in cost.layers.values() for m in layer.moved if m.memory == accelerator.outermost.name]
        by_operand = {
            operand: sum(m.bits for m in moved if m.operand == operand) // width for operand in ("input", "output")
        }
        assert by_operand["output"] == group.maps[-1].elements
        assert by_operand["input"] == brought
        if columns == 8:
            assert brought == group.maps[0].elements
        total = sum(m.bits for m in moved if m.operand == "weight") // width
        runs = [sum(steps.tiles(p).values()) for p in range(4)]
        again = sum(n * layer.weight.elements for n, layer in zip(runs, workload, strict=True) if layer.weight)
        assert total == weights if stay else total >= again


def test_time_of_a_group_lies_between_its_busiest_resource_and_its_stages_in_turn() -> None:
    tiles, _ = tiles_of(chain(), machine())
    group = whole_group(tiles)
    for cut in (Cut(1, 8), Cut(2, 4), Cut(8, 8)):
        choice = some_choice(tiles, group, cut, stay=True)
        cost = choice.price(tiles, frozenset())
        assert cost is not None
        busy: dict[str, int] = {}
        for layer in cost.layers.values():
            for name, n in layer.cycles:
                busy[name] = busy.get(name, 0) + n
        assert max(busy.values()) <= cost.latency_cycles
        assert sum(layer.latency_cycles for layer in cost.layers.values()) == cost.latency_cycles
        assert sum(layer.total_energy_pj for layer in cost.layers.values()) == cost.energy_pj


@pytest.mark.parametrize(("taps", "stride", "size"), [(3, 2, 13), (3, 2, 12), (3, 1, 9), (2, 2, 8), (1, 2, 8)])
def test_a_pool_keeps_the_rows_that_its_next_window_reads_again(taps: int, stride: int, size: int) -> None:
    """Row by row: windows of `taps` rows every `stride`, each row of the pooled map made once."""
    stem = conv("stem", Tensor("x", (1, 4, size, size), 8), 8)
    pool = max_pool("pool", stem.output, taps, stride)
    group = network_group(Schedule(Workload("stem", (stem, pool)), machine()), 0, 2)
    assert group is not None
    steps = Steps(group, Cut(1, pool.output.shape[3]))
    place = group.places[0]
    before = 0
    for y in range(pool.output.shape[2]):
        first, end = max(0, y * stride - taps // 2), min(size, y * stride - taps // 2 + taps)
        assert steps.rows.made[y, place] == end - before
        assert steps.rows.kept[y, place] == end - min(first, before)
        before = end


@pytest.mark.parametrize("change", [
    {"kernel": (3, 2)}, {"kernel": (0, 9)}, {"stride": (1, 2)}, {"padding": (9, 0, 1, 1)}, {"padding": (1, 4, 1, 1)},
])  # fmt: skip
def test_a_window_that_contradicts_its_sizes_is_refused(change: dict[str, tuple[int, ...]]) -> None:
    pool = max_pool("pool", Tensor("x", (1, 4, 12, 12), 8))
    with pytest.raises(WorkloadError, match="layer pool: "):
        Workload("bad", (dataclasses.replace(pool, **change),))  # type: ignore[arg-type]


def test_weights_held_still_are_filled_once_and_the_nest_stays_legal() -> None:
    accelerator = machine()
    tiles, plan = tiles_of(chain(), accelerator)
    for index, stage in enumerate(tiles.optimum.schedule.stages):
        mapping = plan.found[stage.layer.name].mapping
        still = held_still(mapping, accelerator)
        assert filled_once(still, weight_memory(still, accelerator))
        problems = validate(still, tile_layer(stage, (16, 16) if index < 3 else (8, 8)), accelerator)
        assert not problems or all("holds" in problem for problem in problems)  # only capacity may be in the way


# --- a group's bill, step after step ----------------------------------------------------------------------------------


@dataclasses.dataclass
class Ledger:
    """What a group has spent so far."""

    pj: float = 0.0
    cycles: int = 0
    words: collections.Counter[tuple[str, str, bool]] = dataclasses.field(default_factory=collections.Counter)

    def move(self, moved: Iterable[Moved], accelerator: Accelerator, sign: int = 1) -> None:
        """Words over ports, with their energy."""
        found = tuple(moved)
        self.count(found, sign)
        self.pj += sign * sum(part.energy_pj for part in memory_parts(found, accelerator))

    def count(self, moved: Iterable[Moved], sign: int = 1) -> None:
        """Words over ports."""
        for m in moved:
            self.words[m.memory, m.operand, True] += sign * m.read_words
            self.words[m.memory, m.operand, False] += sign * m.write_words

    def run(self, costs: Iterable[LayerCost], sign: int = 1) -> None:
        """Layers without what time alone costs."""
        for cost in costs:
            self.pj += sign * sum(part.energy_pj for part in cost.parts if part.component not in TIMED)
            self.count(cost.moved, sign)


def step_after_step(choice: Choice, tiles: Tiles, resident: frozenset[str]) -> Ledger:
    """Every image, strip and step by itself, in plain loops; see docs/counting.md."""
    group, steps, accelerator, spent = choice.group, Steps(choice.group, choice.cut), tiles.machine, Ledger()
    bills, outer, home = choice.bills(tiles), accelerator.outermost, accelerator.activation_memory
    assert home is not None
    for image, strip, step in itertools.product(
        range(group.images), range(steps.columns.steps), range(steps.rows.steps)
    ):
        very_first = image == strip == step == 0
        rows, columns = steps.rows, steps.columns
        entered: list[Moved] = []
        for place, tensor in enumerate(group.maps):
            if tensor.name in resident:
                continue
            made = int(rows.made[step, place] * columns.made[strip, place]) * tensor.shape[1]
            fresh = int(rows.fresh[step, place] * columns.fresh[strip, place]) * tensor.shape[1]
            comes, leaves = group.maker[place] < 0, group.lines[0].maps[place].leaves
            if comes and made:
                entered += [
                    whole_words(outer, "input", tensor.bits, made, 0),
                    whole_words(home, "input", tensor.bits, 0, made),
                ]
            if not comes and leaves and fresh:
                entered += [
                    whole_words(home, "output", tensor.bits, fresh, 0),
                    whole_words(outer, "output", tensor.bits, 0, fresh),
                ]
        if very_first:
            for tensor in group.wholes:
                if tensor.name not in resident:
                    n = tensor.elements
                    entered += [
                        whole_words(outer, "input", tensor.bits, n, 0),
                        whole_words(home, "input", tensor.bits, 0, n),
                    ]
        alone, waits, busy = 0, 0, collections.Counter[str]()
        for position, stage in enumerate(group.stages):
            place = group.places[position]
            tile = int(rows.made[step, place]), int(columns.made[strip, place])
            if not all(tile):
                continue
            bill = bills(position, tile)
            stays = position in choice.staying
            spent.run(bill.staying if stays else bill.bringing)
            if stays and very_first:
                largest = bills(position, max(steps.tiles(position)))
                spent.run(largest.bringing[:1])
                spent.run(largest.staying[:1], -1)
            cost = (bill.bringing if not stays or very_first else bill.staying)[0]
            times = dict(cost.cycles)
            for follower in bill.staying[1:]:
                for name, n in follower.cycles:
                    times[name] = times.get(name, 0) + (n if name != "vector" else 0)
            refills = sum(n for name, n in times.items() if name.endswith(" refill"))
            own = [n for name, n in cost.cycles if not name.endswith(" refill")]
            all_own = [n for name, n in times.items() if not name.endswith(" refill")]
            together = max if accelerator.overlap else sum
            start = cost.latency_cycles - refills - together(own)
            alone += together(all_own) + refills + start
            waits += refills + start
            busy.update({name: n for name, n in times.items() if not name.endswith(" refill")})
            if stage.layer.has_macs:
                layer = effective_layer(stage)
                for moved in fixed_moves(
                    layer, accelerator, offset_cost(layer, accelerator.capabilities), input_stays=True
                ):
                    if very_first or (moved.memory != home.name and not stays):
                        entered.append(moved)
        ports = port_cycles(port_loads(entered), accelerator, {})
        spent.move(entered, accelerator)
        busy.update(ports)
        if not accelerator.overlap:
            spent.cycles += alone + sum(ports.values())
        elif step == 0 or not home.double_buffered:
            spent.cycles += alone + max(ports.values(), default=0)
        else:
            spent.cycles += max(busy.values(), default=0) + waits
    return spent


CUTS = (Cut(1, 8), Cut(2, 3), Cut(3, 4, "recomputed"), Cut(1, 3, "recomputed"))


@pytest.mark.long
@pytest.mark.parametrize("stay", [True, False])
@pytest.mark.parametrize("buffers", ["as shipped", "single", "in turn"])
@pytest.mark.parametrize(("spec", "workload"), [
    ("simba", chain(images=2)), ("simba", residual(8)), ("eyeriss_v1", chain()), ("ethos_u55_256", residual(8)),
    ("ethos_u55_256", pooled()),
], ids=lambda v: getattr(v, "name", v))  # fmt: skip
def test_a_groups_bill_is_that_of_its_steps_one_after_the_other(
    spec: str, workload: Workload, buffers: str, stay: bool
) -> None:
    accelerator = machine(spec)
    if buffers == "in turn":
        accelerator = dataclasses.replace(accelerator, overlap=False)
    if buffers == "single":
        home = accelerator.activation_memory
        nodes = tuple(
            dataclasses.replace(node, double_buffered=False) if node is home else node  # type: ignore[type-var]
            for node in accelerator.hierarchy
        )
        accelerator = dataclasses.replace(accelerator, hierarchy=nodes)  # type: ignore[arg-type]
    tiles, _ = tiles_of(workload, accelerator)
    group, priced = whole_group(tiles), 0
    for cut in CUTS:
        choice = some_choice(tiles, group, cut, stay=stay)
        for resident in (frozenset[str](), frozenset({group.maps[0].name})):
            cost = choice.price(tiles, resident)
            if cost is None:
                continue
            priced += 1
            wanted = step_after_step(choice, tiles, resident)
            parts = [p.energy_pj for c in cost.layers.values() for p in c.parts if p.component not in TIMED]
            assert sum(parts) == pytest.approx(wanted.pj, rel=1e-12)
            assert cost.latency_cycles == wanted.cycles
            found = collections.Counter[tuple[str, str, bool]]()
            for moved in (m for c in cost.layers.values() for m in c.moved):
                found[moved.memory, moved.operand, True] += moved.read_words
                found[moved.memory, moved.operand, False] += moved.write_words
            assert +found == +wanted.words
    assert priced


def test_weights_that_stay_must_fit_beside_every_other_tile() -> None:
    """Where another stage's tiles and own weights leave less than the weights take, they may not stay."""
    accelerator = machine("simba")
    tiles, _ = tiles_of(chain(), accelerator)
    group, cut = whole_group(tiles), Cut(2, 8)
    choice = some_choice(tiles, group, cut, stay=True)
    steps, bills = Steps(group, cut), choice.bills(tiles)
    found = [bills(p, tile) for p in range(len(group.stages)) for tile in steps.tiles(p)]
    memory = found[0].memory
    assert {bill.memory for bill in found} == {memory}
    kept = [max(bills(p, tile).weight_bits for tile in steps.tiles(p)) for p in range(len(group.stages))]
    for staying in map(frozenset, itertools.chain.from_iterable(itertools.combinations(range(4), n) for n in range(5))):
        name, _ = weight_pool(accelerator, memory)
        bits = sum(kept[p] for p in staying)
        beside = 0
        for p in range(4):
            for tile in steps.tiles(p):
                bill = bills(p, tile)
                beside = max(beside, bill.others.get(name, 0) + (0 if p in staying else bill.weight_bits))
        for size in (bits + beside - 1, bits + beside):
            nodes = tuple(
                dataclasses.replace(node, size_bits=size) if node.name == memory else node  # type: ignore[type-var]
                for node in accelerator.hierarchy
            )
            tight = dataclasses.replace(accelerator, hierarchy=nodes)  # type: ignore[arg-type]
            taken = memory_taken(group, steps, bills, staying, tight)
            assert (taken is None) == (bool(staying) and size < bits + beside), (staying, size)
            if taken is not None:
                assert taken == max(bill.home_bits for bill in found)


def test_the_groups_time_is_split_in_whole_cycles_in_proportion() -> None:
    assert split(10, [1, 1, 1]) == [3, 3, 4]
    assert split(7, [0, 2, 5]) == [0, 2, 5]
    assert split(5, [0, 0]) == [0, 0]
    assert split(10**18 + 1, [1, 3]) == [(10**18 + 1) // 4, 10**18 + 1 - (10**18 + 1) // 4]


# --- the programme ----------------------------------------------------------------------------------------------------


def enumerated(programme: Programme, costs: GroupCosts, weights: Weights) -> float:
    """The least sum over all segmentations, cuts, ways to run them, and tensors that stay."""
    schedule = programme.schedule
    count = len(schedule.stages)
    singles = alone(costs.tiles.optimum, weights)
    least = math.inf
    for many in range(len(schedule.tenants) + 1):
        for chosen in itertools.combinations(schedule.tenants, many):
            best = [math.inf] * (count + 1)
            best[0] = 0.0
            for place in range(count):
                live = frozenset(t for t in chosen if t.born <= place <= t.last)
                mine, room = seen(schedule, place, live)
                if room is None or room >= 0:
                    best[place + 1] = min(best[place + 1], best[place] + singles(place, mine, room)[0])
                for group, value in groups_from(costs, place, chosen, weights, schedule.capacity_bits):
                    best[group.end] = min(best[group.end], best[place] + value)
            least = min(least, best[count])
    return least


def groups_from(
    costs: GroupCosts, place: int, chosen: tuple, weights: Weights, capacity: int
) -> Iterator[tuple[Group, float]]:
    """Every way to run every group that begins at a stage, with these tensors on chip."""
    for group in costs.groups.get(place, ()):
        inside = [t for t in chosen if group.first <= t.born and t.last < group.end]
        if inside:
            continue  # a tensor inside a group is a window, not whole
        live = [t for t in chosen if t.born < group.end and t.last >= place]
        mine = frozenset(t.name for t in live) & group.names
        room = capacity - sum(t.bits for t in live)
        for entry in costs.about(group, mine, weights).entries:
            assert entry.choice is not None or entry.home_bits > room, "not priced"
            if entry.choice is not None and entry.home_bits <= room:
                again = entry.choice.price(costs.tiles, mine)
                assert again is not None
                yield group, weights.pair(again.energy_pj, float(again.latency_cycles))[0]


@pytest.mark.long
@pytest.mark.parametrize("weights", [ENERGY, LATENCY], ids=["energy", "latency"])
@pytest.mark.parametrize("home_bits", [8 * 1024, 16 * 1024, 40 * 1024])
@pytest.mark.parametrize("workload", [chain(), residual(), pooled()], ids=lambda w: w.name)
def test_the_programme_is_the_enumeration_of_segments_cuts_and_tensors(
    workload: Workload, home_bits: int, weights: Weights
) -> None:
    tiles, _ = tiles_of(workload, machine("simba", home_bits))
    costs = GroupCosts(tiles)
    programme = Programme(tiles.optimum.schedule, costs, weights, alone(tiles.optimum, weights))
    way = programme.least(0.0)
    for known in list(costs.known.values()):  # what the path never asked for
        for fused in [entry for entry in known.entries if entry.choice is None]:
            costs.price(fused, weights)
    least = enumerated(programme, costs, weights)
    assert way.value[0] == pytest.approx(least, rel=1e-12)
    assert GroupsBound(tiles.optimum).value(weights.objective) <= least


def strided() -> Workload:
    """A map whose last row and column the next layer, one tap at a stride of two, does not read."""
    x = Tensor("x", (1, 4, 8, 8), 8)
    first = conv("first", x, 8)
    return Workload("strided", (first, conv("second", first.output, 16, taps=1, stride=2)))


@pytest.mark.long
@pytest.mark.parametrize("spec", ["simba", "eyeriss_v1", "ethos_u55_256", "tpu_v1", "bit_fusion"])
@pytest.mark.parametrize("workload", [chain(), residual(), pooled(), strided()], ids=lambda w: w.name)
def test_no_plan_lies_below_the_bound_of_all_schedules(spec: str, workload: Workload) -> None:
    for objective in OBJECTIVES:
        for home_bits in (None, 16 * 1024):
            accelerator = machine(spec, home_bits)
            plan = plan_network(workload, accelerator, objective, effort="quick")
            fused = fused_plan(workload, accelerator, plan, (), objective)
            optimum = Optimum(Schedule(workload, accelerator), None)
            optimum.add((name, found.mapping) for name, found in plan.found.items())
            bound = GroupsBound(optimum).value(objective)
            for known in (plan, fused):
                totals = known.cost.totals
                product = totals.energy_pj * totals.latency_cycles
                assert 0 < bound <= (product if objective == "edp" else known.value(objective))
            if fused.groups:
                assert fused.certificate is not None
                assert fused.certificate.lower_bound == bound


def test_lines_that_nobody_reads_are_left_out_of_the_bound() -> None:
    bound = GroupsBound(tiles_of(strided(), machine())[0].optimum)
    assert bound.made_whole == (False, True)


@pytest.mark.parametrize("objective", ["energy", "latency", "edp"])
def test_a_plan_with_groups_is_never_worse_and_pays_where_maps_do_not_fit(objective: str) -> None:
    accelerator = machine("simba", 24 * 1024)
    workload = chain(size=32)
    plan = plan_network(workload, accelerator, objective, effort="quick")  # type: ignore[arg-type]
    fused = fused_plan(workload, accelerator, plan, (), objective)  # type: ignore[arg-type]
    assert fused.value(objective) <= plan.value(objective)  # type: ignore[arg-type]
    assert fused.groups
    assert fused.cost.totals.outermost_traffic_bits < plan.cost.totals.outermost_traffic_bits
    assert sum(layer.total_energy_pj for layer in fused.cost.layers) == fused.cost.totals.energy_pj


def one_memory(home_bits: int) -> Accelerator:
    """All operands in one memory of such a size."""
    found = machine("spatz")
    memories = [dataclasses.replace(m, size_bits=home_bits) if m.name == "l1" else m for m in found.hierarchy]  # type: ignore[call-arg]
    return dataclasses.replace(found, hierarchy=tuple(memories))


def test_as_many_cuts_fit_beside_all_weights_where_maps_and_weights_share_a_memory() -> None:
    tiles, _ = tiles_of(chain(size=32), one_memory(96 * 1024))
    group, room = whole_group(tiles), tiles.optimum.schedule.capacity_bits
    beside = weights_beside(group, tiles.machine)
    assert beside == sum(stage.layer.weight.size_bits for stage in group.stages if stage.layer.weight is not None)
    cuts = list(cuts_of(group, tiles.machine, room))
    for columns in {outline.cut.columns for outline in cuts}:
        lines = [outline.held_bits(frozenset()) for outline in cuts if outline.cut.columns == columns]
        assert sum(bits <= room - beside for bits in lines) >= 2
    assert weights_beside(group, machine("simba")) == 0  # weights have memories of their own


def test_machines_without_a_home_for_maps_have_no_groups() -> None:
    workload, accelerator = chain(), machine("gemmini_16x16")
    plan = plan_network(workload, accelerator, effort="quick")
    assert fused_plan(workload, accelerator, plan, (), "energy") is plan


def test_a_search_in_which_no_group_pays_has_the_bound_of_all_schedules() -> None:
    """The bound without groups would claim too much: not every group was tried."""
    accelerator, workload = machine("ethos_u55_256"), chain()
    plan = plan_network(workload, accelerator, effort="auto")
    fused = fused_plan(workload, accelerator, plan, (), "energy")
    assert not fused.groups
    assert fused.cost == plan.cost
    assert plan.certificate is not None
    assert fused.certificate is not None
    assert "with and without depth-first groups" in fused.certificate.space
    assert fused.certificate.lower_bound < plan.certificate.lower_bound
