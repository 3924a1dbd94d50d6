"""Contributed operators of onnxruntime: products that quantize their input at run time, attention, fused norms.

Each is written as the operators that it fuses. A form that this version does not know keeps its name, and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hwsim.frontends.files.onnx_reader import Affine, Handler, OnnxReader
from hwsim.frontends.files.onnx_types import CODES
from hwsim.frontends.lowering.ir import Arg, Meta, Op, Ref


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


def with_bias(read: OnnxReader, node: Any, a: str, b: str, bias: int) -> None:
    """a @ b, and an addition where the node has a bias."""
    output = node.output[0]
    made = read.fresh(f"{read.layer}.product", read.shape(output)) if read.has(node, bias) else output
    read.op("aten.matmul", made, self=Ref(a), other=Ref(b))
    if made != output:
        read.op("aten.add", output, self=Ref(made), other=read.ref(node, bias))


def dynamic_matmul(read: OnnxReader, node: Any) -> None:
    """DynamicQuantizeMatMul: 8 bits of the input by a scale found at run time, times stored codes."""
    source = node.input[0]
    for function in ("amax", "amin"):
        read.op(f"aten.{function}", read.fresh(f"{read.layer}.{function}", ()), self=Ref(source))
    coded = read.fresh(f"{source}.codes", read.shape(source))
    read.quantizer(coded, Ref(source), Affine(8, False, None), name=coded)
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


def heads_of(read: OnnxReader, source: str, heads: int) -> str:
    """(batch, tokens, heads * size) as (batch, heads, tokens, size)."""
    shape = read.shape(source)
    if len(shape) == 4:
        return source
    batch, tokens, width = shape
    if width % heads:
        raise read.refuse(f"{width} features for {heads} heads")
    made = read.fresh(f"{source}.heads", (batch, heads, tokens, width // heads))
    read.op("aten.view", made, self=Ref(source))
    return made


def attend(read: OnnxReader, node: Any, names: Sequence[str], heads: int, kv_heads: int, mask: Arg) -> None:
    """softmax(q k^T) v by heads."""
    query = heads_of(read, names[0], heads)
    key, value = (heads_of(read, name, kv_heads) for name in names[1:3])
    batch, _, tokens, _ = read.shape(query)
    size = read.shape(value)[3]
    flat = len(read.shape(names[0])) == 3
    made = read.fresh(f"{read.layer}.heads", (batch, heads, tokens, size))
    arguments: dict[str, Arg] = {"query": Ref(query), "key": Ref(key), "value": Ref(value), "attn_mask": mask}
    options = read.options(node)
    causal = bool(options.get("is_causal") or options.get("unidirectional") or node.op_type == "GroupQueryAttention")
    read.op("aten.scaled_dot_product_attention", made, is_causal=causal, **arguments)
    output = node.output[0]
    read.metas.setdefault(output, Meta((batch, tokens, heads * size) if flat else (batch, heads, tokens, size)))
    read.op("aten.view", output, self=Ref(made))


def attention(read: OnnxReader, node: Any) -> None:
    """Attention of the standard (opset 23): four-dimensional operands, or three-dimensional ones with their heads."""
    options = read.options(node)
    more = [name for name in [*node.output[1:], *node.input[4:]] if name]
    if more or (len(read.shape(node.input[0])) == 3 and "q_num_heads" not in options):
        unknown(read, node)
        return
    heads = int(options.get("q_num_heads", read.shape(node.input[0])[1]))
    pairs = int(options.get("kv_num_heads", read.shape(node.input[1])[1]))
    attend(read, node, node.input[:3], heads, pairs, read.ref(node, 3))


def packed_attention(read: OnnxReader, node: Any) -> None:
    """com.microsoft.Attention: input times the weights of queries, keys and values, bias, then attention by heads."""
    options = read.options(node)
    heads = int(options["num_heads"])
    if any(read.has(node, i) for i in (4, 6)) or any(node.output[1:]) or options.get("qkv_hidden_sizes"):
        unknown(read, node)
        return
    batch, tokens, _ = read.shape(node.input[0])
    width = read.shape(node.input[1])[1]
    made = read.fresh(f"{read.layer}.qkv", (batch, tokens, width))
    turned = flipped(read, node.input[1])
    read.op("aten.linear", made, input=read.ref(node, 0), weight=Ref(turned), bias=read.ref(node, 2))
    parts = tuple(read.fresh(f"{read.layer}.{name}", (batch, tokens, width // 3)) for name in ("q", "k", "v"))
    arguments: dict[str, Arg] = {"self": Ref(made), "dim": 2}
    read.ops.append(Op("aten.split_with_sizes", arguments, parts, read.layer, read.layer))
    attend(read, node, parts, heads, heads, read.ref(node, 5))


def separate_attention(read: OnnxReader, node: Any) -> None:
    """MultiHeadAttention and GroupQueryAttention of queries, keys and values without a cache."""
    options = read.options(node)
    grouped = node.op_type == "GroupQueryAttention"
    cached = [i for i in ((3, 4) if grouped else (6, 7)) if read.has(node, i)]
    shapes = [read.shape(node.input[i]) if read.has(node, i) else () for i in range(3)]
    if cached or any(len(shape) != 3 for shape in shapes) or options.get("do_rotary"):
        unknown(read, node)
        return
    heads = int(options["num_heads"])
    mask = read.ref(node, 10 if grouped else 5)
    attend(read, node, node.input[:3], heads, int(options.get("kv_num_heads", heads)), mask)
    for name in node.output[1:]:  # the cache that the next token reads: keys and values as they are
        if name:
            unknown_cache(read, node, name)


def unknown_cache(read: OnnxReader, node: Any, name: str) -> None:
    """Keys or values handed out beside the result."""
    source = node.input[1 if name == node.output[1] else 2]
    heads = int(read.options(node).get("kv_num_heads", read.options(node)["num_heads"]))
    batch, tokens, width = read.shape(source)
    read.metas.setdefault(name, Meta((batch, heads, tokens, width // heads)))
    read.op("aten.view", name, self=Ref(source))


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
    """EmbedLayerNormalization: rows of the word, position and segment tables, added and normalised."""
    output = node.output[0]
    shape = read.shape(output)
    total = read.fresh(f"{read.layer}.words", shape)
    read.op("aten.embedding", total, weight=read.ref(node, 2), indices=read.ref(node, 0))
    for position, index in ((3, 7), (4, 1)):
        if not read.has(node, position):
            continue
        rows: Arg = read.ref(node, position)
        if read.has(node, index):
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
    read.op("aten.layer_norm", output, input=Ref(total), weight=read.ref(node, 5), bias=read.ref(node, 6))
    for name in node.output[1:]:
        if name and name in read.metas and name not in read.parameters:
            raise read.refuse("its second and third results (mask lengths, the sum) have no price")


CONTRIBUTED: dict[str, Handler] = {
    "DynamicQuantizeMatMul": dynamic_matmul,
    "MatMulIntegerToFloat": matmul_to_float,
    **dict.fromkeys(("BiasGelu", "FastGelu"), bias_gelu),
    "Attention": lambda read, node: (attention if node.domain in ("", "ai.onnx") else packed_attention)(read, node),
    **dict.fromkeys(("MultiHeadAttention", "GroupQueryAttention"), separate_attention),
    "GatherBlockQuantized": gather_blocks,
    "EmbedLayerNormalization": embedding_sum,
}
