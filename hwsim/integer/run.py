# pyright: basic
"""Running an integer network: `Machine(model, mode).run(images)`.

`Mode` chooses the requantization (`exact` thresholds and proven multipliers, or `fixed` point of a given width), what
happens at an accumulator of given width (`check`, `wrap`, `saturate`), and whether the border is treated as trained or
by the naive constant bias. Between nodes tensors are integers of the narrowest dtype that holds their proven range.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hwsim.errors import HwsimError, UnsupportedOp
from hwsim.integer import graph
from hwsim.integer.arithmetic import kernels, nonlinear
from hwsim.integer.arithmetic.fixed_point import fixed_rule
from hwsim.integer.arithmetic.forms import Form, along_axis
from hwsim.integer.arithmetic.requantize import BIAS_UNITS, ROUNDINGS
from hwsim.integer.arithmetic.rules import CodeSpec, Rule, exact_rule, product
from hwsim.integer.graph import IntegerModel, Node
from hwsim.integer.lowering.fixed_values import FixedValue, fixed_value
from hwsim.integer.words import OVERFLOWS
from quant import calling

PADDINGS = ("as_trained", "naive")


class AccumulatorOverflow(HwsimError):
    """A sum beyond the accumulator's width; names the layer, the need and the way out."""

    exit_code = 3


@dataclass(frozen=True)
class Mode:
    """How the machine computes.

    `requantization`: exact, or fixed with signed multipliers of `multiplier_bits` and one of ROUNDINGS; smooth
    functions are then tables of 2^table_bits codes, and the folded bias is an integer of the accumulator's or of the
    product's unit (`bias_unit`). `accumulator_bits` None: as wide as proven necessary; else
    `overflow` says what a narrower one does: check (raise), wrap, saturate (at the end), saturate_each (after every
    input channel). `padding` naive: a constant bias everywhere, code 0 in the padding.
    `adc_bits`: an in-memory array whose converter keeps that many bits of every sum over at most `adc_rows` products
    (`kernels.convolve_converting`); products of two activations do not run in such an array.
    """

    requantization: str = "exact"
    multiplier_bits: int = 32
    rounding: str = "half_up"
    table_bits: int = 12
    bias_unit: str = "accumulator"
    accumulator_bits: int | None = None
    overflow: str = "check"
    padding: str = "as_trained"
    adc_bits: int | None = None
    adc_rows: int = 256

    def __post_init__(self) -> None:
        choices = {
            "requantization": ("exact", "fixed"), "rounding": ROUNDINGS, "bias_unit": BIAS_UNITS,
            "overflow": OVERFLOWS, "padding": PADDINGS,
        }  # fmt: skip
        for what, allowed in choices.items():
            value = getattr(self, what)
            if value not in allowed:
                raise ValueError(f"{what}: expected one of {', '.join(allowed)}, got {value!r}")


@dataclass
class Outcome:
    """What a run gave. `values`: the network's result as real numbers (decoded from integers), float64.

    `codes`: tensors asked for, by node name. `more_values`: the results besides its
    answer. `tally`: elements decided with rationals, undecided, or overflowed.
    """

    values: Tensor
    codes: dict[str, Tensor] = field(default_factory=dict)
    tally: Counter[str] = field(default_factory=Counter)
    more_values: tuple[Tensor, ...] = ()


class Machine:
    """An integer network made ready to run in one mode; rules are compiled once."""

    def __init__(
        self,
        model: IntegerModel,
        mode: Mode | None = None,
        device: str | torch.device = "cpu",
        rules: Mapping[str, Rule] | None = None,
    ) -> None:
        """`rules`: requantizations of one's own by node, instead of the mode's (another runtime's arithmetic)."""
        mode, given = mode or Mode(), rules or {}
        self.model, self.mode, self.device = model, mode, torch.device(device)
        self.ranges = {n.name: n.range for n in model.nodes}
        self.rules: dict[str, Rule] = {}
        self.values: dict[str, FixedValue] = {}
        self.weights = {n.name: n.weight.to(self.device) for n in model.convolutions}
        self.tables = {n.name: n.table.to(self.device) for n in model.nodes if isinstance(n, graph.LookUp)}
        self.by_name = {n.name: n for n in model.nodes}
        for node in model.nodes:
            if isinstance(node, graph.Requantize):
                assert node.code is not None
                try:
                    rule = given[node.name] if node.name in given else self._rule(node.form, node.code)
                except UnsupportedOp as problem:
                    raise UnsupportedOp(f"layer {node.layer}: quantizer {node.quantizer}: {problem}") from problem
                self.rules[node.name] = moved(rule, self.device)
            elif isinstance(node, graph.Evaluate):
                naive = mode.padding == "naive"
                self.values[node.name] = moved(
                    fixed_value(node.form, self.ranges, naive=naive, bits=node.shift)[0], self.device
                )

    def _rule(self, form: Form, code: CodeSpec) -> Rule:
        naive = self.mode.padding == "naive"
        if self.mode.requantization == "exact":
            return exact_rule(form, code, self.ranges, naive=naive)
        return fixed_rule(
            form, code, self.ranges, width=self.mode.multiplier_bits, rounding=self.mode.rounding,
            table_bits=self.mode.table_bits, bias_unit=self.mode.bias_unit, naive=naive,
        )  # fmt: skip

    def run(self, images: Any, keep: Iterable[str] | bool = (), force: Mapping[str, Tensor] | None = None) -> Outcome:
        """Run real images (N, ...), or a tuple of a network's inputs.

        `keep` names nodes whose integers to return, True keeps all.

        `force`: integers that nodes hand on instead of their own; what is kept is still their own.
        """
        names = tuple(self.by_name) if keep is True else tuple(keep or ())
        output = self.model.output
        released = graph.last_use(self.model.nodes, self.model.ends)
        store: dict[str, Tensor] = {}
        kept: dict[str, Tensor] = {}
        tally: Counter[str] = Counter()
        images = calling.moved(images, self.device)
        for node in self.model.nodes:
            store[node.name] = self.compute(node, store, images, tally)
            if node.name in names:
                kept[node.name] = store[node.name]
            if force is not None and node.name in force:
                store[node.name] = force[node.name]
            for name in released.get(node.name, ()):
                del store[name]
        values, *more = (
            store[f] if isinstance(f, str) else decode(f, store) for f in (output, *self.model.more_outputs)
        )
        return Outcome(values, kept, tally, tuple(more))

    def compute(self, node: Node, store: Mapping[str, Tensor], images: Tensor, tally: Counter[str]) -> Tensor:
        """One node's integers from those it reads."""
        if isinstance(node, graph.Encode):
            assert node.code is not None
            real = images_at(images, node.source) if graph.is_entrance(node.source) else store[node.source]
            return encode(real, node.code).to(self._dtype(node))
        if isinstance(node, graph.RealInput):
            real = images_at(images, node.source)
            return real.double() if real.is_floating_point() else real  # indices stay whole numbers
        if isinstance(node, graph.Convolve):
            return self._accumulate(node, store[node.x], tally)
        if isinstance(node, graph.Requantize):
            sources = {s: store[s] for s in node.form.sources}
            return self.rules[node.name].apply(sources, tally).to(self._dtype(node))
        if isinstance(node, graph.Evaluate):
            return self.values[node.name].apply({s: store[s] for s in node.form.sources}, tally)
        if isinstance(node, graph.LookUp):
            return F.embedding(store[node.source].long(), self.tables[node.name]).to(self._dtype(node))
        if isinstance(node, graph.Constant):
            return node.values.to(self.device, self._dtype(node))
        if isinstance(node, graph.MatMul):
            return kernels.multiply_matrices(store[node.a], store[node.b], node.bound)
        if isinstance(node, graph.SumAlong):
            return store[node.x].to(torch.int64).sum(node.axes, keepdim=True)
        if isinstance(node, graph.SumPool):
            return kernels.sum_windows(store[node.x], node.window)
        if isinstance(node, graph.MaxPool):
            return kernels.max_windows(store[node.x], node.window, node.lowest)
        if isinstance(node, graph.Move):
            one = self.by_name[node.xs[0]].shape
            return move(node, [store[x] for x in node.xs], calling.rows(images), one)
        if isinstance(node, graph.Softmax):
            hidden = None if node.hidden is None else node.hidden.to(self.device)
            return nonlinear.softmax(store[node.x], node.shift, node.axis, node.method, hidden)
        if isinstance(node, graph.Normalize):
            return nonlinear.normalize(store[node.x], node.shift, node.eps, node.centred, node.method)
        assert isinstance(node, graph.FloatOp)
        return self._in_float(node, [store[f] if isinstance(f, str) else decode(f, store) for f in node.forms])

    @staticmethod
    def _in_float(node: graph.FloatOp, tensors: list[Tensor]) -> Tensor:
        """An operator between the integers, in float64; UnsupportedOp by name where it does not run so."""
        try:
            return node.function(*tensors)
        except (IndexError, RuntimeError, TypeError, ValueError) as problem:
            line = next((text for text in str(problem).splitlines() if text.strip()), type(problem).__name__)
            raise UnsupportedOp(
                f"layer {node.layer or '(model)'}: {node.operator} does not run in float64 beside integers ({line})"
            ) from problem

    def _dtype(self, node: Node) -> torch.dtype:
        return kernels.narrowest(node.range.least, node.range.largest)

    def _accumulate(self, node: graph.Convolve, x: Tensor, tally: Counter[str]) -> Tensor:
        """A convolution or linear layer, its accumulator checked, wrapped or saturated."""
        weight, mode = self.weights[node.name], self.mode
        fill = node.padding.naive_code if mode.padding == "naive" else node.padding.code
        if node.window is None:
            flat = x.reshape(-1, x.shape[-1], 1, 1)
            window, weight = graph.Window((1, 1)), weight[:, :, None, None]
        else:
            flat, window = x, node.window
        bits, needed = mode.accumulator_bits, kernels.bits_for(node.range.least, node.range.largest)
        if mode.adc_bits is not None:
            code = self.by_name[node.x].range
            span = (min(code.least, fill), max(code.largest, fill))
            total = kernels.convolve_converting(flat, weight, window, fill, span, mode.adc_bits, mode.adc_rows)
        elif bits is not None and bits < needed and mode.overflow == "saturate_each":
            total = kernels.convolve_saturating(flat, weight, window, fill, bits)
        else:
            total = kernels.convolve(flat, weight, window, fill, node.bound)
            if bits is not None and bits < needed:
                total = self._narrow(node, total, bits, needed, tally)
        return total.reshape(*x.shape[:-1], total.shape[1]) if node.window is None else total

    def _narrow(self, node: graph.Convolve, total: Tensor, bits: int, needed: int, tally: Counter[str]) -> Tensor:
        half = 1 << (bits - 1)
        over = int(((total < -half) | (total >= half)).sum())
        tally[f"overflow {node.layer}"] += over
        if self.mode.overflow == "wrap":
            return kernels.wrap(total, bits)
        if self.mode.overflow == "saturate":
            return kernels.saturate(total, bits)
        if over:
            raise AccumulatorOverflow(
                f"layer {node.layer}: {over} sums do not fit an accumulator of {bits} bits; no input can need more "
                f"than {needed} bits here; widen it, lower the bits, or choose wrap or saturate"
            )
        return total


def images_at(images: Any, source: str) -> Tensor:
    """One of a batch's inputs by the entrance's name."""
    position = int(source.removeprefix("input").strip() or 0)
    return images if isinstance(images, Tensor) else list(images)[position]


def moved(rule: Any, device: torch.device) -> Any:
    """A rule with all its tensors on a device."""
    if isinstance(rule, Tensor):
        return rule.to(device)
    if isinstance(rule, tuple):
        return tuple(moved(r, device) for r in rule)
    if dataclasses.is_dataclass(rule) and not isinstance(rule, (Form, type)) and device.type != "cpu":
        values = {f.name: moved(getattr(rule, f.name), device) for f in dataclasses.fields(rule)}
        return dataclasses.replace(rule, **values)
    return rule


def encode(real: Tensor, code: CodeSpec) -> Tensor:
    """Codes of real numbers in float64, operation by operation as the quantizer has it: the machine's entrance."""
    v = (real.double() - float(code.beta)) / float(code.s)
    return v.clamp(code.n, code.p).round()


def decode(form: Form, store: Mapping[str, Tensor]) -> Tensor:
    """The real numbers of a form, float64: for results and for operators that stay float."""
    if form.border is not None:
        raise HwsimError("a convolution with border_bias ends in float; quantize its output")
    parts = [product(store, t.nodes) for t in form.terms]
    ndim = max(p.ndim for p in parts)
    total = along_axis(form.intercepts, ndim, form.axis, parts[0].device)
    for part, term in zip(parts, form.terms, strict=True):
        total = total + part.double() * along_axis(term.slopes, ndim, form.axis, part.device)
    for function in form.functions:
        total = function.torch(total, form.axis)
    return total


def move(node: graph.Move, xs: list[Tensor], batch: int, one: tuple[int, ...]) -> Tensor:
    """Integers moved; `one`: the shape of the first source for one sample, which tells the axis of the samples."""
    x, options = xs[0], node.options
    if node.kind == "reshape":
        shape = list(options[0])
        if batch != 1 and x.numel() != math.prod(shape):
            place = next((i for i, pair in enumerate(zip(one, x.shape, strict=True)) if pair[0] != pair[1]), 0)
            shape[graph.left_to_samples(one, place, shape)] *= batch
        return x.reshape(shape)
    if node.kind == "permute":
        return x.permute(options[0])
    if node.kind == "gather":
        return x.index_select(options[0], torch.tensor(options[1], device=x.device))
    if node.kind == "slice":
        axis, start, stop, step = options
        return x[(slice(None),) * axis + (slice(start, stop, step),)]
    if node.kind == "pad":
        return F.pad(x, options[0], value=int(options[1]))
    axis = options[0]
    most = max(t.shape[0] for t in xs)
    wide = [t.expand(most, *t.shape[1:]) if axis != 0 else t for t in xs]
    dtype = kernels.narrowest(node.range.least, node.range.largest)
    return torch.cat([t.to(dtype) for t in wide], axis)
