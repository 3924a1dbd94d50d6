"""Least costs over lattices in C are those of numpy, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim.machine.load import load_accelerator
from hwsim.network.bits import assign_bits
from hwsim.network.zoo import shipped
from hwsim.pricing.stages import effective_workload
from hwsim.search.proof import native
from hwsim.search.quick import minima
from hwsim.search.quick.candidates import Effort, ranked
from hwsim.search.quick.minima import arrived, below
from hwsim.search.space.lattice import Lattices, signature
from hwsim.search.space.problem import Problem

pytestmark = pytest.mark.skipif(bool(native.why_not_compiled()), reason=native.why_not_compiled())


def test_least_costs_of_all_smaller_points_are_those_of_numpy() -> None:
    random = np.random.default_rng(0)
    for extents in ([[12, 7, 8]], [[64, 56, 3], [32, 28, 3]], [[1, 1, 1]], [[210, 16, 1]] * 5):
        shape = tuple(signature(max(column)) for column in zip(*extents, strict=True))
        lattices = Lattices(np.array(extents), shape)
        costs = random.random((len(extents), *lattices.dim_lengths))
        costs[random.random(costs.shape) < 0.3] = np.inf
        for dims in ((0,), (1,), (2,), (0, 2), (0, 1, 2)):
            before = costs.copy()
            assert np.array_equal(below(lattices, costs, dims), lattices.below(costs, dims))
            assert np.array_equal(costs, before)


def test_arrivals_are_those_of_numpy_however_costs_are_spread() -> None:
    random = np.random.default_rng(1)
    moved = random.random((3, 4, 1, 5, 2))
    moved[0, 1] = np.inf
    for mask in range(32):
        shape = tuple(n if mask >> axis & 1 else 1 for axis, n in enumerate(moved.shape))
        for cost in (random.random(shape), random.random(shape[::-1]).T, np.full(shape, np.inf)):
            known = random.random(moved.shape)
            least = np.minimum(known, moved + cost)
            assert np.array_equal(arrived(None, moved, cost), moved + cost)
            assert arrived(known, moved, cost) is known
            assert np.array_equal(known, least)


@pytest.mark.parametrize("spec", ["eyeriss_v1", "simba", "tpu_v1"])
def test_the_quick_search_ranks_the_same_nests_with_and_without_the_kernel(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, machine = shipped("ds_cnn"), load_accelerator(spec)
    assert network is not None
    layers = list(effective_workload(assign_bits(network, "W8A8"), machine.capabilities).values())[:3]
    problems = [Problem(layer, machine) for layer in layers]
    compiled = [ranked(problem, Effort(chains=4), None) for problem in problems]
    monkeypatch.setattr(minima, "compiled", lambda: None)
    assert [ranked(problem, Effort(chains=4), None) for problem in problems] == compiled
