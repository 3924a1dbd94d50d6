"""Loop and Scan of a known number of steps, written out step by step: `unrolled(onnx, node, steps)`.

A Loop whose condition may end it early keeps its name, as does a Scan along another axis or backwards.
"""

from __future__ import annotations

from typing import Any

from hwsim.frontends.files.onnx_fold import under_new_names

MAX_STEPS, MAX_MADE = 1024, 50_000  # steps of one loop, nodes that it becomes


def unrolled(onnx: Any, node: Any, steps: int) -> tuple[list[Any], list[Any]] | None:
    """(nodes, initializers) in the place of a loop; None where its steps are not all alike or too many."""
    body = next((item.g for item in node.attribute if item.name == "body"), None)
    if body is None or not 0 < steps <= MAX_STEPS or steps * len(body.node) > MAX_MADE:
        return None
    if node.op_type == "Scan" and not plain_scan(node):
        return None
    if node.op_type == "Loop" and not goes_on(onnx, body):
        return None
    return Unrolling(onnx, node, body, steps).write()


def plain_scan(node: Any) -> bool:
    """Whether a Scan goes forward along the first axis of everything."""
    words = ("scan_input_axes", "scan_input_directions", "scan_output_axes", "scan_output_directions")
    return not any(any(item.ints) for item in node.attribute if item.name in words)


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

    def write(self) -> tuple[list[Any], list[Any]]:
        """All steps, then the results."""
        held = list(self.node.input[self.first : self.first + self.states])
        rows: list[list[str]] = []
        for step in range(self.steps):
            made = self.step(step, held)
            held, more = made[: self.states], made[self.states :]
            rows.append(more)
        results = [*held, *(self.stacked(k, [row[k] for row in rows]) for k in range(len(rows[0])))]
        for source, output in zip(results, self.node.output, strict=False):
            if output:
                self.add("Identity", [source], [output])
        return self.nodes, self.tensors

    def step(self, number: int, held: list[str]) -> list[str]:
        """One step: what its body makes, the condition left out."""
        prefix = f"{self.stem}/{number}"
        names = [str(entry.name) for entry in self.body.input]
        given = [self.number(f"{prefix}/i", number), self.truth(f"{prefix}/go")] if self.first else []
        given += held + [self.row(f"{prefix}/row{k}", source, number) for k, source in enumerate(self.sources)]
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

    def row(self, name: str, source: str, number: int) -> str:
        """One row of a scanned input."""
        self.add("Gather", [source, self.number(f"{name}.at", number)], [name], axis=0)
        return name

    def stacked(self, number: int, parts: list[str]) -> str:
        """What each step hands out, one after the other."""
        made = f"{self.stem}/stacked{number}"
        axes = self.store(f"{made}.axes", self.onnx.TensorProto.INT64, [1], [0])
        rows = [f"{made}.{step}" for step in range(len(parts))]
        for part, row in zip(parts, rows, strict=True):
            self.add("Unsqueeze", [part, axes], [row])
        self.add("Concat", rows, [made], axis=0)
        return made
