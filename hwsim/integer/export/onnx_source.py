# pyright: basic
"""A quantized torch network as an ONNX file: `onnx_network(model, example, form, offset) -> Exported`.

`form` qonnx: Quant nodes; qdq: QuantizeLinear and DequantizeLinear with the narrowest standard type that holds the
codes (int2 to int8), and a Clip between them where the codes do not fill it. ONNX has integer zero points only, so a
real-valued beta is either kept as arithmetic (Sub before the quantizer, Add behind it) or snapped to -s*z. Padding
policies become graph structure: zeros around x_hat for `border_bias`, a Pad in front of the quantizer for the others
(with 0, or with beta, whose code is 0). Weights are stored as codes (qdq) or as s*code (qonnx).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from hwsim.errors import UnsupportedOp, WorkloadError
from hwsim.integer.lowering.lower import exported
from hwsim.integer.lowering.walk import IGNORED, PLAIN_METHODS, layer_of, operator_name
from quant import BaseQuantizer

FORMS = ("qonnx", "qdq")
OFFSETS = ("keep", "snap")
QONNX_DOMAIN = "qonnx.custom_op.general"
# Element types of codes, narrowest first: (name, least, largest, first opset whose quantizers take it).
CODE_TYPES = (
    ("UINT2", 0, 3, 25), ("INT2", -2, 1, 25), ("UINT4", 0, 15, 21), ("INT4", -8, 7, 21), ("UINT8", 0, 255, 21),
    ("INT8", -128, 127, 21), ("UINT16", 0, 65535, 21), ("INT16", -32768, 32767, 21),
)  # fmt: skip
# Integer Clip, which narrows codes to bits between these, exists for whole bytes.
CLIPPED_TYPES = tuple(entry for entry in CODE_TYPES if entry[0] in ("UINT8", "INT8"))
Array = NDArray[Any]


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


def onnx_network(
    model: nn.Module, example: Tensor, *, form: str = "qdq", offset: str = "keep", name: str = ""
) -> Exported:
    """The network of one image, float32 between quantizers. Layer and quantizer names are those of the model.

    Raises WorkloadError for a model without quantizers or without the onnx package, UnsupportedOp for an operator or
    a quantizer that has no ONNX counterpart here, naming its layer.
    """
    if form not in FORMS:
        raise ValueError(f"form: expected one of {', '.join(FORMS)}, got {form!r}")
    if offset not in OFFSETS:
        raise ValueError(f"offset: expected one of {', '.join(OFFSETS)}, got {offset!r}")
    try:
        import onnx
    except ImportError as problem:
        raise WorkloadError(f"writing ONNX needs the onnx package ({problem}): pip install 'hwsim[onnx]'") from None
    name = name or type(model).__name__
    model, program, found = exported(model, example, name)
    return OnnxWriter(onnx, model, program, found, form, offset, name).write()


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
    """Weight codes, w_hat = steps_k * code. With `group` channels to a step, `steps` has a row of them per output."""

    codes: Tensor
    steps: Tensor
    quantizer: str
    group: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Their shape."""
        return tuple(self.codes.shape)


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


class OnnxWriter:
    """Walks the exported program and writes node after node."""

    def __init__(
        self, onnx: Any, model: nn.Module, program: Any, found: Mapping[str, BaseQuantizer], form: str, offset: str,
        name: str,
    ) -> None:  # fmt: skip
        self.onnx, self.program, self.found, self.form, self.offset = onnx, program, found, form, offset
        self.name = name
        self.owners = dict(model.named_modules())
        self.nodes: list[Any] = []
        self.stored: list[Any] = []
        self.env: dict[fx.Node, Any] = {}
        self.used: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.written: dict[tuple[str, str, tuple[int, ...]], Value] = {}
        self.activations: dict[str, Activations] = {}
        self.weight_types: Counter[str] = Counter()
        self.opset = 21
        self.layer = ""

    def write(self) -> Exported:
        """The whole file."""
        helper, types = self.onnx.helper, self.onnx.TensorProto
        signature = self.program.graph_signature
        state = {**self.program.state_dict, **self.program.constants}
        known = {**signature.inputs_to_parameters, **signature.inputs_to_buffers,
                 **signature.inputs_to_lifted_tensor_constants}  # fmt: skip
        inputs: list[Value] = []
        result: Any = None
        for node in self.program.graph.nodes:
            self.layer = layer_of(node)
            if node.op == "placeholder" and node.name in known:
                self.env[node] = Known(state[known[node.name]].detach())
            elif node.op == "placeholder":
                inputs.append(Value("input", shape_of(node)))
                self.env[node] = inputs[-1]
            elif node.op == "output":
                if len(node.args[0]) != 1:
                    raise UnsupportedOp(
                        f"{self.name}: ONNX export takes one result, this network has {len(node.args[0])}"
                    )
                result = self.plain(self.value(node.args[0][0]))
            elif node.op == "call_function":
                self.env[node] = self.call(node)
        if len(inputs) != 1:
            raise UnsupportedOp(f"{self.name}: ONNX export takes one input tensor, this network has {len(inputs)}")
        self.nodes.append(helper.make_node("Identity", [result.name], ["output"], "output"))
        graph = helper.make_graph(
            self.nodes, self.name,
            [helper.make_tensor_value_info("input", types.FLOAT, inputs[0].shape)],
            [helper.make_tensor_value_info("output", types.FLOAT, result.shape)], self.stored,
        )  # fmt: skip
        opsets = [helper.make_opsetid("", self.opset)]
        version = helper.find_min_ir_version_for(opsets)
        if self.form == "qonnx":
            opsets.append(helper.make_opsetid(QONNX_DOMAIN, 1))
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=version, producer_name="hwsim")
        return Exported(proto, self.form, self.activations, dict(self.weight_types))

    # ---- nodes -------------------------------------------------------------------------------------------------------

    def call(self, node: fx.Node) -> Any:
        """One operator."""
        operator = operator_name(node)
        if operator in IGNORED:
            return None
        handler = HANDLERS.get(operator)
        if handler is None:
            raise UnsupportedOp(
                f"layer {self.layer or '(model)'}: {operator} has no ONNX counterpart here; replace it, or export the "
                "part before it"
            )
        arguments = [self.value(a) for a in node.args]
        keywords = {k: self.value(a) for k, a in node.kwargs.items()}
        return handler(self, node, *arguments, **keywords)

    def value(self, argument: Any) -> Any:
        """An argument: values for nodes, plain numbers as they are."""
        if isinstance(argument, fx.Node):
            return self.env.get(argument)
        if isinstance(argument, (list, tuple)):
            return type(argument)(self.value(a) for a in argument)
        return argument

    def unique(self, stem: str) -> str:
        """A name nobody has yet."""
        count = self.used[stem]
        self.used[stem] += 1
        return f"{stem}~{count}" if count else stem

    def add(
        self, kind: str, inputs: Sequence[str], shape: tuple[int, ...], name: str = "", domain: str = "", **options: Any
    ) -> Value:
        """A node with one output."""
        made = self.unique(name or f"{self.layer or 'model'}.{kind.lower()}")
        self.nodes.append(
            self.onnx.helper.make_node(kind, list(inputs), [f"{made}.out"], made, domain=domain or None, **options)
        )
        return Value(f"{made}.out", shape)

    def store(self, values: Array | Tensor | float, stem: str, kind: str = "FLOAT") -> str:
        """A constant of the file."""
        array: Array = values.detach().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
        name = self.unique(stem)
        element = getattr(self.onnx.TensorProto, kind)
        flat = array.reshape(-1).tolist()
        self.stored.append(self.onnx.helper.make_tensor(name, element, array.shape, flat))
        return name

    def plain(self, value: Any) -> Value:
        """A tensor of float numbers: quantizers and constants written out."""
        if isinstance(value, Value):
            return value
        if isinstance(value, Quantized):
            return self.quantize(value)
        if isinstance(value, Known):
            return Value(self.store(value.values, f"{self.layer or 'model'}.constant"), value.shape)
        if isinstance(value, Padded):
            inside = self.quantize(value.source)
            return self.pad(inside, value.sides, 0.0, value.shape)
        if isinstance(value, Codes):
            return self.weight(value)
        raise UnsupportedOp(f"layer {self.layer or '(model)'}: an operand that is no tensor")

    def pad(self, x: Value, sides: Sequence[int], number: float, shape: tuple[int, ...]) -> Value:
        """Pad with a constant; `sides` as F.pad has them, last axis first."""
        ndim = len(x.shape)
        before, after = [0] * ndim, [0] * ndim
        for i in range(len(sides) // 2):
            before[ndim - 1 - i], after[ndim - 1 - i] = sides[2 * i], sides[2 * i + 1]
        amounts = self.store(np.array([*before, *after]), f"{self.layer}.pads", "INT64")
        fill = self.store(np.array(number), f"{self.layer}.pad_value")
        return self.add("Pad", [x.name, amounts, fill], shape, mode="constant")

    # ---- quantizers --------------------------------------------------------------------------------------------------

    def quantize(self, value: Quantized, sides: Sequence[int] = (), number: float = 0.0) -> Value:
        """x_hat, of x inside a border of `number` where `sides` says so; written once."""
        key = (value.source.name, value.label, tuple(sides))
        if key not in self.written:
            x = value.source
            if any(sides):
                x = self.pad(x, sides, number, grown(x.shape, sides))
            self.written[key] = self.rounded(x, value.quantizer, value.label)
        return self.written[key]

    def rounded(self, x: Value, quantizer: str, label: str) -> Value:
        """The quantizer's own nodes."""
        grid, amount = self.grid(quantizer), ""
        if grid.offset == "kept":
            amount = self.store(np.array(grid.beta), f"{label}.beta")
            x = self.add("Sub", [x.name, amount], x.shape, f"{label}.shift")
        codes, y, type_ = (self.quant if self.form == "qonnx" else self.linear)(x, grid, label)
        self.activations[label] = Activations(codes, grid, self.form == "qdq", type_)
        if grid.offset == "kept":
            y = self.add("Add", [y.name, amount], y.shape, f"{label}.unshift")
        return y

    def grid(self, quantizer: str) -> Grid:
        """Its numbers as the file has them."""
        made = self.found[quantizer]
        spec = made.spec
        if spec.method not in PLAIN_METHODS:
            raise UnsupportedOp(
                f"quantizer {quantizer}: method {spec.method!r} transforms activations before rounding; ONNX "
                f"quantizers are affine, as {', '.join(PLAIN_METHODS)} are"
            )
        s, beta = (v.detach().double().reshape(-1) for v in (made.step(), made.offset()))
        if len(s) != 1:
            raise UnsupportedOp(f"quantizer {quantizer}: one step per channel of an activation is not exported")
        if self.form == "qonnx" and spec.bits == 1 and spec.n < 0:
            raise UnsupportedOp(
                f"quantizer {quantizer}: codes -1 and 0 of one signed bit: QONNX reads one signed bit as -1 and 1; "
                "export --format qdq"
            )
        step, offset = float(s[0]), float(beta[0])
        if not offset:
            return Grid(step, 0.0, 0, spec.n, spec.p, "none")
        zero = round(-offset / step)
        own = code_type(spec.n, spec.p)
        fits = self.form == "qonnx" or own[1] <= zero <= own[2]
        if not fits or not (self.offset == "snap" or spec.snap_offset):
            return Grid(step, offset, 0, spec.n, spec.p, "kept")
        if abs(offset + step * zero) <= 1e-12 * abs(offset):
            return Grid(step, offset, zero, spec.n, spec.p, "exact")
        return Grid(step, -step * zero, zero, spec.n, spec.p, "snapped", -zero - offset / step)

    def quant(self, x: Value, grid: Grid, label: str) -> tuple[str, Value, str]:
        """QONNX's Quant: (round(clamp(x/s + z, n, p)) - z) * s."""
        step, zero, n, bits = grid.s, grid.zero_point, grid.n, (grid.p - grid.n).bit_length()
        y = self.add(
            "Quant",
            [x.name, self.store(np.array(step), f"{label}.scale"), self.store(np.array(float(zero)), f"{label}.zero"),
             self.store(np.array(float(bits)), f"{label}.bits")],
            x.shape, label, QONNX_DOMAIN, signed=int(n < 0), narrow=0, rounding_mode="ROUND",
        )  # fmt: skip
        return y.name, y, f"{'INT' if n < 0 else 'UINT'}{bits}"

    def linear(self, x: Value, grid: Grid, label: str) -> tuple[str, Value, str]:
        """QuantizeLinear, a Clip of codes that do not fill their type, DequantizeLinear."""
        step, zero, n, p = grid.s, grid.zero_point, grid.n, grid.p
        type_, least, largest, opset = code_type(n, p)
        self.opset = max(self.opset, opset)
        scale = self.store(np.array(step), f"{label}.scale")
        point = self.store(np.array(zero), f"{label}.zero", type_)
        codes = self.add("QuantizeLinear", [x.name, scale, point], x.shape, label)
        if (n, p) != (least, largest):
            limits = [self.store(np.array(v), f"{label}.{end}", type_) for end, v in (("least", n), ("largest", p))]
            codes = self.add("Clip", [codes.name, *limits], x.shape, f"{label}.clip")
        y = self.add("DequantizeLinear", [codes.name, scale, point], x.shape, f"{label}.numbers")
        return codes.name, y, type_

    def weight(self, value: Codes, transpose: bool = False) -> Value:
        """w_hat, from codes in the file (qdq) or rounded again from s*code (qonnx)."""
        spec = self.found[value.quantizer].spec
        if self.form == "qonnx" and spec.bits == 1:
            raise UnsupportedOp(
                f"quantizer {value.quantizer}: weight codes -1 and 0 of one bit: QONNX reads one signed bit as -1 and "
                "1; export --format qdq"
            )
        if self.form == "qonnx" and value.group:
            raise UnsupportedOp(
                f"quantizer {value.quantizer}: {spec.codes_text}: QONNX has no groups along a sum; export --format qdq"
            )
        codes, steps = value.codes, value.steps
        n, p, shape, axis = spec.n, spec.p, tuple(codes.shape), 0 if not value.group else 1
        if transpose:
            codes, shape, axis = codes.T, shape[::-1], 1 - axis
            steps = steps.T if value.group else steps
        name = value.quantizer
        self.weight_types[f"{spec.bits} bits"] += codes.numel()
        if self.form == "qonnx":
            around = [1] * len(shape)
            around[axis] = -1
            scale = steps.view(around) if len(steps) > 1 else steps.reshape(())
            stored = self.store(codes.double() * scale, f"{name}.values")
            zero = self.store(np.array(0.0), f"{name}.zero")
            bits = self.store(np.array(float((p - n).bit_length())), f"{name}.bits")
            inputs = [stored, self.store(scale, f"{name}.scale"), zero, bits]
            options = {"signed": int(n < 0), "narrow": 0, "rounding_mode": "ROUND"}
            return self.add("Quant", inputs, shape, name, QONNX_DOMAIN, **options)
        type_, least, largest, opset = code_type(n, p)
        self.opset = max(self.opset, opset)
        stored = self.store(codes, f"{name}.codes", type_)
        if (n, p) != (least, largest):
            limits = [self.store(np.array(v), f"{name}.{end}", type_) for end, v in (("least", n), ("largest", p))]
            stored = self.add("Clip", [stored, *limits], shape, f"{name}.clip").name
        steps = steps if value.group or len(steps) > 1 else steps.reshape(())
        scale = self.store(steps, f"{name}.scale")
        point = self.store(np.zeros(tuple(steps.shape), np.int64), f"{name}.zero", type_)
        blocks: dict[str, Any] = {"block_size": value.group} if value.group else {}
        return self.add("DequantizeLinear", [stored, scale, point], shape, name, axis=axis, **blocks)


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


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of an exported node's result."""
    return tuple(int(n) for n in node.meta["val"].shape)


def grown(shape: Sequence[int], sides: Sequence[int]) -> tuple[int, ...]:
    """A shape inside padding given as F.pad has it."""
    sizes = list(shape)
    for i in range(len(sides) // 2):
        sizes[len(sizes) - 1 - i] += sides[2 * i] + sides[2 * i + 1]
    return tuple(sizes)


# ---- handlers --------------------------------------------------------------------------------------------------------


def quantizer(out: OnnxWriter, node: fx.Node, x: Any, name: str) -> Any:
    """The marked node of a quantizer."""
    made = out.found[name]
    if made.is_weight:
        if not isinstance(x, Known):
            raise UnsupportedOp(f"layer {out.layer}: weights that are computed have no codes known beforehand")
        if bool(made.offset().any()):
            raise UnsupportedOp(
                f"layer {out.layer}: its weights have an offset ({made.spec.method}); ONNX export takes symmetric "
                "weights, as LSQ and LSQ+ have them"
            )
        if made.spec.element != "int":
            raise UnsupportedOp(
                f"quantizer {name}: {made.spec.codes_text}: ONNX export takes integers; price such a network with "
                "hwsim evaluate, certify it with hwsim verify"
            )
        codes = made.codes(x.values).round().to(torch.int64)
        if made.spec.group:
            width = min(made.spec.group, codes.shape[1])
            return Codes(codes, made.step_at(x.values).detach().double()[:, ::width], name, width)
        return Codes(codes, made.step().detach().double().reshape(-1), name)
    count = out.calls[name]
    out.calls[name] += 1
    label = f"{name}@{count}" if count else name
    return Quantized(out.plain(x), name, label)


def convolution(
    out: OnnxWriter, node: fx.Node, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Value:  # fmt: skip
    """Conv, its padding where the policy puts it."""
    axes = len(weight.shape) - 2
    strides, dilations = spread(stride, axes), spread(dilation, axes)
    if isinstance(padding, str):
        spans = [d * (k - 1) for d, k in zip(dilations, weight.shape[2:], strict=True)]
        before = [0 if padding == "valid" else s // 2 for s in spans]
        after = [0 if padding == "valid" else s - s // 2 for s in spans]
    else:
        before = after = spread(padding, axes)
    sides = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
    if isinstance(x, Padded):
        sides = [a + b for a, b in zip(sides, (*x.sides, *[0] * len(sides)), strict=False)]
        x = x.source
    if isinstance(x, Quantized) and any(sides) and moves_inside(out, x):
        policy = str(getattr(out.owners.get(out.layer), "padding_policy", ""))
        number = out.grid(x.quantizer).beta if policy == "pad_beta" else 0.0
        if policy != "border_bias":
            x, sides = out.quantize(x, sides, number), [0] * len(sides)
    inputs = [out.plain(x).name, out.plain(weight).name]
    if bias is not None:
        inputs.append(out.store(bias.values, f"{out.layer}.bias"))
    pads = [*reversed(sides[::2]), *reversed(sides[1::2])]
    return out.add("Conv", inputs, shape_of(node), out.layer, strides=strides, dilations=dilations, group=groups,
                   pads=pads)  # fmt: skip


def moves_inside(out: OnnxWriter, x: Quantized) -> bool:
    """Whether a border of zeros is another thing before the quantizer than behind it."""
    return bool(out.found[x.quantizer].offset().any())


def spread(value: Any, axes: int) -> list[int]:
    """One number per axis."""
    values = [int(value)] if isinstance(value, int) else [int(v) for v in value]
    return values * axes if len(values) == 1 else values


def linear(out: OnnxWriter, node: fx.Node, x: Any, weight: Any, bias: Any = None) -> Value:
    """Gemm of matrices, MatMul (and Add) of tensors with more axes."""
    source, shape = out.plain(x), shape_of(node)
    constant = None if bias is None else out.store(bias.values, f"{out.layer}.bias")
    if len(source.shape) == 2:
        inputs = [source.name, out.plain(weight).name] + ([constant] if constant else [])
        return out.add("Gemm", inputs, shape, out.layer, transB=1)
    if not isinstance(weight, Codes):
        raise UnsupportedOp(f"layer {out.layer}: its weights have no quantizer")
    y = out.add("MatMul", [source.name, out.weight(weight, transpose=True).name], shape, out.layer)
    return out.add("Add", [y.name, constant], shape, f"{out.layer}.bias_add") if constant else y


def matmul(out: OnnxWriter, node: fx.Node, a: Any, b: Any) -> Value:
    """MatMul."""
    return out.add("MatMul", [out.plain(a).name, out.plain(b).name], shape_of(node), out.layer)


def binary(kind: str) -> Callable[..., Any]:
    """A handler for Add, Sub, Mul or Div."""

    def handle(out: OnnxWriter, node: fx.Node, x: Any, y: Any, *, alpha: float = 1) -> Any:
        if kind == "Mul" and (isinstance(x, Codes) or isinstance(y, Codes)):
            weight, factor = (x, y) if isinstance(x, Codes) else (y, x)
            if not isinstance(weight, Codes) or not isinstance(factor, Known):
                raise UnsupportedOp(f"layer {out.layer}: a product of weights with something not known beforehand")
            factors = factor.values.double().reshape(-1, *[1] * (weight.steps.ndim - 1))
            return Codes(weight.codes, weight.steps * factors, weight.quantizer, weight.group)
        operands = [Known(torch.tensor(float(v))) if isinstance(v, (int, float)) else v for v in (x, y)]
        if alpha != 1:
            if not isinstance(operands[1], Known):
                raise UnsupportedOp(f"layer {out.layer}: {kind} with alpha={alpha}: multiply in the network instead")
            operands[1] = Known(operands[1].values * alpha)
        return out.add(kind, [out.plain(v).name for v in operands], shape_of(node))

    return handle


def batch_norm(out: OnnxWriter, node: fx.Node, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any,
               training: bool, momentum: float, eps: float, *_: Any) -> Value:  # fmt: skip
    """BatchNormalization at inference."""
    size = mean.values.numel()
    gamma = gamma or Known(torch.ones(size))
    beta = beta or Known(torch.zeros(size))
    names = ("weight", "bias", "running_mean", "running_var")
    stored = [
        out.store(v.values, f"{out.layer}.{n}") for n, v in zip(names, (gamma, beta, mean, variance), strict=True)
    ]
    return out.add("BatchNormalization", [out.plain(x).name, *stored], shape_of(node), out.layer, epsilon=float(eps))


def native_batch_norm(out: OnnxWriter, node: fx.Node, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any,
                      momentum: float, eps: float) -> Any:  # fmt: skip
    """The operator that a batch norm becomes in a functional graph: its result, and no statistics."""
    return batch_norm(out, node, x, gamma, beta, mean, variance, False, momentum, eps), None, None


def unary(kind: str, **options: Any) -> Callable[..., Value]:
    """A handler for a function of one tensor."""
    return lambda out, node, x, *_, **__: out.add(kind, [out.plain(x).name], shape_of(node), **options)


def clip(lowest: float | None = None, highest: float | None = None) -> Callable[..., Value]:
    """A handler for clamps with given or own limits."""

    def handle(
        out: OnnxWriter, node: fx.Node, x: Any, low: float | None = lowest, high: float | None = highest
    ) -> Value:
        limits = ["" if v is None else out.store(np.array(float(v)), f"{out.layer}.limit") for v in (low, high)]
        return out.add("Clip", [out.plain(x).name, *limits], shape_of(node))

    return handle


def leaky_relu(out: OnnxWriter, node: fx.Node, x: Any, slope: float = 0.01, *_: Any) -> Value:
    """LeakyRelu."""
    return out.add("LeakyRelu", [out.plain(x).name], shape_of(node), alpha=float(slope))


def silu(out: OnnxWriter, node: fx.Node, x: Any) -> Value:
    """x * Sigmoid(x): a Swish node exists from opset 24 on, and fewer tools take it."""
    source = out.plain(x)
    gate = out.add("Sigmoid", [source.name], source.shape)
    return out.add("Mul", [source.name, gate.name], source.shape, f"{out.layer or 'model'}.silu")


def gelu(out: OnnxWriter, node: fx.Node, x: Any, approximate: str = "none") -> Value:
    """Gelu."""
    return out.add("Gelu", [out.plain(x).name], shape_of(node), approximate=approximate)


def pool(kind: str) -> Callable[..., Value]:
    """A handler for MaxPool and AveragePool of two dimensions."""

    def handle(out: OnnxWriter, node: fx.Node, x: Any, kernel: Any, stride: Any = (), padding: Any = 0,
               *rest: Any) -> Value:  # fmt: skip
        source, shape = out.plain(x), shape_of(node)
        axes = len(source.shape) - 2
        options: dict[str, Any] = {}
        given = dict(enumerate(rest))
        if kind == "MaxPool":
            options["dilations"], ceil_mode = spread(given.get(0, 1), axes), bool(given.get(1, False))
        else:
            ceil_mode = bool(given.get(0, False))
            options["count_include_pad"] = int(given.get(1, True))
            if given.get(2) is not None:
                raise UnsupportedOp(f"layer {out.layer}: an average pool with its own divisor has no ONNX operator")
        sizes, around = spread(kernel, axes), spread(padding, axes)
        return out.add(
            kind, [source.name], shape, kernel_shape=sizes, strides=spread(stride or kernel, axes), pads=around * 2,
            ceil_mode=int(ceil_mode), **options,
        )  # fmt: skip

    return handle


def adaptive_avg_pool(out: OnnxWriter, node: fx.Node, x: Any, size: Any) -> Value:
    """GlobalAveragePool, or AveragePool over equal windows."""
    source, shape = out.plain(x), shape_of(node)
    if all(n == 1 for n in shape[2:]):
        return out.add("GlobalAveragePool", [source.name], shape)
    if any(a % b for a, b in zip(source.shape[2:], shape[2:], strict=True)):
        raise UnsupportedOp(f"layer {out.layer}: windows of unequal size: {source.shape[2:]} to {shape[2:]}")
    window = [a // b for a, b in zip(source.shape[2:], shape[2:], strict=True)]
    return out.add("AveragePool", [source.name], shape, kernel_shape=window, strides=window)


def mean(out: OnnxWriter, node: fx.Node, x: Any, axes: Any = None, keepdim: bool = False, **_: Any) -> Value:
    """ReduceMean."""
    source = out.plain(x)
    chosen = [a % len(source.shape) for a in (axes if axes else range(len(source.shape)))]
    stored = out.store(np.array(chosen), f"{out.layer}.axes", "INT64")
    return out.add("ReduceMean", [source.name, stored], shape_of(node), keepdims=int(keepdim))


def reshape(out: OnnxWriter, node: fx.Node, x: Any, *_: Any, **__: Any) -> Any:
    """Reshape; a first axis that stays is copied from the input (0), so that batches pass."""
    shape = shape_of(node)
    if isinstance(x, Known):
        return Known(x.values.expand(shape) if math.prod(x.shape) != math.prod(shape) else x.values.reshape(shape))
    if isinstance(x, Codes):
        if x.group and x.shape != shape:
            raise UnsupportedOp(f"layer {out.layer}: a reshape of weights in groups is not exported")
        return Codes(x.codes.reshape(shape), x.steps, x.quantizer, x.group)
    source = out.plain(x)
    if source.shape == shape:
        return x
    if math.prod(source.shape) != math.prod(shape):
        raise UnsupportedOp(f"layer {out.layer}: an expansion of {source.shape} to {shape}")
    target = [0, *shape[1:]] if source.shape[:1] == shape[:1] else list(shape)
    return out.add("Reshape", [source.name, out.store(np.array(target), f"{out.layer}.shape", "INT64")], shape)


def permute(out: OnnxWriter, node: fx.Node, x: Any, axes: Sequence[int]) -> Any:
    """Transpose."""
    if isinstance(x, Known):
        return Known(x.values.permute(*axes))
    source = out.plain(x)
    return out.add("Transpose", [source.name], shape_of(node), perm=[a % len(source.shape) for a in axes])


def transpose(out: OnnxWriter, node: fx.Node, x: Any, a: int = 0, b: int = 1) -> Any:
    """Two axes exchanged."""
    order = list(range(len(shape_of(node))))
    order[a], order[b] = order[b], order[a]
    return permute(out, node, x, order)


def sliced(out: OnnxWriter, node: fx.Node, x: Any, axis: int = 0, start: int | None = None, stop: int | None = None,
           step: int = 1) -> Any:  # fmt: skip
    """Slice."""
    source = out.plain(x)
    start, stop, step = slice(start, stop, step).indices(source.shape[axis])
    if (start, stop, step) == (0, source.shape[axis], 1):
        return x
    numbers = [out.store(np.array([v]), f"{out.layer}.{what}", "INT64")
               for what, v in (("start", start), ("stop", stop), ("axis", axis), ("step", step))]  # fmt: skip
    return out.add("Slice", [source.name, *numbers], shape_of(node))


def select(out: OnnxWriter, node: fx.Node, x: Any, axis: int, index: int) -> Any:
    """Gather of one index."""
    source = out.plain(x)
    which = out.store(np.array(index % source.shape[axis]), f"{out.layer}.index", "INT64")
    return out.add("Gather", [source.name, which], shape_of(node), axis=axis % len(source.shape))


def split(out: OnnxWriter, node: fx.Node, x: Any, sizes: Any, axis: int = 0) -> Any:
    """Split, as a tuple."""
    source = out.plain(x)
    axis %= len(source.shape)
    shapes = [tuple(int(n) for n in v.shape) for v in node.meta["val"]]
    stored = out.store(np.array([s[axis] for s in shapes]), f"{out.layer}.sizes", "INT64")
    made = out.unique(f"{out.layer or 'model'}.split")
    names = [f"{made}.{i}" for i in range(len(shapes))]
    out.nodes.append(out.onnx.helper.make_node("Split", [source.name, stored], names, made, axis=axis))
    return tuple(Value(n, s) for n, s in zip(names, shapes, strict=True))


def getitem(out: OnnxWriter, node: fx.Node, x: Any, index: int) -> Any:
    """One of several results."""
    return x[index]


def concat(out: OnnxWriter, node: fx.Node, values: Sequence[Any], axis: int = 0) -> Value:
    """Concat."""
    return out.add("Concat", [out.plain(v).name for v in values], shape_of(node), axis=axis % len(shape_of(node)))


def pad(out: OnnxWriter, node: fx.Node, x: Any, sides: Sequence[int], mode: str = "constant", value: Any = None) -> Any:
    """Pad with a number; zeros around a quantized tensor wait for the convolution that takes them over."""
    if mode != "constant":
        raise UnsupportedOp(f"layer {out.layer}: padding mode {mode} is not exported")
    if isinstance(x, Quantized) and not value:
        return Padded(x, tuple(sides), shape_of(node))
    return out.pad(out.plain(x), sides, float(value or 0), shape_of(node))


def constant_pad(out: OnnxWriter, node: fx.Node, x: Any, sides: Sequence[int], value: Any = 0) -> Any:
    """aten.constant_pad_nd."""
    return pad(out, node, x, sides, "constant", value)


def softmax(out: OnnxWriter, node: fx.Node, x: Any, axis: int = -1, *_: Any, **__: Any) -> Value:
    """Softmax."""
    return out.add("Softmax", [out.plain(x).name], shape_of(node), axis=axis)


def layer_norm(out: OnnxWriter, node: fx.Node, x: Any, shape: Sequence[int], weight: Any = None, bias: Any = None,
               eps: float = 1e-5, *_: Any) -> Value:  # fmt: skip
    """LayerNormalization over the last axes."""
    weight = weight or Known(torch.ones(tuple(shape)))
    stored = [out.store(v.values, f"{out.layer}.{n}") for n, v in (("weight", weight), ("bias", bias)) if v is not None]
    return out.add("LayerNormalization", [out.plain(x).name, *stored], shape_of(node), out.layer, axis=-len(shape),
                   epsilon=float(eps))  # fmt: skip


def same(out: OnnxWriter, node: fx.Node, x: Any, *_: Any, **__: Any) -> Any:
    """Operators that change nothing at inference."""
    return x


HANDLERS: dict[str, Callable[..., Any]] = {
    "quantizer": quantizer,
    "conv1d": convolution, "conv2d": convolution, "linear": linear, "matmul": matmul, "bmm": matmul,
    "add": binary("Add"), "add_": binary("Add"), "sub": binary("Sub"), "mul": binary("Mul"), "mul_": binary("Mul"),
    "div": binary("Div"),
    "batch_norm": batch_norm, "_native_batch_norm_legit_no_training": native_batch_norm, "layer_norm": layer_norm,
    "relu": unary("Relu"), "relu_": unary("Relu"), "relu6": clip(0, 6), "relu6_": clip(0, 6),
    "hardtanh": clip(-1, 1), "hardtanh_": clip(-1, 1), "clamp": clip(),
    "leaky_relu": leaky_relu, "leaky_relu_": leaky_relu, "silu": silu, "silu_": silu,
    "sigmoid": unary("Sigmoid"), "sigmoid_": unary("Sigmoid"), "tanh": unary("Tanh"), "gelu": gelu,
    "hardswish": unary("HardSwish"), "hardswish_": unary("HardSwish"),
    "hardsigmoid": unary("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hardsigmoid_": unary("HardSigmoid", alpha=1 / 6, beta=0.5), "softmax": softmax,
    "dropout": same, "dropout_": same, "feature_dropout": same, "contiguous": same, "clone": same, "detach": same,
    "detach_": same, "alias": same, "lift_fresh_copy": same, "to": same, "_to_copy": same,
    "max_pool2d": pool("MaxPool"), "avg_pool2d": pool("AveragePool"), "adaptive_avg_pool2d": adaptive_avg_pool,
    "mean": mean,
    "view": reshape, "reshape": reshape, "_unsafe_view": reshape, "flatten": reshape, "unsqueeze": reshape,
    "squeeze": reshape, "expand": reshape, "unflatten": reshape,
    "permute": permute, "transpose": transpose, "t": transpose, "slice": sliced, "select": select,
    "split": split, "split_with_sizes": split, "chunk": split, "getitem": getitem,
    "cat": concat, "concat": concat, "pad": pad, "constant_pad_nd": constant_pad,
}  # fmt: skip
