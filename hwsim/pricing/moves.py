"""What crosses the memory ports: elements at their widths, packed into words.

Partial sums have the accumulator's width, everything else its tensor's; an operand that stays on chip skips the
outermost memory. Also the constants of a layer (biases, requantization) and tensors streamed to the vector unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hwsim.machine.packing import shared_words
from hwsim.machine.parts import Accelerator, Array, Capabilities, Memory, Operand
from hwsim.nest.counts import Counts, Kind
from hwsim.network.layer import Layer, Tensor
from hwsim.pricing.offsets import BIAS_BITS, OffsetCost
from hwsim.pricing.shares import WHOLE, Shares, moved_shares, stream_shares

Direction = Literal["read", "write"]
MULTIPLIER_BITS, SHIFT_BITS = 32, 8  # one requantization multiplier and its shift, as integer runtimes store them
Key = tuple[str, Operand, Kind]  # (memory, operand, kind)


@dataclass(frozen=True)
class Moved:
    """Words and bits of one operand that one memory really moved, packing included."""

    memory: str
    operand: str  # an Operand, its "... scales", "parameters" or "offset"
    kind: Kind
    read_words: int
    write_words: int
    word_bits: int

    @property
    def bits(self) -> int:
        """Bits over the ports, both directions."""
        return (self.read_words + self.write_words) * self.word_bits


def operand_bits(layer: Layer, accelerator: Accelerator, operand: Operand, kind: Kind) -> int:
    """Width of one element of an operand: partial sums have the accumulator's, everything else its tensor's."""
    if operand == "output":
        partial = accelerator.mac.partial_sum_bits(layer.accumulator_bits_needed())
        return partial if kind == "partial" else layer.output.bits
    if operand == "weight":
        assert layer.weight is not None
        return layer.weight.bits
    return layer.inputs[0].bits


def hop_bits(layer: Layer, accelerator: Accelerator, array: Array, operand: Operand, kind: Kind) -> int:
    """Wires that one element pays for on its way through an array."""
    return wire_bits(array, operand_bits(layer, accelerator, operand, kind))


def wire_bits(array: Array, bits: int) -> int:
    """Wires that a code pays for: whole words of the array's network."""
    return -(-bits // array.hop_word_bits) * array.hop_word_bits


def side_bits(layer: Layer, operand: Operand, kind: Kind) -> float:
    """Scales and offsets that travel with one element of an operand; partial sums have none."""
    if kind == "partial":
        return 0.0
    assert layer.weight is not None
    tensor = {"weight": layer.weight, "input": layer.inputs[0], "output": layer.output}[operand]
    return tensor.side_bits_per_element


def moved_words(
    memory: Memory, operand: str, kind: Kind, bits: int, reads: int, writes: int, shares: Shares = WHOLE
) -> Moved:
    """Words that `reads` and `writes` elements of `bits` each take in a memory; `shares`: of them that are moved."""
    packed = memory.word_bits, memory.packing
    read_words, write_words = (
        shared_words(n, bits, *packed, share) for n, share in zip((reads, writes), shares, strict=True)
    )
    return Moved(memory.name, operand, kind, read_words, write_words, memory.word_bits)


def moved_bits(memory: Memory, operand: str, read_bits: int, write_bits: int) -> Moved:
    """Words that plain bit strings take (parameters, offsets): densely packed."""
    width = memory.word_bits
    return Moved(memory.name, operand, "code", -(-read_bits // width), -(-write_bits // width), width)


def parameter_bits(layer: Layer, capabilities: Capabilities) -> int:
    """Biases and requantization constants of a layer.

    32 bits per output channel with a bias; per weight scale a 32-bit multiplier with an 8-bit shift, the shift alone,
    or 2^bits - 1 thresholds of 32 bits.
    """
    if layer.weight is None or not layer.has_macs:
        return 0
    each = {
        "multiplier": MULTIPLIER_BITS + SHIFT_BITS,
        "shift": SHIFT_BITS,
        "thresholds": (2 ** min(layer.output.bits, 16) - 1) * BIAS_BITS,
    }[capabilities.requantization]
    bias = layer.loops.G * layer.loops.K * BIAS_BITS if layer.bias else 0
    if layer.weight.format is not None:  # its scales are stored and moved with its codes
        return bias
    return bias + layer.weight.scales * each


def traffic(counts: Counts, accelerator: Accelerator, resident: frozenset[Operand]) -> dict[Key, tuple[int, int]]:
    """Reads and writes in elements, less what resident operands save.

    An operand that stays on chip is already where its tile would be brought: its traffic at the outermost memory goes,
    and with it the fills of (or drains from) the memory it stays in.
    """
    found: dict[Key, tuple[int, int]] = {(t.memory, t.operand, t.kind): (t.reads, t.writes) for t in counts.traffic}
    home = accelerator.activation_memory
    if home is None or not resident:
        return found
    outer = accelerator.outermost.name
    for operand in resident:
        drained = sum(writes for (memory, o, _), (_, writes) in found.items() if (memory, o) == (outer, operand))
        for key, (reads, writes) in list(found.items()):
            if key[:2] == (outer, operand):
                found[key] = (0, 0)
            elif key[:2] == (home.name, operand) and operand != "output":
                found[key] = (reads, 0)
            elif key == (home.name, operand, "final"):
                found[key] = (max(0, reads - drained), writes)
    return found


def layer_moves(
    layer: Layer,
    counts: Counts,
    accelerator: Accelerator,
    resident: frozenset[Operand],
    offset: OffsetCost,
    *,
    constants: bool = True,
) -> tuple[Moved, ...]:
    """Everything a layer moves over memory ports, in words; without `constants` only what its mapping decides."""
    memories = {memory.name: memory for memory in accelerator.memories}
    moved: list[Moved] = []
    for (name, operand, kind), (reads, writes) in traffic(counts, accelerator, resident).items():
        if reads or writes:
            bits = operand_bits(layer, accelerator, operand, kind)
            memory = memories[name]
            shares = moved_shares(layer, accelerator, memory, operand, kind, bits)
            moved.append(moved_words(memory, operand, kind, bits, reads, writes, shares))
            side = side_bits(layer, operand, kind)
            if side:
                scales = f"{operand} scales"
                moved.append(moved_bits(memory, scales, math.ceil(reads * side), math.ceil(writes * side)))
    fixed = fixed_moves(layer, accelerator, offset, input_stays="input" in resident) if constants else []
    return (*moved, *fixed)


def fixed_moves(
    layer: Layer, accelerator: Accelerator, offset: OffsetCost, *, input_stays: bool = False
) -> list[Moved]:
    """What a layer moves under any mapping: its constants, and what its offset needs.

    All at the outermost memory, but for the border of codes around the input, which is written where the input lies:
    in the activation memory when it stays on chip (`input_stays`).
    """
    outer, x = accelerator.outermost, layer.inputs[0]
    moved: list[Moved] = []
    parameters = parameter_bits(layer, accelerator.capabilities)
    if parameters:
        moved.append(moved_bits(outer, "parameters", parameters, 0))
    around = offset.border_codes
    if around:
        home = accelerator.activation_memory if input_stays else None
        moved.append(moved_words(home or outer, "offset", "code", x.bits, 0, around))
    read_bits = offset.extra_read_bits
    write_bits = offset.extra_write_bits - around * x.bits
    if read_bits or write_bits:
        moved.append(moved_bits(outer, "offset", read_bits, write_bits))
    return moved


def stream(tensor: Tensor, accelerator: Accelerator, operand: Operand, resident: bool) -> list[Moved]:
    """Move a whole tensor between its home and the vector unit, through the activation memory where there is one."""
    n, outer, home = tensor.elements, accelerator.outermost, accelerator.activation_memory
    inwards = operand == "input"
    kind: Kind = "code" if inwards else "final"
    ends = outer if home is None or not resident else home
    shares = stream_shares(ends, operand, tensor.bits)
    moved = [moved_words(ends, operand, kind, tensor.bits, n * inwards, n * (not inwards), shares)]
    side = tensor.side_bits
    if side:
        moved.append(moved_bits(ends, f"{operand} scales", side * inwards, side * (not inwards)))
    if home is not None and not resident:
        moved.append(moved_words(home, operand, kind, tensor.bits, n, n, stream_shares(home, operand, tensor.bits)))
        if side:
            moved.append(moved_bits(home, f"{operand} scales", side, side))
    return moved
