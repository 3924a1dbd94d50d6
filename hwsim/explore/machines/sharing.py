"""Which machines of a study share tables: those that differ in prices, bandwidths and room alone.

Axes that change the layers' lattices (arrays, words, MACs), or sizes and energies together (a memory whose energies
follow its size), part a study. Every part has tables of its own (`search.machines`); the other axes span a box.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from functools import cached_property

from hwsim.errors import SpecError
from hwsim.explore.machines.space import NETWORK, Axis, Parameters, Space
from hwsim.machine.parts import Accelerator
from hwsim.search.machines.answers import MachineAnswers, Regimes
from hwsim.search.machines.box import Box, parameters, sizes, skeleton

PARTS = 32  # that are kept in memory
_tables: OrderedDict[str, SharedTables] = OrderedDict()


class SharedTables:
    """The tables of a study's parts, in this process."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.parts: OrderedDict[str, MachineAnswers | None] = OrderedDict()
        self.regimes: Regimes = {}

    @cached_property
    def free(self) -> tuple[Axis, ...]:
        """Axes that do not part the study."""
        return tuple(axis for axis in self.space.axes if axis.key not in NETWORK and self.shares(axis))

    def shares(self, axis: Axis) -> bool:
        """Whether machines along an axis differ in room alone, or in prices and bandwidths alone."""
        machines = self.along(self.space.point([0] * len(self.space.axes)), axis)
        if len(machines) < len(axis.values):
            return False
        first = machines[0]
        alike = all(skeleton(machine) == skeleton(first) for machine in machines)
        resized = any(sizes(machine) != sizes(first) for machine in machines)
        priced = any(parameters(machine) != parameters(first) for machine in machines)
        return alike and not (resized and priced)

    def along(self, point: Parameters, axis: Axis) -> list[Accelerator]:
        """The machines of an axis through a point, those that there are."""
        found: list[Accelerator] = []
        for value in axis.values:
            try:
                found.append(self.space.machine({**point, axis.key: value}))
            except SpecError:
                continue
        return found

    def answers(self, point: Parameters) -> MachineAnswers | None:
        """The tables for a point; None where no other machine would share them."""
        own = {key: value for key, value in point.items() if key not in {axis.key for axis in self.free}}
        name = json.dumps({key: value for key, value in own.items() if key not in NETWORK}, sort_keys=True)
        if name not in self.parts:
            self.parts[name] = self.begun({**point, **{axis.key: axis.values[0] for axis in self.free}})
            if len(self.parts) > PARTS:
                self.parts.popitem(last=False)
        self.parts.move_to_end(name)
        return self.parts[name]

    def begun(self, base: Parameters) -> MachineAnswers | None:
        """Tables for the box around a point."""
        if not self.free:
            return None
        box = Box.spanned(self.space.machine(base), [self.along(base, axis) for axis in self.free])
        return MachineAnswers(box, regimes=self.regimes)


def shared_tables(space: Space) -> SharedTables:
    """The tables of a study in this process."""
    name = json.dumps([space.text, str(space.base_path), space.base], sort_keys=True, default=str)
    if name not in _tables:
        _tables[name] = SharedTables(space)
        if len(_tables) > 2:
            _tables.popitem(last=False)
    return _tables[name]
