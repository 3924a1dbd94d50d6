"""The bound in closed form against the lattice bounds, which are held against enumeration elsewhere."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.machine.load import load_accelerator
from hwsim.network.layer import Layer, Loops
from hwsim.search.bounds.closed_form import fewest_points, hyperbola
from hwsim.search.proof.certify import NODES, Search, certified_search, spacings
from hwsim.search.space.problem import Problem
from tests.search.test_search_machines import roomy, small_layer, some_machine, uneven_layer
from tests.strategies import drawn_conv, word_conv

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


def wide_layer(rng: random.Random) -> Layer:
    """Windows of up to 6 x 6 over up to 12 x 12 outputs, with strides, dilations and loops that they do not see."""

    def bounds() -> dict[str, int]:
        windows = rng.choice(("PR", "QS", "PRQS"))
        found = {dim: rng.choice((2, 3, 4, 5, 6) if dim in "RS" else (2, 4, 6, 8, 12)) for dim in windows}
        dims = rng.sample(("K", "C", "G", "N"), k=rng.randint(1, 2))
        return found | {dim: rng.choice((2, 4, 6, 8, 16)) for dim in dims}

    return drawn_conv(rng, bounds, strides=(1, 1, 2, 3))


def cheapest(search: Search, row: int) -> float:
    """The least objective of an unrolling: exact paths for every distance between array elements; NaN if cut short."""
    found, offsets = math.inf, np.ascontiguousarray(search.offsets[:, row])
    for spacing in spacings(search.problem, search.spatial[row], search.steps_of(row)):
        path = search.kernel.path(search.spatial[row], spacing, search.needed, offsets, search.idle_pj, math.inf, NODES)
        found = min(found, path.value if path.steps or math.isinf(path.value) else math.nan)
    return found


def check_exactly(seed: int) -> None:
    """A few unrollings of one layer with wide windows, those nearest to their lattices' bounds among them."""
    rng = random.Random(seed)
    machine = roomy(some_machine(rng), rng.choice((1, 1, 1, 2, 4, 8)))
    problem = Problem(wide_layer(rng), machine)
    try:
        search = opened(problem, ("energy", "latency")[seed % 2], bool(seed // 2 % 2))
    except HwsimError:
        return
    if search is None:
        pytest.skip("no kernel")
    search.start(None)
    rows = np.arange(len(search.spatial))
    closed = search.objectives(rows, search.least_sums.T)
    lattice = search.objectives(rows, search.kernel.bounds(search.spatial, np.zeros_like(search.spatial))[0])
    for row in {*np.argsort(lattice - closed)[:3].tolist(), *rng.sample(range(len(rows)), k=min(3, len(rows)))}:
        assert not closed[row] > cheapest(search, row) * (1 + 1e-9), (seed, row)


def test_never_above_the_cheapest_path_where_windows_are_wide() -> None:
    for seed in range(200):
        check_exactly(seed)


@pytest.mark.slow
def test_never_above_the_cheapest_path_where_windows_are_wide_on_more_machines() -> None:
    for seed in range(200, 20_000):
        check_exactly(seed)


def test_fewest_points_are_those_of_the_best_choice() -> None:
    for a, b, most_m, most_n in itertools.product((1, 2, 3, 4), (1, 2, 3), (1, 3, 5), (1, 2, 4)):
        whole = [np.array([float(most)]) for most in (most_m, most_n)]
        for m, n in itertools.product(range(1, most_m + 1), range(1, most_n + 1)):
            least = min(
                len({a * i + b * j for i in some for j in others})
                for some in itertools.combinations(range(most_m), m)
                for others in itertools.combinations(range(most_n), n)
            )
            found = fewest_points((a, b), [np.array([float(m)]), np.array([float(n)])], whole)[0]
            assert found <= least
            if (m, n) == (most_m, most_n):
                assert found == least


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("remainders", [False, True])
def test_never_above_the_bound_of_a_lattice_on_shipped_machines(spec: str, remainders: bool) -> None:
    layer = word_conv(Loops(K=12, C=8, P=14, Q=7, R=3, S=3), 2, 1)
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
