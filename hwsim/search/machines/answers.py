"""Answers for many machines of a box: the same mapping, price and certificate as a proof of its own, or none.

None is given where a machine lies outside of the box, its prices are not linear (`varies_linearly`), a part of the
space could not be solved, or the price lies above the bound; the caller proves it anew then.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from hwsim.machine.parts import Accelerator
from hwsim.search.machines import storage
from hwsim.search.machines.box import Box, Floats, sizes, skeleton
from hwsim.search.machines.table import MachineTable, Solved, cells_for
from hwsim.search.objective import Objective
from hwsim.search.proof.certify import TOLERANCE
from hwsim.search.proof.native import why_no_kernel
from hwsim.search.result import PROVEN, Certificate, Effortful, Found
from hwsim.search.space.likeness import fused_key, search_key
from hwsim.search.space.problem import Problem
from hwsim.search.space.timing import Regime, Timing

Key = tuple[object, ...]
Regimes = dict[Key, list[Regime]]


@dataclass
class MachineAnswers:
    """Tables of all layers asked for, for the machines of a box."""

    box: Box
    tables: dict[tuple[object, ...], MachineTable | None] = field(
        default_factory=dict[tuple[object, ...], MachineTable | None]
    )
    regimes: Regimes = field(default_factory=dict[Key, list[Regime]])  # shared by boxes of like machines
    written: dict[Key, int] = field(default_factory=dict[Key, int])  # what of a table is on disk
    last: tuple[Accelerator, Floats | None, Accelerator] | None = None
    answered: int = 0
    refused: int = 0

    def find(self, problem: Problem, objective: Objective, effort: Effortful) -> Found | None:
        """A layer's optimum on a machine of the box, with its certificate; None where tables cannot tell."""
        found = self.look_up(problem, objective, effort) if effort in ("perfect", "proven") else None
        self.answered, self.refused = self.answered + (found is not None), self.refused + (found is None)
        return found

    def look_up(self, problem: Problem, objective: Objective, effort: Effortful) -> Found | None:
        """`find`, not counted."""
        began, weights = time.perf_counter(), self.known(problem.accelerator)[0]
        if objective != "energy" or weights is None or problem.rules or problem.cycle_pj:
            return None
        table = self.table(problem, effort)
        if table is None:
            return None
        lim = table.limits(sizes(problem.accelerator))
        while True:
            for cell, lazy in cells_for(table, problem.accelerator):
                solved = cell.solve(weights, lim, lazy)
                if solved is not None:
                    break
            else:
                solved = table.cell(sizes(problem.accelerator)).solve(weights, lim, False)
            if solved is None:
                return None
            found = priced(problem, table, solved, effort, began)
            if found is not None:
                return found
            regime = Timing(problem).regime_of(solved.row.counts)
            if not table.idle or not table.learn(regime):
                return None

    def known(self, machine: Accelerator) -> tuple[Floats | None, Accelerator]:
        """(weights, skeleton) of a machine: worked out once for all of its layers."""
        if self.last is None or self.last[0] is not machine:
            self.last = machine, self.box.weights(machine), skeleton(machine)
        return self.last[1:]

    def table(self, problem: Problem, effort: Effortful) -> MachineTable | None:
        """The table of a problem's layer; None where there cannot be one."""
        key = effort, self.known(problem.accelerator)[1], search_key(problem.layer), problem.homes, fused_key(problem)
        if key not in self.tables:
            fine = varies_linearly(problem.accelerator) and not why_no_kernel(problem)
            regimes = self.regimes.get(key, [])
            self.tables[key] = self.begun(problem, key, regimes) if fine else None
        table = self.tables[key]
        if table is not None:
            self.regimes[key] = [regime for regime in table.regimes if regime is not None]
        return table

    def begun(self, problem: Problem, key: Key, regimes: list[Regime]) -> MachineTable:
        """A table, with what the disk knows of it."""
        table = MachineTable(problem, self.box, key[0] == "proven")
        if storage.load(table, storage.table_key(key, self.box)):
            self.written[key] = covered(table)
        else:
            table.begin(regimes)
        return table

    def save(self) -> None:
        """Write the tables that know more than their files."""
        for key, table in self.tables.items():
            if table is not None and covered(table) != self.written.get(key, 0):
                storage.save(table, storage.table_key(key, self.box))
                self.written[key] = covered(table)


def covered(table: MachineTable) -> int:
    """Lattice points that stand behind a table."""
    return sum(cell.covered for cell in table.cells.values())


def varies_linearly(machine: Accelerator) -> bool:
    """Whether prices of crossings are linear in the parameters: what an output's divided returns save is a maximum over
    the memories that a mapping may leave out."""
    return machine.mac.measurements is None and not any("output" in memory.bypass for memory in machine.memories)


def priced(problem: Problem, table: MachineTable, solved: Solved, effort: Effortful, began: float) -> Found | None:
    """A row's exact price on a machine under its certificate; None where it does not fit or lies above its bound."""
    row, bound = solved.row, solved.bound
    if not problem.leaves_room(row.counts):
        return None
    cost = problem.bill(row.counts)
    value = cost.total_energy_pj
    if value > bound * (1 + TOLERANCE) + solved.rounding:
        return None
    certificate = Certificate(
        "energy", value, min(bound, value), covered(table), len(table.rows), PROVEN[effort], True,
        time.perf_counter() - began, min(bound, value),
    )  # fmt: skip
    return Found(row.mapping, row.counts, cost, certificate) if math.isfinite(value) else None
