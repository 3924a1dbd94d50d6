"""`python -m experiments.mac_styles`: what narrow operands gain on each style of MAC unit, from one machine of each.

The same mapping of the same layer (128 -> 128 channels, 3x3, 28x28) is priced at every pair of widths. Compute cycles
show the style alone; latency shows what is left of it behind the memory ports. Writes a CSV and a figure drawn from it.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from experiments.drawing import save, write_bytes
from experiments.validation.networks import conv
from hwsim.console import wrote
from hwsim.files.csv_text import csv_table
from hwsim.machine.load import load_accelerator
from hwsim.pricing.layer import price
from hwsim.report.style import colours_of, in_style
from hwsim.search.layer import search

TABLE = Path("results/validation_mac_styles.csv")
# One machine per style; two bit-serial ones because it matters which operand is serial.
MACHINES = ("gemmini_16x16", "t4", "unpu", "bismo", "bit_fusion", "bitblade", "sram_imc")
PAIRS = ((8, 8), (4, 8), (2, 8), (4, 4), (2, 2))
FIELDS = ("machine", "style", "weight_bits", "input_bits", "compute_cycles", "latency_cycles", "mac_pj", "bottleneck")


@dataclass(frozen=True)
class Point:
    """One machine at one pair of widths; `compute_cycles` and `mac_pj` are of the MAC array alone."""

    machine: str
    style: str
    weight_bits: int
    input_bits: int
    compute_cycles: int
    latency_cycles: int
    mac_pj: float
    bottleneck: str


def measure(name: str) -> list[Point]:
    """A machine at every pair, with the mapping that is fastest at 8 x 8 bits."""
    machine = load_accelerator(name)
    layer = conv("layer", 128, 128, 28, 3)
    counts = search(layer, machine, "latency").counts
    points: list[Point] = []
    for weight_bits, input_bits in PAIRS:
        assert layer.weight is not None
        narrow = dataclasses.replace(
            layer,
            inputs=(dataclasses.replace(layer.inputs[0], bits=input_bits),),
            weight=dataclasses.replace(layer.weight, bits=weight_bits),
        )
        cost = price(narrow, counts, machine)
        points.append(
            Point(
                name,
                f"{machine.mac.style} ({machine.mac.serial})"
                if machine.mac.style == "bit_serial"
                else machine.mac.style,
                weight_bits,
                input_bits,
                dict(cost.cycles)["compute"],
                cost.latency_cycles,
                cost.energy_pj["mac"],
                cost.bottleneck,
            )
        )
    return points


def gains(points: Sequence[Point], quantity: str) -> list[float]:
    """8 x 8 over each pair: how many times faster, or how many times less energy."""
    first = float(getattr(points[0], quantity))
    return [first / float(getattr(point, quantity)) for point in points]


@in_style
def draw(rows: Sequence[Point]) -> Figure:
    """Three panels over the pairs of widths: throughput of the array, latency, MAC energy."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    panels = (
        ("compute_cycles", "throughput of the array, times 8x8"),
        ("latency_cycles", "speed of the layer, times 8x8"),
        ("mac_pj", "MAC energy, times less than 8x8"),
    )
    names = list(dict.fromkeys(row.machine for row in rows))
    for axes, (quantity, title) in zip(figure.subplots(1, 3), panels, strict=True):
        for place, (name, colour) in enumerate(colours_of(names).items()):
            mine = [row for row in rows if row.machine == name]
            at = [pair + 0.12 * (place - 3) for pair in range(len(mine))]
            axes.bar(at, gains(mine, quantity), 0.11, color=colour, label=f"{mine[0].style}: {name}")
        axes.set_xticks(range(len(PAIRS)), [f"W{w}A{a}" for w, a in PAIRS])
        axes.set_yscale("log", base=2)
        axes.set_ylim(0.9, 20)
        axes.set_yticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
        axes.set_title(title)
        axes.set_axisbelow(True)
        axes.grid(axis="y")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def to_csv(rows: Sequence[Point]) -> bytes:
    """All points as a CSV."""
    return csv_table(FIELDS, (dataclasses.asdict(row) for row in rows)).encode()


def from_csv(path: Path) -> list[Point]:
    """The points of a CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Point(
                row["machine"],
                row["style"],
                int(row["weight_bits"]),
                int(row["input_bits"]),
                int(row["compute_cycles"]),
                int(row["latency_cycles"]),
                float(row["mac_pj"]),
                row["bottleneck"],
            )
            for row in csv.DictReader(file)
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0."""
    parser = argparse.ArgumentParser(prog="python -m experiments.mac_styles", description="What narrow operands gain.")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of validation_mac_styles.csv")
    parser.add_argument(
        "--figures", type=Path, default=Path("docs/figures"), help="folder of mac_styles.png, .svg, .pdf"
    )
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    options.figures.mkdir(parents=True, exist_ok=True)
    rows = [point for name in MACHINES for point in measure(name)]
    path = write_bytes(options.out / TABLE.name, to_csv(rows))
    for written in (path, *save(draw(from_csv(path)), options.figures, "mac_styles")):
        wrote(written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
