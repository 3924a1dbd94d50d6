"""Contributed operators of onnxruntime: products that quantize their input at run time, packed tables, fused norms.

Each is written as the operators that it fuses. A form that this version does not know keeps its name, and is refused.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hwsim.frontends.files.onnx_reader import Affine, Handler, OnnxReader
from hwsim.frontends.files.onnx_types import CODES
from hwsim.frontends.lowering.ir import Arg, Op, Ref


def unknown(read: OnnxReader, node: Any) -> None:
    """Keep the operator's name: it has no price in this form."""
    domain = f"{node.domain}." if node.domain else ""
    inputs: dict[str, Arg] = {f"input_{i}": Ref(name) for i, name in enumerate(node.input) if name}
    read.ops.append(Op(f"onnx.{domain}{node.op_type}", inputs, tuple(node.output), read.layer, read.layer))


def weight_codes(read: OnnxReader, node: Any, position: int, scale: int, zero: int) -> str:
    """A stored integer operand behind its quantizer."""
    source = node.input[position]
    if source in read.coded:
        return str(source)
    made = read.fresh(f"{source}.codes", read.shape(source))
    bits, signed = CODES[read.code_type(node, zero, source)]
    scales = max(1, math.prod(read.shape(node.input[scale]))) if read.has(node, scale) else 1
    codes = Affine(bits, signed, read.zero_points(node, zero), scales)
    read.quantizer(made, Ref(source), codes, of_weight=source in read.parameters, name=source)
    return made


def rounded_at_run_time(read: OnnxReader, source: str) -> str:
    """A tensor as 8 bits, by a scale and an offset found anew at every run."""
    for function in ("amax", "amin"):
        read.op(f"aten.{function}", read.fresh(f"{read.layer}.{function}", ()), self=Ref(source))
    coded = read.fresh(f"{source}.codes", read.shape(source))
    read.quantizer(coded, Ref(source), Affine(8, False, None), name=coded)
    return coded


def with_bias(read: OnnxReader, node: Any, a: str, b: str, bias: int) -> None:
    """a @ b, and an addition where the node has a bias."""
    output = node.output[0]
    made = read.fresh(f"{read.layer}.product", read.shape(output)) if read.has(node, bias) else output
    read.op("aten.matmul", made, self=Ref(a), other=Ref(b))
    if made != output:
        read.op("aten.add", output, self=Ref(made), other=read.ref(node, bias))


def dynamic_matmul(read: OnnxReader, node: Any) -> None:
    """DynamicQuantizeMatMul: 8 bits of the input by a scale found at run time, times stored codes."""
    coded = rounded_at_run_time(read, node.input[0])
    with_bias(read, node, coded, weight_codes(read, node, 1, 2, 3), 4)


def matmul_to_float(read: OnnxReader, node: Any) -> None:
    """MatMulIntegerToFloat: codes of both operands, the sums scaled to numbers."""
    a = weight_codes(read, node, 0, 2, 4)
    with_bias(read, node, a, weight_codes(read, node, 1, 3, 5), 6)


def bias_gelu(read: OnnxReader, node: Any) -> None:
    """BiasGelu, FastGelu with a bias: an addition and GELU."""
    source: Arg = read.ref(node, 0)
    if read.has(node, 1):
        total = read.fresh(f"{read.layer}.sum", read.shape(node.output[0]))
        read.op("aten.add", total, self=source, other=read.ref(node, 1))
        source = Ref(total)
    read.op("aten.gelu", node.output[0], self=source)


def flipped(read: OnnxReader, name: str) -> str:
    """The same array with its last two dimensions exchanged."""
    shape = read.shape(name)
    made = read.fresh(f"{name}.t", (*shape[:-2], shape[-1], shape[-2]))
    read.op("aten.transpose", made, self=Ref(name))
    return made


def gather_blocks(read: OnnxReader, node: Any) -> None:
    """GatherBlockQuantized: rows of a table of codes with a scale for each block."""
    source = node.input[0]
    kind = read.known.types.get(source, "")
    packed = kind == "uint8"
    bits = int(read.options(node).get("bits", 4)) if packed else CODES.get(kind, (0, True))[0]
    if not 1 <= bits <= 8 or int(read.options(node).get("gather_axis", 0)):
        raise read.refuse(f"codes of {kind or 'an unknown type'} along another axis than the rows have no price")
    shape = read.shape(source)
    shape = (*shape[:-1], shape[-1] * (8 // bits)) if packed else shape
    numbers, coded = (read.fresh(f"{source}.{part}", shape) for part in ("numbers", "codes"))
    read.constants[numbers] = source
    zeros = np.arange(2) if read.has(node, 3) else np.zeros(1)  # they differ from block to block
    codes = Affine(bits, kind.startswith("int"), zeros, max(1, math.prod(read.shape(node.input[2]))))
    read.quantizer(coded, Ref(numbers), codes, of_weight=True, name=source)
    read.op("aten.embedding", node.output[0], weight=Ref(coded), indices=read.ref(node, 1))


def embedding_sum(read: OnnxReader, node: Any) -> None:
    """EmbedLayerNormalization and QEmbedLayerNormalization: rows of the word, position and segment tables, added and
    normalised; tables, scales and offsets of the quantized one are stored codes."""
    output, quantized = node.output[0], node.op_type.startswith("Q")
    shape = read.shape(output)
    total = read.fresh(f"{read.layer}.words", shape)
    stored: dict[int, Arg] = {position: read.ref(node, position) for position in range(2, 7)}
    if quantized:  # scales and zero points stand behind them, in the same order
        coded = {i: weight_codes(read, node, i, i + 6, i + 11) for i in range(2, 7) if read.has(node, i)}
        stored = {position: Ref(name) for position, name in coded.items()}
    read.op("aten.embedding", total, weight=stored[2], indices=read.ref(node, 0))
    for position, index in ((3, -1 if quantized else 7), (4, 1)):
        if not read.has(node, position):
            continue
        rows: Arg = stored[position]
        if index >= 0 and read.has(node, index):
            looked = read.fresh(f"{read.layer}.rows{position}", shape)
            read.op("aten.embedding", looked, weight=rows, indices=read.ref(node, index))
            rows = Ref(looked)
        else:  # positions 0, 1, 2, ...: the first rows of the table
            cut = read.fresh(f"{read.layer}.rows{position}", shape[1:])
            read.op("aten.slice", cut, self=rows)
            rows = Ref(cut)
        summed = read.fresh(f"{read.layer}.sum{position}", shape)
        read.op("aten.add", summed, self=Ref(total), other=rows)
        total = summed
    read.op("aten.layer_norm", output, input=Ref(total), weight=stored[5], bias=stored[6])
    for name in node.output[1:]:
        if name and name in read.metas and name not in read.parameters:
            raise read.refuse("its second and third results (mask lengths, the sum) have no price")


def experts(read: OnnxReader, node: Any) -> None:
    """MoE and QMoE: which experts a token takes depends on its values; how many products it takes does not."""
    quantized = node.op_type.startswith("Q")
    options, x = read.options(node), read.shape(node.input[0])
    first, third = (2, 8) if quantized else (2, 6)
    made = read.shape(node.input[first])[1]
    gated = bool(options.get("swiglu_fusion", 0)) and not read.has(node, third)
    inner = made // 2 if gated else made
    rows = math.prod(x[:-1]) * int(options.get("k", 1))
    products = rows * x[-1] * (made + inner + (inner if read.has(node, third) else 0))
    inputs: dict[str, Arg] = {f"input_{i}": Ref(name) for i, name in enumerate(node.input) if name}
    name = f"onnx.{node.domain}.{node.op_type}"
    read.ops.append(Op(name, {**inputs, "products": products}, tuple(node.output), read.layer, read.layer))


CONTRIBUTED: dict[str, Handler] = {
    "DynamicQuantizeMatMul": dynamic_matmul,
    "MatMulIntegerToFloat": matmul_to_float,
    **dict.fromkeys(("BiasGelu", "FastGelu"), bias_gelu),
    "GatherBlockQuantized": gather_blocks,
    **dict.fromkeys(("MoE", "QMoE"), experts),
    **dict.fromkeys(("EmbedLayerNormalization", "QEmbedLayerNormalization"), embedding_sum),
}
