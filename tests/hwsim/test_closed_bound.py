"""The bound in closed form against the lattice bounds, which are held against enumeration elsewhere."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hwsim.accelerator import load_accelerator
from hwsim.errors import HwsimError
from hwsim.mapper.certify import Search, certified_search
from hwsim.mapper.closed_bound import hyperbola
from hwsim.mapper.problem import Problem
from hwsim.workload import Layer, Loops
from tests.hwsim.test_search_exhaustive import strided
from tests.hwsim.test_search_machines import small_layer, some_machine, uneven_layer

OBJECTIVES = ("energy", "latency", "edp")
SPECS = ("eyeriss_v1", "simba", "stripes", "tpu_v1", "ethos_u55_256", "sram_imc", "cortex_m7")


def excess(search: Search) -> float:
    """By how much the closed form exceeds the bound of a lattice, relative, over unrollings and sums; 0 if never."""
    search.start(None)
    lattice, _ = search.kernel.bounds(search.spatial, np.zeros_like(search.spatial))
    closed = search.least_sums.T
    over = np.where(np.isfinite(lattice), closed - lattice, -np.inf)
    over[np.isinf(closed) & np.isfinite(lattice)] = np.inf
    return max(0.0, float((over / np.maximum(np.abs(closed), 1.0)).max()))


def opened(problem: Problem, objective: str, remainders: bool) -> Search | None:
    """The search of the kernel, where there is one."""
    search = certified_search(problem, objective, lambda mapping: None, remainders)
    return search if isinstance(search, Search) else None


def check(seed: int) -> None:
    """One random layer on one random machine, if it fits."""
    rng = random.Random(seed)
    machine, remainders = some_machine(rng), bool(seed % 2)
    layer: Layer = uneven_layer(rng) if remainders else small_layer(rng)
    try:
        search = opened(Problem(layer, machine), OBJECTIVES[seed % 3], remainders)
    except HwsimError:
        return
    if search is None:
        pytest.skip("no kernel")
    assert excess(search) <= 1e-9, seed


def test_never_above_the_bound_of_a_lattice() -> None:
    for seed in range(100):
        check(seed)


@pytest.mark.slow
def test_never_above_the_bound_of_a_lattice_on_more_machines() -> None:
    for seed in range(100, 5000):
        check(seed)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("remainders", [False, True])
def test_never_above_the_bound_of_a_lattice_on_shipped_machines(spec: str, remainders: bool) -> None:
    layer = strided(Loops(K=12, C=8, P=14, Q=7, R=3, S=3), 2, 1)
    search = opened(Problem(layer, load_accelerator(spec)), "energy", remainders)
    if search is None:
        pytest.skip("no kernel")
    assert excess(search) <= 1e-9


def test_least_of_two_shares_is_that_of_a_fine_grid() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = rng.uniform(0.1, 10, 2)
        most_a, most_b = rng.uniform(1, 30, 2)
        together = rng.uniform(1, 60)
        grid_a = np.linspace(1, min(most_a, together), 4001)
        grid_b = np.clip(np.minimum(most_b, together / grid_a), 1, None)
        feasible = grid_a * grid_b <= together * (1 + 1e-12)
        least = (a / grid_a + b / grid_b)[feasible].min()
        found = hyperbola(*(np.array([v]) for v in (a, b, most_a, most_b, together)))[0]
        assert found <= least * (1 + 1e-9)
        assert found >= least * (1 - 1e-3)
