"""Numbers of the README are those of the tables that they come from."""

from __future__ import annotations

import csv
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
Rows = list[dict[str, str]]


def said(pattern: str) -> tuple[float, ...]:
    """The numbers that the README gives where `pattern` matches; it must match."""
    found = re.search(pattern, README)
    assert found, f"README.md says nothing like {pattern}"
    return tuple(float(number.replace(",", "")) for number in found.groups())


def rows(name: str, **where: str) -> Rows:
    """Rows of results/NAME with these values."""
    with (ROOT / "results" / name).open(encoding="utf-8", newline="") as file:
        found = [row for row in csv.DictReader(file) if all(row[key] == value for key, value in where.items())]
    assert found, f"results/{name} has no row with {where}"
    return found


def page(name: str) -> str:
    """docs/NAME in one line."""
    return " ".join((ROOT / "docs" / name).read_text(encoding="utf-8").split())


def cells(page: str, begins: str) -> list[str]:
    """Cells of the only table row of docs/PAGE that begins like this."""
    (line,) = (x for x in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines() if x.startswith(begins))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_seconds_of_proofs() -> None:
    perfect, proven = said(r"ResNet-18 on eyeriss_v1 in ([\d.]+) CPU s among perfect factors, ([\d.]+) CPU s with")
    for space, seconds in (("perfect", perfect), ("proven", proven)):
        layers = rows("certificates.csv", network="resnet18", spec="eyeriss_v1", objective="energy", space=space)
        assert round(sum(float(row["cpu_s"]) for row in layers), 1) == seconds


def test_every_proof_ended_and_how_far_the_second_bound_is() -> None:
    assert {row["ended"] for row in rows("certificates.csv")} == {"yes"}
    proven = rows("certificates.csv", space="proven")
    above = [float(row["any_tiles_gap_percent"]) for row in proven]
    eyeriss = [gap for gap, row in zip(above, proven, strict=True) if row["spec"].startswith("eyeriss")]
    reached, median, most = said(
        r"reached on (\d+) % of layers, ([\d.]+) % away at the median\. .*?up to (\d+) % on an Eyeriss"
    )
    assert round(100 * sum(gap < 0.005 for gap in above) / len(above)) == reached
    assert round(statistics.median(above), 1) == median
    assert round(max(eyeriss)) == most


def test_seconds_of_many_assignments() -> None:
    (seconds,) = said(r"10,000 bit assignments of ResNet-18 priced \(`hwsim.table --assignments`\) \| ([\d.]+) CPU s")
    rate = float(cells("exploration_results.md", "| ResNet-18 on eyeriss_v2, assignments")[1].replace(",", ""))
    assert round(10_000 / rate, 1) == seconds


@pytest.mark.parametrize("machine", ["tpu_like", "eyeriss_like"])
def test_zigzag_in_one_run(machine: str) -> None:
    cell = r"([\d.]+) M pJ in ([\d.]+) CPU s \|"
    _, ours, _, gap, seconds, theirs, their_seconds, *_ = cells("repricing.md", f"| {machine} |")
    assert gap == "0"
    measured = tuple(round(float(text.split()[0]), 1) for text in (ours, seconds, theirs, their_seconds))
    assert said(rf"\| {machine} \| {cell} {cell}") == measured


@pytest.mark.long
def test_the_screen_shown_is_the_screen_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hwsim.__main__ import main
    from hwsim.report.screen import WIDTH

    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.chdir(ROOT)
    assert main(["evaluate", "networks/digits_silu_w4a4", "bit_fusion", "--quick"]) == 0
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.rstrip().splitlines())
    (shown,) = re.findall(r"```text\n(.*?)\n```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert shown == printed


@pytest.mark.parametrize(
    ("pattern", "study", "quantities"),
    [
        (r"Eyeriss latency (\d+) %", "eyeriss_alexnet", ["processing latency"]),
        (r"its power (\d+) %", "eyeriss_alexnet", ["power"]),
        (r"T4 layers (\d+) to (\d+) %", "hawqv3_t4", ["int8 latency", "int4 latency"]),
        (r"NVDLA (\d+) %", "nvdla_resnet50", ["frames per second, direct convolution"]),
        (r"Ethos-U (\d+) %", "ethos_u55_256", ["cycles, network"]),
        (r"TPU v1 (\d+) %", "tpu_v1", ["throughput"]),
    ],
)
def test_distance_from_silicon(pattern: str, study: str, quantities: list[str]) -> None:
    found = [rows("validation_studies.csv", study=study, quantity=name)[0] for name in quantities]
    assert said(pattern) == tuple(round(100 * float(row["mean_error"])) for row in found)


def test_gains_of_bricks() -> None:
    least, most = said(r"Units of 2-bit bricks gain (\d+) to (\d+) times")
    gains = []
    for machine in ("bit_fusion", "bitblade"):
        wide, narrow = (
            rows("validation_mac_styles.csv", machine=machine, weight_bits=bits, input_bits=bits)[0] for bits in "82"
        )
        gains.append(float(wide["compute_cycles"]) / float(narrow["compute_cycles"]))
    assert (round(min(gains)), round(max(gains))) == (least, most)


def test_what_mixed_bits_gain_after_training() -> None:
    gain, spread = said(r"W2A2's energy on bit_fusion \+([\d.]+) ± ([\d.]+) points after training")
    table = cells("exploration_results.md", "| bit_fusion | W2A2 |")[-1]
    assert [round(float(text), 1) for text in table.lstrip("+").split(" ± ")] == [gain, spread]


def test_the_longest_training() -> None:
    four, two = said(r"SiLU network of CIFAR-10 to ([\d.]+) % at W4A4 in two epochs and to ([\d.]+) % at W2A2 in four")
    lines = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines()
    for bits, percent in (("W4A4", four), ("W2A2", two)):
        cells = [line.split("|") for line in lines if line.startswith(f"| `silu_se_net` | {bits} | 4 | `pad_beta` |")]
        assert percent in [round(float(cell[6].split()[0]), 1) for cell in cells if len(cell) > 7]


def test_what_distillation_and_a_step_per_channel_gain() -> None:
    found = said(r"step per channel \(`[^`]+`\) add ([\d.]+) ± ([\d.]+) points at W2A2 and ([\d.]+) ± ([\d.]+) at W3A3")
    told: list[float] = []
    for bits in ("W2A2", "W3A3"):
        text = page("results.md").split(f"**`silu_se_net`, cifar10, {bits}** (`cpu_long`)")[1]
        table = re.search(r"\| distillation and a step per channel \| [^|]+ \| \+([\d.]+) ± ([\d.]+) \|", text)
        assert table is not None
        told += [round(float(number), 1) for number in table.groups()]
    assert tuple(told) == found


def test_seconds_of_a_whole_plan() -> None:
    measured = re.search(
        r"takes ([\d.]+) CPU s from a saved workload, and ([\d.]+) CPU s with", page("search_results.md")
    )
    assert measured
    assert said(r"took ([\d.]+) CPU s from a saved workload on 3 December 2026, and ([\d.]+) with") == tuple(
        float(seconds) for seconds in measured.groups()
    )


def test_what_depth_first_saves() -> None:
    ways = ("tensors on chip", "depth first")
    found = (rows("depth_first.csv", network="mobilenet_v2", machine="simba", way=way)[0] for way in ways)
    assert said(r"MobileNetV2 on simba: ([\d,]+) -> ([\d,]+) µJ") == tuple(
        round(float(row["energy_uj"])) for row in found
    )


def test_how_far_the_quick_search_is_above_the_proof() -> None:
    number = r"(-?[\d.]+) to (-?[\d.]+) %"
    found = said(
        rf"{number} more energy .*? of ResNet-18\. It takes {number} more on MobileNetV2 and {number} on ViT-B/16"
    )
    for place, network in enumerate(("resnet18", "mobilenet_v2", "vit_b_16")):
        above = [float(row["above_percent"]) for row in rows("quick_gap.csv", network=network)]
        assert (round(min(above), 1), round(max(above), 1)) == found[2 * place : 2 * place + 2]


def test_counts_of_specs_styles_and_layers() -> None:
    from benchmarks.networks import NETWORKS
    from experiments.mac_styles import MACHINES
    from hwsim.machine.parts import MAC_STYLES

    texts = [path.read_text(encoding="utf-8").splitlines() for path in (ROOT / "accel_specs").glob("*.yaml")]
    (lines,) = said(r"accelerator that about (\d+) lines of YAML describe")
    assert abs(statistics.median(map(len, texts)) - lines) <= 5
    own = sum(any(line.strip().startswith("constraints:") for line in text) for text in texts)
    words = {5: "five", 6: "six", 7: "seven", 8: "Eight"}
    assert f"{words[own]} shipped specs have their own" in README
    assert f"{words[len(MAC_STYLES) - 1]} MAC styles" in README, "all but measured tables"
    assert f"for {words[len(MACHINES)]} kinds of machines" in README
    assert f"Every layer of {words[len(NETWORKS)]} networks ends on every machine" in README
    (small,) = said(r"On (\d+) small layers all legal nests were enumerated")
    assert f"Every legal nest of {small:.0f} small layers was enumerated" in page("search_results.md")
    box, exact = said(r"bounding boxes \((\d+) elements where (\d+) are read\)")
    assert f"tiles of two outputs reads {box:.0f} elements there, {exact:.0f} here" in page("coming_from.md")


def test_float_accuracy() -> None:
    (percent,) = said(r"In float it has ([\d.]+) %")
    assert {round(float(row["float_accuracy_percent"]), 1) for row in rows("headline.csv")} == {percent}


@pytest.mark.parametrize("command", [["evaluate"], ["table"], ["explore", "bits"]], ids=" ".join)
def test_help_and_readme_name_every_form_of_model(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from hwsim.__main__ import main
    from hwsim.command_line import PEERS
    from hwsim.frontends.argument import LIBRARIES

    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for form in ("zoo name", "checkpoint folder", ".json", ".pt2", ".onnx", ".tflite", "package.module:factory",
                 *(f"{name}:" for name in LIBRARIES), *PEERS):  # fmt: skip
        assert form in shown
        assert form in README


def test_what_an_offset_adds() -> None:
    found = said(r"`pad_beta`\) pays ([\d.]+) to ([\d.]+) % on these six machines, .*? it is ([\d.]+) to ([\d.]+) %")
    data = rows("headline.csv", bits="W4A4", status="ok")
    free = {row["machine"]: float(row["energy_pj"]) for row in data if row["series"] == "no offset"}
    assert len(free) == 6
    for policy, (least, most) in (("pad_beta", found[:2]), ("pad_code", found[2:])):
        added = [100 * (float(r["energy_pj"]) / free[r["machine"]] - 1) for r in data if r["series"] == policy]
        assert (round(min(added), 1), round(max(added), 1)) == (least, most)
    assert {row["effort"] for row in data} == {"auto"}
