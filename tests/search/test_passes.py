"""A batch as smaller passes: networks at other batches, bills of passes, and cost per image as the batch grows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hwsim.errors import HwsimError, SpecError, WorkloadError
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.nest.text import PassNests, load_plan
from hwsim.network.batches import at_batch, batch_of
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.passes import passes_cost
from hwsim.report.evaluation import Request, evaluate_workload
from hwsim.report.files import nests_of
from hwsim.report.screen import screenful
from hwsim.search import cache as search_cache
from hwsim.search.network import Plan, plan_network
from hwsim.search.objective import OBJECTIVES, Objective
from hwsim.search.passes import Splitting, divisors
from hwsim.search.result import Effortful
from tests.small_workloads import add, chain, conv

SIZE = 6
MAP_BITS = 8 * SIZE * SIZE * 8  # of the network's largest maps, one image


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(search_cache.ENVIRONMENT, "")


def block(images: int) -> Workload:
    """A residual block that ends in a linear layer."""
    x = Tensor("x", (images, 4, SIZE, SIZE), 8)
    stem = conv("stem", x, 8)
    inner = conv("inner", stem.output, 8)
    total = add("total", inner.output, stem.output)
    pooled = Layer("pool", "avg_pool", (total.output,), Tensor("pool.out", (images, 8, 1, 1), 8), window=SIZE * SIZE)
    flat = dataclasses.replace(pooled.output, shape=(images, 8, 1, 1))
    head = Layer(
        "head", "linear", (flat,), Tensor("head.out", (images, 5), 8), Tensor("head.weight", (5, 8), 8),
        Loops(N=images, K=5, C=8), bias=True,
    )  # fmt: skip
    return Workload("block", (stem, inner, total, pooled, head))


def machine(name: str = "simba", maps: float | None = None) -> Accelerator:
    """A shipped machine whose memory of maps holds so many of the block's largest ones."""
    found = load_accelerator(name)
    home = found.activation_memory
    nodes = tuple(
        dataclasses.replace(node, size_bits=int(maps * MAP_BITS)) if maps is not None and node is home else node
        for node in found.hierarchy  # type: ignore[type-var]
    )
    return dataclasses.replace(found, hierarchy=nodes)  # type: ignore[arg-type]


def cost_of(workload: Workload, accelerator: Accelerator, objective: Objective, effort: Effortful) -> float:
    """The objective of a batch, EDP as its root, which passes add up."""
    totals = evaluate_workload(workload, accelerator, Request(objective=objective, effort=effort)).totals
    found = {"energy": totals.energy_pj, "latency": float(totals.latency_cycles)}
    return found.get(objective, (totals.energy_pj * totals.latency_cycles) ** 0.5)


# --- the network at another batch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [1, 2, 3, 4, 6])
def test_a_smaller_batch_is_the_network_built_for_it(images: int) -> None:
    assert batch_of(block(6)) == 6
    assert at_batch(block(6), images) == block(images)
    assert at_batch(chain(images=6), images) == chain(images=images)


def product(images: int, heads: int = 3) -> Workload:
    """Attention scores: heads of all sequences stand in G, tokens of a projection in P; a table of positions."""
    tokens, table = Tensor("x", (images, 7, 6), 8), Tensor("positions", (1, 7, 6), 8)
    placed = Layer("placed", "add", (tokens, table), Tensor("placed.out", (images, 7, 6), 8))
    rows = dataclasses.replace(placed.output, shape=(images, 7, 6))
    keys = Layer(
        "keys", "linear", (rows,), Tensor("keys.out", (images, 7, 6), 8), Tensor("keys.weight", (6, 6), 8),
        Loops(K=6, C=6, P=7 * images),
    )  # fmt: skip
    scores = Layer(
        "scores", "matmul", (dataclasses.replace(placed.output, shape=(images * heads, 7, 2)),),
        Tensor("scores.out", (images * heads, 7, 7), 8), dataclasses.replace(keys.output, shape=(images * heads, 7, 2)),
        Loops(G=images * heads, K=7, C=2, P=7), weight_is_activation=True,
    )  # fmt: skip
    return Workload("attention", (placed, keys, scores))


def test_heads_and_rows_follow_the_batch_and_constants_do_not() -> None:
    assert at_batch(product(4), 2) == product(2)
    assert at_batch(product(4), 1).tensors["positions"].shape == (1, 7, 6)


def test_what_mixes_its_images_is_refused_by_name() -> None:
    x = Tensor("x", (4, 8), 8)
    mixed = Layer("mixed", "reduce_mean", (x,), Tensor("mixed.out", (1, 9), 8), window=4)
    workload = Workload("mixing", (mixed,))
    with pytest.raises(WorkloadError, match=r"layer mixed: tensor mixed.out of shape \(1, 9\) does not follow"):
        at_batch(workload, 2)
    report = evaluate_workload(workload, machine(), Request(effort="quick"))
    assert report.batch is not None
    assert not report.batch.passes
    assert "mixed.out" in report.batch.not_tried
    assert "smaller passes were not tried: layer mixed" in screenful(report)


def test_tokens_of_one_sequence_are_no_batch_though_the_heads_share_their_number() -> None:
    tokens, heads = 4, 8
    query, key = (Tensor(name, (heads, tokens, 4), 8, True) for name in "qk")
    entry = Layer(
        "project", "linear", (Tensor("x", (tokens, 32), 8, True),), query,
        Tensor("w", (32, 32), 8, True, origin="weight"), Loops(N=tokens, K=32, C=32),
    )  # fmt: skip
    scores = Layer("scores", "matmul", (query,), Tensor("s", (heads, tokens, tokens), 8, True), key,
                   Loops(G=heads, K=tokens, C=4, P=tokens), weight_is_activation=True)  # fmt: skip
    with pytest.raises(WorkloadError, match=r"layer scores: loops .* does not follow the batch of 4"):
        at_batch(Workload("attention", [entry, scores]), 2)


@pytest.mark.parametrize("images", [0, 5])
def test_only_parts_of_the_batch_are_networks(images: int) -> None:
    with pytest.raises(WorkloadError, match="expected 1 to 4 images"):
        at_batch(block(4), images)


# --- bills ------------------------------------------------------------------------------------------------------------


def test_a_batch_costs_what_its_passes_cost_together() -> None:
    accelerator = machine()
    two, one = (plan_network(block(n), accelerator, effort="quick").cost for n in (2, 1))
    cost = passes_cost(block(7), accelerator, [(3, two), (1, one)])
    for name in ("energy_pj", "latency_cycles", "macs", "bops", "traffic_bits", "outermost_traffic_bits"):
        together = 3 * getattr(two.totals, name) + getattr(one.totals, name)
        assert getattr(cost.totals, name) == together, name
    for name in ("weight_bits", "parameter_bits", "area_mm2"):
        assert getattr(cost.totals, name) == getattr(one.totals, name), name
    assert cost.totals.peak_activation_bits == two.totals.peak_activation_bits
    assert cost.latency_interval.latency_s == pytest.approx(cost.totals.latency_s)
    assert sum(energy for _, energy in cost.energy_pj_by_component) == cost.totals.energy_pj


# --- what is chosen ---------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    "accelerator", [machine(maps=2.5), machine("eyeriss_v1", maps=5), machine("gemmini_16x16")], ids=lambda a: a.name
)
def test_cost_per_image_never_rises_from_a_batch_to_its_multiples(
    accelerator: Accelerator, objective: Objective
) -> None:
    cost = {n: cost_of(block(n), accelerator, objective, "quick") for n in (1, 2, 3, 4, 6)}
    for small, large in ((1, 2), (1, 3), (1, 4), (2, 4), (2, 6), (3, 6)):
        assert cost[large] / large <= cost[small] / small * (1 + 1e-12), (small, large)


@pytest.mark.long
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_choice_is_the_least_of_all_equal_passes_and_no_bound_lies_above(
    objective: Objective, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(search_cache.ENVIRONMENT, str(tmp_path))
    accelerator, images = machine(maps=5), 4 if objective == "energy" else 2

    def planned(smaller: Workload, quick: bool) -> Plan:
        return plan_network(smaller, accelerator, objective, effort="quick" if quick else "auto")

    splitting = Splitting(block(images), accelerator, objective, 0.0, planned, quick=False, bounded=True)
    power, totals = 2 if objective == "edp" else 1, dict[int, float]()
    for n in (*divisors(images), images):
        quick, best = splitting.plan(n, True), splitting.plan(n, False)
        assert quick is not None
        assert best is not None
        assert 0 < splitting.least_pass(n, quick) <= best.value(objective) * (1 + 1e-12)
        totals[n] = (images // n) ** power * best.value(objective)
    certificate = evaluate_workload(block(images), accelerator, Request(objective=objective)).certificate
    assert certificate is not None
    assert certificate.value == pytest.approx(min(totals.values()), rel=1e-12)
    assert certificate.lower_bound <= min(totals.values()) * (1 + 1e-12)
    sizes = ", ".join(map(str, divisors(images)))
    assert f"the batch of {images} at once, or in equal passes of {sizes}" in certificate.space


def test_a_prime_batch_runs_in_passes_that_leave_a_remainder() -> None:
    accelerator = machine(maps=5)
    report = evaluate_workload(block(5), accelerator, Request(effort="quick"))
    sizes = [(each.images, each.times) for each in report.passes]
    assert sizes == [(2, 2), (1, 1)], str(report.batch)
    ones = evaluate_workload(block(1), accelerator, Request(effort="quick"))
    assert report.energy_pj < 5 * ones.energy_pj


def test_passes_come_back_from_their_mapping_file(tmp_path: Path) -> None:
    accelerator, path = machine(maps=5), tmp_path / "mappings.yaml"
    for images in (4, 5):
        report = evaluate_workload(block(images), accelerator, Request(effort="quick"))
        assert report.passes
        path.write_text(nests_of(report))
        again = evaluate_workload(block(images), accelerator, Request(mapping=path))
        assert again.totals == report.totals
        assert again.to_dict()["batch"]["passes"] == report.to_dict()["batch"]["passes"]
    with pytest.raises(WorkloadError, match=r"has a batch of 4, the mapping file's passes run 2 x 2 \+ 1 x 1"):
        evaluate_workload(block(4), accelerator, Request(mapping=path))
    assert isinstance(load_plan(path).passes[0], PassNests)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("passes: []\n", "expected one pass at least"),
        ("passes: [{images: 2, times: 2}]\n", "key 'layers' is missing"),
        ("passes: [{images: 0, times: 2, layers: {}}]\n", "expected a whole number from 1"),
        ("layers: {}\npasses: [{images: 1, times: 2, layers: {}}]\n", "stands in each of 'passes'"),
        ("lifetimes: rows\n", "key 'layers' is missing"),
    ],
)
def test_mistakes_in_passes_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        load_plan(path)


def test_the_report_says_how_the_batch_runs() -> None:
    report = evaluate_workload(block(4), machine(maps=5), Request(effort="quick"))
    assert "batch    4 images as 2 passes of 2, weights fetched again in each; at once" in screenful(report)
    assert evaluate_workload(block(1), machine(maps=5), Request(effort="quick")).batch is None
    found = report.to_dict()["batch"]
    assert found["at_once"]["energy_pj"] > report.energy_pj
    assert [each["times"] for each in found["passes"]] == [2]


def test_a_machine_that_runs_no_pass_says_why() -> None:
    accelerator = load_accelerator("ethos_u55_256")
    wide = Workload("wide", [dataclasses.replace(layer) for layer in block(2)]).map_tensors(
        lambda tensor: dataclasses.replace(tensor, bits=13)
    )
    with pytest.raises(HwsimError):
        evaluate_workload(wide, accelerator, Request(effort="quick"))


def test_an_image_without_a_batch_is_none() -> None:
    image = Tensor("x", (3, 9, 9), 8)
    seen = conv("first", Tensor("x", (1, 3, 9, 9), 8), 4)
    whole = Workload("image", [Layer("copy", "copy", (image,), Tensor("x.four", (1, 3, 9, 9), 8)), seen])
    assert batch_of(whole) == 1


def test_divisors() -> None:
    assert [divisors(n) for n in (1, 2, 7, 12)] == [[], [1], [1], [1, 2, 3, 4, 6]]
