"""The bill of a depth-first group: tiles of its stages, what enters and leaves, constants and weights once or per tile.

Time: in a step every stage makes its tile. The first step of a strip fills the pipeline: its stages take turns. From
then on all are under way at once, and a step takes as long as the resource (MACs, a port, the vector unit) that all
stages together keep busy longest. Where the maps' memory is not double-buffered, or nothing overlaps, they take turns
throughout. Energy: tiles times what one costs. docs/counting.md has the equations.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np

from hwsim.machine.packing import words
from hwsim.machine.parts import Accelerator, Memory, Operand
from hwsim.nest.counts import Kind
from hwsim.nest.lines import Walk, recomputed, sliding
from hwsim.nest.points import Ints
from hwsim.pricing.groups import COLUMNS, ROWS, Group
from hwsim.pricing.latency import port_cycles, port_loads
from hwsim.pricing.layer import TIMED, LayerCost, Part, memory_parts, static_parts
from hwsim.pricing.moves import Moved, fixed_moves, moved_words
from hwsim.pricing.offsets import NO_OFFSET, offset_cost
from hwsim.pricing.shares import stream_shares
from hwsim.pricing.stages import effective_layer
from hwsim.pricing.tiles import Bill, Tile, home_of, weight_pool

Bills = Callable[[int, Tile], Bill]  # of a stage (position in the group) on a tile


@dataclass(frozen=True)
class Cut:
    """How a group runs: rows of its last map per step, columns per strip; halos of rows kept, or made anew.

    Strips make the columns they share anew.
    """

    rows: int
    columns: int
    halos: str = "kept"  # or "recomputed"


@dataclass(frozen=True)
class Steps:
    """Lines of all maps per step of a strip (rows) and per strip (columns)."""

    group: Group
    cut: Cut

    @cached_property
    def rows(self) -> Walk:
        """Steps of a strip."""
        walk = sliding if self.cut.halos == "kept" else recomputed
        return walk(self.group.lines[ROWS], self.cut.rows)

    @cached_property
    def columns(self) -> Walk:
        """Strips."""
        return recomputed(self.group.lines[COLUMNS], self.cut.columns)

    @property
    def runs(self) -> int:
        """Steps of all strips and images."""
        return self.rows.steps * self.columns.steps * self.group.images

    def tiles(self, stage: int) -> dict[Tile, int]:
        """Tiles of a stage with how often it makes them; empty ones left out."""
        place = self.group.places[stage]
        rows, columns = Counter(self.rows.made[:, place].tolist()), Counter(self.columns.made[:, place].tolist())
        return {
            (high, wide): n * m * self.group.images
            for high, n in rows.items()
            for wide, m in columns.items()
            if high and wide
        }

    def held_bits(self, accelerator: Accelerator, resident: frozenset[str]) -> int:
        """Most bits that the lines kept of all maps take together in their memory, whole tensors there left out."""
        home = home_of(accelerator)
        rows, columns = np.unique(self.rows.kept, axis=0), np.unique(self.columns.kept, axis=0)
        total: Ints = np.zeros((len(rows), len(columns)), np.int64)
        for place, tensor in enumerate(self.group.maps):
            if tensor.name not in resident:
                codes = rows[:, place, None] * columns[None, :, place] * self.group.elements_per_line(place)
                total = total + words(codes, tensor.bits, home.word_bits, home.packing)
        found = int(total.max()) * home.word_bits
        for tensor in self.group.wholes:
            if tensor.name not in resident:
                found += words(tensor.elements, tensor.bits, home.word_bits, home.packing) * home.word_bits
        return found


@dataclass
class Entry:
    """What one layer of a group spends, added up."""

    parts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    moved: Counter[tuple[str, str, Kind, int, bool]] = field(default_factory=Counter[tuple[str, str, Kind, int, bool]])
    cycles: Counter[str] = field(default_factory=Counter[str])
    alone: int = 0  # cycles if it ran by itself
    like: LayerCost | None = None

    def add(self, cost: LayerCost, times: int) -> None:
        """So many runs."""
        self.like = self.like or cost
        for part in cost.parts:
            if part.component not in TIMED:
                self.parts[part.component, part.detail] += part.energy_pj * times  # type: ignore[assignment]
        for name, n in cost.cycles:
            self.cycles[name] += n * times
        self.alone += cost.latency_cycles * times
        self.carry(cost.moved, times)

    def carry(self, moved: Iterable[Moved], times: int) -> None:
        """Words over ports, without their energy."""
        for entry in moved:
            key = entry.memory, entry.operand, entry.kind, entry.word_bits
            self.moved[*key, True] += entry.read_words * times
            self.moved[*key, False] += entry.write_words * times

    def transfer(self, moved: Iterable[Moved], accelerator: Accelerator, times: int) -> None:
        """Words over ports, with their energy."""
        found = tuple(moved)
        self.carry(found, times)
        for part in memory_parts(found, accelerator):
            self.parts[part.component, part.detail] += part.energy_pj * times  # type: ignore[assignment]
        for name, n in port_cycles(port_loads(found), accelerator, {}).items():
            self.cycles[name] += n * times

    def correct(self, charged: Bill, largest: Bill) -> None:
        """Weights that stay fill what the largest tile uses, whatever the first tile is."""
        for bill, sign in ((largest, 1), (charged, -1)) if charged is not largest else ():
            for cost, times in ((bill.bringing[0], sign), (bill.staying[0], -sign)):
                self.carry(cost.moved, times)
                for part in cost.parts:
                    if part.component not in TIMED:
                        self.parts[part.component, part.detail] += part.energy_pj * times  # type: ignore[assignment]

    def all_moved(self) -> tuple[Moved, ...]:
        """Words by memory, operand and kind."""
        keys = dict.fromkeys(key[:4] for key in self.moved)
        return tuple(
            Moved(memory, operand, kind, self.moved[memory, operand, kind, width, True],
                  self.moved[memory, operand, kind, width, False], width)
            for memory, operand, kind, width in keys
        )  # fmt: skip


@dataclass(frozen=True)
class GroupCost:
    """A group's bill: layers by name, operators behind them included; cycles of all; room its lines and tiles take."""

    layers: dict[str, LayerCost]
    energy_pj: float
    latency_cycles: int
    home_bits: int


def price_group(
    group: Group,
    steps: Steps,
    bills: Bills,
    staying: frozenset[int],
    resident: frozenset[str],
    accelerator: Accelerator,
) -> GroupCost | None:
    """What a group costs; None where its lines, tiles and staying weights do not fit their memories by themselves.

    `staying`: stages (positions) whose weights stay between tiles. `resident`: whole tensors in the maps' memory.
    Whether `home_bits` fit beside those is left to the caller.
    """
    taken = memory_taken(group, steps, bills, staying, accelerator)
    if taken is None:
        return None
    entries = {layer.name: Entry() for stage in group.stages for layer in (stage.layer, *stage.fused)}
    largest = tuple(max(steps.tiles(position)) for position in range(len(group.stages)))
    cycles = 0
    for step in distinct_steps(group, steps):
        cycles += step.times * step_cycles(group, step, bills, staying, resident, accelerator, entries, largest)
    layers = finished(group, entries, cycles, resident, accelerator)
    energy = sum(cost.total_energy_pj for cost in layers.values())
    return GroupCost(layers, energy, cycles, taken + steps.held_bits(accelerator, resident))


def memory_taken(
    group: Group, steps: Steps, bills: Bills, staying: frozenset[int], accelerator: Accelerator
) -> int | None:
    """Bits in the maps' memory beside its lines; None where staying weights do not fit beside other tiles elsewhere."""
    home = home_of(accelerator)
    kept: Counter[str] = Counter()
    stages = {s: [bills(s, tile) for tile in steps.tiles(s)] for s in range(len(group.stages))}
    for stage in staying:
        kept[stages[stage][0].memory] += max(bill.weight_bits for bill in stages[stage])
    for memory, bits in kept.items():
        name, size = weight_pool(accelerator, memory)
        beside = 0
        for stage, found in stages.items():
            for bill in found:
                own = bill.weight_bits if stage not in staying and bill.memory == memory else 0
                beside = max(beside, bill.others.get(name, 0) + own)
        if memory != home.name and bits + beside > size:
            return None
    tiles = max((b.home_bits + (b.weight_bits if s not in staying and b.memory == home.name else 0)
                 for s, found in stages.items() for b in found), default=0)  # fmt: skip
    return tiles + kept[home.name]


# --- steps ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """Steps that are alike: tiles of every map, elements of every map made for the first time, how many there are.

    `first`: the group's first one, which brings what stays. `fills`: the first of a strip.
    """

    tiles: tuple[Tile, ...]
    fresh: tuple[int, ...]
    times: int
    first: bool = False
    fills: bool = False


def distinct_steps(group: Group, steps: Steps) -> Iterator[Step]:
    """All steps of a group, alike ones once."""
    rows, columns = kinds(steps.rows), kinds(steps.columns)
    for n, (mine, new, fills) in enumerate(rows):
        for m, (across, fresh_across, _) in enumerate(columns):
            times = rows[mine, new, fills] * columns[across, fresh_across, _] * group.images
            tiles = tuple(zip(mine, across, strict=True))
            fresh = tuple(a * b for a, b in zip(new, fresh_across, strict=True))
            if n == 0 and m == 0:
                yield Step(tiles, fresh, 1, first=True, fills=True)
                times -= 1
            if times:
                yield Step(tiles, fresh, times, fills=fills)


def kinds(walk: Walk) -> Counter[tuple[tuple[int, ...], tuple[int, ...], bool]]:
    """(lines made, lines fresh, whether it is the first step), the first step first."""
    return Counter(
        (tuple(made), tuple(fresh), step == 0)
        for step, (made, fresh) in enumerate(zip(walk.made.tolist(), walk.fresh.tolist(), strict=True))
    )


def step_cycles(
    group: Group,
    step: Step,
    bills: Bills,
    staying: frozenset[int],
    resident: frozenset[str],
    accelerator: Accelerator,
    entries: dict[str, Entry],
    largest: tuple[Tile, ...],
) -> int:
    """Cycles of one of the steps; what all of them spend is added to the layers' entries."""
    busy: Counter[str] = Counter()
    waiting = starts = turns = 0
    for position, stage in enumerate(group.stages):
        tile = step.tiles[group.places[position]]
        if not all(tile):
            continue
        found = bills(position, tile)
        costs = found.staying if position in staying and not step.first else found.bringing
        names = [layer.name for layer in (stage.layer, *stage.fused)]
        for name, cost in zip(names, costs, strict=True):
            entries[name].add(cost, step.times)
        if position in staying and step.first:
            entries[names[0]].correct(found, bills(position, largest[position]))
        mine = dict(costs[0].cycles)
        refills = sum(n for name, n in mine.items() if name.endswith(" refill"))
        work = {name: n for name, n in mine.items() if not name.endswith(" refill")}
        for follower in costs[1:]:  # their operations are among the layer's own, their operands are not
            for name, n in follower.cycles:
                if name != "vector":
                    work[name] = work.get(name, 0) + n
        own = max(mine[name] for name in work if name in mine) if accelerator.overlap else sum(mine.values()) - refills
        start = costs[0].latency_cycles - refills - own
        alone = (max(work.values()) if accelerator.overlap else sum(work.values())) + refills + start
        busy.update(work)
        waiting, starts, turns = waiting + refills, starts + start, turns + alone
    carried = dict(transfers(group, step, staying, resident, accelerator))
    for name, moved in carried.items():
        entries[name].transfer(moved, accelerator, step.times)
    load = port_loads(moved for each in carried.values() for moved in each)
    ports = port_cycles(load, accelerator, {})
    if not accelerator.overlap:
        return turns + sum(ports.values())
    if step.fills or not home_of(accelerator).double_buffered:
        return turns + max(ports.values(), default=0)
    busy.update(ports)
    return max(busy.values()) + waiting + starts


def transfers(
    group: Group, step: Step, staying: frozenset[int], resident: frozenset[str], accelerator: Accelerator
) -> Iterator[tuple[str, list[Moved]]]:
    """What enters and leaves in a step and the constants it brings, by the layer that they are billed to."""
    outer, home = accelerator.outermost, home_of(accelerator)
    readers = {w: next(s for s, stage in enumerate(group.stages) if w in {t.name for t in stage.inputs})
               for w in (t.name for p, t in enumerate(group.maps) if group.maker[p] < 0)}  # fmt: skip
    found: dict[int, list[Moved]] = {}
    for place, tensor in enumerate(group.maps):
        if tensor.name in resident:
            continue
        channels = group.elements_per_line(place)
        if group.maker[place] < 0:
            n = math.prod(step.tiles[place]) * channels
            here = found.setdefault(readers[tensor.name], [])
            if n:
                here.append(whole_words(outer, "input", tensor.bits, n, 0))
                here.append(whole_words(home, "input", tensor.bits, 0, n))
        elif group.lines[ROWS].maps[place].leaves:
            n = step.fresh[place] * channels
            here = found.setdefault(group.maker[place], [])
            if n:
                here.append(whole_words(home, "output", tensor.bits, n, 0))
                here.append(whole_words(outer, "output", tensor.bits, 0, n))
    if step.first:
        for tensor in group.wholes:
            if tensor.name not in resident:
                reader = next(s for s, st in enumerate(group.stages) if tensor.name in {t.name for t in st.inputs})
                n = tensor.elements
                found.setdefault(reader, []).append(whole_words(outer, "input", tensor.bits, n, 0))
                found[reader].append(whole_words(home, "input", tensor.bits, 0, n))
    for position, stage in enumerate(group.stages):
        if stage.layer.has_macs and all(step.tiles[group.places[position]]):
            constants = list(constants_of(group, position, step, staying, accelerator))
            if constants:
                found.setdefault(position, []).extend(constants)
    for position, moved in found.items():
        yield group.stages[position].layer.name, moved


def whole_words(memory: Memory, operand: Operand, bits: int, reads: int, writes: int) -> Moved:
    """Words of a map's own elements: it has no border on its way."""
    kind: Kind = "code" if operand == "input" else "final"
    return moved_words(memory, operand, kind, bits, reads, writes, stream_shares(memory, operand, bits))


def constants_of(
    group: Group, position: int, step: Step, staying: frozenset[int], accelerator: Accelerator
) -> Iterator[Moved]:
    """Constants of a layer: with its weights, once or every time. The border is written in the first step."""
    layer = effective_layer(group.stages[position])
    home = home_of(accelerator)
    for moved in fixed_moves(layer, accelerator, offset_cost(layer, accelerator.capabilities), input_stays=True):
        if step.first or (moved.memory != home.name and position not in staying):
            yield moved


# --- the layers' bills ------------------------------------------------------------------------------------------------


def finished(
    group: Group, entries: dict[str, Entry], cycles: int, resident: frozenset[str], accelerator: Accelerator
) -> dict[str, LayerCost]:
    """The layers' entries as bills: each has its share of the group's time, as it would take alone."""
    shares = split(cycles, [entry.alone for entry in entries.values()])
    found: dict[str, LayerCost] = {}
    title = f"{group.layers[0]} .. {group.layers[-1]}"
    for stage in group.stages:
        touched = frozenset(t.name for t in (*stage.inputs, stage.output))
        for layer in (stage.layer, *stage.fused):
            entry, share = entries[layer.name], shares[list(entries).index(layer.name)]
            like = entry.like
            offset = offset_cost(layer, accelerator.capabilities) if layer is not stage.layer else NO_OFFSET
            if layer is stage.layer:
                mine = effective_layer(stage) if layer.has_macs else layer
                offset = offset_cost(mine, accelerator.capabilities)
            parts = [Part(component, detail, energy) for (component, detail), energy in entry.parts.items()]
            parts += static_parts(share, accelerator) if share else []
            behind = layer is not stage.layer
            found[layer.name] = LayerCost(
                name=layer.name,
                parts=tuple(parts),
                latency_cycles=share,
                cycles=tuple(entry.cycles.items()),
                bottleneck=f"behind {stage.layer.name}" if behind else max(entry.cycles, key=lambda n: entry.cycles[n]),
                moved=entry.all_moved(),
                offset=offset,
                mac_mode=like.mac_mode if like else "",
                resident=tuple(sorted(resident & touched)),
                fused_into=stage.layer.name if behind else "",
                group=title,
            )
    return found


def split(total: int, weights: list[int]) -> list[int]:
    """Whole numbers that sum to `total`, in proportion to weights."""
    whole, found, done = sum(weights), [], 0
    running = 0
    for weight in weights:
        running += weight
        upto = int(Fraction(total * running, whole)) if whole else 0
        found.append(upto - done)
        done = upto
    return found
