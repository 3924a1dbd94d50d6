"""Prices for descriptions without a table of energies: published figures at 45 nm by size, named in the report.

Reads in pJ per bit by size: CACTI at 45 nm (128 B to 16 KB) and Horowitz, ISSCC 2014 (1 MB cache: 100 pJ per 64 bits);
DRAM 8 pJ per bit (LPDDR4). MACs: Horowitz's 8-bit multiplication (0.2 pJ, by the product of widths) and 32-bit
addition (0.1 pJ, by width). Nothing is scaled to another node.
"""

from __future__ import annotations

from hwsim.pricing.area import interpolate

# bytes -> pJ per bit read
SRAM_PJ_PER_BIT: tuple[tuple[float, float], ...] = (
    (128, 0.02), (2048, 0.06), (4096, 0.115), (8192, 0.2), (16384, 0.31), (1048576, 1.56),
)  # fmt: skip
REGISTER_PJ_PER_BIT = 0.009  # Aladdin, 40 nm
DRAM_PJ_PER_BIT = 8.0
SOURCE = "CACTI and Horowitz at 45 nm, DRAM 8 pJ per bit; not scaled to the node"


def memory_pj(size_bits: int | None, word_bits: int) -> float:
    """pJ to read or write one word."""
    if size_bits is None:
        return DRAM_PJ_PER_BIT * word_bits
    size_bytes = size_bits / 8
    if size_bytes <= SRAM_PJ_PER_BIT[0][0]:
        return max(REGISTER_PJ_PER_BIT, SRAM_PJ_PER_BIT[0][1] * size_bytes / SRAM_PJ_PER_BIT[0][0]) * word_bits
    largest = SRAM_PJ_PER_BIT[-1]
    per_bit = largest[1] if size_bytes > largest[0] else interpolate(SRAM_PJ_PER_BIT, size_bytes)
    return per_bit * word_bits


def mac_pj(weight_bits: int, input_bits: int, accumulator_bits: int) -> float:
    """pJ of one multiply-accumulate."""
    return 0.2 * weight_bits * input_bits / 64 + 0.1 * accumulator_bits / 32
