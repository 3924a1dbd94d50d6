"""The one-dimensional pieces of counting, each against the obvious enumeration."""

from __future__ import annotations

import itertools
import random
from collections import Counter

from hwsim.nest.points import lattice, united_new
from hwsim.nest.reuse import Block, last, overlap, positions, spread


def offsets(loops: tuple[tuple[int, int], ...]) -> list[int]:
    """Start of every iteration of some (factor, step) loops."""
    return [
        sum(index * step for index, (_, step) in zip(indices, loops, strict=True))
        for indices in itertools.product(*(range(factor) for factor, _ in loops))
    ]


def random_loops(rng: random.Random) -> tuple[tuple[int, int], ...]:
    """Up to three loops of one dim with gaps between their steps, where loops of other nodes stand; outermost first."""
    step, found = rng.randint(1, 3), []
    for _ in range(rng.randint(0, 3)):
        factor = rng.randint(1, 4)
        found.append((factor, step))
        step *= factor * rng.randint(1, 2)
    return tuple(reversed(found))


def test_positions_are_those_inside_the_bound() -> None:
    rng = random.Random(1)
    for _ in range(500):
        loops, bound, enough = random_loops(rng), rng.randint(1, 60), rng.randint(1, 12)
        inside = [bound - offset for offset in offsets(loops) if offset < bound]
        assert positions(bound, loops) == len(inside)
        assert spread({bound: 1}, loops, enough) == Counter(min(left, enough) for left in inside)


def test_last_iteration_is_the_farthest_with_room() -> None:
    rng = random.Random(2)
    for _ in range(500):
        loops, room = random_loops(rng), rng.randint(1, 60)
        assert last(loops, room) == max(offset for offset in offsets(loops) if offset < room)


def test_lattice_is_the_point_set() -> None:
    for a, m, b, n in itertools.product(range(1, 4), range(1, 6), range(1, 4), range(1, 6)):
        points = {a * i + b * j for i in range(m) for j in range(n)}
        assert lattice(a, m, b, n) == sum(1 << x for x in points)


def test_overlap_counts_unions_of_sets() -> None:
    rng = random.Random(3)
    for _ in range(300):
        a, b = rng.randint(1, 3), rng.randint(1, 3)
        sides = [
            tuple(
                Block(rng.randint(0, 6), rng.randint(1, 4), rng.randint(-5, 6), rng.randint(1, 4))
                for _ in range(rng.randint(1, 3))
            )
            for _ in range(2)
        ]
        needed: set[int] = set()
        new: set[int] = set()
        for i, j in itertools.product(*sides):
            now = {a * (i.start + x) + b * (j.start + y) for x in range(i.length) for y in range(j.length)}
            before = {
                a * (i.start_before + x) + b * (j.start_before + y)
                for x in range(i.length_before)
                for y in range(j.length_before)
            }
            needed |= now
            new |= now - before
        assert overlap(a, b, *sides) == (len(needed), len(needed) - len(new))


def test_what_is_new_to_an_array_is_new_to_one_of_its_elements() -> None:
    rng = random.Random(3)
    for _ in range(300):
        a, b, x, y, many_x, many_y = (rng.randint(1, 4) for _ in range(6))
        tile = {a * i + b * j for i in range(x) for j in range(y)}
        places = [a * x * i + b * y * j for i in range(many_x) for j in range(many_y)]
        assert united_new(a, x, b, y, many_x, many_y, None) == len({p + at for at in places for p in tile})
        shift = rng.randint(1, 6)
        new = {p for p in tile if p + shift not in tile}
        assert united_new(a, x, b, y, many_x, many_y, shift) == len({p + at for at in places for p in new})
