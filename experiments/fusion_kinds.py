"""`python -m experiments.fusion_kinds`: Bit Fusion's speed-up from 8 to fewer bits by layer kind, compute cycles alone.

Fused bricks sum their products, so they need channels side by side: a 1 x 1 or 3 x 3 layer fills them, the first layer
and depthwise ones cannot. Shapes are MobileNetV2's and ResNet-18's. Writes a CSV and a figure drawn from it.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from experiments.drawing import save, write_bytes
from experiments.validation.networks import conv
from hwsim.console import wrote
from hwsim.files.csv_text import csv_text
from hwsim.machine.load import load_accelerator
from hwsim.network.layer import Layer, Loops
from hwsim.pricing.layer import price
from hwsim.report.style import PALETTE, QUIET, in_style
from hwsim.search.layer import search

TABLE = Path("results/fusion_kinds.csv")
WIDTHS = (8, 4, 2)
FIELDS = ("kind", "bits", "compute_cycles", "speed_up")


def layers(bits: int) -> dict[str, Layer]:
    """One layer of each kind at a width."""
    deep = conv("depthwise", 1, 1, 56, 3, bits=(bits, bits, 8))
    assert deep.weight is not None
    groups = 144
    depthwise = replace(
        deep,
        loops=Loops(G=groups, P=56, Q=56, R=3, S=3),
        inputs=(replace(deep.inputs[0], shape=(1, groups, *deep.inputs[0].shape[2:])),),
        output=replace(deep.output, shape=(1, groups, 56, 56)),
        weight=replace(deep.weight, shape=(groups, 1, 3, 3)),
    )
    return {
        "depthwise 3x3": depthwise,
        "first 7x7, 3 channels": conv("first", 3, 64, 112, 7, 2, bits=(bits, bits, 8)),
        "1x1": conv("pointwise", 256, 256, 28, 1, bits=(bits, bits, 8)),
        "3x3": conv("full", 256, 256, 14, 3, bits=(bits, bits, 8)),
    }


def measure() -> list[tuple[str, int, int, float]]:
    """(kind, bits, compute cycles, speed-up over 8 bits) under the fastest mapping at each width."""
    machine, found = load_accelerator("bit_fusion"), list[tuple[str, int, int, float]]()
    base: dict[str, int] = {}
    for bits in WIDTHS:
        for kind, layer in layers(bits).items():
            cost = price(layer, search(layer, machine, "latency").counts, machine)
            cycles = dict(cost.cycles)["compute"]
            base.setdefault(kind, cycles)
            found.append((kind, bits, cycles, round(base[kind] / cycles, 3)))
    return found


@in_style
def draw(rows: Sequence[dict[str, str]]) -> Figure:
    """Bars by kind; the dotted line is what the bricks alone would give at 2 bits."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    for place, bits in enumerate(WIDTHS[1:]):
        heights = [float(next(r["speed_up"] for r in rows if (r["kind"], r["bits"]) == (k, str(bits)))) for k in kinds]
        bars = axes.bar(
            [i + 0.4 * place - 0.2 for i in range(len(kinds))],
            heights,
            0.38,
            label=f"{bits} x {bits} bits",
            color=PALETTE[place],
        )
        axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=3)
    axes.axhline(16, color=QUIET, linestyle=":", linewidth=0.8, label="bricks alone, 2 x 2 bits")
    axes.set_ylim(0, 18)
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_ylabel("times faster than 8 x 8 bits")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the CSV and the figure."""
    parser = argparse.ArgumentParser(prog="python -m experiments.fusion_kinds", description="Bit Fusion by layer kind.")
    parser.add_argument("--out", type=Path, default=TABLE, help="CSV to write")
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"), help="folder of the figure")
    options = parser.parse_args(arguments)
    text = csv_text([FIELDS, *measure()])
    written = [write_bytes(options.out, text.encode())]
    rows = list(csv.DictReader(text.splitlines()))
    written += save(draw(rows), options.figures, "fusion_kinds")
    for path in written:
        wrote(path, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
