"""ONNX and QONNX networks as an `OpGraph`: `read_onnx(path, shapes)`, weights left where they are.

Quant and BipolarQuant nodes (QONNX), QuantizeLinear and the QLinear operators carry bits, signs and zero points into
the graph. Shapes come from the onnx package's own inference; external weight files need not exist. Nothing is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hwsim.errors import WorkloadError
from hwsim.frontends.files.onnx_known import Shapes
from hwsim.frontends.files.onnx_operators import HANDLERS
from hwsim.frontends.files.onnx_reader import OnnxReader
from hwsim.frontends.lowering.ir import OpGraph


def read_onnx(path: Path, shapes: Shapes = None) -> OpGraph:
    """The network of an ONNX file; `shapes`: of its first input, or by an input's name.

    Raises WorkloadError: no such package, no such file, open sizes.
    """
    try:
        import onnx
    except ImportError as problem:
        raise WorkloadError(
            f"{path}: reading ONNX needs the onnx package ({problem}): pip install 'hwsim[onnx]'"
        ) from None
    try:
        model: Any = onnx.load(str(path), load_external_data=False)
    except Exception as problem:  # protobuf's errors have no common base outside its own package
        raise WorkloadError(f"{path}: not a complete ONNX file: {first_line(problem)}") from None
    if not model.graph.node:
        raise WorkloadError(f"{path}: an ONNX file without a network")
    reader: OnnxReader | None = None
    try:
        reader = OnnxReader(path, onnx, model, HANDLERS)
        return reader.read(shapes)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration) as problem:
        place = f"{path}: {reader.layer}" if reader is not None and reader.layer else f"{path}"
        raise WorkloadError(f"{place}: not as the ONNX standard has it: {problem!r}") from None


def first_line(problem: Exception) -> str:
    """The first line of an error with anything in it."""
    return next((line.strip() for line in str(problem).splitlines() if line.strip()), type(problem).__name__)
