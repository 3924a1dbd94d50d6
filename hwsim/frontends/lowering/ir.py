"""A network as a list of named operators with named arguments, whatever front end it came from.

Operators carry aten's names without the overload (`aten.conv2d`), arguments the names of aten's schemas. Shapes are
integers: a graph with symbolic sizes is refused by the front end that reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hwsim.network.formats import Format, floating


@dataclass(frozen=True)
class Ref:
    """A use of the value called `name`."""

    name: str


Arg = Ref | int | float | bool | str | None | tuple["Arg", ...]


#: Elements of the types in which files and modules store small floats, as numpy, torch, ONNX and TFLite spell them.
SMALL_FLOATS: dict[str, str] = {
    "float16": "fp16", "bfloat16": "bf16", "float8_e4m3fn": "e4m3", "float8e4m3fn": "e4m3", "float8_e5m2": "e5m2",
    "float8e5m2": "e5m2", "float4e2m1": "e2m1",
}  # fmt: skip


def small_float(dtype: str) -> Format | None:
    """The plain format of values of a type, where that is a float of fewer than 32 bits."""
    return floating(SMALL_FLOATS[dtype]) if dtype in SMALL_FLOATS else None


def is_unknown_float(dtype: str) -> bool:
    """Whether values of a type are small floats that no machine here multiplies: other vendors' float8, bare scales."""
    return dtype.startswith(("float8", "float4")) and dtype not in SMALL_FLOATS


@dataclass(frozen=True)
class Meta:
    """Shape and element type of a value; `dtype` as numpy spells it."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def is_complex(self) -> bool:
        """Complex numbers, each of them two real ones."""
        return self.dtype.startswith("complex")

    @property
    def numbers(self) -> tuple[int, ...]:
        """The shape of its real numbers: a complex array has a last axis of 2 more."""
        return (*self.shape, 2) if self.is_complex else self.shape

    @property
    def is_index(self) -> bool:
        """Integers and booleans: positions or masks, no activations."""
        return not self.dtype.startswith(("float", "bfloat", "complex"))


@dataclass(frozen=True)
class Op:
    """One operator call.

    `module`: qualified name of the innermost module that made the call ("" at the root); `call`: the same with the
    number of the module's call, so that two calls of one module differ; `line`: the user's code, where the
    front end noted it.
    """

    op: str
    args: Mapping[str, Arg]
    outputs: tuple[str, ...]
    module: str = ""
    call: str = ""
    line: str = ""

    def refs(self) -> Iterator[Ref]:
        """All values it reads, in argument order."""
        for value in self.args.values():
            yield from refs_in(value)

    def get(self, name: str, default: Arg = None) -> Arg:
        """An argument by its schema name, or the schema's default."""
        return self.args.get(name, default)


def refs_in(value: Arg) -> Iterator[Ref]:
    """The references inside an argument, lists included."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from refs_in(item)


@dataclass(frozen=True)
class Quantization:
    """What a quantizer module says about the codes it makes; `module` is its qualified name.

    `zero_point`: the integer that means 0.0, where the offset is snapped to one and there is one for the tensor.
    `run_time`: scale and offset are found anew for every input (dynamic quantization).
    `format`: element and shared scales, where they are more than integers with one step. `rule`: how the scales follow
    from the values (MX, NVFP4); empty where they are numbers of the quantizer's own. `beside_floats`: the format of a
    weight's codes where 16-bit floats read them: then their steps are stored numbers, no multipliers of the outputs.
    """

    module: str
    bits: int
    signed: bool
    offset: bool
    scales: int = 1
    of_weight: bool = False
    zero_point: int | None = None
    run_time: bool = False
    format: Format | None = None
    beside_floats: Format | None = None
    axis: int = -1  # along which groups and blocks of a format lie
    rule: str = ""

    def scales_of(self, shape: tuple[int, ...]) -> int:
        """Scales stored for a tensor: of an activation those of the format's groups, whatever batch it has; else what
        is known. Plain floats have none."""
        if self.format is not None and self.format.sharing == "none":
            return 0
        if self.format is None or not self.format.along_reduction or (self.of_weight and self.scales > 1):
            return self.scales
        length = shape[self.axis] if -len(shape) <= self.axis < len(shape) else shape[-1]
        return self.format.scales(math.prod(shape) // length, length)

    def same_codes(self, other: Quantization) -> bool:
        """Equal in everything that the codes' storage shows."""
        mine = (self.bits, self.signed, self.offset, self.format)
        return mine == (other.bits, other.signed, other.offset, other.format)

    def rounds_alike(self, other: Quantization) -> bool:
        """Whether both make the same codes of the same values: plain floats, blocks whose scales the values give."""
        if self.format is None or not self.same_codes(other):
            return False
        follows = bool(self.rule) and (self.rule, self.axis) == (other.rule, other.axis)
        return self.format.sharing == "none" or follows


@dataclass(frozen=True)
class OpGraph:
    """A whole network. `inputs`: values the user supplies; `constants`: value -> qualified parameter name.

    `quantizers` and `padding_policies` go by module name: what the graph itself does not say about a quantized model.
    `pad_codes`: the code of 0.0 at a module's input, for modules whose trained offset is known. `dependent`: values
    that depend on a network input by the file's own wiring, whatever the translated arguments say.
    """

    name: str
    inputs: tuple[str, ...]
    constants: Mapping[str, str]
    metas: Mapping[str, Meta]
    ops: tuple[Op, ...]
    outputs: tuple[str, ...]
    quantizers: Mapping[str, Quantization] = field(default_factory=dict[str, Quantization])
    padding_policies: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = field(default=())
    pad_codes: Mapping[str, int] = field(default_factory=dict[str, int])
    dependent: frozenset[str] = frozenset()

    def uses(self) -> dict[str, int]:
        """How often each value is read; being an output of the network counts as a read."""
        counts: dict[str, int] = {}
        for op in self.ops:
            for ref in op.refs():
                counts[ref.name] = counts.get(ref.name, 0) + 1
        for name in self.outputs:
            counts[name] = counts.get(name, 0) + 1
        return counts
