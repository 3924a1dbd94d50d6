"""What share of an operand's elements a port really moves: borders made on the way, compressed codes, whole tiles.

Counts live in the padded image (docs/counting.md). Where a machine inserts the border's zeros, a read moves the share
of the input's points that exist; that is exact where every point is read equally often, and takes tiles at the border
for average ones otherwise. So costs stay linear in counts, and searches and proofs price the same thing. An array that
loads whole tiles moves more than the weights' points: their matrix rounded up to its axes (`whole_tile_share`).
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

from hwsim.machine.parts import Accelerator, Memory, Operand, ZeroCoding
from hwsim.nest.counts import Kind
from hwsim.nest.points import lattice, relevant_dims
from hwsim.network.layer import Layer
from hwsim.pricing.offsets import offset_cost

Shares = tuple[Fraction, Fraction]  # of the elements read, of those written
WHOLE: Shares = (Fraction(1), Fraction(1))


def moved_shares(
    layer: Layer, accelerator: Accelerator, memory: Memory, operand: Operand, kind: Kind, bits: int
) -> Shares:
    """Shares of an operand's elements, `bits` wide, read from and written to a memory; unfinished sums move whole."""
    if kind == "partial":
        return WHOLE
    share = stored_share(memory, operand, bits)
    if operand == "weight":
        share *= whole_tile_share(layer, accelerator, memory)
    made = operand == "input" and memory.padding == "inserted" and not border_is_stored(layer, accelerator)
    return (share * existing_share(layer) if made else share, share)


def stored_share(memory: Memory, operand: Operand, bits: int) -> Fraction:
    """Bits of an operand's compressed codes, `bits` wide, over those of the plain ones."""
    coded = next((coded for known, coded in memory.compression if known == operand), 1.0)
    return zeros_left_out(coded, bits) if isinstance(coded, ZeroCoding) else Fraction(str(coded))


@lru_cache(maxsize=1024)
def zeros_left_out(coded: ZeroCoding, bits: int) -> Fraction:
    """Expected bits of a code without zeros over `bits`, at most 1: a compiler writes longer ones plain.

    z: share of zeros, each code 0 on its own. A bitmap takes 1 + (1 - z) * bits for each code. A run of r bits stands
    for n = 2^r codes at most, so (1 - z) / (1 - z^n) of all codes are written, r + bits long each. Bits are
    rounded up to 2^-40.

    >>> zeros_left_out(ZeroCoding(0.5, "bitmap"), 8), zeros_left_out(ZeroCoding(0.5, "bitmap"), 2)
    (Fraction(5, 8), Fraction(1, 1))
    """
    z = Fraction(str(coded.zeros))
    if coded.coding == "bitmap":
        each = 1 + (1 - z) * bits
    else:
        written = 1 / sum((z**k for k in range(2**coded.run_bits)), Fraction(0))
        each = written * (coded.run_bits + bits)
    return min(Fraction(bits), Fraction(math.ceil(each * 2**40), 2**40)) / bits


def whole_tile_share(layer: Layer, accelerator: Accelerator, memory: Memory) -> Fraction:
    """Weights that pass a memory outside an array which loads whole tiles, over the layer's own.

    prod over axes of ceil(n / size) * size / n, n = product of the extents of the weights' loops on the axis: the
    fewest tiles of the whole array that hold the matrix. Other loops of the weights (groups, mostly) share no tile.
    """
    share = Fraction(1)
    nodes = accelerator.hierarchy
    for array in accelerator.arrays:
        if array.loads_whole_tiles and nodes.index(memory) < nodes.index(array):
            bounds, dims = layer.loops.as_dict(), relevant_dims("weight")
            for axis in array.axes:
                mine = [bounds[dim] for dim in axis.dims if dim in dims]
                extent = math.prod(mine)
                if mine:
                    share *= Fraction(-(-extent // axis.size) * axis.size, extent)
    return share


def stream_shares(memory: Memory, operand: Operand, bits: int) -> Shares:
    """Shares of the elements of a whole tensor, `bits` wide, which has no border, on its way."""
    share = stored_share(memory, operand, bits)
    return share, share


def border_is_stored(layer: Layer, accelerator: Accelerator) -> bool:
    """Whether the border has codes that the machine cannot make, so that it stands in memory."""
    return offset_cost(layer, accelerator.capabilities).border_codes > 0


def border_share(layer: Layer) -> Fraction:
    """Share of the points that a layer's input counts which lie in the border."""
    return 1 - existing_share(layer)


def existing_share(layer: Layer) -> Fraction:
    """Share of the points that a layer's input counts which are the input's own.

    >>> from hwsim.network.layer import Loops, Tensor
    >>> map_7x7, loops = Tensor("x", (1, 1, 7, 7)), Loops(P=7, Q=7, R=3, S=3)
    >>> existing_share(Layer("c", "conv", (map_7x7,), map_7x7, map_7x7, loops, padding=(1, 1, 1, 1)))
    Fraction(49, 81)
    """
    if not layer.has_macs or not any(layer.padding):
        return Fraction(1)
    top, _, left, _ = layer.padding
    found = Fraction(1)
    for axis, before in ((0, top), (1, left)):
        outputs, taps = ((layer.loops.P, layer.loops.R), (layer.loops.Q, layer.loops.S))[axis]
        extent = layer.inputs[0].shape[axis - 2]
        found *= rank_share(layer.stride[axis], outputs, layer.dilation[axis], taps, before, extent)
    return found


@lru_cache(maxsize=4096)
def rank_share(stride: int, outputs: int, dilation: int, taps: int, before: int, extent: int) -> Fraction:
    """Of the points {stride*i + dilation*j : i < outputs, j < taps} those from `before` to `before + extent`."""
    points = lattice(stride, outputs, dilation, taps)
    inside = points >> before & ((1 << extent) - 1)
    return Fraction(inside.bit_count(), points.bit_count())
