"""ONNX and QONNX networks as an `OpGraph`: `read_onnx(path, input_shape)`, weights left where they are.

Quant and BipolarQuant nodes (QONNX), QuantizeLinear and the QLinear operators carry bits, signs and zero points into
the graph. Shapes come from the onnx package's own inference; external weight files need not exist. Nothing is run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import WorkloadError
from hwsim.frontends.files.onnx_patterns import Patterns, find_patterns
from hwsim.frontends.lowering.ir import Arg, Meta, Op, OpGraph, Quantization, Ref
from hwsim.frontends.lowering.lower import QUANTIZER

QUANT_OPS = ("Quant", "BipolarQuant", "Trunc", "IntQuant")
# (bits, signed) of an element type that holds codes.
CODES = {"int2": (2, True), "uint2": (2, False), "int4": (4, True), "uint4": (4, False), "int8": (8, True),
         "uint8": (8, False), "int16": (16, True), "uint16": (16, False)}  # fmt: skip
UNARY = {
    "Relu": "relu", "LeakyRelu": "leaky_relu", "Sigmoid": "sigmoid", "HardSigmoid": "hardsigmoid", "Elu": "elu",
    "HardSwish": "hardswish", "Tanh": "tanh", "Softmax": "softmax", "LogSoftmax": "log_softmax", "Gelu": "gelu",
    "Erf": "erf", "Exp": "exp", "Sqrt": "sqrt", "Selu": "selu", "Celu": "celu", "Mish": "mish", "Softplus": "softplus",
    "Log": "log", "Neg": "neg", "Abs": "abs", "Reciprocal": "reciprocal", "Sin": "sin", "Cos": "cos", "Swish": "silu",
    "GlobalMaxPool": "amax", "DepthToSpace": "pixel_shuffle", "SpaceToDepth": "pixel_unshuffle",
}  # fmt: skip
BINARY = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow", "MatMul": "matmul", "PRelu": "prelu",
          "Greater": "gt", "Less": "lt", "Equal": "eq"}  # fmt: skip
VIEWS = ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Slice", "Identity", "Dropout", "Cast")
# Operators on codes: the operator on numbers they stand for, where its operands are (empty: every third from the
# second on), and where the scale and zero point of the result are.
QLINEAR: dict[str, tuple[str, tuple[int, ...], tuple[int, int]]] = {
    "QLinearAdd": ("Add", (0, 3), (6, 7)),
    "QLinearMul": ("Mul", (0, 3), (6, 7)),
    "QLinearConcat": ("Concat", (), (0, 1)),
    "QLinearSigmoid": ("Sigmoid", (0,), (3, 4)),
    "QLinearLeakyRelu": ("LeakyRelu", (0,), (3, 4)),
    "QLinearSoftmax": ("Softmax", (0,), (3, 4)),
    "QLinearAveragePool": ("AveragePool", (0,), (3, 4)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,), (3, 4)),
    "QGemm": ("Gemm", (0, 3, 6), (7, 8)),
}
MAX_ROUNDS = 50
Numbers = NDArray[Any]


def concatenated(arguments: list[Numbers], _: dict[str, Any]) -> Numbers:
    """Concat of shape vectors."""
    return np.concatenate([argument.reshape(-1) for argument in arguments])


def gathered(arguments: list[Numbers], _: dict[str, Any]) -> Numbers:
    """One or some sizes of a shape."""
    return np.take(arguments[0], arguments[1].astype(np.int64))


def sliced(arguments: list[Numbers], options: dict[str, Any]) -> Numbers:
    """A range of a shape vector, limits as attributes (opset 1) or inputs."""
    starts = options.get("starts") or arguments[1].reshape(-1)
    ends = options.get("ends") or arguments[2].reshape(-1)
    return arguments[0][int(starts[0]) : int(ends[0])]


# What networks compute with the sizes of their tensors.
SHAPE_ARITHMETIC: dict[str, Callable[[list[Numbers], dict[str, Any]], Numbers]] = {
    "Shape": lambda arguments, _: arguments[0],
    "Gather": gathered,
    "Concat": concatenated,
    "Slice": sliced,
    "Unsqueeze": lambda arguments, _: arguments[0].reshape(-1),
    "Squeeze": lambda arguments, _: arguments[0].reshape(()) if arguments[0].size == 1 else arguments[0],
    "Cast": lambda arguments, _: arguments[0].astype(np.int64),
    "Add": lambda arguments, _: np.add(arguments[0], arguments[1]),
    "Sub": lambda arguments, _: np.subtract(arguments[0], arguments[1]),
    "Mul": lambda arguments, _: np.multiply(arguments[0], arguments[1]),
    "Div": lambda arguments, _: np.floor_divide(arguments[0], arguments[1]),
}


def read_onnx(path: Path, input_shape: tuple[int, ...] | None = None) -> OpGraph:
    """The network of an ONNX file. Raises WorkloadError: no such package, no such file, open sizes."""
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
    reader = OnnxReader(path, onnx, model)
    try:
        return reader.read(input_shape)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as problem:
        place = f"{path}: {reader.layer}" if reader.layer else f"{path}"
        raise WorkloadError(f"{place}: not as the ONNX standard has it: {problem!r}") from None


def first_line(problem: Exception) -> str:
    """The first line of an error with anything in it."""
    return next((line.strip() for line in str(problem).splitlines() if line.strip()), type(problem).__name__)


class OnnxReader:
    """Translates one ONNX graph, node by node."""

    def __init__(self, path: Path, onnx: Any, model: Any) -> None:
        self.path, self.onnx, self.model = path, onnx, model
        self.graph = model.graph
        self.metas: dict[str, Meta] = {}
        self.constants: dict[str, str] = {}
        self.values: dict[str, NDArray[Any]] = {}  # small constants, for shapes, scales and zero points
        self.quantizers: dict[str, Quantization] = {}
        self.policies: dict[str, str] = {}
        self.coded: dict[str, str] = {}  # values that are codes -> their quantizer
        self.ops: list[Op] = []
        self.layer = ""
        self.patterns = Patterns()

    def read(self, input_shape: tuple[int, ...] | None) -> OpGraph:
        """The whole graph."""
        stored = {tensor.name for tensor in self.graph.initializer}
        inputs = [entry for entry in self.graph.input if entry.name not in stored]
        if not inputs:
            raise WorkloadError(f"{self.path}: the network has no input")
        if input_shape is not None:
            self.fix_input(inputs[0], input_shape)
        for tensor in self.graph.initializer:
            self.constants[tensor.name] = tensor.name
            self.metas[tensor.name] = Meta(tuple(tensor.dims), self.type_name(tensor.data_type))
            if tensor.data_location != self.onnx.TensorProto.EXTERNAL and math.prod(tensor.dims) <= 2**16:
                self.values[tensor.name] = np.asarray(self.onnx.numpy_helper.to_array(tensor))
        self.infer()
        for entry in inputs:
            if entry.name not in self.metas:
                raise WorkloadError(f"{self.path}: {self.open_size(entry)}")
        self.patterns = find_patterns(self)
        for number, node in enumerate(self.patterns.nodes):
            self.layer = layer_name(node, number)
            self.translate(node)
        names = tuple(entry.name for entry in inputs)
        outputs = tuple(entry.name for entry in self.graph.output)
        notes = self.notes()
        return OpGraph(
            self.path.stem, names, self.constants, self.metas, tuple(self.ops), outputs, self.quantizers,
            self.policies, notes,
        )  # fmt: skip

    def notes(self) -> tuple[str, ...]:
        """What the file lacks."""
        external = sum(t.data_location == self.onnx.TensorProto.EXTERNAL for t in self.graph.initializer)
        return (f"the numbers of {external} weights are in other files, which were not read",) if external else ()

    # -- shapes --------------------------------------------------------------------------------------------------------

    def fix_input(self, entry: Any, shape: tuple[int, ...]) -> None:
        """Give the first input the sizes asked for; fixed sizes of the file may not be contradicted."""
        dims = entry.type.tensor_type.shape.dim
        fixed = [d.dim_value for d in dims]
        if len(dims) != len(shape) or any(old and old != new for old, new in zip(fixed, shape, strict=True)):
            raise WorkloadError(f"{self.path}: its input is {self.describe(entry)}, --input says {shape}")
        for dim, size in zip(dims, shape, strict=True):
            dim.dim_value = size
        del self.graph.value_info[:]
        for output in self.graph.output:
            output.type.tensor_type.ClearField("shape")

    def infer(self) -> None:
        """Declare every tensor's shape. Quantizer nodes stand for identities, which inference knows."""
        twin = type(self.model)()
        twin.CopyFrom(self.model)
        for node in twin.graph.node:
            if node.op_type in QUANT_OPS or node.op_type in QLINEAR:
                kind, positions, _ = QLINEAR.get(node.op_type, ("Identity", (0,), (0, 0)))
                sources = [node.input[i] for i in (positions or range(2, len(node.input), 3)) if i < len(node.input)]
                if kind == "Identity":
                    del node.attribute[:]
                del node.input[:]
                node.op_type, node.domain = kind, ""
                node.input.extend(sources)
        for _ in range(MAX_ROUNDS):
            try:
                shaped = self.onnx.shape_inference.infer_shapes(twin, data_prop=True)
            except Exception as problem:  # inference raises its own errors for graphs that contradict themselves
                raise WorkloadError(f"{self.path}: its shapes contradict each other: {first_line(problem)}") from None
            for entry in (*shaped.graph.input, *shaped.graph.value_info, *shaped.graph.output):
                self.declare(entry)
            if not self.computed_shapes(twin):
                return

    def computed_shapes(self, twin: Any) -> bool:
        """Put the values of shape arithmetic (Shape, Gather, Concat, ...) into the twin; whether any are new."""
        new = False
        for node in twin.graph.node:
            name = node.output[0]
            if name in self.values or node.op_type not in SHAPE_ARITHMETIC:
                continue
            known = node.op_type == "Shape" or all(i in self.values for i in node.input if i)
            if node.op_type == "Shape" and node.input[0] in self.metas:
                self.values[name] = np.asarray(self.metas[node.input[0]].shape, np.int64)
            elif known and node.op_type != "Shape":
                arguments = [self.values[i] for i in node.input if i]
                self.values[name] = SHAPE_ARITHMETIC[node.op_type](arguments, attributes(node, self.onnx))
            if name in self.values:
                twin.graph.initializer.append(self.onnx.numpy_helper.from_array(self.values[name], name))
                new = True
        done = {tensor.name for tensor in twin.graph.initializer}
        kept = [node for node in twin.graph.node if node.output[0] not in done]
        del twin.graph.node[:]
        twin.graph.node.extend(kept)
        return new

    def declare(self, entry: Any) -> None:
        """Remember a tensor's shape if it has one."""
        tensor = entry.type.tensor_type
        if not tensor.HasField("shape") or any(d.dim_value < 1 for d in tensor.shape.dim):
            return
        shape = tuple(int(d.dim_value) for d in tensor.shape.dim)
        self.metas.setdefault(entry.name, Meta(shape, self.type_name(tensor.elem_type)))

    def type_name(self, number: int) -> str:
        """numpy's name of an element type; codes count as numbers, because a quantizer says what they are."""
        name = str(self.onnx.TensorProto.DataType.Name(number)).lower()
        return {"float": "float32", "double": "float64"}.get(name, "float32" if name in CODES else name)

    def describe(self, entry: Any) -> str:
        """Sizes of an input as the file gives them."""
        dims = entry.type.tensor_type.shape.dim
        return f"{entry.name} ({', '.join(str(d.dim_value or d.dim_param or '?') for d in dims)})"

    def open_size(self, entry: Any) -> str:
        """Why an input cannot be costed yet."""
        return f"input {self.describe(entry)} leaves sizes open: give them all with --input"

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor. Raises WorkloadError where inference found none."""
        if name not in self.metas:
            raise WorkloadError(
                f"{self.path}: {self.layer}: the shape of {name!r} is unknown (open sizes, or an operator that shape "
                "inference does not know): give the input's sizes with --input, or run the file through a simplifier"
            )
        return self.metas[name].shape

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def translate(self, node: Any) -> None:
        """One node. What has no translation keeps its name, and is refused by it later."""
        kind = node.op_type
        if all(name in self.constants for name in node.input if name) and kind not in (*QUANT_OPS, "QuantizeLinear"):
            self.constant(node)
            return
        if kind in HANDLERS:
            HANDLERS[kind](self, node)
        elif kind in UNARY:
            self.op(f"aten.{UNARY[kind]}", node.output[0], self=self.ref(node, 0))
        elif kind in BINARY:
            self.op(f"aten.{BINARY[kind]}", node.output[0], self=self.ref(node, 0), other=self.ref(node, 1))
        elif kind in VIEWS:
            self.op("aten.view", node.output[0], self=self.ref(node, 0))
            if node.input[0] in self.coded:
                self.coded[node.output[0]] = self.coded[node.input[0]]
        else:
            domain = f"{node.domain}." if node.domain else ""
            arguments = {f"input_{i}": self.ref(node, i) for i in range(len(node.input))}
            self.ops.append(Op(f"onnx.{domain}{kind}", arguments, tuple(node.output), self.layer, self.layer))

    def constant(self, node: Any) -> None:
        """What depends on no input is known before deployment."""
        for name in node.output:
            kept = node.op_type in ("DequantizeLinear", *VIEWS)
            self.constants[name] = str(node.input[0]) if kept else str(name)
        if node.op_type == "Constant":
            value = attributes(node, self.onnx).get("value")
            if value is not None:
                self.values[node.output[0]] = np.asarray(self.onnx.numpy_helper.to_array(value))
        if node.op_type == "DequantizeLinear":
            source = node.input[0]
            self.constants[node.output[0]] = f"{source}.numbers"
            self.metas[node.output[0]] = Meta(self.shape(source))
            plain = Ref(source)
            self.quantizer(node, node.output[0], plain, *self.affine(node, 1, 2, source), of_weight=True)
            del self.constants[node.output[0]]

    def op(self, name: str, output: str, /, **arguments: Arg) -> None:
        """One operator of the node being translated; its output's shape must be known."""
        self.shape(output)
        self.ops.append(Op(name, arguments, (output,), self.layer, self.layer))

    def ref(self, node: Any, position: int) -> Arg:
        """An input; None where it is absent."""
        return Ref(node.input[position]) if position < len(node.input) and node.input[position] else None

    def number(self, node: Any, position: int, default: float | None = None) -> NDArray[Any] | None:
        """The values of a constant input."""
        name = node.input[position] if position < len(node.input) else ""
        if name in self.values:
            return self.values[name]
        return None if default is None else np.asarray(default)

    def fresh(self, stem: str, shape: tuple[int, ...]) -> str:
        """A new value of that shape."""
        name = f"{stem}~{len(self.metas)}"
        self.metas[name] = Meta(shape)
        return name

    # -- codes ---------------------------------------------------------------------------------------------------------

    def affine(self, node: Any, scale: int, zero: int, source: str) -> tuple[int, bool, NDArray[Any], int]:
        """(bits, signed, zero points, number of scales) of an integer tensor with scale and zero point inputs."""
        zeros = self.number(node, zero)
        names = [name for name in (node.input[zero] if zero < len(node.input) else "", source) if name]
        bits, signed = next((CODES[kind] for name in names if (kind := self.stored_type(name)) in CODES), (8, False))
        scales = math.prod(self.metas[node.input[scale]].shape) if node.input[scale] in self.metas else 1
        return bits, signed, np.zeros(1) if zeros is None else zeros, max(1, scales)

    def stored_type(self, name: str) -> str:
        """Element type of a stored tensor as the file has it."""
        for tensor in self.graph.initializer:
            if tensor.name == name:
                return str(self.onnx.TensorProto.DataType.Name(tensor.data_type)).lower()
        if name in self.values:
            return str(self.values[name].dtype)
        for entry in self.graph.input:
            if entry.name == name:
                return str(self.onnx.TensorProto.DataType.Name(entry.type.tensor_type.elem_type)).lower()
        return ""

    def quantizer(
        self, node: Any, output: str, source: Arg, bits: int, signed: bool, zeros: NDArray[Any], scales: int,
        *, of_weight: bool = False, name: str = "",
    ) -> None:  # fmt: skip
        """A quantizer node of the graph: `output` are codes of `source`."""
        name = name or self.layer
        flat = np.unique(zeros.reshape(-1))
        whole = flat.size == 1 and float(flat[0]).is_integer()
        zero = int(flat[0]) if whole else None
        offset = bool(np.any(flat))
        bits, signed = self.patterns.narrowed.get(output, (bits, signed))
        if output in self.patterns.offsets:
            offset, zero = True, None
        self.quantizers[name] = Quantization(name, bits, signed, offset, scales, of_weight, zero)
        self.coded[output] = name
        self.ops.append(Op(QUANTIZER, {"x": source, "name": name}, (output,), self.layer, self.layer))


def layer_name(node: Any, number: int) -> str:
    """A node's name as a dotted path; its operator and number where it has none."""
    name = str(node.name).strip("/").replace("/", ".").replace(" ", "_")
    return name or f"{number:03d}_{node.op_type.lower()}"


def attributes(node: Any, onnx: Any) -> dict[str, Any]:
    """Attributes of a node by name; text as str."""
    found = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    return {
        key: value.decode("utf-8", "replace") if isinstance(value, bytes) else value for key, value in found.items()
    }


def convolve(read: OnnxReader, node: Any, x: str, weight: Arg, shape: tuple[int, ...], bias: Arg, output: str) -> None:
    """A convolution with any padding; asymmetric zeros come before it, and it takes them over."""
    options = attributes(node, read.onnx)
    axes = len(shape) - 2
    strides = list(options.get("strides", [1] * axes))
    dilations = list(options.get("dilations", [1] * axes))
    pads = window_padding(read, node, options, read.shape(x), list(shape[2:]), strides, dilations)
    source: Arg = Ref(x)
    if any(pads):
        grown = read.shape(x)[:2] + tuple(n + pads[i] + pads[i + axes] for i, n in enumerate(read.shape(x)[2:]))
        padded = read.fresh(f"{read.layer}.padded", grown)
        amounts = [n for i in reversed(range(axes)) for n in (pads[i], pads[i + axes])]
        read.op("aten.constant_pad_nd", padded, self=source, pad=tuple(amounts))
        source = Ref(padded)
        codes = read.quantizers.get(read.coded.get(x, ""))
        if codes is not None and codes.offset:  # zeros are put round the numbers: a code if 0.0 has one
            literal = "border_bias" if codes.zero_point is None else "snap_offset"
            read.policies[read.layer] = read.patterns.policies.get(output, literal)
    read.op(
        "aten.convolution", output, input=source, weight=weight, bias=bias, stride=tuple(strides),
        padding=(0,) * axes, dilation=tuple(dilations), groups=int(options.get("group", 1)),
    )  # fmt: skip


def window_padding(
    read: OnnxReader, node: Any, options: dict[str, Any], shape: tuple[int, ...], kernel: list[int],
    strides: list[int], dilations: list[int],
) -> list[int]:  # fmt: skip
    """Zeros before every axis, then after every axis."""
    axes = len(kernel)
    mode = options.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return [int(n) for n in options.get("pads", [0] * 2 * axes)]
    if mode == "VALID":
        return [0] * 2 * axes
    before, after = [], []
    for n, k, s, d in zip(shape[2:], kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    return [*before, *after]


def conv(read: OnnxReader, node: Any) -> None:
    """Conv."""
    convolve(read, node, node.input[0], read.ref(node, 1), read.shape(node.input[1]), read.ref(node, 2), node.output[0])


def qlinear_conv(read: OnnxReader, node: Any) -> None:
    """QLinearConv: x, its scale and zero point, w, ..., y's scale and zero point, bias."""
    x = codes_of(read, node, 0)
    weight = codes_of(read, node, 3, of_weight=True)
    raw = read.fresh(f"{read.layer}.raw", read.shape(node.output[0]))
    convolve(read, node, x, Ref(weight), read.shape(node.input[3]), read.ref(node, 8), raw)
    read.quantizer(node, node.output[0], Ref(raw), *read.affine(node, 6, 7, ""), name=node.output[0])


def qlinear_matmul(read: OnnxReader, node: Any) -> None:
    """QLinearMatMul: a, its scale and zero point, b, ..., y's scale and zero point."""
    a, b = codes_of(read, node, 0), codes_of(read, node, 3, of_weight=True)
    raw = read.fresh(f"{read.layer}.raw", read.shape(node.output[0]))
    read.op("aten.matmul", raw, self=Ref(a), other=Ref(b))
    read.quantizer(node, node.output[0], Ref(raw), *read.affine(node, 6, 7, ""), name=node.output[0])


def qlinear(read: OnnxReader, node: Any) -> None:
    """QLinearAdd, QGemm, ...: the float operator of that name between codes, its result rounded to codes."""
    kind, positions, (scale, zero) = QLINEAR[node.op_type]
    places = positions or tuple(range(2, len(node.input), 3))
    sources = [
        node.input[i]
        if node.op_type == "QGemm" and i == 6
        else codes_of(read, node, i, node.input[i] in read.constants)
        for i in places
        if i < len(node.input)
    ]
    raw = read.fresh(f"{read.layer}.raw", read.shape(node.output[0]))
    plain = read.onnx.helper.make_node(kind, sources, [raw], node.name)
    plain.attribute.extend(node.attribute)
    read.translate(plain)
    read.quantizer(node, node.output[0], Ref(raw), *read.affine(node, scale, zero, ""), name=node.output[0])


def integer_product(read: OnnxReader, node: Any) -> None:
    """ConvInteger and MatMulInteger: codes in, 32-bit sums out."""
    names: list[str] = []
    for position, zero in ((0, 2), (1, 3)):
        source = node.input[position]
        made = read.fresh(f"{source}.codes", read.shape(source))
        bits, signed, zeros, _ = read.affine(node, position, zero, source)
        if source not in read.coded:
            read.quantizer(node, made, Ref(source), bits, signed, zeros, 1, of_weight=position == 1, name=source)
        names.append(made if source not in read.coded else source)
    if node.op_type == "ConvInteger":
        convolve(read, node, names[0], Ref(names[1]), read.shape(node.input[1]), None, node.output[0])
    else:
        read.op("aten.matmul", node.output[0], self=Ref(names[0]), other=Ref(names[1]))
    read.metas[node.output[0]] = Meta(read.shape(node.output[0]))


def codes_of(read: OnnxReader, node: Any, position: int, of_weight: bool = False) -> str:
    """An integer input behind its quantizer; codes that have one already keep it."""
    source = node.input[position]
    if source in read.coded:
        return source
    made = read.fresh(f"{source}.codes", read.shape(source))
    read.quantizer(
        node,
        made,
        Ref(source),
        *read.affine(node, position + 1, position + 2, source),
        of_weight=of_weight,
        name=source,
    )
    return made


def quantize_linear(read: OnnxReader, node: Any) -> None:
    """QuantizeLinear: from here on the tensor is codes."""
    source, output = node.input[0], node.output[0]
    read.metas[output] = Meta(read.shape(source))
    read.quantizer(node, output, Ref(source), *read.affine(node, 1, 2, ""), of_weight=source in read.constants)


def dequantize_linear(read: OnnxReader, node: Any) -> None:
    """DequantizeLinear: the same codes, read as numbers."""
    source, output = str(node.input[0]), str(node.output[0])
    read.metas[output] = Meta(read.shape(source))
    read.ops.append(Op("aten.alias", {"self": Ref(codes_of(read, node, 0))}, (output,), read.layer, read.layer))
    read.coded[output] = read.coded.get(source, source)


def qonnx_quant(read: OnnxReader, node: Any) -> None:
    """Quant (x, scale, zero point, bits), BipolarQuant (x, scale: codes -1 and 1) and Trunc of QONNX."""
    source, output, kind = node.input[0], node.output[0], node.op_type
    options = attributes(node, read.onnx)
    scales = max(1, math.prod(read.metas[node.input[1]].shape)) if node.input[1] in read.metas else 1
    read.metas.setdefault(output, Meta(read.shape(source)))
    constant = source in read.constants
    if kind == "BipolarQuant":
        read.quantizer(node, output, Ref(source), 1, True, np.zeros(1), scales, of_weight=constant)
        return
    bits = read.number(node, 4 if kind == "Trunc" else 3)
    if bits is None or bits.size != 1 or float(bits.reshape(-1)[0]) != int(bits.reshape(-1)[0]):
        raise WorkloadError(f"{read.path}: {read.layer}: its bit width is not one constant whole number")
    zeros = read.number(node, 2, 0.0)
    assert zeros is not None
    signed = bool(options.get("signed", 1))
    read.quantizer(node, output, Ref(source), int(bits.reshape(-1)[0]), signed, zeros, scales, of_weight=constant)


def gemm(read: OnnxReader, node: Any) -> None:
    """Gemm: alpha * A' B' + beta * C."""
    options = attributes(node, read.onnx)
    a, b = node.input[0], node.input[1]
    if options.get("transA"):
        flipped = read.fresh(f"{read.layer}.a", read.shape(a)[::-1])
        read.op("aten.t", flipped, self=Ref(a))
        a = flipped
    if options.get("transB"):
        read.op("aten.linear", node.output[0], input=Ref(a), weight=Ref(b), bias=read.ref(node, 2))
    elif read.ref(node, 2) is not None:
        read.op("aten.addmm", node.output[0], self=read.ref(node, 2), mat1=Ref(a), mat2=Ref(b))
    else:
        read.op("aten.mm", node.output[0], self=Ref(a), mat2=Ref(b))


def pool(read: OnnxReader, node: Any) -> None:
    """MaxPool and AveragePool of one or two dimensions."""
    kernel = tuple(int(n) for n in attributes(node, read.onnx)["kernel_shape"])
    name = {"MaxPool": "max", "AveragePool": "avg"}[node.op_type]
    if len(kernel) > 2:
        raise WorkloadError(f"{read.path}: {read.layer}: pooling over {len(kernel)} dimensions has no price")
    read.op(f"aten.{name}_pool{len(kernel)}d", node.output[0], self=read.ref(node, 0), kernel_size=kernel)


def reduction(read: OnnxReader, node: Any) -> None:
    """ReduceMean, ReduceSum, ReduceMax, GlobalAveragePool."""
    name = {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "amax", "GlobalAveragePool": "mean"}[node.op_type]
    rank = len(read.shape(node.input[0]))
    axes = attributes(node, read.onnx).get("axes")
    given = read.number(node, 1)
    if node.op_type == "GlobalAveragePool":
        axes = range(2, rank)
    elif axes is None and given is not None:
        axes = [int(axis) for axis in given.reshape(-1)]
    dims = tuple(int(axis) % rank for axis in axes) if axes is not None else tuple(range(rank))
    read.op(f"aten.{name}", node.output[0], self=read.ref(node, 0), dim=dims)


def clip(read: OnnxReader, node: Any) -> None:
    """Clip: limits as attributes (opset 6) or constant inputs."""
    options = attributes(node, read.onnx)
    low, high = read.number(node, 1), read.number(node, 2)
    limits: dict[str, Arg] = {
        "min": float(low.reshape(-1)[0]) if low is not None and low.size else options.get("min"),
        "max": float(high.reshape(-1)[0]) if high is not None and high.size else options.get("max"),
    }
    read.op("aten.clamp", node.output[0], self=read.ref(node, 0), **limits)


def concat(read: OnnxReader, node: Any) -> None:
    """Concat."""
    axis = int(attributes(node, read.onnx).get("axis", 0))
    parts = tuple(Ref(name) for name in node.input)
    read.op("aten.cat", node.output[0], tensors=parts, dim=axis % max(1, len(read.shape(node.output[0]))))


def sum_of(read: OnnxReader, node: Any) -> None:
    """Sum, Max, Min of any number of inputs, two at a time."""
    name = {"Sum": "aten.add", "Max": "aten.maximum", "Min": "aten.minimum"}[node.op_type]
    so_far = node.input[0]
    if len(node.input) == 1:
        read.op("aten.alias", node.output[0], self=Ref(so_far))
    for i, other in enumerate(node.input[1:], start=1):
        last = i == len(node.input) - 1
        made = node.output[0] if last else read.fresh(f"{read.layer}.sum", read.shape(node.output[0]))
        read.op(name, made, self=Ref(so_far), other=Ref(other))
        so_far = made


def split(read: OnnxReader, node: Any) -> None:
    """Split."""
    axis = int(attributes(node, read.onnx).get("axis", 0))
    for name in node.output:
        read.shape(name)
    arguments: dict[str, Arg] = {"self": read.ref(node, 0), "dim": axis}
    read.ops.append(Op("aten.split_with_sizes", arguments, tuple(node.output), read.layer, read.layer))


def batch_norm(read: OnnxReader, node: Any) -> None:
    """BatchNormalization at inference."""
    names = ("input", "weight", "bias", "running_mean", "running_var")
    read.op("aten.batch_norm", node.output[0], **{name: read.ref(node, i) for i, name in enumerate(names)})


def normalisation(read: OnnxReader, node: Any) -> None:
    """LayerNormalization, InstanceNormalization, GroupNormalization, LRN."""
    if node.op_type == "LRN":
        size = int(attributes(node, read.onnx)["size"])
        read.op("onnx.LRN", node.output[0], self=read.ref(node, 0), size=size)
        return
    name = "aten.layer_norm" if node.op_type == "LayerNormalization" else "aten.group_norm"
    read.op(name, node.output[0], input=read.ref(node, 0), weight=read.ref(node, 1), bias=read.ref(node, 2))


def gather(read: OnnxReader, node: Any) -> None:
    """Gather: rows of a table by an input, a view by one constant index, else a copy."""
    if node.input[0] in read.constants:
        read.op("aten.embedding", node.output[0], weight=read.ref(node, 0), indices=read.ref(node, 1))
        return
    index = read.number(node, 1)
    name = "aten.view" if index is not None and index.size == 1 else "aten.index_select"
    read.op(name, node.output[0], self=read.ref(node, 0))


def pad(read: OnnxReader, node: Any) -> None:
    """Pad with constant amounts (before every axis, then after every axis)."""
    options = attributes(node, read.onnx)
    given = read.number(node, 1)
    amounts = options.get("pads") or (given.reshape(-1).tolist() if given is not None else None)
    if amounts is None:
        raise WorkloadError(f"{read.path}: {read.layer}: its padding is not constant")
    rank = len(amounts) // 2
    flat = [int(n) for axis in reversed(range(rank)) for n in (amounts[axis], amounts[axis + rank])]
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    value = read.number(node, 2)
    fill = float(value.reshape(-1)[0]) if value is not None and value.size else float(options.get("value", 0.0))
    mode = str(options.get("mode", "constant"))
    read.op("aten.pad", node.output[0], self=read.ref(node, 0), pad=tuple(flat), mode=mode, value=fill)


def resize(read: OnnxReader, node: Any) -> None:
    """Resize and Upsample by their mode."""
    mode = attributes(node, read.onnx).get("mode", "nearest")
    name = {"nearest": "upsample_nearest2d", "linear": "upsample_bilinear2d", "cubic": "upsample_bicubic2d"}.get(mode)
    if name is None:
        raise WorkloadError(f"{read.path}: {read.layer}: mode {mode!r} of {node.op_type} has no price")
    read.op(f"aten.{name}", node.output[0], self=read.ref(node, 0))


def shape_of(read: OnnxReader, node: Any) -> None:
    """Shape and Size: known before the input arrives."""
    for name in node.output:
        read.constants[name] = name


def where(read: OnnxReader, node: Any) -> None:
    """Where: a choice per element."""
    arguments: dict[str, Arg] = {key: read.ref(node, i) for i, key in enumerate(("condition", "self", "other"))}
    read.ops.append(Op("aten.where", arguments, (node.output[0],), read.layer, read.layer))
    read.shape(node.output[0])


def einsum(read: OnnxReader, node: Any) -> None:
    """Einsum."""
    equation = str(attributes(node, read.onnx)["equation"])
    read.op("aten.einsum", node.output[0], equation=equation, tensors=tuple(Ref(name) for name in node.input))


HANDLERS: dict[str, Callable[[OnnxReader, Any], None]] = {
    "Conv": conv,
    "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul,
    "ConvInteger": integer_product,
    "MatMulInteger": integer_product,
    **dict.fromkeys(QLINEAR, qlinear),
    "QuantizeLinear": quantize_linear,
    "DequantizeLinear": dequantize_linear,
    **dict.fromkeys(QUANT_OPS, qonnx_quant),
    "Gemm": gemm,
    **dict.fromkeys(("MaxPool", "AveragePool"), pool),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "GlobalAveragePool"), reduction),
    "Clip": clip,
    "Concat": concat,
    **dict.fromkeys(("Sum", "Max", "Min"), sum_of),
    "Split": split,
    "BatchNormalization": batch_norm,
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization", "LRN"), normalisation),
    "Gather": gather,
    "Pad": pad,
    **dict.fromkeys(("Resize", "Upsample"), resize),
    **dict.fromkeys(("Shape", "Size"), shape_of),
    "Where": where,
    "Einsum": einsum,
}
