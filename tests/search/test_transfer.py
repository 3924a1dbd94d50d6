"""A bound for some operands at home, carried over to others, never lies above the least of all nests there.

The least per set of operands at home and room comes from the enumeration of `test_joint`.
"""

from __future__ import annotations

import itertools
import math
import random

import pytest

from hwsim.pricing.stages import effective_layer, fuse
from hwsim.search.joint.transfer import Transfers
from hwsim.search.objective import Objective
from hwsim.search.space.problem import Problem
from tests.search.test_joint import Point, machine_of, network_of, points_of

PLACE: dict[Objective, int] = {"energy": 1, "latency": 2}


def least(points: list[Point], room: float, objective: Objective) -> float:
    """The least energy or time among nests that take at most a room; infinite without any."""
    return min((point[PLACE[objective]] for point in points if point[0] <= room), default=math.inf)


def carried(seed: int) -> tuple[int, int]:
    """(bounds carried over, those above zero); asserts that none is above the least."""
    rng = random.Random(seed)
    machine, workload = machine_of(rng), network_of(rng)
    size = machine.memories[1].size_bits or 0
    known = useful = 0
    for stage in fuse(workload, machine.capabilities):
        if not stage.layer.has_macs:
            continue
        layer = effective_layer(stage)
        patterns = {at_home: points for (at_home, *_), points in points_of(layer, machine, stage.fused, True).items()}
        rooms = sorted({size, *(taken for points in patterns.values() for taken, _, _ in points if taken <= size)})
        for objective in PLACE:
            for theirs, ours in itertools.product(patterns, repeat=2):
                for room in rooms:
                    transfers = Transfers(Problem(layer, machine, fused=stage.fused), objective)
                    transfers.learn(theirs, room, least(patterns[theirs], room, objective))
                    for mine in rooms:
                        bound = transfers.bound(ours, mine)
                        true = least(patterns[ours], mine, objective)
                        assert bound <= true * (1 + 1e-9), (seed, layer.name, objective, theirs, room, ours, mine)
                        known, useful = known + 1, useful + (bound > 0 and theirs != ours)
    return known, useful


@pytest.mark.parametrize("seed", range(6))
def test_a_bound_carried_to_other_homes_is_sound(seed: int) -> None:
    assert carried(seed)[0]


def test_bounds_are_carried_to_other_homes() -> None:
    assert sum(carried(seed)[1] for seed in range(2)) > 100
