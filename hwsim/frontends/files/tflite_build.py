"""One TFLite graph as operators: names of values, quantizers of tensors, and what every handler may ask for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping

from hwsim.errors import WorkloadError
from hwsim.frontends.files.tflite_file import ACTIVATIONS, TfliteModel, TfliteOp, TfliteTensor
from hwsim.frontends.files.tflite_schema import TYPES
from hwsim.frontends.lowering.ir import SMALL_FLOATS, Arg, Meta, Op, OpGraph, Quantization, Ref
from hwsim.frontends.lowering.lower import QUANTIZER

TO_NCHW = {0: 0, 1: 2, 2: 3, 3: 1}  # where a dimension of N, H, W, C goes
FUSED = {"RELU": "relu", "RELU6": "relu6", "RELU_N1_TO_1": "hardtanh", "TANH": "tanh", "SIGN_BIT": "sign"}
# Operators that show a constant in another form: half floats, sparse or integer weights made dense numbers.
UNPACKING = ("DEQUANTIZE", "DENSIFY", "CAST", "RESHAPE", "TRANSPOSE", "QUANTIZE", "EXPAND_DIMS", "SQUEEZE")

# Operators that put the numbers of operands elsewhere -> which operands hold those numbers.
MOVING: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(
        ("GATHER", "GATHER_ND", "SLICE", "STRIDED_SLICE", "TILE", "BROADCAST_TO", "REVERSE_V2", "SPLIT_V", "UNPACK",
         "SPACE_TO_DEPTH", "DEPTH_TO_SPACE"), (0, 1),
    ),
    "EMBEDDING_LOOKUP": (1, 2), "SPLIT": (1, 2), "CONCATENATION": (0, None), "PACK": (0, None),
}  # fmt: skip
TYPE_NAMES = [name for name, _, _ in TYPES.values()]
# Operators that pass handles of states and tables on.
STATE = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE", "HASHTABLE", "HASHTABLE_FIND",
         "HASHTABLE_IMPORT", "HASHTABLE_SIZE")  # fmt: skip

Handler = Callable[["GraphBuilder", TfliteOp], None]


class GraphBuilder:
    """Translates one TFLite graph, operator by operator; `handlers` goes by operator."""

    def __init__(self, model: TfliteModel, handlers: Mapping[str, Handler]) -> None:
        self.model, self.handlers = model, handlers
        self.metas: dict[str, Meta] = {}
        self.constants: dict[str, str] = {}
        self.quantizers: dict[str, Quantization] = {}
        self.policies: dict[str, str] = {}
        self.ops: list[Op] = []
        self.inputs: list[str] = []
        self.moved: dict[int, int] = {}  # stored codes in other places, as the file's floats -> the tensor of codes
        self.packed: dict[int, int] = {}  # a constant in another form -> the stored tensor
        self.dependent: set[int] = set()
        self.empty = {tensor.index for tensor in model.tensors if tensor.stored and 0 in tensor.shape}
        self.coded_constants: set[int] = set()
        self.ahead: set[int] = set()  # what operators make of stored tensors alone: the file gives its type and scales
        self.hybrid = self.sparse = 0
        self.layer = ""
        self.dtype = "float32"  # of the numbers that the operator being translated works on
        names = Counter(tensor.name for tensor in model.tensors)
        self.names = [t.name if t.name and names[t.name] == 1 else f"{t.name}#{t.index}" for t in model.tensors]

    def build(self) -> OpGraph:
        """The whole graph. Raises WorkloadError where the file leaves sizes open."""
        produced = {index for op in self.model.ops for index in op.outputs}
        for tensor in self.model.tensors:
            self.declare(tensor)
        for index in self.model.inputs:
            self.feed(index)
        for tensor in self.model.tensors:
            if tensor.variable and tensor.index not in produced and tensor.index not in self.model.inputs:
                self.feed(tensor.index)
        for number, op in enumerate(self.model.ops):
            self.layer = f"{number:02d}_{op.op.lower()}"
            if any(i in self.dependent for i in op.inputs if i >= 0) and op.op not in ("SHAPE", "RANK"):
                self.dependent.update(set(op.outputs) - self.empty)
            self.translate(op)
        outputs = tuple(value(index) for index in self.model.outputs)
        dependent = frozenset(value(index) for index in self.dependent)
        return OpGraph(
            self.model.path.stem, tuple(self.inputs), self.constants, self.metas, tuple(self.ops), outputs,
            self.quantizers, self.policies, self.notes(), dependent=dependent,
        )  # fmt: skip

    def notes(self) -> tuple[str, ...]:
        """What the file has beyond its first graph, and what its runtime does by itself."""
        found: list[str] = []
        if self.model.subgraphs > 1:
            found.append(f"{self.model.subgraphs - 1} further graphs of the file (initialisers) are not of the network")
        if self.hybrid:
            found.append(
                f"hybrid: {self.hybrid} layers have integer weights and float activations; their inputs are quantized "
                "to 8 bits at run time"
            )
        if self.sparse:
            found.append(f"{self.sparse} weights are stored sparse; they are priced as dense ones")
        return tuple(found)

    def declare(self, tensor: TfliteTensor) -> None:
        """A tensor's shape, N, C, H, W where it has four dimensions; constants are known from the start."""
        shape = tensor.shape
        if any(n < 0 for n in shape) or (any(n < 1 for n in shape) and not tensor.stored):
            if not any(tensor.index in op.outputs or tensor.index in op.inputs for op in self.model.ops):
                return
            raise WorkloadError(f"{self.model.path}: tensor {tensor.name!r} has an open size {shape}")
        self.metas[value(tensor.index)] = Meta(channels_first(shape), self.type_of(tensor))
        self.check_type(tensor)
        if tensor.stored:
            self.constants[value(tensor.index)] = self.names[tensor.index]

    def check_type(self, tensor: TfliteTensor) -> None:
        """Handles, texts and types of later versions have no width. Raises WorkloadError where arithmetic meets one."""
        if tensor.dtype in TYPE_NAMES:
            return
        users = [op for op in self.model.ops if tensor.index in (*op.inputs, *op.outputs) and op.op not in STATE]
        if users:
            raise WorkloadError(
                f"{self.model.path}: {users[0].op} works on tensor {tensor.name!r}, whose element type {tensor.dtype} "
                f"has no width here; expected {', '.join(TYPE_NAMES)}"
            )

    def type_of(self, tensor: TfliteTensor) -> str:
        """Codes count as numbers; half floats only where they are stored."""
        if tensor.quantized:
            return "float32"
        return tensor.dtype

    def feed(self, index: int) -> None:
        """A value that the user, or the run before, supplies."""
        if index in self.empty:
            tensor = self.model.tensors[index]
            raise WorkloadError(f"{self.model.path}: its input {tensor.name!r} has no elements: {tensor.shape}")
        raw = f"input_{index}"
        self.metas[raw] = self.metas[value(index)]
        self.inputs.append(raw)
        self.dependent.add(index)
        self.round(self.model.tensors[index], raw)

    def add(self, op: str, outputs: tuple[str, ...], /, **arguments: Arg) -> None:
        """One operator of the layer being translated."""
        self.ops.append(Op(op, arguments, outputs, self.layer, self.layer))

    def round(self, tensor: TfliteTensor, raw: str) -> None:
        """The tensor as its codes: a quantizer of its own behind the raw value, if it is quantized at all."""
        if not tensor.quantized:
            self.add("aten.alias", (value(tensor.index),), self=Ref(raw))
            return
        name = self.names[tensor.index]
        self.quantizers[name] = quantization(tensor, name)
        self.add(QUANTIZER, (value(tensor.index),), x=Ref(raw), name=name)

    # -- operands ------------------------------------------------------------------------------------------------------

    def root(self, index: int) -> int:
        """The stored tensor behind a constant in another form."""
        while index in self.packed:
            index = self.packed[index]
        return index

    def is_stored(self, index: int) -> bool:
        """Whether a tensor is known before any input arrives: stored, or computed from what is."""
        root = self.root(index)
        return self.model.tensors[root].stored or root in self.ahead

    def weight(self, index: int, shape: tuple[int, ...]) -> Ref:
        """A constant operand under another shape, as its codes."""
        source = self.model.tensors[self.root(index)]
        plain, coded = f"weight_{source.index}:{shape}", f"weight_{source.index}:{shape}.codes"
        if math.prod(shape) != math.prod(source.shape):
            raise ValueError(f"tensor {source.name!r} of shape {source.shape} is read as {shape}")
        dtype = source.dtype if source.dtype in SMALL_FLOATS else "float32"
        self.metas[plain] = self.metas[coded] = Meta(shape, dtype)
        self.constants[plain] = self.names[source.index]
        self.sparse += source.sparse
        codes = source if source.quantized else self.model.tensors[self.moved.get(source.index, source.index)]
        if not codes.quantized:
            return Ref(plain)
        name = f"weight_{source.index}"
        self.quantizers[name] = quantization(codes, name, of_weight=True)
        self.add(QUANTIZER, (coded,), x=Ref(plain), name=name)
        return Ref(coded)

    def operand(self, op: TfliteOp, position: int) -> Arg:
        """An input of an operator, a stored one as its codes; None where it is absent."""
        if position >= len(op.inputs) or op.inputs[position] < 0:
            return None
        index = op.inputs[position]
        if self.is_stored(index):
            return self.weight(index, self.metas[value(index)].shape)
        return Ref(value(index))

    def operands(self, op: TfliteOp) -> dict[str, Arg]:
        """All inputs, for operators that need no names for them."""
        found = {f"input_{i}": self.operand(op, i) for i in range(len(op.inputs))}
        return {key: item for key, item in found.items() if item is not None}

    def tensor(self, op: TfliteOp, position: int) -> TfliteTensor:
        """The tensor behind an input. Raises WorkloadError when it is absent."""
        if position >= len(op.inputs) or op.inputs[position] < 0:
            raise WorkloadError(f"{self.model.path}: {self.layer} has no input {position}")
        return self.model.tensors[op.inputs[position]]

    def numbers(self, op: TfliteOp, position: int, what: str) -> list[int]:
        """A constant list of integers. Raises WorkloadError where it depends on the input."""
        data = self.tensor(op, position).data
        if data is None:
            raise WorkloadError(f"{self.model.path}: {self.layer}: its {what} is not constant")
        return [int(n) for n in data.reshape(-1)]

    def quantized_at_run_time(self, op: TfliteOp, x: Arg, position: int = 0) -> Arg:
        """The float input of a hybrid operator as codes that its runtime makes anew at every run."""
        self.hybrid += 1
        coded, limit, name = f"{self.layer}.codes", f"{self.layer}.limit", f"{self.layer}.input"
        source = self.metas[value(op.inputs[position])]
        self.metas[coded], self.metas[limit] = source, Meta(())
        self.add("aten.amax", (limit,), self=x)
        self.quantizers[name] = Quantization(name, 8, True, bool(op.options.get("asymmetric")), run_time=True)
        self.add(QUANTIZER, (coded,), x=x, name=name)
        return Ref(coded)

    # -- results -------------------------------------------------------------------------------------------------------

    def result(self, op: TfliteOp, operator: str, /, **arguments: Arg) -> None:
        """An operator with one output, the activation fused behind it, and the rounding of what it makes."""
        raw = f"{value(op.outputs[0])}.raw"
        self.metas[raw] = self.metas[value(op.outputs[0])]
        self.add(operator, (raw,), **arguments)
        self.finish(op, raw)

    def finish(self, op: TfliteOp, raw: str) -> None:
        """The activation fused behind an operator, and the rounding of what it makes."""
        index, code = op.outputs[0], op.options.get("activation", 0)
        function = ACTIVATIONS.get(code)
        if function is None:
            raise WorkloadError(f"{self.model.path}: {self.layer}: fused activation {code} is none of TFLite's")
        if function:
            active = f"{value(index)}.active"
            self.metas[active] = self.metas[raw]
            limits: dict[str, Arg] = {"min_val": -1.0, "max_val": 1.0} if function == "RELU_N1_TO_1" else {}
            self.add(f"aten.{FUSED[function]}", (active,), self=Ref(raw), **limits)
            raw = active
        self.round(self.model.tensors[index], raw)

    def fresh(self, name: str, shape: tuple[int, ...]) -> str:
        """A value of the layer being translated."""
        full = f"{self.layer}.{name}"
        self.metas[full] = Meta(shape, self.dtype)
        return full

    def move_codes(self, op: TfliteOp) -> None:
        """Numbers of stored codes, put elsewhere ahead of time, are still codes of that width."""
        first, last = MOVING[op.op]
        roots = [self.root(i) for i in op.inputs[first:last] if i >= 0]
        coded = [self.moved.get(i, i) for i in roots if self.model.tensors[self.moved.get(i, i)].quantized]
        if coded and len(coded) == len(roots):
            widest = max(coded, key=lambda i: self.model.tensors[i].bits)
            self.moved.update({i: widest for i in op.outputs if not self.model.tensors[i].quantized})

    def makes_nothing(self, op: TfliteOp) -> bool:
        """Whether all that an operator makes is without elements."""
        return bool(op.outputs) and self.empty.issuperset(op.outputs)

    def packs(self, op: TfliteOp) -> bool:
        """Whether an operator makes codes of stored numbers, which from there on are codes."""
        return self.model.tensors[op.outputs[0]].quantized and not self.model.tensors[op.inputs[0]].quantized

    def translate(self, op: TfliteOp) -> None:
        """One operator. What has no translation keeps its name, and is refused by it later."""
        constant = bool(op.inputs) and all(self.is_stored(index) for index in op.inputs if index >= 0)
        made = [self.model.tensors[index] for index in op.outputs[:1]]
        self.dtype = next((t.dtype for t in made if t.dtype in SMALL_FLOATS and not t.quantized), "float32")
        if constant and op.op in UNPACKING and not self.packs(op):
            self.packed[op.outputs[0]] = op.inputs[0]
        elif constant or not op.inputs or op.op in ("SHAPE", "RANK") or self.makes_nothing(op):
            for index in op.outputs:
                self.constants[value(index)] = self.names[index]
            self.ahead.update(op.outputs if constant else ())
            if constant and op.op in MOVING:
                self.move_codes(op)
        elif op.op in self.handlers:
            self.handlers[op.op](self, op)
        else:
            self.add(f"tflite.{op.op}", tuple(value(index) for index in op.outputs), **self.operands(op))


def value(index: int) -> str:
    """Name of a tensor's value in the graph."""
    return f"tensor_{index}"


def channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """N, C, H, W of N, H, W, C; any other rank as it is."""
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def axis_of(axis: int, rank: int) -> int:
    """A dimension of the file in N, C, H, W order."""
    axis %= max(rank, 1)
    return TO_NCHW[axis] if rank == 4 else axis


def quantization(tensor: TfliteTensor, name: str, of_weight: bool = False) -> Quantization:
    """Bits, sign, zero point and number of scales of a tensor."""
    zero = tensor.zero_points[0] if len(set(tensor.zero_points)) == 1 else None
    offset = any(tensor.zero_points)
    return Quantization(name, tensor.bits, tensor.signed, offset, len(tensor.scales), of_weight, zero)
