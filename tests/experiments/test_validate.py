"""Validation against published results: shapes are the papers', calibrated rows never count, errors stay in sight.

The bars are upper limits on the errors reported in docs/validation.md, so that a change of the cost model that moves
away from silicon fails here. Studies that search many layers run with `-m slow`.
"""

from __future__ import annotations

import csv
import functools
import math
from pathlib import Path

import pytest

from experiments import fusion_kinds, mac_styles, validate
from experiments.validation import (
    arithmetic,
    ethos,
    eyeriss,
    gemm,
    gemmini,
    networks,
    nvdla,
    riscv,
    synergy,
    synergy_right,
    tpu,
)
from experiments.validation.rows import Row, Study, rank_correlation, read_table
from hwsim.pricing.layer import price

ROOT = Path(__file__).parents[2]


def test_networks_have_the_published_macs() -> None:
    published = {row["layer"]: float(row["macs_1e6_batch4"]) for row in read_table("eyeriss_alexnet.csv")}
    for layer in networks.eyeriss_alexnet():
        assert layer.macs / 1e6 == pytest.approx(published[layer.name], rel=2e-4)
    hawq = [float(row["macs_1e6"]) for row in read_table("hawqv3_t4_resnet18_latency.csv")]
    assert [layer.macs / 1e6 for layer in networks.resnet18_body(1, networks.W8A8)] == pytest.approx(hawq)
    weights = [int(row["params"]) for row in read_table("hawqv3_t4_resnet18_latency.csv")]
    assert [layer.weight.elements for layer in networks.resnet18_body(8, (4, 4, 4)) if layer.weight] == weights
    assert sum(layer.macs for layer in networks.resnet50()) == 4_089_184_256
    vela = read_table("ethos_vela_layers.csv")
    for network in ("ic", "kws", "ad"):
        theirs = [int(row["macs"]) for row in vela if row["network"] == network]
        assert [layer.macs for layer in networks.TINY[network]()] == theirs
    assert sum(layer.macs for layer in networks.mobilenet_v1_quarter()) == 7_489_664


def test_an_error_is_relative_to_the_published_value_and_calibrated_rows_do_not_count() -> None:
    rows = (
        Row("a", "q", "u", 10.0, 11.0),
        Row("b", "q", "u", 10.0, 7.0),
        Row("c", "q", "u", 10.0, 99.0, "calibration"),
        Row("d", "q", "u", 10.0, 99.0, "context"),
    )
    study = Study("s", "title", "source", "machine", rows, (), "why")
    assert study.mean_error("q") == pytest.approx(0.2)
    worst = study.worst("q")
    assert worst is not None
    assert worst.item == "b"
    assert math.isnan(study.mean_error("other"))
    assert Row("z", "q", "u", 0.0, 1.0).error == math.inf
    assert rank_correlation([(1, 10), (2, 20), (3, 15)]) == pytest.approx(0.5)


@pytest.mark.long
def test_eyeriss_uses_the_chips_elements_and_comes_within_its_known_limits() -> None:
    study = eyeriss.study()
    assert [row.ours for row in study.rows if row.quantity == "active PEs"] == [154, 135, 156, 156, 156]
    assert study.mean_error("processing latency") < 0.08
    assert study.mean_error("total latency") < 0.08
    assert study.mean_error("power") < 0.10
    moved = {row.item: row for row in study.rows if row.quantity == "DRAM traffic"}
    assert abs(moved["all five"].error) < 0.06
    assert max(abs(row.error) for row in moved.values()) < 0.13
    traffic = {row.item: abs(row.error) for row in study.rows if row.quantity == "buffer traffic"}
    best = {row.item: abs(row.error) for row in study.rows if row.quantity == "buffer traffic, best schedule"}
    assert traffic["CONV2"] < 0.1 < best["CONV2"]  # the chip's schedule moves what the chip moved
    for row in study.checks:
        if row.quantity == "processing latency":
            assert 0.85 < row.ours / row.published < 1.02, row


def test_precision_scalable_arrays_follow_their_styles() -> None:
    """The 8x4, 8x2, 4x4 and 2x2 energies from the 8x8 one: within 11 % for fused bricks, a third for the others."""
    study = arithmetic.study()
    assert study.mean_error("energy per MAC") < 0.06
    assert all(abs(row.error) < 0.11 for row in study.checks)
    calibration = [row.item for row in study.rows if row.role == "calibration"]
    assert sum(item.endswith("8x8") for item in calibration) == 5
    assert [item for item in calibration if item.endswith("2x2")] == ["bit-serial, Loom, 2x2", "sub-word, median, 2x2"]


def test_columns_of_sums_explain_the_digital_macro() -> None:
    """The product of the widths is 24 % off these rows; with the columns that do not shrink 4.4 % is left."""
    study = arithmetic.macro_study()
    assert [row.role for row in study.rows] == ["check", "check", "check", "calibration", "check"]
    assert study.mean_error("energy per MAC") < 0.06
    product = {1: 1 / 64, 2: 1 / 16, 4: 1 / 4, 16: 4.0}
    measured = {int(row.item.split()[0]): row.published for row in study.rows}
    off = [abs(share * measured[8] / measured[bits] - 1) for bits, share in product.items()]
    assert sum(off) / len(off) > 0.2


def test_weight_bound_networks_on_the_tpu_are_within_a_fifteenth_but_for_stalls() -> None:
    study = tpu.study()
    rows = {(row.item, row.quantity): row for row in study.rows}
    assert [row.item for row in study.rows if row.role == "calibration"] == ["MLP0", "MLP0"]
    assert study.mean_error("throughput") < 0.15
    for name in ("MLP1", "LSTM0"):
        assert all(abs(rows[name, quantity].error) < 0.07 for quantity in ("throughput", "active array cycles"))
    share = 12.3e12 / (34e9 * 2 * 200)  # MLP0's throughput over bandwidth times reuse
    assert rows["MLP1", "throughput"].ours == pytest.approx(share * 34e9 * 2 * 168 / 1e12, rel=0.01)
    whole = (600 / 768) ** 2  # of what is loaded is used
    assert rows["LSTM1", "throughput"].ours == pytest.approx(whole * share * 34e9 * 2 * 96 / 1e12, rel=0.02)


def test_what_one_network_calibrates_holds_for_two_others_on_ethos() -> None:
    """Neither number comes from a network that counts; without the MACs' share the mean is above 15 %."""
    study = ethos.study()
    assert {row.item.split()[0] for row in study.checks} == {"kws", "ad"}
    assert all(row.role == "calibration" for row in study.rows if row.item.split()[0] == ethos.CALIBRATED)
    assert len(study.calibrated) == 2
    assert study.mean_error("cycles, network") < 0.10
    assert study.mean_error("cycles, convolution") < 0.06
    assert study.mean_error("cycles, depthwise") < 0.08


def test_the_tpus_table_says_that_lstms_run_at_half_speed() -> None:
    """Useful MACs of the peak are operations per second over 92 TOPS for both MLPs, twice as many for both LSTMs."""
    table = {row["metric"]: row for row in read_table("tpu_v1.csv")}
    for name in tpu.WEIGHT_BOUND:
        busy = float(table["useful_macs_pct_of_peak"][name]) / 100 * 92 / float(table["teraops_per_s"][name])
        slower = tpu.activation_bits(name) / 8
        assert busy == pytest.approx(slower, rel=0.12)


def test_recorded_mappings_study_agrees_with_the_tests_of_its_parts() -> None:
    study = synergy.study()
    assert study.mean_error("cycles") == 0
    assert study.mean_error("energy") < 0.001
    (entries,) = (row for row in study.rows if row.quantity == "count entries within one word")
    assert entries.published == entries.ours == 448


def test_strides_fold_into_channels() -> None:
    """A 1x1 kernel of stride 2 is stored four times as large; taps and pixels that are read stay in one map."""
    by_name = {layer.name: layer for layer in networks.resnet50()}
    down, first = nvdla.folded(by_name["s1b0d"]), nvdla.folded(by_name["conv1"])
    assert (down.loops.K, down.loops.C, down.macs) == (512, 4 * 256, 4 * by_name["s1b0d"].macs)
    assert down.inputs[0].elements == 56 * 56 * 256  # every pixel, also those between the strides
    assert (first.loops.C, first.loops.R, first.loops.S, first.stride) == (16, 4, 4, (1, 1))
    assert nvdla.folded(by_name["s1b1b"]).shape_key() == by_name["s1b1b"].shape_key()


def test_nvdla_configurations_have_the_tables_sizes() -> None:
    for row in read_table("nvdla_resnet50.csv"):
        machine = nvdla.configuration(row)
        assert machine.mac_units == int(row["macs"])
        buffer = next(memory for memory in machine.memories if memory.name == "conv_buffer")
        assert buffer.size_bits == int(row["conv_buffer_KB"]) * 1024 * 8
        assert machine.outermost.read_bandwidth_bits_per_cycle == float(row["dram_GBps"]) * 8


def test_riscv_rates_are_fitted_on_other_shapes_than_they_are_checked_on() -> None:
    assert len(riscv.kernels()) == 736
    fitted = riscv.fit_shapes()
    assert len(fitted) == 23
    kernel = riscv.kernels()[0]
    assert (kernel.a_bits, kernel.w_bits, kernel.cycles) == (8, 8, 356551)
    assert kernel.layer().macs == 128_000


def test_the_command_writes_its_rows_and_names_unknown_studies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--only", "psma_28nm", "--rows", "--out", str(tmp_path), "--page", str(tmp_path / "page.md")]
    assert validate.main(arguments) == 0
    assert "Precision-scalable arrays" in capsys.readouterr().out
    with (tmp_path / "validation.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(arithmetic.study().rows)
    assert float(rows[1]["error"]) == pytest.approx(float(rows[1]["ours"]) / float(rows[1]["published"]) - 1, abs=1e-3)
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "Calibrated:\n\n- one energy per array, at 8 x 8 bits\n- sum_bits " in page
    assert validate.main(["--only", "nothing"]) == 2
    assert "expected some of eyeriss_alexnet" in capsys.readouterr().err


# --- MAC styles move as their sources say ----------------------------------------------------------------------------

# Times faster than 8x8 at W4A8, W2A8, W4A4, W2A2, as the machines' sources say.
SPEED_UPS = {
    "gemmini_16x16": (1, 1, 1, 1),  # int8 only
    "t4": (1, 1, 2, 2),  # 130 and 260 TOPS; both operands must be narrow
    "unpu": (2, 4, 2, 4),  # serial in the weight's bits
    "bismo": (2, 4, 4, 16),  # run time proportional to weight bits times activation bits
    "bit_fusion": (2, 4, 4, 8),  # bricks of 2 x 2 bits; 128 channels fill half of 16 rows of 16 products
    "bitblade": (2, 4, 4, 14.4),  # measured modes; 9 terms of 8 channels fill 4.5 of 5 times 16 products
    "sram_imc": (2, 2, 4, 8),  # cells per weight times input phases; 128 output channels fill half of the columns
}


@pytest.mark.parametrize("name", mac_styles.MACHINES)
def test_throughput_moves_with_bits_as_the_style_says(name: str) -> None:
    points = mac_styles.measure(name)
    speed = mac_styles.gains(points, "compute_cycles")
    assert speed[1:] == pytest.approx(SPEED_UPS[name], rel=0.005)  # a systolic array's fill does not shrink
    energy = mac_styles.gains(points, "mac_pj")
    assert all(later >= 1 for later in energy)
    if name == "gemmini_16x16":
        assert energy == [1, 1, 1, 1, 1]
    else:
        assert energy[-1] > 1.9
    for point in points:
        assert point.latency_cycles >= point.compute_cycles


def test_the_figure_is_drawn_from_its_csv(tmp_path: Path) -> None:
    points = mac_styles.measure("bit_fusion")
    path = tmp_path / "styles.csv"
    path.write_bytes(mac_styles.to_csv(points))
    assert mac_styles.from_csv(path) == points
    assert len(mac_styles.draw([p for name in mac_styles.MACHINES for p in relabelled(points, name)]).axes) == 3


def relabelled(points: list[mac_styles.Point], name: str) -> list[mac_styles.Point]:
    """The same points under another machine's name."""
    return [mac_styles.Point(name, *(getattr(p, field) for field in mac_styles.FIELDS[1:])) for p in points]


@pytest.mark.slow
def test_the_closest_systems_study_priced_right() -> None:
    """MobileNetV1 as published has 569 million MACs; each correction moves the saving in a direction that follows."""
    assert sum(layer.macs for layer in synergy_right.mobilenet_v1(8, 16)) == 568_740_352
    recorded, depthwise, sums, macs = synergy_right.energies().values()
    assert recorded[8] == pytest.approx(17101, abs=1)  # the study's own total
    assert depthwise[8] < recorded[8] / 4
    for width in synergy_right.WIDTHS:
        assert depthwise[width] <= sums[width]  # wider sums never cost less
        assert macs[width] < sums[width]
    assert 1 - macs[2] / macs[8] > 1 - sums[2] / sums[8]


def test_bricks_gain_where_channels_fill_them() -> None:
    """The figure's claims: nothing on depthwise layers, 3 times on 3 channels, nearly 16 times on 256."""
    gains = {(kind, bits): gain for kind, bits, _, gain in fusion_kinds.measure()}
    assert gains["depthwise 3x3", 2] == 1.0
    assert gains["first 7x7, 3 channels", 2] == pytest.approx(3, rel=0.01)
    assert gains["1x1", 2] == pytest.approx(16, rel=0.02)
    assert gains["3x3", 2] == pytest.approx(16, rel=0.02)


def test_gemmini_rows_are_priced_under_their_own_nests() -> None:
    """ResNet's first layer: 49 taps x 12,544 pixels x 4 groups of columns, and the fill of the mesh."""
    rows = read_table("gemmini_rtl_firesim.csv")
    first = next(row for row in rows if (row["C"], row["R"]) == ("3", "7"))
    plain = 49 * 12_544 * 4 + 46
    assert plain < gemmini.cycles_of(first) < 1.01 * plain  # and its first tiles
    study = gemmini.study()
    assert study.mean_error("cycles") < 0.20
    assert all(row.role == "check" for row in study.rows)


@pytest.mark.slow
def test_matrix_products_on_the_a100_and_which_format_is_faster() -> None:
    study = gemm.study()
    bars = {"latency, bf16": 0.11, "latency, W8A8": 0.15, "latency, W8A16": 0.12, "latency, W4A16": 0.15}
    for quantity, bar in bars.items():
        assert study.mean_error(quantity) < bar
    assert sum(row.role == "check" for row in study.rows) == 4 * 42
    fitted = frozenset(gemm.fit_shapes())
    ours = {
        name: {s: k.us(s, *k.fit(tuple(sorted(fitted)))) for s in k.measured_us} for name, k in gemm.kernels().items()
    }
    right, cells = gemm.faster(ours, fitted, "int4_wo")
    assert right >= 0.9 * cells > 0


PLAIN = ("tpu_v1", "nvdla_resnet50", "a100_decode", "psma_28nm", "colonnade")  # the others search for minutes
GATED = [pytest.param(name, marks=() if name in PLAIN else pytest.mark.slow) for name in validate.STUDIES]


@functools.cache
def study_of(name: str) -> Study:
    return validate.STUDIES[name]()


@pytest.mark.long
@pytest.mark.parametrize("name", GATED)
def test_the_page_says_what_the_study_says(name: str) -> None:
    """docs/validation.md is as the command writes it: text, calibrated numbers and rows."""
    page = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    assert "\n".join(validate.study_lines(study_of(name))).rstrip() in page
    head, _, _ = validate.page([]).partition("| result |")
    assert page.startswith(head)


@pytest.mark.parametrize("name", GATED)
def test_no_mean_error_grows_by_more_than_a_point_against_the_committed_results(name: str) -> None:
    """The fidelity gate: a law that makes an agreement worse shows in results/validation_studies.csv, with a note."""
    study = study_of(name)
    with (ROOT / "results" / "validation_studies.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["study"] == study.name]
    committed = {row["quantity"]: float(row["mean_error"]) for row in rows}
    assert committed, f"no rows of {name}: python -m experiments.validate --search --out results"
    for quantity, error in committed.items():
        assert study.mean_error(quantity) <= error + 0.01, f"{name}, {quantity}: {error:.4f} before"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "quantity", "bar"),
    [
        ("hawqv3_t4", "int8 latency", 0.12),
        ("hawqv3_t4", "int4 latency", 0.16),
        ("nvdla_resnet50", "frames per second, direct convolution", 0.15),
        ("a100_decode", "latency", 0.35),
        ("mico_riscv", "cycles, equal widths", 0.12),
        ("mico_riscv", "cycles, mixed widths", 0.10),
        ("mlperf_tiny_m7", "latency", 0.28),
        ("ethos_u55_256", "cycles, network", 0.15),
    ],
)
def test_published_results_stay_within_the_reported_error(name: str, quantity: str, bar: float) -> None:
    assert validate.STUDIES[name]().mean_error(quantity) < bar


def test_a_narrow_operand_saves_loads_beside_a_wide_one() -> None:
    """Mixed widths compute in the wider operand's mode and load the sum: between both narrow and both wide."""
    machine = riscv.with_rates(riscv.load_accelerator("mico_riscv"), 2.5, 46.0)
    kernel = riscv.kernels()[16]
    counts = riscv.search(kernel.layer(), machine, "latency").counts
    by_pair = {
        (k.a_bits, k.w_bits): price(k.layer(), counts, machine).latency_cycles
        for k in riscv.kernels()
        if k.shape == kernel.shape
    }
    for (a, w), cycles in by_pair.items():
        assert by_pair[min(a, w), min(a, w)] <= cycles <= by_pair[max(a, w), max(a, w)]
        if a != w:
            assert cycles < by_pair[max(a, w), max(a, w)]
            assert cycles == by_pair[w, a]  # loads go with the sum
