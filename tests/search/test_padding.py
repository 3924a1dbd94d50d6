"""Longer loops than a dim needs: what the kernel says of their paths against exact counts."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Iterator

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import OPERANDS, Accelerator, Array, Operand
from hwsim.nest.points import Ints
from hwsim.network.layer import Loops
from hwsim.search.layer import Pricing, search
from hwsim.search.proof import longer_loops
from hwsim.search.proof.certify import NODES, Search, certified_search, spacings
from hwsim.search.proof.longer_loops import Lattice, Sums, lengths
from hwsim.search.proof.native import Kernel
from hwsim.search.space.problem import Problem
from hwsim.search.write import write_path
from tests.search.test_any_tiles import some_layer
from tests.search.test_search_exhaustive import keeps_by_remainder, small_machine
from tests.strategies import word_conv


def serial(machine: Accelerator) -> Accelerator:
    """The machine with one element."""
    nodes = [
        dataclasses.replace(node, axes=tuple(dataclasses.replace(axis, size=1) for axis in node.axes))
        if isinstance(node, Array)
        else node
        for node in machine.hierarchy
    ]
    return dataclasses.replace(machine, hierarchy=tuple(nodes))


def check(seed: int) -> int:
    """The cheapest path with random lengths costs what its mapping costs, where no elements idle.

    A remainder may leave a loop one iteration and so keep a tile that the path loads again: such a mapping costs less.
    """
    rng = random.Random(seed)
    layer, machine = some_layer(rng), serial(small_machine(rng))
    try:
        pricing = Pricing(Problem(layer, machine), "energy")
        hunt = certified_search(Problem(layer, machine), "energy", pricing.value, True)
    except HwsimError:
        return 0
    if not isinstance(hunt, Search):
        pytest.skip("no kernel")
    hunt.start(None)
    needed = hunt.steps_of(0)
    steps = np.array([rng.choice([n, *lengths(n)]) for n in needed.tolist()])
    (spacing,) = spacings(hunt.problem, hunt.spatial[0], steps)
    offsets = np.ascontiguousarray(hunt.offsets[:, 0])
    path = hunt.kernel.path(hunt.spatial[0], spacing, steps, offsets, hunt.idle_pj, math.inf, NODES)
    if not path.steps:
        return 0
    mapping = write_path(hunt.problem, hunt.options.one(0), path.steps)
    value = pricing.value(mapping)
    assert value is not None
    operands: tuple[Operand, ...] = OPERANDS
    if value < path.value * (1 - 1e-6):
        assert any(keeps_by_remainder(mapping, layer, machine, operand) for operand in operands), (seed, steps, mapping)
        return 0
    assert value == pytest.approx(path.value, rel=1e-6), (seed, steps, mapping)
    return int((steps > needed).any())


def test_paths_of_longer_loops_cost_what_their_mappings_cost() -> None:
    assert sum(check(seed) for seed in range(60)) > 20


@pytest.mark.slow
def test_paths_of_longer_loops_cost_what_their_mappings_cost_on_more_machines() -> None:
    assert sum(check(seed) for seed in range(60, 1500)) > 500


def sought(seed: int) -> tuple[Search, float] | None:
    """A search that looked at longer loops after its proof, on a small random machine, and the best value."""
    rng = random.Random(seed)
    layer, machine = some_layer(rng), small_machine(rng)
    try:
        pricing = Pricing(Problem(layer, machine), "energy")
        hunt = certified_search(Problem(layer, machine), "energy", pricing.value, True)
        if not isinstance(hunt, Search):
            pytest.skip("no kernel")
        hunt.run(0.0, math.inf)
        longer_loops.improve(hunt, pricing.best_value, math.inf)
    except HwsimError:
        return None
    return hunt, pricing.best_value


def test_lattices_are_bounded_once_and_nothing_else_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = list[int]()
    ask = Kernel.bounds

    def counted(kernel: Kernel, spatial: Ints, spacing: Ints, steps: Ints | None = None) -> tuple[Sums, int]:
        rows[-1] += len(spatial)
        return ask(kernel, spatial, spacing, steps)

    monkeypatch.setattr(Kernel, "bounds", counted)
    fewer = 0
    for seed in range(40):
        rows.append(0)
        once, numbers = sought(seed), itertools.count()

        def unlike(_row: int, steps: Ints, _spacing: Ints, numbers: Iterator[int] = numbers) -> Lattice:
            return next(numbers), tuple(steps.tolist()), b""

        with monkeypatch.context() as forgetful:
            forgetful.setattr(longer_loops, "lattice", unlike)
            rows.append(0)
            again = sought(seed)
        if once is None or again is None:
            assert once is again, seed
            continue
        (hunt, best), (other, same) = once, again
        assert (best, hunt.best, hunt.covered, hunt.priced) == (same, other.best, other.covered, other.priced), seed
        fewer += rows[-2] < rows[-1]
    assert fewer > 10


def test_lengths_are_longer_and_richer() -> None:
    assert lengths(197)[0] == 240
    assert lengths(7) == [8, 10, 9]
    assert lengths(2) == []


@pytest.mark.parametrize("steps", [67_108_859, 2**31 - 1, 2**40 + 15])
def test_lengths_of_extreme_loops_take_a_bounded_time(steps: int) -> None:
    """Multiples of a thousand numbers are looked at, not of as many as there are iterations."""
    found = lengths(steps)
    assert len(found) == 3
    assert all(steps < n <= 1.25 * steps + 2 for n in found)


@pytest.mark.parametrize("objective", ["energy", "latency", "edp"])
def test_prime_dims_get_tiles_that_do_not_divide(objective: str) -> None:
    layer = word_conv(Loops(K=64, C=197, P=197), 1, 1)
    machine = load_accelerator("cortex_m7")
    proven = search(layer, machine, objective, effort="perfect")  # type: ignore[arg-type]
    problem, pricing = Problem(layer, machine), Pricing(Problem(layer, machine), objective)  # type: ignore[arg-type]
    hunt = certified_search(problem, objective, pricing.value, False)
    assert hunt is not None
    hunt.run(0.0, math.inf)
    assert proven.certificate.value <= pricing.best_value
    if objective == "energy" and isinstance(hunt, Search):
        assert proven.certificate.value < 0.96 * pricing.best_value
