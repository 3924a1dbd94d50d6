"""The network as the cost model sees it: layers with loop bounds and bit-widths, in a networkx DiGraph.

Loop names are the field's: N batch, G groups, K output and C input channels per group, P,Q output rows and
columns, R,S filter rows and columns, so MACs = N*G*K*C*P*Q*R*S. Nodes are frozen `Layer`s, edges are tensors.
Nothing here knows torch or an accelerator; files are JSON (`Workload.save`, `load_workload`).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.errors import WorkloadError

if TYPE_CHECKING:
    import networkx as nx

DIMS: tuple[str, ...] = ("N", "G", "K", "C", "P", "Q", "R", "S")
MAC_OPS: tuple[str, ...] = ("conv", "linear", "matmul")
# Operators without MACs, priced on the vector unit or as data movement; see vector.VECTOR_OPS_PER_ELEMENT.
VECTOR_OPS: tuple[str, ...] = (
    "add", "mul", "sub", "div", "relu", "relu6", "leaky_relu", "silu", "hswish", "hsigmoid", "sigmoid", "gelu",
    "tanh", "exp", "sqrt", "pow", "softmax", "layer_norm", "batch_norm", "group_norm", "lrn", "max_pool", "avg_pool",
    "reduce_sum", "reduce_mean", "reduce_max", "concat", "embedding", "pad", "upsample", "requantize", "copy",
)  # fmt: skip
# Functions of one element that run on the accumulator, before its one rounding to the output's bits.
ACTIVATION_FUNCTIONS: frozenset[str] = frozenset(
    ("relu", "relu6", "leaky_relu", "silu", "hswish", "hsigmoid", "sigmoid", "gelu", "tanh")
)
# Beyond these, products of counts and bits would leave 64-bit integers.
MAX_ELEMENTS = 2**40
MAX_MACS = 2**50
FLOAT_BITS = 32  # what a tensor counts that nobody quantized
FORMAT = "hwsim-workload"
FORMAT_VERSION = 1


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
    """

    name: str
    shape: tuple[int, ...]
    bits: int = FLOAT_BITS
    signed: bool = True
    offset: bool = False
    origin: str = ""
    scales: int = 1
    zero_point: int | None = None

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def size_bits(self) -> int:
        """Elements times bits, densely packed."""
        return self.elements * self.bits


@dataclass(frozen=True)
class Layer:
    """One operator of the network.

    MAC operators (`conv`, `linear`, `matmul`) have `loops` and a `weight`; for `matmul` the "weight" is an
    activation (`weight_is_activation`). Other operators list their inputs and count `elements` of work.
    `padding` is (top, bottom, left, right) in input pixels. `padding_policy`: how zero padding meets the offset
    (`pad_code`, `snap_offset`, `pad_beta`, `border_bias`; empty where there is nothing to pad).
    `pad_code`: the code that 0.0 has at the layer's input, where the trained offset is known; None: not known.
    `window`: elements read per output element (pooling); 1 elsewhere.
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
    source: str = ""  # what it was in the model, for messages
    pad_code: int | None = None

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
        terms = self.loops.C * self.loops.R * self.loops.S
        largest = terms * max_magnitude(self.weight) * max_magnitude(self.inputs[0])
        return max(2, largest.bit_length() + 1)

    def shape_key(self) -> tuple[object, ...]:
        """What decides the access counts: two layers with equal keys have equal mappings and counts."""
        return (self.op, self.loops, self.stride, self.dilation)

    def bits_key(self) -> tuple[int, int, int, int]:
        """(weight, input, output, accumulator) bits."""
        weight = self.weight.bits if self.weight is not None else 0
        return (weight, self.inputs[0].bits, self.output.bits, self.accumulator_bits_needed())


def max_magnitude(tensor: Tensor) -> int:
    """Largest absolute code of a tensor: 2^(b-1) signed, 2^b - 1 unsigned."""
    return 2 ** (tensor.bits - 1) if tensor.signed else 2**tensor.bits - 1


@dataclass(frozen=True)
class Uncosted:
    """An operator met in the model that has no price: named, counted, never silently free.

    `elements`: how many it makes. `macs`: None where its shapes do not tell them.
    """

    name: str
    op: str
    elements: int
    macs: int | None = None


@dataclass(frozen=True)
class FreeOp:
    """Operators that cost nothing, and why: views, what folds into a neighbour, what is the identity at inference."""

    op: str
    count: int
    why: str


@dataclass(frozen=True)
class Coverage:
    """What became of the model's operators, as found while extracting it.

    `ops_total` counts those that depend on the input; `ops_costed` of them have a price or are `free` with a reason.
    """

    ops_total: int
    ops_costed: int
    uncosted: tuple[Uncosted, ...] = ()
    free: tuple[FreeOp, ...] = ()


@dataclass(frozen=True)
class Shares:
    """Costed shares of a network, each between 0 and 1. `macs` counts the MACs known of uncosted operators;
    `unknown_macs` is how many uncosted operators may hide more."""

    macs: float
    elements: float
    operators: float
    unknown_macs: int


class Workload:
    """A network: a DiGraph of layers. `layers` come in execution order.

    Edges carry `tensor`: the name of the tensor that flows. Graph inputs have no node; they are the tensors that
    no layer produces.
    """

    def __init__(
        self,
        name: str,
        layers: Iterable[Layer],
        coverage: Coverage | None = None,
        notes: tuple[str, ...] = (),
    ):
        self.name = name
        self.layers: tuple[Layer, ...] = tuple(layers)
        self.coverage = coverage or Coverage(len(self.layers), len(self.layers))
        self.notes = notes
        self._validate()

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Workload) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def graph(self) -> nx.DiGraph[str]:
        """Nodes: layer names with attribute `layer`; edges: producer to consumer with attribute `tensor`."""
        import networkx as nx  # a tenth of a second that a run which never looks at the graph need not pay

        graph = nx.DiGraph(name=self.name)
        producer = {layer.output.name: layer.name for layer in self.layers}
        for layer in self.layers:
            graph.add_node(layer.name, layer=layer)
        for layer in self.layers:
            for tensor in activation_inputs(layer):
                if tensor.name in producer:
                    graph.add_edge(producer[tensor.name], layer.name, tensor=tensor.name)
        return graph

    @property
    def macs(self) -> int:
        """MACs of the whole network."""
        return sum(layer.macs for layer in self.layers)

    @property
    def quantized(self) -> bool:
        """Whether any operand carries bits of its own; a float network counts 32 bits throughout."""
        return any(t.bits < FLOAT_BITS and t.origin != "index" for t in self.tensors.values())

    @property
    def shares(self) -> Shares:
        """How much of the network has a price: MACs, elements made, operators."""
        uncosted = self.coverage.uncosted
        macs = self.macs + sum(u.macs or 0 for u in uncosted)
        elements = sum(layer.output.elements for layer in self.layers)
        missed = sum(u.elements for u in uncosted)
        return Shares(
            self.macs / macs if macs else 1.0,
            elements / (elements + missed),
            self.coverage.ops_costed / self.coverage.ops_total if self.coverage.ops_total else 1.0,
            sum(u.macs is None for u in uncosted),
        )

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name (weights and activations)."""
        found: dict[str, Tensor] = {}
        for layer in self.layers:
            for tensor in operands(layer):
                found.setdefault(tensor.name, tensor)
        return found

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> Workload:
        """The same network with `change` applied to every operand (for instance new bits)."""

        def relayer(layer: Layer) -> Layer:
            return dataclasses.replace(
                layer,
                inputs=tuple(change(t) for t in layer.inputs),
                output=change(layer.output),
                weight=change(layer.weight) if layer.weight else None,
            )

        return Workload(self.name, (relayer(layer) for layer in self.layers), self.coverage, self.notes)

    def with_notes(self, *notes: str) -> Workload:
        """The same network with further notes; they end up among the report's assumptions."""
        return Workload(self.name, self.layers, self.coverage, (*self.notes, *notes))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; `from_dict` reads it back."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "notes": list(self.notes),
            "coverage": dataclasses.asdict(self.coverage),
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
        }

    def save(self, path: str | Path) -> None:
        """Write JSON atomically: the file is either the old one or complete."""
        write_atomically(Path(path), json.dumps(self.to_dict(), indent=1) + "\n")

    def _validate(self) -> None:
        if not self.layers:
            raise WorkloadError(f"workload {self.name}: expected at least one layer, found none")
        seen: set[str] = set()
        produced: set[str] = set()
        codes: dict[str, tuple[str, Tensor]] = {}
        for layer in self.layers:
            if layer.name in seen:
                raise WorkloadError(f"workload {self.name}: two layers are called {layer.name!r}; names must differ")
            if layer.output.name in produced:
                raise WorkloadError(f"layer {layer.name}: tensor {layer.output.name!r} is already produced by another")
            seen.add(layer.name)
            produced.add(layer.output.name)
            validate_layer(layer)
            for tensor in operands(layer):
                first, known = codes.setdefault(tensor.name, (layer.name, tensor))
                if (tensor.bits, tensor.signed, tensor.offset) != (known.bits, known.signed, known.offset):
                    raise WorkloadError(
                        f"layer {layer.name}: tensor {tensor.name!r} has {describe_codes(tensor)}, "
                        f"but {describe_codes(known)} in layer {first}; one tensor has one kind of codes"
                    )


def activation_inputs(layer: Layer) -> tuple[Tensor, ...]:
    """The tensors that flow into a layer from others (a matmul's second operand included)."""
    if layer.weight is not None and layer.weight_is_activation:
        return (*layer.inputs, layer.weight)
    return layer.inputs


def operands(layer: Layer) -> tuple[Tensor, ...]:
    """All tensors a layer touches: inputs, output, weight."""
    return (*layer.inputs, layer.output, *((layer.weight,) if layer.weight is not None else ()))


def describe_codes(tensor: Tensor) -> str:
    """`4 unsigned bits with an offset`, for messages."""
    return f"{tensor.bits} {'signed' if tensor.signed else 'unsigned'} bits{' with an offset' if tensor.offset else ''}"


def validate_layer(layer: Layer) -> None:
    """Refuse shapes that contradict the loops. Raises WorkloadError naming the layer and both numbers."""
    if layer.op not in MAC_OPS and layer.op not in VECTOR_OPS:
        raise WorkloadError(f"layer {layer.name}: unknown op {layer.op!r}; known: {', '.join(MAC_OPS + VECTOR_OPS)}")
    for tensor in operands(layer):
        if any(n < 1 for n in tensor.shape):
            raise WorkloadError(f"layer {layer.name}: tensor {tensor.name}: sizes must be positive, got {tensor.shape}")
        if tensor.elements > MAX_ELEMENTS:
            raise WorkloadError(
                f"layer {layer.name}: tensor {tensor.name}: {tensor.elements:,} elements are more than the "
                f"{MAX_ELEMENTS:,} that counts can hold"
            )
        if not 1 <= tensor.bits <= 64:
            raise WorkloadError(f"layer {layer.name}: tensor {tensor.name}: bits must be 1..64, got {tensor.bits!r}")
    if any(n < 1 for n in layer.loops.as_tuple() + layer.stride + layer.dilation) or any(n < 0 for n in layer.padding):
        raise WorkloadError(f"layer {layer.name}: loops, stride and dilation must be positive, padding not negative")
    if layer.macs > MAX_MACS or layer.elements > MAX_MACS:
        raise WorkloadError(
            f"layer {layer.name}: {max(layer.macs, layer.elements):,} operations are more than {MAX_MACS:,}"
        )
    if not layer.has_macs:
        return
    loops = layer.loops
    if layer.weight is None or not layer.inputs:
        raise WorkloadError(f"layer {layer.name}: a {layer.op} needs a weight and an input")
    expected = {
        "output": (loops.N * loops.G * loops.K * loops.P * loops.Q, layer.output.elements),
        "weight": (
            loops.G * loops.K * loops.C * loops.R * loops.S,
            layer.weight.elements,
        ),
    }
    for operand, (from_loops, from_shape) in expected.items():
        if from_loops != from_shape:
            raise WorkloadError(
                f"layer {layer.name}: {operand} has {from_shape} elements, "
                f"its loops {loops.as_dict()} give {from_loops}"
            )
    if layer.op == "conv":
        validate_conv_geometry(layer)


def validate_conv_geometry(layer: Layer) -> None:
    """Output rows and columns must follow from the (N, G*C, H, W) input; a 1-D convolution has H = P = R = 1."""
    loops, shape = layer.loops, layer.inputs[0].shape
    if len(shape) != 4 or shape[:2] != (loops.N, loops.G * loops.C):
        wanted = f"({loops.N}, {loops.G * loops.C}, H, W)"
        raise WorkloadError(f"layer {layer.name}: expected an input of shape {wanted}, got {shape}")
    top, bottom, left, right = layer.padding
    for axis, size, padding, kernel, out in (
        (0, shape[2], top + bottom, loops.R, loops.P),
        (1, shape[3], left + right, loops.S, loops.Q),
    ):
        expected = (size + padding - layer.dilation[axis] * (kernel - 1) - 1) // layer.stride[axis] + 1
        if expected != out:
            raise WorkloadError(
                f"layer {layer.name}: output {'rows' if axis == 0 else 'columns'} are {out}, input {size} with kernel "
                f"{kernel}, stride {layer.stride[axis]}, dilation {layer.dilation[axis]}, padding {padding} "
                f"gives {expected}"
            )


def load_workload(path: str | Path) -> Workload:
    """Read a saved workload. Raises WorkloadError with file and reason; executes nothing."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise WorkloadError(f"{path}: cannot be read as a workload: {problem}") from None
    try:
        data = json.loads(text, parse_constant=reject_constant)
    except (ValueError, RecursionError) as problem:
        raise WorkloadError(f"{path}: not a complete JSON file: {problem}") from None
    try:
        return from_dict(data)
    except WorkloadError as problem:
        raise WorkloadError(f"{path}: {problem}") from None


def reject_constant(word: str) -> float:
    """JSON's NaN and Infinity are no numbers here."""
    raise ValueError(f"{word} is not a number a workload can hold")


def from_dict(data: Any) -> Workload:
    """Inverse of `Workload.to_dict`; strict about keys and types."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise WorkloadError(f'expected a saved workload ("format": "{FORMAT}"), found another kind of file')
    if data.get("format_version") != FORMAT_VERSION:
        raise WorkloadError(f"format_version {data.get('format_version')!r}; this version reads {FORMAT_VERSION}")
    missing = [key for key in ("name", "layers", "coverage") if key not in data]
    if missing:
        raise WorkloadError(f"key {missing[0]!r} is missing")
    entries, notes = data["layers"], data.get("notes", [])
    if not isinstance(entries, list) or not isinstance(notes, list):
        raise WorkloadError("layers and notes: expected lists")
    layers = [build(Layer, entry, f"layers[{i}]") for i, entry in enumerate(entries)]
    coverage = build(Coverage, data["coverage"], "coverage")
    return Workload(plain(data["name"], "str", "name"), layers, coverage, tuple(str(note) for note in notes))


NESTED: Mapping[str, Any] = {"loops": Loops, "output": Tensor, "weight": Tensor}
NESTED_LISTS: Mapping[str, Any] = {"inputs": Tensor, "uncosted": Uncosted, "free": FreeOp}


def build(cls: Any, entry: Any, where: str) -> Any:
    """A frozen dataclass from its JSON form; unknown and missing keys and wrong types are refused with their place."""
    if not isinstance(entry, dict):
        raise WorkloadError(f"{where}: expected an object, got {type(entry).__name__}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(entry) - set(fields))
    if unknown:
        raise WorkloadError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(fields)}")
    values: dict[str, Any] = {}
    for key, value in entry.items():
        place = f"{where}.{key}"
        if key in NESTED_LISTS:
            if not isinstance(value, list):
                raise WorkloadError(f"{place}: expected a list, got {value!r}")
            values[key] = tuple(build(NESTED_LISTS[key], v, f"{place}[{i}]") for i, v in enumerate(value))
        elif key in NESTED and (value is not None or "None" not in str(fields[key].type)):
            values[key] = build(NESTED[key], value, place)
        else:
            values[key] = plain(value, str(fields[key].type), place)
    try:
        return cls(**values)
    except TypeError as problem:
        raise WorkloadError(f"{where}: {problem}".replace("__init__()", "it")) from None


def plain(value: Any, annotation: str, place: str) -> Any:
    """A leaf value checked against its field's annotation (the few forms this file uses)."""
    if annotation.startswith("tuple[int"):
        if not isinstance(value, list) or any(not isinstance(v, int) or isinstance(v, bool) for v in value):
            raise WorkloadError(f"{place}: expected a list of integers, got {value!r}")
        count = annotation.count("int")
        if "..." not in annotation and len(value) != count:
            raise WorkloadError(f"{place}: expected {count} integers, got {len(value)}")
        return tuple(value)
    allowed: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "str": (str,),
        "bool": (bool,),
        "int | None": (int, type(None)),
        "Tensor | None": (type(None),),
    }
    kinds = allowed[annotation]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise WorkloadError(f"{place}: expected {annotation}, got {value!r}")
    return value


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` in one step, so that a crash never leaves half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
