"""Shapes of what onnxruntime's own operators make, which the standard's inference does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Shape = tuple[int, ...]
# Contributed operators whose result has the shape of their first operand.
LIKE_FIRST = frozenset(
    ("Gelu", "FastGelu", "BiasGelu", "QuickGelu", "SkipLayerNormalization", "SimplifiedLayerNormalization",
     "SkipSimplifiedLayerNormalization", "RotaryEmbedding", "MoE", "QMoE", "QuantizeLinear", "DequantizeLinear")
)  # fmt: skip
# Products of two operands that may be transposed.
MATMULS = ("FusedMatMul", "TransposeMatMul", "FusedMatMulActivation", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")


def fused_shape(shape: Shape, options: Mapping[str, Any], letter: str) -> Shape:
    """An operand of FusedMatMul as it is multiplied: its first axis may go behind its batch, its last two may change
    places."""
    if options.get(f"transBatch{letter}") and len(shape) > 2:
        shape = (*shape[1:-1], shape[0], shape[-1])
    return (*shape[:-2], shape[-1], shape[-2]) if options.get(f"trans{letter}") and len(shape) > 1 else shape


def contributed_shape(kind: str, shapes: list[Shape | None], options: Mapping[str, Any]) -> Shape | None:
    """Shape of the first result of an operator of onnxruntime, from its operands' shapes; None: not known."""
    first, second, third = (*shapes, None, None, None)[:3]
    if first is None:
        return None
    if kind in LIKE_FIRST:
        return first
    if kind == "MatMulNBits":
        return (*first[:-1], int(options["N"]))
    if kind in MATMULS and second is not None:
        inner, outer = fused_shape(first, options, "A"), fused_shape(second, options, "B")
        batch = np.broadcast_shapes(inner[:-2], outer[:-2])
        return (*batch, inner[-2], outer[-1])
    if kind == "FusedGemm" and second is not None:
        return (first[1 if options.get("transA") else 0], second[0 if options.get("transB") else 1])
    if kind in ("Attention", "QAttention") and second is not None:  # weights of queries, keys and values in one
        sizes = options.get("qkv_hidden_sizes")
        return (*first[:-1], sizes[-1] if sizes else second[-1] // 3)
    if kind == "GroupQueryAttention":
        alone = second is None  # queries, keys and values in one
        heads, pairs = int(options["num_heads"]), int(options["kv_num_heads"])
        return (*first[:-1], first[-1] * heads // (heads + 2 * pairs)) if alone else first
    if kind == "MultiHeadAttention":
        if len(first) == 5:
            return (*first[:2], first[2] * first[4])
        values = third or (second if second is not None and len(second) == 5 else None)
        wide = None if values is None else values[2] * values[4] if len(values) == 5 else values[-1]
        return first if wide is None or len(values or ()) == 4 else (*first[:-1], wide)
    if kind in ("EmbedLayerNormalization", "QEmbedLayerNormalization") and third is not None:
        return (*first, third[-1])
    if kind == "GatherBlockQuantized" and second is not None:
        wide = first[-1] * (8 // int(options.get("bits", 4)) if options.get("packed") else 1)
        return (*second, *first[1:-1], wide)
    return None
