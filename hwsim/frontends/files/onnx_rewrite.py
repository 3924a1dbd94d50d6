"""ONNX nodes written as simpler ones before anybody translates them: `Rewriting(known).written_out(node)`.

Branches with a known condition, loops of a known number of steps, lists of tensors whose members are known, and the
standard's own definition of operators that this version does not know by themselves.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, Protocol

import numpy as np

from hwsim.frontends.files.onnx_fold import Numbers, chosen_branch, under_new_names
from hwsim.frontends.files.onnx_loops import steps_of_loop, steps_of_scan, unrolled
from hwsim.frontends.files.onnx_types import attributes
from hwsim.frontends.lowering.ir import Meta

Written = tuple[list[Any], list[Any]]  # nodes, initializers
MAX_PARTS = 4096  # members of one list
STANDARD = ("", "ai.onnx")
# Operators of onnxruntime on channels that come last -> the operator on channels that come first.
CHANNELS_LAST = {
    "QLinearConv": "QLinearConv", "QLinearAveragePool": "QLinearAveragePool", "NhwcMaxPool": "MaxPool",
    "QLinearGlobalAveragePool": "QLinearGlobalAveragePool", "NhwcConv": "Conv", "NhwcFusedConv": "FusedConv",
}  # fmt: skip


class Knowledge(Protocol):
    """What is known of a graph."""

    onnx: Any
    model: Any
    metas: dict[str, Meta]
    types: dict[str, str]
    values: dict[str, Numbers]


class Rewriting:
    """`handled`: operators with a translation of their own."""

    def __init__(self, known: Knowledge, handled: Container[str]) -> None:
        self.known, self.handled = known, handled
        self.onnx = known.onnx
        self.lists: dict[str, list[str]] = {}  # a sequence, or an optional -> the tensors in it
        self.opset = max((item.version for item in known.model.opset_import if item.domain in STANDARD), default=1)

    def written_out(self, node: Any) -> Written | None:
        """(nodes, initializers) in the place of a node; None where it stays as it is."""
        kind = node.op_type
        if node.op_type in CHANNELS_LAST:
            return self.channels_first(node)
        if node.domain not in STANDARD:
            return None
        if kind == "If":
            given = self.known.values.get(node.input[0])
            return None if given is None else chosen_branch(self.onnx, node, bool(given.reshape(-1)[0]))
        if kind == "Loop":
            steps = steps_of_loop(self.onnx, node, self.known.values, self.known.model.opset_import)
            return None if steps is None else unrolled(self.onnx, node, steps)
        if kind == "Scan":
            steps = steps_of_scan(node, self.known.metas) if self.opset >= 9 else None
            return None if steps is None else unrolled(self.onnx, node, steps)
        if kind == "CastLike":
            name = self.known.types.get(node.input[1], "").upper()
            return ([self.make("Cast", node, [node.input[0]], to=self.type_number(name))], []) if name else None
        if kind in LISTS:
            return LISTS[kind](self, node)
        if kind == "Identity" and node.input[0] in self.lists:
            self.lists[node.output[0]] = self.lists[node.input[0]]
            return [], []
        return self.defined(node)

    def channels_first(self, node: Any) -> Written | None:
        """An operator on channels that come last, between two transpositions."""
        options = attributes(node, self.onnx)
        by_name = node.op_type.startswith("Nhwc")
        last, shape = options.get("channels_last") or by_name, self.known.metas.get(node.input[0])
        if not last or shape is None:
            return None
        rank = len(shape.shape)
        first, back = [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]
        sources = [0, 3] if node.op_type == "NhwcFusedConv" else [0]
        inputs, nodes = [str(name) for name in node.input], list[Any]()
        for i in sources:
            if i < len(inputs) and inputs[i]:
                turned = f"{node.output[0]}/in{i}"
                nodes.append(self.make("Transpose", node, [inputs[i]], turned, perm=first))
                inputs[i] = turned
        kind, made = CHANNELS_LAST[node.op_type], f"{node.output[0]}/out"
        weights = self.known.metas.get(inputs[1]) if by_name and kind.endswith("Conv") else None
        groups = int(options.get("group", 1))
        if weights is not None and weights.shape[1] * groups != shape.shape[-1] == weights.shape[-1] * groups:
            nodes.append(self.make("Transpose", node, [inputs[1]], f"{made}.weight", perm=first))
            inputs[1] = f"{made}.weight"
        twin = self.onnx.helper.make_node(kind, inputs, [made], node.name, None, self.domain_of(kind))
        twin.attribute.extend(item for item in node.attribute if item.name != "channels_last")
        return [*nodes, twin, self.make("Transpose", node, [made], perm=back)], []

    def domain_of(self, kind: str) -> str:
        """The domain of an operator on channels that come first."""
        return "com.microsoft" if kind in ("QLinearAveragePool", "QLinearGlobalAveragePool", "FusedConv") else ""

    # -- the standard's definitions ------------------------------------------------------------------------------------

    def defined(self, node: Any) -> Written | None:
        """An operator without a translation as the standard defines it by others."""
        odd = node.op_type == "Attention" and any([*node.input[6:], *node.output[3:]])  # lengths, scores as a result
        if (node.op_type in self.handled and not odd) or node.op_type == "Range":  # its definition is a loop
            return None
        try:
            schema = self.onnx.defs.get_schema(node.op_type, self.opset, "")
        except Exception:  # not an operator of the standard
            return None
        known = all(name in self.known.types for name in node.input if name)
        if not known or not (schema.has_function or schema.has_context_dependent_function):
            return None
        nodes = self.body(node)
        if nodes is None:
            return None
        made = {name for inner in nodes for name in inner.output} - set(node.output)
        renamed = {name: f"{node.output[0]}/{name}" for name in made if name}
        found: list[Any] = []
        for number, inner in enumerate(nodes):
            twin = under_new_names(inner, renamed)
            twin.name = f"{node.name or node.output[0]}.{number}_{inner.op_type.lower()}"
            found.append(twin)
        return found, []

    def body(self, node: Any) -> list[Any] | None:
        """The nodes of an operator's definition; None where this version of the onnx package does not write it out."""
        from onnx import inliner  # pyright: ignore[reportMissingTypeStubs]

        helper = self.onnx.helper
        write_out = getattr(inliner, "inline_selected_functions", None)
        if write_out is None:
            return None
        inputs = []
        for name in dict.fromkeys(name for name in node.input if name):
            shape = self.known.metas[name].shape if name in self.known.metas else None
            number = self.type_number(self.known.types[name].upper())
            inputs.append(helper.make_tensor_value_info(name, number, shape))
        outputs = [self.onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = helper.make_graph([node], "definition", inputs, outputs)
        model = helper.make_model(graph, opset_imports=list(self.known.model.opset_import))
        try:
            written = write_out(model, [("", node.op_type)], inline_schema_functions=True).graph.node
        except Exception:  # its own errors, for forms that its definition does not cover
            return None
        return None if any(inner.op_type == node.op_type for inner in written) else list(written)

    # -- helpers -------------------------------------------------------------------------------------------------------

    def make(self, kind: str, node: Any, inputs: Sequence[str], output: str = "", **more: Any) -> Any:
        """A node in the place of another, which makes its first result unless told otherwise."""
        return self.onnx.helper.make_node(kind, inputs, [output or node.output[0]], node.name, **more)

    def type_number(self, name: str) -> int:
        """The standard's number of an element type."""
        return int(self.onnx.TensorProto.DataType.Value(name))

    def stored(self, name: str, numbers: Any) -> Any:
        """A constant of our own."""
        return self.onnx.numpy_helper.from_array(np.asarray(numbers, np.int64), name)

    def place(self, node: Any, position: int, length: int) -> int | None:
        """A known position in a list, the last one where it is absent."""
        if position >= len(node.input) or not node.input[position]:
            return length
        given = self.known.values.get(node.input[position])
        if given is None:
            return None
        number = int(given.reshape(-1)[0])
        number = number + length if number < 0 else number
        return number if 0 <= number <= length else None

    # -- lists of tensors ----------------------------------------------------------------------------------------------

    def construct(self, node: Any) -> Written | None:
        """SequenceConstruct, SequenceEmpty, Optional of a tensor."""
        if node.op_type == "Optional" and any(name in self.lists for name in node.input):
            return None
        self.lists[node.output[0]] = [str(name) for name in node.input if name]
        return [], []

    def insert(self, node: Any) -> Written | None:
        """SequenceInsert at a known place."""
        members = self.lists.get(node.input[0])
        at = None if members is None else self.place(node, 2, len(members))
        if members is None or at is None:
            return None
        self.lists[node.output[0]] = [*members[:at], str(node.input[1]), *members[at:]]
        return [], []

    def erase(self, node: Any) -> Written | None:
        """SequenceErase at a known place, of the last one without one."""
        members = self.lists.get(node.input[0])
        at = None if not members else self.place(node, 1, len(members))
        if members is None or at is None:
            return None
        at = min(at, len(members) - 1)
        self.lists[node.output[0]] = [*members[:at], *members[at + 1 :]]
        return [], []

    def member(self, node: Any) -> Written | None:
        """SequenceAt of a known place; OptionalGetElement."""
        members = self.lists.get(node.input[0])
        if node.op_type == "OptionalGetElement":
            if members is None and node.input[0] in self.known.metas:
                members = [node.input[0]]
            return ([self.make("Identity", node, members)], []) if members and len(members) == 1 else None
        at = None if not members else self.place(node, 1, len(members))
        if not members or at is None or at == len(members):
            return None
        return [self.make("Identity", node, [members[at]])], []

    def has_element(self, node: Any) -> Written | None:
        """OptionalHasElement of what is known to be there, or not."""
        name = node.input[0] if node.input else ""
        there = bool(self.lists[name]) if name in self.lists else bool(name)
        if name and name not in self.lists and name not in self.known.metas:
            return None
        tensor = self.onnx.numpy_helper.from_array(np.asarray(there, np.bool_), node.output[0])
        return [], [tensor]

    def length(self, node: Any) -> Written | None:
        """SequenceLength."""
        members = self.lists.get(node.input[0])
        return None if members is None else ([], [self.stored(node.output[0], len(members))])

    def split(self, node: Any) -> Written | None:
        """SplitToSequence of known sizes."""
        options, source = attributes(node, self.onnx), node.input[0]
        shape = self.known.metas[source].shape if source in self.known.metas else ()
        if not shape:
            return None
        axis = int(options.get("axis", 0)) % len(shape)
        given = self.known.values.get(node.input[1]) if len(node.input) > 1 and node.input[1] else np.asarray(1)
        if given is None:
            return None
        single = len(node.input) < 2 or not node.input[1]
        size = max(1, int(given.reshape(-1)[0])) if given.size else 1
        whole = [min(size, shape[axis] - start) for start in range(0, shape[axis], size)]
        sizes = [int(n) for n in given.reshape(-1)] if given.ndim else whole
        if not sizes or len(sizes) > MAX_PARTS or sum(sizes) != shape[axis]:
            return None
        stem = node.output[0]
        parts = [f"{stem}/part{i}" for i in range(len(sizes))]
        tensors = [self.stored(f"{stem}/sizes", sizes)]
        nodes = [self.onnx.helper.make_node("Split", [source, f"{stem}/sizes"], parts, node.name, axis=axis)]
        if single and not options.get("keepdims", 1):
            tensors.append(self.stored(f"{stem}/axis", [axis]))
            rows = [f"{part}/row" for part in parts]
            nodes += [self.make("Squeeze", node, [p, f"{stem}/axis"], r) for p, r in zip(parts, rows, strict=True)]
            parts = rows
        self.lists[stem] = parts
        return nodes, tensors

    def together(self, node: Any) -> Written | None:
        """ConcatFromSequence."""
        members, options = self.lists.get(node.input[0]), attributes(node, self.onnx)
        if not members:
            return None
        axis, stem = int(options["axis"]), node.output[0]
        if not options.get("new_axis"):
            return [self.make("Concat", node, members, axis=axis)], []
        rows = [f"{stem}/row{i}" for i in range(len(members))]
        nodes = [self.make("Unsqueeze", node, [m, f"{stem}/axis"], r) for m, r in zip(members, rows, strict=True)]
        return [*nodes, self.make("Concat", node, rows, axis=axis)], [self.stored(f"{stem}/axis", [axis])]


LISTS = {
    **dict.fromkeys(("SequenceConstruct", "SequenceEmpty", "Optional"), Rewriting.construct),
    "SequenceInsert": Rewriting.insert,
    "SequenceErase": Rewriting.erase,
    **dict.fromkeys(("SequenceAt", "OptionalGetElement"), Rewriting.member),
    "OptionalHasElement": Rewriting.has_element,
    "SequenceLength": Rewriting.length,
    "SplitToSequence": Rewriting.split,
    "ConcatFromSequence": Rewriting.together,
}
