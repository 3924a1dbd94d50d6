# pyright: basic
"""The integer network as one C99 file: weights, integer kernels, one function; no dependencies, no floating point.

`c_source(machine) -> str`. `void NAME_run(const TYPE *input, int64_t *result)` takes the codes of one image and gives
the network's result in fixed point (`NAME_FRACTION_BITS`). Compiled with -DHWSIM_MAIN it is a filter: images as codes
on standard input, results on standard output, every tensor of codes in the file named as argument, run time on
standard error. All tensors live in one static arena, reused as they die.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from hwsim.errors import UnsupportedOp
from hwsim.integer import graph
from hwsim.integer.arithmetic import kernels
from hwsim.integer.arithmetic.forms import Affine, Form
from hwsim.integer.arithmetic.requantize import ChannelSteps, along, column
from hwsim.integer.arithmetic.rules import BorderRule, Rule, SingleRule, SumRule, TableRule, product
from hwsim.integer.arithmetic.steps import Clamp, Leaky, Smooth
from hwsim.integer.export.c_kernels import (
    FUNCTIONS,
    HEADER,
    MAIN,
    convolution,
    convolution_of_many,
    smooth_function,
    windows,
    windows_bytes,
)
from hwsim.integer.graph import Node
from hwsim.integer.lowering.fixed_values import FixedValue, smooth_table
from hwsim.integer.run import Machine

RESULT_BITS = 24
_TYPES = {torch.uint8: "uint8_t", torch.int8: "int8_t", torch.int16: "int16_t", torch.int32: "int32_t",
          torch.int64: "int64_t"}  # fmt: skip


@dataclass(frozen=True)
class _Buffer:
    """Where a tensor lies in the arena."""

    type: str
    offset: int
    count: int


class Writer:
    """Collects constants, helper functions and the body."""

    def __init__(self, machine: Machine, name: str) -> None:
        if machine.mode.requantization != "exact" or machine.mode.accumulator_bits or machine.mode.adc_bits:
            raise UnsupportedOp("C export: the file computes exactly; give it a machine in mode exact")
        self.machine, self.model = machine, machine.model
        self.name = re.sub(r"\W", "_", name)
        self.constants: list[str] = []
        self.known: dict[tuple[str, str], str] = {}
        self.helpers: dict[str, str] = {}
        self.functions: set[str] = set()
        self.body: list[str] = []
        self.buffers, self.arena = plan(self.model.nodes, ends(self.model))
        self.most_taps = most_taps(self.model.nodes, self.buffers)

    def constant(self, values: Iterable[int], type_: str = "") -> str:
        """A static array, written once; the narrowest type unless one is given."""
        numbers = [int(v) for v in values]
        type_ = type_ or _TYPES[kernels.narrowest(min(numbers, default=0), max(numbers, default=0))]
        text = ",".join(f"{v}LL" if abs(v) >= 2**31 else str(v) for v in numbers).replace(f"{-(2**63)}LL", "INT64_MIN")
        key = (type_, text)
        if key not in self.known:
            self.known[key] = f"k{len(self.known)}"
            lines = "\n".join(_wrapped(text))
            self.constants.append(f"static const {type_} {self.known[key]}[{max(1, len(numbers))}] = {{\n{lines}}};")
        return self.known[key]

    def text(self) -> str:
        """The whole file."""
        inputs = [n for n in self.model.nodes if isinstance(n, graph.Encode)]
        if self.model.more_outputs:
            raise UnsupportedOp(
                f"C export: {self.model.name} has {1 + len(self.model.more_outputs)} results; one is written"
            )
        if len(inputs) != 1 or self.model.float_operators:
            raise UnsupportedOp(
                f"C export: {self.model.name} needs one quantized input and integers throughout; "
                f"it has {len(inputs)} and keeps {', '.join(self.model.float_operators) or 'nothing'} in float"
            )
        for node in self.model.nodes:
            self.node(node)
        results = self.result()
        source = inputs[0]
        assert source.code is not None
        head = HEADER.format(
            name=self.name, upper=self.name.upper(), n=source.code.n, p=source.code.p, s=float(source.code.s).hex(),
            beta=float(source.code.beta).hex(), inputs=_count(source), results=results, bits=RESULT_BITS,
            type=self.buffers[source.name].type, arena=self.arena, weights=self.model.weight_bits // 8,
            memory=self.arena + windows_bytes(self.most_taps),
        )  # fmt: skip
        run = [
            f"void {self.name}_run(const {self.buffers[source.name].type} *input, int64_t *result)",
            "{", *[f"    {line}" for line in self.body], "}",
        ]  # fmt: skip
        main = MAIN.format(name=self.name, upper=self.name.upper(), type=self.buffers[source.name].type)
        shared = [FUNCTIONS, *([windows(self.most_taps)] if self.most_taps else [])]
        return "\n\n".join([head, *shared, *self.helpers.values(), *self.constants, "\n".join(run), main]) + "\n"

    # ---- nodes -------------------------------------------------------------------------------------------------------

    def at(self, name: str) -> str:
        """A node's tensor as a typed pointer."""
        buffer = self.buffers[name]
        return f"(({buffer.type} *)(arena + {buffer.offset}))"

    def node(self, node: Node) -> None:
        """The lines of one node."""
        self.body.append(f"/* {node.name}: {type(node).__name__.lower()} {_size(node)} */")
        if isinstance(node, graph.Encode):
            self.body.append(f"memcpy({self.at(node.name)}, input, sizeof(*input) * {_count(node)});")
        elif isinstance(node, graph.Convolve):
            self.convolve(node)
        elif isinstance(node, graph.Requantize):
            self.requantize(node, self.machine.rules[node.name])
        elif isinstance(node, graph.Evaluate):
            self.evaluate(node, self.machine.values[node.name])
        elif isinstance(node, (graph.SumAlong, graph.SumPool, graph.MaxPool)):
            self.pool(node)
        elif isinstance(node, graph.Move):
            self.move(node)
        elif isinstance(node, graph.Constant):
            array = self.constant(node.values.flatten().tolist(), self.buffers[node.name].type)
            self.body.append(f"memcpy({self.at(node.name)}, {array}, sizeof {array});")
        elif isinstance(node, graph.MatMul):
            self.matmul(node)
        else:
            raise UnsupportedOp(f"C export: layer {node.layer}: no C for {type(node).__name__}")
        if node.code is not None:
            self.body.append(f'TRACE("{node.name}", {self.at(node.name)}, {_count(node)});')

    def convolve(self, node: graph.Convolve) -> None:
        x = self.model.node(node.x)
        weight = self.constant(node.weight.flatten().tolist(), _TYPES[node.weight.dtype])
        types = (self.buffers[x.name].type, _TYPES[node.weight.dtype], self.buffers[node.name].type)
        function = "conv_" + "_".join(t.removesuffix("_t") for t in types)
        if taps_of_many(node, self.buffers):
            function = f"{function}_of_many"
            self.helpers.setdefault(function, convolution_of_many(function, types[0]))
        else:
            self.helpers.setdefault(function, convolution(function, *types))
        k, c = node.weight.shape[:2]
        if node.window is None:
            rows = _count(x) // c
            self.body.append(f"for (int row = 0; row < {rows}; row++)")
            geometry = [1, c, 1, 1, k, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]
            target, source = f"{self.at(node.name)} + row * {k}", f"{self.at(x.name)} + row * {c}"
            self.body.append(f"    {function}({source}, {weight}, {target}, (const int[]){{{_list(geometry)}}});")
            return
        w = node.window
        geometry = [w.groups, c, *x.shape[2:], k // w.groups, *node.shape[2:], *w.kernel, *w.stride, *w.dilation,
                    w.padding[0], w.padding[2], node.padding.code]  # fmt: skip
        self.body.append(
            f"{function}({self.at(x.name)}, {weight}, {self.at(node.name)}, (const int[]){{{_list(geometry)}}});"
        )

    def matmul(self, node: graph.MatMul) -> None:
        a, b = self.model.node(node.a), self.model.node(node.b)
        rows, inner, columns = a.shape[-2], a.shape[-1], b.shape[-1]
        batch = _count(node) // (rows * columns)
        self.body += [
            f"for (int g = 0; g < {batch}; g++) for (int i = 0; i < {rows}; i++)",
            f"    for (int j = 0; j < {columns}; j++) {{",
            "    int64_t sum = 0;",
            f"    for (int c = 0; c < {inner}; c++)",
            f"        sum += (int64_t){self.at(a.name)}[(g * {rows} + i) * {inner} + c] * "
            f"{self.at(b.name)}[(g * {inner} + c) * {columns} + j];",
            f"    {self.at(node.name)}[(g * {rows} + i) * {columns} + j] = ({self.buffers[node.name].type})sum;",
            "}",
        ]

    def pool(self, node: graph.SumAlong | graph.SumPool | graph.MaxPool) -> None:
        x = self.model.node(node.x)
        if isinstance(node, graph.SumAlong):
            self.body.append(f"memset({self.at(node.name)}, 0, {8 * _count(node)});")
            target, source = _index(_strides(node.shape, x.shape)), _index(_strides(x.shape, x.shape))
            self._loops(x.shape, [f"{self.at(node.name)}[{target}] += {self.at(x.name)}[{source}];"])
            return
        w = node.window
        largest = isinstance(node, graph.MaxPool)
        start = str(node.lowest) if largest else "0"
        step = "if (v > best) best = v;" if largest else "best += v;"
        self.body += [
            f"for (int c = 0; c < {x.shape[1]}; c++) for (int p = 0; p < {node.shape[2]}; p++) "
            f"for (int q = 0; q < {node.shape[3]}; q++) {{",
            f"    int64_t best = {start};",
            f"    for (int r = 0; r < {w.kernel[0]}; r++) for (int s = 0; s < {w.kernel[1]}; s++) {{",
            f"        int y = p * {w.stride[0]} - {w.padding[0]} + r * {w.dilation[0]}, "
            f"z = q * {w.stride[1]} - {w.padding[2]} + s * {w.dilation[1]};",
            f"        if (y < 0 || z < 0 || y >= {x.shape[2]} || z >= {x.shape[3]}) continue;",
            f"        int64_t v = {self.at(x.name)}[(c * {x.shape[2]} + y) * {x.shape[3]} + z]; {step}",
            "    }",
            f"    {self.at(node.name)}[(c * {node.shape[2]} + p) * {node.shape[3]} + q] = "
            f"({self.buffers[node.name].type})best;",
            "}",
        ]

    def move(self, node: graph.Move) -> None:
        """Copies with strides; a reshape is a plain copy."""
        type_ = self.buffers[node.name].type
        if node.kind == "reshape":
            self._loops((1, _count(node)), [f"{self.at(node.name)}[i0] = ({type_}){self.at(node.xs[0])}[i0];"])
            return
        if node.kind == "concat":
            start = 0
            for name in node.xs:
                x = self.model.node(name)
                target = _index(_strides(node.shape, node.shape), {node.options[0]: start})
                source = _index(_strides(x.shape, x.shape))
                self._loops(x.shape, [f"{self.at(node.name)}[{target}] = ({type_}){self.at(name)}[{source}];"])
                start += x.shape[node.options[0]]
            return
        x = self.model.node(node.xs[0])
        strides, shape = _strides(x.shape, x.shape), node.shape
        target, source = _index(_strides(node.shape, node.shape)), _index(strides)
        if node.kind == "permute" and node.options[0][0] != 0 and node.shape[0] != 1:
            raise UnsupportedOp(f"C export: layer {node.layer}: it moves the axis of the images")
        if node.kind == "permute":
            source = _index([strides[a - 1] for a in node.options[0][1:]])
        elif node.kind == "slice":
            axis, start, _, step = node.options
            source = _index([s * (step if a == axis - 1 else 1) for a, s in enumerate(strides)])
            source += f" + {start * strides[axis - 1]}"
        elif node.kind == "gather":
            axis, indices = node.options
            places = self.constant(indices)
            source = _index([0 if a == axis - 1 else s for a, s in enumerate(strides)])
            source += f" + {places}[i{axis - 1}] * {strides[axis - 1]}"
        else:
            sides, fill = node.options
            before = {len(x.shape) - 1 - i // 2: sides[i] for i in range(0, len(sides), 2)}
            self.body.append(f"for (int i = 0; i < {_count(node)}; i++) {self.at(node.name)}[i] = {int(fill)};")
            target, shape = _index(_strides(node.shape, node.shape), before), x.shape
        self._loops(shape, [f"{self.at(node.name)}[{target}] = ({type_}){self.at(x.name)}[{source}];"])

    def _loops(self, shape: Sequence[int], inner: Sequence[str]) -> None:
        """Loops over a shape without its batch axis, indices i0, i1, ..."""
        heads = [f"for (int i{a} = 0; i{a} < {n}; i{a}++)" for a, n in enumerate(shape[1:])]
        self.body.append(" ".join([*heads, "{"]))
        self.body += [f"    {line}" for line in inner]
        self.body.append("}")

    # ---- rules -------------------------------------------------------------------------------------------------------

    def requantize(self, node: graph.Requantize, rule: Rule) -> None:
        """Codes of a form: per rectangle of a border class, or all at once."""
        if not isinstance(rule, BorderRule):
            self._loops(node.shape, self.rule_lines(node, rule))
            return
        for row, run in enumerate(rule.border.rows):
            for one, c in zip(rule.rules[row], rule.border.columns, strict=True):
                self.body.append(
                    f"for (int i0 = 0; i0 < {node.shape[1]}; i0++) for (int i1 = {run.start}; i1 < {run.stop}; i1++) "
                    f"for (int i2 = {c.start}; i2 < {c.stop}; i2++) {{"
                )
                self.body += [f"    {line}" for line in self.rule_lines(node, one)]
                self.body.append("}")

    def rule_lines(self, node: graph.Requantize, rule: Rule) -> list[str]:
        """Statements for one element, indices i0, i1, ... at hand."""
        out = f"{self.at(node.name)}[{_index(_strides(node.shape, node.shape))}] = ({self.buffers[node.name].type})"
        if isinstance(rule, SingleRule):
            value = self.element(rule.node, node.shape)
            return [out + self.single(rule, value, node.form.axis)]
        if isinstance(rule, TableRule):
            table = self.constant(rule.table.flatten().tolist())
            index = f"({self.element(rule.nodes[0], node.shape)} - ({rule.lows[0]}))"
            if len(rule.nodes) == 2:
                index = (
                    f"{index} * {rule.table.shape[1]} + ({self.element(rule.nodes[1], node.shape)} - ({rule.lows[1]}))"
                )
            return [f"{out}{table}[{index}];"]
        if isinstance(rule, SumRule):
            return self.sum_lines(node, rule, out)
        raise UnsupportedOp(f"C export: layer {node.layer}: no C for {type(rule).__name__}")

    def element(self, name: str, shape: Sequence[int]) -> str:
        """One element of a tensor broadcast to a shape."""
        return f"(int64_t){self.at(name)}[{_index(_strides(self.model.node(name).shape, shape))}]"

    def single(self, rule: SingleRule, value: str, axis: int) -> str:
        """The call that turns one integer into a code."""
        channel = f"i{axis - 1}"
        if rule.fast is not None:
            fast = rule.fast
            k = channel if fast.multiplier.numel() > 1 else "0"
            m, shift, n = (self.constant(t.tolist(), kind) for t, kind in (
                (fast.multiplier, "int64_t"), (fast.shift, "uint8_t"), (fast.offset, "int64_t")))  # fmt: skip
            return f"affine({value}, {m}[{k}], {n}[{k}], {shift}[{k}], {int(fast.low[0])}, {int(fast.high[0])});"
        return self.steps(rule.exact, value, channel)

    def steps(self, exact: ChannelSteps, value: str, channel: str) -> str:
        """A search in integer thresholds."""
        rows, count = exact.thresholds.shape
        k = channel if rows > 1 else "0"
        marks = self.constant(exact.thresholds.flatten().tolist(), "int64_t")
        levels = self.constant(exact.levels.flatten().tolist(), "int16_t")
        return f"steps({value}, {marks} + {k} * {count}, {count}, {levels} + {k} * {count + 1});"

    def sum_lines(self, node: graph.Requantize, rule: SumRule, out: str) -> list[str]:
        """A fixed-point sum. Where the machine asks rationals (a hair from a tie), this takes the sum's own code."""
        lines = [self.weighted(node.form, rule.multipliers, rule.offset, node.shape)]
        if rule.marks is not None:
            return [*lines, out + self.steps(rule.marks, "u", f"i{node.form.axis - 1}")]
        return [*lines, f"{out}clamp(asr(u, {rule.shift}), {rule.low}, {rule.high});"]

    def weighted(self, form: Form, multipliers: Sequence[Tensor], offset: Tensor, shape: Sequence[int]) -> str:
        """`int64_t u = ...;`, the sum of a form's terms."""
        k = f"i{form.axis - 1}"
        parts = []
        for term, m in zip(form.terms, multipliers, strict=True):
            factor = f"{self.constant(m.tolist(), 'int64_t')}[{k if m.numel() > 1 else '0'}]"
            parts.append(" * ".join([*(self.element(n, shape) for n in term.nodes), factor]))
        start = f"{self.constant(offset.flatten().tolist(), 'int64_t')}"
        if offset.ndim > 1 and offset.numel() > offset.shape[1]:
            place = _index(_strides(offset.shape, shape))
        else:
            place = k if offset.numel() > 1 else "0"
        return f"int64_t u = {' + '.join(parts)} + {start}[{place}];"

    def evaluate(self, node: graph.Evaluate, rule: FixedValue) -> None:
        """A fixed-point value and the functions behind it."""
        lines = [self.weighted(rule.form, rule.multipliers, rule.offset, node.shape)]
        if rule.extra:
            lines.append(f"u = asr(u + {1 << (rule.extra - 1)}LL, {rule.extra});")
        lines += [self.function(f, rule.shift, f"i{node.form.axis - 1}") for f in rule.form.functions]
        lines.append(f"{self.at(node.name)}[{_index(_strides(node.shape, node.shape))}] = u;")
        self._loops(node.shape, lines)

    def function(self, f: object, shift: int, k: str) -> str:
        """One scalar function on the fixed-point u."""
        if isinstance(f, Clamp):
            low = "INT64_MIN" if f.low is None else f"{round(f.low * 2**shift)}LL"
            high = "INT64_MAX" if f.high is None else f"{round(f.high * 2**shift)}LL"
            return f"u = clamp(u, {low}, {high});"
        if isinstance(f, Leaky):
            return f"if (u < 0) u = scaled(u, {round(f.slope * 2**24)}LL);"
        if isinstance(f, Affine):
            m = self.constant([round(c * 2**24) for c in f.slopes], "int64_t")
            b = self.constant([round(c * 2**shift) for c in f.intercepts], "int64_t")
            return f"u = scaled(u, {m}[{k if len(f.slopes) > 1 else 0}]) + {b}[{k if len(f.intercepts) > 1 else 0}];"
        assert isinstance(f, Smooth)
        table = self.constant(smooth_table(f.name, shift)[0].T.flatten().tolist(), "int64_t")
        function = f"{f.name}_{shift}"
        if function not in self.functions:
            self.functions.add(function)
            self.constants.append(smooth_function(function, f.name, table, shift))
        return f"u = {function}(u);"

    def result(self) -> int:
        """The network's result with RESULT_BITS fractional bits; returns how many numbers it has."""
        form = self.model.output
        assert isinstance(form, Form)
        if form.functions or form.border is not None:
            raise UnsupportedOp(f"C export: {self.model.name}: its result is no affine sum of integers")
        scale = 2**RESULT_BITS
        multipliers = [torch.tensor([round(c * scale * 2**16) for c in t.slopes]) for t in form.terms]
        offset = torch.tensor([round(b * scale * 2**16) for b in form.intercepts])
        lines = [self.weighted(form, multipliers, offset, form.shape)]
        lines.append(f"result[{_index(_strides(form.shape, form.shape))}] = asr(u, 16);")
        self.body.append("/* result */")
        self._loops(form.shape, lines)
        return math.prod(form.shape[1:])


def fixed_result(form: Form, store: dict[str, Tensor]) -> Tensor:
    """What the C file returns for the given integers: floor of the sum at RESULT_BITS fractional bits, int64."""
    scale = Fraction(2 ** (RESULT_BITS + 16))
    ndim = len(form.shape)
    total = along([column([round(b * scale) for b in form.intercepts])], ndim, form.axis)[0]
    for t in form.terms:
        factor = along([column([round(c * scale) for c in t.slopes])], ndim, form.axis)[0]
        total = total + product(store, t.nodes) * factor
    return total >> 16


def c_source(machine: Machine, name: str = "network") -> str:
    """The file's text. UnsupportedOp for networks with float operators, naming them."""
    return Writer(machine, name).text()


def working_memory(model: graph.IntegerModel) -> int:
    """Bytes of the arena in which all tensors of one image live, each from its making to its last reader, and of the
    windows of its convolutions.
    """
    buffers, arena = plan(model.nodes, ends(model))
    return arena + windows_bytes(most_taps(model.nodes, buffers))


def ends(model: graph.IntegerModel) -> tuple[str, ...]:
    """Nodes that the result reads."""
    if isinstance(model.output, str):
        raise UnsupportedOp(f"C export: {model.name} ends in a float operator")
    return model.output.sources


def most_taps(nodes: Sequence[Node], buffers: Mapping[str, _Buffer]) -> int:
    """Products of the largest window that is gathered in front of several rows of weights; 0 where none is."""
    return max((taps_of_many(node, buffers) for node in nodes if isinstance(node, graph.Convolve)), default=0)


def taps_of_many(node: graph.Convolve, buffers: Mapping[str, _Buffer]) -> int:
    """Products of a window of 8-bit codes and weights that more than three outputs share; 0 for other convolutions."""
    types = (buffers[node.x].type, _TYPES[node.weight.dtype], buffers[node.name].type)
    if node.window is None or types not in (("uint8_t", "int8_t", "int32_t"), ("int8_t", "int8_t", "int32_t")):
        return 0
    taps = node.weight[0].numel()
    # 2^16 products of bytes are sure to fit an int32, whatever their order.
    return taps if node.weight.shape[0] // node.window.groups > 3 and taps < 2**16 else 0


def plan(nodes: Sequence[Node], ends: tuple[str, ...]) -> tuple[dict[str, _Buffer], int]:
    """First-fit places of all tensors in one arena of bytes; a place is free again after its tensor's last reader."""
    released = graph.last_use(tuple(nodes), ends)
    taken: dict[str, tuple[int, int]] = {}
    found: dict[str, _Buffer] = {}
    size = 0
    for node in nodes:
        type_ = _TYPES[_dtype(node)]
        count = _count(node)
        need = -(-count * {"uint8_t": 1, "int8_t": 1, "int16_t": 2, "int32_t": 4, "int64_t": 8}[type_] // 8) * 8
        place = 0
        for start, stop in sorted(taken.values()):
            if start - place >= need:
                break
            place = max(place, stop)
        taken[node.name] = (place, place + need)
        found[node.name] = _Buffer(type_, place, count)
        size = max(size, place + need)
        for name in released.get(node.name, ()):
            del taken[name]
    return found, size


def _dtype(node: Node) -> torch.dtype:
    if isinstance(node, (graph.Convolve, graph.MatMul)):
        return torch.int32 if node.bound < 2**31 else torch.int64
    if isinstance(node, (graph.Evaluate, graph.SumAlong, graph.SumPool)):
        return torch.int64
    return kernels.narrowest(node.range.least, node.range.largest)


def _count(node: Node) -> int:
    return math.prod(node.shape[1:]) if not isinstance(node, graph.Constant) else math.prod(node.shape)


def _size(node: Node) -> str:
    return "x".join(map(str, node.shape[1:]))


def _strides(shape: Sequence[int], to: Sequence[int]) -> list[int]:
    """Element strides of a tensor (batch dropped) when it is broadcast to `to`."""
    strides, step = [], 1
    for n in reversed(shape[1:]):
        strides.append(0 if n == 1 else step)
        step *= n
    strides.reverse()
    return [0] * (len(to) - len(shape)) + strides


def _index(strides: Sequence[int], shifts: dict[int, int] | None = None) -> str:
    """i0*s0 + i1*s1 + ...; `shifts` moves an axis (numbered with the batch)."""
    parts = []
    for a, stride in enumerate(strides):
        shift = (shifts or {}).get(a + 1, 0)
        if stride == 0:
            continue
        place = f"i{a}" if not shift else f"(i{a} + {shift})"
        parts.append(place if stride == 1 else f"{place} * {stride}")
    return " + ".join(parts) or "0"


def _list(values: Iterable[int]) -> str:
    return ", ".join(str(int(v)) for v in values)


def _wrapped(text: str, width: int = 4000) -> Iterable[str]:
    start = 0
    while start < len(text):
        stop = min(len(text), start + width)
        stop = len(text) if stop == len(text) else text.rindex(",", start, stop) + 1
        yield text[start:stop]
        start = stop
