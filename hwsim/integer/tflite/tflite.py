# pyright: basic
"""A quantized TFLite network as an integer network of ours: `lower_tflite(path) -> IntegerModel`.

Zero points become offsets beta = -s*z, so padding with real zero is padding with code z; weights with zero points are
shifted to symmetric codes. Run plainly, requantization is exact (half to even of the real number); with the rules of
`hwsim.integer.tflite.tflite_kernels` it is TFLite's own. Batches are (N, C, H, W); a closing softmax is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from hwsim.errors import UnsupportedOp, WorkloadError
from hwsim.frontends.files.tflite_file import TfliteModel, TfliteOp, TfliteTensor, read_tflite
from hwsim.integer import graph
from hwsim.integer.arithmetic.forms import Form, Rationals, Term, plus, rationals, times
from hwsim.integer.arithmetic.geometry import Window
from hwsim.integer.arithmetic.kernels import accumulator_bounds, magnitude_bound, narrowest
from hwsim.integer.arithmetic.rules import CodeSpec, Range
from hwsim.integer.arithmetic.steps import Clamp, ScalarFunction
from hwsim.integer.graph import IntegerModel, Node
from quant.models.ops import same_padding

_RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "int4": (-8, 7)}
_ACTIVATIONS: dict[int, tuple[ScalarFunction, ...]] = {
    0: (),
    1: (Clamp(Fraction(0)),),
    2: (Clamp(Fraction(-1), Fraction(1)),),
    3: (Clamp(Fraction(0), Fraction(6)),),
}


def lower_tflite(path: str | Path) -> IntegerModel:
    """The network of a quantized file. WorkloadError for unreadable or float files, UnsupportedOp for operators."""
    model = read_tflite(Path(path))
    if len(model.inputs) != 1 or not model.tensors[model.inputs[0]].quantized:
        raise WorkloadError(f"{path}: expected one quantized input; a float network has nothing to run with integers")
    return _Reader(model).run()


class _Reader:
    """Walks the operators; `at` maps tensor numbers to nodes."""

    def __init__(self, model: TfliteModel) -> None:
        self.model = model
        self.nodes: list[Node] = []
        self.at: dict[int, Node] = {}

    def run(self) -> IntegerModel:
        """All operators in order."""
        source = self.model.tensors[self.model.inputs[0]]
        code = code_spec(source)
        shape = channels_first(source.shape)
        first = graph.Encode(name=source.name, shape=shape, range=Range((code.n,), (code.p,)), code=code,
                             source="input", quantizer=source.name)  # fmt: skip
        self.add(source, first)
        handlers: dict[str, Callable[[TfliteOp], None]] = {
            "CONV_2D": self.convolution, "DEPTHWISE_CONV_2D": self.convolution, "FULLY_CONNECTED": self.linear,
            "ADD": self.addition, "AVERAGE_POOL_2D": self.mean, "RESHAPE": self.reshape,
        }  # fmt: skip
        last = self.model.outputs[0]
        for op in self.model.ops:
            if op.op == "SOFTMAX" and op.outputs[0] == last:
                last = op.inputs[0]  # the largest stays the largest
            elif op.op in handlers:
                handlers[op.op](op)
            else:
                raise UnsupportedOp(f"{self.model.path}: operator {op.op} has no integer form here")
        end = self.at[last]
        assert end.code is not None
        output = Form((Term((end.name,), (end.code.s,)),), (end.code.beta,), end.shape)
        quantized = {n.name: n.name for n in self.nodes if n.code is not None}
        return IntegerModel(self.model.path.stem, tuple(self.nodes), output, quantized, first.shape)

    def add(self, tensor: TfliteTensor, node: Node) -> Node:
        """Enter the node of a tensor."""
        self.nodes.append(node)
        self.at[tensor.index] = node
        return node

    def tensors(self, op: TfliteOp) -> tuple[TfliteTensor, ...]:
        """The operator's inputs."""
        return tuple(self.model.tensors[i] for i in op.inputs if i >= 0)

    def convolution(self, op: TfliteOp) -> None:
        """CONV_2D and DEPTHWISE_CONV_2D."""
        x, weight, *bias = self.tensors(op)
        source = self.at[x.index]
        raw = weight_codes(weight)
        depthwise = op.op == "DEPTHWISE_CONV_2D"
        codes = raw.permute(3, 0, 1, 2) if depthwise else raw.permute(0, 3, 1, 2)
        kernel = (codes.shape[2], codes.shape[3])
        spans = [op.options[f"dilation_{a}"] * (k - 1) + 1 for a, k in zip("hw", kernel, strict=True)]
        top, bottom = padding(op, "h", source.shape[2], spans[0])
        left, right = padding(op, "w", source.shape[3], spans[1])
        window = Window(
            kernel, (op.options["stride_h"], op.options["stride_w"]),
            (op.options["dilation_h"], op.options["dilation_w"]), (top, bottom, left, right),
            source.shape[1] if depthwise else source.shape[1] // codes.shape[1],
        )  # fmt: skip
        shape = (1, codes.shape[0], *window.output(*source.shape[2:]))
        self.matrix(op, source, codes, weight, bias, window, shape)

    def linear(self, op: TfliteOp) -> None:
        """FULLY_CONNECTED."""
        x, weight, *bias = self.tensors(op)
        codes = weight_codes(weight)
        self.matrix(op, self.at[x.index], codes, weight, bias, None, (1, codes.shape[0]))

    def matrix(
        self, op: TfliteOp, source: Node, codes: Tensor, weight: TfliteTensor, bias: list[TfliteTensor],
        window: Window | None, shape: tuple[int, ...],
    ) -> None:  # fmt: skip
        """Accumulators and their requantization, the input's zero point folded into the bias."""
        out = self.model.tensors[op.outputs[0]]
        assert source.code is not None
        scales = rationals(list(weight.scales))
        sums = tuple(Fraction(int(v)) for v in codes.flatten(1).sum(1))
        constant = times(tuple(source.code.beta * s for s in scales), sums)
        if bias and bias[0].data is not None:
            unit = tuple(source.code.s * s for s in scales)
            constant = plus(constant, times(unit, tuple(Fraction(int(v)) for v in bias[0].data.reshape(-1))))
        least, largest = accumulator_bounds(codes, source.code.n, source.code.p)
        zero = source.code.zero_code
        made = graph.Convolve(
            name=f"{out.name}:accumulators", shape=shape, layer=out.name, x=source.name, window=window,
            range=Range(tuple(least.tolist()), tuple(largest.tolist())),
            weight=codes.to(narrowest(int(codes.min()), int(codes.max()))).contiguous(),
            padding=graph.Padding(
                policy="snap_offset" if window is not None and window.padded else "none", code=zero, naive_code=0
            ),
            bound=magnitude_bound(codes, source.code.n, source.code.p), per_channel_scale=len(scales) > 1,
        )  # fmt: skip
        self.nodes.append(made)
        form = Form((Term((made.name,), tuple(source.code.s * s for s in scales)),), constant, shape)
        self.requantize(out, form, op.options["activation"])

    def requantize(self, out: TfliteTensor, form: Form, activation: int = 0) -> None:
        """Codes of a form in the output tensor's quantization."""
        if activation not in _ACTIVATIONS:
            raise UnsupportedOp(f"{self.model.path}: fused activation {activation} has no integer form here")
        code = code_spec(out)
        self.add(out, graph.Requantize(
            name=out.name, shape=form.shape, range=Range((code.n,), (code.p,)), code=code, layer=out.name,
            form=form.then(*_ACTIVATIONS[activation]), quantizer=out.name,
        ))  # fmt: skip

    def addition(self, op: TfliteOp) -> None:
        """ADD of two activations with scales of their own."""
        x, y = (self.at[t.index] for t in self.tensors(op))
        assert x.code is not None
        assert y.code is not None
        terms = (Term((x.name,), (x.code.s,)), Term((y.name,), (y.code.s,)))
        form = Form(terms, (x.code.beta + y.code.beta,), x.shape)
        self.requantize(self.model.tensors[op.outputs[0]], form, op.options["activation"])

    def mean(self, op: TfliteOp) -> None:
        """AVERAGE_POOL_2D without padding."""
        source = self.at[op.inputs[0]]
        assert source.code is not None
        kernel = (op.options["filter_h"], op.options["filter_w"])
        window = Window(kernel, (op.options["stride_h"], op.options["stride_w"]))
        shape = (1, source.shape[1], *window.output(*source.shape[2:]))
        if any(padding(op, a, n, k) != (0, 0) for a, n, k in zip(("h", "w"), source.shape[2:], kernel, strict=True)):
            raise UnsupportedOp(f"{self.model.path}: an average pool with padding counts windows of unequal size")
        out = self.model.tensors[op.outputs[0]]
        made = graph.SumPool(name=f"{out.name}:sum", shape=shape, x=source.name, window=window,
                             range=graph.total_range([source.range], math.prod(kernel)))  # fmt: skip
        self.nodes.append(made)
        slopes: Rationals = (source.code.s / math.prod(kernel),)
        self.requantize(out, Form((Term((made.name,), slopes),), (source.code.beta,), shape), op.options["activation"])

    def reshape(self, op: TfliteOp) -> None:
        """RESHAPE between a 1 x 1 map and its channels."""
        source, out = self.at[op.inputs[0]], self.model.tensors[op.outputs[0]]
        shape = channels_first(out.shape)
        if math.prod(source.shape[2:]) != 1 or math.prod(shape[2:]) != 1:
            raise UnsupportedOp(f"{self.model.path}: a reshape of {source.shape} mixes rows, columns and channels")
        self.add(out, graph.Move(name=out.name, shape=shape, range=source.range, code=source.code, xs=(source.name,),
                                 kind="reshape", options=(shape,)))  # fmt: skip


def code_spec(tensor: TfliteTensor) -> CodeSpec:
    """s*(code - z) as s*code + beta."""
    if not tensor.quantized or len(tensor.scales) != 1:
        raise UnsupportedOp(f"tensor {tensor.name}: expected one scale for its {tensor.dtype} codes")
    s = Fraction(tensor.scales[0])
    n, p = _RANGES[tensor.dtype]
    return CodeSpec(s, -s * (tensor.zero_points[0] if tensor.zero_points else 0), n, p)


def weight_codes(tensor: TfliteTensor) -> Tensor:
    """Codes minus their zero points, int64, in the file's order of axes."""
    if tensor.data is None or not tensor.quantized:
        raise UnsupportedOp(f"tensor {tensor.name}: expected quantized weights in the file")
    codes = torch.from_numpy(tensor.data.astype("int64"))
    if len(set(tensor.zero_points)) > 1:
        raise UnsupportedOp(f"tensor {tensor.name}: weights with a zero point per channel")
    return codes - (tensor.zero_points[0] if tensor.zero_points else 0)


def channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(N, H, W, C) as (N, C, H, W)."""
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def padding(op: TfliteOp, axis: str, size: int, span: int) -> tuple[int, int]:
    """Zeros before and after one axis: none for VALID; SAME puts the odd one after."""
    return same_padding(size, span, op.options[f"stride_{axis}"]) if op.options["same"] else (0, 0)
