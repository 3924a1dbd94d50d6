# pyright: basic
"""`python -m hwsim.export_onnx CHECKPOINT OUT.onnx [--format qdq|qonnx] [--offset keep|snap] [--groups ...]`: as ONNX.

`qdq`: QuantizeLinear and DequantizeLinear with int2, int4 and int8 codes; `qonnx`: Quant nodes. `keep` writes the real
beta as arithmetic beside each quantizer, `snap` moves it to a zero point, and the difference is printed. With --images
the file is run in onnxruntime (qdq) or qonnx and compared with the integer machine, code for code.
Exit codes: 0; 2 for bad input.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence

import torch

from hwsim.errors import WorkloadError, exit_code_of
from hwsim.files.argument import CommandLine, parse_path
from hwsim.integer.export.onnx_check import ENGINES, agreement, engine_for
from hwsim.integer.export.onnx_source import FORMS, GROUPS, OFFSETS, onnx_network
from hwsim.integer.export.onnx_values import Exported
from hwsim.integer.export.seal import seal_onnx
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.images import test_images
from quant import checkpoint
from quant.data import write_atomically


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = CommandLine(prog="hwsim export-onnx", description=__doc__)
    p.add_argument("checkpoint", type=parse_path, help="folder of a trained, quantized network")
    p.add_argument("out", type=parse_path, help="the ONNX file to write")
    p.add_argument("--format", choices=FORMS, default="qdq")
    p.add_argument("--offset", choices=OFFSETS, default="keep", help="real-valued beta as arithmetic, or zero points")
    p.add_argument("--groups", choices=GROUPS, default="blocks", help="groups of weights: blocks of DequantizeLinear, "
                   "or packed in onnxruntime's MatMulNBits, which holds offsets of weights, too")  # fmt: skip
    p.add_argument("--images", type=int, default=0, help="test images to run the file on (default 0: none)")
    p.add_argument("--random", action="store_true", help="use noise instead of images")
    p.add_argument("--engine", choices=ENGINES, help="what runs it (default: onnxruntime for qdq, qonnx for qonnx)")
    p.add_argument("--data-dir", type=parse_path, help="folder of the checkpoint's data set (default: $HWSIM_DATA)")
    return p


def export(arguments: argparse.Namespace) -> list[str]:
    """Write the file and compare; the lines to print."""
    model, meta = checkpoint.load(arguments.checkpoint)
    if meta.quantization is None:
        raise WorkloadError(
            f"{arguments.checkpoint}: a float network, it has no quantizers; quantize it with "
            "hwsim calibrate or hwsim train --bits W4A4"
        )
    if not meta.input_shape:
        raise WorkloadError(f"{arguments.checkpoint}: settings.json has no input_shape")
    example = torch.zeros(1, *meta.input_shape)
    made = onnx_network(
        model, example, form=arguments.format, offset=arguments.offset, groups=arguments.groups, name=meta.model
    )
    seal_onnx(made.proto, checkpoint.identity(arguments.checkpoint))
    content = made.proto.SerializeToString()
    write_atomically(arguments.out, lambda file: file.write(content))
    lines = [f"{arguments.out}: {len(content)} bytes, {describe(made)}"]
    if arguments.images > 0:
        images, labels = test_images(arguments.checkpoint, arguments.data_dir, arguments.images, arguments.random)
        lowered = lower(model, images[:1], name=meta.model)
        engine = arguments.engine or engine_for(arguments.format)
        lines.append(agreement(made, lowered, images, labels, engine=engine).text())
    return lines


def describe(made: Exported) -> str:
    """Quantizers by type, and what became of their offsets."""
    types = Counter(a.type for a in made.activations.values())
    lines = ", ".join(f"{count} of {kind}" for kind, count in sorted(types.items()))
    exact = sum(a.grid.offset == "exact" for a in made.activations.values())
    text = f"{len(made.activations)} activation quantizers ({lines}); offsets: {len(made.kept)} kept as arithmetic, "
    text += f"{len(made.snapped)} snapped, {exact} were integers already"
    if made.snapped:
        text += f"; beta moved by at most {made.largest_shift:.3f} steps"
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    arguments = parser().parse_args(argv)
    return exit_code_of(lambda: print("\n".join(export(arguments))), ValueError)


if __name__ == "__main__":
    raise SystemExit(main())
