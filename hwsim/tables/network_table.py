"""A network's bill under many bit assignments at once: one `LayerTable` per distinct layer, gathered and added up.

An assignment is a row of bits, one per `Column`: a weight tensor, or activations that must share their bits. A row's
energy and cycles are those of `cost.price_network` under the mapping that is best for each layer alone, with the
tensors that stay on chip chosen anew for every row; tests demand equality. Operators without MACs are priced by the
same functions as there, once per distinct widths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.errors import SpecError
from hwsim.machine.parts import Accelerator
from hwsim.nest.counts import Counts
from hwsim.network.bits_file import WIDTHS
from hwsim.network.layer import Layer
from hwsim.network.workload import Workload
from hwsim.pricing.layer import price
from hwsim.pricing.mac import require_capable
from hwsim.pricing.network import NetworkCost, price_network
from hwsim.pricing.stages import effective_layer, fuse
from hwsim.search.network import Plan, planned
from hwsim.search.objective import Objective, value_of
from hwsim.search.result import Certificate, Found
from hwsim.tables.assignable import Assignable
from hwsim.tables.grid import Ints
from hwsim.tables.layer_table import LayerTable
from hwsim.tables.pool import Triple, Widths, anonymous, at_bits
from hwsim.tables.rows import Priced, Rows

WARM = 64
SPACE = "table: mappings searched at a few widths, priced exactly at these; the bound holds at these widths"


@dataclass(frozen=True)
class NetworkTable(Assignable):
    """A workload on an accelerator, priced at any bits of the tables' grids."""

    @classmethod
    def build(
        cls,
        workload: Workload,
        accelerator: Accelerator,
        widths: Sequence[int] = WIDTHS,
        *,
        progress: Callable[[str], None] | None = None,
        objective: Objective = "energy",
        **options: Any,
    ) -> NetworkTable:
        """Tables for every distinct layer with MACs of a quantized workload; `options` are `LayerTable.build`'s.

        Signs, offsets and padding policies are the workload's (`assign_bits` gives them); only bits vary. Raises as
        `LayerTable.build` does, and CapabilityError for operators that the machine does not have.
        """
        chosen = tuple(sorted(set(widths)))
        grid = Widths(chosen, chosen, chosen)
        known: dict[Layer, LayerTable] = {}
        tables: dict[str, LayerTable] = {}
        for stage in fuse(workload, accelerator.capabilities):
            if not stage.layer.has_macs:
                require_capable(stage.layer, accelerator)
                continue
            layer = effective_layer(stage)
            key = anonymous(layer)
            if key not in known:
                if progress is not None:
                    progress(layer.name)
                known[key] = LayerTable.build(layer, accelerator, grid, objective=objective, **options)
            tables[layer.name] = known[key]
        table = cls(workload, accelerator, objective, chosen, tables)
        table.price(table.random(WARM, np.random.default_rng(0)))  # what is computed once per width, now
        return table

    # --- assignments --------------------------------------------------------------------------------------------------

    def uniform(self, weight: int, activation: int) -> Ints:
        """One assignment, [1, column]: all weights and all activations alike."""
        return np.array([[weight if c.kind == "weight" else activation for c in self.columns]], dtype=np.int64)

    def of_workload(self, workload: Workload) -> Ints:
        """The assignment that a workload carries, [1, column]. Raises SpecError where tensors of a column differ."""
        tensors = workload.tensors
        row: list[int] = []
        for column in self.columns:
            bits = {tensors[name].bits for name in column.tensors}
            if len(bits) > 1:
                raise SpecError(f"tensors that must share bits differ: {', '.join(column.tensors)} have {sorted(bits)}")
            row.append(bits.pop())
        return np.array([row], dtype=np.int64)

    def random(self, count: int, generator: np.random.Generator) -> Ints:
        """Assignments drawn evenly from the widths, [count, column]."""
        return generator.choice(np.array(self.widths, dtype=np.int64), size=(count, len(self.columns)))

    def workload_at(self, row: Ints) -> Workload:
        """The network with the bits of one assignment."""
        bits = {name: int(row[place]) for name, place in self.column_of.items()}
        layers = (at_bits(layer, bits) for layer in self.workload)
        return Workload(self.workload.name, layers, self.workload.coverage, self.workload.notes)

    # --- one assignment, by the functions that price networks ---------------------------------------------------------

    def triple(self, layer: Layer) -> Triple:
        """Widths of a layer with MACs."""
        assert layer.weight is not None
        return (layer.weight.bits, layer.inputs[0].bits, layer.output.bits)

    def counts_at(self, workload: Workload) -> dict[str, Counts]:
        """Counts of the best mapping of every layer with MACs at a workload's bits."""
        found: dict[str, Counts] = {}
        for stage in fuse(workload, self.accelerator.capabilities):
            if stage.layer.has_macs:
                table = self.tables[stage.layer.name]
                found[stage.layer.name] = table.pool.counts[table.place(*self.triple(effective_layer(stage)))]
        return found

    def network_cost(self, row: Ints) -> NetworkCost:
        """The bill of one assignment by `price_network` itself, tensors that stay on chip included."""
        workload = self.workload_at(row)
        return price_network(workload, self.accelerator, self.counts_at(workload))

    def plan(self, row: Ints) -> Plan:
        """One assignment as a plan: mappings with certificates, for a report."""
        workload = self.workload_at(row)
        found: dict[str, Found] = {}
        for stage in fuse(workload, self.accelerator.capabilities):
            if stage.layer.has_macs:
                layer, table = effective_layer(stage), self.tables[stage.layer.name]
                widths = self.triple(layer)
                place, index = table.place(*widths), table.widths.index(*widths)
                cost = price(layer, table.pool.counts[place], self.accelerator)
                certificate = Certificate(
                    self.objective, value_of(cost, self.objective), float(table.lower_bound[index]),
                    len(table.pool), len(table.pool), SPACE,
                )  # fmt: skip
                found[layer.name] = Found(table.pool.mappings[place], table.pool.counts[place], cost, certificate)
        return planned(workload, self.accelerator, found)

    # --- many assignments ---------------------------------------------------------------------------------------------

    def price(self, bits: Ints, *, alone: bool = False) -> Priced:
        """What assignments cost, [assignment, column] bits. `alone`: every tensor through the outermost memory.

        Raises SpecError for bits outside the tables.
        """
        rows = Rows(self, np.asarray(bits, dtype=np.int64))
        return rows.priced(alone)
