"""The bound over every legal mapping against nests of any tile sizes, bent until they cost as little as they can."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator, Array, Operand
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal
from hwsim.network.layer import DIMS, Layer, Loops
from hwsim.search.bounds.any_tiles import AnyTiles, Boxes, cells, first_boxes, means
from hwsim.search.layer import Pricing, search
from hwsim.search.objective import Objective
from hwsim.search.proof.resize import completed, resized
from hwsim.search.result import EVERYTHING
from hwsim.search.space.problem import REDUCTION, Problem
from hwsim.search.space.timing import Timing
from tests.search.test_search_machines import roomy, some_machine
from tests.strategies import drawn_conv, word_conv

OBJECTIVES: tuple[Objective, ...] = ("energy", "latency", "edp")
FACTORS = (2, 3, 4, 5, 7, 8, 11)


def some_layer(rng: random.Random) -> Layer:
    """Extents of any kind, windows more often than not."""

    def bounds() -> dict[str, int]:
        windows = rng.choice(("PR", "QS", "PRQS", "", ""))
        found = {dim: rng.choice((2, 3, 3, 4, 5) if dim in "RS" else (2, 3, 4, 5, 7, 8)) for dim in windows}
        dims = rng.sample(("K", "C", "G", "N", "P"), k=rng.randint(1, 3))
        return found | {dim: rng.choice(FACTORS) for dim in dims}

    return drawn_conv(rng, bounds, strides=(1, 1, 2, 3), dilations=(1, 1, 1, 2))


def random_nest(rng: random.Random, layer: Layer, machine: Accelerator) -> Mapping:
    """Factors of any size on the arrays and in time, loops and holds anywhere; often illegal."""
    left = layer.loops.as_dict()
    unrolled: dict[str, list[Node]] = {}
    for array in machine.arrays:
        mine: list[Node] = []
        for axis in array.axes:
            dims, room, used = [d for d in axis.dims if array.reduction or d not in REDUCTION], axis.size, 0
            for dim in rng.sample(dims, k=len(dims)):
                factor = rng.randint(1, min(room, left[dim]))
                if factor > 1 and (axis.max_dims is None or used < axis.max_dims):
                    mine.append(Spatial(dim, factor, array.name, axis.name))
                    room, used, left[dim] = room // factor, used + 1, -(-left[dim] // factor)
        unrolled[array.name] = mine
    loops: list[list[Node]] = [[] for _ in machine.hierarchy]
    for dim, extent in left.items():
        steps = extent
        while steps > 1:
            factor = rng.randint(2, steps)
            rng.choice(loops).append(Temporal(dim, factor))
            steps = -(-steps // factor)
    nodes: list[Node] = []
    for node, mine in zip(machine.hierarchy, loops, strict=True):
        if isinstance(node, Array):
            nodes += unrolled[node.name]
        else:
            kept: list[Operand] = [o for o in node.keeps if o not in node.bypass or rng.random() < 0.6]
            mine.extend(Hold(node.name, (operand,)) for operand in kept)
        rng.shuffle(mine)
        if node is machine.outermost:
            mine.sort(key=lambda inner: not isinstance(inner, Hold))
        nodes += mine
    return Mapping(tuple(nodes))


def parted(mapping: Mapping, layer: Layer) -> Iterator[Mapping]:
    """The mapping with a part of one temporal loop somewhere further out."""
    bounds, nodes = layer.loops.as_dict(), list(mapping.nodes)
    for i, node in enumerate(nodes):
        if not isinstance(node, Temporal):
            continue
        inner = math.prod(n.factor for n in nodes[i + 1 :] if not isinstance(n, Hold) and n.dim == node.dim)
        most = -(-bounds[node.dim] // inner)
        for factor in sorted({-(-most // 2), -(-most // 3), most - 1} - {0, 1, most}):
            for place in range(1, i + 1):
                more = [*nodes[:place], Temporal(node.dim, 1), *nodes[place:i], Temporal(node.dim, factor)]
                yield completed([*more, *nodes[i + 1 :]], node.dim, bounds[node.dim])


def neighbours(mapping: Mapping, layer: Layer) -> Iterator[Mapping]:
    """Nests with another factor in one loop, a loop parted in two, or one node elsewhere."""
    yield from resized(mapping, layer)
    yield from parted(mapping, layer)
    nodes = list(mapping.nodes)
    for i, node in enumerate(nodes):
        if i and not isinstance(node, Spatial):
            rest = [*nodes[:i], *nodes[i + 1 :]]
            yield from (Mapping((*rest[:place], node, *rest[place:])) for place in range(1, len(nodes)) if place != i)


def check(seed: int) -> None:
    """No nest costs less than the bound: sixty random ones and what the search finds, the best one improved."""
    rng = random.Random(seed)
    machine, layer, objective = (
        roomy(some_machine(rng), rng.choice((1, 1, 2, 4, 8))),
        some_layer(rng),
        OBJECTIVES[seed % 3],
    )
    pricing = Pricing(Problem(layer, machine), objective)
    try:
        bounds = AnyTiles(Problem(layer, machine), rounds=seed % 2)
        pricing.value(search(layer, machine, objective).mapping)
    except HwsimError:
        return
    for _ in range(60):
        pricing.value(random_nest(rng, layer, machine))
    for _ in range(3):
        before = pricing.best
        assert before is not None
        for nest in neighbours(before[0], layer):
            pricing.value(nest)
        if pricing.best is before:
            break
    assert pricing.best is not None
    _, counts, cost = pricing.best
    regimes = (Timing(bounds.problem).regime_of(counts),)
    bound = bounds.bound(objective, regimes, cost.total_energy_pj, float(cost.latency_cycles))
    assert bound <= pricing.best_value, (seed, objective, pricing.best_value / bound)


@pytest.mark.long
def test_no_nest_of_any_tile_sizes_costs_less() -> None:
    for seed in range(40):
        check(seed)


@pytest.mark.slow
def test_no_nest_of_any_tile_sizes_costs_less_on_more_machines() -> None:
    for seed in range(40, 4000):
        check(seed)


@pytest.mark.parametrize("spec", ["eyeriss_v2", "simba", "sram_imc"])
def test_every_unrolling_has_a_box(spec: str) -> None:
    layer = word_conv(Loops(K=6, C=5, P=4, Q=3, R=2), 1, 1)
    boxes = first_boxes(Problem(layer, load_accelerator(spec)))
    rng = random.Random(0)
    for halves in (boxes, boxes.halves()):
        for _ in range(300):
            vector = random_factors(rng, halves)
            inside = (halves.narrow <= vector[:, None]) & (vector[:, None] <= halves.wide)
            assert inside.all(axis=(0, 2)).any(), vector


def random_factors(rng: random.Random, boxes: Boxes) -> np.ndarray:
    """Factors [axis, dim] that the axes allow and no dim is covered by twice."""
    problem = boxes.problem
    found = np.ones((len(boxes.axes), len(problem.dims)))
    for place, (array, axis) in enumerate(boxes.axes):
        room = axis.size
        for e in rng.sample(range(len(problem.dims)), k=len(problem.dims)):
            dim, extent = problem.dims[e], problem.extents[e]
            reduces = dim in REDUCTION and not problem.arrays[array].reduction
            free = axis.max_dims is None or (found[place] > 1).sum() < axis.max_dims
            if dim in axis.dims and not reduces and free and found[:place, e].prod() < extent:
                found[place, e] = rng.randint(1, min(room, extent))
                room //= int(found[place, e])
    return found


def test_more_rounds_never_lower_the_bound() -> None:
    problem = Problem(word_conv(Loops(K=64, C=64, P=14, Q=14, R=3, S=3), 1, 1), load_accelerator("simba"))
    found = [AnyTiles(problem, rounds).bound("energy", (), 1.0, 1.0) for rounds in (0, 1, 4, 8)]
    assert found == sorted(found)
    assert found[0] < found[-1]


def test_means_are_all_that_sum_to_one() -> None:
    for count in (1, 2, 3):
        wanted = {w for w in itertools.product((0.0, 0.25, 0.5, 0.75, 1.0), repeat=count) if sum(w) == 1}
        assert set(means(count)) == wanted


def test_cells_cover_all_factors_once() -> None:
    for most, ratio in itertools.product((1, 5, 16, 108), (1.0, 1.5, 3.0, 1e9)):
        factors = [f for low, high in cells(most, ratio) for f in range(low, high + 1)]
        assert factors == list(range(1, most + 1))
        assert all(high <= max(low, ratio * low) for low, high in cells(most, ratio))


def test_an_optimum_over_all_tile_sizes_is_named() -> None:
    layer = word_conv(Loops(K=64, C=64, P=14, Q=14, R=1, S=1), 1, 1)
    certificate = search(layer, load_accelerator("gemmini_16x16"), effort="proven").certificate
    assert certificate.space == EVERYTHING
    assert certificate.any_tiles_gap <= 1e-6
    assert certificate.gap <= certificate.any_tiles_gap


def test_resized_nests_fill_the_bound() -> None:
    """One dim changes, and no block of its outermost loop is to spare."""
    layer = word_conv(Loops(K=11, C=7, P=9, R=3), 2, 1)
    rng, machine, seen = random.Random(1), load_accelerator("eyeriss_v1"), 0
    for _ in range(50):
        nest = random_nest(rng, layer, machine)
        for other in resized(nest, layer):
            changed = [dim for dim in DIMS if factors_of(nest, dim) != factors_of(other, dim)]
            for dim in changed:
                outermost, *inside = factors_of(other, dim)
                bound = layer.loops.as_dict()[dim]
                assert bound <= outermost * math.prod(inside)
                if len(inside) + 1 == len(factors_of(nest, dim)):
                    assert (outermost - 1) * math.prod(inside) < bound
            assert len(changed) <= 1
            seen += len(changed)
    assert seen > 100


def factors_of(nest: Mapping, dim: str) -> list[int]:
    """Factors of a dim, temporal loops first."""
    mine = [node for node in nest.loops if node.dim == dim]
    return [node.factor for node in sorted(mine, key=lambda node: isinstance(node, Spatial))]
