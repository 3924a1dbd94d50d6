"""`python -m experiments.requantization CHECKPOINT...`: fixed-point requantization against the exact codes.

For each checkpoint: multipliers of 8, 16 and 32 bits, the folded bias an integer of the accumulator's or the product's
unit, four roundings at 16 bits, a shift alone. One CSV row per form: share of codes that differ from the exact run,
each layer on its own exact inputs and end to end, and top-1 accuracy.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments import table
from experiments.tables import markdown
from hwsim.errors import exit_code_of
from hwsim.integer.graph import IntegerModel
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.accuracy import top1_percent
from hwsim.integer.proof.images import test_images
from hwsim.integer.run import Machine, Mode
from quant import checkpoint

TABLE = Path("experiments/data/requantization.csv")
FORMS: Mapping[str, Mode] = {
    "exact": Mode(),
    "32 bits, product bias": Mode("fixed", 32, bias_unit="product"),
    "16 bits, product bias": Mode("fixed", 16, bias_unit="product"),
    "8 bits, product bias": Mode("fixed", 8, bias_unit="product"),
    "32 bits, accumulator bias": Mode("fixed", 32),
    "16 bits, accumulator bias": Mode("fixed", 16),
    "8 bits, accumulator bias": Mode("fixed", 8),
    "16 bits, half to even": Mode("fixed", 16, "half_even"),
    "16 bits, half away from zero": Mode("fixed", 16, "half_away"),
    "16 bits, rounded down": Mode("fixed", 16, "floor"),
    "shift alone, accumulator bias": Mode("fixed", 2),
}


def differing(machine: Machine, exact: Mapping[str, Tensor], images: Tensor) -> tuple[float, float]:
    """Shares of codes that differ, in percent: (on exact inputs, end to end)."""
    shares = []
    for force in (exact, None):
        codes = machine.run(images, keep=exact, force=force).codes
        off = sum(int((codes[n] != exact[n]).sum()) for n in exact)
        shares.append(100 * off / sum(t.numel() for t in exact.values()))
    return shares[0], shares[1]


def rows(model: IntegerModel, images: Tensor, labels: Tensor, compared: int) -> Iterator[dict[str, Any]]:
    """One row per form."""
    few = images[:compared]
    exact = Machine(model).run(few, keep=set(model.quantizers.values())).codes
    for name, mode in FORMS.items():
        machine = Machine(model, mode)
        own, free = differing(machine, exact, few)
        percent = top1_percent(lambda x, m=machine: m.run(x).values, images, labels)
        yield {
            "form": name,
            "differing_own_percent": round(own, 4),
            "differing_end_to_end_percent": round(free, 4),
            "top1_percent": percent,
            "images": len(images),
            "compared": compared,
        }


def page(data: Sequence[table.Row]) -> str:
    """The table of docs/integer.md: per network codes that differ (own, end to end) and top-1, a line per form."""
    networks = table.group(data, "checkpoint")
    heads = ["form", *(h for (name,) in networks for h in (f"`{name}`, own", "end to end", "top-1"))]
    columns = ("differing_own_percent", "differing_end_to_end_percent", "top1_percent")
    digits = ("{:.3g} %", "{:.3g} %", "{:.1f} %")
    lines: list[list[str]] = []
    for form in FORMS:
        rows = [next((row for row in members if row["form"] == form), None) for members in networks.values()]
        cells = [d.format(float(row[c])) if row else "-" for row in rows for c, d in zip(columns, digits, strict=True)]
        lines.append([form, *cells])
    return markdown(heads, lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the CSV and print it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.requantization", description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--compared", type=int, default=64, help="images whose codes are compared")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=TABLE)
    given = parser.parse_args(arguments)
    return exit_code_of(lambda: run(given), ValueError)


def run(given: argparse.Namespace) -> None:
    """Write and print the rows."""
    for folder in given.checkpoints:
        model, meta = checkpoint.load(folder)
        images, labels = test_images(folder, given.data_dir, given.images, random=False)
        if labels is None:
            raise ValueError(f"{folder}: its settings name no data set to measure accuracy on")
        with torch.no_grad():
            for row in rows(lower(model, images[:1], name=meta.model), images, labels, given.compared):
                full = {"key": f"{folder.name} {row['form']}", "checkpoint": folder.name, **row}
                table.append(given.out, [full], key="key")
                print(", ".join(f"{k} {v}" for k, v in full.items() if k != "key"), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
