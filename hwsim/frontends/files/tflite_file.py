"""TFLite files as plain tables: `read_tflite(path) -> TfliteModel`, tensors with numbers, scales and zero points.

A small reader of the flatbuffer layout; the numbers are those of TensorFlow Lite's schema.fbs, version 3.
Nothing is executed, no package but numpy is needed, and every offset is checked against the file's end.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import WorkloadError

IDENTIFIER = b"TFL3"
MAX_BYTES = 2**31
# TensorType -> (numpy's name, bits, signed).
TYPES: dict[int, tuple[str, int, bool]] = {
    0: ("float32", 32, True),
    1: ("float16", 16, True),
    2: ("int32", 32, True),
    3: ("uint8", 8, False),
    4: ("int64", 64, True),
    6: ("bool", 1, False),
    7: ("int16", 16, True),
    9: ("int8", 8, True),
    10: ("float64", 64, True),
    15: ("uint32", 32, False),
    16: ("uint16", 16, False),
    17: ("int4", 4, True),
}
# BuiltinOperator, as far as networks use them; others keep their number as a name.
OPERATORS = {
    0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 5: "DEPTH_TO_SPACE",
    6: "DEQUANTIZE", 7: "EMBEDDING_LOOKUP", 9: "FULLY_CONNECTED", 11: "L2_NORMALIZATION", 14: "LOGISTIC", 16: "LSTM",
    17: "MAX_POOL_2D", 18: "MUL", 19: "RELU", 20: "RELU_N1_TO_1", 21: "RELU6", 22: "RESHAPE", 23: "RESIZE_BILINEAR",
    24: "RNN", 25: "SOFTMAX", 26: "SPACE_TO_DEPTH", 27: "SVDF", 28: "TANH", 32: "CUSTOM", 34: "PAD", 36: "GATHER",
    37: "BATCH_TO_SPACE_ND", 38: "SPACE_TO_BATCH_ND", 39: "TRANSPOSE", 40: "MEAN", 41: "SUB", 42: "DIV", 43: "SQUEEZE",
    45: "STRIDED_SLICE", 47: "EXP", 49: "SPLIT", 50: "LOG_SOFTMAX", 53: "CAST", 54: "PRELU", 55: "MAXIMUM",
    56: "ARG_MAX", 57: "MINIMUM", 59: "NEG", 60: "PADV2", 65: "SLICE", 67: "TRANSPOSE_CONV", 70: "EXPAND_DIMS",
    74: "SUM", 75: "SQRT", 76: "RSQRT", 77: "SHAPE", 78: "POW", 82: "REDUCE_MAX", 83: "PACK", 88: "UNPACK",
    92: "SQUARE", 97: "RESIZE_NEAREST_NEIGHBOR", 98: "LEAKY_RELU", 99: "SQUARED_DIFFERENCE", 100: "MIRROR_PAD",
    101: "ABS", 102: "SPLIT_V", 114: "QUANTIZE", 117: "HARD_SWISH", 126: "BATCH_MATMUL", 130: "BROADCAST_TO",
    142: "VAR_HANDLE", 143: "READ_VARIABLE", 144: "ASSIGN_VARIABLE", 150: "GELU",
}  # fmt: skip
ACTIVATIONS = {0: "", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH"}
# Options of an operator: field number -> (name, struct format, default).
POOL = {0: ("same", "b", 0), 1: ("stride_w", "i", 0), 2: ("stride_h", "i", 0), 3: ("filter_w", "i", 0),
        4: ("filter_h", "i", 0), 5: ("activation", "b", 0)}  # fmt: skip
OPTIONS: dict[str, dict[int, tuple[str, str, int]]] = {
    "CONV_2D": {0: ("same", "b", 0), 1: ("stride_w", "i", 0), 2: ("stride_h", "i", 0), 3: ("activation", "b", 0),
                4: ("dilation_w", "i", 1), 5: ("dilation_h", "i", 1)},
    "DEPTHWISE_CONV_2D": {0: ("same", "b", 0), 1: ("stride_w", "i", 0), 2: ("stride_h", "i", 0),
                          3: ("multiplier", "i", 0), 4: ("activation", "b", 0), 5: ("dilation_w", "i", 1),
                          6: ("dilation_h", "i", 1)},
    "AVERAGE_POOL_2D": POOL,
    "MAX_POOL_2D": POOL,
    "FULLY_CONNECTED": {0: ("activation", "b", 0), 1: ("weights_format", "b", 0), 2: ("keep_dims", "b", 0)},
    "CONCATENATION": {0: ("axis", "i", 0), 1: ("activation", "b", 0)},
    "ADD": {0: ("activation", "b", 0)},
    "SUB": {0: ("activation", "b", 0)},
    "MUL": {0: ("activation", "b", 0)},
    "DIV": {0: ("activation", "b", 0)},
    "MEAN": {0: ("keep_dims", "b", 0)},
    "BATCH_MATMUL": {0: ("transpose_left", "b", 0), 1: ("transpose_right", "b", 0)},
    "SPLIT": {0: ("parts", "i", 0)},
}  # fmt: skip


@dataclass(frozen=True)
class TfliteTensor:
    """One tensor: real = scale * (code - zero_point), per tensor or along `axis`. `data` is None for activations."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    bits: int
    signed: bool
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int
    data: NDArray[Any] | None

    @property
    def quantized(self) -> bool:
        """Whether its numbers are codes with a scale."""
        return bool(self.scales) and self.dtype in ("int4", "int8", "uint8", "int16", "uint16")


@dataclass(frozen=True)
class TfliteOp:
    """One operator: tensor numbers (-1: absent) and its options by name."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, int]


@dataclass(frozen=True)
class TfliteModel:
    """The first subgraph of a file; further ones (initialisers of variables) are counted in `subgraphs`."""

    path: Path
    tensors: tuple[TfliteTensor, ...]
    ops: tuple[TfliteOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    subgraphs: int


class Buffer:
    """The file's bytes with checked reads."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def number(self, position: int, form: str) -> int:
        """One little-endian integer."""
        (value,) = struct.unpack_from("<" + form, self.data, position)
        return int(value)

    def root(self) -> Table:
        """The table the file starts with."""
        return Table(self, self.number(0, "I"))

    def vector(self, position: int, form: str) -> tuple[Any, ...]:
        """A vector of numbers at `position`."""
        count = self.number(position, "I")
        return struct.unpack_from(f"<{count}{form}", self.data, position + 4)


class Table:
    """A flatbuffer table: fields by number."""

    def __init__(self, buffer: Buffer, position: int) -> None:
        self.buffer, self.position = buffer, position
        self.vtable = position - buffer.number(position, "i")
        if self.vtable < 0:
            raise IndexError("a table lies outside the file")

    def at(self, field: int) -> int | None:
        """Where a field's value stands; None when it has its default."""
        if 4 + 2 * field + 2 > self.buffer.number(self.vtable, "H"):
            return None
        offset = self.buffer.number(self.vtable + 4 + 2 * field, "H")
        return self.position + offset if offset else None

    def scalar(self, field: int, form: str, default: int = 0) -> int:
        """An integer field."""
        place = self.at(field)
        return default if place is None else self.buffer.number(place, form)

    def target(self, field: int) -> int | None:
        """Where a reference field points."""
        place = self.at(field)
        return None if place is None else place + self.buffer.number(place, "I")

    def numbers(self, field: int, form: str) -> tuple[Any, ...]:
        """A vector of numbers; empty when absent."""
        place = self.target(field)
        return () if place is None else self.buffer.vector(place, form)

    def text(self, field: int) -> str:
        """A string field."""
        place = self.target(field)
        if place is None:
            return ""
        size = self.buffer.number(place, "I")
        return self.buffer.data[place + 4 : place + 4 + size].decode("utf-8", "replace")

    def table(self, field: int) -> Table | None:
        """A table field."""
        place = self.target(field)
        return None if place is None else Table(self.buffer, place)

    def tables(self, field: int) -> list[Table]:
        """A vector of tables."""
        place = self.target(field)
        if place is None:
            return []
        count = self.buffer.number(place, "I")
        starts = [place + 4 + 4 * i for i in range(count)]
        return [Table(self.buffer, start + self.buffer.number(start, "I")) for start in starts]


def read_tflite(path: Path) -> TfliteModel:
    """The network in a TFLite file. Raises WorkloadError for anything else, truncated files included."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise WorkloadError(f"{path}: larger than 2 GiB: no TFLite file")
        raw = path.read_bytes()
    except OSError as problem:
        raise WorkloadError(f"{path}: cannot be read: {problem.strerror or problem}") from None
    if raw[4:8] != IDENTIFIER:
        raise WorkloadError(f"{path}: not a TFLite file (no {IDENTIFIER.decode()} mark)")
    try:
        return parse(path, Buffer(raw))
    except (struct.error, IndexError, ValueError, OverflowError, MemoryError) as problem:
        raise WorkloadError(f"{path}: not a complete TFLite file: {problem}") from None


def parse(path: Path, buffer: Buffer) -> TfliteModel:
    """The tables of a model as dataclasses."""
    model = buffer.root()
    codes = [operator_name(table) for table in model.tables(1)]
    buffers = model.tables(4)
    subgraphs = model.tables(2)
    if not subgraphs:
        raise WorkloadError(f"{path}: a TFLite file without a graph")
    graph = subgraphs[0]
    tensors = tuple(tensor(i, table, buffers) for i, table in enumerate(graph.tables(0)))
    ops = tuple(operator(table, codes) for table in graph.tables(3))
    for op in ops:
        wrong = [i for i in (*op.inputs, *op.outputs) if not -1 <= i < len(tensors)]
        if wrong:
            raise IndexError(f"{op.op} names tensor {wrong[0]} of {len(tensors)}")
    return TfliteModel(path, tensors, ops, graph.numbers(1, "i"), graph.numbers(2, "i"), len(subgraphs))


def operator_name(table: Table) -> str:
    """Name of an operator code; custom ones carry their own."""
    code = max(table.scalar(0, "b"), table.scalar(3, "i"))
    name = OPERATORS.get(code, f"BUILTIN_{code}")
    return f"CUSTOM_{table.text(1)}" if name == "CUSTOM" else name


def tensor(index: int, table: Table, buffers: list[Table]) -> TfliteTensor:
    """One tensor with its quantization and, for constants, its numbers."""
    dtype, bits, signed = TYPES.get(table.scalar(1, "b"), ("unknown", 32, True))
    shape = tuple(int(n) for n in table.numbers(0, "i"))
    quantization = table.table(4)
    scales = quantization.numbers(2, "f") if quantization else ()
    zero_points = quantization.numbers(3, "q") if quantization else ()
    axis = quantization.scalar(6, "i") if quantization else 0
    number = table.scalar(2, "I")
    content = buffers[number].numbers(0, "B") if number < len(buffers) and buffers[number].at(0) else ()
    data = constant(bytes(content), dtype, shape) if content else None
    return TfliteTensor(index, table.text(3), shape, dtype, bits, signed, scales, zero_points, axis, data)


def constant(raw: bytes, dtype: str, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Numbers of a constant tensor; None for types without a numpy counterpart."""
    if dtype == "unknown":
        return None
    if dtype == "int4":  # two to a byte, low half first
        halves = np.frombuffer(raw, np.uint8)
        nibbles = np.stack([halves & 15, halves >> 4], 1).reshape(-1)[: int(np.prod(shape))].astype(np.int8)
        return np.where(nibbles > 7, nibbles - 16, nibbles).astype(np.int8).reshape(shape)
    return np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).reshape(shape)


def operator(table: Table, codes: list[str]) -> TfliteOp:
    """One operator with the options that this version knows."""
    name = codes[table.scalar(0, "I")]
    found = table.table(4)
    options = {key: default for key, _, default in OPTIONS.get(name, {}).values()}
    for field, (key, form, default) in OPTIONS.get(name, {}).items():
        options[key] = found.scalar(field, form, default) if found else default
    if "same" in options:
        options["same"] = int(options["same"] == 0)  # Padding: SAME = 0, VALID = 1
    return TfliteOp(name, table.numbers(1, "i"), table.numbers(2, "i"), options)
