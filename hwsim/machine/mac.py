"""What one multiply-accumulate costs at given operand widths: energy, cycles, products at once, by the unit's style.

Pure functions of (MacUnit, weight bits, input bits). Fewer bits never cost more energy nor time, in every style but
for modes that unpack weights and modes that start later.
How well a layer fills a unit that does several products at once is told in pricing/mac.py.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from hwsim.errors import CapabilityError
from hwsim.machine.parts import Granule, MacMode, MacUnit


@dataclass(frozen=True)
class MacCost:
    """One MAC at given widths. `cycles` is exact; `mode` says in words what the unit does.

    `products`: MACs that the unit does side by side, each its share of a step, on iterations of the loops `lanes`.
    """

    energy_pj: float
    cycles: Fraction  # where all products have work
    mode: str
    products: int = 1
    lanes: tuple[str, ...] = ()
    granules: tuple[Granule, ...] = ()
    start_cycles: int = 0  # of a layer that runs in this mode

    @property
    def step_cycles(self) -> Fraction:
        """Cycles of one step of the unit, however many products have work."""
        return self.cycles * self.products


INTEGERS = ("int", "int")


@lru_cache(maxsize=1024)
def mac_cost(mac: MacUnit, weight_bits: int, input_bits: int, elements: tuple[str, str] = INTEGERS) -> MacCost:
    """Energy and cycles of one MAC of `weight_bits` x `input_bits`. Raises CapabilityError beyond the unit's reach.

    `elements`: of the weights and the inputs; modes may be made for some alone.
    """
    if weight_bits < 1 or input_bits < 1:
        raise CapabilityError(f"a MAC needs operands of at least 1 bit, got {weight_bits}x{input_bits}")
    found = by_style(mac, weight_bits, input_bits, elements)
    rate = Fraction(str(mac.sustained))
    return dataclasses.replace(found, lanes=mac.lanes, granules=mac.granules, cycles=found.cycles / rate)


def lanes_wanted(mac: MacCost) -> str:
    """What a spec without `lanes` is told."""
    return (
        f"missing key: a unit does {mac.products} products at once ({mac.mode}); name the loops whose iterations "
        "fill them, e.g. lanes: [C]"
    )


def by_style(mac: MacUnit, weight_bits: int, input_bits: int, elements: tuple[str, str]) -> MacCost:
    """`mac_cost` without the lanes."""
    match mac.style:
        case "fixed":
            return fixed(mac, weight_bits, input_bits)
        case "subword" | "table":
            return by_modes(mac, weight_bits, input_bits, elements)
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


def native_products(mac: MacUnit) -> int:
    """MACs side by side at native widths."""
    return math.ceil(Fraction(str(mac.macs_per_cycle)))


def work_ratio(widths: tuple[int, int], native: tuple[int, int], sum_bits: float) -> Fraction:
    """Energy of a MAC relative to the native one: w*a + sum_bits*(w + a) over the same at native widths.

    The product of the widths is the multiplier; registers and adders go with their sum and shrink more slowly. Fitted
    to synthesised arrays at 28 nm (Ibrahim et al. 2021): sum_bits 0.7 bit-serial (Loom), 1.3 sub-word, 0 fusion.
    """
    extra = Fraction(str(sum_bits))
    work, native_work = (w * a + extra * (w + a) for w, a in (widths, native))
    return work / native_work


def fixed(mac: MacUnit, weight_bits: int, input_bits: int) -> MacCost:
    """Narrow operands are padded: no gain. Wider ones take ceil(w/W)*ceil(a/A) passes of native energy and time."""
    passes = ceil_div(weight_bits, mac.weight_bits) * ceil_div(input_bits, mac.input_bits)
    native = f"{mac.weight_bits}x{mac.input_bits}"
    mode = f"{passes} passes of {native}" if passes > 1 else f"padded to {native}"
    if (weight_bits, input_bits) == (mac.weight_bits, mac.input_bits):
        mode = native
    return MacCost(passes * mac.energy_pj, passes * native_cycles(mac), mode, native_products(mac))


def by_modes(mac: MacUnit, weight_bits: int, input_bits: int, elements: tuple[str, str] = INTEGERS) -> MacCost:
    """The best mode that holds both operands.

    Modes that share an element are ranked alike by energy and by speed (the loader checks it), so "best" is one mode,
    and a narrower pair of the same elements can choose among more modes: it never costs more.
    """
    made = [m for m in mac.modes if multiplies(m, elements)]
    fitting = [m for m in made if m.weight_bits >= weight_bits and m.input_bits >= input_bits]
    if not fitting:
        known = ", ".join(f"{m.weight_bits}x{m.input_bits}" for m in made) or "none"
        of = "" if elements == INTEGERS else f" of {' and '.join(dict.fromkeys(elements))}"
        raise CapabilityError(
            f"no mode of the {mac.style} MAC holds {weight_bits}x{input_bits} operands{of}; modes: {known}"
        )
    best = min(fitting, key=mode_rank)
    rate = Fraction(str(best.macs_per_cycle))
    cycles = 1 / rate / Fraction(str(best.sustained))
    how = ", weights unpacked" if best.unpacks else ""
    return MacCost(
        best.energy_pj,
        cycles,
        f"{best.weight_bits}x{best.input_bits} mode{how}",
        math.ceil(rate),
        start_cycles=best.start_cycles,
    )


def multiplies(mode: MacMode, elements: tuple[str, ...]) -> bool:
    """Whether a mode is made for these elements."""
    return not mode.elements or set(elements) <= set(mode.elements)


def mode_rank(mode: MacMode) -> tuple[float, int, float, int, int]:
    """Cheapest first, then the narrowest weights that are unpacked, then fastest, then narrowest.

    Packed weights run in the kernel that unpacks them, slower or not: that is how they are stored.
    """
    packed = mode.weight_bits if mode.unpacks else 64
    return (mode.energy_pj, packed, -mode.macs_per_cycle, mode.weight_bits, mode.input_bits)


def bit_serial(mac: MacUnit, weight_bits: int, input_bits: int) -> MacCost:
    """Cycles and energy by digits of the serial operand(s); the parallel operand is padded to its native width.

    cycles = native * digits/digits_native; energy = native * (share + (1 - share) * work/work_native), where work is
    w*a + sum_bits*(w + a) of the widths in whole digits. A unit that is faster than one digit per cycle has several
    serial multipliers side by side, as many at every width.
    """
    digits, native = 1, 1
    widths: list[tuple[int, int]] = []  # of each operand: as it is processed, natively
    for operand, bits, width in (("weight", weight_bits, mac.weight_bits), ("input", input_bits, mac.input_bits)):
        if mac.serial in (operand, "both"):
            steps, native_steps = ceil_div(bits, mac.digit_bits), ceil_div(width, mac.digit_bits)
            digits, native = digits * steps, native * native_steps
            widths.append((steps * mac.digit_bits, native_steps * mac.digit_bits))
        elif bits > width:
            raise CapabilityError(
                f"the bit-serial MAC takes {operand}s of at most {width} bits in parallel, got {bits}"
            )
        else:
            widths.append((width, width))
    ratio = Fraction(digits, native)
    share = mac.fixed_energy_share
    (weights, native_weights), (inputs, native_inputs) = widths
    sum_bits = mac.sum_bits if mac.serial == "both" else 0.0  # one digit steps through an adder of fixed width
    work = work_ratio((weights, inputs), (native_weights, native_inputs), sum_bits)
    energy = mac.energy_pj * (share + (1 - share) * float(work))
    products = math.ceil(native * Fraction(str(mac.macs_per_cycle)))
    return MacCost(energy, ratio * native_cycles(mac), f"{digits} digit steps", products)


def fusion(mac: MacUnit, weight_bits: int, input_bits: int) -> MacCost:
    """Bricks that fuse: ceil(w/b)*ceil(a/b) per MAC out of the unit's ceil(W/b)*ceil(A/b).

    Energy is proportional to the bricks used (measured arrays agree: 8x8 to 2x2 is 1/17, bricks say 1/16). The unit
    does floor(bricks/needed) MACs at once, or takes ceil(needed/bricks) turns.
    """
    bricks = ceil_div(mac.weight_bits, mac.brick_bits) * ceil_div(mac.input_bits, mac.brick_bits)
    needed = ceil_div(weight_bits, mac.brick_bits) * ceil_div(input_bits, mac.brick_bits)
    at_once = bricks // needed
    cycles = Fraction(1, at_once) if at_once else Fraction(ceil_div(needed, bricks))
    return MacCost(
        mac.energy_pj * needed / bricks,
        cycles * native_cycles(mac),
        f"{needed} of {bricks} bricks per MAC",
        max(at_once, 1) * native_products(mac),
    )


def in_memory(mac: MacUnit, weight_bits: int, input_bits: int) -> MacCost:
    """Weight slices side by side times input phases; one conversion per column and phase serves `rows` MACs.

    energy = slices*phases * (cell + adc/rows), where `energy_pj` is the native MAC without its conversions. The columns
    of a native weight hold floor(native slices / slices) narrower ones side by side; phases take time. Where one unit
    is a whole row of `columns`, every phase costs the whole row, shared by the floor(columns / (slices + sum_columns))
    weights in it: the columns of the sum do not shrink with the weights (Colonnade: 7 = log2 of 128 rows).
    """
    slices, phases = ceil_div(weight_bits, mac.cell_bits), ceil_div(input_bits, mac.dac_bits)
    native_slices, native_phases = ceil_div(mac.weight_bits, mac.cell_bits), ceil_div(mac.input_bits, mac.dac_bits)
    columns, native_at_once = mac.columns, native_products(mac)
    if columns is None:
        columns = native_at_once * native_slices
        cell_pj = mac.energy_pj / (native_slices * native_phases) * slices * phases
    else:
        native_at_once = columns // (native_slices + mac.sum_columns)
        cell_pj = 0.0
    at_once = columns // (slices + mac.sum_columns)
    turns = Fraction(1, at_once) if at_once else Fraction(ceil_div(slices + mac.sum_columns, columns))
    row_share = Fraction(phases, native_phases) * native_at_once * turns  # of a native MAC's time, and of its row
    energy = (cell_pj or mac.energy_pj * float(row_share)) + slices * phases * mac.adc_energy_pj / mac.rows
    adc = adc_bits(mac)
    lossy = f", {adc}-bit converter loses bits" if adc < lossless_adc_bits(mac) else ""
    beside = f" + {mac.sum_columns} of the sum" if mac.sum_columns else ""
    mode = f"{slices} slices{beside} x {phases} phases{lossy}"
    return MacCost(energy, row_share * native_cycles(mac), mode, max(at_once, 1))


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
