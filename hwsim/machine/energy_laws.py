"""Energy, area and leakage of a part from its size, width, ports and node, by a law that has a name.

SRAM: CACTI 7 by interpolation in its own table (sram_cacti7.csv, 45 nm; a bare macro), Horowitz (ISSCC 2014) and
TPUv4i (ISCA 2021) for a memory with what surrounds it, or the mean of both. The laws lie up to 20 times apart, so none
is a default. DRAM by kind, MACs by synthesis. Every estimate carries a spread: a factor either way.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

TABLE = Path(__file__).with_name("sram_cacti7.csv")
Cell = Literal["hp", "lop", "lstp"]
SRAM_LAWS = ("cacti_hp", "cacti_lop", "cacti_lstp", "system", "middle")
# pJ per bit with interface, and how far published figures of the kind lie from it: Accelergy's table, Horowitz
# (DDR3/4: 1300 pJ per 64 b), TPUv4i Table 2 (HBM2 250 to 450, GDDR6 350 to 480 pJ per 64 b).
DRAM_LAWS: dict[str, tuple[float, float]] = {
    "ddr3": (20.3, 3.5), "ddr4": (20.3, 1.4), "lpddr4": (8.0, 1.7), "hbm2": (5.2, 1.4), "hbm3": (4.05, 2.2),
    "gddr6": (6.4, 1.2),
}  # fmt: skip
MAC_LAWS = ("synthesis_45nm",)
REGISTER_BYTES, REGISTER_PJ_PER_BIT = 64, 0.009  # Aladdin, 40 nm: below 64 B memories are registers
REGISTER_UM2_PER_BIT, REGISTER_MW_PER_BIT = 5.98, 7.4e-5
# Bytes -> pJ per 64 bits. Horowitz at 45 nm, TPUv4i Table 2 at 7 nm.
SYSTEM_45NM = ((8192, 10.0), (32768, 20.0), (1048576, 100.0))
SYSTEM_7NM = ((8192, 7.5), (32768, 8.5), (1048576, 14.0))
SYSTEM_SPREAD = 2.4  # at 45 nm the two laws agree to 1.1 to 2.4 times
CACTI_SPREAD: dict[Cell, float] = {"hp": 1.41, "lop": 1.25, "lstp": 1.24}  # 90 % of sizes left out, all widths
# Stillmaker & Baas 2017 at 0.9 V: energy of logic at a node relative to 45 nm.
LOGIC_TO_45NM = (
    (7, 0.1024), (10, 0.1273), (14, 0.1501), (16, 0.1873), (20, 0.2378), (32, 0.641), (45, 1.0), (65, 1.2535),
    (90, 1.9499), (130, 3.1675),
)  # fmt: skip
# TPUv4i's table shrinks a MAC three times less from 45 to 7 nm than Stillmaker's polynomials do.
LOGIC_SPREAD_PER_E_FOLD = math.log(3) / math.log(45 / 7)
DRAM_SPREAD = 1.7  # LPDDR4: 8 pJ per bit with its interface, 4.8 of the core alone (LPDDR3, simulated)
WIRE_SPREAD = 2.0  # 0.04 to 0.08 pJ per bit and mm at 45 nm, quarter or half of C V^2
LEAKAGE_SPREAD = 2.0  # 10 mW per mm2 is half of CACTI's low-power cells; fast cells leak 36 times more
QUANTITIES = ("read_pj", "write_pj", "leakage_mw", "area_mm2")
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Estimate:
    """What a law says of one instance. `spread`: a factor either way; `law`: its name, `basis`: what it rests on."""

    read_pj: float
    write_pj: float
    leakage_mw: float
    area_mm2: float
    spread: float
    law: str
    basis: str


def power_law(points: Points, x: float) -> float:
    """Straight lines between points in logarithms; beyond the ends the last line goes on."""
    if len(points) == 1:
        return points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1 or x1 == points[-1][0]:
            return y0 * (y1 / y0) ** (math.log(x / x0) / math.log(x1 / x0))
    raise AssertionError


# --- SRAM -------------------------------------------------------------------------------------------------------------

Setting = tuple[int, str, str, str]  # node, cell, ports, ecc
Sizes = Mapping[int, Mapping[int, Mapping[str, float]]]  # access bits -> bytes -> quantity -> value


@lru_cache(maxsize=1)
def cacti_table() -> dict[Setting, dict[int, dict[int, dict[str, float]]]]:
    """All runs of CACTI 7 by setting, width and size."""
    found: dict[Setting, dict[int, dict[int, dict[str, float]]]] = {}
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            setting = (int(row["node_nm"]), row["cell"], row["ports"], row["ecc"])
            sizes = found.setdefault(setting, {}).setdefault(int(row["access_bits"]), {})
            sizes[int(row["size_bytes"])] = {name: float(row[name]) for name in QUANTITIES}
    return found


def interpolated(sizes: Sizes, size_bytes: float, access_bits: float, quantity: str) -> float:
    """A quantity between the runs of one setting: power laws in size at each width, then in width."""
    by_width: Points = tuple(
        (float(bits), power_law(tuple((float(b), known[b][quantity]) for b in sorted(known)), size_bytes))
        for bits, known in sorted(sizes.items())
    )
    return power_law(by_width, access_bits)


def to_node(cell: Cell, node_nm: float, quantity: str) -> float:
    """A quantity at a node relative to 45 nm: mean ratio of CACTI's runs; linear below 22 nm, ^1.75 above 90 nm."""
    here = cacti_table()[45, cell, "rw", "false"]
    ratios: list[tuple[float, float]] = []
    for node in (22, 32, 45, 65, 90):
        there = cacti_table()[node, cell, "rw", "false"]
        logs = [
            math.log(values[quantity] / here[bits][size][quantity])
            for bits, sizes in there.items()
            for size, values in sizes.items()
            if size in here.get(bits, {})
        ]
        ratios.append((float(node), math.exp(sum(logs) / len(logs))))
    if node_nm < 22:
        return ratios[0][1] * node_nm / 22
    if node_nm > 90:
        return ratios[-1][1] * (node_nm / 90) ** 1.75
    return power_law(tuple(ratios), node_nm)


def cacti(size_bytes: float, word_bits: int, node_nm: float, cell: Cell, two_ports: bool) -> Estimate:
    """A bare macro of one bank. One port reads and writes, or each has its own (`two_ports`)."""
    sizes = cacti_table()[45, cell, "r_w" if two_ports else "rw", "false"]
    read, write, leakage, area = (
        interpolated(sizes, size_bytes, word_bits, quantity) * to_node(cell, node_nm, quantity)
        for quantity in QUANTITIES
    )
    basis = f"CACTI 7 ({cell}) at 45 nm, interpolated in size and width" + at_node(node_nm)
    return Estimate(read, write, leakage, area, CACTI_SPREAD[cell], f"cacti_{cell}", basis)


def at_node(node_nm: float) -> str:
    """`, at 28 nm`; nothing at 45 nm."""
    return "" if node_nm == 45 else f", scaled to {node_nm:g} nm"


def registers(size_bits: float, word_bits: int, node_nm: float, law: str) -> Estimate:
    """Memories below 64 bytes: flip-flops, whatever the law for SRAM."""
    scale = power_law(LOGIC_TO_45NM, node_nm) / power_law(LOGIC_TO_45NM, 40)
    pj = REGISTER_PJ_PER_BIT * word_bits * scale
    area = size_bits * REGISTER_UM2_PER_BIT * 1e-6 * (node_nm / 40) ** 2
    basis = f"registers of 0.009 pJ per bit at 40 nm (Aladdin), scaled to {node_nm:g} nm"
    return Estimate(pj, pj, size_bits * REGISTER_MW_PER_BIT, area, 2.0, law, basis)


def system(size_bytes: float, word_bits: int, node_nm: float, two_ports: bool) -> Estimate:
    """A memory with what surrounds it: Horowitz at 45 nm, TPUv4i at 7 nm, a power law in between; area by CACTI.

    Leakage is left to the estimate by area: CACTI's cells differ a thousandfold, and these sources name none.
    """
    smallest = SYSTEM_7NM[0][0]
    at_45, at_7 = power_law(SYSTEM_45NM, size_bytes), power_law(SYSTEM_7NM, max(size_bytes, smallest))
    if size_bytes < smallest:  # below the tables both shrink alike
        at_7 *= at_45 / power_law(SYSTEM_45NM, smallest)
    pj = power_law(((7.0, at_7), (45.0, at_45)), node_nm) * word_bits / 64
    macro = cacti(size_bytes, word_bits, node_nm, "hp", two_ports)
    basis = f"Horowitz at 45 nm, TPUv4i at 7 nm, by size{at_node(node_nm)}"
    return replace(macro, read_pj=pj, write_pj=pj, leakage_mw=0.0, spread=SYSTEM_SPREAD, law="system", basis=basis)


def middle(size_bytes: float, word_bits: int, node_nm: float, two_ports: bool) -> Estimate:
    """The geometric mean of `cacti_hp` and `system`, whose distance is the spread."""
    low = cacti(size_bytes, word_bits, node_nm, "hp", two_ports)
    high = system(size_bytes, word_bits, node_nm, two_ports)
    read, write = math.sqrt(low.read_pj * high.read_pj), math.sqrt(low.write_pj * high.write_pj)
    spread = max(SYSTEM_SPREAD, high.read_pj / read, read / high.read_pj)
    basis = "mean of cacti_hp and system"
    return replace(high, read_pj=read, write_pj=write, spread=spread, law="middle", basis=basis)


def sram(size_bits: int, word_bits: int, node_nm: float, law: str, *, two_ports: bool) -> Estimate:
    """One instance of an on-chip memory by a law of SRAM_LAWS. Raises KeyError for another name."""
    if size_bits < 8 * REGISTER_BYTES:
        return registers(size_bits, word_bits, node_nm, law)
    size_bytes = size_bits / 8
    laws: dict[str, Callable[[], Estimate]] = {
        "cacti_hp": lambda: cacti(size_bytes, word_bits, node_nm, "hp", two_ports),
        "cacti_lop": lambda: cacti(size_bytes, word_bits, node_nm, "lop", two_ports),
        "cacti_lstp": lambda: cacti(size_bytes, word_bits, node_nm, "lstp", two_ports),
        "system": lambda: system(size_bytes, word_bits, node_nm, two_ports),
        "middle": lambda: middle(size_bytes, word_bits, node_nm, two_ports),
    }
    return laws[law]()


def sram_distance(size_bits: int, word_bits: int, node_nm: float) -> float:
    """How many times published laws differ for a memory: a bare macro against one with what surrounds it."""
    if size_bits < 8 * REGISTER_BYTES:
        return 2.0
    return middle(size_bits / 8, word_bits, node_nm, two_ports=False).spread


def dram(word_bits: int, law: str) -> Estimate:
    """One access of the outermost memory; area and leakage are another chip's."""
    per_bit, spread = DRAM_LAWS[law]
    pj = per_bit * word_bits
    return Estimate(pj, pj, 0.0, 0.0, spread, law, f"{law}: {per_bit:g} pJ per bit, interface included")


# What a description without energies is given: 45 nm, whatever its node, so that no scaling is invented.
UNSTATED = "law middle at 45 nm for memories, lpddr4 for the outermost, synthesis_45nm for MACs"


def unstated_pj(size_bits: int | None, word_bits: int) -> float:
    """pJ to read or write one word of a memory whose description states none; None: the outermost memory."""
    if size_bits is None:
        return dram(word_bits, "lpddr4").read_pj
    return sram(size_bits, word_bits, 45.0, "middle", two_ports=False).read_pj


# --- arithmetic -------------------------------------------------------------------------------------------------------


def mac_pj(weight_bits: int, input_bits: int, node_nm: float = 45.0) -> tuple[float, float]:
    """(pJ, spread) of an integer MAC with accumulator and registers: 0.00272 w a + 0.0139 (w + a)/2 + 0.0192 at 45 nm.

    Fitted to Bit Fusion's authors' synthesis of 2, 4, 8 and 16 bits at 500 MHz (2.3 % off at most); to other nodes by
    Stillmaker & Baas.
    """
    pj = 0.00272 * weight_bits * input_bits + 0.0139 * (weight_bits + input_bits) / 2 + 0.0192
    spread = 1.1 * math.exp(abs(math.log(node_nm / 45)) * LOGIC_SPREAD_PER_E_FOLD)
    return pj * power_law(LOGIC_TO_45NM, node_nm), spread
