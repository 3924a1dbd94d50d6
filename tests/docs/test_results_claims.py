"""What docs/results.md says in sentences is what its CSVs and tables say; the tables have a test of their own."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
PAGE = " ".join(TEXT.split())
Row = dict[str, str]


def said(pattern: str) -> tuple[float, ...]:
    """The numbers that the page gives where `pattern` matches; it must match."""
    found = re.search(pattern, PAGE)
    assert found, f"docs/results.md says nothing like {pattern}"
    return tuple(float(number) for number in found.groups())


def rows(path: str, **where: str) -> list[Row]:
    """Rows of a CSV with these values."""
    with (ROOT / path).open(encoding="utf-8", newline="") as file:
        found = [row for row in csv.DictReader(file) if all(row[key] == value for key, value in where.items())]
    assert found, f"{path} has no row with {where}"
    return found


def digits(machine: str, bits: str, config: str, policy: str = "pad_code") -> Row:
    """The price of a configuration of the digits' SiLU network."""
    (row,) = rows("results/digits/pareto.csv", network="silu_se_net", accelerator=machine, bits=bits, config=config,
                  padding_policy=policy, status="ok")  # fmt: skip
    return row


MACHINES = tuple(dict.fromkeys(row["accelerator"] for row in rows("results/digits/pareto.csv")))
ZEROS = tuple(machine for machine in MACHINES if machine not in ("ethos_u55_256", "t4"))  # pad with zeros only


def offset_percent(machine: str, policy: str) -> float:
    """What configuration 4 adds to configuration 1's energy at W2A2."""
    energies = (float(digits(machine, "W2A2", *which)["energy_pj"]) for which in (("4", policy), ("1",)))
    return 100 * (next(energies) / next(energies) - 1)


def block(begins: str) -> dict[str, list[str]]:
    """Cells of a generated table by those of its first column."""
    text = TEXT.split(f"<!-- begin {begins} -->", 1)[1].split("<!-- end -->", 1)[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {cells[0].strip("`"): cells for cells in lines[2:]}


def test_what_an_offset_adds_on_the_digits() -> None:
    code = {machine: offset_percent(machine, "pad_code") for machine in MACHINES}
    least, most = said(r"with `pad_code` (\d+) to ([\d.]+) % of energy on the digits")
    assert (round(min(code.values())), round(max(code.values()), 1)) == (least, most)
    small, large, fusion, gemmini = said(
        r"It costs (\d) to (\d) % on machines that keep these small maps on chip. "
        r"It costs ([\d.]+) and ([\d.]+) % on Bit Fusion and Gemmini"
    )
    assert (fusion, gemmini) == tuple(round(code[name], 1) for name in ("bit_fusion", "gemmini_16x16"))
    others = [value for name, value in code.items() if name not in ("bit_fusion", "gemmini_16x16")]
    assert (round(min(others)), round(max(others))) == (small, large)
    (bias,) = said(r"`border_bias` up to (\d+) %")
    assert round(max(offset_percent(machine, "border_bias") for machine in MACHINES)) == bias
    free, dear = said(r"nearly true with `pad_beta` \((\d+) to ([\d.]+) % there\)")
    beta = [offset_percent(machine, "pad_beta") for machine in MACHINES]
    assert (round(min(beta)), round(max(beta), 1)) == (free, dear)


def test_what_an_offset_adds_on_eyeriss_by_lifetimes() -> None:
    table = {
        (row["lifetimes"], row["policy"]): float(row["percent"])
        for row in rows("experiments/data/offset_lifetimes.csv", machine="eyeriss_v1", bits="W4A4")
    }
    whole, borders, freed, least, most = said(
        r"`pad_code` costs ([\d.]+) % over configuration 1. Where neighbouring rows share the border "
        r"it costs ([\d.]+) %. Where rows and channels are freed as they are read it costs ([\d.]+) %. "
        r"`pad_beta` costs ([\d.]+) to ([\d.]+) %"
    )
    names = ("whole", "borders", "rows")
    assert (whole, borders, freed) == tuple(round(table[name, "pad_code"], 1) for name in names)
    beta = [round(table[name, "pad_beta"], 1) for name in names]
    assert (min(beta), max(beta)) == (least, most)
    assert said(r"([\d.]+) % under the best plan of whole tensors and ([\d.]+) % where rows are freed") == (
        whole,
        freed,
    )


def test_what_an_offset_adds_on_eyeriss_under_the_best_plan() -> None:
    (percent,) = said(r"on CIFAR-10's network on Eyeriss v1, ([\d.]+) % under the best plan of whole tensors")
    energies = {
        row["series"]: float(row["energy_pj"])
        for row in rows("results/headline.csv", machine="eyeriss_v1", bits="W4A4", effort="auto")
    }
    assert round(100 * (energies["pad_code"] / energies["no offset"] - 1), 1) == percent


def test_what_two_bits_save_on_the_digits() -> None:
    saved = {
        machine: 100
        * (1 - float(digits(machine, "W2A2", "1")["energy_pj"]) / float(digits(machine, "W4A4", "1")["energy_pj"]))
        for machine in MACHINES
    }
    fusion, stripes = said(r"On Bit Fusion and Stripes they save (\d+) and (\d+) %; on T4 nothing")
    assert (fusion, stripes) == (round(saved["bit_fusion"]), round(saved["stripes"]))
    assert round(saved["t4"], 1) == 0
    (most,) = said(r"for at most ([\d.]+) % less energy and 20 points less accuracy")
    assert round(max(saved[m] for m in MACHINES if m not in ("bit_fusion", "stripes")), 1) == most


def test_tpu_and_t4_pay_for_time() -> None:
    """Fixed power times time; what the MACs and memories move hardly shows."""
    (least,) = said(r"More than (\d+) % of TPU v1's energy is fixed power times time")
    for machine, share in (("tpu_v1", least / 100), ("t4", 0.8)):
        parts = json.loads(digits(machine, "W4A4", "1")["energy_pj_by_component"])
        assert parts["static"] / sum(parts.values()) > share


def test_who_is_on_the_fronts() -> None:
    """Sentences below the tables of fronts."""
    cifar, relu, small = (block(f"fronts {name}") for name in ("cpu silu_se_net", "cpu resnet8", "digits silu_se_net"))
    assert all(cells[1].split(", ")[-1] == "W4A4 c4" for cells in cifar.values())
    assert len(cifar) == 7  # "on all seven machines"
    assert "Behind ReLU configuration 4 is on no front." in PAGE
    assert not any(" c4" in cells[1] for cells in relu.values())
    assert len(ZEROS) == 6  # "all six machines that pad with zeros only"
    for machine in ZEROS:
        assert "W4A4 c4 pad_beta" in small[machine][1].split(", ")
        assert small[machine][1].split(", ")[-1] == "W4A4 c4 snap_offset"
    assert not any("W4A4 c4" in cells[1].split(", ") for cells in small.values())  # with pad_code
    assert "W2A2" not in small["eyeriss_v1"][1]


@pytest.mark.parametrize(
    ("pattern", "machine"),
    [(r"win: ([\d.]+) points on Bit", "bit_fusion"), (r"on Bit Fusion, ([\d.]+) on stripes", "stripes")],
)
def test_what_mixed_bits_gain_at_two_bits(pattern: str, machine: str) -> None:
    (points,) = said(pattern)
    lines = [line for line in TEXT.splitlines() if f"| `{machine}` | W2A2 |" in line]
    gain = float(lines[-1].split("|")[10].split("±")[0])
    assert round(gain, 1) == points
