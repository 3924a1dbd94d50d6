"""The look-up table: its rows are the layers of `evaluate`, exactly; what the machine refuses is said."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import CapabilityError, InfeasibleMapping
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.network.bits import assign_bits
from hwsim.network.layer import Layer, Loops
from hwsim.network.workload import Workload
from hwsim.pricing.fit import overflows
from hwsim.report.evaluation import Request, evaluate_workload
from hwsim.report.look_up import look_up_table, parse_pairs
from hwsim.search.objective import OBJECTIVES, Objective, objective_value
from hwsim.table import main
from hwsim.tables.assignments import assignment_rows
from hwsim.tables.network_table import NetworkTable
from tests.search.test_passes import block, machine
from tests.strategies import conv

PAIRS = ("W8A8", "W8A4", "W4A4")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("HWSIM_CACHE", str(cache))


@pytest.fixture
def chain() -> Workload:
    """A convolution, its activation, a depthwise convolution with stride, and a pointwise one."""
    first = conv(Loops(K=16, C=3, P=16, Q=16, R=3, S=3), name="first")
    relu = Layer("relu", "relu", (first.output,), dataclasses.replace(first.output, name="relu.y", signed=False))
    deep = conv(Loops(G=16, P=7, Q=7, R=3, S=3), stride=(2, 2), name="deep")
    cropped = dataclasses.replace(relu.output, shape=deep.inputs[0].shape)
    pad = Layer("crop", "copy", (relu.output,), dataclasses.replace(cropped, name="crop.y"))
    deep = dataclasses.replace(deep, inputs=(pad.output,))
    last = dataclasses.replace(conv(Loops(K=8, C=16, P=7, Q=7), name="last"), inputs=(deep.output,))
    return Workload("chain", [first, relu, pad, deep, last])


def test_sixteen_bits_mean_what_they_mean_to_evaluate(chain: Workload) -> None:
    """Floats, not integers: a machine that has none refuses the pair."""
    machine = load_accelerator("cortex_m7")
    with pytest.raises(CapabilityError, match="got fp16"):
        evaluate_workload(chain, machine, Request(bits="W16A16"))
    assert "got fp16" in look_up_table(chain, machine, ["W8A8", "W16A16"]).refused[0][1]


@pytest.mark.long
def test_rows_of_a_format_are_the_layers_of_evaluate(chain: Workload) -> None:
    """Formats of equal widths, one after another: no row is another format's."""
    accelerator = load_accelerator("a100")
    asked = parse_pairs("W4A16,w4G32a16, W4g8zA16,W8A8,W4g32A8,W16A16")
    assert asked == ("W4A16", "W4g32A16", "W4g8zA16", "W8A8", "W4g32A8", "W16A16")
    table = look_up_table(chain, accelerator, asked, first_last="same")
    found: set[float] = set()
    for bits in asked:
        totals = evaluate_workload(chain, accelerator, Request(bits=bits, first_last="same")).cost.totals
        rows = [row.cost for row in table.rows if row.bits == bits]
        assert sum(cost.total_energy_pj for cost in rows) == totals.energy_pj
        assert sum(cost.latency_cycles for cost in rows) == totals.latency_cycles
        found.add(totals.energy_pj)
    assert len(found) == len(asked)


@pytest.mark.long
@pytest.mark.parametrize("spec", ["bit_fusion", "eyeriss_v2"])
def test_rows_of_a_pair_are_the_layers_of_evaluate(chain: Workload, spec: str) -> None:
    accelerator = load_accelerator(spec)
    pairs = [p for p in PAIRS if int(p[1]) in accelerator.capabilities.weight_bits]
    table = look_up_table(chain, accelerator, pairs)
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert len(rows) == len(pairs) * len(chain)
    for pair in pairs:
        report = evaluate_workload(chain, accelerator, Request(bits=pair))
        mine = [row for row in rows if row["bits"] == pair]
        assert [row["layer"] for row in mine] == [layer.name for layer in report.workload]
        assert sum(float(row["energy_pj"]) for row in mine) == report.cost.totals.energy_pj
        assert sum(int(row["cycles"]) for row in mine) == report.cost.totals.latency_cycles
        for row, layer, cost in zip(mine, report.workload, report.cost.layers, strict=True):
            assert (int(row["weight_bits"]), int(row["input_bits"])) == layer.bits_key()[:2]
            assert {dim: int(row[dim]) for dim in layer.loops.as_dict()} == layer.loops.as_dict()
            assert row["bottleneck"] == cost.bottleneck
    assert {row["stride_rows"] for row in rows if row["layer"] == "deep"} == {"2"}


def test_alone_no_row_depends_on_its_neighbours(chain: Workload) -> None:
    """With a large on-chip memory the network keeps tensors there; alone, each row is the price of one layer."""
    accelerator = load_accelerator("cortex_m7")
    together = look_up_table(chain, accelerator, ["W8A8"])
    alone = look_up_table(chain, accelerator, ["W8A8"], alone=True)
    assert sum(r.cost.total_energy_pj for r in alone.rows) > sum(r.cost.total_energy_pj for r in together.rows)
    last = next(layer for layer in chain if layer.name == "last")
    single = look_up_table(Workload("last", (last,)), accelerator, ["W8A8"], alone=True)
    assert alone.by_key["last", "W8A8"] == single.by_key["last", "W8A8"]


@pytest.mark.long
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_rows_of_a_batch_add_up_to_the_report_and_cost_per_image_never_rises(objective: Objective) -> None:
    accelerator, values = machine(maps=5), dict[tuple[bool, int], float]()
    split = False
    for images in (1, 2, 4):
        report = evaluate_workload(block(images), accelerator, Request(objective=objective, bits="W8A8"))
        split |= bool(report.passes)
        for alone in (False, True):
            table = look_up_table(block(images), accelerator, ["W8A8"], objective, alone=alone)
            energy = sum(row.cost.total_energy_pj for row in table.rows)
            cycles = float(sum(row.cost.latency_cycles for row in table.rows))
            if not alone:
                assert (energy, cycles) == (report.totals.energy_pj, report.totals.latency_cycles)
            values[alone, images] = objective_value(objective, energy, cycles) ** (0.5 if objective == "edp" else 1)
    assert split or objective != "energy"  # energy gains from passes here
    for alone in (False, True):
        for small, large in ((1, 2), (1, 4), (2, 4)):
            assert values[alone, large] / large <= values[alone, small] / small * (1 + 1e-12), (alone, small, large)


@pytest.mark.long
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_assignments_of_a_batch_run_in_the_passes_that_cost_least(objective: Objective) -> None:
    accelerator, found = machine("eyeriss_v1", maps=5), dict[int, list[dict[str, Any]]]()
    for images in (1, 2, 4):
        coded = assign_bits(block(images), "W2A2")
        found[images] = assignment_rows("random:5", coded, accelerator, objective)
    for small, large in ((1, 2), (1, 4), (2, 4)):
        for one, other in zip(found[small], found[large], strict=True):
            cost = [
                objective_value(objective, row["energy_pj"] / n, row["cycles"] / n)
                for n, row in ((small, one), (large, other))
            ]
            assert cost[1] <= cost[0] * (1 + 1e-12)
            assert other["lower_bound_pj"] <= other["energy_pj"] * (1 + 1e-12)
            assert other["weight_bits"] == one["weight_bits"]


def test_pairs_that_the_machine_refuses_are_left_out_and_named(
    chain: Workload, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "chain.json", tmp_path / "table.json"
    chain.save(model)
    assert main([str(model), "bit_fusion", "--bits", "w8a8,W3A3", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out == f"wrote {out}: {len(chain)} rows\n"
    assert "W3A3 left out: layer first: bit_fusion capabilities.output_bits" in said.err
    table = json.loads(out.read_text())
    assert [(r["bits"], "output_bits" in r["why"]) for r in table["refused"]] == [("W3A3", True)]
    assert {row["bits"] for row in table["rows"]} == {"W8A8"}
    assert all(sum(row["energy_pj_by_component"].values()) == row["energy_pj"] for row in table["rows"])
    with pytest.raises(CapabilityError, match="output_bits"):
        look_up_table(chain, load_accelerator("bit_fusion"), ["W3A3"])
    assert main([str(model), "bit_fusion", "--bits", "W3A3,W5A5"]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bits", "W8"], "--bits: expected W<bits>A<bits>"),
        (["--bits", "W8A8,"], "--bits: expected W<bits>A<bits>"),
        (["--bits", "W8A8", "--out", "table.xls"], "ends in .csv or .json"),
    ],
)
def test_bad_input_is_one_message(
    chain: Workload, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    model = tmp_path / "chain.json"
    chain.save(model)
    assert main([str(model), "bit_fusion", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert said.err.count("\n") == 1


def test_the_table_goes_to_the_terminal_without_out(
    chain: Workload, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "chain.json"
    chain.save(model)
    assert main([str(model), "bit_fusion", "--bits", "W8A8,W8A8"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["layer"] for row in rows] == [layer.name for layer in chain]


# --- many assignments -------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_assignments_of_a_file_cost_what_the_network_costs(
    chain: Workload, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accelerator = load_accelerator("bit_fusion")
    table = NetworkTable.build(chain, accelerator, (2, 4, 8))  # quantized: its signs and offsets stay
    rows = table.random(5, np.random.default_rng(1))
    names = [column.name for column in table.columns]
    order = np.random.default_rng(2).permutation(len(names))  # the order of columns is the user's
    lines = [[names[i] for i in order], *([str(row[i]) for i in order] for row in rows)]
    asked, saved, out = tmp_path / "asked.csv", tmp_path / "chain.json", tmp_path / "priced.csv"
    asked.write_text("".join(",".join(line) + "\n" for line in lines), encoding="utf-8")
    chain.save(saved)
    assert main([str(saved), "bit_fusion", "--assignments", str(asked), "--out", str(out)]) == 0
    assert "5 assignments" in capsys.readouterr().out
    found = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    for row, line in zip(rows, found, strict=True):
        assert [int(line[name]) for name in names] == row.tolist()
        cost = table.network_cost(row).totals
        assert (float(line["energy_pj"]), int(line["cycles"])) == (cost.energy_pj, cost.latency_cycles)
        assert int(line["weight_bits"]) == cost.weight_bits


@pytest.mark.long
def test_random_assignments_use_widths_that_the_machine_has(
    chain: Workload, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "chain.json"
    chain.save(saved)
    assert main([str(saved), "bit_fusion", "--assignments", "random:50"]) == 0
    found = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(found) == 50
    assert {line["energy_pj"] for line in found} != {""}


@pytest.mark.parametrize(
    ("text", "says"),
    [("a,b\n", "line of names and a line of bits"), ("a,b\n4\n", "asked.csv:2: expected 2 widths"),
     ("a,b\n4,9\n", "asked.csv:2: expected 2 widths"), ("a,b\n4,8\n", "asked.csv:1: missing")],
)  # fmt: skip
def test_a_bad_file_of_assignments_is_named(
    chain: Workload, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    asked, saved = tmp_path / "asked.csv", tmp_path / "chain.json"
    asked.write_text(text, encoding="utf-8")
    chain.save(saved)
    assert main([str(saved), "bit_fusion", "--assignments", str(asked)]) == 2
    assert says in capsys.readouterr().err


def test_a_file_that_holds_no_assignments_is_told_once(
    chain: Workload, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, prose = tmp_path / "chain.json", tmp_path / "notes.md"
    chain.save(saved)
    prose.write_text("one\ntwo\nthree\nfour\n", encoding="utf-8")
    assert main([str(saved), "bit_fusion", "--assignments", str(prose)]) == 2
    said = capsys.readouterr().err
    assert "none of its 3 rows is one" in said
    assert said.count("\n") == 1


@pytest.mark.long
def test_a_pair_that_does_not_fit_is_left_out_as_evaluate_refuses_it(chain: Workload) -> None:
    """A flash that holds the weights at 4 bits, not at 8."""
    machine = load_accelerator("cortex_m7")

    def with_flash(bits: int) -> Accelerator:
        flash = dataclasses.replace(machine.hierarchy[0], total_bits=bits, packing="dense")
        return dataclasses.replace(machine, hierarchy=(flash, *machine.hierarchy[1:]))

    pairs = ["W4A4", "W8A8"]
    needs = [overflows(assign_bits(chain, pair), with_flash(8))[0].need_bits for pair in pairs]
    assert needs[0] < needs[1]
    tight = with_flash(needs[0])
    found = look_up_table(chain, tight, pairs)
    assert {row.bits for row in found.rows} == {"W4A4"}
    assert [(pair, "flash holds" in why) for pair, why in found.refused] == [("W8A8", True)]
    with pytest.raises(InfeasibleMapping, match="flash holds"):
        evaluate_workload(chain, tight, Request(bits="W8A8"))
    for said in ({"allow_overflow": True}, {"alone": True}):
        assert not look_up_table(chain, tight, pairs, **said).refused


@pytest.mark.parametrize("more", [["--first-last", "same"], ["--elementwise-bits", "4"], ["--allow-overflow"]])
def test_options_that_assignments_do_not_read_are_refused(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resnet8", "bit_fusion", "--assignments", "random:2", *more]) == 2
    assert f"hwsim: {more[0]}: " in capsys.readouterr().err
