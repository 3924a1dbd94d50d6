"""Rules that a schedule keeps: loop orders and factors per level, tiles, what is kept, how much of an array works.

A `Rule` speaks of one level of a machine. Of an array its loops in time are those inside it (and outside the next one),
of a memory those for which it is the innermost one around, outside the arrays below it. Where an array and memories
inside it both have rules for loops, the array's is for the loops that are in none of these. nest/ruled.py says whether
a nest keeps rules, machine/rules_file.py reads them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

from hwsim.files.identity import PLACE


@dataclass(frozen=True)
class Limit:
    """How often loops of a dim run in all: exactly `most` times, at most so often, or (None) all that is left.

    Exactly n means min(n, what is left): a rule of 64 channels holds for a layer of three.
    """

    most: int | None
    exact: bool = True

    def allows(self, factor: int, left: int) -> bool:
        """Whether `factor` iterations are right where `left` would finish the dim."""
        if self.most is None:
            return factor >= left
        return factor == min(self.most, left) if self.exact else factor <= self.most

    def unrolls(self, factor: int, bound: int, size: int) -> bool:
        """The same of array elements side by side: exactly n asks for the steps of n elements, not for idle ones."""
        most = min(size if self.most is None else self.most, bound, size)
        return factor <= most and (not (self.exact or self.most is None) or -(-bound // factor) == -(-bound // most))

    def spans(self, extent: int, bound: int) -> bool:
        """The same of the extent of a tile in a layer of so many iterations."""
        return self.allows(extent, bound)

    def __str__(self) -> str:
        return "all" if self.most is None else str(self.most) if self.exact else f"<={self.most}"


Limits = tuple[tuple[str, Limit], ...]  # by dim
REST = "rest"  # in an order: all loops that it does not name, in any order among them


@dataclass(frozen=True)
class Rule:
    """What the schedule of one level keeps. `places`: where its keys are written (file:line: key), by key.

    `order`: loops, the fastest first, with or without `rest`. `factors`: iterations in time. Arrays: `unroll` by axis,
    `min_use` of elements. Memories: operands it has to hold (`keep`) or may not (`bypass`), and extents of its tiles
    (`tile`).
    """

    level: str
    order: tuple[str, ...] = ()
    factors: Limits = ()
    unroll: tuple[tuple[str, Limits], ...] = ()
    min_use: float = 0.0
    keep: tuple[str, ...] = ()
    bypass: tuple[str, ...] = ()
    tile: Limits = ()
    places: tuple[tuple[str, str], ...] = field(default=(), metadata=PLACE)

    @property
    def has_loops(self) -> bool:
        """Whether it speaks of loops in time."""
        return bool(self.order or self.factors)

    def turn(self, dim: str) -> int | None:
        """The place of a loop in the order; None where it may run at any."""
        named = dim if dim in self.order else REST
        return self.order.index(named) if named in self.order else None

    def place(self, key: str) -> str:
        """Where a key is written, as messages begin."""
        return dict(self.places).get(key, f"{self.level}.{key}")

    def single(self) -> Iterator[tuple[str, Rule]]:
        """(key, rule that says this one thing alone)."""
        nothing = Rule(self.level, places=self.places)
        for key in ("order", "min_use", "keep", "bypass"):
            if getattr(self, key):
                yield key, dataclasses.replace(nothing, **{key: getattr(self, key)})
        for key in ("factors", "tile"):
            for dim, limit in getattr(self, key):
                yield f"{key}.{dim}", dataclasses.replace(nothing, **{key: ((dim, limit),)})
        for axis, limits in self.unroll:
            for dim, limit in limits:
                yield f"unroll.{axis}.{dim}", dataclasses.replace(nothing, unroll=((axis, ((dim, limit),)),))


Rules = tuple[Rule, ...]


def anonymous(rules: Rules) -> Rules:
    """The rules whatever file they stand in."""
    return tuple(dataclasses.replace(rule, places=()) for rule in rules)
