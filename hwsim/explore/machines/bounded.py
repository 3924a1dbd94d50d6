"""The front of a whole grid of machines without pricing most of them: branch and bound over boxes of parameters.

The optimum of a layer never rises with a size, a bandwidth or a smaller energy. So a box of machines costs no less than
one with the largest sizes, the least energies and the highest bandwidths of its points, each taken by itself: a
relaxation, which tables over machines answer (`search.machines`). Area is a sum over components: its least is the sum
of the least changes. A box is left out when a priced point is nowhere worse than these bounds, or when they break a
limit; else it is halved, until one point is left, which is priced. So what is never priced is beaten or equalled.

Axes of the hierarchy's sizes, energies, bandwidths and leakages are bounded; every choice of the others is a box.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import HwsimError
from hwsim.explore.machines.journal import Record
from hwsim.explore.machines.space import NETWORK, Parameters, Space
from hwsim.explore.machines.trial import FACTS, Task, network_key
from hwsim.machine.parts import Accelerator
from hwsim.network.format_bits import with_bits
from hwsim.network.workload import Workload
from hwsim.pricing.area import component_areas, static_power_mw
from hwsim.search.effort import Options
from hwsim.search.machines.answers import MachineAnswers
from hwsim.search.machines.box import Box, parameters, priced, sizes, with_sizes
from hwsim.search.network import plan_layers
from hwsim.search.result import Effortful

Told = Callable[[Sequence[Record]], None]
Ranges = tuple[tuple[int, int], ...]  # of indices into an axis' values, both ends in it
Entry = tuple[float, int, tuple[int, ...], Ranges, dict[str, float]]  # rank, serial, other axes, box, bounds
Floats = NDArray[np.float64]
MONOTONE = re.compile(r"(hierarchy\..*\.(size_bits|.*energy_pj.*|.*bandwidth.*|leakage_mw|area_mm2)|static_power_mw)$")
SMALL = 1e-9


class NotSeparate(HwsimError):
    """Axes change a machine together in a way that their changes one by one do not add up to."""


class Family:
    """The machines of one choice of the axes that are not bounded: bounds of its boxes."""

    def __init__(self, space: Space, workload: Workload, point: Parameters, axes: Sequence[int]) -> None:
        self.space, self.point, self.axes = space, point, axes
        self.workload = with_bits(workload, cast(str | dict[str, Any], space.fixed_bits))
        self.base = space.machine(point)
        along = [[space.machine({**point, space.axes[a].key: v}) for v in space.axes[a].values] for a in axes]
        start = figures(self.base)
        self.start, self.changes = start, [np.array([figures(machine) - start for machine in own]) for own in along]
        self.answers = MachineAnswers(Box.spanned(self.base, along))

    def corner(self, ranges: Ranges) -> tuple[Accelerator, float]:
        """The best machine that a box could have, and the least area."""
        own = [changes[low : high + 1] for changes, (low, high) in zip(self.changes, ranges, strict=True)]
        least = self.start + sum((rows.min(axis=0) for rows in own), np.zeros_like(self.start))
        return self.built(least), float(least[0])

    def built(self, least: Floats) -> Accelerator:
        """The machine of some figures (see `figures`)."""
        known = parameters(self.base)
        memories = self.base.memories
        found = [None if size is None else round(-least[1 + i]) for i, size in enumerate(sizes(self.base))]
        values = dict(zip(known, least[1 + len(memories) :].tolist(), strict=True))
        machine = with_sizes(self.base, found)
        nodes = tuple(priced(node, values) for node in machine.hierarchy)
        machine = dataclasses.replace(machine, hierarchy=nodes)
        power = values["idle"] * machine.clock_mhz / 1e3 - static_power_mw(machine)
        return dataclasses.replace(machine, control_power_mw=power)

    def bound(self, ranges: Ranges) -> dict[str, float]:
        """What no machine of a box is below; infinite where none of them runs the network."""
        machine, area = self.corner(ranges)
        options = Options(0.0, None, cast(Effortful, self.space.effort))
        try:
            plan = plan_layers(self.workload, machine, "energy", options, self.answers, stay=False)
        except FACTS:
            return {"energy_pj": np.inf, "area_mm2": area}
        slack = sum(found.certificate.value - found.certificate.lower_bound for found in plan.found.values())
        return {"energy_pj": plan.cost.totals.energy_pj - slack, "area_mm2": area}

    def check(self, picks: Sequence[int]) -> None:
        """Raises NotSeparate where a point is not what the changes of its axes add up to."""
        point = {
            **self.point,
            **{self.space.axes[a].key: self.space.axes[a].values[i] for a, i in zip(self.axes, picks, strict=True)},
        }
        told = self.start + sum(
            (rows[i] for rows, i in zip(self.changes, picks, strict=True)), np.zeros_like(self.start)
        )
        if not np.allclose(figures(self.space.machine(point)), told, rtol=1e-6, atol=SMALL):
            raise NotSeparate(f"{self.space.place}: sampler bound: axes that change one figure of the machine together "
                              "cannot be bounded one by one: use `sampler: grid`")  # fmt: skip


def figures(machine: Accelerator) -> Floats:
    """[area mm2, sizes with their sign changed, parameters]: the less the better."""
    area = sum(part.area_mm2 for part in component_areas(machine))
    held = [-(memory.size_bits or 0) for memory in machine.memories]
    return np.array([area, *held, *parameters(machine).values()], dtype=float)


class Bounded:
    """Branch and bound over a space; `bounded` counts boxes, `families` the choices of the other axes."""

    def __init__(self, space: Space, networks: Mapping[str, Workload]) -> None:
        self.space, self.networks = space, networks
        self.axes = [a for a, axis in enumerate(space.axes) if MONOTONE.match(axis.key) and axis.ordered]
        self.bounded = 0
        self.front: list[list[float]] = []
        self.serial = itertools.count()
        self.families: dict[tuple[int, ...], Family] = {}

    def roots(self) -> Iterator[tuple[tuple[int, ...], Ranges]]:
        """A box per choice of the other axes."""
        others = [range(len(axis.values)) for a, axis in enumerate(self.space.axes) if a not in self.axes]
        whole = tuple((0, len(self.space.axes[a].values) - 1) for a in self.axes)
        for choice in itertools.product(*others):
            yield choice, whole

    def family(self, choice: tuple[int, ...]) -> Family:
        """The machines of a choice."""
        picks = iter(choice)
        point = self.space.point([0 if a in self.axes else next(picks) for a in range(len(self.space.axes))])
        workload = self.networks[network_key({k: v for k, v in point.items() if k in NETWORK})]
        return Family(self.space, workload, point, self.axes)

    def generations(self) -> Iterator[tuple[list[Task], Told]]:
        """Points to price, one by one, until every other one is left out."""
        heap: list[Entry] = []
        for choice, ranges in self.roots():
            self.push(heap, choice, ranges)
        trials = itertools.count()
        if not heap:  # nothing is left: one point says why
            yield [(next(trials), self.space.point([0] * len(self.space.axes)))], self.told
        while heap:
            _, _, choice, ranges, bound = heapq.heappop(heap)
            if self.beaten(bound):
                continue
            wide = [i for i, (low, high) in enumerate(ranges) if high > low]
            if not wide:
                yield [(next(trials), self.point(choice, ranges))], self.told
                continue
            for part in halves(ranges, self.widest(choice, ranges, wide)):
                self.push(heap, choice, part)

    def widest(self, choice: tuple[int, ...], ranges: Ranges, axes: Sequence[int]) -> int:
        """The axis of a box along which machines differ most."""
        return max(axes, key=lambda axis: self.spread(choice, axis, ranges[axis]))

    def spread(self, choice: tuple[int, ...], axis: int, ends: tuple[int, int]) -> float:
        """How much an axis changes a machine between two ends, as a share of it."""
        family = self.families[choice]
        change = np.abs(family.changes[axis][ends[1]] - family.changes[axis][ends[0]])
        return float((change / np.maximum(np.abs(family.start), SMALL)).max()) + (ends[1] - ends[0]) * SMALL

    def push(
        self,
        heap: list[tuple[float, int, tuple[int, ...], Ranges, dict[str, float]]],
        choice: tuple[int, ...],
        ranges: Ranges,
    ) -> None:
        """A box with its bound, unless it is beaten."""
        if choice not in self.families:
            self.families[choice] = self.family(choice)
        bound = self.families[choice].bound(ranges)
        self.bounded += 1
        if not self.beaten(bound):
            rank = sum(np.log(max(bound[name], SMALL)) for name in self.space.objectives)
            heapq.heappush(heap, (float(rank), next(self.serial), choice, ranges, bound))

    def beaten(self, bound: Mapping[str, float]) -> bool:
        """Whether a priced point is nowhere worse, or a limit is exceeded."""
        if any(bound[name] > limit * (1 + SMALL) for name, limit in self.space.limits.items()):
            return True
        mine = [bound[name] for name in self.space.objectives]
        return mine[0] == np.inf or any(all(p <= m for p, m in zip(point, mine, strict=True)) for point in self.front)

    def point(self, choice: tuple[int, ...], ranges: Ranges) -> Parameters:
        """The only point of a box."""
        own, others = iter(ranges), iter(choice)
        picks = [next(own)[0] if a in self.axes else next(others) for a in range(len(self.space.axes))]
        self.families[choice].check([low for low, _ in ranges])
        return self.space.point(picks)

    def told(self, records: Sequence[Record]) -> None:
        """Points of the front so far."""
        for record in records:
            if record["status"] == "ok":
                self.front.append([float(record["values"][name]) for name in self.space.objectives])


def halves(ranges: Ranges, axis: int) -> Iterator[Ranges]:
    """A box cut in two along an axis."""
    low, high = ranges[axis]
    middle = (low + high) // 2
    for part in ((low, middle), (middle + 1, high)):
        yield (*ranges[:axis], part, *ranges[axis + 1 :])
