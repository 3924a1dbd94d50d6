# pyright: basic
"""What the tensors of an ONNX file stand for while it is written, and what a written file says of its quantizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hwsim.errors import UnsupportedOp

QONNX_DOMAIN = "qonnx.custom_op.general"
CONTRIBUTED_DOMAIN = "com.microsoft"
PACKED_BITS = (2, 4, 8)  # of MatMulNBits in onnxruntime
REAL_ZERO_BITS = (2, 4)  # of those, with real-valued zero points
# Element types of codes, narrowest first: (name, least, largest, first opset whose quantizers take it).
CODE_TYPES = (
    ("UINT2", 0, 3, 25), ("INT2", -2, 1, 25), ("UINT4", 0, 15, 21), ("INT4", -8, 7, 21), ("UINT8", 0, 255, 21),
    ("INT8", -128, 127, 21), ("UINT16", 0, 65535, 21), ("INT16", -32768, 32767, 21),
)  # fmt: skip
# Integer Clip, which narrows codes to bits between these, exists for whole bytes.
CLIPPED_TYPES = tuple(entry for entry in CODE_TYPES if entry[0] in ("UINT8", "INT8"))


@dataclass(frozen=True)
class Grid:
    """x_hat = s*code + beta, n <= code <= p, as the file has it.

    `offset`: none; kept (beta is arithmetic beside the quantizer); exact (beta was -s*zero_point already); snapped to
    it, which moved beta by `shift` steps.
    """

    s: float
    beta: float
    zero_point: int
    n: int
    p: int
    offset: str
    shift: float = 0.0


@dataclass(frozen=True)
class Activations:
    """One activation quantizer of the file. `codes`: the tensor that shows its codes, c = tensor/s + zero_point.

    In qdq files that tensor holds the codes themselves (`is_codes`).
    """

    codes: str
    grid: Grid
    is_codes: bool
    type: str


@dataclass(frozen=True)
class Exported:
    """An ONNX model (a protobuf message) and what became of its quantizers, by the name of the quantizer's call."""

    proto: Any
    form: str
    activations: Mapping[str, Activations]
    weight_types: Mapping[str, int] = field(default_factory=dict)

    @property
    def kept(self) -> tuple[str, ...]:
        """Quantizers whose real beta stands in the file as arithmetic."""
        return tuple(name for name, a in self.activations.items() if a.grid.offset == "kept")

    @property
    def snapped(self) -> tuple[str, ...]:
        """Quantizers whose beta was moved to a zero point."""
        return tuple(name for name, a in self.activations.items() if a.grid.offset == "snapped")

    @property
    def largest_shift(self) -> float:
        """How far any beta moved, in steps of its quantizer (0.5 at most where its zero point fits)."""
        return max((abs(a.grid.shift) for a in self.activations.values()), default=0.0)


@dataclass(frozen=True)
class Value:
    """A tensor of the file."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Known:
    """Numbers known beforehand."""

    values: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Their shape."""
        return tuple(self.values.shape)


@dataclass(frozen=True)
class Codes:
    """Weight codes, w_hat = steps_k * (code + offsets_k). With `group` channels to a step, `steps` and `offsets` have a
    row of them per output; no `offsets`: all are 0."""

    codes: Tensor
    steps: Tensor
    quantizer: str
    group: int = 0
    offsets: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Their shape."""
        return tuple(self.codes.shape)


@dataclass(frozen=True)
class Rows:
    """Rows of a table of parameters, by indices; the quantizer behind them quantizes the table."""

    table: Known
    index: Value
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Quantized:
    """What an activation quantizer makes of a tensor; written when it is read, because a Pad may come before it."""

    source: Value
    quantizer: str
    label: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""
        return self.source.shape


@dataclass(frozen=True)
class Padded:
    """A quantized tensor inside zeros that its reader takes over: amounts as F.pad has them."""

    source: Quantized
    sides: tuple[int, ...]
    shape: tuple[int, ...]


def code_type(n: int, p: int) -> tuple[str, int, int, int]:
    """The type that holds codes n..p: one they fill, else whole bytes (which Clip can narrow).

    >>> code_type(0, 15)[0], code_type(-8, 7)[0], code_type(0, 7)[0], code_type(-1, 0)[0]
    ('UINT4', 'INT4', 'UINT8', 'INT8')
    """
    for entry in CODE_TYPES:
        if (entry[1], entry[2]) == (n, p):
            return entry
    for entry in (*CLIPPED_TYPES, *CODE_TYPES):
        if entry[1] <= n and p <= entry[2]:
            return entry
    raise UnsupportedOp(f"codes {n}..{p} fit no type of ONNX's quantizers")


def numbered(stem: str, place: int) -> str:
    """A name for the first, and for those behind it."""
    return f"{stem}_{place}" if place else stem


def grown(shape: Sequence[int], sides: Sequence[int]) -> tuple[int, ...]:
    """A shape inside padding given as F.pad has it."""
    sizes = list(shape)
    for i in range(len(sides) // 2):
        sizes[len(sizes) - 1 - i] += sides[2 * i] + sides[2 * i + 1]
    return tuple(sizes)


def spread(value: Any, axes: int) -> list[int]:
    """One number per axis."""
    values = [int(value)] if isinstance(value, int) else [int(v) for v in value]
    return values * axes if len(values) == 1 else values
