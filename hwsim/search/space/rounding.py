"""How far a price may lie from the sums that proofs bound: words, cycles and entries of a bill are rounded."""

from __future__ import annotations

from hwsim.machine.parts import Memory
from hwsim.search.space.problem import Problem
from hwsim.search.space.timing import Timing


def bill_grid(problem: Problem) -> float:
    """pJ that a bill's entries may move as they are rounded to a grid."""
    machine = problem.accelerator
    return (8 * (len(machine.memories) + len(machine.arrays)) + 8) / 2048.0


def rounding_pj(problem: Problem) -> float:
    """How far a price may lie above the linear one: a part of a word per entry, and the grid of the bill's entries."""
    machine = problem.accelerator
    total = bill_grid(problem)
    for memory in machine.memories:
        total += len(partial_words(problem, memory)) * (memory.read_energy_pj + memory.write_energy_pj)
    return total


def partial_words(problem: Problem, memory: Memory) -> list[float]:
    """Bits per element of the operands and kinds that need not fill whole words of a memory."""
    each = [bits for (name, _, _, d), bits in problem.unit.port_bits.items() if name == memory.name and d == "read"]
    return [bits for bits in each if bits % memory.word_bits]


def rounding_cycles(timing: Timing) -> float:
    """Cycles that a latency may lie above its regime's sum: rounding per resource, a part of a word per entry."""
    machine = timing.problem.accelerator
    memories = {memory.name: memory for memory in machine.memories}
    total = len(timing.waiting) + (1.0 if machine.overlap else max(1.0, len(timing.bandwidths)))
    for (name, _), limit in timing.bandwidths.items():
        total += 2 * len(partial_words(timing.problem, memories[name])) * memories[name].word_bits / limit
    return total
