"""A layer as the cost model sees it: loop bounds, operands with bits and signedness, how outputs are made.

Loop names are the field's: N batch, G groups, K output and C input channels per group, P,Q output rows and
columns, R,S filter rows and columns, so MACs = N*G*K*C*P*Q*R*S.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from hwsim.network.formats import SCALE_BITS, Format

DIMS: tuple[str, ...] = ("N", "G", "K", "C", "P", "Q", "R", "S")
MAC_OPS: tuple[str, ...] = ("conv", "linear", "matmul")
# Operators without MACs, priced on the vector unit or as data movement; see vector.VECTOR_OPS_PER_ELEMENT.
VECTOR_OPS: tuple[str, ...] = (
    "add", "mul", "sub", "div", "relu", "relu6", "leaky_relu", "silu", "hswish", "hsigmoid", "sigmoid", "gelu",
    "tanh", "exp", "sqrt", "pow", "softmax", "layer_norm", "batch_norm", "group_norm", "lrn", "max_pool", "avg_pool",
    "reduce_sum", "reduce_mean", "reduce_max", "concat", "embedding", "pad", "upsample", "requantize", "copy",
    "rms_norm", "rope", "swiglu", "combine",
)  # fmt: skip
# Functions of one element that run on the accumulator, before its one rounding to the output's bits.
ACTIVATION_FUNCTIONS: frozenset[str] = frozenset(
    ("relu", "relu6", "leaky_relu", "silu", "hswish", "hsigmoid", "sigmoid", "gelu", "tanh")
)
# Beyond these, products of counts and bits would leave 64-bit integers.
MAX_ELEMENTS = 2**40
MAX_MACS = 2**50
FLOAT_BITS = 32  # what a tensor counts that nobody quantized


@dataclass(frozen=True)
class Loops:
    """Loop bounds of a layer; all 1 where an operator has no MACs."""

    N: int = 1
    G: int = 1
    K: int = 1
    C: int = 1
    P: int = 1
    Q: int = 1
    R: int = 1
    S: int = 1

    @property
    def macs(self) -> int:
        """N*G*K*C*P*Q*R*S."""
        return math.prod(self.as_tuple())

    def as_tuple(self) -> tuple[int, ...]:
        """Bounds in the order of `DIMS`."""
        return (self.N, self.G, self.K, self.C, self.P, self.Q, self.R, self.S)

    def as_dict(self) -> dict[str, int]:
        """Bounds by name."""
        return dict(zip(DIMS, self.as_tuple(), strict=True))


@dataclass(frozen=True)
class Tensor:
    """One operand: a named array of codes.

    `name` is shared by everybody who touches the same tensor (so bits are assigned per tensor, not per layer).
    `origin` says what produced an activation (`image`, `relu`, `silu`, `sigmoid`, `linear`, `softmax`, ...): it
    decides the quantizer's configuration. `offset`: a real-valued beta belongs to it. `scales`: step sizes stored.
    `zero_point`: the code that means 0.0, in files whose offsets are integers (beta = -s * zero_point).
    `run_time`: step and offset are found anew for every input (dynamic quantization), so no bias can absorb the offset.
    `format`: element, shared scales and offsets where they are more than integers with `scales` steps; its scales and
    offsets (`scales` of each) are stored and moved with the codes.
    """

    name: str
    shape: tuple[int, ...]
    bits: int = FLOAT_BITS
    signed: bool = True
    offset: bool = False
    origin: str = ""
    scales: int = 1
    zero_point: int | None = None
    run_time: bool = False
    format: Format | None = None

    @property
    def element(self) -> str:
        """What one code is: `int`, or the name of a float."""
        return "int" if self.format is None else self.format.element

    @property
    def side_bits(self) -> int:
        """Scales and offsets stored with the codes; 0 for integers whose steps are parameters of a layer."""
        if self.format is None:
            return 0
        return self.scales * self.format.side_bits_each + SCALE_BITS.get(self.format.tensor_scale, 0)

    @property
    def side_bits_per_element(self) -> float:
        """Scales and offsets that travel with one code, on average: groups move whole."""
        return self.side_bits / self.elements

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def size_bits(self) -> int:
        """Elements times bits, densely packed, and what scales and offsets take beside them."""
        return self.elements * self.bits + self.side_bits


@dataclass(frozen=True)
class Layer:
    """One operator of the network.

    MAC operators (`conv`, `linear`, `matmul`) have `loops` and a `weight`; for `matmul` the "weight" is an
    activation (`weight_is_activation`). Other operators list their inputs and count `elements` of work.
    `padding` is (top, bottom, left, right) in input pixels. `padding_policy`: how zero padding meets the offset
    (`pad_code`, `snap_offset`, `pad_beta`, `border_bias`; empty where there is nothing to pad).
    `pad_code`: the code that 0.0 has at the layer's input, where the trained offset is known; None: not known.
    `window`: elements read per output element (pooling); 1 elsewhere. `kernel`: rows and columns of that window where
    it is known to slide by `stride` over `padding`; (0, 0) where only its size is known.
    """

    name: str
    op: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    weight: Tensor | None = None
    loops: Loops = Loops()
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    padding_policy: str = ""
    bias: bool = False
    accumulator_bits: int | None = None  # None: derived, see `accumulator_bits_needed`
    weight_is_activation: bool = False
    window: int = 1
    kernel: tuple[int, int] = (0, 0)
    source: str = ""  # what it was in the model, for messages
    pad_code: int | None = None
    causal_rows: int = 0  # attention behind a causal mask: new tokens among the keys; 0 without a mask
    causal_over: str = "K"  # the loop over keys: K in scores, C in the sums over values

    def causal_share(self, block: int) -> Fraction:
        """Share of the square's MACs that a kernel does which skips blocks of `block` tokens above the diagonal.

        `causal_rows` n queries see L keys, of which the last n are their own: rows of block i see at most
        L - n + (i + 1) * block of them. 1 without a mask, and where nothing is skipped (`block` 0).

        >>> Layer("a", "add", (), Tensor("t", (1,)), causal_rows=512, loops=Loops(K=512)).causal_share(128)
        Fraction(5, 8)
        """
        n = self.causal_rows
        if not n or not block:
            return Fraction(1)
        keys = self.loops.K if self.causal_rows and self.causal_over == "K" else self.loops.C
        seen = 0
        for start in range(0, n, block):
            end = min(start + block, n)
            seen += (end - start) * (keys - n + end)
        return Fraction(seen, n * keys)

    @property
    def has_macs(self) -> bool:
        """Whether the operator runs on the MAC array."""
        return self.op in MAC_OPS

    @property
    def macs(self) -> int:
        """Multiply-accumulates; 0 for vector operators."""
        return self.loops.macs if self.has_macs else 0

    @property
    def elements(self) -> int:
        """Elementwise work: output elements times window."""
        return self.output.elements * self.window

    @property
    def reach(self) -> tuple[int, int]:
        """Input rows and columns between the first and the last that one output reads, both included."""
        taps = (self.loops.R, self.loops.S) if self.has_macs else self.kernel
        rows, columns = ((n - 1) * step + 1 for n, step in zip(taps, self.dilation, strict=True))
        return rows, columns

    @property
    def bops(self) -> int:
        """Bit operations, MACs * weight bits * input bits (Uhlich, HAWQ); 0 for vector operators."""
        if self.weight is None or not self.has_macs:
            return 0
        return self.macs * self.weight.bits * self.inputs[0].bits

    def accumulator_bits_needed(self) -> int:
        """Accumulator width that no input can overflow, from widths and signs alone (two's complement).

        Largest |w|*|x| summed over C*R*S terms, plus one sign bit. An explicit `accumulator_bits` wins: the integer
        machine proves tighter bounds from the weight codes.
        """
        if self.accumulator_bits is not None:
            return self.accumulator_bits
        if self.weight is None:
            return self.output.bits
        if any(t.format is not None and (t.format.is_float or t.format.along_reduction) for t in self.multiplied):
            return FLOAT_BITS  # sums of floats, and of groups with a scale each, are float32
        terms = self.loops.C * self.loops.R * self.loops.S
        largest = terms * max_magnitude(self.weight) * max_magnitude(self.inputs[0])
        return max(2, largest.bit_length() + 1)

    @property
    def multiplied(self) -> tuple[Tensor, ...]:
        """The two operands of a layer with MACs: weight and input."""
        return () if self.weight is None or not self.has_macs else (self.weight, self.inputs[0])

    @property
    def format_key(self) -> tuple[object, ...]:
        """What scales and elements add to `bits_key`; of plain integers nothing."""
        touched = (*self.multiplied, self.output)
        return tuple((t.format, t.scales) for t in touched) if any(t.format for t in touched) else ()

    def shape_key(self) -> tuple[object, ...]:
        """What decides the access counts: two layers with equal keys have equal mappings and counts."""
        return (self.op, self.loops, self.stride, self.dilation, self.causal_rows)

    def bits_key(self) -> tuple[int, int, int, int]:
        """(weight, input, output, accumulator) bits."""
        weight = self.weight.bits if self.weight is not None else 0
        return (weight, self.inputs[0].bits, self.output.bits, self.accumulator_bits_needed())


def max_magnitude(tensor: Tensor) -> int:
    """Largest absolute code of a tensor: 2^(b-1) signed, 2^b - 1 unsigned."""
    return 2 ** (tensor.bits - 1) if tensor.signed else 2**tensor.bits - 1


def activation_inputs(layer: Layer) -> tuple[Tensor, ...]:
    """The tensors that flow into a layer from others (a matmul's second operand included)."""
    if layer.weight is not None and layer.weight_is_activation:
        return (*layer.inputs, layer.weight)
    return layer.inputs


def operands(layer: Layer) -> tuple[Tensor, ...]:
    """All tensors a layer touches: inputs, output, weight."""
    return (*layer.inputs, layer.output, *((layer.weight,) if layer.weight is not None else ()))
