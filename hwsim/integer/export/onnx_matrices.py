# pyright: basic
"""ONNX nodes of layers with parameters: quantizers, convolutions, matrix products, normalisations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from hwsim.errors import UnsupportedOp
from hwsim.integer.export.onnx_values import Codes, Known, Padded, Quantized, Rows, Value, spread
from hwsim.integer.export.onnx_writer import OnnxWriter
from hwsim.integer.lowering.exported_nodes import operator_name, shape_of
from quant.spec import LEARNED


def quantizer(out: OnnxWriter, node: fx.Node, x: Any, name: str) -> Any:
    """The marked node of a quantizer."""
    made = out.found[name]
    if isinstance(x, Rows):
        table = quantizer(out, node, x.table, name)
        if not isinstance(table, Codes):
            raise UnsupportedOp(f"layer {out.layer}: a table of parameters that no quantizer of weights reads")
        return out.add("Gather", [out.weight(table).name, x.index.name], x.shape, out.layer, axis=0)
    if made.spec.element != "int" or made.spec.scale_format not in LEARNED:
        certify = ", certify it with hwsim verify" if made.is_weight else ""
        raise UnsupportedOp(
            f"quantizer {name}: {made.spec.codes_text}: ONNX export takes integers with learned steps; price such a "
            f"network with hwsim evaluate{certify}"
        )
    if made.is_weight:
        if not isinstance(x, Known):
            raise UnsupportedOp(f"layer {out.layer}: weights that are computed have no codes known beforehand")
        if bool(made.offset().any()) and not (out.packs and made.spec.group):
            raise UnsupportedOp(
                f"layer {out.layer}: its weights have an offset ({made.spec.method}); ONNX export takes symmetric "
                "weights, as LSQ and LSQ+ have them"
            )
        codes = made.codes(x.values).round().to(torch.int64)
        if made.spec.group:
            width = min(made.spec.group, codes.shape[1])
            steps = made.step_at(x.values).detach().double()[:, ::width]
            if not bool(made.offset().any()):
                return Codes(codes, steps, name, width)
            offsets = made.offset_at(x.values).detach().double()[:, ::width]
            return Codes(codes, steps, name, width, offsets / steps)
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


def transposed(
    out: OnnxWriter, node: fx.Node, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Value:  # fmt: skip
    """ConvTranspose; steps of its weight (C, K/G, R, S) are those of outputs."""
    axes = len(weight.shape) - 2
    if not isinstance(weight, Codes):
        raise UnsupportedOp(f"layer {out.layer}: its weights have no quantizer")
    if len(weight.steps) > 1 and groups > 1:
        raise UnsupportedOp(
            f"layer {out.layer}: a step per output of a grouped transposed convolution has no axis of its own in ONNX; "
            "quantize its weights per tensor"
        )
    inputs = [out.plain(x).name, out.weight(weight, axis=1).name]
    if bias is not None:
        inputs.append(out.store(bias.values, f"{out.layer}.bias"))
    return out.add(
        "ConvTranspose", inputs, shape_of(node), out.layer, strides=spread(stride, axes), group=groups,
        dilations=spread(dilation, axes), pads=spread(padding, axes) * 2, output_padding=spread(output_padding, axes),
    )  # fmt: skip


def embedding(out: OnnxWriter, node: fx.Node, table: Any, index: Any, *_: Any, **__: Any) -> Rows:
    """Rows that wait for the quantizer of their table."""
    if not isinstance(table, Known) or any(operator_name(user) != "quantizer" for user in node.users):
        raise UnsupportedOp(f"layer {out.layer}: an embedding whose table no quantizer reads")
    if isinstance(index, Known):
        index = Value(out.store(index.values, f"{out.layer}.index", "INT64"), index.shape)
    return Rows(table, out.plain(index), shape_of(node))


def moves_inside(out: OnnxWriter, x: Quantized) -> bool:
    """Whether a border of zeros is another thing before the quantizer than behind it."""
    return bool(out.found[x.quantizer].offset().any())


def linear(out: OnnxWriter, node: fx.Node, x: Any, weight: Any, bias: Any = None) -> Value:
    """Gemm of matrices, MatMul (and Add) of tensors with more axes."""
    source, shape = out.plain(x), shape_of(node)
    constant = None if bias is None else out.store(bias.values, f"{out.layer}.bias")
    if out.can_pack(weight):
        return out.packed(source, weight, constant or "", shape)
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


def layer_norm(out: OnnxWriter, node: fx.Node, x: Any, shape: Sequence[int], weight: Any = None, bias: Any = None,
               eps: float = 1e-5, *_: Any) -> Value:  # fmt: skip
    """LayerNormalization over the last axes."""
    weight = weight or Known(torch.ones(tuple(shape)))
    stored = [out.store(v.values, f"{out.layer}.{n}") for n, v in (("weight", weight), ("bias", bias)) if v is not None]
    return out.add("LayerNormalization", [out.plain(x).name, *stored], shape_of(node), out.layer, axis=-len(shape),
                   epsilon=float(eps))  # fmt: skip
