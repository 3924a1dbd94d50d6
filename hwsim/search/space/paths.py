"""Paths through the lattice of tiles: what both searches return, and `write.py` turns into a nest."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.search.space.problem import Crossing


@dataclass(frozen=True)
class Event:
    """What happens at a point of the chain, `tile` being the temporal extent of every dim there.

    `hold`: (memory, operand) is kept from here inwards, in `segment`; None with `passes`: array `segment` is passed.
    """

    tile: tuple[int, ...]
    segment: int
    hold: Crossing | None = None
    passes: bool = False


@dataclass(frozen=True)
class Chain:
    """A path through the lattice, innermost event first, and its energy in pJ by the linear prices."""

    energy_pj: float
    events: tuple[Event, ...]
    extents: tuple[int, ...]  # padded temporal extents
    row: int


@dataclass(frozen=True)
class Step:
    """One action of a path, innermost first: a loop over `dim`, or a `crossing` settles, or `array` is passed.

    `leaves`: the crossing settles later; loops from here on, which its operand does not see, run outside its memory.
    """

    dim: int = -1
    factor: int = 1
    crossing: Crossing | None = None
    array: int = -1
    leaves: Crossing | None = None


@dataclass(frozen=True)
class CheapestPath:
    """The cheapest path of one unrolling, its objective by the linear prices; without steps that is only a bound."""

    value: float
    steps: tuple[Step, ...]
    nodes: int
