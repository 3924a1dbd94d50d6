"""TFLite files made field by field: `file(tensors, ops, ...)` -> bytes, in the layout of flatbuffers and schema.fbs 3.

Written from the schema's field numbers, and apart from the reader under test, which shares only the table of operators'
names and options.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.frontends.files.tflite_schema import CODES, OPERATORS, OPTIONS

TYPE = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9, "int4": 17,
        "bfloat16": 18, "int2": 19, "uint4": 20, "float8_e4m3fn": 21, "resource": 13, "later": 77}  # fmt: skip
CODE = {name: number for number, name in OPERATORS.items()}
# Where each operator's options stand in the schema's union; the reader does not look at it.
ANY_OPTIONS = 1
Field = tuple[str, Any]


@dataclass
class T:
    """A tensor. `scale` None: not quantized. `data` None: an activation."""

    shape: Sequence[int]
    dtype: str = "int8"
    scale: float | Sequence[float] | None = 0.1
    zero: int = 0
    data: Any = None
    name: str = ""
    axis: int = 0
    signature: Sequence[int] = ()
    variable: bool = False
    sparse: bool = False


@dataclass
class O:  # noqa: E742 - beside T
    """An operator with its options by the reader's names; CUSTOM ones by their own name and bytes."""

    kind: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: Mapping[str, int] = field(default_factory=dict[str, int])
    custom: bytes = b""


class Writer:
    """Tables before what they point to; every field takes eight bytes, so that all is aligned."""

    def __init__(self) -> None:
        self.out = bytearray(8)
        self.out[4:8] = b"TFL3"

    def align(self) -> int:
        self.out += bytes(-len(self.out) % 8)
        return len(self.out)

    def table(self, fields: Mapping[int, Field]) -> int:
        """Write a table and all below it; where it stands."""
        slots = max(fields, default=-1) + 1
        vtable = self.align()
        self.out += struct.pack("<HH", 4 + 2 * slots, 8 + 8 * len(fields))
        places = {number: 8 + 8 * i for i, number in enumerate(fields)}
        self.out += b"".join(struct.pack("<H", places.get(number, 0)) for number in range(slots))
        start = self.align()
        self.out += struct.pack("<i", start - vtable) + bytes(4 + 8 * len(fields))
        for number, (form, value) in fields.items():
            at = start + places[number]
            if form in "bBiIqf":
                struct.pack_into(f"<{form}", self.out, at, value)
            else:
                self.refer(at, self.object(form, value))
        return start

    def refer(self, at: int, target: int) -> None:
        struct.pack_into("<I", self.out, at, target - at)

    def object(self, form: str, value: Any) -> int:
        """A string, a vector (`[i`, `[q`, `[f`, `[B`), a table or a vector of tables; where it stands."""
        if form == "table":
            return self.table(value)
        if form == "tables":
            start = self.align() + 4
            self.out += struct.pack("<II", 0, len(value)) + bytes(4 * len(value))
            for i, entry in enumerate(value):
                self.refer(start + 4 + 4 * i, self.table(entry))
            return start
        if form == "text":
            start = self.align() + 4
            self.out += struct.pack("<II", 0, len(value.encode())) + value.encode() + b"\0"
            return start
        start = self.align() + 4
        self.out += struct.pack("<II", 0, len(value)) + struct.pack(f"<{len(value)}{form[1]}", *value)
        return start


def numbers_of(data: Any, dtype: str) -> bytes:
    """A constant's bytes; two int4 to a byte, the first in the low half."""
    if isinstance(data, bytes):
        return data
    array = np.asarray(data)
    if dtype == "int4":
        flat = array.astype(np.int8).reshape(-1) & 15
        flat = np.append(flat, np.zeros(len(flat) % 2, np.int8))
        return bytes((flat[::2] | (flat[1::2] << 4)).astype(np.uint8))
    return array.astype(np.dtype(dtype)).tobytes()


def tensor(t: T, number: int, buffer: int) -> dict[int, Field]:
    """The fields of a Tensor."""
    fields: dict[int, Field] = {
        0: ("[i", list(t.shape)), 1: ("b", TYPE[t.dtype]), 2: ("I", buffer), 3: ("text", t.name or f"t{number}"),
    }  # fmt: skip
    if t.scale is not None and t.dtype in (*CODES, "later"):
        scales = [t.scale] if isinstance(t.scale, int | float) else list(t.scale)
        fields[4] = ("table", {2: ("[f", scales), 3: ("[q", [t.zero] * len(scales)), 6: ("i", t.axis)})
    if t.variable:
        fields[5] = ("b", 1)
    if t.sparse:
        fields[6] = ("table", {0: ("[i", list(range(len(t.shape))))})
    if t.signature:
        fields[7] = ("[i", list(t.signature))
    return fields


def operator(o: O, number: int) -> dict[int, Field]:
    """The fields of an Operator."""
    fields: dict[int, Field] = {0: ("I", number), 1: ("[i", list(o.inputs)), 2: ("[i", list(o.outputs))}
    known = {name: (at, form) for at, (name, form, _) in OPTIONS.get(o.kind, {}).items()}
    options: dict[int, Field] = {}
    for name, chosen in o.options.items():
        at, form = known[name]
        options[at] = (form, 1 - chosen if name == "same" else chosen)
    if options:
        late = o.kind == "STABLEHLO_COMPOSITE"  # its options stand in the second union
        fields |= {11: ("b", ANY_OPTIONS), 12: ("table", options)} if late else {
            3: ("b", ANY_OPTIONS), 4: ("table", options)}  # fmt: skip
    if o.custom:
        fields[5] = ("[B", list(o.custom))
    return fields


@dataclass
class G:
    """A further graph, which an operator of another one calls by its number (1, 2, ...)."""

    tensors: Sequence[T]
    ops: Sequence[O]
    inputs: Sequence[int]
    outputs: Sequence[int]


def file(tensors: Sequence[T], ops: Sequence[O], inputs: Sequence[int] = (0,), outputs: Sequence[int] | None = None,
         old_codes: bool = False, bodies: Sequence[G] = ()) -> bytes:  # fmt: skip
    """A model. `old_codes`: operators by the one-byte code that files before 2020 have alone. `bodies`: its further
    graphs."""
    graphs = [G(tensors, ops, inputs, ops[-1].outputs if outputs is None else outputs), *bodies]
    buffers: list[dict[int, Field]] = [{}]
    codes: list[dict[int, Field]] = []
    for o in (o for graph in graphs for o in graph.ops):
        if o.kind.startswith("CUSTOM_"):
            codes.append({0: ("b", 32), 1: ("text", o.kind.removeprefix("CUSTOM_")), 3: ("i", 32)})
        else:
            number = CODE[o.kind]
            codes.append({0: ("b", min(number, 127))} | ({} if old_codes else {3: ("i", number)}))
    written: list[dict[int, Field]] = []
    count = 0
    for graph in graphs:
        described: list[dict[int, Field]] = []
        for number, t in enumerate(graph.tensors):
            if t.data is not None:
                buffers.append({0: ("[B", list(numbers_of(t.data, t.dtype)))})
            described.append(tensor(t, number, len(buffers) - 1 if t.data is not None else 0))
        written.append({
            0: ("tables", described), 1: ("[i", list(graph.inputs)), 2: ("[i", list(graph.outputs)),
            3: ("tables", [operator(o, count + i) for i, o in enumerate(graph.ops)]),
        })  # fmt: skip
        count += len(graph.ops)
    writer = Writer()
    root = writer.table({0: ("I", 3), 1: ("tables", codes), 2: ("tables", written), 4: ("tables", buffers)})
    struct.pack_into("<I", writer.out, 0, root)
    return bytes(writer.out)


def write(path: Path, *arguments: Any, **options: Any) -> Path:
    """`file` on the disk."""
    path.write_bytes(file(*arguments, **options))
    return path
