"""Area and leakage of every component, from the spec where it says so and from published tables where it does not.

Estimates: SRAM by size (CACTI, 45 nm), MACs by widths and style (Horowitz ISSCC 2014 operators, style factors of Camus
et al. JETCAS 2019), both scaled to the node by Stillmaker & Baas 2017; leakage by area. Every estimate is marked.
Without area, exploring accelerators has a trivial optimum: the largest one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from hwsim.machine.parts import Accelerator, MacUnit, Memory

# CACTI sweep published with Bit Fusion, 45 nm, 32-bit port: bytes -> mm2 (the denser of the two 4 KiB points).
SRAM_MM2_45NM: tuple[tuple[int, float], ...] = (
    (128, 0.00149898),
    (512, 0.00760331),
    (1024, 0.00882362),
    (2048, 0.015132),
    (4096, 0.0300607),
    (8192, 0.0575061),
    (16384, 0.108577),
)
# Stillmaker & Baas 2017: area at a node relative to 45 nm.
AREA_TO_45NM: tuple[tuple[float, float], ...] = (
    (7, 0.059),
    (10, 0.1),
    (14, 0.17),
    (16, 0.19),
    (20, 0.21),
    (32, 0.46),
    (45, 1.0),
    (65, 1.5),
    (90, 2.8),
    (130, 6.4),
)
# Aladdin's 40 nm multiplier and adder leak 12.6 and 8.6 mW per mm2; 10 is used for logic and SRAM alike.
LEAKAGE_MW_PER_MM2 = 10.0
# Aladdin's register, 5.98 um2 per bit at 40 nm; used for memories too small to be an SRAM.
REGISTER_UM2_PER_BIT, REGISTER_NODE_NM = 5.98, 40.0
# Extra area of a precision-scalable unit over a plain one: two sub-word levels 18 %, divide-and-conquer bricks up to
# 4.4x (Camus et al.); a serial unit replaces the multiplier by an AND row and keeps the accumulator.
SUBWORD_FACTOR, FUSION_FACTOR = 1.18, 4.4


@dataclass(frozen=True)
class ComponentArea:
    """One kind of component: how many there are, the area and leakage of one, and whether these are estimates."""

    name: str
    instances: int
    area_mm2_each: float
    leakage_mw_each: float
    estimated: bool

    @property
    def area_mm2(self) -> float:
        """Area of all instances."""
        return self.instances * self.area_mm2_each

    @property
    def leakage_mw(self) -> float:
        """Leakage of all instances."""
        return self.instances * self.leakage_mw_each


def interpolate(table: tuple[tuple[float, float], ...], x: float) -> float:
    """Piecewise power law through the table; beyond its ends the nearest point, scaled linearly in x."""
    if x <= table[0][0]:
        return table[0][1] * x / table[0][0]
    if x >= table[-1][0]:
        return table[-1][1] * x / table[-1][0]
    for (x0, y0), (x1, y1) in pairwise(table):
        if x <= x1:
            share = math.log(x / x0) / math.log(x1 / x0)
            return y0 * (y1 / y0) ** share
    return table[-1][1]


def area_factor(node_nm: float) -> float:
    """Area at a node relative to 45 nm (quadratic beyond the table's ends)."""
    smallest, largest = AREA_TO_45NM[0], AREA_TO_45NM[-1]
    for edge, outside in ((smallest, node_nm < smallest[0]), (largest, node_nm > largest[0])):
        if outside:
            return edge[1] * (node_nm / edge[0]) ** 2
    return interpolate(AREA_TO_45NM, node_nm)


def sram_area_mm2(size_bits: int, node_nm: float) -> float:
    """Area of one memory: CACTI at 45 nm, linear beyond 16 KiB (banks), times the node's factor.

    Below the smallest SRAM of the table (128 bytes): registers, where they are smaller.
    """
    size_bytes, factor = size_bits / 8, area_factor(node_nm)
    smallest_bytes, smallest_mm2 = SRAM_MM2_45NM[0]
    if size_bytes <= smallest_bytes:
        registers = size_bits * REGISTER_UM2_PER_BIT * 1e-6 / area_factor(REGISTER_NODE_NM)
        return min(registers, smallest_mm2) * factor
    return interpolate(SRAM_MM2_45NM, size_bytes) * factor


def mac_area_mm2(mac: MacUnit, node_nm: float) -> float:
    """Area of one MAC unit: multiplier + accumulator, by style; a memory cell per weight bit for `in_memory`.

    Converters of an in-memory array are not estimated: a spec should give `area_mm2`.
    """
    if mac.style == "measured":
        return 0.0  # a table of cycles says nothing about area
    if mac.style == "in_memory":
        cells = mac.columns or mac.weight_bits
        return cells * SRAM_MM2_45NM[-1][1] / (8 * SRAM_MM2_45NM[-1][0]) * area_factor(node_nm)
    weight_bits, input_bits = mac.weight_bits, mac.input_bits
    if mac.style == "bit_serial":
        weight_bits = mac.digit_bits if mac.serial in ("weight", "both") else weight_bits
        input_bits = mac.digit_bits if mac.serial in ("input", "both") else input_bits
    multiplier = multiplier_um2(weight_bits, input_bits)
    if mac.style in ("subword", "table"):
        multiplier *= SUBWORD_FACTOR
    elif mac.style == "fusion":
        multiplier *= FUSION_FACTOR
    parallel = max(1.0, mac.macs_per_cycle)
    return (multiplier * parallel + adder_um2(mac.accumulator_bits)) * 1e-6 * area_factor(node_nm)


def multiplier_um2(weight_bits: int, input_bits: int) -> float:
    """Integer multiplier at 45 nm, 3.082*w*a + 10.59*(w + a)/2: Horowitz's 282 um2 at 8 and 3495 at 32 bits."""
    return 3.082 * weight_bits * input_bits + 10.59 * (weight_bits + input_bits) / 2


def adder_um2(bits: int) -> float:
    """Integer adder at 45 nm: 4.28 um2 per bit, Horowitz's 137 um2 at 32 bits."""
    return 4.28 * bits


def vector_area_mm2(lanes: int, bits: int, node_nm: float) -> float:
    """One multiplier and one adder of `bits` per lane."""
    return lanes * (multiplier_um2(bits, bits) + adder_um2(bits)) * 1e-6 * area_factor(node_nm)


@lru_cache(maxsize=256)
def component_areas(accelerator: Accelerator) -> tuple[ComponentArea, ...]:
    """Area and leakage per component. The outermost memory is another chip and has none unless the spec gives it one.

    A given `static_power_mw` is the whole machine's idle power: leakage is then not estimated on top of it.
    """
    node, estimate_leakage = accelerator.node_nm, not accelerator.static_power_mw
    found: list[ComponentArea] = []

    def add(name: str, instances: int, given_mm2: float, estimate_mm2: float, leakage_mw: float) -> None:
        area = given_mm2 or estimate_mm2
        leakage = leakage_mw or (area * LEAKAGE_MW_PER_MM2 if estimate_leakage else 0.0)
        guessed = (not given_mm2 and estimate_mm2 > 0) or (not leakage_mw and leakage > 0)
        found.append(ComponentArea(name, instances, area, leakage, guessed))

    for memory in accelerator.memories:
        estimate = 0.0 if memory is accelerator.outermost else memory_estimate_mm2(memory, node)
        add(memory.name, accelerator.instances(memory), memory.area_mm2, estimate, memory.leakage_mw)
    mac = accelerator.mac
    add("mac", accelerator.mac_units, mac.area_mm2, mac_area_mm2(mac, node), mac.leakage_mw)
    unit = accelerator.vector
    lanes_mm2 = 0.0 if mac.style == "measured" else vector_area_mm2(unit.lanes, unit.bits, node)
    add("vector", 1, unit.area_mm2, lanes_mm2, unit.leakage_mw)
    add("other", 1, accelerator.other_area_mm2, 0.0, 0.0)
    return tuple(found)


def memory_estimate_mm2(memory: Memory, node_nm: float) -> float:
    """Area of one instance from its capacity; 0 where the capacity is unlimited."""
    return 0.0 if memory.size_bits is None else sram_area_mm2(memory.size_bits, node_nm)


def working_power_mw(accelerator: Accelerator) -> float:
    """Power that flows while the machine works, whatever it does: idle power, leakage, clock network and control."""
    return static_power_mw(accelerator) + accelerator.control_power_mw


@lru_cache(maxsize=256)
def static_power_mw(accelerator: Accelerator) -> float:
    """Power that flows whatever the machine does: the spec's idle power plus all leakage."""
    return accelerator.static_power_mw + sum(part.leakage_mw for part in component_areas(accelerator))
