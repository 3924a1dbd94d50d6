"""A look-up table of layer costs: one row per layer and pair of widths, or format.

Energy, cycles, bottleneck, with the loops that identify the layer. All layers have the pair's widths at once (a layer's
output the activation bits), so the rows of one pair add up to what `evaluate` reports. Alone, every layer is searched
and priced with its tensors in the outermost memory, so no row depends on its neighbours. A batch runs in the passes
that cost least: the network's, or each layer's own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hwsim.errors import CapabilityError, HwsimError, InfeasibleMapping
from hwsim.files.identity import Identity, identity
from hwsim.machine.parts import Accelerator
from hwsim.network.bits_file import parse_wxay
from hwsim.network.format_bits import asks_for_formats
from hwsim.network.formats import parse_formats
from hwsim.network.layer import Layer
from hwsim.network.workload import Workload
from hwsim.pricing.layer import LayerCost, price_fused, price_stage
from hwsim.pricing.passes import layer_sum
from hwsim.pricing.stages import fuse
from hwsim.report.evaluation import Request, at_bits, table_plan
from hwsim.report.files import rows_to_csv
from hwsim.search.cache import VERSION as SEARCH_VERSION
from hwsim.search.network import Plan, planned, search_network
from hwsim.search.objective import Objective, objective_value
from hwsim.search.passes import equal_sizes
from hwsim.search.result import Found

FORMAT = "hwsim-table"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Row:
    """One layer at one pair of widths. `bits` is the pair asked for; the layer's own widths stand beside it.

    A fused operator has no cycles of its own. Energies by component sum to `energy_pj`.
    """

    bits: str
    layer: Layer
    cost: LayerCost

    def to_dict(self) -> dict[str, Any]:
        """Flat columns; loops and stride identify the shape."""
        weight, activation, output, accumulator = self.layer.bits_key()
        return {
            "layer": self.layer.name,
            "op": self.layer.op,
            **self.layer.loops.as_dict(),
            "stride_rows": self.layer.stride[0],
            "stride_columns": self.layer.stride[1],
            "bits": self.bits,
            "weight_bits": weight,
            "input_bits": activation,
            "output_bits": output,
            "accumulator_bits": accumulator,
            "macs": self.layer.macs,
            "energy_pj": self.cost.total_energy_pj,
            "cycles": self.cost.latency_cycles,
            "bottleneck": self.cost.bottleneck,
        }


@dataclass(frozen=True)
class LookUpTable:
    """Costs by layer and pair of widths. `refused`: pairs that the machine cannot run, with the reason.

    `identity`: of everything that the costs follow from. `network`: of the trained network whose layers these are.
    """

    model: str
    accelerator: Accelerator
    objective: str
    alone: bool
    rows: tuple[Row, ...]
    identity: Identity
    network: str = ""
    refused: tuple[tuple[str, str], ...] = ()

    @cached_property
    def by_key(self) -> dict[tuple[str, str], LayerCost]:
        """Cost by (layer name, pair)."""
        return {(row.layer.name, row.bits): row.cost for row in self.rows}

    def to_csv(self) -> str:
        """Rows as CSV text with a header; each ends with both identities, for rows travel alone."""
        named = {"network": self.network, "identity": self.identity.value}
        return rows_to_csv([{**row.to_dict(), **named} for row in self.rows])

    def to_json(self) -> str:
        """Rows with energies by component, and what they rest on."""
        rows = [{**row.to_dict(), "energy_pj_by_component": row.cost.energy_pj} for row in self.rows]
        found = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "identity": self.identity.to_dict(),
            "network": self.network,
            "model": self.model,
            "accelerator": self.accelerator.name,
            "clock_mhz": self.accelerator.clock_mhz,
            "objective": self.objective,
            "alone": self.alone,
            "refused": [{"bits": bits, "why": why} for bits, why in self.refused],
            "rows": rows,
        }
        return json.dumps(found, indent=1, allow_nan=False) + "\n"


def look_up_table(
    workload: Workload,
    accelerator: Accelerator,
    pairs: Sequence[str],
    objective: Objective = "energy",
    *,
    alone: bool = False,
    first_last: str | None = None,
    elementwise_bits: int | str | None = None,
    allow_overflow: bool = False,
) -> LookUpTable:
    """Every layer at every pair (`W4A4`), under the plan that `evaluate` prints at that pair.

    Pairs that the machine refuses or cannot hold are listed; raises when it refuses all.
    """
    rows: list[Row] = []
    refused: list[tuple[str, str]] = []
    known: dict[tuple[object, ...], Found] = {}  # a layer at some widths is searched once, whichever pairs ask for it
    for pair in dict.fromkeys(pairs):
        request = Request(
            objective,
            pair,
            first_last=first_last,
            elementwise_bits=elementwise_bits,
            allow_overflow=allow_overflow or alone,
        )
        try:
            narrowed = at_bits(workload, accelerator, request)
            costs = rows_alone(narrowed, accelerator, request, known) if alone else None
            costs = costs or table_plan(narrowed, accelerator, request, known).cost.layers
        except (CapabilityError, InfeasibleMapping) as problem:
            if len(pairs) == 1:
                raise
            refused.append((pair, str(problem).splitlines()[0]))
            continue
        rows += [Row(pair, layer, cost) for layer, cost in zip(narrowed, costs, strict=True)]
    if not rows:
        raise CapabilityError("\n".join(f"{pair}: {why}" for pair, why in refused))
    asked = identity(
        workload=workload.to_dict(), accelerator=accelerator, bits=list(pairs), search=SEARCH_VERSION,
        options=[objective, alone, first_last, elementwise_bits, allow_overflow],
    )  # fmt: skip
    return LookUpTable(
        workload.name, accelerator, objective, alone, tuple(rows), asked, workload.identity, tuple(refused)
    )


def rows_alone(
    workload: Workload, accelerator: Accelerator, request: Request, known: dict[tuple[object, ...], Found]
) -> list[LayerCost]:
    """Every stage searched and priced by itself, in the equal passes of the batch that cost it least.

    Raises HwsimError where the machine runs no size.
    """
    objective, problem = request.objective, None
    sizes: list[tuple[int, dict[str, LayerCost]]] = []
    for times, network in equal_sizes(workload):
        try:
            found = search_network(network, accelerator, objective, effort=request.effort, known=known)
        except HwsimError as why:
            problem = problem or why
            continue
        alone = priced_alone(network, accelerator, planned(network, accelerator, found, frozenset()))
        sizes.append((times, {cost.name: cost for cost in alone}))
    if problem is not None and not sizes:
        raise problem
    rows: dict[str, LayerCost] = {}
    for stage in fuse(workload, accelerator.capabilities):
        names = [stage.layer.name, *(follower.name for follower in stage.fused)]
        runs = [[(times, costs[name]) for name in names] for times, costs in sizes]
        best = min(runs, key=lambda run: value_over(run, objective))
        rows |= {cost.name: cost if times == 1 else layer_sum([(times, cost)]) for times, cost in best}
    return [rows[layer.name] for layer in workload]


def value_over(runs: Sequence[tuple[int, LayerCost]], objective: Objective) -> float:
    """An objective's value over (times, bill)."""
    energy = sum(times * cost.total_energy_pj for times, cost in runs)
    return objective_value(objective, energy, float(sum(times * cost.latency_cycles for times, cost in runs)))


def priced_alone(workload: Workload, accelerator: Accelerator, plan: Plan) -> list[LayerCost]:
    """The layers under the plan's mappings, no tensor staying on chip between them."""
    nothing: frozenset[str] = frozenset()
    found: dict[str, LayerCost] = {}
    for stage in fuse(workload, accelerator.capabilities):
        name = stage.layer.name
        counts = plan.found[name].counts if name in plan.found else None
        found[name] = price_stage(stage, accelerator, counts, nothing)
        for follower in stage.fused:
            found[follower.name] = price_fused(follower, accelerator, stage, nothing)
    return [found[layer.name] for layer in workload]


def parse_pairs(text: str) -> tuple[str, ...]:
    """`W8A8,W4g128A16` as its pairs and formats, spelt alike. Raises SpecError."""
    return tuple(parse_pair(part.strip()) for part in text.split(","))


def parse_pair(text: str) -> str:
    """A pair of widths, or the name of a format, by its one spelling."""
    if asks_for_formats(text):
        parse_formats(text, "--bits")
        return text.upper().replace("G", "g").replace("Z", "z")
    weight, activation = parse_wxay(text, "--bits")
    return f"W{weight}A{activation}"
