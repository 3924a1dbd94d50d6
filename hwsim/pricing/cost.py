"""The bill of a whole network: layers priced in stages, tensors that stay on chip, memory held, area, totals.

`price_network` takes a workload and the counts of its layers with MACs. Operators are fused behind a layer where the
machine does so, tensors stay on chip where that saves most energy, and every simplification is listed in `assumptions`.
One layer alone is `price` (layer_cost.py); what a search needs per count is `unit_prices` (unit_prices.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property

from hwsim.counts import Counts, Kind
from hwsim.errors import InfeasibleMapping
from hwsim.machine import Accelerator, Memory, Operand
from hwsim.packing import words
from hwsim.pricing.area import ComponentArea, component_areas, static_power_mw
from hwsim.pricing.layer_cost import LayerCost, price, price_fused, price_vector
from hwsim.pricing.mac import adc_bits, lossless_adc_bits, require_capable
from hwsim.pricing.moves import MULTIPLIER_BITS, SHIFT_BITS, operand_bits, parameter_bits
from hwsim.pricing.offsets import BIAS_BITS, offset_cost
from hwsim.pricing.stages import Stage, Stay, choose_resident, effective_layer, fuse, lifetimes, peak_activation_bits
from hwsim.pricing.unit_prices import UnitPrices, unit_prices
from hwsim.pricing.vector import requantize_ops
from hwsim.workload import Layer, Tensor, Workload

CONSTANTS = {
    "multiplier": f"{MULTIPLIER_BITS} + {SHIFT_BITS} bits per scale",
    "shift": f"{SHIFT_BITS} bits per scale",
    "thresholds": f"2^bits - 1 of {BIAS_BITS} bits per scale",
}
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
) -> NetworkCost:
    """A whole workload, given the counts of each layer with MACs by name.

    Operators that the machine fuses run behind their layer; tensors stay on chip where that saves most energy.
    """
    stages = fuse(workload, accelerator.capabilities)
    missing = [s.layer.name for s in stages if s.layer.has_macs and s.layer.name not in counts]
    if missing:
        raise InfeasibleMapping(f"no mapping given for layer {', '.join(missing)}")
    shares = zero_shares or {}
    resident = residents(stages, accelerator, counts)
    found: dict[str, LayerCost] = {}
    for stage in stages:
        name = stage.layer.name
        found[name] = price_stage(stage, accelerator, counts.get(name), resident, shares.get(name, 0.0))
        for follower in stage.fused:
            found[follower.name] = price_fused(follower, accelerator, stage, resident)
    layers = tuple(found[layer.name] for layer in workload)
    areas = component_areas(accelerator)
    return NetworkCost(
        layers=layers,
        totals=totals(workload, accelerator, layers, stages, areas),
        areas=areas,
        resident=tuple(sorted(resident)),
        assumptions=(
            *assumptions(accelerator, areas, resident),
            *border_assumptions(layers),
            *gating_assumptions(accelerator, shares),
        ),
        warnings=warnings(stages, accelerator),
    )


def price_stage(
    stage: Stage,
    accelerator: Accelerator,
    counts: Counts | None,
    resident: frozenset[str],
    zero_share: float = 0.0,
) -> LayerCost:
    """The first layer of a stage, MACs or not."""
    if counts is None or not stage.layer.has_macs:
        require_capable(stage.layer, accelerator)
        return price_vector(stage.layer, accelerator, resident)
    layer = effective_layer(stage)
    kept: dict[Operand, str] = {o: name for o, name in operand_tensors(layer).items() if name in resident}
    return price(layer, counts, accelerator, fused=stage.fused, resident=kept, zero_share=zero_share)


def operand_tensors(layer: Layer) -> dict[Operand, str]:
    """Names of the activations behind the operands of a layer with MACs."""
    found: dict[Operand, str] = {"input": layer.inputs[0].name, "output": layer.output.name}
    if layer.weight is not None and layer.weight_is_activation:
        found["weight"] = layer.weight.name
    return found


def residents(stages: tuple[Stage, ...], accelerator: Accelerator, counts: Mapping[str, Counts]) -> frozenset[str]:
    """Tensors that stay in the activation memory between the stage that makes them and the last that reads them.

    A tensor qualifies when every stage that touches it takes it through that memory and its maker spills no partial
    sums to the outermost memory. At every stage the kept tensors, whole and with the border of codes that a reader may
    need around them, and the tiles of all other operands must fit together.
    """
    home = accelerator.activation_memory
    if home is None or home.size_bits is None:
        return frozenset()
    tiles = [stage_tiles(stage, accelerator, home, counts) for stage in stages]
    stays: list[Stay] = []
    for life in lifetimes(stages):
        name = life.tensor.name
        users = [index for index, stage in enumerate(stages) if name in {t.name for t in stage.inputs}]
        if life.born < 0 or not users:
            continue
        touched = [stages[index] for index in (life.born, *users)]
        if all(goes_through(stage, name, accelerator, home, counts) for stage in touched):
            held = held_elements(life.tensor, [stages[index] for index in users], accelerator)
            size = words(held, life.tensor.bits, home.word_bits, home.packing) * home.word_bits
            saving = sum(saving_pj(stage, name, accelerator, counts) for stage in touched)
            stays.append(Stay(name, life.born, life.last, size, saving))
    return choose_resident(stays, tiles, home.size_bits)


def held_elements(tensor: Tensor, readers: Iterable[Stage], accelerator: Accelerator) -> int:
    """Codes to keep for a tensor: its own, and the widest border that a reader needs around it (`padded_copy`)."""
    borders = [
        offset_cost(stage.layer, accelerator.capabilities).border_codes
        for stage in readers
        if stage.layer.has_macs and stage.layer.inputs[0].name == tensor.name
    ]
    return tensor.elements + max(borders, default=0)


def stage_tiles(stage: Stage, accelerator: Accelerator, home: Memory, counts: Mapping[str, Counts]) -> dict[str, int]:
    """Bits of every tile a stage holds in the activation memory, by tensor (an unfinished output under `+sums`)."""
    if not stage.layer.has_macs:
        return {}
    layer = effective_layer(stage)
    tensors: dict[str, str] = {**operand_tensors(layer)}
    found: dict[str, int] = {}
    for tile in counts[stage.layer.name].tiles:
        if tile.memory == home.name:
            kind: Kind = "partial" if tile.partial else "final" if tile.operand == "output" else "code"
            bits = operand_bits(layer, accelerator, tile.operand, kind)
            if kind == "partial":
                bits = max(bits, layer.output.bits)
            name = tensors.get(tile.operand, tile.operand) + ("+sums" if kind == "partial" else "")
            held = words(tile.elements, bits, home.word_bits, home.packing) * home.word_bits
            found[name] = found.get(name, 0) + held
    return found


def goes_through(
    stage: Stage, tensor: str, accelerator: Accelerator, home: Memory, counts: Mapping[str, Counts]
) -> bool:
    """Whether a stage can take or leave `tensor` in the activation memory instead of the outermost one."""
    if not stage.layer.has_macs:
        return True
    layer = effective_layer(stage)
    mine = [operand for operand, name in operand_tensors(layer).items() if name == tensor]
    found = counts[stage.layer.name]
    if "output" in mine and found.reads(accelerator.outermost.name, "output"):
        return False
    held = {tile.operand for tile in found.tiles if tile.memory == home.name}
    return set(mine) <= held  # an operand of a fused operator streams and may come from anywhere


def saving_pj(stage: Stage, tensor: str, accelerator: Accelerator, counts: Mapping[str, Counts]) -> float:
    """Memory energy that keeping one tensor on chip saves at one stage."""

    def spent(resident: frozenset[str]) -> float:
        costs = [price_stage(stage, accelerator, counts.get(stage.layer.name), resident)]
        costs += [price_fused(follower, accelerator, stage, resident) for follower in stage.fused]
        return sum(part.energy_pj for cost in costs for part in cost.parts if part.component != "static")

    return spent(frozenset()) - spent(frozenset((tensor,)))


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
    packed = sum(words(w.elements, w.bits, outer.word_bits, outer.packing) * outer.word_bits for w in weights.values())
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
        weight_bits=packed + parameters,
        packed_weight_bits=packed,
        parameter_bits=parameters,
        compression=32 * raw / packed if packed else 1.0,
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


def assumptions(
    accelerator: Accelerator, areas: tuple[ComponentArea, ...], resident: frozenset[str]
) -> tuple[str, ...]:
    """Every simplification behind the numbers of this file."""
    can = accelerator.capabilities
    home = accelerator.activation_memory
    fused = ", ".join(can.fused) or "nothing"
    together = "the slowest of" if accelerator.overlap else "the sum (no overlap) of"
    found = [
        f"latency of a layer: {together} compute, memory ports and vector unit; layers run one after another",
        *(measured_assumptions(accelerator) or modelled_assumptions(accelerator)),
        f"requantization by {can.requantization}: {requantize_ops(can, 8)} vector operations per output; operators "
        "without MACs by the table of vector.py, pooling windows through line buffers (each input read once)",
        f"fused behind a layer, without memory traffic: {fused}; other operators stream their tensors between the "
        "outermost memory and the vector unit",
        f"biases of {BIAS_BITS} bits, requantization constants of {CONSTANTS[can.requantization]}, read once per layer",
    ]
    if home is None:
        found.append("no single on-chip memory keeps inputs and outputs: tensors go through the outermost memory")
    else:
        found.append(
            f"tensors stay in {home.name} from their maker to their last reader where they and the tiles of all other "
            f"operands fit ({len(resident)} tensors do), chosen to save most energy under the given mappings"
        )
    guessed = [area.name for area in areas if area.estimated]
    if guessed:
        found.append(f"area or leakage estimated (CACTI, Horowitz, Stillmaker; 10 mW/mm2) for: {', '.join(guessed)}")
    return tuple(found)


def border_assumptions(layers: Iterable[LayerCost]) -> tuple[str, ...]:
    """How inputs that need a border of codes come to have one."""
    needed = sum(layer.offset.kind == "padded_copy" for layer in layers)
    if not needed:
        return ()
    return (
        f"inputs that need a border of codes other than 0 ({needed} layers, class padded_copy) are stored inside it by "
        "their maker: the border is written once per layer where the input lies, the input is not copied again",
    )


def gating_assumptions(accelerator: Accelerator, shares: Mapping[str, float]) -> tuple[str, ...]:
    """What zero codes save here."""
    if not shares:
        return ()
    if "input" not in accelerator.capabilities.zero_gating:
        return (f"shares of zero codes were given; {accelerator.name} gates no multiplier, so they save nothing",)
    return (
        f"zero input codes gate {100 * accelerator.capabilities.zero_gating_saving:g} % of a MAC's energy, by the "
        f"shares given for {len(shares)} layers",
    )


def modelled_assumptions(accelerator: Accelerator) -> list[str]:
    """What stands behind layers whose accesses are counted."""
    return [
        "port loads spread evenly over the instances in use; first fills of double-buffered levels overlap the layer "
        "before",
        "a MAC unit that does n MACs per cycle at narrow widths is kept busy; operands are still counted per MAC",
        f"partial sums have the width the layer needs, at most the machine's {accelerator.mac.accumulator_bits} bits",
        "adding partial sums between array elements is part of the MAC energy",
    ]


def measured_assumptions(accelerator: Accelerator) -> list[str]:
    """What stands behind measured layers; empty for a machine that is modelled."""
    table = accelerator.mac.measurements
    if table is None:
        return []
    return [
        f"layers with MACs are measured, not modelled: {table.describe()}",
        "a measured layer contains its memory traffic (not reported), its biases and its requantization",
    ]


def warnings(stages: tuple[Stage, ...], accelerator: Accelerator) -> tuple[str, ...]:
    """What a reader must not overlook."""
    mac = accelerator.mac
    found: list[str] = []
    narrow = [
        s.layer.name for s in stages if s.layer.has_macs and s.layer.accumulator_bits_needed() > mac.accumulator_bits
    ]
    if narrow:
        found.append(
            f"{accelerator.name} accumulates in {mac.accumulator_bits} bits; worst-case sums of {len(narrow)} layers "
            f"need more ({', '.join(narrow[:3])}{', ...' if len(narrow) > 3 else ''}): they may overflow or be rounded"
        )
    if mac.measurements is not None:
        known = [(s.layer.name, mac.measurements.predict(s.layer).how) for s in stages if s.layer.has_macs]
        beyond = [name for name, how in known if how == "extrapolated"]
        if beyond:
            found.append(
                f"{len(beyond)} of {len(known)} layers lie outside the shapes that {mac.measurements.name} measured "
                f"({', '.join(beyond[:3])}{', ...' if len(beyond) > 3 else ''}): they are extrapolated"
            )
    if mac.style == "in_memory" and adc_bits(mac) < lossless_adc_bits(mac):
        found.append(
            f"{accelerator.name} converts with {adc_bits(mac)} of {lossless_adc_bits(mac)} bits: results are not "
            "exact, accuracy must come from a simulation that truncates alike"
        )
    return tuple(found)
