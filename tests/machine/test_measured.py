"""Measured machines: rows come back exactly, errors of the rest are those of an independent left-out fit."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from hwsim.errors import CapabilityError, SpecError
from hwsim.machine.load import load_accelerator, spec_folder
from hwsim.machine.measured import Measurements, Row, read_measurements
from hwsim.network.layer import DIMS, Layer, Loops
from hwsim.network.workload import Workload
from hwsim.pricing.unit_prices import unit_prices
from hwsim.report.evaluation import Request, evaluate_workload
from hwsim.report.explain import explain
from hwsim.report.look_up import look_up_table
from hwsim.search.layer import search
from hwsim.search.objective import Objective
from hwsim.search.result import Effortful
from tests.strategies import conv, product

PUBLISHED = Path(__file__).resolve().parents[2] / "experiments" / "data" / "mico_riscv_conv_cycles.csv"


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSIM_CACHE", "")


@pytest.fixture(scope="module")
def mico() -> Measurements:
    return read_measurements(spec_folder() / "mico_measured.csv", 21.5)


def published() -> list[dict[str, int]]:
    with PUBLISHED.open() as file:
        return [{key: int(value) for key, value in row.items()} for row in csv.DictReader(file)]


def as_layer(row: dict[str, int]) -> Layer:
    """A row of the published file: sizes of the padded input."""
    rows, columns = ((row[key] - row["kernel"]) // row["stride"] + 1 for key in ("in_h", "in_w"))
    loops = Loops(K=row["k_out"], C=row["c_in"], P=rows, Q=columns, R=row["kernel"], S=row["kernel"])
    made = conv(loops, stride=(row["stride"], row["stride"]), bits=(row["w_bits"], row["a_bits"], 8))
    whole = dataclasses.replace(made.inputs[0], shape=(1, row["c_in"], row["in_h"], row["in_w"]))
    return dataclasses.replace(made, inputs=(whole,))


def test_all_736_published_rows_come_back_exactly(mico: Measurements) -> None:
    rows = published()
    assert len(rows) == len(mico.rows) == 736
    for row in rows:
        found = mico.predict(as_layer(row))
        assert (found.cycles, found.how, found.pair) == (row["cycles"], "measured", (row["w_bits"], row["a_bits"]))
        assert found.energy_pj == row["cycles"] * 21.5


def test_a_measured_layer_through_the_whole_tool() -> None:
    """Evaluate gives the table's cycles, at its energy, with a certificate that needs no search."""
    machine = load_accelerator("mico_measured")
    for row in random.Random(1).sample(published(), 3):
        layer = as_layer(row)
        report = evaluate_workload(Workload("one", [layer]), machine, Request())
        assert report.cost.totals.latency_cycles == row["cycles"]
        assert report.cost.totals.energy_pj == row["cycles"] * 21.5
        found = report.found[layer.name].certificate
        assert found.lower_bound == pytest.approx(row["cycles"] * 21.5, rel=1e-8)  # the grid of bills
        assert found.gap < 1e-8
        assert report.cost.layers[0].bottleneck == "measured"
        assert any("736 measured layers (46 shapes, 16 pairs" in line for line in report.assumptions)
        assert not report.warnings


def test_all_of_a_measured_layer_is_fixed_whatever_its_mapping() -> None:
    """A search's unit prices add nothing to the table's: no energy or cycles of traffic, MACs or time."""
    machine = load_accelerator("mico_measured")
    (row,) = random.Random(1).sample(published(), 1)
    unit = unit_prices(as_layer(row), machine)
    assert (unit.fixed_cycles, unit.fixed_pj) == (row["cycles"], row["cycles"] * 21.5)
    free = [*unit.traffic_pj.values(), *unit.port_bits.values(), *unit.held_bits.values(), *unit.hop_pj.values()]
    assert set(free) == {0.0}
    assert (unit.mac.energy_pj, unit.static_pj_per_cycle) == (0.0, 0.0)


@pytest.mark.parametrize("objective", ["energy", "latency", "edp"])
@pytest.mark.parametrize("effort", ["perfect", "proven"])
def test_a_proof_of_a_measured_layer_closes_for_every_objective(objective: Objective, effort: Effortful) -> None:
    """Its MACs have no cycles of their own, which the proof of a product of energy and time divides by."""
    machine = load_accelerator("mico_measured")
    for row in random.Random(2).sample(published(), 2):
        joules, cycles = row["cycles"] * 21.5, row["cycles"]
        worth = {"energy": joules, "latency": cycles, "edp": joules * cycles}[objective]
        known = search(as_layer(row), machine, objective, effort=effort).certificate
        assert known.value == pytest.approx(worth, rel=1e-9)
        assert known.lower_bound == pytest.approx(worth, rel=1e-8)


def test_the_stated_error_is_that_of_an_independent_left_out_fit(mico: Measurements) -> None:
    """The same model solved by another solver, one shape left out at a time, at two pairs of widths."""

    def quantities(shape: tuple[int, ...]) -> list[float]:
        loops = dict(zip(DIMS, shape[:8], strict=True))
        gathered = math.prod(loops[d] for d in "NGCRSPQ")
        macs, outputs = math.prod(shape[:8]), math.prod(loops[d] for d in "NGKPQ")
        return [macs, outputs, gathered, math.prod(loops[d] for d in "GKCRS"), 1.0]

    errors, stated = [], []
    for pair in ((8, 8), (2, 4)):
        rows = mico.by_pair[pair]
        stated.append(Measurements("part", tuple(rows)).leave_one_out)
        for left_out in rows:
            others = [row for row in rows if row is not left_out]
            x = np.array([quantities(row.shape) for row in others])
            y = np.array([row.cycles for row in others], dtype=float)
            scale = (x / y[:, None]).max(axis=0)
            solved = lsq_linear(x / y[:, None] / scale, np.ones(len(y)), bounds=(0, np.inf), method="bvls", tol=1e-14)
            mine = np.array(quantities(left_out.shape))
            logs = np.log(y / (x @ (solved.x / scale)))
            distance = np.linalg.norm(np.log(x[:, :3]) - np.log(mine[:3]), axis=1)
            weight = 1 / (distance + 1e-9) ** 4
            guess = mine @ (solved.x / scale) * math.exp(weight @ logs / weight.sum())
            errors.append(abs(guess / left_out.cycles - 1))
    assert sum(s.mean * s.tried for s in stated) / len(errors) == pytest.approx(np.mean(errors), rel=1e-4)
    assert max(s.worst for s in stated) == pytest.approx(max(errors), rel=1e-4)
    assert [s.tried for s in stated] == [46, 46]


def test_the_error_over_the_whole_table(mico: Measurements) -> None:
    """736 left-out predictions, 2026-11-20: 4.7 % on average, 49 % at worst."""
    error = mico.leave_one_out
    assert error.tried == 736
    assert error.mean == pytest.approx(0.0470, abs=0.0005)
    assert error.worst == pytest.approx(0.490, abs=0.001)


def test_a_law_of_the_models_own_form_is_found_exactly() -> None:
    """Cycles made of 2 per MAC, 30 per output and 500 to start: shapes that were never shown are met."""
    rng = random.Random(2)

    def cycles(loops: Loops) -> int:
        return 2 * loops.macs + 30 * loops.K * loops.P * loops.Q + 500

    def loops() -> Loops:
        return Loops(K=rng.randint(2, 64), C=rng.randint(2, 64), P=rng.randint(4, 32), Q=rng.randint(4, 32), R=3, S=3)

    shown = [loops() for _ in range(40)]
    rows = [Row((*s.as_tuple(), 1, 1), 8, 8, cycles(s), 3.0 * cycles(s)) for s in dict.fromkeys(shown)]
    table = Measurements("law", tuple(rows))
    assert table.leave_one_out.worst < 1e-6
    for _ in range(20):
        new = loops()
        found = table.predict(conv(new))
        assert found.cycles == pytest.approx(cycles(new), rel=1e-6)
        assert found.energy_pj == pytest.approx(3.0 * cycles(new), rel=1e-6)


def test_layers_outside_the_table_say_so(mico: Measurements) -> None:
    inside = conv(Loops(K=48, C=48, P=10, Q=10, R=3, S=3))
    assert mico.predict(inside).how == "interpolated"
    depthwise = conv(Loops(G=48, P=10, Q=10, R=3, S=3))
    assert mico.predict(depthwise).how == "extrapolated"
    report = evaluate_workload(Workload("one", [depthwise]), load_accelerator("mico_measured"), Request())
    assert "1 of 1 layers lie outside the shapes that mico_measured.csv measured (conv)" in report.warnings[0]


def test_widths_that_nobody_measured_run_in_the_cheapest_wider_pair(mico: Measurements) -> None:
    loops = Loops(K=64, C=32, P=4, Q=4, R=5, S=5)
    found = mico.predict(conv(loops, bits=(3, 5, 8)))
    wider = [mico.predict(conv(loops, bits=(w, 8, 8))) for w in (4, 8)]
    assert found.cycles == min(w.cycles for w in wider)
    assert found.pair in ((4, 8), (8, 8))
    with pytest.raises(CapabilityError, match=r"no measurement holds 9x8 operands; mico_measured\.csv has 8x8, 8x4"):
        mico.predict(conv(loops, bits=(9, 8, 8)))


def test_fewer_bits_never_cost_more_where_nothing_was_measured(mico: Measurements) -> None:
    rng = random.Random(3)
    for _ in range(10):
        sizes = {dim: rng.randint(1, 40) for dim in "KCPQ"} | {"R": 3, "S": rng.choice((1, 3))}
        cycles = {
            (w, a): mico.predict(conv(Loops(**sizes), bits=(w, a, 8))).cycles for w in range(1, 9) for a in (1, 4, 8)
        }
        for (w, a), value in cycles.items():
            assert value >= cycles[max(1, w - 1), a]
            assert value >= cycles[w, {8: 4, 4: 1, 1: 1}[a]]


def test_a_table_of_another_machine_is_a_machine(tmp_path: Path) -> None:
    """What `hwsim.table` writes for a modelled machine, read as a measured one, costs the same at the same widths."""
    layers = [conv(Loops(K=16, C=8, P=8, Q=8, R=3, S=3), name="a"), product(Loops(K=10, C=64), name="b")]
    workload = Workload("two", layers)
    modelled = look_up_table(workload, load_accelerator("cortex_m7"), ["W8A8", "W4A4"])
    (tmp_path / "table.csv").write_text(modelled.to_csv())
    spec = (spec_folder() / "mico_measured.yaml").read_text().replace("table: mico_measured.csv", "table: table.csv")
    spec = spec.replace(" energy_pj_per_cycle: 21.5,", "").replace("name: mico_measured", "name: copied")
    path = tmp_path / "copied.yaml"
    path.write_text(spec)
    copied = look_up_table(workload, load_accelerator(path), ["W8A8", "W4A4"])
    for mine, theirs in zip(copied.rows, modelled.rows, strict=True):
        assert mine.cost.latency_cycles == theirs.cost.latency_cycles
        assert mine.cost.total_energy_pj == pytest.approx(theirs.cost.total_energy_pj, abs=2**-10)
    assert json.loads(copied.to_json())["accelerator"] == "copied"


def test_explain_names_the_kernel() -> None:
    layer = conv(Loops(K=64, C=32, P=4, Q=4, R=5, S=5), bits=(4, 8, 8))
    part = explain(evaluate_workload(Workload("one", [layer]), load_accelerator("mico_measured"), Request()))[0]
    assert part.fewer is not None
    assert part.fewer.verdict == "same"
    assert part.lowest == 3
    assert part.fewer.why[0] == "kernel: measured at 4x8 instead of measured at 4x8"
    assert part.next_saving is not None
    assert part.next_saving.bits == 2


HEADER = "K,C,P,Q,R,S,weight_bits,input_bits,cycles\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a header and 1 to 100,000 rows, got 0 rows"),
        (HEADER, "got 0 rows"),
        ("K,C,cycles\n1,1,1\n", "t.csv:1: column 'weight_bits' is missing"),
        (HEADER.replace("Q", "P") + "1,1,1,1,1,1,8,8,5\n", "t.csv:1: column 'P' stands there twice"),
        (HEADER + "1,1,1,1,1,1,8,8\n", "t.csv:2: expected 9 values, got 8"),
        ("# remark\n" + HEADER + "1,1,1,1,1,1,8,8,0\n", "t.csv:3: cycles: expected a positive whole number, got '0'"),
        (HEADER + "1,1,1,1,1,1,80,8,5\n", "t.csv:2: weight_bits: expected at most 64 bits, got 80"),
        (HEADER + "1,1,1,1,1,1,8,8,5\n1,1,1,1,1,1,8,8,6\n", "t.csv:3: measured before, in line 2, with another result"),
        (HEADER.replace("cycles", "cycles,energy_pj") + "1,1,1,1,1,1,8,8,5,nan\n", "energy_pj: expected a positive"),
        (
            HEADER + '1,1,1,1,1,1,8,8,"5\n2,1,1,1,1,1,8,8,0\n',
            "t.csv:3: cycles: expected a positive whole number, got '0'",
        ),
        (
            HEADER + f"{'1' * 200_000},1,1,1,1,1,8,8,5\n",
            "t.csv: cannot be read as a table",
        ),
        (HEADER.replace("cycles", "cycles,op") + "1,1,1,1,1,1,8,8,5,relu\n", "no row is a layer with MACs"),
    ],
)
def test_a_bad_table_is_named_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(SpecError) as problem:
        read_measurements(path)
    assert message in str(problem.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("table: mico_measured.csv", "table: none.csv", "mac.table: no such file beside the spec: 'none.csv'"),
        (" energy_pj_per_cycle: 21.5,", "", "mac.energy_pj_per_cycle: missing key: the table has no column energy_pj"),
        (
            "weight_bits: 1..8, act",
            "weight_bits: 1..9, act",
            "at most the 8 bits that mico_measured.csv measured, got 9",
        ),
        ("mac: {", "  - {array: a, axes: {x: {size: 2, dims: [K]}}, source: s}\nmac: {", "the outermost memory alone"),
    ],
)
def test_a_spec_that_contradicts_its_table_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    spec = (spec_folder() / "mico_measured.yaml").read_text()
    assert old in spec
    (tmp_path / "mico_measured.csv").write_bytes((spec_folder() / "mico_measured.csv").read_bytes())
    path = tmp_path / "mine.yaml"
    path.write_text(spec.replace(old, new))
    with pytest.raises(SpecError) as problem:
        load_accelerator(path)
    assert message in str(problem.value)
    assert str(path) in str(problem.value)


def test_other_columns_are_ignored_and_missing_loops_are_one(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    text = io.StringIO()
    csv.writer(text).writerows([["note", "K", "C", "weight_bits", "input_bits", "cycles"], ["x", 4, 16, 8, 8, 99]])
    path.write_text(text.getvalue())
    table = read_measurements(path)
    assert table.ignored == ("note",)
    assert table.predict(product(Loops(K=4, C=16))).cycles == 99
