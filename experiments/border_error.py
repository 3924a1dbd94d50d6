"""`python -m experiments.border_error [CHECKPOINT]`: where the constant bias of LSQ+ Eq. 5 is wrong on an output map.

With a checkpoint whose convolutions pad with zeros behind the quantizer (`border_bias`): runs the integer network and,
layer by layer on its exact inputs, the naive constant bias; writes the error at every output position, relative to the
RMS of that layer's output, to results/border_error.csv. Without one: redraws docs/figures/border_error.* from the rows.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from experiments import table
from experiments.drawing import save
from experiments.tables import markdown
from hwsim.integer import graph
from hwsim.integer.graph import IntegerModel, Node
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.certificate import source_convolution
from hwsim.integer.proof.images import test_images
from hwsim.integer.run import Machine, Mode
from hwsim.report.style import in_style
from quant import checkpoint

TABLE = Path("results/border_error.csv")
FIGURES = Path("docs/figures")


def measured_nodes(model: IntegerModel) -> Iterator[tuple[Node, graph.Convolve]]:
    """Quantizers that read one padded convolution whose offset meets zeros, with that convolution."""
    for name in model.quantizers.values():
        node = model.node(name)
        source = source_convolution(model, node)
        if source is not None and source.padding.policy == "border_bias" and len(node.shape) == 4:
            yield node, source


def rows(model: IntegerModel, images: Tensor, batch_size: int = 50) -> Iterator[dict[str, Any]]:
    """One row per layer and output position: RMS error over channels and images, share of codes that differ."""
    exact, naive = Machine(model), Machine(model, Mode(padding="naive"))
    chosen = list(measured_nodes(model))
    keep = set(model.quantizers.values())
    errors = {node.name: torch.zeros(node.shape[2:], dtype=torch.float64) for node, _ in chosen}
    wrong = {name: t.clone() for name, t in errors.items()}
    power = dict.fromkeys(errors, 0.0)
    for batch in images.split(batch_size):
        right = exact.run(batch, keep=keep).codes
        other = naive.run(batch, keep=keep, force=right).codes
        for node, _ in chosen:
            assert node.code is not None
            off = (other[node.name].double() - right[node.name].double()) * float(node.code.s)
            real = right[node.name].double() * float(node.code.s) + float(node.code.beta)
            errors[node.name] += off.square().mean(1).sum(0)
            wrong[node.name] += (off != 0).double().mean(1).sum(0)
            power[node.name] += float(real.square().mean((1, 2, 3)).sum())
    for node, source in chosen:
        rms = math.sqrt(power[node.name] / len(images))
        relative = (errors[node.name] / len(images)).sqrt() / rms
        for r in range(node.shape[2]):
            for c in range(node.shape[3]):
                yield {
                    "layer": source.layer,
                    "kernel": source.window.kernel[0] if source.window else 1,
                    "row": r,
                    "column": c,
                    "error_percent_of_rms": round(100 * float(relative[r, c]), 4),
                    "differing_percent": round(100 * float(wrong[node.name][r, c]) / len(images), 4),
                    "images": len(images),
                }


@in_style
def draw(data: Sequence[table.Row]) -> Figure:
    """One map per layer, all on one scale; interior positions without any error stay white."""
    groups = table.group(data, "layer")
    across = min(4, len(groups))
    down = math.ceil(len(groups) / across)
    figure = Figure(figsize=(2.4 * across + 0.8, 2.7 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    norm = Normalize(0, max(float(row["error_percent_of_rms"]) for row in data))
    image = None
    for axes in panels[len(groups) :]:
        axes.set_visible(False)
    for axes, ((layer,), members) in zip(panels, groups.items(), strict=False):
        size = [1 + max(int(row[key]) for row in members) for key in ("row", "column")]
        grid = np.full(size, np.nan)
        for row in members:
            error = float(row["error_percent_of_rms"])
            grid[int(row["row"]), int(row["column"])] = error if error else np.nan
        image = axes.imshow(grid, norm=norm, cmap="viridis_r", interpolation="nearest")
        share = np.isfinite(grid).mean()
        axes.set_title(f"{layer}\n{size[0]} x {size[1]}, {100 * share:.0f} % wrong", fontsize=8)
        axes.set_xticks([])
        axes.spines[:].set_visible(True)
        axes.set_yticks([])
    if image is not None:
        bar = figure.colorbar(image, ax=list(panels), shrink=0.8)
        bar.set_label("error, % of the output's RMS", fontsize=8)
    return figure


def page(data: Sequence[table.Row]) -> str:
    """The table of docs/integer.md: where the constant bias is wrong, by layer."""
    lines: list[list[str]] = []
    for (layer,), members in table.group(data, "layer").items():
        rows, columns = (1 + max(int(row[axis]) for row in members) for axis in ("row", "column"))
        wrong = [row for row in members if float(row["differing_percent"])]
        squares = [float(row["error_percent_of_rms"]) ** 2 for row in wrong] or [0.0]
        off = [float(row["differing_percent"]) for row in wrong] or [0.0]
        kernel = members[0]["kernel"]
        lines.append([
            f"`{layer}` ({kernel}x{kernel})", f"{rows}x{columns}", f"{100 * len(wrong) / len(members):.0f} %",
            f"{math.sqrt(sum(squares) / len(squares)):.0f} %", f"{sum(off) / len(off):.0f} %",
        ])  # fmt: skip
    return markdown(("layer", "map", "positions wrong", "error there, RMS", "codes wrong there"), lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure (with a checkpoint), then draw."""
    parser = argparse.ArgumentParser(prog="python -m experiments.border_error", description=__doc__)
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--figures", type=Path, default=FIGURES)
    given = parser.parse_args(arguments)
    if given.checkpoint is not None:
        model, meta = checkpoint.load(given.checkpoint)
        images, _ = test_images(given.checkpoint, given.data_dir, given.images, random=False)
        found = list(rows(lower(model, images[:1], name=meta.model), images))
        if not found:
            raise SystemExit(f"{given.checkpoint}: no convolution of it pads an offset with zeros (policy border_bias)")
        table.write(given.out, found)
    data = table.read(given.out)
    for (layer,), members in table.group(data, "layer").items():
        border = [float(row["error_percent_of_rms"]) for row in members if float(row["error_percent_of_rms"])]
        print(f"{layer}: {len(border)} of {len(members)} positions wrong, up to {max(border, default=0):.1f} % of RMS")
    for path in save(draw(data), given.figures, "border_error"):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
