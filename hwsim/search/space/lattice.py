"""Tile sizes per dim as divisors, many unrollings at once, and the minimum over everything below a point.

A lattice has one axis per prime of every dim's temporal extent (28 = 2^2 * 7: axes of 3 and 2), so growing a tile by a
factor is a step along an axis and the minimum over all smaller tiles is one running minimum per axis. Lattices whose
extents have the same exponents share a shape, whatever their primes: they are solved together, one row each.
Imperfect factors are the divisors of a slightly larger extent (`paddings`): blocks are cut at the layer's bound.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from hwsim.nest.points import Ints

Costs = NDArray[np.float64]
Signature = tuple[tuple[int, ...], ...]
NUMBERS = 1024  # a range of numbers factorised one by one


@lru_cache(maxsize=65536)
def factorised(number: int) -> tuple[tuple[int, int], ...]:
    """(prime, exponent) pairs, highest exponent first, then smallest prime."""
    found: list[tuple[int, int]] = []
    prime = 2
    rest = number
    while prime * prime <= rest:
        exponent = 0
        while rest % prime == 0:
            rest //= prime
            exponent += 1
        if exponent:
            found.append((prime, exponent))
        prime += 1
    if rest > 1:
        found.append((rest, 1))
    return tuple(sorted(found, key=lambda pair: (-pair[1], pair[0])))


@lru_cache(maxsize=65536)
def divisors(number: int) -> tuple[int, ...]:
    """All divisors, ascending."""
    return tuple(sorted(divisor_table(number)))


@lru_cache(maxsize=65536)
def signature(number: int) -> tuple[int, ...]:
    """Exponents of the number's primes, descending."""
    return tuple(exponent for _, exponent in factorised(number))


@lru_cache(maxsize=65536)
def divisor_table(number: int, exponents: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """All divisors in the order of the lattice: exponents count up, the last prime fastest; the last is the number.

    With more room in `exponents` than the number has primes the largest powers repeat: same tiles, met twice.
    """
    primes = factorised(number)
    room = signature(number) if exponents is None else exponents
    powers: list[list[int]] = []
    for i, length in enumerate(room):
        prime, exponent = primes[i] if i < len(primes) else (1, 0)
        powers.append([prime ** min(e, exponent) for e in range(length + 1)])
    return tuple(math.prod(choice) for choice in itertools.product(*powers))


def joined(left: Signature, right: Signature) -> Signature:
    """The smallest shape that has room for both."""
    return tuple(
        tuple(max(pair) for pair in itertools.zip_longest(a, b, fillvalue=0)) for a, b in zip(left, right, strict=True)
    )


def points_of(shape: Signature) -> int:
    """Points of a lattice of this shape."""
    return math.prod(e + 1 for exponents in shape for e in exponents)


def clustered(extents: Ints, waste: float, max_values: int) -> list[tuple[list[int], Signature]]:
    """Rows of extents grouped into shared shapes: (rows, shape), at most `waste` times the points that rows need.

    Fewer, larger groups cost less per call; `max_values` bounds rows times points of a group.
    """
    shapes: dict[Signature, list[int]] = {}
    for row, values in enumerate(extents.tolist()):
        shapes.setdefault(tuple(signature(value) for value in values), []).append(row)
    groups: list[tuple[list[int], Signature]] = []
    needed: list[int] = []
    for shape, rows in sorted(shapes.items(), key=lambda item: (-points_of(item[0]), item[0])):
        need = points_of(shape) * len(rows)
        best, best_cost = -1, 0
        for i, (members, group) in enumerate(groups):
            size = points_of(joined(group, shape)) * (len(members) + len(rows))
            if size <= max_values and size <= waste * (needed[i] + need):
                added = size - points_of(group) * len(members)
                if best < 0 or added < best_cost:
                    best, best_cost = i, added
        if best < 0:
            groups.append((list(rows), shape))
            needed.append(need)
        else:
            groups[best] = ([*groups[best][0], *rows], joined(groups[best][1], shape))
            needed[best] += need
    return groups


@lru_cache(maxsize=65536)
def paddings(extent: int, imperfect: bool) -> tuple[int, ...]:
    """Extents whose divisors are declared tile sizes for a dim of `extent`, its own first.

    Imperfect: also the number up to an eighth larger with most divisors, where it has more. Of long ranges
    multiples of a power of two are looked at, at most NUMBERS.
    """
    if not imperfect or extent <= 3:
        return (extent,)
    own = len(divisor_table(extent))
    limit = extent + max(1, extent // 8)
    step = 1 << max(0, -(-(limit - extent) // NUMBERS) - 1).bit_length()
    first = -(-(extent + 1) // step) * step
    best = max(range(first, limit + 1, step), key=lambda n: (len(divisor_table(n)), -n))
    return (extent, best) if len(divisor_table(best)) > own else (extent,)


@dataclass(frozen=True)
class Lattices:
    """Rows of lattices of one shape: `extents[row][dim]` all fit into the exponents per dim."""

    extents: Ints
    signatures: Signature

    @cached_property
    def sizes(self) -> list[Ints]:
        """Per dim an array (rows, sizes)."""
        return [
            np.array([divisor_table(extent, exponents) for extent in column], dtype=np.int64)
            for column, exponents in zip(self.extents.T.tolist(), self.signatures, strict=True)
        ]

    @cached_property
    def dim_lengths(self) -> tuple[int, ...]:
        """Sizes per dim."""
        return tuple(math.prod(e + 1 for e in exponents) for exponents in self.signatures)

    @cached_property
    def points(self) -> int:
        """Points of one lattice."""
        return math.prod(self.dim_lengths)

    @cached_property
    def prime_shape(self) -> tuple[int, ...]:
        """One length per prime of every dim."""
        return tuple(e + 1 for exponents in self.signatures for e in exponents)

    @cached_property
    def prime_axes(self) -> tuple[tuple[int, ...], ...]:
        """Per dim the positions in `prime_shape` of its primes."""
        ends = [0, *itertools.accumulate(len(exponents) for exponents in self.signatures)]
        return tuple(tuple(range(first, end)) for first, end in itertools.pairwise(ends))

    def below(self, costs: Costs, dims: Sequence[int]) -> Costs:
        """Least cost over all points that can grow to each point along `dims`. (rows, *dim_lengths), a new array."""
        rows = costs.shape[0]
        result = np.array(costs).reshape(rows, *self.prime_shape)
        for dim in sorted(dims):
            for axis in self.prime_axes[dim]:
                running_minimum(result, axis + 1)
        return result.reshape(costs.shape)

    def grows(self, dim: int, inner: int, outer: int) -> bool:
        """Whether a size of a dim can grow to another one (by index)."""
        return inner in sizes_below(outer, self.signatures[dim])

    def predecessors(self, point: Sequence[int], dims: Sequence[int]) -> tuple[NDArray[np.intp], ...]:
        """Open mesh of the indices of all points that can grow to `point` along `dims`."""
        choices: list[list[int]] = []
        for dim, (index, exponents) in enumerate(zip(point, self.signatures, strict=True)):
            choices.append(sizes_below(index, exponents) if dim in dims else [index])
        return np.ix_(*choices)


@lru_cache(maxsize=65536)
def sizes_below(index: int, exponents: tuple[int, ...]) -> list[int]:
    """Indices of the sizes that can grow to one of `divisor_table`, in its order."""
    lengths = tuple(e + 1 for e in exponents)
    if not lengths:
        return [index]
    below = itertools.product(*(range(int(i) + 1) for i in np.unravel_index(index, lengths)))
    return [int(np.ravel_multi_index(b, lengths)) for b in below]


def running_minimum(values: Costs, axis: int) -> None:
    """In place: every entry becomes the least of those up to it along the axis."""
    shape = values.shape
    view = values.reshape(math.prod(shape[:axis]), shape[axis], -1)
    for i in range(1, shape[axis]):
        np.minimum(view[:, i], view[:, i - 1], out=view[:, i])
