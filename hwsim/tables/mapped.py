"""One stage under one mapping: may the machine run it, does it fit, what does it cost, here and at other widths.

Access counts do not depend on bits, so other widths are priced without a search. `Grid` gives the totals of many
mappings at all widths at once; this is one of its entries with every part of the bill (a test holds them equal).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

from hwsim.machine.parts import Accelerator
from hwsim.nest.legal import validate
from hwsim.network.formats import at_width
from hwsim.network.layer import Layer, Tensor
from hwsim.pricing.layer import LayerCost, price_stage
from hwsim.pricing.mac import refusals
from hwsim.pricing.stages import Stage, effective_layer
from hwsim.search.layer import search
from hwsim.search.objective import Objective
from hwsim.search.result import Effortful, Found
from hwsim.tables.pool import at_widths

Side = Literal["weight", "input"]
SIDES: tuple[Side, ...] = ("weight", "input")


@dataclass(frozen=True)
class MappedStage:
    """A stage whose first layer has MACs, its mapping, and the tensors that stay on chip."""

    stage: Stage
    found: Found
    accelerator: Accelerator
    resident: frozenset[str]

    @cached_property
    def layer(self) -> Layer:
        """The layer as memories see it."""
        return effective_layer(self.stage)

    @cached_property
    def cost(self) -> LayerCost:
        """The bill, part by part."""
        return price_stage(self.stage, self.accelerator, self.found.counts, self.resident)

    def refusals(self) -> tuple[str, ...]:
        """Rules that forbid these widths."""
        return refusals(self.stage.layer, self.accelerator)

    def misfit(self) -> str:
        """Why the mapping does not fit at these widths; empty when it does."""
        return "; ".join(validate(self.found.mapping, self.layer, self.accelerator)[:1])

    def searched(self, objective: Objective, seeds: Sequence[Found], effort: Effortful) -> Found:
        """The best mapping found at these widths, those of `seeds` among the candidates."""
        return search(
            self.layer, self.accelerator, objective, seeds=tuple(found.mapping for found in seeds), effort=effort
        )

    # --- other widths -------------------------------------------------------------------------------------------------

    def tensor(self, side: Side) -> Tensor:
        """The operand in question."""
        weight = self.stage.layer.weight
        assert weight is not None
        return weight if side == "weight" else self.stage.layer.inputs[0]

    def has(self, side: Side, bits: int) -> bool:
        """Whether the operand can have that width: integers any, floats those of an element."""
        form = self.tensor(side).format
        return form is None or at_width(form, bits) is not None

    def at(self, side: Side, bits: int) -> Self:
        """The same with other bits on one operand, under the same mapping."""
        layer = self.stage.layer
        weight, input_ = (bits if side == s else self.tensor(s).bits for s in SIDES)
        changed = at_widths(layer, weight, input_, layer.output.bits)
        return dataclasses.replace(self, stage=Stage(changed, self.stage.fused))
