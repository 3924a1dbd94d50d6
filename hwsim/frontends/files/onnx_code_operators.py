"""ONNX operators on codes: quantizers of all spellings, QLinear operators, integer products, packed weights.

Each is the plain operator between quantizers, so that one network has one workload, however it is written down.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from hwsim.frontends.files.onnx_reader import Affine, Handler, OnnxReader
from hwsim.frontends.files.onnx_types import CODES, PLAIN_OPERANDS, QLINEAR, QUANT_OPS, SCALE_TYPES
from hwsim.frontends.lowering.ir import Arg, Meta, Op, Ref


def convolve(read: OnnxReader, node: Any, x: str, weight: Arg, shape: tuple[int, ...], bias: Arg, output: str) -> None:
    """A convolution with any padding; asymmetric zeros come before it, and it takes them over."""
    options = read.options(node)
    axes = len(shape) - 2
    strides = list(options.get("strides", [1] * axes))
    dilations = list(options.get("dilations", [1] * axes))
    pads = window_padding(options, read.shape(x), list(shape[2:]), strides, dilations)
    source: Arg = Ref(x)
    if any(pads):
        grown = read.shape(x)[:2] + tuple(n + pads[i] + pads[i + axes] for i, n in enumerate(read.shape(x)[2:]))
        padded = read.fresh(f"{read.layer}.padded", grown)
        amounts = [n for i in reversed(range(axes)) for n in (pads[i], pads[i + axes])]
        read.op("aten.constant_pad_nd", padded, self=source, pad=tuple(amounts))
        source = Ref(padded)
        codes = read.quantizers.get(read.coded.get(x, ""))
        if codes is not None and codes.offset:  # zeros are put round the numbers: a code if 0.0 has one
            literal = "border_bias" if codes.zero_point is None and not codes.run_time else "snap_offset"
            read.policies[read.layer] = read.patterns.policies.get(output, literal)
    read.op(
        "aten.convolution", output, input=source, weight=weight, bias=bias, stride=tuple(strides),
        padding=(0,) * axes, dilation=tuple(dilations), groups=int(options.get("group", 1)),
    )  # fmt: skip


def window_padding(
    options: dict[str, Any], shape: tuple[int, ...], kernel: list[int], strides: list[int], dilations: list[int]
) -> list[int]:
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


def quantize_linear(read: OnnxReader, node: Any) -> None:
    """QuantizeLinear: from here on the tensor is codes."""
    source, output = node.input[0], node.output[0]
    read.metas[output] = Meta(read.shape(source))
    codes = read.affine(node, 1, 2, output if read.has(node, 2) else "")
    read.quantizer(output, Ref(source), codes, of_weight=source in read.parameters)


def dequantize_linear(read: OnnxReader, node: Any) -> None:
    """DequantizeLinear: the same codes, read as numbers; of a stored tensor, the weight that it stands for."""
    source, output = str(node.input[0]), str(node.output[0])
    read.metas[output] = Meta(read.shape(source))
    if source in read.parameters and source not in read.coded:
        codes = read.affine(node, 1, 2, source)
        read.quantizer(output, Ref(source), codes, of_weight=True)
        return
    read.ops.append(Op("aten.alias", {"self": Ref(read.codes_of(node, 0))}, (output,), read.layer, read.layer))
    read.coded[output] = read.coded.get(source, source)


def dynamic_quantize(read: OnnxReader, node: Any) -> None:
    """DynamicQuantizeLinear: least and largest value at run time, then 8 bits by a scale and offset found from them."""
    source = node.input[0]
    for name, function in zip(node.output[1:3], ("amax", "amin"), strict=False):
        if name:
            read.metas[name] = Meta(())
            read.op(f"aten.{function}", name, self=Ref(source))
    read.metas[node.output[0]] = Meta(read.shape(source))
    read.quantizer(node.output[0], Ref(source), Affine(8, False, None), name=node.output[0])


def qonnx_quant(read: OnnxReader, node: Any) -> None:
    """Quant (x, scale, zero point, bits), BipolarQuant (x, scale: codes -1 and 1) and Trunc of QONNX."""
    source, output, kind = node.input[0], node.output[0], node.op_type
    options = read.options(node)
    scales = max(1, math.prod(read.metas[node.input[1]].shape)) if node.input[1] in read.metas else 1
    read.metas.setdefault(output, Meta(read.shape(source)))
    constant = source in read.parameters
    if kind == "BipolarQuant":
        read.quantizer(output, Ref(source), Affine(1, True, np.zeros(1), scales), of_weight=constant)
        return
    bits = read.number(node, 4 if kind == "Trunc" else 3)
    if bits is None or bits.size != 1 or float(bits.reshape(-1)[0]) != int(bits.reshape(-1)[0]):
        raise read.refuse("its bit width is not one constant whole number")
    zeros = read.number(node, 2)
    if zeros is None:
        raise read.refuse("its zero point is not a constant whose numbers are at hand")
    signed = bool(options.get("signed", 1))
    codes = Affine(int(bits.reshape(-1)[0]), signed, zeros, scales)
    read.quantizer(output, Ref(source), codes, of_weight=constant)


def rounded(read: OnnxReader, node: Any, raw: str, scale: int, zero: int) -> None:
    """The result of an operator on codes, rounded to codes by its own scale and zero point."""
    output = node.output[0]
    read.quantizer(output, Ref(raw), read.affine(node, scale, zero, output), name=output)


def qlinear_conv(read: OnnxReader, node: Any) -> None:
    """QLinearConv: x, its scale and zero point, w, ..., y's scale and zero point, bias."""
    x, weight = read.codes_of(node, 0), read.codes_of(node, 3)
    raw = read.fresh(f"{read.layer}.raw", read.shape(node.output[0]))
    convolve(read, node, x, Ref(weight), read.shape(node.input[3]), read.ref(node, 8), raw)
    rounded(read, node, raw, 6, 7)


def qlinear_matmul(read: OnnxReader, node: Any) -> None:
    """QLinearMatMul: a, its scale and zero point, b, ..., y's scale and zero point."""
    a, b = read.codes_of(node, 0), read.codes_of(node, 3)
    raw = read.fresh(f"{read.layer}.raw", read.shape(node.output[0]))
    read.op("aten.matmul", raw, self=Ref(a), other=Ref(b))
    rounded(read, node, raw, 6, 7)


def qlinear(read: OnnxReader, node: Any) -> None:
    """QLinearAdd, QGemm, ...: the float operator of that name between codes, its result rounded to codes."""
    kind, positions, (scale, zero) = QLINEAR[node.op_type]
    places = positions or tuple(range(2, len(node.input), 3))
    plain_one = PLAIN_OPERANDS.get(node.op_type, -1)
    sources = [node.input[i] if i == plain_one else read.codes_of(node, i) for i in places if read.has(node, i)]
    coded = read.has(node, scale)  # QGemm may make numbers
    raw = read.fresh(f"{read.layer}.raw", read.shape(node.output[0])) if coded else node.output[0]
    plain = read.onnx.helper.make_node(kind, sources, [raw], node.name)
    plain.attribute.extend(node.attribute)
    read.translate(plain)
    if coded:
        rounded(read, node, raw, scale, zero)


def integer_product(read: OnnxReader, node: Any) -> None:
    """ConvInteger and MatMulInteger: codes in, 32-bit sums out."""
    names: list[str] = []
    for position, zero in ((0, 2), (1, 3)):
        source = node.input[position]
        if source not in read.coded:
            made = read.fresh(f"{source}.codes", read.shape(source))
            bits, signed = CODES[read.code_type(node, zero, source)]
            zeros = read.zero_points(node, zero)
            scales = 1 if zeros is None else max(1, zeros.size)
            of_weight = source in read.parameters
            read.quantizer(made, Ref(source), Affine(bits, signed, zeros, scales), of_weight=of_weight, name=source)
            source = made
        names.append(source)
    if node.op_type == "ConvInteger":
        convolve(read, node, names[0], Ref(names[1]), read.shape(node.input[1]), None, node.output[0])
    else:
        read.op("aten.matmul", node.output[0], self=Ref(names[0]), other=Ref(names[1]))
    read.metas[node.output[0]] = Meta(read.shape(node.output[0]))


def packed_matmul(read: OnnxReader, node: Any) -> None:
    """MatMulNBits: x times weights of `bits` bits, (N, K) of them, a scale and perhaps a zero point per block."""
    options = read.options(node)
    bits, columns, inner, block = (int(options[key]) for key in ("bits", "N", "K", "block_size"))
    if block < 1:
        raise read.refuse(f"block_size {block}: expected 1 or more")
    if not 1 <= bits <= 8 or read.shape(node.input[0])[-1] != inner or columns < 1:
        raise read.refuse(f"MatMulNBits of {bits} bits, K = {inner}, N = {columns} does not fit its input")
    weight, coded = (read.fresh(f"{node.input[1]}.{part}", (columns, inner)) for part in ("numbers", "codes"))
    read.constants[weight] = node.input[1]
    scales = math.prod(read.shape(node.input[2]))
    wanted = columns * -(-inner // block)
    if scales != wanted:
        raise read.refuse(
            f"{scales} scales; expected {wanted}: of {columns} outputs one per block of {block} of {inner}"
        )
    # Zero points differ from block to block, so the tensor has none of its own; without them it is symmetric.
    zeros = np.arange(2) if read.has(node, 3) else np.zeros(1)
    name = f"{read.layer}.weight"
    form = read.block_format(bits, node.input[2], zeros, block)
    # Real-valued zero points take codes from either side of 0 alike, so these are the signed ones.
    real = read.has(node, 3) and read.known.types.get(node.input[3]) in ("float", "float16", "bfloat16")
    if real:
        form = dataclasses.replace(form, offset=SCALE_TYPES[read.known.types[node.input[3]]])
    codes = Affine(bits, real or not read.has(node, 3), zeros, scales, form)
    read.quantizer(coded, Ref(weight), codes, of_weight=True, name=name)
    read.op("aten.linear", node.output[0], input=Ref(node.input[0]), weight=Ref(coded), bias=read.ref(node, 5))


CODE_HANDLERS: dict[str, Handler] = {
    "QuantizeLinear": quantize_linear,
    "DequantizeLinear": dequantize_linear,
    "DynamicQuantizeLinear": dynamic_quantize,
    **dict.fromkeys(QUANT_OPS, qonnx_quant),
    "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul,
    **dict.fromkeys(QLINEAR, qlinear),
    **dict.fromkeys(("ConvInteger", "MatMulInteger"), integer_product),
    "MatMulNBits": packed_matmul,
}
