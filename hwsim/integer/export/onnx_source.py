# pyright: basic
"""A quantized torch network as an ONNX file: `onnx_network(model, example, form, offset) -> Exported`.

`form` qonnx: Quant nodes; qdq: QuantizeLinear and DequantizeLinear with the narrowest standard type that holds the
codes (int2 to int8), and a Clip between them where the codes do not fill it. ONNX has integer zero points only, so a
real-valued beta is either kept as arithmetic (Sub before the quantizer, Add behind it) or snapped to -s*z. Padding
policies become graph structure: zeros around x_hat for `border_bias`, a Pad in front of the quantizer for the others
(with 0, or with beta, whose code is 0). Weights are stored as codes (qdq) or as s*code (qonnx).

`groups` of weights along a sum: blocks of DequantizeLinear, or packed in MatMulNBits of onnxruntime (matrices alone),
which also holds offsets of weights, as real-valued zero points.

Inputs are called input, input_1, ...; results output (the answer), output_1, ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from hwsim.errors import WorkloadError
from hwsim.integer.export.onnx_elementwise import binary, clip, extreme, gelu, leaky_relu, same, silu, softmax, unary
from hwsim.integer.export.onnx_matrices import (
    batch_norm,
    convolution,
    embedding,
    layer_norm,
    linear,
    matmul,
    native_batch_norm,
    quantizer,
    transposed,
)
from hwsim.integer.export.onnx_moves import (
    concat,
    constant_pad,
    copied,
    filled,
    getitem,
    pad,
    permute,
    reshape,
    select,
    select_scatter,
    slice_scatter,
    sliced,
    split,
    stack,
    transpose,
    unsqueeze,
    zeros,
)
from hwsim.integer.export.onnx_pools import adaptive_avg_pool, mean, pool
from hwsim.integer.export.onnx_values import Exported
from hwsim.integer.export.onnx_writer import OnnxWriter
from hwsim.integer.lowering.lower import Inputs, exported

FORMS = ("qonnx", "qdq")
OFFSETS = ("keep", "snap")
GROUPS = ("blocks", "packed")


def onnx_network(
    model: nn.Module, example: Inputs, *, form: str = "qdq", offset: str = "keep", groups: str = "blocks",
    name: str = "",
) -> Exported:  # fmt: skip
    """The network of one image, float32 between quantizers. Layer and quantizer names are those of the model.

    Raises WorkloadError for a model without quantizers or without the onnx package, UnsupportedOp for an operator or
    a quantizer that has no ONNX counterpart here, naming its layer.
    """
    if form not in FORMS:
        raise ValueError(f"form: expected one of {', '.join(FORMS)}, got {form!r}")
    if offset not in OFFSETS:
        raise ValueError(f"offset: expected one of {', '.join(OFFSETS)}, got {offset!r}")
    if groups not in GROUPS:
        raise ValueError(f"groups: expected one of {', '.join(GROUPS)}, got {groups!r}")
    if (form, groups) == ("qonnx", "packed"):
        raise ValueError("groups: QONNX has no groups along a sum; packed ones go with form qdq")
    try:
        import onnx
    except ImportError as problem:
        raise WorkloadError(f"writing ONNX needs the onnx package ({problem}): pip install 'hwsim[onnx]'") from None
    name = name or type(model).__name__
    model, program, found = exported(model, example, name)
    return OnnxWriter(onnx, model, program, found, form, offset, groups == "packed", name, HANDLERS).write()


HANDLERS: dict[str, Callable[..., Any]] = {
    "quantizer": quantizer,
    "conv1d": convolution, "conv2d": convolution, "linear": linear, "matmul": matmul, "bmm": matmul,
    "add": binary("Add"), "sub": binary("Sub"), "mul": binary("Mul"), "div": binary("Div"),
    "maximum": extreme("Max"), "minimum": extreme("Min"), "neg": unary("Neg"),
    "conv_transpose1d": transposed, "conv_transpose2d": transposed, "embedding": embedding,
    "new_zeros": zeros, "zeros_like": zeros, "zero": zeros, "fill": filled,
    "batch_norm": batch_norm, "_native_batch_norm_legit_no_training": native_batch_norm, "layer_norm": layer_norm,
    "relu": unary("Relu"), "relu6": clip(0, 6), "hardtanh": clip(-1, 1), "clamp": clip(), "clamp_min": clip(),
    "leaky_relu": leaky_relu, "silu": silu, "sigmoid": unary("Sigmoid"), "tanh": unary("Tanh"), "gelu": gelu,
    "hardswish": unary("HardSwish"), "hardsigmoid": unary("HardSigmoid", alpha=1 / 6, beta=0.5), "softmax": softmax,
    "dropout": same, "feature_dropout": same, "contiguous": same, "clone": same, "detach": same,
    "alias": same, "lift_fresh_copy": same, "copy": copied, "to": same, "_to_copy": same,
    "type_as": same,
    "max_pool2d": pool("MaxPool"), "avg_pool2d": pool("AveragePool"), "adaptive_avg_pool2d": adaptive_avg_pool,
    "mean": mean,
    "view": reshape, "reshape": reshape, "_unsafe_view": reshape, "flatten": reshape,
    "unsqueeze": unsqueeze, "stack": stack, "slice_scatter": slice_scatter, "select_scatter": select_scatter,
    "squeeze": reshape, "expand": reshape, "unflatten": reshape,
    **dict.fromkeys(("view_as", "reshape_as", "expand_as", "broadcast_to", "ravel"), reshape),
    "permute": permute, "transpose": transpose, "t": transpose, "numpy_T": transpose, "slice": sliced, "select": select,
    "split": split, "split_with_sizes": split, "chunk": split, "getitem": getitem,
    "cat": concat, "concat": concat, "pad": pad, "constant_pad_nd": constant_pad,
}  # fmt: skip
