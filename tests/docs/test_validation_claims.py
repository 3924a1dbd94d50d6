"""Sentences of docs/validation.md whose numbers no program writes, beside the rows that they speak of.

After a law changes: `python -m experiments.validate --search --out results --page docs/validation.md`.
"""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parents[2]
TEXT = " ".join((ROOT / "docs" / "validation.md").read_text(encoding="utf-8").split())
Found = dict[str, dict[str, str]]


def rows(study: str, quantity: str = "", role: str = "") -> Found:
    """Rows of results/validation.csv by item."""
    with (ROOT / "results" / "validation.csv").open(encoding="utf-8") as file:
        return {
            row["item"]: row
            for row in csv.DictReader(file)
            if row["study"] == study and quantity in ("", row["quantity"]) and role in ("", row["role"])
        }


def said(pattern: str) -> tuple[float, ...]:
    """The numbers of the one place where the page says this."""
    found = re.findall(pattern, TEXT)
    assert len(found) == 1, f"{pattern}: {len(found)} places"
    return tuple(float(n) for n in (found[0] if isinstance(found[0], tuple) else (found[0],)))


def number(found: Found, item: str, column: str = "published") -> float:
    """One number of a row."""
    return float(found[item][column])


def test_eyeriss_traffic_and_its_second_layer() -> None:
    dram, latency = rows("eyeriss_alexnet", "DRAM traffic"), rows("eyeriss_alexnet", "processing latency")
    (within,) = said(r"That leaves DRAM traffic within (\d+) % in all")
    assert 100 * abs(number(dram, "all five", "error")) <= within
    (fast,) = said(r"CONV2 stays (\d+) % too fast")
    assert round(-100 * number(latency, "CONV2", "error")) == fast
    saved, zeros, each = said(r"Gating saves (\d+) % .* At the ([\d.]+) % of zeros .* saves (\d+) % of its PE's energy")
    assert round(100 * saved / zeros) == each


def test_t4_layers_of_one_shape_and_what_the_fastest_starts_leave() -> None:
    int8, int4, gain = (rows("hawqv3_t4", name) for name in ("int8 latency", "int4 latency", "int8 / int4"))
    third, fourth = said(r"took (\d+) and (\d+) % less time")
    assert round(100 * (1 - number(int8, "layer 2") / number(int8, "layer 0"))) == third
    assert round(100 * (1 - number(int8, "layer 3") / number(int8, "layer 1"))) == fourth
    least, most = said(r"at half the rate of int4, where others gain ([\d.]+) to ([\d.]+\d)")
    deep = ("layer 5", "layer 7", "layer 8")
    assert all(round(number(gain, name), 1) == 2 for name in deep)
    others = [number(gain, name) for name in gain if name not in deep]
    assert (round(min(others), 1), round(max(others), 1)) == (least, most)
    (whole,) = said(r"would leave [\d.]+ % of the ([\d.]+) % of int4")
    (left,) = said(r"than the calibrated one: without them ([\d.]+) % is left")
    errors = {name: 100 * abs(number(int4, name, "error")) for name in int4 if int4[name]["role"] == "check"}
    assert round(mean(errors.values()), 1) == whole
    assert round(mean(e for name, e in errors.items() if name not in ("layer 11", "layer 16")), 1) == left


def test_gemminis_first_layer_and_its_slowest() -> None:
    cycles = rows("gemmini_rtl", "cycles")
    (within,) = said(r"ResNet's first layer is within (\d+) %")
    assert all(100 * abs(number(cycles, n, "error")) <= within for n in cycles if " 3x64x112x112x7 " in n)
    least, most = said(r"the RTL takes ([\d.]+) to ([\d.]+) times as long there")
    thin = [1 / (1 + number(cycles, n, "error")) for n in cycles if re.search(r" 1x64x570| 64x2x388", n)]
    assert (round(min(thin), 1), round(max(thin), 1)) == (least, most)
    low, high = said(r"under one mapping took (\d+) and (\d+) million cycles")
    large = [number(cycles, n) for n in cycles if " 1024x512x54x54x3 " in n]
    assert {low, high} <= {round(n / 1e6) for n in large}


def test_colonnades_columns_and_what_one_bit_costs() -> None:
    pj = rows("colonnade", "energy per MAC")
    weights = said(r"So 128 columns hold (\d+), (\d+), (\d+), (\d+) and (\d+) weights of 1, 2, 4, 8 and 16 bits")
    assert weights == tuple(128 // (bits + math.log2(128)) for bits in (1, 2, 4, 8, 16))
    chip, ours = said(r"the chip 1/(\d+), this 1/(\d+)")
    assert round(number(pj, "8 x 8 bits") / number(pj, "1 x 1 bits")) == chip
    assert round(number(pj, "8 x 8 bits", "ours") / number(pj, "1 x 1 bits", "ours")) == ours


def test_sub_word_arrays_and_bricks_at_two_bits() -> None:
    fj = rows("psma_28nm", "energy per MAC")
    assert "Sub-word arrays take nine times less energy at 2 x 2 than at 8 x 8, not sixteen." in TEXT
    assert round(number(fj, "sub-word, median, 8x8") / number(fj, "sub-word, median, 2x2")) == 9
    assert "bricks at 2 x 2 cost less than a sixteenth" in TEXT
    for kind in ("median of all", "Bit Fusion", "BitBlade"):
        assert number(fj, f"fusion, {kind}, 2x2") < number(fj, f"fusion, {kind}, 8x8") / 16


def test_tpus_lstm_is_the_worst_and_ethos_has_the_mean_that_the_front_page_gives() -> None:
    tpu = rows("tpu_v1", "throughput", "check")
    assert "It stays worst" in TEXT
    assert max(tpu, key=lambda name: abs(number(tpu, name, "error"))) == "LSTM1"
    before, after = (
        said(r"the mean of both networks is ([\d.]+) %")[0],
        rows("ethos_u55_256", "cycles, network", "check"),
    )
    assert before > 100 * mean(abs(number(after, name, "error")) for name in after)
