"""How far rounding lifts an energy above the linear prices: words are whole, and entries of a bill lie on a grid."""

from __future__ import annotations

from hwsim.machine.parts import Accelerator, Memory
from hwsim.pricing.unit_prices import UnitPrices


def bill_grid(machine: Accelerator) -> float:
    """pJ that a bill's entries may move as they are rounded to a grid."""
    return (8 * (len(machine.memories) + len(machine.arrays)) + 8) / 2048.0


def rounding_pj(unit: UnitPrices, machine: Accelerator) -> float:
    """How far a price may lie above the linear one: a part of a word per entry, and the grid of the bill's entries."""
    total = bill_grid(machine)
    for memory in machine.memories:
        total += (len(partial_words(unit, memory)) + 2 * unit.scaled) * (memory.read_energy_pj + memory.write_energy_pj)
    return total


def partial_words(unit: UnitPrices, memory: Memory) -> list[float]:
    """Bits per element of the operands and kinds that need not fill whole words of a memory."""
    each = [bits for (name, _, _, d), bits in unit.port_bits.items() if name == memory.name and d == "read"]
    return [bits for bits in each if bits % memory.word_bits]
