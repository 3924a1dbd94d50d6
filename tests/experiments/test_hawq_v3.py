"""HAWQ-V3's published inputs: our programme is exact on them, and meets every published point on all its figures."""

from __future__ import annotations

import itertools

import numpy as np

from experiments import hawq_v3
from hwsim.explore.bits.allocate import Solver


def test_uniform_networks_are_the_published_ones() -> None:
    problem = hawq_v3.problem()
    low, high = problem.solution([0] * 19).values, problem.solution([1] * 19).values
    assert (round(low["size_mb"], 1), round(high["size_mb"], 1)) == (5.8, 11.1)
    assert (int(low["bops_1e9"]), round(high["bops_1e9"])) == (34, 116)
    assert (round(hawq_v3.speed_up(low["time_share"]), 2), round(hawq_v3.speed_up(high["time_share"]), 2)) == (
        4.44,
        3.0,
    )


def test_every_published_point_is_met_on_all_its_figures_at_the_least_loss_there_is() -> None:
    problem = hawq_v3.problem()
    solver = Solver(problem)
    every = np.array(list(itertools.product((0, 1), repeat=10)), dtype=np.int8)
    every = np.concatenate([np.hstack([np.tile(row, (512, 1)), every[:512, 1:]]) for row in every])
    values = problem.evaluate(every)
    assert len(every) == 2**19
    for number, published in enumerate(hawq_v3.PUBLISHED):
        budgets = published.figures
        found = solver.best("loss", budgets).values
        if number % 4 == 0:  # a size, a BOPS and a latency limit, against all 2^19 networks
            inside = np.all([values[name] <= limit for name, limit in budgets.items()], axis=0)
            assert abs(found["loss"] - values["loss"][inside].min()) < 1e-12
        assert found["size_mb"] <= published.size_mb + 0.05
        assert found["bops_1e9"] <= published.bops_1e9 + 0.5
        assert hawq_v3.speed_up(found["time_share"]) >= published.speed_up - 0.0051
