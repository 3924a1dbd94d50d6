"""TFLite files as plain tables: `read_tflite(path) -> TfliteModel`, tensors with numbers, scales and zero points.

A small reader of the flatbuffer layout; the numbers are those of TensorFlow Lite's schema.fbs, version 3.
Nothing is executed, no package but numpy is needed, and every offset is checked against the file's end.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import WorkloadError
from hwsim.files.reading import read_bytes
from hwsim.frontends.files.tflite_schema import ACTIVATIONS, CODES, HANDLES, OPERATORS, OPTIONS, TYPES
from hwsim.network.layer import MAX_ELEMENTS

__all__ = ["ACTIVATIONS", "IDENTIFIER", "TfliteModel", "TfliteOp", "TfliteTensor", "read_tflite"]
IDENTIFIER = b"TFL3"
MAX_BYTES = 2**31
MAX_OPERATORS = 200_000
NUMPY_TYPES = [name for name, _, _ in TYPES.values() if hasattr(np, "bool_" if name == "bool" else name)]
MAX_WINDOW = 2**16  # strides, dilations, window sizes


@dataclass(frozen=True)
class TfliteTensor:
    """One tensor: real = scale * (code - zero_point), per tensor or along `axis`. `data` is None for activations.

    `stored`: the file holds its numbers, even where `data` does not show them (sparse ones), or it has none.
    `signature`: its shape with -1 for open sizes. `variable`: a state that stays from one run to the next.
    """

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
    stored: bool = False
    sparse: bool = False
    signature: tuple[int, ...] = ()
    variable: bool = False

    @property
    def quantized(self) -> bool:
        """Whether its numbers are codes with a scale."""
        return bool(self.scales) and self.dtype in CODES


@dataclass(frozen=True)
class TfliteOp:
    """One operator: tensor numbers (-1: absent) and its options by name; `custom`: bytes of a custom one."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, int]
    custom: bytes = b""


@dataclass(frozen=True)
class TfliteGraph:
    """One graph of a file: what an operator of another one calls by its number."""

    tensors: tuple[TfliteTensor, ...]
    ops: tuple[TfliteOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class TfliteModel:
    """The first graph of a file. `graphs`: all of them; `subgraphs`: how many there are, without those written out."""

    path: Path
    tensors: tuple[TfliteTensor, ...]
    ops: tuple[TfliteOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    subgraphs: int
    graphs: tuple[TfliteGraph, ...] = ()


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
        count, room = self.buffer.number(place, "I"), (len(self.buffer.data) - place) // 4 - 1
        if count > room:  # before a list of so many is made
            raise IndexError(f"a list of {count:,} tables in a file with room for {room:,}")
        starts = [place + 4 + 4 * i for i in range(count)]
        return [Table(self.buffer, start + self.buffer.number(start, "I")) for start in starts]


def read_tflite(path: Path) -> TfliteModel:
    """The network in a TFLite file. Raises WorkloadError for anything else, truncated files included."""
    try:
        raw = read_bytes(path, MAX_BYTES)
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
    graphs = tuple(parse_graph(table, codes, buffers) for table in subgraphs)
    first = graphs[0]
    for op in (op for graph in graphs for op in graph.ops):
        for key in ("then", "otherwise", "condition", "body"):
            if not 0 <= op.options.get(key, 0) < len(graphs):
                raise IndexError(f"{op.op} calls graph {op.options[key]} of {len(graphs)}")
    return TfliteModel(path, first.tensors, first.ops, first.inputs, first.outputs, len(graphs), graphs)


def parse_graph(graph: Table, codes: list[str], buffers: list[Table]) -> TfliteGraph:
    """One graph of a file."""
    if max(len(graph.tables(0)), len(graph.tables(3))) > MAX_OPERATORS:
        raise ValueError(f"more than {MAX_OPERATORS:,} operators or tensors")
    tensors = tuple(tensor(i, table, buffers) for i, table in enumerate(graph.tables(0)))
    ops = tuple(operator(table, codes) for table in graph.tables(3))
    for op in ops:
        wrong = [i for i in (*op.inputs, *op.outputs) if not -1 <= i < len(tensors)]
        if wrong:
            raise IndexError(f"{op.op} names tensor {wrong[0]} of {len(tensors)}")
    ends = (*graph.numbers(1, "i"), *graph.numbers(2, "i"))
    if not all(0 <= i < len(tensors) for i in ends):
        raise IndexError(f"an input or output of the graph is none of its {len(tensors)} tensors")
    return TfliteGraph(tensors, ops, graph.numbers(1, "i"), graph.numbers(2, "i"))


def operator_name(table: Table) -> str:
    """Name of an operator code; custom ones carry their own."""
    code = max(table.scalar(0, "b"), table.scalar(3, "i"))
    name = OPERATORS.get(code, f"BUILTIN_{code}")
    return f"CUSTOM_{table.text(1)}" if name == "CUSTOM" else name


def tensor(index: int, table: Table, buffers: list[Table]) -> TfliteTensor:
    """One tensor with its quantization and, for constants, its numbers."""
    kind = table.scalar(1, "b")
    dtype, bits, signed = TYPES.get(kind, (HANDLES.get(kind, f"type_{kind}"), 32, True))
    shape = tuple(int(n) for n in table.numbers(0, "i"))
    quantization = table.table(4)
    scales = quantization.numbers(2, "f") if quantization else ()
    zero_points = quantization.numbers(3, "q") if quantization else ()
    axis = quantization.scalar(6, "i") if quantization else 0
    name = table.text(3)
    if any(abs(n) > MAX_ELEMENTS for n in shape) or abs(math.prod(shape)) > MAX_ELEMENTS:
        raise ValueError(f"tensor {name!r} has sizes {shape}; expected up to 2^40 elements")
    number = table.scalar(2, "I")
    content = buffers[number].numbers(0, "B") if number < len(buffers) and buffers[number].at(0) else ()
    sparse = table.at(6) is not None
    signature = tuple(int(n) for n in table.numbers(7, "i"))
    empty = 0 in shape and min((*shape, *signature)) >= 0  # a list of no numbers, a part of nothing
    data = constant(bytes(content), dtype, shape) if (content or empty) and not sparse else None
    return TfliteTensor(
        index, name, shape, dtype, bits, signed, scales, zero_points, axis, data, bool(content) or empty, sparse,
        signature, bool(table.scalar(5, "b")),
    )  # fmt: skip


def constant(raw: bytes, dtype: str, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Numbers of a constant tensor; None for types without a numpy counterpart."""
    if dtype in ("int2", "int4", "uint4"):
        return narrow(raw, int(dtype[-1]), dtype.startswith("int"), shape)
    if dtype not in NUMPY_TYPES:
        return None
    return np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).reshape(shape)


def narrow(raw: bytes, bits: int, signed: bool, shape: tuple[int, ...]) -> NDArray[Any]:
    """Codes of 2 or 4 bits, several to a byte, the lowest bits first."""
    packed = np.frombuffer(raw, np.uint8)
    parts = [(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    found = np.stack(parts, 1).reshape(-1)[: int(np.prod(shape))].astype(np.int8)
    return np.where(signed & (found >= 2 ** (bits - 1)), found - 2**bits, found).astype(np.int8).reshape(shape)


def operator(table: Table, codes: list[str]) -> TfliteOp:
    """One operator with the options that this version knows."""
    name = codes[table.scalar(0, "I")]
    found = table.table(12 if name.startswith("STABLEHLO_COMPOSITE") else 4)
    options = {key: default for key, _, default in OPTIONS.get(name, {}).values()}
    for field, (key, form, default) in OPTIONS.get(name, {}).items():
        options[key] = found.scalar(field, form, default) if found else default
    if "same" in options:
        options["same"] = int(options["same"] == 0)  # Padding: SAME = 0, VALID = 1
    for key, number in options.items():
        if key.startswith(("stride", "filter", "dilation")) and not 1 <= number <= MAX_WINDOW:
            raise ValueError(f"{name} has {key} = {number}; expected 1 to {MAX_WINDOW}")
    custom = bytes(table.numbers(5, "B")) if name.startswith("CUSTOM") else b""
    return TfliteOp(name, table.numbers(1, "i"), table.numbers(2, "i"), options, custom)
