"""`python -m experiments.exported_files CHECKPOINT...`: C and ONNX files of a network beside the integer machine.

The C file is compiled with gcc -O3 and timed; the ONNX files (QDQ with the real beta kept and snapped, QONNX) run in
onnxruntime and qonnx. One CSV row per file: its size, codes that differ from the integer machine's, accuracy.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from experiments import table
from experiments.command_line import measure_main
from experiments.tables import markdown
from hwsim.export_c import export
from hwsim.integer.export.c_check import run_compiled
from hwsim.integer.export.onnx_check import agreement, engine_for
from hwsim.integer.export.onnx_source import onnx_network
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.images import test_images
from quant import checkpoint
from quant.provenance import provenance

TABLE = Path("experiments/data/exported_files.csv")
# (format, offset, share of the images that it runs): qonnx takes about a second per image.
ONNX = (("qdq", "keep", 1.0), ("qdq", "snap", 1.0), ("qonnx", "keep", 0.04))
C_IMAGES = 20


def c_row(folder: Path, images: Tensor) -> dict[str, Any]:
    """Size, memory, time, and the comparison of the C file."""
    made = export(folder, "network")
    found = run_compiled(made.machine, made.text, images[:C_IMAGES])
    return {
        "file": "c", "offset": "keep", "ran_in": found.compiler, "file_bytes": len(made.text),
        "weight_bytes": made.weight_bytes, "memory_bytes": made.memory_bytes, "images": found.images,
        "codes": found.codes, "differing": found.differing, "ms_per_image": found.milliseconds,
        "device": provenance()["device"],
    }  # fmt: skip


def onnx_rows(model: nn.Module, images: Tensor, labels: Tensor) -> Iterator[dict[str, Any]]:
    """The ONNX files in the runtimes that they are made for."""
    lowered = lower(model, images[:1])
    for form, offset, share in ONNX:
        made = onnx_network(model, images[:1], form=form, offset=offset)
        if offset == "snap" and not made.snapped:
            continue  # no offset, or integers already: the same file as with `keep`
        count = max(1, round(share * len(images)))
        found = agreement(made, lowered, images[:count], labels[:count])
        engine = engine_for(form)
        yield {
            "file": form, "offset": offset, "ran_in": f"{engine} {metadata.version(engine)}",
            "file_bytes": made.proto.ByteSize(), "images": found.images, "codes": found.codes,
            "differing": found.differing, "answers_equal": found.same_answers,
            "top1_file_percent": found.top1_file_percent, "top1_integer_percent": found.top1_integer_percent,
        }  # fmt: skip


def c_page(rows: Sequence[table.Row]) -> str:
    """The C table of docs/integer.md."""
    heads = ("network", "C text", "weights, packed", "working memory", "per image", "codes compared", "differing")
    lines = [
        [
            f"`{row['network']}`", f"{int(row['file_bytes']) / 1e6:.1f} MB", f"{int(row['weight_bytes']):,} bytes",
            f"{int(row['memory_bytes']):,} bytes", f"{float(row['ms_per_image']):.1f} ms", f"{int(row['codes']):,}",
            row["differing"],
        ]
        for row in rows if row["file"] == "c"
    ]  # fmt: skip
    return markdown(heads, lines)


def onnx_page(rows: Sequence[table.Row]) -> str:
    """The ONNX table of docs/integer.md."""
    heads = ("network", "file, offset", "run in", "images", "codes", "differing", "answers equal",
             "top-1 of the file (integer machine)")  # fmt: skip
    lines = [
        [
            f"`{row['network']}`", f"{row['file']}, {row['offset']}", row["ran_in"], row["images"],
            f"{int(row['codes']):,}", share(int(row["differing"]), int(row["codes"])), row["answers_equal"],
            f"{float(row['top1_file_percent']):.2f} % ({float(row['top1_integer_percent']):.2f} %)",
        ]
        for row in rows if row["file"] != "c"
    ]  # fmt: skip
    return markdown(heads, lines)


def share(differing: int, codes: int) -> str:
    """In percent; a number where there are hardly any."""
    percent = 100 * differing / codes
    return f"{percent:.2g} %" if percent >= 0.001 else str(differing)


def run(given: argparse.Namespace) -> None:
    """Write and print the rows."""
    for folder in given.checkpoints:
        images, labels = test_images(folder, given.data_dir, given.images, random=False)
        if labels is None:
            raise ValueError(f"{folder}: its settings name no data set to measure accuracy on")
        model, _ = checkpoint.load(folder)
        for row in itertools.chain([c_row(folder, images)], onnx_rows(model, images, labels)):
            key = f"{folder.name} {row['file']} {row['offset']}"
            table.append(given.out, [{"key": key, "network": folder.name, **row}], key="key")
            print(", ".join(f"{k} {v}" for k, v in row.items()), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the CSV and print it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.exported_files", description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    return measure_main(parser, run, arguments, images=500, out=TABLE)


if __name__ == "__main__":
    raise SystemExit(main())
