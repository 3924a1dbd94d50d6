"""The proof of one layer for all machines of a box: bounds and paths at the box's corners, refined where asked.

A cell holds what is known for one choice of sizes. Its parts (unrollings, later with distances of windows) have a bound
per corner: in closed form at first, then of their lattice. A part is solved once: all its paths that win at some
machine of the box (`Kernel.paths`), which the archive keeps. For a machine, parts and paths are weighted means of the
corners; as long as a part's lies below the cheapest path that fits, that part is refined. Then the least of all is a
proven bound and the path the optimum, as in `proof.certify`. Nothing is refined twice, so later machines need a dot
product.

What fits in less room is cheaper nowhere: a cell of larger sizes answers too, where its cheapest path fits.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwsim.machine.parts import Accelerator
from hwsim.nest.count import count_accesses
from hwsim.nest.counts import Counts
from hwsim.nest.legal import pools, tile_bits
from hwsim.nest.mapping import Mapping
from hwsim.nest.points import Ints
from hwsim.pricing.residents import room_taken
from hwsim.pricing.rounding import rounding_pj
from hwsim.search.bounds.closed_form import ClosedBound
from hwsim.search.machines.box import Box, Floats, at_most, sizes, with_sizes
from hwsim.search.priced import Pricing
from hwsim.search.proof.certify import (
    TOLERANCE,
    certified_search,
    same_both_ways,
    spacings,
    window_places,
    without_mirrors,
)
from hwsim.search.proof.native import TABLES, Kernel, open_kernel
from hwsim.search.space.prices import COST, Linear, Prices, linear
from hwsim.search.space.problem import Problem
from hwsim.search.space.timing import Regime, Timing, rounding_cycles
from hwsim.search.space.unrolling import Listing, listing
from hwsim.search.write import write_path

CLOSED, LATTICE, EXACT, STUCK = range(4)  # what a part's bound is of; STUCK: it cannot be solved
TOGETHER = 8  # lattices bounded at once
NODES = 300_000
NO_LIMIT = 1 << 62


@dataclass(frozen=True)
class Row:
    """A path that wins somewhere in the box; `rooms`: bits it takes of every memory."""

    mapping: Mapping
    counts: Counts
    rooms: tuple[int, ...]
    values: tuple[float, ...]  # per regime and corner, constants of the layer left out


@dataclass(frozen=True)
class Solved:
    """A machine's cheapest path, the least bound of all, and how far rounding may lift a price above its path's sum."""

    row: Row
    bound: float
    rounding: float


@dataclass
class Parts:
    """What is not solved yet: `values[part, table]` bounds, `row` the unrolling, `spacing` the distances of windows."""

    values: Floats
    row: Ints
    spacing: Ints
    level: Ints

    def __len__(self) -> int:
        return len(self.row)

    def keep(self, which: Ints) -> Parts:
        """Some of them."""
        return Parts(self.values[which], self.row[which], self.spacing[which], self.level[which])

    def joined(self, other: Parts) -> Parts:
        """Both."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Parts(*(np.concatenate(pair) for pair in pairs))


class MachineTable:
    """A layer on all machines of a box; `problem`: on any one of them."""

    def __init__(self, problem: Problem, box: Box, remainders: bool) -> None:
        self.problem, self.box, self.remainders = problem, box, remainders
        self.rows: list[Row] = []
        self.cells: dict[tuple[int | None, ...], Cell] = {}
        self.open: Cell | None = None  # the one whose kernel is open
        options = listing(problem, remainders)
        mirrors = same_both_ways(problem.unit.mac)
        self.options: Listing = options[without_mirrors(problem, options.spatial)] if mirrors else options
        self.idle = any(box.machine_at(corner, problem.accelerator)[1] > 0 for corner in box.corners)
        self.regimes: list[Regime | None] = [Timing(problem).default() if self.idle else None]

    def begin(self, regimes: Sequence[Regime]) -> None:
        """Regimes that are worth knowing from the start; without any, that of the problem's own optimum."""
        if self.idle:
            timing = Timing(self.problem)
            for regime in regimes or [timing.regime_of(known) for known in first_answer(self.problem, self.remainders)]:
                self.learn(regime)

    def learn(self, regime: Regime) -> bool:
        """Another resource that may be the slowest: all starts anew. False where it is known or no table is left."""
        if regime in self.regimes or (len(self.regimes) + 1) * len(self.box.corners) > TABLES:
            return False
        self.regimes.append(regime)
        self.rows, self.cells, self.open = [], {}, None
        return True

    def corners(self, machine: Accelerator) -> list[tuple[Accelerator, float]]:
        """A machine at the corners of the box, and what a cycle costs there."""
        return [self.box.machine_at(corner, machine) for corner in self.box.corners]

    def cell(self, wanted: tuple[int | None, ...]) -> Cell:
        """The cell of some sizes."""
        if wanted not in self.cells:
            self.cells[wanted] = Cell(self, wanted)
        return self.cells[wanted]

    def around(self, wanted: tuple[int | None, ...]) -> list[Cell]:
        """Cells of larger sizes: what is a bound there is one here."""
        return [cell for known, cell in self.cells.items() if fits_in(wanted, known)]

    def limits(self, wanted: tuple[int | None, ...]) -> Ints:
        """Sizes as numbers, the room that operands at home leave among them."""
        found = [NO_LIMIT if size is None else size for size in wanted]
        home, room = self.problem.home, self.problem.homes.room_bits
        if home is not None and room is not None:
            place = [memory.name for memory in self.problem.accelerator.memories].index(home.name)
            found[place] = min(found[place], room)
        return np.array(found)

    def rooms(self, mapping: Mapping, counts: Counts) -> tuple[int, ...]:
        """Bits that tiles take of every memory, shares that operands have to themselves whole."""
        problem, found = self.problem, list[int]()
        for memory in problem.accelerator.memories:
            need = tile_bits(mapping, problem.layer, problem.accelerator, memory)
            shares = sum(size for _, size in memory.partitions)
            taken = sum(sum(mine.values()) for name, _, mine in pools(memory, need) if name == memory.name)
            if problem.home is memory:
                taken = room_taken(memory, problem.layer, problem.accelerator, counts, problem.homes.operands)
            found.append(taken + shares)
        return tuple(found)


class Cell:
    """A table's knowledge for one choice of sizes."""

    def __init__(self, table: MachineTable, wanted: tuple[int | None, ...]) -> None:
        self.table, self.limits = table, table.limits(wanted)
        machine = with_sizes(table.problem.accelerator, wanted)
        self.problem = on(table.problem, machine)
        self.kernel: Kernel | None = None
        self.tables: list[tuple[Prices, Linear]] = []
        spatial = table.options.spatial
        closed, offsets, values = ClosedBound(self.problem, spatial), list[Floats](), list[Floats]()
        self.constants = np.array([constants(on(self.problem, m), idle) for m, idle in table.corners(machine)])
        for regime in table.regimes:
            for priced, idle in table.corners(machine):
                there = on(self.problem, priced)
                prices = Prices(COST, 1.0, idle, regime)
                self.tables.append((prices, linear(there, prices)))
                offset = np.zeros(len(spatial))
                if regime is not None:
                    offset += idle * Timing(there).constant_cycles(regime, spatial)
                offsets.append(offset)
                values.append(closed.sums(self.tables[-1][1]) + offset)
        self.offsets = np.ascontiguousarray(np.array(offsets).T)
        self.least = np.maximum.reduce([np.array(values).T, *(cell.least for cell in table.around(wanted))])
        fits = np.flatnonzero(np.isfinite(self.least).all(axis=1))
        self.parts = Parts(
            self.least[fits], fits, np.zeros_like(spatial[fits]), np.full(len(fits), CLOSED, dtype=np.int64)
        )
        self.stuck = self.parts.keep(np.zeros(0, dtype=np.int64))
        self.covered = 0
        self.rows: list[Row] = []
        self.looked_at = 0  # how much of the archive
        self.values = np.zeros((0, len(self.tables)))
        self.rooms = np.zeros((0, len(self.limits)), dtype=np.int64)

    def collect(self) -> None:
        """Rows of the archive that fit here."""
        archive = self.table.rows
        if self.looked_at < len(archive):
            fresh = [row for row in archive[self.looked_at :] if at_most(np.array(row.rooms), self.limits)]
            self.rows += fresh
            self.values = np.concatenate([self.values, *(np.array(row.values)[None] for row in fresh)])
            self.rooms = np.concatenate([self.rooms, *(np.array(row.rooms)[None] for row in fresh)])
            self.looked_at = len(archive)

    def worth(self, values: Floats, weights: Floats) -> Floats:
        """A machine's sums from those of all regimes and corners."""
        return np.asarray((values.reshape(len(values), len(self.table.regimes), len(weights)) @ weights).max(axis=1))

    def solve(self, weights: Floats, lim: Ints, lazy: bool) -> Solved | None:
        """The cheapest path for a machine and the least bound of all; None where it is not proven, or does not fit.

        `lazy`: nothing is refined.
        """
        while True:
            self.collect()
            priced = self.worth(self.values, weights)
            fits = at_most(self.rooms, lim)
            best = float(priced[fits].min(initial=math.inf))
            closed = min(
                float(priced[~fits].min(initial=math.inf)),
                float(self.worth(self.stuck.values, weights).min(initial=math.inf)),
            )
            bounds = self.worth(self.parts.values, weights)
            order = np.argsort(bounds)[:TOGETHER]
            order = order[bounds[order] * (1 + TOLERANCE) < best]
            if best < math.inf and not len(order):
                row = self.rows[int(np.flatnonzero(fits)[priced[fits].argmin()])]
                constant, more = weights @ self.constants
                return Solved(row, min(best, closed) + constant, more) if closed * (1 + TOLERANCE) >= best else None
            if lazy or not len(order):
                return None
            self.refine(order)

    # --- refinement ---------------------------------------------------------------------------------------------------

    def ready(self) -> Kernel:
        """The kernel, with the corners' prices."""
        if self.kernel is None:
            if self.table.open is not None:
                self.table.open.kernel = None
            self.kernel, self.table.open = open_kernel(self.problem, self.table.remainders), self
            assert self.kernel is not None  # `why_no_kernel` was asked
            self.kernel.set_corners(self.tables)
        return self.kernel

    def refine(self, order: Ints) -> None:
        """The first of some parts, and those beside it that can be bounded with it."""
        level = self.parts.level[order[0]]
        if level == CLOSED:
            self.bound(order[self.parts.level[order] == CLOSED])
        elif level == LATTICE:
            self.divide(int(order[0]))
        else:
            self.path(int(order[0]))

    def without(self, which: Ints | int) -> Parts:
        """All parts but some."""
        left = np.ones(len(self.parts), dtype=bool)
        left[which] = False
        return self.parts.keep(np.flatnonzero(left))

    def bounded(self, rows: Ints, spacing: Ints, before: Floats, level: Ints) -> Parts:
        """Parts with the bounds of their lattices."""
        sums, covered = self.ready().bounds(self.table.options.spatial[rows], spacing)
        self.covered += covered
        values = np.maximum(sums + self.offsets[rows], before)
        return Parts(values, rows, spacing, level).keep(np.flatnonzero(np.isfinite(values).all(axis=1)))

    def bound(self, which: Ints) -> None:
        """Lattices of unrollings."""
        chosen, spatial = self.parts.row[which], self.table.options.spatial
        level = [LATTICE if window_places(self.problem, spatial[r], self.steps(r)) else EXACT for r in chosen.tolist()]
        fresh = self.bounded(chosen, self.parts.spacing[which], self.parts.values[which], np.array(level))
        self.least[chosen] = np.inf
        self.least[fresh.row] = fresh.values
        self.parts = self.without(which).joined(fresh)

    def steps(self, row: int) -> Ints:
        """Temporal iterations of every dim."""
        return -(-np.array(self.problem.extents) // self.table.options.spatial[row].prod(axis=0))

    def divide(self, part: int) -> None:
        """An unrolling by the distances of its windows."""
        row = int(self.parts.row[part])
        apart = np.array(spacings(self.problem, self.table.options.spatial[row], self.steps(row)))
        rows = np.full(len(apart), row)
        before = np.repeat(self.parts.values[part][None], len(apart), axis=0)
        fresh = self.bounded(rows, apart, before, np.full(len(apart), EXACT))
        self.least[row] = fresh.values.min(axis=0, initial=np.inf)
        self.parts = self.without(part).joined(fresh)

    def path(self, part: int) -> None:
        """All paths of a part that win somewhere."""
        row, spacing = int(self.parts.row[part]), self.parts.spacing[part]
        spatial = self.table.options.spatial[row]
        done, found, nodes = self.ready().paths(spatial, spacing, self.offsets[row].copy(), self.values, NODES)
        self.covered += nodes
        if not done:
            self.stuck = self.stuck.joined(self.parts.keep(np.array([part])))
        self.parts = self.without(part)
        for steps, values in found:
            mapping = write_path(self.problem, self.table.options.one(row), steps)
            counts = count_accesses(self.problem.layer, mapping, self.problem.accelerator)
            legal = not self.problem.refuses(mapping) and self.problem.leaves_room(counts)
            if legal:
                self.table.rows.append(Row(mapping, counts, self.table.rooms(mapping, counts), tuple(values.tolist())))
            else:  # no mapping is written like this: it stays a bound
                self.stuck = self.stuck.joined(Parts(values[None], np.array([row]), spacing[None], np.array([STUCK])))


def first_answer(problem: Problem, remainders: bool) -> list[Counts]:
    """The counts of a proven optimum: what is slow there is likely to be slow elsewhere."""
    pricing = Pricing(problem, "energy")
    hunt = certified_search(problem, "energy", pricing.value, remainders)
    if hunt is not None:
        hunt.run(0.0, math.inf)
    return [pricing.best[1]] if pricing.best else []


def constants(problem: Problem, idle_pj: float) -> tuple[float, float]:
    """(pJ that every mapping costs, pJ that a price may lie above the sum of its path: rounding) at an idle energy."""
    unit = problem.unit
    more = rounding_pj(unit, problem.accelerator) + idle_pj * rounding_cycles(Timing(problem))
    return unit.fixed_pj + problem.layer.macs * unit.mac_pj, more


def on(problem: Problem, machine: Accelerator) -> Problem:
    """A problem on another machine."""
    return dataclasses.replace(problem, accelerator=machine)


def fits_in(inner: tuple[int | None, ...], outer: tuple[int | None, ...]) -> bool:
    """Whether no size is larger than the other's."""
    return all(b is None or (a is not None and a <= b) for a, b in zip(inner, outer, strict=True))


def cells_for(table: MachineTable, machine: Accelerator) -> list[tuple[Cell, bool]]:
    """Cells that may answer for a machine, and whether they are only looked at: larger ones before its own is begun."""
    wanted = sizes(machine)
    if wanted in table.cells:
        return [(table.cells[wanted], False)]
    return [(cell, True) for cell in table.around(wanted)]
