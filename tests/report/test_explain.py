"""What one bit changes: differences equal bills priced from scratch, useless widths follow packing, reasons hold."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import jsonschema
import pytest

from hwsim.evaluate import main
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import OPERANDS, Accelerator, Capabilities, MacUnit, Memory
from hwsim.nest.count import count_accesses
from hwsim.nest.mapping import Hold, Mapping, Temporal
from hwsim.network.format_bits import assign_formats
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.layer import price
from hwsim.pricing.stages import Stage
from hwsim.report.evaluation import Request, evaluate_workload
from hwsim.report.explain import Explanation, explain, explanation_lines
from hwsim.report.report import SCHEMA_FILE, Report
from hwsim.report.widths import Study
from hwsim.search.network import given_mappings, planned
from tests.strategies import conv, machine, product


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSIM_CACHE", "")


def quiet(*nodes: Memory, accumulator_bits: int = 8) -> Accelerator:
    """A machine without leakage whose partial sums have one width, whatever the operands have."""
    made = machine(*nodes)
    mac = MacUnit("fixed", 8, 8, accumulator_bits, 1.0)
    return dataclasses.replace(made, static_power_mw=1e-12, mac=mac)


def memory(name: str, size_bits: int | None = None, **changes: object) -> Memory:
    base = Memory(name, size_bits, OPERANDS, word_bits=16, read_energy_pj=1.0, write_energy_pj=1.0)
    return dataclasses.replace(base, **changes)


def report_of(layer: Layer, accelerator: Accelerator, mapping: Mapping | None = None) -> Report:
    """One layer alone, under a given mapping or a searched one."""
    workload = Workload("one", [layer])
    if mapping is None:
        return evaluate_workload(workload, accelerator, Request())
    plan = planned(workload, accelerator, given_mappings(workload, accelerator, {layer.name: mapping}))
    return Report(workload, accelerator, plan.cost, plan.found, "energy")


def by_operand(report: Report) -> dict[str, Explanation]:
    return {part.operand: part for part in explain(report)}


def outside(layer: Layer) -> Mapping:
    loops = tuple(Temporal(dim, n) for dim, n in layer.loops.as_dict().items() if n > 1)
    return Mapping((Hold("dram", OPERANDS), *loops))


def with_bits(layer: Layer, operand: str, bits: int) -> Layer:
    assert layer.weight is not None
    if operand == "weight":
        return dataclasses.replace(layer, weight=dataclasses.replace(layer.weight, bits=bits))
    return dataclasses.replace(layer, inputs=(dataclasses.replace(layer.inputs[0], bits=bits),))


@pytest.mark.parametrize("spec", ["eyeriss_v2", "bit_fusion", "bitblade", "unpu", "sram_imc", "gemmini_16x16"])
def test_differences_equal_bills_priced_from_scratch(spec: str) -> None:
    """Every stated difference is that of two calls of `price` with the same counts."""
    accelerator = load_accelerator(spec)
    layer = conv(Loops(K=16, C=8, P=6, Q=6, R=3, S=3), bits=(8, 8, 8))
    report = report_of(layer, accelerator)
    mapping = report.found[layer.name].mapping
    counts = count_accesses(layer, mapping, accelerator)
    now = price(layer, counts, accelerator)
    checked = 0
    for part in explain(report):
        for change in (part.fewer, part.more, part.next_saving):
            if change is None or change.remapped or change.verdict not in ("saves", "same", "costs"):
                continue
            then = price(with_bits(layer, part.operand, change.bits), counts, accelerator)
            assert change.energy_pj == then.total_energy_pj - now.total_energy_pj
            assert change.cycles == then.latency_cycles - now.latency_cycles
            checked += 1
        for bits in range(part.lowest, part.highest + 1):
            if bits in (accelerator.capabilities.weight_bits if part.operand == "weight" else range(1, 9)):
                then = price(with_bits(layer, part.operand, bits), counts, accelerator)
                assert (then.total_energy_pj, then.latency_cycles) == (now.total_energy_pj, now.latency_cycles)
    assert checked >= 2


def test_floor_packing_makes_steps_and_they_are_named() -> None:
    """16-bit words hold two operands of 6, 7 or 8 bits, three of 5, one of 9 and more."""
    layer = product(Loops(K=16, C=64), bits=(8, 8, 8))
    part = by_operand(report_of(layer, quiet(memory("dram", packing="floor")), outside(layer)))["weight"]
    assert (part.lowest, part.highest, part.useless_bits, part.free_bits) == (6, 8, 2, 0)
    assert part.fewer is not None
    assert part.fewer.verdict == "same"
    assert part.fewer.why == (
        "MAC: as before (padded to 8x8)",
        "dram: weight words as before, a word of 16 bits holds 2 at either width",
        "time as before: compute-bound",
    )
    assert part.next_saving is not None
    assert part.next_saving.bits == 5
    assert part.next_saving.energy_pj == -(1024 // 2 - -(-1024 // 3))
    assert part.more.verdict == "costs"
    assert part.more.energy_pj == 512 + 1024  # twice the words, and a second pass of every MAC
    assert part.more.cycles == 1024


def test_dense_packing_makes_every_bit_count() -> None:
    layer = product(Loops(K=16, C=64), bits=(6, 8, 8))
    part = by_operand(report_of(layer, quiet(memory("dram")), outside(layer)))["weight"]
    assert (part.lowest, part.highest) == (6, 6)
    assert part.fewer is not None
    assert (part.fewer.verdict, part.more.verdict) == ("saves", "costs")
    assert part.fewer.energy_pj == -1024 / 16
    assert "dram: weight words -16.7 %" in part.fewer.why
    assert part.fewer.cycles == 0


def test_a_port_that_bounds_the_time_is_named() -> None:
    layer = product(Loops(K=16, C=64), bits=(8, 8, 8))
    slow = quiet(memory("dram", read_bandwidth_bits_per_cycle=1.0))
    part = by_operand(report_of(layer, slow, outside(layer)))["weight"]
    assert part.fewer is not None
    assert part.fewer.cycles == -1024
    assert part.fewer.why[-1].endswith("bandwidth-bound at dram read")
    fast = quiet(memory("dram", read_bandwidth_bits_per_cycle=1e6))
    part = by_operand(report_of(layer, fast, outside(layer)))["weight"]
    assert part.fewer is not None
    assert part.fewer.why[-1] == "time as before: compute-bound"


def test_refusals_name_the_rule() -> None:
    layer = product(Loops(K=4, C=4), bits=(8, 8, 8))
    picky = dataclasses.replace(quiet(memory("dram")), capabilities=Capabilities((4, 8), (8,), (8,)))
    parts = by_operand(report_of(layer, picky, outside(layer)))
    weight = parts["weight"].fewer
    assert weight is not None
    assert (weight.verdict, weight.why) == ("refused", ("capabilities.weight_bits: expected one of 4, 8 bits, got 7",))
    assert parts["weight"].next_saving is not None
    assert parts["weight"].next_saving.bits == 4
    assert parts["input"].next_saving is None


def test_a_width_that_does_not_fit_is_said_with_the_memory() -> None:
    layer = product(Loops(K=4, C=64), bits=(8, 8, 8))
    tight = quiet(memory("dram"), memory("buffer", 4 * 64 * 8 + 64 * 8 + 4 * 8))
    mapping = Mapping((Hold("dram", OPERANDS), Hold("buffer", OPERANDS), Temporal("K", 4), Temporal("C", 64)))
    part = by_operand(report_of(layer, tight, mapping))["weight"]
    assert part.more.verdict == "does not fit"  # a given mapping is not replaced
    assert "buffer holds 2,592 bits" in part.more.why[0]
    searched = by_operand(report_of(layer, tight))["weight"]
    assert searched.more.verdict == "costs"
    assert searched.more.remapped == ("does not fit any more" in searched.more.why[0])


def test_tiles_that_grow_at_the_same_price_are_searched_before_a_bit_is_called_useless() -> None:
    """Outside, a weight takes a whole word at any width; inside, narrower weights leave room for larger tiles."""
    layer = product(Loops(K=8, C=32, P=64), bits=(8, 8, 8))
    shape = memory("buffer", 1024, word_bits=1, read_energy_pj=0.0, write_energy_pj=0.0)
    part = by_operand(report_of(layer, quiet(memory("dram", packing="padded"), shape)))["weight"]
    assert part.next_saving is not None
    assert part.next_saving.remapped
    assert part.next_saving.verdict == "saves"
    assert part.next_saving.bits < part.lowest


@pytest.mark.parametrize(
    ("bits", "spec", "other"), [("W4g32A8", "block_array", "W2g32A8"), ("MXFP4", "block_array", "WMXFP6AMXFP4")]
)
def test_formats_are_compared_with_other_elements_under_the_same_scales(bits: str, spec: str, other: str) -> None:
    layer = Layer(
        "fc", "linear", (Tensor("x", (8, 64), origin="image"),), Tensor("y", (8, 32), origin="linear"),
        Tensor("fc.weight", (32, 64), origin="weight"), Loops(N=8, K=32, C=64),
    )  # fmt: skip
    here, there = (assign_formats(Workload("one", [layer]), b, "same") for b in (bits, other))
    machine = load_accelerator(spec)
    report = evaluate_workload(here, machine, Request(effort="quick"))
    part = by_operand(report)["weight"]
    found = report.found["fc"]
    wanted = price(there.layers[0], found.counts, machine).total_energy_pj
    changed = next(c for c in (part.fewer, part.more, part.next_saving) if c is not None and c.verdict != "refused")
    bits_there = there.layers[0].weight.bits  # type: ignore[union-attr]
    study = Study(Stage(report.workload.layers[0], ()), found, machine, frozenset(report.cost.resident), "energy")
    change = study.change("weight", bits_there)
    assert change.energy_pj == pytest.approx(wanted - study.cost.total_energy_pj)
    assert changed.verdict in ("saves", "same", "costs")
    if bits == "MXFP4":
        assert study.change("weight", 5).why == ("no e2m1 or other float has 5 bits",)
        assert (part.more.bits, part.fewer) == (6, None)


def test_layers_that_share_a_tensor_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = product(Loops(K=8, C=8, P=4), name="first")
    second = dataclasses.replace(product(Loops(K=4, C=8, P=4), name="second"), inputs=(first.output,))
    path = tmp_path / "two.json"
    Workload("two", [first, second]).save(path)
    assert main([str(path), "gemmini_16x16", "--explain", "--json", "--out", str(tmp_path / "out")]) == 0
    report = json.loads(capsys.readouterr().out)
    jsonschema.validate(report, json.loads(SCHEMA_FILE.read_text()))
    found = {(part["layer"], part["operand"]): part for part in report["explanations"]}
    assert len(found) == 4
    assert found["second", "input"]["touched"] == ["first"]
    assert found["second", "weight"]["touched"] == []
    with (tmp_path / "out" / "explain.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["layer"], row["operand"]) for row in rows] == list(found)
    assert main([str(path), "gemmini_16x16", "--explain"]) == 0
    text = capsys.readouterr().out
    assert "What one bit would change" in text
    assert "MAC: as before (padded to 8x8)" in text


def test_equal_texts_are_printed_once() -> None:
    layers = [product(Loops(K=8, C=8), name=f"fc{i}") for i in range(6)]
    report = evaluate_workload(Workload("six", layers), load_accelerator("cortex_m7"), Request())
    explanations = explain(report)
    assert len(explanations) == 12
    lines = explanation_lines(explanations)
    assert all(line.isprintable() for line in lines)  # one line each: a terminal gets no escaped line breaks
    assert sum(line.startswith("fc0, fc1, fc2, fc3 and 2 more: weights of 8 bits") for line in lines) == 1
    assert "useless: weights of 8 bits cost what 1 do: fc0, fc1, fc2, fc3 and 2 more" in lines
