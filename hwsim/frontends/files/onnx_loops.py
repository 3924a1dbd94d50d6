"""Loop and Scan of a known number of steps, written out step by step: `unrolled(onnx, node, steps)`.

Where a condition ends a Loop, it is computed ahead, step by step; a Loop whose condition reads what the network
computes keeps its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hwsim.frontends.files.onnx_fold import Numbers, evaluate, outer_reads, under_new_names
from hwsim.frontends.files.onnx_types import attributes
from hwsim.frontends.lowering.ir import Meta

MAX_STEPS, MAX_MADE = 1024, 50_000  # steps of one loop, nodes that it becomes


def unrolled(onnx: Any, node: Any, steps: int) -> tuple[list[Any], list[Any]] | None:
    """(nodes, initializers) in the place of a loop; None where it has too many steps."""
    body = body_of(node)
    if body is None or not 0 <= steps <= MAX_STEPS or steps * len(body.node) > MAX_MADE:
        return None
    loop = Unrolling(onnx, node, body, steps)
    if steps == 0 and any(node.output[loop.states :]):  # rows of nothing
        return None
    return loop.write()


def body_of(node: Any) -> Any:
    """The graph of one step."""
    return next((item.g for item in node.attribute if item.name == "body"), None)


def steps_of_scan(node: Any, metas: Mapping[str, Meta]) -> int | None:
    """How often a Scan runs: the size of its first scanned input along its axis."""
    scanned = next(item.i for item in node.attribute if item.name == "num_scan_inputs")
    axes = next((list(item.ints) for item in node.attribute if item.name == "scan_input_axes"), [0] * scanned)
    shape = metas[node.input[-scanned]].shape if scanned and node.input[-scanned] in metas else ()
    return shape[axes[0]] if shape else None


def steps_of_loop(onnx: Any, node: Any, values: Mapping[str, Numbers], opsets: Iterable[Any]) -> int | None:
    """How often a Loop runs; None where that depends on what the network computes."""
    body = body_of(node)
    limit, start = (str(name) for name in node.input[:2])
    if body is None or (limit and limit not in values) or (start and start not in values):
        return None
    most = int(values[limit].reshape(-1)[0]) if limit else MAX_STEPS + 1
    if start and not values[start].all():
        return 0
    if goes_on(onnx, body):
        return max(0, most) if limit else None
    return steps_until(onnx, node, body, values, list(opsets), most)


def steps_until(
    onnx: Any, node: Any, body: Any, values: Mapping[str, Numbers], opsets: list[Any], most: int
) -> int | None:
    """How often a Loop runs until its condition ends it: only what the condition needs is computed."""
    inputs, outputs = ([str(entry.name) for entry in part] for part in (body.input, body.output))
    needed, nodes = {outputs[0]}, list[Any]()
    while True:  # a state that the condition reads needs what makes it in the step before
        nodes = [inner for inner in body.node if needed & set(inner.output)]
        more = needed | {name for inner in nodes for name in outer_reads(inner)}
        more |= {after for before, after in zip(inputs[2:], outputs[1:], strict=False) if before in more}
        if more == needed:
            break
        needed = more
    known = {tensor.name: np.asarray(onnx.numpy_helper.to_array(tensor)) for tensor in body.initializer}
    state = {before: values[name] for before, name in zip(inputs[2:], node.input[2:], strict=True) if name in values}
    for step in range(min(most, MAX_STEPS + 1)):
        now = {**values, **known, **state, inputs[0]: np.asarray(step), inputs[1]: np.asarray(True)}
        for inner in nodes:
            if any(name and name not in now for name in inner.input):
                return None
            made = evaluate(onnx, inner, [now[name] if name else None for name in inner.input], opsets)
            if made is None:
                return None
            now.update(zip(inner.output, made, strict=False))
        if outputs[0] not in now:
            return None
        if not now[outputs[0]].all():
            return step + 1
        state = {b: now[a] for b, a in zip(inputs[2:], outputs[1:], strict=False) if a in now}
    return most if most <= MAX_STEPS else None


def goes_on(onnx: Any, body: Any) -> bool:
    """Whether a Loop's condition never changes: it is handed on, or is always true."""
    name = body.output[0].name
    makers = {output: node for node in body.node for output in node.output}
    stored = {tensor.name: tensor for tensor in body.initializer}
    while name in makers and makers[name].op_type == "Identity":
        name = makers[name].input[0]
    if name in makers and makers[name].op_type == "Constant":
        return bool(onnx.numpy_helper.to_array(makers[name].attribute[0].t).all())
    if name in stored:
        return bool(onnx.numpy_helper.to_array(stored[name]).all())
    return name == body.input[1].name


class Unrolling:
    """One loop being written out; names of a step begin with the loop's result and the step's number."""

    def __init__(self, onnx: Any, node: Any, body: Any, steps: int) -> None:
        self.onnx, self.node, self.body, self.steps = onnx, node, body, steps
        self.stem = next(name for name in node.output if name)
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        is_loop = node.op_type == "Loop"
        scanned = 0 if is_loop else next(item.i for item in node.attribute if item.name == "num_scan_inputs")
        self.first = 2 if is_loop else 0  # where the states begin, in the node's and the body's inputs
        self.states = len(node.input) - self.first - scanned
        self.sources = list(node.input[self.first + self.states :])
        options = attributes(node, onnx)
        self.axes = {key: list(options.get(f"scan_{key}_axes", ())) for key in ("input", "output")}
        self.backwards = {key: list(options.get(f"scan_{key}_directions", ())) for key in ("input", "output")}

    def write(self) -> tuple[list[Any], list[Any]]:
        """All steps, then the results."""
        held = list(self.node.input[self.first : self.first + self.states])
        rows: list[list[str]] = []
        for step in range(self.steps):
            made = self.step(step, held)
            held, more = made[: self.states], made[self.states :]
            rows.append(more)
        count = len(rows[0]) if rows else 0
        results = [*held, *(self.stacked(k, [row[k] for row in rows]) for k in range(count))]
        for source, output in zip(results, self.node.output, strict=False):
            if output:
                self.add("Identity", [source], [output])
        return self.nodes, self.tensors

    def step(self, number: int, held: list[str]) -> list[str]:
        """One step: what its body makes, the condition left out."""
        prefix = f"{self.stem}/{number}"
        names = [str(entry.name) for entry in self.body.input]
        given = [self.number(f"{prefix}/i", number), self.truth(f"{prefix}/go")] if self.first else []
        given += held + [self.row(f"{prefix}/row{k}", source, k, number) for k, source in enumerate(self.sources)]
        renamed: dict[str, str] = dict(zip(names, given, strict=True))
        for name in (o for node in self.body.node for o in node.output):
            renamed[name] = f"{prefix}/{name}"
        for tensor in self.body.initializer:
            renamed[tensor.name] = f"{self.stem}/{tensor.name}"
            if number == 0:
                twin = type(tensor)()
                twin.CopyFrom(tensor)
                twin.name = renamed[tensor.name]
                self.tensors.append(twin)
        for node in self.body.node:
            twin = under_new_names(node, renamed)
            twin.name = f"{self.node.name or self.node.op_type}.t{number}.{node.name or node.op_type}"
            self.nodes.append(twin)
        outputs = [str(entry.name) for entry in self.body.output][1 if self.first else 0 :]
        return [renamed.get(name, name) for name in outputs]

    def add(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        """A node of our own."""
        name = f"{self.node.name or self.node.op_type}.{outputs[0]}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, outputs, name, **attributes))

    def store(self, name: str, kind: int, shape: list[int], values: list[Any]) -> str:
        """A constant."""
        self.tensors.append(self.onnx.helper.make_tensor(name, kind, shape, values))
        return name

    def number(self, name: str, value: int) -> str:
        """The step's number."""
        return self.store(name, self.onnx.TensorProto.INT64, [], [value])

    def truth(self, name: str) -> str:
        """The condition, which never changes."""
        return self.store(name, self.onnx.TensorProto.BOOL, [], [True])

    def row(self, name: str, source: str, which: int, number: int) -> str:
        """One row of a scanned input."""
        axis, backwards = self.along("input", which)
        at = self.steps - 1 - number if backwards else number
        self.add("Gather", [source, self.number(f"{name}.at", at)], [name], axis=axis)
        return name

    def along(self, end: str, which: int) -> tuple[int, bool]:
        """(axis, whether it goes backwards) of a scanned input or output."""
        axes, backwards = self.axes[end], self.backwards[end]
        return (axes[which] if which < len(axes) else 0), bool(which < len(backwards) and backwards[which])

    def stacked(self, number: int, parts: list[str]) -> str:
        """What each step hands out, one after the other."""
        axis, backwards = self.along("output", number)
        made = f"{self.stem}/stacked{number}"
        axes = self.store(f"{made}.axes", self.onnx.TensorProto.INT64, [1], [axis])
        rows = [f"{made}.{step}" for step in range(len(parts))]
        for part, row in zip(parts, rows, strict=True):
            self.add("Unsqueeze", [part, axes], [row])
        self.add("Concat", rows[::-1] if backwards else rows, [made], axis=axis)
        return made
