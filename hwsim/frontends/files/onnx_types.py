"""Names of the ONNX standard that its readers share: element types, operators on codes, attributes as plain values."""

from __future__ import annotations

from typing import Any

QUANT_OPS = ("Quant", "BipolarQuant", "Trunc", "IntQuant")
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
# (bits, signed) of an element type that holds codes.
CODES = {"int2": (2, True), "uint2": (2, False), "int4": (4, True), "uint4": (4, False), "int8": (8, True),
         "uint8": (8, False), "int16": (16, True), "uint16": (16, False)}  # fmt: skip
# Bits of the floating-point types that are narrower than 32 bits.
SMALL_FLOATS = {
    "float16": 16, "bfloat16": 16, "float8e4m3fn": 8, "float8e4m3fnuz": 8, "float8e5m2": 8, "float8e5m2fnuz": 8,
    "float8e8m0": 8, "float4e2m1": 4,
}  # fmt: skip
# Formats of scales.
SCALE_TYPES = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "float8e8m0": "e8m0", "float8e4m3fn": "e4m3"}
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
    "QLinearReduceMean": ("ReduceMean", (0,), (3, 4)),
    "QLinearWhere": ("Where", (0, 1, 4), (7, 8)),
    "QGemm": ("Gemm", (0, 3, 6), (7, 8)),
}
# Operands of theirs that are no codes: a condition, a bias.
PLAIN_OPERANDS = {"QGemm": 6, "QLinearWhere": 0}


def numpy_name(name: str) -> str:
    """numpy's name of an element type of the standard; small floats as they are."""
    return {"float": "float32", "double": "float64"}.get(name, name)


def attributes(node: Any, onnx: Any) -> dict[str, Any]:
    """Attributes of a node by name; text as str."""
    found = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    return {
        key: value.decode("utf-8", "replace") if isinstance(value, bytes) else value for key, value in found.items()
    }
