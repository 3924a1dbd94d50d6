"""Least costs over a lattice: by the C kernel, and in numpy where there is none. Both give the same bits."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence

import numpy as np

from hwsim.search.proof.native import DIMS, compiled
from hwsim.search.space.lattice import Costs, Lattices

Numbers = ctypes.Array[ctypes.c_int64]


def below(lattices: Lattices, costs: Costs, dims: Sequence[int]) -> Costs:
    """`Lattices.below`."""
    library = compiled()
    if library is None:
        return lattices.below(costs, dims)
    found = np.array(costs, order="C")
    axes = tuple(axis for dim in dims for axis in lattices.prime_axes[dim])
    library.mapper_below(found.ctypes.data, *lines((len(costs), *lattices.prime_shape), axes))
    return found


@functools.lru_cache(maxsize=4096)
def lines(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, Numbers, Numbers, Numbers]:
    """How many axes are longer than one; of each its blocks, its length and the entries of a line.

    `shape` begins with the rows, which `axes` do not count.
    """
    some = [axis + 1 for axis in axes if shape[axis + 1] > 1]
    outer = [math.prod(shape[:axis]) for axis in some]
    inner = [math.prod(shape[axis + 1 :]) for axis in some]
    return len(some), numbers(outer), numbers([shape[axis] for axis in some]), numbers(inner)


@functools.lru_cache(maxsize=4096)
def walk(shape: tuple[int, ...], lengths: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, Numbers, Numbers]:
    """(axes, their lengths and the strides of what is spread over them); neighbours that are walked as one are one.

    `lengths` and `strides` (in entries) are of what is spread over the `shape`.
    """
    merged: list[tuple[int, int]] = []
    for length, own, stride in zip(shape, lengths, strides, strict=True):
        stride = stride if own > 1 else 0
        if merged and merged[-1][1] == stride * length:
            merged[-1] = merged[-1][0] * length, stride
        else:
            merged.append((length, stride))
    return len(merged), numbers([length for length, _ in merged]), numbers([stride for _, stride in merged])


def numbers(values: Sequence[int]) -> Numbers:
    """As the kernel reads them."""
    return (ctypes.c_int64 * len(values))(*values)


def arrived(known: Costs | None, moved: Costs, cost: Costs) -> Costs:
    """`moved + cost`, or the least of it and what is `known`, which is changed in place."""
    library = compiled()
    plain = all(array is None or array.flags.c_contiguous for array in (known, moved))
    if library is None or not plain or moved.ndim > DIMS + 1 or cost.ndim != moved.ndim or cost.dtype != moved.dtype:
        value = moved + cost
        return value if known is None else np.minimum(known, value, out=known)
    found = np.empty(moved.shape) if known is None else known
    ways = walk(moved.shape, cost.shape, tuple(step // cost.itemsize for step in cost.strides))
    library.mapper_arrive(found.ctypes.data, moved.ctypes.data, cost.ctypes.data, *ways, known is not None)
    return found
