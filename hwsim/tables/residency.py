"""Which tensors stay on chip, for many bit assignments at once: `stages.choose_resident` on arrays.

The same dynamic programme over the order of execution, its states (sets of tensors alive) shared by all assignments,
its values (energy saved, tensors kept) an array over them, ties broken alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsim.pricing.residents import Stay, choose_resident

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
FEW_STATES = 64  # beyond that many sets of live tensors, assignments are solved one by one


@dataclass(frozen=True)
class Stays:
    """A tensor that could stay, under every assignment: when, its bits, what it would save; `may`: where it qualifies.

    Arrays are over assignments.
    """

    name: str
    born: int
    last: int
    bits: Ints
    saving_pj: Floats
    may: Bools


@dataclass(frozen=True)
class Held:
    """A tile in the activation memory at one stage, replaced by the tensor of that name where it stays."""

    name: str
    bits: Ints


def choose(stays: Sequence[Stays], tiles: Sequence[Sequence[Held]], capacity_bits: int, count: int) -> Bools:
    """[assignment, tensor]: whether each of `stays` is kept."""
    candidates = [(place, s, s.may & (s.saving_pj > 0) & (s.bits <= capacity_bits)) for place, s in enumerate(stays)]
    candidates = [(place, s, may) for place, s, may in candidates if may.any()]
    if most_alive(candidates, len(tiles)) > FEW_STATES:
        return one_by_one(stays, tiles, capacity_bits, count)
    by_name = sorted(range(len(stays)), key=lambda place: stays[place].name)
    # live set -> (energy saved, -inf where impossible; everything kept so far)
    empty: frozenset[int] = frozenset()
    states: dict[frozenset[int], tuple[Floats, Bools]] = {
        empty: (np.zeros(count), np.zeros((count, len(stays)), dtype=bool))
    }
    for index, held in enumerate(tiles):
        for place, stay, may in candidates:
            if max(stay.born, 0) == index:
                for live, (saved, kept) in list(states.items()):
                    more = kept.copy()
                    more[:, place] = True
                    states[live | {place}] = (np.where(may, saved + stay.saving_pj, -np.inf), more)
        following: dict[frozenset[int], tuple[Floats, Bools]] = {}
        for live, (saved, kept) in states.items():
            if live:
                names = {stays[place].name for place in live}
                total = sum((stays[place].bits for place in live), np.zeros(count, dtype=np.int64))
                total = sum((tile.bits for tile in held if tile.name not in names), total)
                saved = np.where(total <= capacity_bits, saved, -np.inf)
            later = frozenset(place for place in live if stays[place].last > index)
            if later not in following:
                following[later] = (saved, kept)
            else:
                before, before_kept = following[later]
                better = preferred(saved, kept, before, before_kept, by_name)
                following[later] = (
                    np.where(better, saved, before), np.where(better[:, None], kept, before_kept)
                )  # fmt: skip
        states = following
    best, chosen = states.get(empty, (np.full(count, -np.inf), np.zeros((count, len(stays)), dtype=bool)))
    for live, (saved, kept) in states.items():
        if live:
            better = preferred(saved, kept, best, chosen, by_name)
            best, chosen = np.where(better, saved, best), np.where(better[:, None], kept, chosen)
    return chosen


def preferred(saved: Floats, kept: Bools, before: Floats, before_kept: Bools, by_name: Sequence[int]) -> Bools:
    """`stages.preferred` on arrays: which rows save more, or equally much and keep the first name they differ in."""
    better = saved > before
    ties = np.flatnonzero((saved == before) & np.isfinite(saved))
    if len(ties):
        mine = kept[ties][:, by_name]
        differs = mine != before_kept[ties][:, by_name]
        first = differs.argmax(axis=1)
        better[ties] = differs.any(axis=1) & mine[np.arange(len(ties)), first]
    return better


def most_alive(candidates: Sequence[tuple[int, Stays, Bools]], stages: int) -> int:
    """Most sets of live tensors that the programme would follow at once."""
    alive = [sum(max(s.born, 0) <= index <= s.last for _, s, _ in candidates) for index in range(stages)]
    return 2 ** max(alive, default=0)


def one_by_one(stays: Sequence[Stays], tiles: Sequence[Sequence[Held]], capacity_bits: int, count: int) -> Bools:
    """`choose` by the scalar programme, which follows the best of too many sets."""
    chosen = np.zeros((count, len(stays)), dtype=bool)
    places = {s.name: place for place, s in enumerate(stays)}
    for row in range(count):
        mine = [Stay(s.name, s.born, s.last, int(s.bits[row]), float(s.saving_pj[row])) for s in stays if s.may[row]]
        held: list[dict[str, int]] = []
        for stage in tiles:
            bits: dict[str, int] = {}
            for tile in stage:
                bits[tile.name] = bits.get(tile.name, 0) + int(tile.bits[row])
            held.append(bits)
        for name in choose_resident(mine, held, capacity_bits):
            chosen[row, places[name]] = True
    return chosen
