# pyright: basic
"""`fixed_rule`: a `Form` as hardware computes it, with multipliers of few bits, rounding shifts and short tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from hwsim.integer.arithmetic.forms import Form
from hwsim.integer.arithmetic.requantize import FixedPoint, along, column, fixed_multiplier, mantissa, shift_right
from hwsim.integer.arithmetic.rules import (
    HEADROOM,
    CodeSpec,
    Range,
    Rule,
    code_limits,
    line_of,
    product,
    product_range,
    pulled_steps,
    with_border,
)
from hwsim.integer.arithmetic.steps import Clamp


@dataclass(frozen=True)
class FixedSingle:
    """(a + bias) * M >> shift of one tensor."""

    node: str
    axis: int
    form: FixedPoint

    def apply(self, sources: Mapping[str, Tensor], tally: Counter[str]) -> Tensor:
        return self.form.apply(sources[self.node], self.axis)


@dataclass(frozen=True)
class FixedSum:
    """sum_i a_i * M_i + N, one rounding shift: rescaled addition of tensors with different steps."""

    form: Form
    multipliers: tuple[Tensor, ...]
    offset: Tensor
    shift: Tensor
    low: int
    high: int
    rounding: str

    def apply(self, sources: Mapping[str, Tensor], tally: Counter[str]) -> Tensor:
        values = [product(sources, term.nodes) for term in self.form.terms]
        ndim = max(v.ndim for v in values)
        total = along([self.offset], ndim, self.form.axis)[0]
        for value, m in zip(values, self.multipliers, strict=True):
            total = total + value * along([m], ndim, self.form.axis)[0]
        return shift_right(total, self.shift, self.rounding).clamp(self.low, self.high)


@dataclass(frozen=True)
class LookUp:
    """A fixed-point index of few bits, then a table of codes: how hardware does SiLU, h-swish, sigmoid."""

    index: Rule
    table: Tensor
    first: int

    def apply(self, sources: Mapping[str, Tensor], tally: Counter[str]) -> Tensor:
        return self.table.to(next(iter(sources.values())).device)[self.index.apply(sources, tally) - self.first]


def fixed_rule(
    form: Form, code: CodeSpec, ranges: Mapping[str, Range], *, width: int, rounding: str, table_bits: int,
    bias_unit: str = "accumulator", naive: bool = False,
) -> Rule:  # fmt: skip
    """The hardware form: `width`-bit multipliers, 32-bit biases, smooth functions as tables of 2^table_bits codes."""

    def again(plain: Form) -> Rule:
        return fixed_rule(
            plain, code, ranges, width=width, rounding=rounding, table_bits=table_bits, bias_unit=bias_unit
        )

    if form.border is not None:
        return with_border(form, naive, again)
    if not all(isinstance(f, Clamp) for f in form.functions):
        return _look_up(form, code, ranges, width, rounding, table_bits, bias_unit)
    if len(form.terms) == 1 and len(form.terms[0].nodes) == 1 and ranges[form.terms[0].nodes[0]].reach < 2**31:
        line = line_of(form, code, form.intercepts)
        assert line is not None
        return FixedSingle(
            form.terms[0].nodes[0], form.axis, fixed_multiplier(line, width, rounding, bias_unit=bias_unit)
        )
    low, high = code_limits(form, code)
    return _fixed_sum(form, code.s, code.beta, low, high, width, rounding, ranges)


def _fixed_sum(
    form: Form, s: Fraction, beta: Fraction, low: int, high: int, width: int, rounding: str, ranges: Mapping[str, Range]
) -> FixedSum:
    """One shift for all terms, chosen so that the largest multiplier has `width` bits and the sum fits int64."""
    largest = max((abs(c) for t in form.terms for c in t.slopes), default=Fraction(1)) / s
    shift = mantissa(largest, width)[1] if largest else 0
    reach = sum(max(map(abs, product_range(ranges, t.nodes))) * max(map(abs, t.slopes)) for t in form.terms) / s
    reach += max(abs(b - beta) for b in form.intercepts) / s
    shift = min(shift, HEADROOM - 1 - math.ceil(reach + 1).bit_length())
    scale = Fraction(2) ** shift / s
    return FixedSum(
        form, tuple(column([round(c * scale) for c in t.slopes]) for t in form.terms),
        column([round((b - beta) * scale) for b in form.intercepts]), torch.tensor(shift), low, high, rounding,
    )  # fmt: skip


def _look_up(
    form: Form, code: CodeSpec, ranges: Mapping[str, Range], width: int, rounding: str, table_bits: int, bias_unit: str
) -> LookUp:
    """Index step: the range of u in which the codes change (and half of it again), cut into 2^table_bits."""
    steps = pulled_steps(form, code)
    if len(steps) > 1:
        raise ValueError("a table needs one function for all channels; a per-channel factor follows the activation")
    marks = [float(t) for t in steps[0].thresholds] or [0.0]
    wide = max(marks[-1] - marks[0], 1e-3)
    low, high = Fraction(marks[0] - wide / 16), Fraction(marks[-1] + wide / 16)
    entries = 2**table_bits
    step = (high - low) / (entries - 1)
    bare = form.bare()
    places = float(low) + float(step) * np.arange(entries)
    passed = np.searchsorted(np.array([float(t) for t in steps[0].thresholds]), places, side="right")
    table = torch.tensor(np.array(steps[0].codes)[passed])
    index_code = CodeSpec(step, low, 0, entries - 1)
    index = fixed_rule(
        bare, index_code, ranges, width=width, rounding=rounding, table_bits=table_bits, bias_unit=bias_unit
    )
    return LookUp(index, table, 0)
