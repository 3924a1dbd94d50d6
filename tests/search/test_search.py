"""The quick search: legal, honest, monotone in bits; its cache; the certified optima of a known machine."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest

from hwsim.errors import InfeasibleMapping, SpecError
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import OPERANDS, Accelerator, Array, Axis, Capabilities, MacUnit, Memory, Operand, VectorUnit
from hwsim.nest.count import count_accesses
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Mapping
from hwsim.nest.text import parse_mappings
from hwsim.network.layer import DIMS, Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.layer import price
from hwsim.search import cache as search_cache
from hwsim.search.bounds.simple import bound_pj
from hwsim.search.layer import search
from hwsim.search.network import plan_network, same_answer, search_ladder, search_network
from hwsim.search.objective import OBJECTIVES, Objective, rank_of, value_of
from hwsim.search.proof.certify import certified_search, unrollings_at_most
from hwsim.search.proof.native import has_kernel, why_no_kernel
from hwsim.search.result import PROVEN, Effortful, Found
from hwsim.search.space.problem import Problem
from hwsim.tables.dominance import best_places
from tests.strategies import random_mapping

SPECS = ("eyeriss_v1", "tpu_v1", "bit_fusion", "t4")


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(search_cache.ENVIRONMENT, "")


def conv(k: int, c: int, p: int, r: int, stride: int = 1, bits: int = 8, groups: int = 1, name: str = "conv") -> Layer:
    """A square convolution with padding as usual, K and C per group."""
    padding = r // 2
    height = (p - 1) * stride + r - 2 * padding
    return Layer(
        name=name,
        op="conv",
        inputs=(Tensor("x", (1, c * groups, height, height), bits, signed=False),),
        output=Tensor("y", (1, k * groups, p, p), bits),
        weight=Tensor("w", (k * groups, c, r, r), bits),
        loops=Loops(G=groups, K=k, C=c, P=p, Q=p, R=r, S=r),
        stride=(stride, stride),
        padding=(padding,) * 4,
    )


LAYERS = (conv(64, 3, 112, 7, 2), conv(128, 128, 28, 3), conv(512, 256, 7, 1, 2), conv(1, 1, 28, 3, groups=96))


def with_bits(layer: Layer, bits: int) -> Layer:
    """The layer with all operands at one width."""
    weight = layer.weight
    assert weight is not None
    return dataclasses.replace(
        layer,
        weight=dataclasses.replace(weight, bits=bits),
        inputs=tuple(dataclasses.replace(t, bits=bits) for t in layer.inputs),
        output=dataclasses.replace(layer.output, bits=bits),
    )


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("objective", ["energy", "latency", "edp"])
def test_found_mappings_are_legal_and_never_below_the_bound(spec: str, objective: str) -> None:
    machine = load_accelerator(spec)
    for layer in LAYERS[1:]:
        found = search(layer, machine, objective)  # type: ignore[arg-type]
        assert validate(found.mapping, layer, machine) == []
        assert found.counts == count_accesses(layer, found.mapping, machine)
        assert 0 < found.certificate.lower_bound <= found.certificate.value
        assert found.certificate.gap == pytest.approx(found.certificate.value / found.certificate.lower_bound - 1)


@pytest.mark.parametrize("spec", SPECS)
def test_fewer_bits_never_cost_more(spec: str) -> None:
    machine = load_accelerator(spec)
    layers = list(LAYERS[1:3])
    energies = []
    for bits in (8, 4, 2):
        network = Workload("n", [renamed(with_bits(layer, bits), f"l{i}") for i, layer in enumerate(layers)])
        found = search_network(network, machine)
        energies.append([f.cost.total_energy_pj for f in found.values()])
    for wide, narrow in itertools.pairwise(energies):
        assert all(n <= w for n, w in zip(narrow, wide, strict=True))


def renamed(layer: Layer, name: str) -> Layer:
    """The layer under another name, with tensors of its own."""
    assert layer.weight is not None
    return dataclasses.replace(
        layer,
        name=name,
        inputs=tuple(dataclasses.replace(t, name=f"{name}.x") for t in layer.inputs),
        output=dataclasses.replace(layer.output, name=f"{name}.y"),
        weight=dataclasses.replace(layer.weight, name=f"{name}.w"),
    )


def test_identical_layers_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import hwsim.search.layer as module

    asked: list[str] = []
    original = module.candidates
    monkeypatch.setattr(module, "candidates", lambda problem, effort: (asked.append("x"), original(problem, effort))[1])
    network = Workload("twins", [renamed(LAYERS[2], "a"), renamed(LAYERS[2], "b")])
    found = search_network(network, load_accelerator("bit_fusion"))
    assert len(asked) == 1
    assert found["a"].mapping == found["b"].mapping
    assert (found["a"].cost.name, found["b"].cost.name) == ("a", "b")


def test_a_proven_plan_proves_every_layer() -> None:
    network = Workload("n", [renamed(layer, f"l{i}") for i, layer in enumerate(LAYERS[2:])])
    plan = plan_network(network, load_accelerator("bit_fusion"), effort="proven")
    assert all(found.certificate.exhaustive for found in plan.found.values())
    assert all(found.certificate.gap < 1e-4 for found in plan.found.values())
    quick = plan_network(network, load_accelerator("bit_fusion"))
    assert not any(found.certificate.exhaustive for found in quick.found.values())


def test_the_simple_bound_holds_for_random_legal_mappings() -> None:
    rng = random.Random(7)
    for spec in SPECS:
        machine = unlimited(load_accelerator(spec))
        for layer in (conv(6, 4, 5, 3), conv(8, 6, 4, 1), conv(1, 1, 6, 3, groups=4)):
            bound = bound_pj(Problem(layer, machine))
            for _ in range(12):
                mapping = legal_mapping(rng, layer, machine)
                cost = price(layer, count_accesses(layer, mapping, machine), machine)
                assert cost.total_energy_pj >= bound * (1 - 1e-12)


def unlimited(machine: Accelerator) -> Accelerator:
    """The machine with room for everything, all dims allowed on its axes, its outermost memory called dram."""
    nodes = []
    for place, node in enumerate(machine.hierarchy):
        if isinstance(node, Array):
            axes = tuple(dataclasses.replace(axis, size=64, dims=DIMS, max_dims=None) for axis in node.axes)
            nodes.append(dataclasses.replace(node, axes=axes, reduction=True))
        else:
            name = "dram" if place == 0 else node.name
            nodes.append(dataclasses.replace(node, name=name, size_bits=None, partitions=()))
    return dataclasses.replace(machine, hierarchy=tuple(nodes))


def legal_mapping(rng: random.Random, layer: Layer, machine: Accelerator) -> Mapping:
    """A random mapping that keeps every rule."""
    while True:
        mapping = random_mapping(rng, layer, machine)
        if not validate(mapping, layer, machine):
            return mapping


def test_a_layer_that_fits_nowhere_names_the_need_and_the_memory() -> None:
    machine = study_machine(scratch_words=0.5)
    with pytest.raises(InfeasibleMapping, match=r"does not fit study.*(isp|wsp|osp) holds 8 bits, its tiles need 16"):
        search(study_layer(8, 8, 7, 1), machine)


# --- cache ------------------------------------------------------------------------------------------------------------


def test_a_second_search_comes_from_the_cache_and_is_equal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(search_cache.ENVIRONMENT, str(tmp_path))
    machine = load_accelerator("bit_fusion")
    first = search(LAYERS[2], machine)
    monkeypatch.setattr("hwsim.search.layer.candidates", None)  # a search would fail now
    assert search(dataclasses.replace(LAYERS[2], name="other"), machine).mapping == first.mapping
    assert search(LAYERS[2], machine).certificate == first.certificate


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version": 1}', '{"version": 1, "nodes": [["dram"]]}', "null"])
def test_a_damaged_cache_entry_is_a_miss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str) -> None:
    monkeypatch.setenv(search_cache.ENVIRONMENT, str(tmp_path))
    machine = load_accelerator("bit_fusion")
    first = search(LAYERS[2], machine)
    (entry,) = (tmp_path / "mappings").glob("*.json")
    entry.write_text(damage)
    assert search(LAYERS[2], machine).mapping == first.mapping
    assert json.loads(entry.read_text())["version"] == search_cache.VERSION


def test_a_cache_entry_that_is_a_device_is_a_miss_that_is_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(search_cache.ENVIRONMENT, str(tmp_path))
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "key.json").symlink_to("/dev/zero")
    monkeypatch.setattr(search_cache, "read_text", lambda path: pytest.fail(f"{path} is read"))
    assert search_cache.load("key") is None


def test_a_cache_entry_that_is_a_pipe_is_a_miss_and_is_not_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Opening it would wait for somebody at the other end."""
    monkeypatch.setenv(search_cache.ENVIRONMENT, str(tmp_path))
    (tmp_path / "mappings").mkdir()
    os.mkfifo(tmp_path / "mappings" / "key.json")
    monkeypatch.setattr(search_cache, "write_atomically", lambda path, *_, **__: pytest.fail(f"{path} is written"))
    assert search_cache.load("key") is None
    search_cache.store("key", {})


@pytest.mark.parametrize(
    ("field", "value"),
    [("lower_bound", 1e30), ("any_tiles_bound", 1e30), ("root_bound", float("nan")), ("value", "many"), ("covered", -1),
     ("covered", True), ("exhaustive", 1), ("seconds", float("inf")), ("objective", "speed"), ("space", None),
     ("value", 10**400), ("covered", 10**400), ("lower_bound", -(10**400))],
)  # fmt: skip
def test_an_impossible_certificate_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, field: str, value: object
) -> None:
    monkeypatch.setenv(search_cache.ENVIRONMENT, str(tmp_path))
    machine = load_accelerator("bit_fusion")
    search(LAYERS[2], machine, effort="quick")
    (path,) = (tmp_path / "mappings").glob("*.json")
    entry = search_cache.load(path.stem)
    assert entry is not None
    assert search_cache.recalled(path.stem, Problem(LAYERS[2], machine)) is not None
    entry["certificate"][field] = value
    search_cache.store(path.stem, entry)  # under a hash that fits
    assert search_cache.recalled(path.stem, Problem(LAYERS[2], machine)) is None


def test_an_entry_under_another_key_is_a_miss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(search_cache.ENVIRONMENT, str(tmp_path))
    search(LAYERS[2], load_accelerator("bit_fusion"), effort="quick")
    (path,) = (tmp_path / "mappings").glob("*.json")
    path.rename(path.with_name("0123.json"))
    assert search_cache.load("0123") is None


def test_another_width_or_machine_is_another_question() -> None:
    machine = load_accelerator("bit_fusion")
    keys = {
        search_cache.content_hash(layer, accelerator, {"objective": objective})
        for layer in (LAYERS[1], with_bits(LAYERS[1], 4))
        for accelerator in (machine, dataclasses.replace(machine, clock_mhz=1.0))
        for objective in ("energy", "edp")
    }
    assert len(keys) == 8


# --- the machine of the study: 12 x 14 PEs, scratchpads of 12, 192 and 16 words, prices 1 / 6 / 200 ------------------


def study_machine(scratch_words: float = 1.0) -> Accelerator:
    """Everything in words of 16 bits, no static power."""

    def memory(name: str, words: float | None, keeps: tuple[Operand, ...], energy: float) -> Memory:
        size = None if words is None else int(words * 16)
        return Memory(name, size, keeps, word_bits=16, packing="padded", read_energy_pj=energy, write_energy_pj=energy)

    every = tuple(range(1, 65))
    pads = (12, 192, 16) if scratch_words == 1.0 else (scratch_words,) * 3
    return Accelerator(
        name="study",
        clock_mhz=200.0,
        node_nm=65.0,
        hierarchy=(
            memory("dram", None, OPERANDS, 200.0),
            memory("glb", 128 * 1024, ("input", "output"), 6.0),
            Array("pe", (Axis("rows", 12, DIMS), Axis("columns", 14, DIMS))),
            memory("isp", pads[0], ("input",), 1.0),
            memory("wsp", pads[1], ("weight",), 1.0),
            memory("osp", pads[2], ("output",), 1.0),
        ),
        mac=MacUnit("fixed", 16, 16, 16, 1.0),
        vector=VectorUnit(1, 0.0, 0.0),
        capabilities=Capabilities(every, every, every),
    )


def study_layer(k: int, c: int, p: int, r: int, stride: int = 1) -> Layer:
    """A layer in words: 16 bits everywhere, accumulators included."""
    return dataclasses.replace(conv(k, c, p, r, stride, bits=16), accumulator_bits=16)


STUDY = (
    ((64, 3, 112, 7, 2), 6.7688),
    ((64, 64, 56, 3, 1), 5.9338),
    ((128, 64, 28, 3, 2), 6.4729),
    ((128, 128, 28, 3, 1), 5.7045),
    ((128, 64, 28, 1, 2), 10.23294),
    ((256, 128, 14, 3, 2), 6.6944),
    ((256, 256, 14, 3, 1), 6.3066),
    ((256, 128, 14, 1, 2), 8.5958),
    ((512, 256, 7, 3, 2), 9.5200),
    ((512, 512, 7, 3, 1), 9.3144),
    ((512, 256, 7, 1, 2), 10.4966),
    ((1000, 512, 1, 1, 1), 206.6271),
)


def certified_pj_per_mac(shape: tuple[int, int, int, int, int]) -> tuple[float, float]:
    """(best, lower bound) of crossings and MACs, static power and parameters left out as in the study."""
    layer, machine = study_layer(*shape), study_machine()
    problem = Problem(layer, machine)
    dynamic = dataclasses.replace(problem.unit, static_pj_per_cycle=0.0)
    problem.__dict__["unit"] = dynamic

    def value(mapping: Mapping) -> float | None:
        if validate(mapping, layer, machine):
            return None
        return dynamic.dynamic_pj(count_accesses(layer, mapping, machine))

    hunt = certified_search(problem, "energy", value)
    assert hunt is not None
    proof = hunt.run(0.0, float("inf"))
    assert proof.finished
    return (hunt.best - dynamic.fixed_pj) / layer.macs, (proof.lower_bound - dynamic.fixed_pj) / layer.macs


@pytest.mark.parametrize(("shape", "expected"), STUDY)
def test_certified_optima_of_the_study(shape: tuple[int, int, int, int, int], expected: float) -> None:
    best, bound = certified_pj_per_mac(shape)
    assert best == pytest.approx(expected, abs=6e-5)
    assert bound == pytest.approx(best, rel=1e-8)


@pytest.mark.parametrize("effort", ["perfect", "proven", "auto"])
def test_without_a_compiler_the_answer_is_the_quick_search_and_says_so(
    monkeypatch: pytest.MonkeyPatch, effort: Effortful
) -> None:
    layer, machine = conv(8, 8, 4, 1), load_accelerator("simba")
    quick, proven = search(layer, machine), search(layer, machine, effort="proven")
    monkeypatch.setattr("hwsim.search.proof.native.why_not_compiled", lambda: "no C compiler")
    found = search(layer, machine, effort=effort)
    assert (found.mapping, found.cost) == (quick.mapping, quick.cost)
    assert found.certificate.space == f"{quick.certificate.space}; not proven: no C compiler"
    assert not found.certificate.exhaustive
    assert found.certificate.lower_bound == quick.certificate.lower_bound <= proven.certificate.lower_bound


def test_an_answer_without_a_compiler_is_not_kept_for_when_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HWSIM_CACHE", str(tmp_path))
    layer, machine = conv(8, 8, 4, 1), load_accelerator("eyeriss_v1")
    with monkeypatch.context() as without:
        without.setattr("hwsim.search.proof.native.why_not_compiled", lambda: "no C compiler")
        assert "no C compiler" in search(layer, machine, effort="proven").certificate.space
    assert search(layer, machine, effort="proven").certificate.exhaustive


def test_a_bound_within_a_gap_stays_below_the_optimum() -> None:
    layer, machine = conv(64, 32, 14, 3), load_accelerator("eyeriss_v1")
    proven = search(layer, machine, effort="perfect").certificate
    for gap in (0.01, 0.1):
        hasty = search(layer, machine, effort="perfect", gap=gap).certificate
        assert hasty.lower_bound <= proven.value
        assert hasty.gap <= gap * 1.001 or not hasty.exhaustive


def test_proofs_cover_unrollings_that_do_not_divide() -> None:
    layer, machine = conv(64, 64, 7, 1), load_accelerator("eyeriss_v1")  # 12 x 14 PEs
    perfect, proven = (search(layer, machine, effort=effort) for effort in ("perfect", "proven"))
    assert proven.certificate.exhaustive
    assert proven.certificate.gap < 1e-4  # a part of a word
    assert proven.certificate.lower_bound < perfect.certificate.lower_bound
    assert proven.certificate.value <= perfect.certificate.value
    assert "remainders of unrollings" in proven.certificate.space
    assert "perfect factors" in perfect.certificate.space


def test_auto_proves_what_is_within_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, machine = conv(16, 8, 14, 3), load_accelerator("eyeriss_v1")
    problem = Problem(layer, machine)
    assert has_kernel(problem), "the proofs need a C compiler"
    few, many = unrollings_at_most(problem, False), unrollings_at_most(problem, True)
    assert 1 < few < many
    reaches: list[tuple[int, Effortful]] = [(many, "proven"), (few, "perfect"), (few - 1, "quick")]
    values: list[float] = []
    for most, effort in reaches:
        monkeypatch.setattr("hwsim.search.effort.UNROLLINGS", most)
        certificate = search(layer, machine, effort="auto").certificate
        assert certificate.space == PROVEN[effort]
        assert certificate.exhaustive == (effort != "quick")
        values.append(certificate.value)
    assert values[0] <= values[1] <= values[2]


def test_no_bound_lies_above_a_nest_whose_buffer_holds_finished_outputs_only() -> None:
    # 1x1, 256 -> 512, 7x7, stride 2: at the accumulators' 24 bits this nest's outputs would not fit the buffer
    nest = parse_mappings(
        "layers:\n  conv:\n"
        "    - {memory: dram, holds: [weight, input, output]}\n"
        "    - {memory: global_buffer, holds: [input], loops: [K16]}\n"
        "    - {memory: global_buffer, holds: [output]}\n"
        "    - {array: pes, axes: {columns: [K4], rows: [C2]}}\n"
        "    - {memory: input_buffer, holds: [input]}\n"
        "    - {memory: accumulation_buffer, holds: [output], loops: [C16]}\n"
        "    - {memory: weight_buffer, holds: [weight], loops: [P7, Q7]}\n"
        "    - {array: vector_macs, axes: {width: [C8], lanes: [K8]}}\n",
        "test",
    )["conv"]
    simba, layer = load_accelerator("simba"), conv(512, 256, 7, 1, 2)
    nodes = tuple(
        dataclasses.replace(node, size_bits=114_688) if node.name == "global_buffer" else node
        for node in simba.hierarchy
    )  # fmt: skip
    machine = dataclasses.replace(simba, hierarchy=nodes)
    assert validate(nest, layer, machine) == []
    cost = price(layer, count_accesses(layer, nest, machine), machine).total_energy_pj
    found = search(layer, machine, effort="perfect")
    assert found.certificate.lower_bound <= cost
    assert found.certificate.value <= cost
    assert found.certificate.gap <= 1e-5


def test_an_unknown_objective_is_an_error_everywhere() -> None:
    layer, machine = conv(8, 8, 4, 1), load_accelerator("eyeriss_v1")
    cost = search(layer, machine).cost
    for call in (
        lambda word: search(layer, machine, word),
        lambda word: value_of(cost, word),
        lambda word: rank_of(cost, word),
        lambda word: best_places(np.ones((2, 3)), np.ones((2, 3), dtype=np.int64), word),
    ):
        with pytest.raises(SpecError, match="objective: expected one of energy, latency, edp, got 'speed'"):
            call("speed")


@pytest.mark.parametrize(
    ("spec", "side", "cycles", "most_pj"),
    [("eyeriss_v2", 8, 64, 310_600.0), ("simba", 16, 677, math.inf), ("gemmini_16x16", 16, 0, math.inf)],
)
def test_ties_of_latency_go_to_the_least_energy(spec: str, side: int, cycles: int, most_pj: float) -> None:
    layer, machine = conv(side, side, side, 1), load_accelerator(spec)
    found = search(layer, machine, "latency", effort="auto")
    certificate = found.certificate
    assert certificate.value == certificate.lower_bound
    assert certificate.then == "energy"
    assert certificate.then_value == found.cost.total_energy_pj
    assert certificate.then_value <= certificate.then_bound * (1 + 1e-4)  # words are rounded
    rivals = [search(layer, machine, objective, effort="auto").cost for objective in ("energy", "edp")]
    for rival in rivals:
        assert certificate.then_value <= rival.total_energy_pj or rival.latency_cycles > certificate.value
    assert certificate.value == cycles or not cycles
    assert certificate.then_value <= most_pj


def test_ties_are_decided_among_tiles_that_do_not_divide_too() -> None:
    """13 points in blocks of 2 and 4: the least energy-delay product has the least latency here, as well."""
    layer, machine = conv(2, 10, 13, 3, bits=2, groups=17), load_accelerator("eyeriss_v2")
    fastest, rival = (search(layer, machine, objective, effort="auto").cost for objective in ("latency", "edp"))
    assert rival.latency_cycles == fastest.latency_cycles
    assert fastest.total_energy_pj <= rival.total_energy_pj


def test_slack_trades_latency_for_energy_and_keeps_its_word() -> None:
    layer, machine = conv(16, 16, 8, 3), load_accelerator("simba")
    tight = search(layer, machine, "latency", effort="perfect")
    loose = search(layer, machine, "latency", effort="perfect", slack=0.5)
    assert loose.cost.latency_cycles <= 1.5 * tight.cost.latency_cycles
    assert loose.cost.total_energy_pj <= tight.cost.total_energy_pj
    assert loose.certificate.slack == 0.5


def bottleneck() -> Workload:
    """An expansion, a depthwise layer and a projection, one behind the other."""
    layers = (conv(96, 16, 28, 1), conv(1, 1, 28, 3, groups=96), conv(24, 96, 28, 1))
    chained: list[Layer] = []
    for i, layer in enumerate(layers):
        tensors = [
            dataclasses.replace(t, name=f"t{i + k}", signed=False) for k, t in enumerate((*layer.inputs, layer.output))
        ]
        assert layer.weight is not None
        weight = dataclasses.replace(layer.weight, name=f"w{i}")
        chained.append(dataclasses.replace(layer, name=f"l{i}", inputs=(tensors[0],), output=tensors[1], weight=weight))
    return Workload("bottleneck", chained)


@pytest.mark.long
@pytest.mark.parametrize("objective", ["energy", "latency", "edp"])
def test_no_effort_gives_a_worse_network_than_the_quick_search(objective: str) -> None:
    workload, machine = bottleneck(), load_accelerator("ethos_u55_256")
    quick, full = (plan_network(workload, machine, objective, effort=effort) for effort in ("quick", "auto"))  # type: ignore[arg-type]
    assert full.value(objective) <= quick.value(objective)  # type: ignore[arg-type]


def convolution_1d(outputs: int, channels: int = 64) -> Layer:
    """A window of three that slides by two over a long signal."""
    width = 2 * outputs + 1
    return Layer(
        name="audio",
        op="conv",
        inputs=(Tensor("x", (1, channels, 1, width), 8),),
        output=Tensor("y", (1, channels, 1, outputs), 8),
        weight=Tensor("w", (channels, channels, 1, 3), 8),
        loops=Loops(K=channels, C=channels, Q=outputs, S=3),
        stride=(1, 2),
    )


@pytest.mark.long
@pytest.mark.parametrize("spec", ["gemmini_16x16", "simba"])
@pytest.mark.parametrize("outputs", [1999, 2003, 4093])
def test_a_prime_length_costs_no_more_than_the_next_round_one(spec: str, outputs: int) -> None:
    machine, rounded_up = load_accelerator(spec), -(-outputs // 16) * 16
    one, other = (search(convolution_1d(n), machine, effort="auto") for n in (outputs, rounded_up))
    assert one.cost.total_energy_pj <= other.cost.total_energy_pj
    assert "not proven: a window slides over" in one.certificate.space


def test_an_extent_of_67_million_is_searched_in_seconds() -> None:
    layer = Layer(
        name="long",
        op="linear",
        inputs=(Tensor("x", (67_108_859, 1), 8),),
        output=Tensor("y", (67_108_859, 127), 8),
        weight=Tensor("w", (127, 1), 8),
        loops=Loops(N=67_108_859, K=127),
    )
    began = time.process_time()
    search(layer, load_accelerator("ethos_u65_512"))
    assert time.process_time() - began < 20


@pytest.mark.parametrize("length", [2**31 - 1, 2**32 + 2, 2**40 - 87])
def test_a_loop_too_long_for_the_kernels_numbers_is_searched_without_it(length: int) -> None:
    """Numbers of the kernel have 32 bits: to it 2**32 + 2 iterations were two."""
    layer = Layer(
        name="long",
        op="linear",
        inputs=(Tensor("x", (1, 1), 8),),
        output=Tensor("y", (1, length), 8),
        weight=Tensor("w", (length, 1), 8),
        loops=Loops(K=length),
    )
    machine = load_accelerator("eyeriss_v1")
    began = time.process_time()
    found = search(layer, machine, effort="auto")
    assert time.process_time() - began < 20
    assert why_no_kernel(Problem(layer, machine)).startswith(
        f"a loop of {length:,} iterations; the proof counts at most"
    )
    assert found.certificate.lower_bound <= found.certificate.value


@pytest.mark.parametrize("objective", ["energy", "latency"])
def test_widths_that_move_the_same_words_have_one_answer(objective: Objective) -> None:
    machine = load_accelerator("eyeriss_v1")  # a code takes a whole word, so 4 bits and 8 bits move the same words
    wide, narrow = (conv(8, 16, 14, 3, bits=bits) for bits in (8, 4))
    alone = search(narrow, machine, objective, effort="perfect")
    known: dict[tuple[object, ...], Found] = {}
    found = search_ladder(narrow, machine, objective, known, effort="perfect")
    above = search_ladder(wide, machine, objective, known, effort="perfect")
    assert found.mapping == above.mapping
    mine, theirs = found.certificate, alone.certificate
    assert math.isclose(mine.value, theirs.value, rel_tol=1e-12)
    assert math.isclose(mine.lower_bound, theirs.lower_bound, rel_tol=1e-6)
    assert mine.value == value_of(found.cost, objective)
    assert mine.then_value == value_of(found.cost, mine.then)
    assert same_answer(narrow, wide, above, machine) is not None
    dense = load_accelerator("bit_fusion")  # here they do not
    assert same_answer(narrow, wide, search(wide, dense), dense) is None


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_quick_search_finds_a_mapping_where_its_few_ways_have_none(objective: Objective) -> None:
    """Input and output share 4,096 bits: the two chains that the quick search solves for energy do not fit together."""
    simba = load_accelerator("simba")
    nodes = tuple(
        dataclasses.replace(node, size_bits=4096) if node is simba.activation_memory else node
        for node in simba.hierarchy
    )
    machine = dataclasses.replace(simba, hierarchy=nodes)
    layer = conv(12, 3, 6, 3)
    layer = dataclasses.replace(layer, output=dataclasses.replace(layer.output, bits=32))
    quick, proven = (search(layer, machine, objective, effort=effort) for effort in ("quick", "proven"))
    assert quick.certificate.value >= proven.certificate.value * (1 - 1e-12)
    assert quick.certificate.lower_bound <= proven.certificate.value * (1 + 1e-12)
