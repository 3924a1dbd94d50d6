"""What one layer spends: counts x unit costs -> energy by component, cycles with the bottleneck named.

`price` takes a layer with MACs and its access counts; `price_vector` and `price_fused` take operators without MACs, on
their own or on the way out of the array. Every part is rounded to 2^-10 pJ, so that sums of parts equal totals exactly,
in any grouping and in JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from hwsim.machine.mac import MacCost
from hwsim.machine.measured import Measurements
from hwsim.machine.parts import Accelerator, Operand
from hwsim.nest.counts import Counts
from hwsim.network.layer import Layer, Tensor, operands
from hwsim.pricing.area import static_power_mw
from hwsim.pricing.latency import (
    compute_cycles,
    port_cycles,
    port_loads,
    port_max,
    split_loads,
    total_cycles,
    vector_cycles,
)
from hwsim.pricing.mac import layer_mac, require_capable
from hwsim.pricing.moves import (
    Moved,
    hop_bits,
    layer_moves,
    side_bits,
    stream,
)
from hwsim.pricing.offsets import NO_OFFSET, OffsetCost, offset_cost
from hwsim.pricing.scales import mac_widths, scale_work
from hwsim.pricing.stages import Stage, effective_layer
from hwsim.pricing.vector import VectorWork, mac_layer_ops, vector_work

GRID = 1024.0
REMEMBERED = 2048  # bills of each kind: some 20 MB
TIMED = ("static", "control")  # components that grow with time alone


def on_grid(energy_pj: float) -> float:
    """Energy rounded to 2^-10 pJ: floats of this grid add up exactly below 8 J. Rounding keeps order."""
    return round(energy_pj * GRID) / GRID


@dataclass(frozen=True)
class Part:
    """One entry of the energy bill; `detail` says which operand or work."""

    component: str
    detail: str
    energy_pj: float


@dataclass(frozen=True)
class LayerCost:
    """What one layer spends. `cycles` lists every resource that could bound it; `latency_cycles` is what it takes."""

    name: str
    parts: tuple[Part, ...]
    latency_cycles: int
    cycles: tuple[tuple[str, int], ...]
    bottleneck: str
    moved: tuple[Moved, ...]
    offset: OffsetCost = NO_OFFSET
    mac_mode: str = ""
    resident: tuple[str, ...] = ()  # tensors that stayed on chip around this layer
    fused_into: str = ""
    group: str = ""  # of layers that ran depth first: the first and the last of them

    @cached_property
    def energy_pj(self) -> dict[str, float]:
        """Energy by component, in the order of the bill."""
        found: dict[str, float] = {}
        for part in self.parts:
            found[part.component] = found.get(part.component, 0.0) + part.energy_pj
        return found

    @property
    def total_energy_pj(self) -> float:
        """Sum of the parts, exactly."""
        return sum(part.energy_pj for part in self.parts)

    @property
    def traffic_bits(self) -> int:
        """Bits moved over all memory ports."""
        return sum(moved.bits for moved in self.moved)


def price(
    layer: Layer,
    counts: Counts,
    accelerator: Accelerator,
    *,
    fused: tuple[Layer, ...] = (),
    resident: Mapping[Operand, str] | None = None,
    zero_share: float = 0.0,
    constants: bool = True,
) -> LayerCost:
    """Energy and latency of one layer with MACs under given counts.

    `fused`: operators that run on the way out (their cycles share the vector unit; their energy is their own).
    `resident`: operands whose tensor stays on chip, with its name. `zero_share`: zero codes among the inputs.
    `constants`: whether biases, requantization's and the offset's constants are moved, and the border written.
    Raises CapabilityError when the machine cannot run it.
    """
    kept = tuple(sorted((resident or {}).items()))
    return priced(layer, counts, accelerator, fused, kept, zero_share, constants)


@lru_cache(maxsize=REMEMBERED)
def priced(
    layer: Layer,
    counts: Counts,
    accelerator: Accelerator,
    fused: tuple[Layer, ...],
    kept: tuple[tuple[Operand, str], ...],
    zero_share: float,
    constants: bool,
) -> LayerCost:
    """`price`: plans of a network ask for the same bills again and again."""
    require_capable(layer, accelerator)
    assert layer.weight is not None
    if accelerator.mac.measurements is not None:
        return price_measured(layer, accelerator, accelerator.mac.measurements, fused)
    names = dict(kept)
    mac = layer_mac(layer, accelerator)
    scales = scale_work(layer, accelerator)
    offset = offset_cost(layer, accelerator.capabilities)
    moved = layer_moves(layer, counts, accelerator, frozenset(names), offset, constants=constants)
    parts = [*memory_parts(moved, accelerator), *network_parts(layer, counts, accelerator)]
    parts.append(
        Part("mac", "x".join(map(str, mac_widths(layer, accelerator))), mac_energy(layer, mac, accelerator, zero_share))
    )
    own_ops = mac_layer_ops(layer, accelerator, layer.output.bits)
    work = "requantize, copies of windows" if accelerator.vector.ops_per_copied_code else "requantize"
    parts.append(Part("vector", work, on_grid(own_ops * accelerator.vector.energy_pj_per_op)))
    if scales.ops:
        detail = "unpack weights" if scales.way == "unpack" else "scales along the sums"
        parts.append(Part("vector", detail, on_grid(scales.ops * accelerator.vector.energy_pj_per_op)))
    if offset.extra_adds:
        parts.append(Part("offset", "additions", on_grid(offset.extra_adds * accelerator.vector.energy_pj_per_op)))
    slots = (
        own_ops + scales.ops + offset.extra_adds + sum(vector_work(f, accelerator.capabilities).slots for f in fused)
    )
    exposed, loads = split_loads(counts, accelerator, moved)
    cycles = {
        "compute": compute_cycles(counts, accelerator, mac),
        **port_cycles(loads, accelerator, dict(counts.instances)),
        "vector": vector_cycles(slots, accelerator.vector),
    }
    waiting = {f"{name} refill": port_max(load, accelerator, dict(counts.instances)) for name, load in exposed.items()}
    latency = total_cycles(cycles, waiting, accelerator) + mac.start_cycles
    cycles |= {name: n for name, n in waiting.items() if n}
    parts += static_parts(latency, accelerator)
    return LayerCost(
        name=layer.name,
        parts=tuple(parts),
        latency_cycles=latency,
        cycles=tuple(cycles.items()),
        bottleneck=max(cycles, key=lambda name: cycles[name]),
        moved=moved,
        offset=offset,
        mac_mode=mac.mode,
        resident=tuple(sorted(set(names.values()))),
    )


def price_measured(
    layer: Layer, accelerator: Accelerator, measurements: Measurements, fused: tuple[Layer, ...] = ()
) -> LayerCost:
    """A layer of a measured machine: the table's cycles and energy, memory traffic and requantization inside them.

    Operators fused behind it and additions that its offset needs come on top.
    """
    found, offset = measurements.predict(layer), offset_cost(layer, accelerator.capabilities)
    parts = [Part("mac", found.describe(), on_grid(found.energy_pj))]
    if offset.extra_adds:
        parts.append(Part("offset", "additions", on_grid(offset.extra_adds * accelerator.vector.energy_pj_per_op)))
    slots = offset.extra_adds + sum(vector_work(f, accelerator.capabilities).slots for f in fused)
    cycles = {"measured": found.cycles, "vector": vector_cycles(slots, accelerator.vector)}
    latency = total_cycles(cycles, {}, accelerator)
    return LayerCost(
        name=layer.name,
        parts=(*parts, *static_parts(latency, accelerator)),
        latency_cycles=latency,
        cycles=tuple(cycles.items()),
        bottleneck=max(cycles, key=lambda name: cycles[name]),
        moved=(),
        offset=offset,
        mac_mode=found.describe(),
    )


def memory_parts(moved: Iterable[Moved], accelerator: Accelerator) -> list[Part]:
    """Words times energy per word, by memory and operand; partial sums apart from finished outputs."""
    memories = {memory.name: memory for memory in accelerator.memories}
    parts: list[Part] = []
    for entry in moved:
        memory = memories[entry.memory]
        energy = entry.read_words * memory.read_energy_pj + entry.write_words * memory.write_energy_pj
        detail = entry.operand if entry.kind != "partial" else f"{entry.operand} (partial sums)"
        parts.append(Part(entry.memory, detail, on_grid(energy)))
    return parts


def network_parts(layer: Layer, counts: Counts, accelerator: Accelerator) -> list[Part]:
    """Bits delivered to and sent up from array elements, times energy per bit."""
    arrays = {array.name: array for array in accelerator.arrays}
    parts: list[Part] = []
    for d in counts.deliveries:
        array = arrays[d.array]
        if array.hop_energy_pj_per_bit:
            each = hop_bits(layer, accelerator, array, d.operand, d.kind) + side_bits(layer, d.operand, d.kind)
            bits = (d.down + d.up) * each
            parts.append(Part(d.array, f"{d.operand} hops", on_grid(bits * array.hop_energy_pj_per_bit)))
    return parts


def mac_energy(layer: Layer, mac: MacCost, accelerator: Accelerator, zero_share: float) -> float:
    """MACs times energy per MAC; zero inputs save their share where the machine gates them."""
    gated = "input" in accelerator.capabilities.zero_gating
    saved = zero_share * accelerator.capabilities.zero_gating_saving if gated else 0.0
    return on_grid(layer.macs * mac.energy_pj * (1 - saved))


def static_parts(cycles: int, accelerator: Accelerator) -> list[Part]:
    """Idle power and leakage, clock network and control over the layer's time: mW * us = 1000 pJ."""
    powers = (
        ("static", "idle and leakage", static_power_mw(accelerator)),
        ("control", "clock network and control", accelerator.control_power_mw),
    )
    return [
        Part(component, detail, on_grid(power_mw * cycles / accelerator.clock_mhz * 1e3))
        for component, detail, power_mw in powers
        if power_mw
    ]


def price_vector(layer: Layer, accelerator: Accelerator, resident: frozenset[str] = frozenset()) -> LayerCost:
    """An operator of its own: each input is read once and the output written once, streamed through on-chip memory.

    The way is outermost memory - activation memory - vector unit; a resident tensor (by name) skips the outermost.
    """
    return alone(layer, accelerator, resident & {t.name for t in operands(layer)})


@lru_cache(maxsize=REMEMBERED)
def alone(layer: Layer, accelerator: Accelerator, resident: frozenset[str]) -> LayerCost:
    """`price_vector`, of the resident tensors that the operator touches."""
    inputs = layer.inputs
    if layer.op == "embedding" and layer.weight is not None:  # only the rows looked up are read
        inputs = (*inputs, Tensor(layer.weight.name, layer.output.shape, layer.weight.bits))
    moved = [m for t in inputs for m in stream(t, accelerator, "input", t.name in resident)]
    moved += stream(layer.output, accelerator, "output", layer.output.name in resident)
    return vector_cost(layer, accelerator, tuple(moved), resident)


def price_fused(layer: Layer, accelerator: Accelerator, host: Stage, resident: frozenset[str]) -> LayerCost:
    """An operator on the way out of the array: its work, and other operands it reads; it takes no time of its own."""
    return behind(layer, accelerator, host, resident & {t.name for t in operands(layer)})


@lru_cache(maxsize=REMEMBERED)
def behind(layer: Layer, accelerator: Accelerator, host: Stage, resident: frozenset[str]) -> LayerCost:
    """`price_fused`, of the resident tensors that the operator touches."""
    outside = {t.name for t in host.inputs}
    others = [t for t in layer.inputs if t.name in outside]
    moved = [m for t in others for m in stream(t, accelerator, "input", t.name in resident)]
    return vector_cost(layer, accelerator, tuple(moved), resident, host.layer.name)


def vector_cost(
    layer: Layer, accelerator: Accelerator, moved: tuple[Moved, ...], resident: frozenset[str], fused_into: str = ""
) -> LayerCost:
    """Energy and time of vector work with given transfers; a fused operator hides its time behind its host's."""
    work = vector_work(layer, accelerator.capabilities)
    offset = offset_cost(layer, accelerator.capabilities)
    parts = [*memory_parts(moved, accelerator), Part("vector", layer.op, vector_energy(work, accelerator))]
    if offset.extra_adds:
        parts.append(Part("offset", "additions", on_grid(offset.extra_adds * accelerator.vector.energy_pj_per_op)))
    cycles = {"vector": vector_cycles(work.slots + offset.extra_adds, accelerator.vector)}
    cycles |= port_cycles(port_loads(moved), accelerator, {})
    latency = 0 if fused_into else total_cycles(cycles, {}, accelerator)
    parts += static_parts(latency, accelerator) if latency else []
    return LayerCost(
        name=layer.name,
        parts=tuple(parts),
        latency_cycles=latency,
        cycles=tuple(cycles.items()),
        bottleneck=f"behind {fused_into}" if fused_into else max(cycles, key=lambda name: cycles[name]),
        moved=moved,
        offset=offset,
        resident=tuple(sorted(resident & {t.name for t in (*layer.inputs, layer.output)})),
        fused_into=fused_into,
    )


def vector_energy(work: VectorWork, accelerator: Accelerator) -> float:
    """Operations and lookups at their energies."""
    unit = accelerator.vector
    return on_grid(work.ops * unit.energy_pj_per_op + work.lookups * unit.lookup_energy_pj)


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
    kept: dict[Operand, str] = {o: name for o, name in operand_tensors(layer, weight=True).items() if name in resident}
    return price(layer, counts, accelerator, fused=stage.fused, resident=kept, zero_share=zero_share)


def operand_tensors(layer: Layer, *, weight: bool = False) -> dict[Operand, str]:
    """Names of the activations behind the operands of a layer with MACs; `weight`: of a weight as well."""
    found: dict[Operand, str] = {"input": layer.inputs[0].name, "output": layer.output.name}
    if layer.weight is not None and (layer.weight_is_activation or weight):
        found["weight"] = layer.weight.name
    return found
