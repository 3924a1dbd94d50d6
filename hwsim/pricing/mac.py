"""What one multiply-accumulate costs at given operand widths: energy, cycles, area, by the style of the MAC unit.

Pure functions of (MacUnit, weight bits, input bits). Fewer bits never cost more energy nor time, in every style.
A unit that does n MACs per cycle at narrow widths is credited with n: how well a layer fills it is the array's matter.
`refusals` says which capability a layer violates; nothing is priced that the machine cannot run.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from hwsim.errors import CapabilityError
from hwsim.machine.parts import Accelerator, MacMode, MacUnit
from hwsim.network.layer import Layer


@dataclass(frozen=True)
class MacCost:
    """One MAC at given widths. `cycles` is exact; `mode` says in words what the unit does."""

    energy_pj: float
    cycles: Fraction
    mode: str


def mac_cost(mac: MacUnit, weight_bits: int, input_bits: int) -> MacCost:
    """Energy and cycles of one MAC of `weight_bits` x `input_bits`. Raises CapabilityError beyond the unit's reach."""
    if weight_bits < 1 or input_bits < 1:
        raise CapabilityError(f"a MAC needs operands of at least 1 bit, got {weight_bits}x{input_bits}")
    match mac.style:
        case "fixed":
            return fixed(mac, weight_bits, input_bits)
        case "subword" | "table":
            return by_modes(mac, weight_bits, input_bits)
        case "bit_serial":
            return bit_serial(mac, weight_bits, input_bits)
        case "fusion":
            return fusion(mac, weight_bits, input_bits)
        case "in_memory":
            return in_memory(mac, weight_bits, input_bits)
        case "measured":
            return measured(mac, weight_bits, input_bits)


def native_cycles(mac: MacUnit) -> Fraction:
    """Cycles of one MAC at native widths, as a fraction that survives decimal notation (0.1 is 1/10)."""
    return 1 / Fraction(str(mac.macs_per_cycle))


def ceil_div(a: int, b: int) -> int:
    """Smallest integer not below a/b."""
    return -(-a // b)


def fixed(mac: MacUnit, weight_bits: int, input_bits: int) -> MacCost:
    """Narrow operands are padded: no gain. Wider ones take ceil(w/W)*ceil(a/A) passes of native energy and time."""
    passes = ceil_div(weight_bits, mac.weight_bits) * ceil_div(input_bits, mac.input_bits)
    native = f"{mac.weight_bits}x{mac.input_bits}"
    mode = f"{passes} passes of {native}" if passes > 1 else f"padded to {native}"
    if (weight_bits, input_bits) == (mac.weight_bits, mac.input_bits):
        mode = native
    return MacCost(passes * mac.energy_pj, passes * native_cycles(mac), mode)


def by_modes(mac: MacUnit, weight_bits: int, input_bits: int) -> MacCost:
    """The best mode that holds both operands.

    Modes are ranked alike by energy and by speed (the loader checks it), so "best" is one mode, and a narrower pair
    can choose among more modes: it never costs more.
    """
    fitting = [m for m in mac.modes if m.weight_bits >= weight_bits and m.input_bits >= input_bits]
    if not fitting:
        known = ", ".join(f"{m.weight_bits}x{m.input_bits}" for m in mac.modes)
        raise CapabilityError(
            f"no mode of the {mac.style} MAC holds {weight_bits}x{input_bits} operands; modes: {known}"
        )
    best = min(fitting, key=mode_rank)
    return MacCost(best.energy_pj, 1 / Fraction(str(best.macs_per_cycle)), f"{best.weight_bits}x{best.input_bits} mode")


def mode_rank(mode: MacMode) -> tuple[float, float, int, int]:
    """Cheapest first, then fastest, then narrowest."""
    return (mode.energy_pj, -mode.macs_per_cycle, mode.weight_bits, mode.input_bits)


def bit_serial(mac: MacUnit, weight_bits: int, input_bits: int) -> MacCost:
    """Cycles and energy by digits of the serial operand(s); the parallel operand is padded to its native width.

    cycles = native * digits/digits_native; energy = native * (share + (1 - share) * digits/digits_native).
    """
    digits, native = 1, 1
    for operand, bits, width in (("weight", weight_bits, mac.weight_bits), ("input", input_bits, mac.input_bits)):
        if mac.serial in (operand, "both"):
            digits *= ceil_div(bits, mac.digit_bits)
            native *= ceil_div(width, mac.digit_bits)
        elif bits > width:
            raise CapabilityError(
                f"the bit-serial MAC takes {operand}s of at most {width} bits in parallel, got {bits}"
            )
    ratio = Fraction(digits, native)
    share = mac.fixed_energy_share
    energy = mac.energy_pj * (share + (1 - share) * float(ratio))
    return MacCost(energy, ratio * native_cycles(mac), f"{digits} digit steps")


def fusion(mac: MacUnit, weight_bits: int, input_bits: int) -> MacCost:
    """Bricks that fuse: ceil(w/b)*ceil(a/b) per MAC out of the unit's ceil(W/b)*ceil(A/b).

    Energy is proportional to the bricks used (measured arrays agree: 8x8 to 2x2 is 1/17, bricks say 1/16). The unit
    does floor(bricks/needed) MACs at once, or takes ceil(needed/bricks) turns.
    """
    bricks = ceil_div(mac.weight_bits, mac.brick_bits) * ceil_div(mac.input_bits, mac.brick_bits)
    needed = ceil_div(weight_bits, mac.brick_bits) * ceil_div(input_bits, mac.brick_bits)
    at_once = bricks // needed
    cycles = Fraction(1, at_once) if at_once else Fraction(ceil_div(needed, bricks))
    return MacCost(mac.energy_pj * needed / bricks, cycles * native_cycles(mac), f"{needed} of {bricks} bricks per MAC")


def in_memory(mac: MacUnit, weight_bits: int, input_bits: int) -> MacCost:
    """Weight slices side by side times input phases; one conversion per column and phase serves `rows` MACs.

    energy = slices*phases * (cell + adc/rows), where `energy_pj` is the native MAC without its conversions.
    """
    slices, phases = ceil_div(weight_bits, mac.cell_bits), ceil_div(input_bits, mac.dac_bits)
    native = ceil_div(mac.weight_bits, mac.cell_bits) * ceil_div(mac.input_bits, mac.dac_bits)
    cell_pj = mac.energy_pj / native
    energy = slices * phases * (cell_pj + mac.adc_energy_pj / mac.rows)
    adc = adc_bits(mac)
    lossy = f", {adc}-bit converter loses bits" if adc < lossless_adc_bits(mac) else ""
    cycles = Fraction(slices * phases, native) * native_cycles(mac)
    return MacCost(energy, cycles, f"{slices} slices x {phases} phases{lossy}")


def measured(mac: MacUnit, weight_bits: int, input_bits: int) -> MacCost:
    """Nothing per MAC: whole layers are measured (layer_cost.py); only widths beyond the table are refused here."""
    assert mac.measurements is not None
    pairs = mac.measurements.pairs_for(weight_bits, input_bits)
    exact = (weight_bits, input_bits) in pairs
    mode = f"{weight_bits}x{input_bits}" if exact else f"a wider pair than {weight_bits}x{input_bits}"
    return MacCost(0.0, Fraction(0), f"measured at {mode}")


def lossless_adc_bits(mac: MacUnit) -> int:
    """Bits that tell all sums of a column apart: ceil(log2(rows*(2^cell - 1)*(2^dac - 1) + 1))."""
    levels = mac.rows * (2**mac.cell_bits - 1) * (2**mac.dac_bits - 1)
    return max(1, levels.bit_length())


def adc_bits(mac: MacUnit) -> int:
    """The converter's width: as given, else lossless."""
    return lossless_adc_bits(mac) if mac.adc_bits is None else mac.adc_bits


# --- what the machine can run at all ----------------------------------------------------------------------------------


def refusals(layer: Layer, accelerator: Accelerator) -> tuple[str, ...]:
    """Every capability that a layer violates, by the rule's name; empty when the machine can run it."""
    can = accelerator.capabilities
    found: list[str] = []

    def refuse(rule: str, message: str) -> None:
        found.append(f"layer {layer.name}: {accelerator.name} capabilities.{rule}: {message}")

    if can.operators and layer.op not in can.operators:
        refuse("operators", f"expected one of {', '.join(can.operators)}, got {layer.op}")
    if not layer.has_macs or layer.weight is None:
        return tuple(found)
    activation = layer.inputs[0]
    widths = (
        ("weight_bits", layer.weight, can.weight_bits),
        ("activation_bits", activation, can.activation_bits),
        ("output_bits", layer.output, can.output_bits),
    )
    for rule, tensor, known in widths:
        if tensor.bits not in known:
            refuse(rule, f"expected one of {known_widths(known)} bits for {tensor.name}, got {tensor.bits}")
    if activation.signed and not can.signed_activations:
        refuse("signed_activations", f"expected unsigned codes, {activation.name} is signed")
    if not activation.signed and not can.unsigned_activations:
        refuse("unsigned_activations", f"expected signed codes, {activation.name} is unsigned")
    if layer.weight.scales > 1 and not can.per_channel_scales:
        refuse("per_channel_scales", f"expected one scale per tensor, {layer.weight.name} has {layer.weight.scales}")
    if not found:
        try:
            mac_cost(accelerator.mac, layer.weight.bits, activation.bits)
        except CapabilityError as problem:
            found.append(f"layer {layer.name}: {accelerator.name} mac: {problem}")
    return tuple(found)


def require_capable(layer: Layer, accelerator: Accelerator) -> None:
    """Raises CapabilityError naming every violated rule of a layer."""
    found = refusals(layer, accelerator)
    if found:
        raise CapabilityError("\n".join(found))


def known_widths(widths: tuple[int, ...]) -> str:
    """`2..8` for a run of widths, `2, 4, 8` otherwise."""
    run = sorted(widths)
    if len(run) > 2 and run == list(range(run[0], run[-1] + 1)):
        return f"{run[0]}..{run[-1]}"
    return ", ".join(str(width) for width in run)
