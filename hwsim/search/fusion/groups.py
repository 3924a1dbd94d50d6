"""The groups of a network and the cuts of each that are worth a look, with what is known of a cut before it is priced.

An outline's estimate takes the best nests of whole layers with maps on chip, in proportion to what the cut makes, and
the outermost memory's traffic of what enters, what leaves, and weights that no level has room for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from hwsim.machine.packing import words
from hwsim.machine.parts import Accelerator, Memory
from hwsim.nest.lines import Walk
from hwsim.nest.points import Ints
from hwsim.pricing.area import working_power_mw
from hwsim.pricing.fused import Cut, Steps, whole_words
from hwsim.pricing.groups import Group, group_of, windows
from hwsim.pricing.latency import port_cycles, port_loads
from hwsim.pricing.layer import TIMED, LayerCost
from hwsim.pricing.moves import Moved
from hwsim.pricing.stages import Stage
from hwsim.pricing.tiles import AT_HOME, home_of
from hwsim.search.fusion.choices import Choice
from hwsim.search.fusion.tiles import Kind, Tiles, best_of
from hwsim.search.joint.schedule import Names, Schedule
from hwsim.search.joint.staircase import At

MOST_STAGES = 16
STRIPS = (1, 2, 4, 8, 16, 32)
ENOUGH_STRIPS = 2  # numbers of strips that are looked at once a tile fits
TALLEST = 2  # heights per number of strips: the tallest that fit
OPTIMISM = 0.97  # of on-chip work in estimates: tiles reuse less than whole layers do


def groups_of(schedule: Schedule) -> dict[int, list[Group]]:
    """Every group of a network, by its first stage."""
    found: dict[int, list[Group]] = {}
    for group in each_group(schedule):
        found.setdefault(group.first, []).append(group)
    return found


def has_groups(schedule: Schedule) -> bool:
    """Whether a network has any group on its machine: cheap to ask, as the first one answers."""
    return next(each_group(schedule), None) is not None


def each_group(schedule: Schedule) -> Iterator[Group]:
    """Every group of a network, by first stage, then by length; none without a memory in which maps may lie."""
    stages, machine = schedule.stages, schedule.accelerator
    if schedule.home is None or machine.mac.measurements is not None:
        return
    read, last = [windows(stage, machine) for stage in stages], last_readers(stages)
    for first in range(len(stages)):
        for end in range(first + 1, min(first + MOST_STAGES, len(stages)) + 1):
            if read[end - 1] is None:
                break
            group = group_of(stages, first, end, read, last) if end > first + 1 else None
            if group is None:
                continue
            if least_bits(group, machine) > schedule.capacity_bits:
                break  # longer ones keep these lines and more
            yield group


def network_group(schedule: Schedule, first: int, end: int) -> Group | None:
    """Stages `first` to `end` - 1 as a group, whatever their lines take; None where they are none."""
    if schedule.accelerator.mac.measurements is not None:
        return None
    read = [windows(stage, schedule.accelerator) for stage in schedule.stages]
    return group_of(schedule.stages, first, end, read, last_readers(schedule.stages))


def last_readers(stages: Sequence[Stage]) -> dict[str, int]:
    """The last stage that reads each tensor."""
    return {tensor.name: place for place, stage in enumerate(stages) for tensor in stage.inputs}


def least_bits(group: Group, machine: Accelerator) -> int:
    """Bits that a group keeps of the maps inside it, one row at a time in its narrowest strips."""
    outline = Outline(group, Cut(1, -(-group.maps[-1].shape[3] // STRIPS[-1])), machine)
    return outline.held_bits(ends_of(group))


def ends_of(group: Group) -> Names:
    """The maps that enter, and the last one."""
    return frozenset(t.name for p, t in enumerate(group.maps) if group.maker[p] < 0 or p == len(group.maps) - 1)


def cuts_of(group: Group, machine: Accelerator, room_bits: int) -> Iterator[Outline]:
    """The tallest tiles that fit in the fewest strips, with the group's ends on chip whole or not.

    Where weights can lie in the maps' memory, also those that fit beside all weights of the group.
    """
    high, wide = group.maps[-1].shape[2:]
    rows_known, columns_known = dict[int, Walk](), dict[int, Walk]()
    chosen: dict[Cut, Outline] = {}
    for room in dict.fromkeys((room_bits, room_bits - weights_beside(group, machine))):
        enough = 0
        for strips in STRIPS:
            if strips > wide or enough == ENOUGH_STRIPS:
                break
            columns, fits = -(-wide // strips), False
            for resident in (frozenset[str](), ends_of(group)):
                fitted = 0
                for rows in heights(high):
                    cut = Cut(rows, columns)
                    outline = chosen.get(cut) or Outline(
                        group, cut, machine, rows_known.get(rows), columns_known.get(columns)
                    )
                    rows_known[rows], columns_known[columns] = outline.rows, outline.columns
                    if outline.held_bits(resident) <= room:
                        chosen[cut], fits, fitted = outline, True, fitted + 1
                        if fitted == TALLEST:
                            break
            enough += fits
    yield from chosen.values()


def weights_beside(group: Group, machine: Accelerator) -> int:
    """Bits of all weights of a group in the maps' memory; 0 where it holds none, or has a part for them."""
    home = home_of(machine)
    if "weight" not in home.keeps or "weight" in dict(home.partitions):
        return 0
    weights = [stage.layer.weight for stage in group.stages if stage.layer.weight is not None]
    return sum(words(w.elements, w.bits, home.word_bits, home.packing) for w in weights) * home.word_bits


def heights(most: int) -> Iterator[int]:
    """Rows per step, tallest first: all of them, then powers of two."""
    yield most
    rows = 1 << (most.bit_length() - 1)
    while rows:
        if rows < most:
            yield rows
        rows //= 2


class Outline:
    """A cut of a group before it is priced: its lines, their bits, and a guess of its cost."""

    def __init__(
        self, group: Group, cut: Cut, machine: Accelerator, rows: Walk | None = None, columns: Walk | None = None
    ) -> None:
        self.group, self.cut, self.machine = group, cut, machine
        steps = Steps(group, cut)
        self.rows = steps.rows if rows is None else rows
        self.columns = steps.columns if columns is None else columns
        self.known: tuple[int, float, dict[str, float]] | None = None

    @cached_property
    def kept_words(self) -> list[Ints]:
        """Per map the words of its lines kept, [step, strip]."""
        home, rows, columns = home_of(self.machine), self.rows.kept, self.columns.kept
        return [
            words(np.multiply.outer(rows[:, p], columns[:, p]) * self.group.elements_per_line(p), tensor.bits,
                  home.word_bits, home.packing)
            for p, tensor in enumerate(self.group.maps)
        ]  # fmt: skip

    def held_bits(self, resident: Names) -> int:
        """As `Steps.held_bits`."""
        home, group = home_of(self.machine), self.group
        kept = [n for n, tensor in zip(self.kept_words, group.maps, strict=True) if tensor.name not in resident]
        whole = sum(
            words(t.elements, t.bits, home.word_bits, home.packing) for t in group.wholes if t.name not in resident
        )
        return (int(np.max(sum(kept[1:], kept[0]))) + whole if kept else whole) * home.word_bits

    @cached_property
    def made(self) -> list[int]:
        """Elements of every map per channel that the cut makes, or brings."""
        return (self.rows.made.sum(0) * self.columns.made.sum(0) * self.group.images).tolist()

    @cached_property
    def crossings(self) -> dict[str, Moved]:
        """Maps that enter or leave by name, at the outermost memory."""
        outer, found = self.machine.outermost, dict[str, Moved]()
        for place, tensor in enumerate(self.group.maps):
            if self.group.maker[place] < 0:
                codes = self.made[place] * self.group.elements_per_line(place)
                found[tensor.name] = whole_words(outer, "input", tensor.bits, codes, 0)
            elif self.group.lines[0].maps[place].leaves:
                found[tensor.name] = whole_words(outer, "output", tensor.bits, 0, tensor.elements)
        return found

    def guess(self, work: Work, resident: Names) -> tuple[float, float]:
        """(pJ, cycles) that it may cost."""
        energy, busy = self.inside(work)
        busy = dict(busy)
        for name, (crossing_pj, cycles) in self.prices.items():
            if name not in resident:
                energy += crossing_pj
                for port, n in cycles.items():
                    busy[port] = busy.get(port, 0.0) + n
        time = max(busy.values(), default=0.0)
        return energy + working_power_mw(self.machine) * time / self.machine.clock_mhz * 1e3, time

    def inside(self, work: Work) -> tuple[float, dict[str, float]]:
        """Energy and cycles on chip and of weights, as far as prices have taught."""
        if self.known is None or self.known[0] != work.lessons:
            energy, busy = 0.0, Counter[str]()
            weight_bits = 0
            for position, stage in enumerate(self.group.stages):
                made = self.made[self.group.places[position]]
                part = OPTIMISM * made * stage.layer.output.shape[1] / stage.layer.output.elements
                own, cycles = work.on_chip(self.group.first + position)
                energy += part * own
                for name, n in cycles.items():
                    busy[name] += part * n  # type: ignore[assignment]
                weight_bits += stage.layer.weight.size_bits if stage.layer.weight is not None else 0
            runs = self.rows.steps * self.columns.steps * self.group.images
            more, ports = self.crossing_price(work.weights_moved(weight_bits, runs))
            busy.update(ports)
            self.known = work.lessons, energy + more, dict(busy)
        return self.known[1], self.known[2]

    @cached_property
    def prices(self) -> dict[str, tuple[float, dict[str, int]]]:
        """pJ and cycles of the maps that enter or leave."""
        return {name: self.crossing_price(moved) for name, moved in self.crossings.items()}

    def crossing_price(self, moved: Moved) -> tuple[float, dict[str, int]]:
        """pJ and cycles at the outermost memory."""
        outer = self.machine.outermost
        energy = moved.read_words * outer.read_energy_pj + moved.write_words * outer.write_energy_pj
        return energy, port_cycles(port_loads([moved]), self.machine, {})


class Work:
    """What the stages of a network do on chip, for estimates: of whole layers, and what prices of tiles teach."""

    def __init__(self, tiles: Tiles) -> None:
        self.tiles, self.machine = tiles, tiles.machine
        self.optimum = tiles.optimum
        self.floors: dict[Kind, tuple[float, dict[str, float]]] = {}
        self.lessons = 0

    def weights_moved(self, bits: int, runs: int) -> Moved:
        """Weights from the outermost memory: once, and again for every step what no level has room for."""
        outer = self.machine.outermost
        again = max(0, bits - self.weight_room) * (runs - 1)
        return Moved(outer.name, "weight", "code", -(-(bits + again) // outer.word_bits), 0, outer.word_bits)

    @cached_property
    def weight_room(self) -> int:
        """Bits of the largest level that holds weights on chip, all instances."""
        levels: list[Memory] = [m for m in self.machine.memories[1:] if "weight" in m.keeps]
        return max((self.machine.instances(m) * (m.size_bits or 0) for m in levels), default=0)

    def learn(self, choice: Choice, steps: Steps) -> None:
        """Take no tile of these stages to cost less per output than those of a priced choice, or than others priced."""
        bills = choice.bills(self.tiles)
        for position, stage in enumerate(choice.group.stages):
            channels, kind = stage.layer.output.shape[1], self.tiles.kinds[choice.group.first + position]
            for tile in steps.tiles(position):
                energy, cycles = self.priced(bills(position, tile).staying, tile[0] * tile[1] * channels)
                known = self.floors.get(kind)
                self.lessons += known is None
                if known is not None:
                    energy = min(energy, known[0])
                    cycles = {name: min(n, known[1].get(name, n)) for name, n in cycles.items()}
                self.floors[kind] = energy, cycles

    def priced(self, costs: Sequence[LayerCost], outputs: int) -> tuple[float, dict[str, float]]:
        """Energy and cycles on chip per output."""
        outer = self.machine.outermost.name
        energy = sum(p.energy_pj for c in costs for p in c.parts if p.component not in (outer, *TIMED))
        return energy / outputs, {name: n / outputs for name, n in costs[0].cycles if not name.startswith(f"{outer} ")}

    def on_chip(self, index: int) -> tuple[float, dict[str, float]]:
        """Energy and cycles on chip of a stage with all maps there: those of the cheapest tile priced, or a guess."""
        floor = self.floors.get(self.tiles.kinds[index])
        if floor is None:
            return self.whole[index]
        outputs = self.optimum.schedule.stages[index].layer.output.elements
        return floor[0] * outputs, {name: n * outputs for name, n in floor[1].items()}

    @cached_property
    def whole(self) -> list[tuple[float, dict[str, float]]]:
        """Per stage what the whole layer's best nest known does."""
        return [self.stage(index) for index in range(len(self.optimum.schedule.stages))]

    def stage(self, index: int) -> tuple[float, dict[str, float]]:
        stage = self.optimum.schedule.stages[index]
        behind = frozenset(tensor.name for tensor in stage.inputs) | {stage.output.name}
        energy = self.optimum.streamed(index, behind)[0]
        if not stage.layer.has_macs:
            return energy, {}
        pool = self.optimum.pools[index]
        for mapping in best_of(pool, 1):
            cost = pool.priced(mapping, At(AT_HOME))
            assert cost is not None
            own, cycles = self.priced((cost.cost,), 1)
            return energy + own, cycles
        return 0.0, {}
