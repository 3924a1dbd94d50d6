"""How long a tensor takes room in its home: whole from birth to last reader, or freed block by block as it is read.

With `rows` an output may take the place of inputs that die where it is made: rows, channels or elements that no later
step reads are free at once. The loops that run outermost say what is read when (`saved_bits`); nothing else of a nest
counts. With `borders` neighbouring rows share the columns of a border, and its rows are free after the last reader
that needs them. Addresses are not assigned: as for whole tensors, sizes are summed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import RequestError
from hwsim.machine.packing import operands_per_word, words
from hwsim.machine.parts import Memory
from hwsim.nest.mapping import Hold, Mapping, Temporal
from hwsim.network.layer import ACTIVATION_FUNCTIONS, Layer, Tensor

Ints = NDArray[np.int64]
WHOLE = "whole"
WORDS = ("rows", "borders")
MAX_STEPS = 1 << 16  # of the outermost loops that are followed one by one
OUTER = ("N", "G", "K", "P", "Q")  # loops whose blocks are finished outputs
# Operators that read an element of each input for an element of the output, in one order.
ELEMENTWISE = ACTIVATION_FUNCTIONS | {"add", "sub", "mul", "div", "exp", "sqrt", "pow", "batch_norm", "requantize"}


@dataclass(frozen=True)
class Lifetimes:
    """What frees room before a tensor's last reader ends. Neither: whole tensors."""

    rows: bool = False
    borders: bool = False

    def __str__(self) -> str:
        return ",".join(word for word in WORDS if getattr(self, word)) or WHOLE

    @property
    def sentence(self) -> str:
        """What it means, for reports."""
        if self == WHOLE_TENSORS:
            return "whole tensors from birth to last reader"
        freed = "freed by rows, channels or elements as they are read" if self.rows else "whole"
        borders = (
            "neighbouring rows share a border's columns, its rows are free after the last reader that needs them"
            if self.borders
            else "borders kept to the end"
        )
        return f"tensors from birth to last reader, {freed}, {borders}"


WHOLE_TENSORS = Lifetimes()


def parse_lifetimes(text: str) -> Lifetimes:
    """`whole`, or `rows` and `borders` with a comma between them. Raises RequestError for other words."""
    found = [word.strip() for word in text.split(",")]
    if found == [WHOLE]:
        return WHOLE_TENSORS
    if len(set(found)) < len(found) or not set(found) <= set(WORDS):
        raise RequestError(f"lifetimes: expected whole, rows, borders or rows,borders, got {text!r}")
    return Lifetimes(**dict.fromkeys(found, True))


# --- borders ----------------------------------------------------------------------------------------------------------


def shared_border_elements(tensor: Tensor, padding: tuple[int, int, int, int]) -> tuple[int, int]:
    """Codes that a tensor takes in a border of (top, bottom, left, right), and once the border's rows are free.

    A row is stored with max(left, right) columns of border: what stands behind it stands before the next one.
    """
    top, bottom, left, right = padding
    rows, columns = tensor.shape[-2], tensor.shape[-1]
    planes, stride = tensor.elements // (rows * columns), columns + max(left, right)
    return planes * (rows + top + bottom) * stride + min(left, right), planes * rows * stride + min(left, right)


# --- blocks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Freed:
    """Whose place the output of a layer with MACs may take: its input's, and that of operands of operators behind it.

    `others`: bits of those operands, which have as many elements as the output and are read where it is made.
    `most_bits`: no nest saves more.
    """

    input: bool = False
    others: tuple[int, ...] = ()
    most_bits: int = 0


NOTHING = Freed()


def freed_of(home: Memory, layer: Layer, *, input_dies: bool, others: Sequence[Tensor]) -> Freed:
    """`Freed` of a layer whose output stays, given which tensors die there."""
    mine = tuple(sorted(t.bits for t in others if t.elements == layer.output.elements))
    dying = [packed(home, layer.output.elements, bits) for bits in mine]
    if input_dies:
        dying.append(packed(home, layer.inputs[0].elements, layer.inputs[0].bits))
    most = min(sum(dying), packed(home, layer.output.elements, layer.output.bits))
    return Freed(input_dies, mine, most) if dying else NOTHING


@dataclass(frozen=True)
class Level:
    """An outermost loop: blocks of `step` of a dim, one after another."""

    dim: str
    step: int


def outermost(mapping: Mapping) -> tuple[Level, ...]:
    """The loops around everything else whose blocks are finished outputs: no reduction, no dim twice."""
    found: list[Level] = []
    for node, step in zip(mapping.nodes, mapping.steps(), strict=True):
        if isinstance(node, Hold) or node.factor == 1:
            continue
        if not isinstance(node, Temporal) or node.dim not in OUTER:
            break
        if found and found[-1].dim == node.dim:
            found[-1] = Level(node.dim, step)
        elif any(level.dim == node.dim for level in found):
            break
        else:
            found.append(Level(node.dim, step))
    return tuple(found)


def saved_bits(home: Memory, layer: Layer, levels: Sequence[Level], freed: Freed) -> int:
    """Bits that a layer's dying tensors and its output take less than in full, when blocks are freed as they are read.

    The peak over the blocks of `levels` of (what blocks from here on read) + (outputs up to and with this block): a
    block's inputs and outputs are in full there together. Less a word for each tensor that shares words among codes.
    """
    if freed == NOTHING or not levels:
        return 0
    bounds = layer.loops.as_dict()
    counts = [-(-bounds[level.dim] // level.step) for level in levels]
    while math.prod(counts) > MAX_STEPS:
        counts.pop()
    levels = levels[: len(counts)]
    if not levels or layer.output.elements != math.prod(bounds[dim] for dim in OUTER):
        return 0
    steps = np.indices(counts, dtype=np.int64).reshape(len(counts), -1)
    starts = [index * level.step for index, level in zip(steps, levels, strict=True)]
    sizes = [np.minimum(level.step, bounds[level.dim] - start) for level, start in zip(levels, starts, strict=True)]
    before, through = output_progress(layer, levels, starts, sizes)
    held = words(through, layer.output.bits, home.word_bits, home.packing)
    shared = [layer.output.bits, *freed.others]
    for bits in freed.others:
        held = held - full_words(home, bits, before)
    if freed.input:
        x = layer.inputs[0]
        held = held - full_words(home, x.bits, input_progress(layer, levels, starts, sizes))
        shared.append(x.bits)
    # what is written less what was freed before it, at its peak: dying tensors and output never take more beside them
    slack = sum(shares_words(home, bits) for bits in shared)
    return max(0, packed(home, layer.output.elements, layer.output.bits) - (int(held.max()) + slack) * home.word_bits)


def output_progress(
    layer: Layer, levels: Sequence[Level], starts: Sequence[Ints], sizes: Sequence[Ints]
) -> tuple[Ints, Ints]:
    """Outputs of the blocks before each one, and with it."""
    bounds = layer.loops.as_dict()
    rest = layer.output.elements // math.prod(bounds[level.dim] for level in levels)
    before: Ints = np.zeros_like(starts[0])
    around: Ints = np.ones_like(starts[0])
    for i, level in enumerate(levels):
        inner = math.prod(bounds[other.dim] for other in levels[i + 1 :]) * rest
        before, around = before + around * starts[i] * inner, around * sizes[i]
        assert level.dim in OUTER
    return before, before + around * rest


def input_progress(layer: Layer, levels: Sequence[Level], starts: Sequence[Ints], sizes: Sequence[Ints]) -> Ints:
    """Inputs that no block from here on reads; loops inside those of a window free nothing further."""
    bounds, axes = layer.loops.as_dict(), (Axis.of(layer, 0), Axis.of(layer, 1))
    extents = {"N": bounds["N"], "G": bounds["G"], "P": axes[0].extent, "Q": axes[1].extent}
    before: Ints = np.zeros_like(starts[0])
    if layer.inputs[0].elements != math.prod(extents.values()) * bounds["C"] or not all(a.sound for a in axes):
        return before
    around: Ints = np.ones_like(starts[0])
    left = layer.inputs[0].elements
    for start, size, level in zip(starts, sizes, levels, strict=True):
        if level.dim == "K":  # inputs are read once more for every block, and freed while the last one runs
            around = around * (start + size >= bounds["K"])
            continue
        left //= extents[level.dim]
        axis = axes[level.dim == "Q"] if level.dim in "PQ" else None
        if axis is not None and not axis.plain:
            return before + around * axis.passed(start) * left
        before, around = before + around * start * left, around * size
    return before


@dataclass(frozen=True)
class Axis:
    """Rows or columns of a layer's input: how many are stored, and which ones outputs read."""

    extent: int
    stride: int
    padding: int
    plain: bool  # an output reads one row, its own
    sound: bool

    @classmethod
    def of(cls, layer: Layer, axis: int) -> Axis:
        """Rows (0) or columns (1)."""
        outputs, taps = (layer.loops.P, layer.loops.R) if axis == 0 else (layer.loops.Q, layer.loops.S)
        before, behind = layer.padding[2 * axis : 2 * axis + 2]
        stride = layer.stride[axis]
        if taps == 1 and stride == 1 and not before and not behind:
            return cls(outputs, 1, 0, True, True)
        shape = layer.inputs[0].shape
        extent = shape[axis - 2] if len(shape) >= 2 else 0
        reach = stride * (outputs - 1) + layer.dilation[axis] * (taps - 1) + 1
        return cls(extent, stride, before, False, reach <= extent + before + behind)

    def passed(self, output: Ints) -> Ints:
        """Rows that outputs from here on do not read."""
        return np.clip(output * self.stride - self.padding, 0, self.extent)


def elementwise_saved_bits(home: Memory, layer: Layer, dying: Sequence[Tensor], lanes: int) -> int:
    """What an elementwise operator's output and the inputs that die there save, vector by vector of `lanes` elements.

    Most is held at an end: all is alive and the first vector written, or the last one is alive and all is written.
    What is between lies on a line, as vectors are taken for whole words of every tensor.
    """
    y = layer.output
    mine = [t for t in dying if t.elements == y.elements and t.shape == y.shape]
    if layer.op not in ELEMENTWISE or not mine:
        return 0
    unit = math.lcm(*(aligned(home, t.bits) for t in (y, *mine)))
    block = lanes if lanes % unit == 0 else (lanes // unit + 2) * unit  # wherever a vector begins
    total = packed(home, y.elements, y.bits) + sum(packed(home, t.elements, t.bits) for t in mine)
    last = max(0, y.elements - block) // unit * unit
    peak = 0
    for start in (0, last, last + unit):
        held = packed(home, min(y.elements, start + block), y.bits)
        peak = max(peak, held + sum(packed(home, max(0, t.elements - start), t.bits) for t in mine))
    return max(0, total - peak)


# --- words ------------------------------------------------------------------------------------------------------------


def packed(home: Memory, elements: int, bits: int) -> int:
    """Bits that codes take in whole words."""
    return words(elements, bits, home.word_bits, home.packing) * home.word_bits


def full_words(home: Memory, bits: int, elements: Ints) -> Ints:
    """Words that hold nothing but the first so many codes."""
    return -words(-elements, bits, home.word_bits, home.packing)


def shares_words(home: Memory, bits: int) -> bool:
    """Whether a word holds pieces of several codes."""
    if home.packing == "dense":
        return bits % home.word_bits > 0
    return operands_per_word(bits, home.word_bits, home.packing) > 1


def aligned(home: Memory, bits: int) -> int:
    """Codes that fill whole words."""
    if home.packing == "dense":
        return home.word_bits // math.gcd(bits, home.word_bits)
    return operands_per_word(bits, home.word_bits, home.packing)
