"""Constant folding of what exporters write around an ONNX network: sizes, paddings, indices, conditions.

A node whose inputs are all known and small is computed by the onnx package's own reference implementation, from a list
of operators that only do arithmetic on arrays. What it would make is bounded before it is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]
MAX_KNOWN = 2**16  # elements of a constant whose numbers are looked at
BROADCAST = (
    "Add", "Sub", "Mul", "Div", "Mod", "Pow", "Min", "Max", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "And", "Or", "Xor", "Where", "Sum",
)  # fmt: skip
SHRINKING = (
    "Concat", "Slice", "Unsqueeze", "Squeeze", "Cast", "CastLike", "Neg", "Abs", "Floor", "Ceil", "Round", "Sqrt",
    "Sign", "Not", "ReduceMin", "ReduceMax", "ReduceSum", "ReduceProd", "ReduceMean", "Reshape", "Transpose",
    "Flatten", "Identity", "Constant", "Split", "NonZero", "Trilu", "CumSum", "ScatterND", "ScatterElements",
    "ArgMax", "ArgMin", "Clip", "GatherElements", "GatherND", "Dropout", "Exp", "Log", "Reciprocal",
)  # fmt: skip
GROWING = ("Gather", "ConstantOfShape", "Expand", "Tile", "Range", "Pad", "OneHot")
FOLDED = frozenset((*BROADCAST, *SHRINKING, *GROWING))


def evaluate(onnx: Any, node: Any, arguments: Sequence[Numbers | None], opsets: Iterable[Any]) -> list[Numbers] | None:
    """What a node makes of known arguments (None: absent); None where it is not of the list or would be too large."""
    if node.op_type not in FOLDED or node.domain not in ("", "ai.onnx"):
        return None
    if elements_made(node, arguments) > MAX_KNOWN:
        return None
    if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
        return [np.asarray(onnx.numpy_helper.to_array(node.attribute[0].t))]
    helper = onnx.helper
    given = [(name, array) for name, array in zip(node.input, arguments, strict=True) if array is not None]
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in dict(given).items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    model = helper.make_model(helper.make_graph([node], "fold", inputs, outputs), opset_imports=list(opsets))
    from onnx.reference import ReferenceEvaluator  # only where something is to be folded

    try:
        with np.errstate(all="ignore"):
            made = ReferenceEvaluator(model).run(None, dict(given))
    except Exception:  # arguments that its operator does not take: the node stays, and is refused by its name
        return None
    return [np.asarray(array) for array in made]


def elements_made(node: Any, arguments: Sequence[Numbers | None]) -> int:
    """No fewer elements than the node's largest result has."""
    arrays = [array for array in arguments if array is not None]
    sizes = [array.size for array in arrays]
    try:
        if node.op_type in BROADCAST:
            return math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))
        if node.op_type == "Gather":
            return arrays[1].size * max(1, arrays[0].size)
        if node.op_type == "ConstantOfShape":
            return product(arrays[0])
        if node.op_type == "Expand":
            return product(arrays[1]) * max(1, arrays[0].size)
        if node.op_type == "Tile":
            return product(arrays[1]) * arrays[0].size
        if node.op_type == "Range":
            start, stop, step = (float(array.reshape(-1)[0]) for array in arrays[:3])
            return abs(int((stop - start) / step)) + 1
        if node.op_type == "Pad":
            return int(np.prod(np.asarray(arrays[0].shape) + np.abs(arrays[1]).max(initial=0) * 2, dtype=np.float64))
        if node.op_type == "OneHot":
            return arrays[0].size * abs(int(arrays[1].reshape(-1)[0]))
    except (ValueError, IndexError, ZeroDivisionError, OverflowError):
        return MAX_KNOWN + 1
    return sum(sizes)


def product(sizes: Numbers) -> int:
    """Elements of an array of these sizes; -1 (as it is) counts as 1."""
    return math.prod(abs(int(n)) for n in sizes.reshape(-1).tolist())


# -- branches ----------------------------------------------------------------------------------------------------------


def chosen_branch(onnx: Any, node: Any, condition: bool) -> tuple[list[Any], list[Any]]:
    """(nodes, initializers) that take the place of an `If` with a known condition, under names of their own."""
    wanted = "then_branch" if condition else "else_branch"
    branch = next(item.g for item in node.attribute if item.name == wanted)
    stem = node.output[0]
    inner = [name for item in branch.node for name in item.output] + [t.name for t in branch.initializer]
    renamed = {name: f"{stem}/{name}" for name in inner if name}
    made = {entry.name for entry in branch.output} & {name for item in branch.node for name in item.output}
    ends: list[Any] = []
    for entry, outer in zip(branch.output, node.output, strict=True):
        if entry.name in made and renamed[entry.name] == f"{stem}/{entry.name}":
            renamed[entry.name] = outer
        else:
            source = renamed.get(entry.name, entry.name)
            ends.append(onnx.helper.make_node("Identity", [source], [outer], name=f"{node.name}.{outer}"))
    tensors: list[Any] = []
    for tensor in branch.initializer:
        twin = type(tensor)()
        twin.CopyFrom(tensor)
        twin.name = renamed[tensor.name]
        tensors.append(twin)
    return [*(under_new_names(item, renamed) for item in branch.node), *ends], tensors


def under_new_names(node: Any, names: dict[str, str]) -> Any:
    """A copy of a node, graphs inside it included, that reads and makes the renamed tensors."""
    twin = type(node)()
    twin.CopyFrom(node)
    for inside in (twin, *nested_nodes(twin)):
        for field in (inside.input, inside.output):
            for i, name in enumerate(field):
                field[i] = names.get(name, name)
    return twin


def nested_nodes(node: Any) -> Iterator[Any]:
    """All nodes of the graphs that a node holds (branches, bodies)."""
    for item in node.attribute:
        for graph in (item.g, *item.graphs):
            for inner in graph.node:
                yield inner
                yield from nested_nodes(inner)


def outer_reads(node: Any) -> set[str]:
    """Tensors of the graph around it that a node reads, those that graphs inside it capture included."""
    inside = list(nested_nodes(node))
    made = {name for inner in inside for name in inner.output}
    captured = {name for inner in inside for name in inner.input} - made
    return {name for name in (*node.input, *captured) if name}
