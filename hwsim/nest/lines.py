"""Depth-first groups along one axis: which lines of every map are made in each step, and which are kept.

The last map of a group is made in blocks of lines (rows, or columns). `sliding` makes every line of the others once
and keeps those that a later step reads; `recomputed` makes for each block all lines it needs, halos anew. Lines kept
are what a line buffer holds while a step runs: everything made in it, and what it or a later step still reads.
Windows of a convolution on rows make `Read(reader, source, stride, (R - 1) * dilation + 1, padding)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hwsim.nest.points import Ints

NEVER = np.iinfo(np.int64).max // 4


@dataclass(frozen=True)
class Map:
    """One map along the axis: its lines, those of a border stored around them, whether it is needed after the group."""

    size: int
    before: int = 0
    after: int = 0
    leaves: bool = False


@dataclass(frozen=True)
class Read:
    """Line y of map `reader` reads lines y * stride - padding and `reach` - 1 further ones of map `source`."""

    reader: int
    source: int
    stride: int = 1
    reach: int = 1
    padding: int = 0


@dataclass(frozen=True)
class Lines:
    """A group along one axis: maps in the order they are made (inputs first), and who reads whom.

    The last map is cut into blocks; every other one is read by a later one.
    """

    maps: tuple[Map, ...]
    reads: tuple[Read, ...]

    def __post_init__(self) -> None:
        assert all(read.source < read.reader for read in self.reads)
        assert {read.source for read in self.reads} == set(range(len(self.maps) - 1)), "a map that nobody reads"

    def readers(self, source: int) -> Iterator[Read]:
        """Who reads a map."""
        return (read for read in self.reads if read.source == source)


@dataclass(frozen=True)
class Walk:
    """Lines per step and map, [step, map]. `fresh`: made for the first time; the others are made again."""

    made: Ints
    kept: Ints
    fresh: Ints

    @property
    def steps(self) -> int:
        """How many blocks the last map has."""
        return len(self.made)


def sliding(lines: Lines, block: int) -> Walk:
    """No line is made twice: e = min(H, (e' - 1) * stride - padding + reach) lines stand after a step, e' the reader's.

    Kept are lines from min over readers of e'(step before) * stride - padding up to e.
    """
    last, count = len(lines.maps) - 1, -(-lines.maps[-1].size // block)
    ends = np.zeros((count, len(lines.maps)), np.int64)
    ends[:, last] = np.minimum(np.arange(1, count + 1) * block, lines.maps[last].size)
    for index in reversed(range(last)):
        here = lines.maps[index]
        ends[:, index] = -here.before
        for read in lines.readers(index):
            ends[:, index] = np.maximum(ends[:, index], reached(ends, read, lines))
        if here.leaves:
            ends[-1, index] = max(ends[-1, index], here.size)
        ends[:, index] = np.maximum.accumulate(ends[:, index])
    begun = np.array([[-here.before for here in lines.maps]])
    before = np.concatenate([begun, ends[:-1]])
    needed = np.stack([first_needed(before, ends, index, lines) for index in range(last + 1)], axis=1)
    made = real(ends, lines) - real(before, lines)
    return Walk(made, ends - np.minimum(needed, before), made)


def reached(ends: Ints, read: Read, lines: Lines) -> Ints:
    """Lines of the source that must stand for the reader's to stand, per step."""
    source, reader = lines.maps[read.source], lines.maps[read.reader]
    made = np.clip(ends[:, read.reader], 0, reader.size)
    most = (made - 1) * read.stride - read.padding + read.reach
    return np.where(made > 0, np.clip(most, -source.before, source.size + source.after), -source.before)


def first_needed(before: Ints, ends: Ints, index: int, lines: Lines) -> Ints:
    """The first line of a map that its readers still read, per step; NEVER once all have done."""
    needed = np.full(len(ends), NEVER, np.int64)
    for read in lines.readers(index):
        made = np.clip(before[:, read.reader], 0, lines.maps[read.reader].size)
        done = made >= min(ends[-1, read.reader], lines.maps[read.reader].size)
        first = np.maximum(-lines.maps[index].before, made * read.stride - read.padding)
        needed = np.minimum(needed, np.where(done, NEVER, first))
    return needed


def recomputed(lines: Lines, block: int) -> Walk:
    """Every block by itself: lines from lo' * stride - padding to (hi' - 1) * stride - padding + reach, all made anew.

    A map that leaves is made without gaps, whether or not the blocks read all of it.
    """
    last, count = len(lines.maps) - 1, -(-lines.maps[-1].size // block)
    low, high = np.zeros((count, last + 1), np.int64), np.zeros((count, last + 1), np.int64)
    low[:, last] = np.arange(count) * block
    high[:, last] = np.minimum(low[:, last] + block, lines.maps[last].size)
    for index in reversed(range(last)):
        here = lines.maps[index]
        low[:, index], high[:, index] = NEVER, -here.before
        for read in lines.readers(index):
            first, end = window(low, high, read, lines)
            low[:, index], high[:, index] = np.minimum(low[:, index], first), np.maximum(high[:, index], end)
        if here.leaves:
            high[-1, index] = max(high[-1, index], here.size)
            covered = np.concatenate([[0], np.maximum.accumulate(high[:-1, index])])
            low[:, index] = np.minimum(low[:, index], covered)
        low[:, index] = np.minimum(low[:, index], high[:, index])
    made = real(high, lines) - real(low, lines)
    seen = np.concatenate([np.zeros((1, last + 1), np.int64), np.maximum.accumulate(real(high, lines))[:-1]])
    fresh = np.maximum(0, real(high, lines) - np.maximum(seen, real(low, lines)))
    return Walk(made, high - low, fresh)


def window(low: Ints, high: Ints, read: Read, lines: Lines) -> tuple[Ints, Ints]:
    """First line and end of what a reader's block reads; an empty block reads nothing."""
    source, size = lines.maps[read.source], lines.maps[read.reader].size
    mine, end = np.clip(low[:, read.reader], 0, size), np.clip(high[:, read.reader], 0, size)
    first = np.clip(mine * read.stride - read.padding, -source.before, source.size + source.after)
    most = (end - 1) * read.stride - read.padding + read.reach
    stop = np.clip(most, -source.before, source.size + source.after)
    empty = end <= mine
    return np.where(empty, NEVER, first), np.where(empty, -source.before, stop)


def real(ends: Ints, lines: Lines) -> Ints:
    """Ends with the border cut off."""
    return np.clip(ends, 0, np.array([here.size for here in lines.maps]))
