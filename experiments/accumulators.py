"""`python -m experiments.accumulators CHECKPOINT`: accuracy with narrow accumulators, and with a lossy converter.

Sums that wrap, saturate at the end, or saturate after every input channel, at several widths; and an in-memory array
whose converter keeps so many bits of each sum over at most `--rows` products. One CSV row per form: top-1 accuracy.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments import table
from experiments.command_line import measure_main
from experiments.tables import markdown
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.accuracy import top1_percent
from hwsim.integer.proof.images import test_images
from hwsim.integer.run import Machine, Mode
from quant import checkpoint

TABLE = Path("experiments/data/accumulators.csv")
OVERFLOWS = ("wrap", "saturate", "saturate_each")
CONVERTER = "converter"


def page(rows: Sequence[table.Row]) -> str:
    """The table of docs/integer.md: a line per form, a column per width."""
    widths = sorted({int(row["bits"]) for row in rows}, reverse=True)
    known = {(row["form"], int(row["bits"])): f"{float(row['top1_percent']):.1f} %" for row in rows}
    forms = {"wrap": "`wrap`", "saturate": "`saturate`", "saturate_each": "`saturate_each`",
             CONVERTER: f"converter, sums of {rows[0]['rows']}"}  # fmt: skip
    lines = [[name, *(known.get((form, width), "-") for width in widths)] for form, name in forms.items()]
    return markdown(("bits", *map(str, widths)), lines)


def run(given: argparse.Namespace) -> None:
    """Write and print the rows."""
    model, meta = checkpoint.load(given.checkpoint)
    images, labels = test_images(given.checkpoint, given.data_dir, given.images, random=False)
    if labels is None:
        raise ValueError(f"{given.checkpoint}: its settings name no data set to measure accuracy on")
    lowered = lower(model, images[:1], name=meta.model)
    forms = [(o, b, Mode(accumulator_bits=b, overflow=o)) for b in given.bits for o in OVERFLOWS]
    forms += [(CONVERTER, b, Mode(adc_bits=b, adc_rows=given.rows)) for b in given.converter_bits]
    for form, bits, mode in forms:
        machine = Machine(lowered, mode)
        percent = top1_percent(lambda x, m=machine: m.run(x).values, images, labels)
        row = {"key": f"{given.checkpoint.name} {form} {bits}", "network": given.checkpoint.name, "form": form,
               "bits": bits, "rows": given.rows, "top1_percent": percent, "images": len(images)}  # fmt: skip
        table.append(given.out, [row], key="key")
        print(f"{form}, {bits} bits: {percent:.2f} % of {len(images)} images", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the CSV and print it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.accumulators", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--bits", nargs="+", type=int, default=[20, 19, 18, 17, 16, 15, 14])
    parser.add_argument("--converter-bits", nargs="+", type=int, default=[9, 8, 7, 6, 5])
    parser.add_argument("--rows", type=int, default=64, help="products summed before each conversion")
    return measure_main(parser, run, arguments, images=200, out=TABLE)


if __name__ == "__main__":
    raise SystemExit(main())
