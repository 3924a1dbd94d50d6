# pyright: basic
"""The walk through an exported network that writes an ONNX file: its nodes, constants, quantizers and weights.

What each operator becomes is its handler's, in the modules onnx_matrices, onnx_elementwise, onnx_pools and onnx_moves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.utils._pytree import tree_unflatten

from hwsim.errors import UnsupportedOp
from hwsim.integer.export.onnx_values import (
    CONTRIBUTED_DOMAIN,
    PACKED_BITS,
    QONNX_DOMAIN,
    REAL_ZERO_BITS,
    Activations,
    Codes,
    Exported,
    Grid,
    Known,
    Padded,
    Quantized,
    Value,
    code_type,
    grown,
    numbered,
)
from hwsim.integer.lowering.exported_nodes import IGNORED, layer_of, operator_name, shape_of
from hwsim.integer.lowering.walk import PLAIN_METHODS
from quant import BaseQuantizer
from quant.calling import answer

Array = NDArray[Any]


class OnnxWriter:
    """Walks the exported program and writes node after node."""

    def __init__(
        self, onnx: Any, model: nn.Module, program: Any, found: Mapping[str, BaseQuantizer], form: str, offset: str,
        packs: bool, name: str, handlers: Mapping[str, Callable[..., Any]],
    ) -> None:  # fmt: skip
        self.onnx, self.program, self.found, self.form, self.offset = onnx, program, found, form, offset
        self.name, self.handlers, self.packs = name, handlers, packs
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
        inputs: list[Any] = []
        results: list[Value] = []
        for node in self.program.graph.nodes:
            self.layer = layer_of(node)
            if node.op == "placeholder" and node.name in known:
                self.env[node] = Known(state[known[node.name]].detach())
            elif node.op == "placeholder":
                value = Value(numbered("input", len(inputs)), shape_of(node))
                kind = types.FLOAT if node.meta["val"].is_floating_point() else types.INT64
                inputs.append(helper.make_tensor_value_info(value.name, kind, value.shape))
                self.env[node] = value
            elif node.op == "output":
                results = self.results(node.args[0])
            elif node.op == "call_function":
                self.env[node] = self.call(node)
        outputs: list[Any] = []
        for i, result in enumerate(results):
            name = numbered("output", i)
            self.nodes.append(helper.make_node("Identity", [result.name], [name], name))
            outputs.append(helper.make_tensor_value_info(name, types.FLOAT, result.shape))
        graph = helper.make_graph(self.nodes, self.name, inputs, outputs, self.stored)
        opsets = [helper.make_opsetid("", self.opset)]
        version = helper.find_min_ir_version_for(opsets)
        if self.form == "qonnx":
            opsets.append(helper.make_opsetid(QONNX_DOMAIN, 1))
        if any(node.domain == CONTRIBUTED_DOMAIN for node in self.nodes):
            opsets.append(helper.make_opsetid(CONTRIBUTED_DOMAIN, 1))
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=version, producer_name="hwsim")
        return Exported(proto, self.form, self.activations, dict(self.weight_types))

    def results(self, returned: Sequence[Any]) -> list[Value]:
        """The network's results as float tensors, its answer first."""
        values = [self.plain(self.value(v)) for v in returned if v is not None]
        if len(values) != len(returned):
            raise UnsupportedOp(f"{self.name}: ONNX export takes tensors as results, this network returns None as well")
        place = answer(tree_unflatten(list(range(len(values))), self.program.call_spec.out_spec), kind=int)
        return [values.pop(place), *values]

    # ---- nodes -------------------------------------------------------------------------------------------------------

    def call(self, node: fx.Node) -> Any:
        """One operator."""
        operator = operator_name(node)
        if operator in IGNORED:
            return None
        handler = self.handlers.get(operator)
        if handler is None and all(isinstance(self.env.get(source), Known) for source in node.all_input_nodes):
            return self.known(node)
        if handler is None:
            raise UnsupportedOp(
                f"layer {self.layer or '(model)'}: {operator} has no ONNX counterpart here; replace it, or export the "
                "part before it"
            )
        arguments = [self.value(a) for a in node.args]
        keywords = {k: self.value(a) for k, a in node.kwargs.items()}
        return handler(self, node, *arguments, **keywords)

    def known(self, node: fx.Node) -> Known:
        """What an operator makes of numbers known beforehand, as every run of the file would."""
        numbers = map_arg((node.args, node.kwargs), lambda source: self.env[source].values)
        with torch.no_grad():
            made = cast(Any, node.target)(*numbers[0], **numbers[1])
        if not isinstance(made, torch.Tensor):
            raise UnsupportedOp(f"layer {self.layer or '(model)'}: {operator_name(node)} of numbers gives no tensor")
        return Known(made)

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

    def weight(self, value: Codes, transpose: bool = False, axis: int = 0) -> Value:
        """w_hat, from codes in the file (qdq) or rounded again from s*code (qonnx).

        `axis`: that of its steps, one per output; groups of channels lie along the second.
        """
        spec = self.found[value.quantizer].spec
        if value.offsets is not None:
            raise UnsupportedOp(
                f"layer {self.layer}: its weights have a real-valued offset, which DequantizeLinear lacks; export "
                f"matrices of 2 or 4 bits in groups of 16, 32, 64, ... as --groups packed, or train without it"
            )
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
        n, p, shape, axis = spec.n, spec.p, tuple(codes.shape), 1 if value.group else axis
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

    def packed(self, x: Value, value: Codes, bias: str, shape: tuple[int, ...]) -> Value:
        """MatMulNBits of onnxruntime: rows of blocks of codes without a sign, least bits first, a step for each block.

        w_hat = step * (code - zero point), which is real here where weights have offsets, and 2^(bits-1) without.
        """
        spec, name = self.found[value.quantizer].spec, value.quantizer
        rows, inner = value.codes.shape
        self.weight_types[f"{spec.bits} bits"] += value.codes.numel()
        stored = self.store(packed_bytes(value.codes - spec.n, spec.bits, spec.group), f"{name}.codes", "UINT8")
        inputs = [x.name, stored, self.store(value.steps, f"{name}.scale")]
        points = "" if value.offsets is None else self.store(-spec.n - value.offsets, f"{name}.zero")
        inputs += [points, "", bias] if bias else [points] if points else []
        return self.add("MatMulNBits", inputs, shape, self.layer, CONTRIBUTED_DOMAIN,
                        bits=spec.bits, block_size=spec.group, K=inner, N=rows)  # fmt: skip

    def can_pack(self, weight: Any) -> bool:
        """Whether MatMulNBits holds this matrix: groups of a power of two from 16 on, and bits that it takes."""
        if not (self.packs and isinstance(weight, Codes) and weight.group and weight.codes.ndim == 2):
            return False
        spec = self.found[weight.quantizer].spec
        fits = spec.bits in (PACKED_BITS if weight.offsets is None else REAL_ZERO_BITS)
        return fits and spec.group >= 16 and spec.group.bit_count() == 1 and spec.n < 0


def packed_bytes(codes: Tensor, bits: int, block: int) -> Tensor:
    """(rows, inner) codes 0 .. 2^bits - 1 -> (rows, blocks, bytes); the last block is filled up with 0.

    >>> packed_bytes(torch.tensor([[1, 2, 3]]), 4, 16)[0, 0, :3].tolist()
    [33, 3, 0]
    """
    rows, inner = codes.shape
    blocks = -(-inner // block)
    filled = torch.zeros(rows, blocks * block, dtype=torch.int64)
    filled[:, :inner] = codes
    parts = filled.view(rows, blocks, -1, 8 // bits) << torch.arange(0, 8, bits)
    return parts.sum(-1)
