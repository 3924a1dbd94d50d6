"""The bill of a whole network: layers priced in stages, tensors that stay on chip, memory held, area, totals.

`price_network` takes a workload and the counts of its layers with MACs. Operators are fused behind a layer where the
machine does so, tensors stay on chip where that saves most energy, and every simplification is listed in `assumptions`.
One layer alone is `price` (layer_cost.py); what a search needs per count is `unit_prices` (unit_prices.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property

from hwsim.errors import InfeasibleMapping
from hwsim.machine.parts import Accelerator, Spread
from hwsim.nest.counts import Counts
from hwsim.network.layer import Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.area import ComponentArea, component_areas, static_power_mw
from hwsim.pricing.assumptions import (
    assumptions,
    border_assumptions,
    compression_assumptions,
    gating_assumptions,
    group_assumptions,
    ideal_assumptions,
    warnings,
    whole_tile_assumptions,
)
from hwsim.pricing.fit import overflows, stored_weight_bits
from hwsim.pricing.interval import Interval, TimeInterval, energy_interval, exact_time
from hwsim.pricing.layer import LayerCost, price
from hwsim.pricing.lifetimes import WHOLE_TENSORS, Lifetimes
from hwsim.pricing.moves import parameter_bits
from hwsim.pricing.rates import Bills, Timed, TimedPasses
from hwsim.pricing.residents import peak_activation_bits, residents
from hwsim.pricing.stages import Stage, fuse
from hwsim.pricing.unit_prices import UnitPrices, unit_prices

__all__ = ["LayerCost", "NetworkCost", "Totals", "UnitPrices", "price", "price_network", "unit_prices"]


@dataclass(frozen=True)
class Totals:
    """The network in one line. `weight_bits`: packed weights plus scales, offsets, biases (`parameter_bits`)."""

    energy_pj: float
    latency_cycles: int
    latency_s: float
    edp_pj_s: float
    macs: int
    bops: int
    average_weight_bits: float
    average_activation_bits: float
    weight_bits: int
    packed_weight_bits: int
    parameter_bits: int
    compression: float
    peak_activation_bits: int
    traffic_bits: int
    outermost_traffic_bits: int
    area_mm2: float
    static_power_mw: float

    def to_dict(self) -> dict[str, float]:
        """Fields by name, JSON-ready."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class NetworkCost:
    """A workload on an accelerator: `layers` in the workload's order."""

    layers: tuple[LayerCost, ...]
    totals: Totals
    areas: tuple[ComponentArea, ...]
    resident: tuple[str, ...]
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]
    spreads: tuple[Spread, ...] = ()  # of the machine's estimated prices
    lifetimes: Lifetimes = WHOLE_TENSORS  # of the tensors that stay
    timed: Timed | TimedPasses | None = field(default=None, repr=False, compare=False)  # the same bills at other rates

    @cached_property
    def energy_interval(self) -> Interval:
        """Where the energy lies if every estimated price and rate lies within its spread."""
        return energy_interval(self.energy_pj_by_component, self.spreads, self.latency_interval)

    @cached_property
    def latency_interval(self) -> TimeInterval:
        """Where the latency lies if every estimated rate lies within its spread."""
        return exact_time(self.totals.latency_s) if self.timed is None else self.timed.interval

    @cached_property
    def energy_pj_by_component(self) -> tuple[tuple[str, float], ...]:
        """Energy by component over all layers; sums to `totals.energy_pj` exactly."""
        found: dict[str, float] = {}
        for layer in self.layers:
            for component, energy in layer.energy_pj.items():
                found[component] = found.get(component, 0.0) + energy
        return tuple(found.items())


def price_network(
    workload: Workload,
    accelerator: Accelerator,
    counts: Mapping[str, Counts],
    zero_shares: Mapping[str, float] | None = None,
    resident: frozenset[str] | None = None,
    grouped: Mapping[str, LayerCost] | None = None,
    lifetimes: Lifetimes = WHOLE_TENSORS,
) -> NetworkCost:
    """A whole workload, given the counts of each layer with MACs by name.

    Operators that the machine fuses run behind their layer. `resident`: tensors that stay on chip, as a plan of the
    network found them to fit under `lifetimes`; None: whole ones with which these mappings save most energy.
    `grouped`: the bills of layers that run depth first (pricing/fused.py), whose counts are not looked at.
    """
    stages = fuse(workload, accelerator.capabilities)
    found = dict(grouped or {})
    missing = [s.layer.name for s in stages if s.layer.has_macs and s.layer.name not in {*counts, *found}]
    if missing:
        raise InfeasibleMapping(f"no mapping given for layer {', '.join(missing)}")
    shares = zero_shares or {}
    planned = resident is not None
    resident = residents(stages, accelerator, counts) if resident is None else resident
    bills = Bills(stages, counts, resident, shares, found)
    priced = bills.on(accelerator)
    layers = tuple(priced[layer.name] for layer in workload)
    areas = component_areas(accelerator)
    return NetworkCost(
        layers=layers,
        totals=totals(workload, accelerator, layers, stages, areas),
        areas=areas,
        resident=tuple(sorted(resident)),
        assumptions=(
            *assumptions(accelerator, areas, resident, planned, lifetimes),
            *border_assumptions(workload, accelerator, layers),
            *compression_assumptions(accelerator),
            *whole_tile_assumptions(workload, accelerator),
            *ideal_assumptions(accelerator),
            *gating_assumptions(accelerator, shares),
            *group_assumptions(layers),
        ),
        warnings=(
            *(f"does not fit: {overflow}" for overflow in overflows(workload, accelerator)),
            *warnings(stages, accelerator),
        ),
        spreads=accelerator.spreads,
        lifetimes=lifetimes,
        timed=Timed(bills, accelerator),
    )


def totals(
    workload: Workload,
    accelerator: Accelerator,
    layers: tuple[LayerCost, ...],
    stages: tuple[Stage, ...],
    areas: tuple[ComponentArea, ...],
) -> Totals:
    """Sums over the layers, memory held, and the field's common currencies."""
    outer = accelerator.outermost
    weights = {
        layer.weight.name: layer.weight
        for layer in workload
        if layer.weight is not None and not layer.weight_is_activation
    }
    stored = sum(stored_weight_bits(w, outer) for w in weights.values())
    parameters = sum(parameter_bits(layer, accelerator.capabilities) for layer in workload)
    parameters += sum(layer.offset.extra_bits for layer in layers if layer.offset.kind in ("folded", "border_bias"))
    inputs = [layer.inputs[0] for layer in workload if layer.has_macs]
    energy = sum(layer.total_energy_pj for layer in layers)
    cycles = sum(layer.latency_cycles for layer in layers)
    seconds = cycles / (accelerator.clock_mhz * 1e6)
    raw = sum(w.elements for w in weights.values())
    return Totals(
        energy_pj=energy,
        latency_cycles=cycles,
        latency_s=seconds,
        edp_pj_s=energy * seconds,
        macs=workload.macs,
        bops=sum(layer.bops for layer in workload),
        average_weight_bits=average_bits(weights.values()),
        average_activation_bits=average_bits(inputs),
        weight_bits=stored + parameters,
        packed_weight_bits=stored,
        parameter_bits=parameters,
        compression=32 * raw / stored if stored else 1.0,
        peak_activation_bits=peak_activation_bits(stages),
        traffic_bits=sum(layer.traffic_bits for layer in layers),
        outermost_traffic_bits=sum(m.bits for layer in layers for m in layer.moved if m.memory == outer.name),
        area_mm2=sum(part.area_mm2 for part in areas),
        static_power_mw=static_power_mw(accelerator),
    )


def average_bits(tensors: Iterable[Tensor]) -> float:
    """Bits per element, over all elements; 0 where there is none."""
    known = list(tensors)
    elements = sum(t.elements for t in known)
    return sum(t.size_bits for t in known) / elements if elements else 0.0
