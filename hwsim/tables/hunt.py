"""The searches behind a layer's table: which triples of widths are asked, what was found, what was proven.

Two triples ask the same `question` where every mapping fits alike and costs the same: the second is not searched.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from hwsim.errors import CapabilityError, InfeasibleMapping
from hwsim.machine.parts import Accelerator
from hwsim.network.layer import Layer
from hwsim.pricing.mac import refusals
from hwsim.pricing.unit_prices import unit_prices
from hwsim.search.layer import search
from hwsim.search.objective import Objective
from hwsim.search.result import Effortful
from hwsim.tables.pool import Pool, Triple, Widths, at_widths


@dataclass(frozen=True)
class Searched:
    """One search behind a table: where, what it proved (in the objective's unit), and by what effort."""

    widths: Triple
    lower_bound: float
    effort: Effortful
    exhaustive: bool


class Hunt:
    """Searches of one layer at several triples, and the mappings they found."""

    def __init__(
        self,
        layer: Layer,
        accelerator: Accelerator,
        widths: Widths,
        objective: Objective,
        effort: Effortful,
        limit_s: float | None,
    ) -> None:
        self.layer, self.accelerator, self.widths = layer, accelerator, widths
        self.objective: Objective = objective
        self.effort: Effortful = effort
        self.limit_s = limit_s
        self.pool = Pool(layer, accelerator)
        self.searched: list[Searched] = []
        self.seen: set[tuple[object, ...]] = set()
        self.failed: Exception | None = None

    def anchored(self, anchors: Iterable[int]) -> None:
        """Search all pairs of anchors of the grid, the narrowest first; outputs as wide as inputs."""
        chosen = tuple(anchors)
        weights = [w for w in self.widths.weight if w in chosen] or self.widths.weight[-1:]
        inputs = [x for x in self.widths.input if x in chosen] or self.widths.input[-1:]
        for weight, input_ in itertools.product(weights, inputs):
            self.at((weight, input_, min(self.widths.output, key=lambda o: (abs(o - input_), o))))
        if not len(self.pool):  # none of the anchors: the machine may run other widths, or nothing fits
            for _, widths in self.widths:
                if self.at(widths):
                    return
            assert self.failed is not None
            raise self.failed

    def at(self, widths: Triple) -> bool:
        """Search one triple; False where nothing new can come of it (refused, does not fit, the same question)."""
        layer = at_widths(self.layer, *widths)
        refused = refusals(layer, self.accelerator)
        if refused:
            self.failed = self.failed or CapabilityError("\n".join(refused))
            return False
        key = question(layer, self.accelerator)
        if key in self.seen:
            return False
        self.seen.add(key)
        try:
            found = search(
                layer, self.accelerator, self.objective, effort=self.effort, time_limit_s=self.limit_s,
            )  # fmt: skip
        except InfeasibleMapping as problem:
            self.failed = problem
            return False
        self.pool = self.pool.with_mapping(found.mapping, found.counts)
        bound, ended = float(found.certificate.lower_bound), bool(found.certificate.exhaustive)
        self.searched.append(Searched(widths, bound, self.effort, ended))
        return True


def question(layer: Layer, accelerator: Accelerator) -> tuple[object, ...]:
    """Equal for widths among which every mapping fits alike and costs the same: padded words, the same MAC mode."""
    unit = unit_prices(layer, accelerator)
    return (
        tuple(unit.traffic_pj.items()), tuple(unit.port_bits.items()), tuple(unit.hop_pj.items()), unit.mac_pj,
        unit.mac.cycles, unit.mac.products, unit.mac.start_cycles, unit.fixed_pj, unit.fixed_cycles,
    )  # fmt: skip
