"""What flows while a graph is lowered: activations, constants, and layers that do not have their names yet.

A `Record` is one array in memory; an `Act` is one reader's view of it (a reshaped, sliced or quantized one). Views
share the record, so that a tensor keeps one name, whoever reads whatever part of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hwsim.frontends.lowering.ir import Op, Quantization
from hwsim.network.formats import Format
from hwsim.network.layer import Loops

Padding = tuple[int, int, int, int]  # top, bottom, left, right


@dataclass(eq=False)
class Record:
    """One activation array. `versions`: the quantizers applied to it, by module name."""

    shape: tuple[int, ...]
    origin: str
    name: str = ""  # given at the end, from the layer that makes it; inputs have theirs from the start
    index_bits: int | None = None  # integers (token ids): their width; None for activations
    producer: Draft | None = None
    versions: dict[str, Quantization] = field(default_factory=dict[str, Quantization])
    stored: Quantization | None = None  # decided at the end
    form: Format | None = None  # what it is while no quantizer covers it; None: 32 bits
    parts_apart: bool = False  # its parts are stored each in the codes of their own reader


@dataclass(frozen=True)
class Part:
    """Indices `start` to `stop` of dimension `dim` of the value called `source`."""

    source: str
    dim: int
    start: int
    stop: int

    def overlaps(self, other: Part) -> bool:
        """Whether an element may lie in both; ranges of different values are not compared."""
        same = (self.source, self.dim) == (other.source, other.dim)
        return not same or (self.start < other.stop and other.start < self.stop)


@dataclass(frozen=True)
class Act:
    """An activation as one reader sees it.

    `version`: the quantizer it went through, None for the unquantized array. `pad`: zeros still to be put round its
    last two dimensions; a convolution takes them over, anybody else has them written out first. `part`: the range that
    a split, slice or selection cut out of the array, if one did. `repeats`: how often an expansion shows each element.
    """

    record: Record
    shape: tuple[int, ...]
    version: str | None = None
    pad: Padding | None = None
    part: Part | None = None
    repeats: int = 1

    def seen_as(self, shape: tuple[int, ...]) -> Act:
        """The same values under another shape, zeros to pad dropped."""
        return replace(self, shape=shape, pad=None)


@dataclass(frozen=True)
class Const:
    """A parameter, or something computed from parameters alone, before any input arrives."""

    name: str
    shape: tuple[int, ...]
    quantization: Quantization | None = None
    form: Format | None = None


Single = Act | Const
Value = Act | Const | tuple["Value", ...]


@dataclass(eq=False)
class Draft:
    """A layer in the making; the fields are those of `workload.Layer`, operands still records."""

    kind: str
    op: Op
    label: str
    inputs: list[Act]
    out: Record
    weight: Single | None = None
    loops: Loops = field(default_factory=Loops)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    padding_policy: str = ""
    pad_code: int | None = None
    bias: bool = False
    window: int = 1
    kernel: tuple[int, int] = (0, 0)
    name: str = ""

    @property
    def is_mac(self) -> bool:
        """Whether it runs on the MAC array."""
        return self.kind in ("conv", "linear", "matmul")

    def operands(self) -> list[Act]:
        """All activations it reads, the second operand of a product included."""
        return [*self.inputs, self.weight] if isinstance(self.weight, Act) else self.inputs
