"""TFLite graphs that call others, written out as one: `in_one_graph(model) -> TfliteModel`.

IF with a known condition, WHILE with a known number of steps, CALL and composite operators become the operators of
the graphs that they run; weights of a loop's body stay one tensor. Conditions and counters are computed ahead from
stored numbers and shapes. What depends on the input's values keeps its name, and is refused by it later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.frontends.files.tflite_file import NUMPY_TYPES, TfliteGraph, TfliteModel, TfliteOp, TfliteTensor

CALLS = ("IF", "WHILE", "CALL", "STABLEHLO_COMPOSITE")
MAX_STEPS, MAX_MADE, MAX_DEPTH = 1024, 50_000, 20  # of one loop, of all graphs, of graphs in graphs
MAX_KNOWN = 1024  # numbers of a tensor that are computed ahead
Numbers = NDArray[Any]

ARITHMETIC: dict[str, Callable[..., Any]] = {
    "ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "FLOOR_DIV": np.floor_divide, "FLOOR_MOD": np.mod,
    "MAXIMUM": np.maximum, "MINIMUM": np.minimum, "NEG": np.negative, "ABS": np.abs, "LESS": np.less,
    "LESS_EQUAL": np.less_equal, "GREATER": np.greater, "GREATER_EQUAL": np.greater_equal, "EQUAL": np.equal,
    "NOT_EQUAL": np.not_equal, "LOGICAL_AND": np.logical_and, "LOGICAL_OR": np.logical_or,
    "LOGICAL_NOT": np.logical_not, "SELECT": np.where, "SELECT_V2": np.where,
}  # fmt: skip
# Operators that show the numbers of their first operand under the shape of their result.
SAME = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "CAST")
REDUCED: dict[str, Callable[..., Any]] = {"REDUCE_ALL": np.all, "REDUCE_ANY": np.any, "REDUCE_PROD": np.prod,
                                          "SUM": np.sum, "REDUCE_MAX": np.max, "REDUCE_MIN": np.min}  # fmt: skip


def in_one_graph(model: TfliteModel) -> TfliteModel:
    """The model with every known call written out; the same one where its first graph calls none."""
    if not any(op.op in CALLS for op in model.ops):
        return model
    return Flow(model).write()


class Flow:
    """The graphs of a file while they are written into one."""

    def __init__(self, model: TfliteModel) -> None:
        self.model = model
        self.tensors = list(model.tensors)
        self.ops: list[TfliteOp] = []
        self.known: dict[int, Numbers] = {}
        self.same: dict[int, int] = {}  # what a call hands out -> the tensor of its body that it is
        self.kept: dict[tuple[int, int], int] = {}  # stored tensors and states of a further graph, once each
        self.used: set[int] = set()
        self.made = 0
        for tensor in model.tensors:
            self.remember(tensor)

    def write(self) -> TfliteModel:
        """The first graph with its calls written out."""
        for op in self.model.ops:
            self.run(op, 0)
        outputs = tuple(self.now(i) for i in self.model.outputs)
        left = self.model.subgraphs - len(self.used)
        return dataclasses.replace(
            self.model, tensors=tuple(self.tensors), ops=tuple(self.ops), outputs=outputs, subgraphs=left
        )

    def remember(self, tensor: TfliteTensor) -> None:
        """The numbers of a small stored tensor that are no codes."""
        if tensor.data is not None and tensor.data.size <= MAX_KNOWN and not tensor.quantized:
            self.known[tensor.index] = tensor.data

    def now(self, index: int) -> int:
        """The tensor that an index means behind the calls so far."""
        while index in self.same:
            index = self.same[index]
        return index

    def run(self, op: TfliteOp, depth: int) -> None:
        """One operator: a call written out, a number computed ahead, or the operator itself."""
        op = dataclasses.replace(op, inputs=tuple(self.now(i) for i in op.inputs))
        results = self.called(op, depth) if op.op in CALLS and depth < MAX_DEPTH else None
        if results is not None:
            self.same.update(zip(op.outputs, results, strict=True))
            return
        self.made += 1
        if self.made > MAX_MADE:
            raise ValueError(f"its graphs written out have more than {MAX_MADE:,} operators")
        found = self.computed(op)
        if found is not None and depth:
            tensor = self.tensors[op.outputs[0]]
            self.tensors[tensor.index] = dataclasses.replace(tensor, data=found, stored=True, shape=found.shape)
        else:
            self.ops.append(op)
        if found is not None:
            self.known[op.outputs[0]] = found

    def called(self, op: TfliteOp, depth: int) -> tuple[int, ...] | None:
        """What a call hands out; None where the input's values decide what it runs."""
        if op.op in ("CALL", "STABLEHLO_COMPOSITE"):
            return self.body(op.options["body"], op.inputs, depth)
        if op.op == "IF":
            condition = self.known.get(op.inputs[0])
            if condition is None:
                return None
            return self.body(op.options["then" if condition.all() else "otherwise"], op.inputs[1:], depth)
        steps = self.steps(op, depth)
        if steps is None:
            return None
        state = op.inputs
        for _ in range(steps):
            state = self.body(op.options["body"], state, depth)
        return state

    def steps(self, op: TfliteOp, depth: int) -> int | None:
        """How often a WHILE runs, by its condition and the parts of its state that are known; None: unknown."""
        trial = Flow(self.model)
        trial.tensors, trial.known = list(self.tensors), dict(self.known)
        trial.same, trial.kept = dict(self.same), dict(self.kept)
        state = op.inputs
        for step in range(MAX_STEPS + 1):
            (goes_on,) = trial.body(op.options["condition"], state, depth)
            answer = trial.known.get(goes_on)
            if answer is None:
                return None
            if not answer.all():
                self.used.update(trial.used)
                return step
            state = trial.body(op.options["body"], state, depth)
        return None

    def body(self, number: int, given: Sequence[int], depth: int) -> tuple[int, ...]:
        """The operators of a further graph on these tensors; what it hands out."""
        graph = self.model.graphs[number]
        self.used.add(number)
        if len(graph.inputs) != len(given):
            raise ValueError(f"graph {number} takes {len(graph.inputs)} tensors, its call gives {len(given)}")
        place = {-1: -1, **dict(zip(graph.inputs, given, strict=True))}
        for tensor in graph.tensors:
            if tensor.index not in place:
                place[tensor.index] = self.copy_of(graph, number, tensor)
        for op in graph.ops:
            inputs, outputs = (tuple(place[i] for i in part) for part in (op.inputs, op.outputs))
            self.run(dataclasses.replace(op, inputs=inputs, outputs=outputs), depth + 1)
        return tuple(self.now(place[i]) for i in graph.outputs)

    def copy_of(self, graph: TfliteGraph, number: int, tensor: TfliteTensor) -> int:
        """A tensor of a further graph among the first one's: stored ones and states once, others for every run."""
        lasting = tensor.stored or tensor.variable
        if lasting and (number, tensor.index) in self.kept:
            return self.kept[number, tensor.index]
        index = len(self.tensors)
        twin = dataclasses.replace(tensor, index=index)
        self.tensors.append(twin)
        if lasting:
            self.kept[number, tensor.index] = index
            self.remember(twin)
        return index

    def computed(self, op: TfliteOp) -> Numbers | None:
        """The result of an operator on known whole numbers, flags and shapes; None where it is not known."""
        if len(op.outputs) != 1 or op.options.get("activation"):
            return None
        made = self.tensors[op.outputs[0]]
        if made.quantized or made.dtype not in NUMPY_TYPES or made.dtype.startswith(("complex", "bfloat", "float8")):
            return None
        if op.op == "SHAPE":
            return np.asarray(self.tensors[op.inputs[0]].shape, np.dtype(made.dtype))
        given = [self.known[i] for i in op.inputs if i in self.known]
        if len(given) != len([i for i in op.inputs if i >= 0]) or not given:
            return None
        with np.errstate(all="ignore"):
            found = arithmetic(op, given, made.shape)
        return None if found is None or found.size > MAX_KNOWN else np.asarray(found).astype(np.dtype(made.dtype))


def arithmetic(op: TfliteOp, given: list[Numbers], shape: tuple[int, ...]) -> Numbers | None:
    """One operator of numpy; None for those that conditions and counters do not have."""
    if op.op in ARITHMETIC:
        return np.asarray(ARITHMETIC[op.op](*given))
    if op.op in SAME:
        return given[0].reshape(shape) if min(shape, default=0) >= 0 else None
    if op.op in REDUCED and len(given) == 2:
        axes = tuple(int(n) for n in given[1].reshape(-1))
        return np.asarray(REDUCED[op.op](given[0], axis=axes)).reshape(shape)
    if op.op == "PACK":
        return np.stack(given, op.options["axis"])
    if op.op == "CONCATENATION":
        return np.concatenate(given, op.options["axis"])
    if op.op == "GATHER" and given[0].ndim == 1:
        return given[0][given[1]]
    if op.op == "STRIDED_SLICE" and given[0].ndim == 1 and len(given) == 4 and len(shape) == 0:
        return given[0][int(given[1].reshape(-1)[0])].reshape(())
    return None
