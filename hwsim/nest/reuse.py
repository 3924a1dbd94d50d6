"""One-dimensional reuse: what a rank of a tile needs, and keeps, when a loop of the nest advances.

Loops above a tile are enumerated (time outside the advancing loop, array elements counted apart), start anew (time
inside it), or are united (array elements served by one access). A `Profile` sums, over all enumerated positions, the
points needed and those of them that were there before; counts.py multiplies the ranks. Positions are grouped by what
is left of the layer's bound, so that perfect factors make one group. Equations: docs/counting.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from hwsim.nest.points import lattice

Role = Literal["time", "apart", "united"]


class Line(NamedTuple):
    """One loop as a rank sees it; `term`: which variable of a two-variable rank it drives."""

    factor: int
    step: int
    role: Role
    term: int = 0


@dataclass(frozen=True)
class Profile:
    """(needed, kept) points of one rank, summed over positions, for every loop of the nest that may advance.

    `wrap[i]`: a loop of another rank advances; i temporal loops of this rank are outside it, the others start anew.
    `advance[i]`: this rank's own i-th temporal loop advances.
    """

    wrap: Sequence[tuple[int, int]]
    advance: Sequence[tuple[int, int]]


# --- positions ------------------------------------------------------------------------------------------------------


def positions(bound: int, loops: Sequence[tuple[int, int]]) -> int:
    """How many index combinations of `loops` (factor, step) begin inside `bound`."""
    return sum(spread({bound: 1}, loops, 1).values())


def spread(found: dict[int, int], loops: Sequence[tuple[int, int]], enough: int) -> dict[int, int]:
    """Positions as {what is left of the bound there: how many}, refined by the indices of further loops.

    Positions with at least `enough` left need not be told apart: what is left is cut there.
    """
    span = sum((factor - 1) * step for factor, step in loops)
    for factor, step in loops or ((1, 1),):
        span = max(0, span - (factor - 1) * step)
        limit = enough + span
        refined: dict[int, int] = {}
        for left, many in found.items():
            alike = min(factor, (left - limit) // step + 1) if left >= limit else 0
            if alike:
                refined[limit] = refined.get(limit, 0) + many * alike
            for index in range(alike, min(factor, -(-left // step))):
                rest = left - index * step
                refined[rest] = refined.get(rest, 0) + many
        found = refined
    return found


def is_perfect(bound: int, tile: int, lines: Sequence[Line]) -> bool:
    """Whether the factors of one dim multiply to its bound exactly: no remainders anywhere."""
    return tile * math.prod(line.factor for line in lines) == bound


def pairs(lines: Sequence[Line]) -> list[tuple[int, int]]:
    """(factor, step) of lines."""
    return [(line.factor, line.step) for line in lines]


# --- ranks of one variable, and loops an operand does not depend on ---------------------------------------------------


def even_profile(block: int, times: Sequence[int], moves: bool) -> Profile:
    """Perfect factors: `block` points for all array elements together, the same at every position.

    moves: blocks of the rank lie side by side, so nothing is kept unless all loops that start anew are trivial.
    Otherwise the loops do not index the operand and everything is kept.
    """
    wrap: list[tuple[int, int]] = []
    advance: list[tuple[int, int]] = []
    needed = block
    for index in range(len(times) + 1):
        inner = math.prod(times[index:]) if moves else 1
        wrap.append((needed, needed * (inner == 1)))
        if index < len(times):
            ahead = needed * (times[index] - 1)
            advance.append((ahead, 0 if moves else ahead))
            needed = needed * times[index]
    return Profile(wrap, advance)


@lru_cache(maxsize=1 << 16)
def visits(bound: int, tile: int, lines: tuple[Line, ...]) -> Profile:
    """Loops that do not index the operand: how often a tile is looked at, kept entirely.

    Of united array elements the first works whenever any does, so it stands for all.
    """
    times = [line for line in lines if line.role == "time"]
    apart = [line for line in lines if line.role == "apart"]
    if is_perfect(bound, tile, lines):
        return even_profile(math.prod(line.factor for line in apart), [line.factor for line in times], False)
    wrap = [positions(bound, pairs([*times[:index], *apart])) for index in range(len(times) + 1)]
    advance = [
        positions(bound - line.step, [*pairs([*times[:index], *apart]), (line.factor - 1, line.step)])
        for index, line in enumerate(times)
    ]
    return Profile([(n, n) for n in wrap], [(n, n) for n in advance])


@lru_cache(maxsize=1 << 16)
def blocks(bound: int, tile: int, lines: tuple[Line, ...], gates: tuple[int, ...]) -> Profile:
    """A rank of one variable: its blocks lie side by side, so a tile is kept whole or not at all.

    `gates`: for the tile itself, and for outputs also for the tiles above it, how many of `lines` are above: a sum is
    kept only if none of these tiles moves on, even while the array element in question has no work.
    """
    times = [line for line in lines if line.role == "time"]
    space = [line for line in lines if line.role != "time"]
    if is_perfect(bound, tile, lines):
        width = tile * math.prod(line.factor for line in space)
        return even_profile(width, [line.factor for line in times], True)
    wrap = [
        (size(spread({bound: 1}, pairs([*times[:i], *space]), tile), tile), kept_blocks(bound, tile, lines, gates, i))
        for i in range(len(times) + 1)
    ]
    advance: list[tuple[int, int]] = []
    for index, line in enumerate(times):
        loops = [*pairs([*times[:index], *space]), (line.factor - 1, line.step)]
        advance.append((size(spread({bound - line.step: 1}, loops, tile), tile), 0))
    return Profile(wrap, advance)


def size(found: dict[int, int], tile: int) -> int:
    """Points of the blocks that begin at these positions."""
    return sum(min(tile, left) * many for left, many in found.items())


def kept_blocks(bound: int, tile: int, lines: Sequence[Line], gates: Sequence[int], outside: int) -> int:
    """Points of the blocks for which no inner temporal loop reaches its second iteration, at any gate."""
    times = [line for line in lines if line.role == "time"]
    inner = times[outside:]
    thresholds = [min((line.step for line in lines[:gate] if line in inner), default=0) for gate in gates]
    enough = max(tile, *thresholds) + 1
    later = sum((line.factor - 1) * line.step for line in lines if line.role != "time")
    found = spread({bound: 1}, pairs(times[:outside]), enough + later)
    passed = 0
    for gate, threshold in sorted(zip(gates, thresholds, strict=True)):
        segment = [line for line in lines[passed:gate] if line.role != "time"]
        later -= sum((line.factor - 1) * line.step for line in segment)
        found = spread(found, pairs(segment), enough + later)
        if threshold:
            found = {left: many for left, many in found.items() if left <= threshold}
        passed = gate
    return size(found, tile)


# --- ranks of two variables (input rows and columns) ----------------------------------------------------------------


class Block(NamedTuple):
    """Where one united array element's tile begins and how long it is, now and before the loop advanced."""

    start: int
    length: int
    start_before: int
    length_before: int


class Side(NamedTuple):
    """One variable of a rank: bound, coefficient in the index, extent of the tile."""

    bound: int
    coefficient: int
    tile: int


@lru_cache(maxsize=1 << 16)
def crossing(first: Side, second: Side, lines: tuple[Line, ...]) -> Profile:
    """A rank of two variables, index = a*i + b*j: tiles overlap and have holes, so points are told one by one."""
    times = [line for line in lines if line.role == "time"]
    wrap: list[tuple[int, int]] = []
    advance: list[tuple[int, int]] = []
    for index in range(len(times) + 1):
        outside = tuple(line for line in lines if line.role == "apart" or line in times[:index])
        united = tuple(line for line in lines if line.role == "united")
        inner = tuple(times[index:])
        wrap.append(crossing_sum(first, second, outside, inner, united, None))
        if index < len(times):
            trivial = inner[0].factor == 1  # never advances
            advance.append((0, 0) if trivial else crossing_sum(first, second, outside, inner[1:], united, inner[0]))
    return Profile(wrap, advance)


def crossing_sum(
    first: Side,
    second: Side,
    outside: tuple[Line, ...],
    inner: tuple[Line, ...],
    united: tuple[Line, ...],
    ahead: Line | None,
) -> tuple[int, int]:
    """(needed, kept) for one advancing loop, summed over the groups of positions of both variables."""
    needed = kept = 0
    groups = [
        side_groups(
            side.bound,
            side.tile,
            of_term(outside, term),
            of_term(inner, term),
            of_term(united, term),
            (ahead.factor, ahead.step) if ahead is not None and ahead.term == term else None,
        )
        for term, side in enumerate((first, second))
    ]
    for many, mine in groups[0]:
        for other_many, other in groups[1]:
            points, stay = overlap(first.coefficient, second.coefficient, mine, other)
            needed += many * other_many * points
            kept += many * other_many * stay
    return needed, kept


def of_term(lines: tuple[Line, ...], term: int) -> tuple[tuple[int, int], ...]:
    """(factor, step) of the lines of one variable that iterate at all."""
    return tuple((line.factor, line.step) for line in lines if line.term == term and line.factor > 1)


Steps = tuple[tuple[int, int], ...]


@lru_cache(maxsize=1 << 16)
def side_groups(
    bound: int, tile: int, outside: Steps, inner: Steps, united: Steps, ahead: tuple[int, int] | None
) -> tuple[tuple[int, tuple[Block, ...]], ...]:
    """Groups of positions of one variable: (how many, the blocks of all united array elements that have work)."""
    enough = tile + sum((factor - 1) * step for factor, step in (*inner, *united))
    back = 0
    if ahead is not None:
        back = ahead[1]
        outside = (*outside, (ahead[0] - 1, back))
    offsets = [0]
    for factor, step in united:
        offsets = [offset + index * step for offset in offsets for index in range(factor)]
    groups: list[tuple[int, tuple[Block, ...]]] = []
    for left, many in spread({bound - back: 1}, outside, enough).items():
        found: list[Block] = []
        for offset in offsets:
            room = left - offset
            if room > 0:
                before = last(inner, room + back)
                found.append(Block(offset, min(tile, room), offset - back + before, min(tile, room + back - before)))
        groups.append((many, tuple(found)))
    return tuple(groups)


def last(inner: Steps, room: int) -> int:
    """Offset of the last iteration of these loops that begins within `room`."""
    offset = 0
    for factor, step in inner:
        offset += min(factor - 1, (room - 1 - offset) // step) * step
    return offset


@lru_cache(maxsize=1 << 16)
def overlap(a: int, b: int, mine: tuple[Block, ...], other: tuple[Block, ...]) -> tuple[int, int]:
    """(points needed by any element, of these the ones that nobody newly needs), index = a*i + b*j.

    Point sets are integers with one bit per index. Every pair of blocks is one array element.
    """
    shift = max(0, -min(a * i.start_before + b * j.start_before for i in mine for j in other))
    now = new = 0
    for i in mine:
        for j in other:
            here = lattice(a, i.length, b, j.length) << (a * i.start + b * j.start + shift)
            before = lattice(a, i.length_before, b, j.length_before)
            before <<= a * i.start_before + b * j.start_before + shift
            now |= here
            new |= here & ~before
    points = now.bit_count()
    return points, points - new.bit_count()
