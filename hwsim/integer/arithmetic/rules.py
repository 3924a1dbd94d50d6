# pyright: basic
"""How a `Form` becomes codes at run time: `exact_rule` (thresholds, proven multipliers, tables) and `fixed_rule`.

A rule has `apply(sources, tally) -> int64 codes`, sources by name. Exact rules decide every element as exact rational
arithmetic would. Where a sum of several terms is computed in fixed point, the elements within its proven error of a
threshold are decided again with rationals; where a term is itself an approximation of known error (a mean of SiLU
values), such elements cannot be decided and are counted in `tally["undecided"]`.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hwsim.errors import UnsupportedOp
from hwsim.integer.arithmetic.forms import Affine, Border, Form, Rationals, at, plus
from hwsim.integer.arithmetic.requantize import (
    AffineShift,
    ChannelSteps,
    Line,
    along,
    channel_steps,
    column,
    proven_multiplier,
)
from hwsim.integer.arithmetic.steps import Clamp, Steps, quantizer_steps

# A table over all pairs of two codes may have this many entries: 8 bits by 8 bits, and padding codes beside them.
LARGEST_TABLE = 2**17
# A sum known less well than this, in steps of the quantizer behind it, is refused.
_LARGEST_DOUBT = Fraction(1, 64)
HEADROOM = 60


@dataclass(frozen=True)
class Range:
    """What an integer tensor may hold: low..high, per channel where known (one entry: for all).

    `error`: how far each integer may be from the real number it stands for, in its own units (0: it is exact).
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    error: int = 0

    @property
    def least(self) -> int:
        """Lowest value of any channel."""
        return min(self.low)

    @property
    def largest(self) -> int:
        """Highest value of any channel."""
        return max(self.high)

    @property
    def reach(self) -> int:
        """Largest magnitude."""
        return max(abs(self.least), abs(self.largest))


@dataclass(frozen=True)
class CodeSpec:
    """The quantizer behind codes: x_hat = s*code + beta, n <= code <= p."""

    s: Fraction
    beta: Fraction
    n: int
    p: int

    @property
    def steps(self) -> Steps:
        """Its step function."""
        return quantizer_steps(self.s, self.beta, self.n, self.p)

    @property
    def zero_code(self) -> int:
        """The code of real zero: round-half-even(clamp(-beta/s, n, p))."""
        return self.steps(Fraction(0))


class Rule(Protocol):
    """A way to turn sources into codes."""

    def apply(self, sources: Mapping[str, Tensor], tally: Counter[str]) -> Tensor:
        """int64 codes."""
        ...


def product(sources: Mapping[str, Tensor], nodes: Sequence[str]) -> Tensor:
    """The integer monomial of one or two tensors, int64, broadcast."""
    first = sources[nodes[0]].to(torch.int64)
    return first if len(nodes) == 1 else first * sources[nodes[1]].to(torch.int64)


def product_range(ranges: Mapping[str, Range], nodes: Sequence[str]) -> tuple[int, int]:
    """(least, largest) of a monomial."""
    first = ranges[nodes[0]]
    if len(nodes) == 1:
        return first.least, first.largest
    second = ranges[nodes[1]]
    ends = [x * y for x in (first.least, first.largest) for y in (second.least, second.largest)]
    return min(ends), max(ends)


def pulled_steps(form: Form, code: CodeSpec) -> list[Steps]:
    """The quantizer seen through the form's functions: one step function of u, or one per channel."""
    per_channel = any(isinstance(f, Affine) and max(len(f.slopes), len(f.intercepts)) > 1 for f in form.functions)
    found = []
    for k in range(form.rows if per_channel else 1):
        steps = code.steps
        for f in reversed(form.functions):
            steps = (f.channel(k) if isinstance(f, Affine) else f).pull_back(steps)
        found.append(steps)
    return found


def line_of(form: Form, code: CodeSpec, intercepts: Rationals) -> Line | None:
    """The form as clamp(round(slope*a + intercept)) when only clamps follow a single term; else None."""
    if not all(isinstance(f, Clamp) for f in form.functions):
        return None
    low, high = code_limits(form, code)
    rows = form.rows
    slopes = form.terms[0].slopes
    return Line(
        tuple(at(slopes, k) / code.s for k in range(rows)),
        tuple((at(intercepts, k) - code.beta) / code.s for k in range(rows)),
        (low,) * rows,
        (high,) * rows,
    )


def code_limits(form: Form, code: CodeSpec) -> tuple[int, int]:
    """Lowest and highest code that clamps between the sum and the quantizer leave."""
    low, high = code.n, code.p
    for f in form.functions:
        assert isinstance(f, Clamp)
        if f.low is not None:
            low, high = max(low, code.steps(f.low)), max(high, code.steps(f.low))
        if f.high is not None:
            low, high = min(low, code.steps(f.high)), min(high, code.steps(f.high))
    return low, high


# ---- exact ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SingleRule:
    """One integer tensor in: thresholds, as a table where it is small, else as a multiplier where one is proven."""

    node: str
    axis: int
    exact: ChannelSteps
    fast: AffineShift | None
    error: int

    def apply(self, sources: Mapping[str, Tensor], tally: Counter[str]) -> Tensor:
        a = sources[self.node]
        if self.error:
            below, above = self.exact.apply(a - self.error, self.axis), self.exact.apply(a + self.error, self.axis)
            tally["undecided"] += int((below != above).sum())
        best = self.exact if self.fast is None or self.exact.tabulated is not None else self.fast
        return best.apply(a, self.axis)


@dataclass(frozen=True)
class BorderRule:
    """A rule per border class, each on its rectangle of output positions."""

    border: Border
    rules: tuple[tuple[Rule, ...], ...]

    def apply(self, sources: Mapping[str, Tensor], tally: Counter[str]) -> Tensor:
        bands = []
        for row, run in enumerate(self.border.rows):
            band = {name: t[:, :, run.start : run.stop] for name, t in sources.items()}
            parts = [
                rule.apply({name: t[..., c.start : c.stop] for name, t in band.items()}, tally)
                for rule, c in zip(self.rules[row], self.border.columns, strict=True)
            ]
            bands.append(torch.cat(parts, -1))
        return torch.cat(bands, -2)


@dataclass(frozen=True)
class TableRule:
    """A table over all codes of one or two tensors: every entry decided with rationals."""

    nodes: tuple[str, ...]
    lows: tuple[int, ...]
    table: Tensor

    def apply(self, sources: Mapping[str, Tensor], tally: Counter[str]) -> Tensor:
        index = sources[self.nodes[0]].to(torch.int32) - self.lows[0]
        if len(self.nodes) == 2:
            index = index * self.table.shape[1] + (sources[self.nodes[1]].to(torch.int32) - self.lows[1])
        return self.table.reshape(-1).to(index.device).index_select(0, index.reshape(-1)).view(index.shape)


@dataclass(frozen=True)
class SumRule:
    """Several terms: an int64 fixed-point sum with a proven error, and rationals within that error of a threshold."""

    form: Form
    steps: tuple[Steps, ...]
    multipliers: tuple[Tensor, ...]
    offset: Tensor
    shift: int
    error: int
    decidable: bool
    low: int
    high: int
    marks: ChannelSteps | None

    def apply(self, sources: Mapping[str, Tensor], tally: Counter[str]) -> Tensor:
        values = [product(sources, term.nodes) for term in self.form.terms]
        ndim, axis = max(v.ndim for v in values), self.form.axis
        total: Tensor | None = None
        for value, m in zip(values, self.multipliers, strict=True):
            part = value * along([m], ndim, axis)[0]
            total = part if total is None else total + part
        assert total is not None
        total = total + along([self.offset], ndim, axis)[0]
        below, above = self._codes(total - self.error), self._codes(total + self.error)
        unsure = below != above
        codes = self._codes(total)
        count = int(unsure.sum())
        if count and self.decidable:
            self._decide(codes, unsure, values)
            tally["decided with rationals"] += count
        elif count:
            tally["undecided"] += count
        return codes

    def _codes(self, total: Tensor) -> Tensor:
        if self.marks is not None:
            return self.marks.apply(total, self.form.axis)
        return (total >> self.shift).clamp_(self.low, self.high)

    def _decide(self, codes: Tensor, unsure: Tensor, values: Sequence[Tensor]) -> None:
        """Exact codes where `unsure`; equal inputs are decided once."""
        where = unsure.nonzero(as_tuple=True)
        channel = where[self.form.axis] if self.form.rows > 1 else torch.zeros_like(where[0])
        rows = torch.stack([channel, *(v.expand_as(codes)[where] for v in values)], 1)
        distinct, back = torch.unique(rows, dim=0, return_inverse=True)
        decided = []
        for k, *row in distinct.tolist():
            u = at(self.form.intercepts, k) + sum(
                (at(t.slopes, k) * v for t, v in zip(self.form.terms, row, strict=True)), Fraction(0)
            )
            decided.append(self.steps[k if len(self.steps) > 1 else 0](u))
        codes[where] = torch.tensor(decided, device=codes.device)[back]


def exact_rule(form: Form, code: CodeSpec, ranges: Mapping[str, Range], *, naive: bool = False) -> Rule:
    """The rule that gives round-half-even(clamp((f(u) - beta)/s, n, p)) for every reachable input.

    `naive`: a border is replaced by the constant bias of Eq. 5.
    """
    if form.border is not None:
        return with_border(form, naive, lambda plain: exact_rule(plain, code, ranges))
    steps = pulled_steps(form, code)
    if len(form.terms) == 1 and len(form.terms[0].nodes) == 1:
        return _single_rule(form, code, steps, ranges[form.terms[0].nodes[0]])
    sources = form.sources
    sizes = [ranges[s].largest - ranges[s].least + 1 for s in sources]
    exact_sources = all(ranges[s].error == 0 for s in sources)
    if form.rows == 1 and len(sources) <= 2 and math.prod(sizes) <= LARGEST_TABLE and exact_sources:
        return _table_rule(form, steps[0], ranges)
    return _sum_rule(form, code, steps, ranges)


def with_border(form: Form, naive: bool, build: Callable[[Form], Rule]) -> Rule:
    border = form.border
    assert border is not None
    plain = dataclasses.replace(form, border=None)
    if naive:
        return build(dataclasses.replace(plain, intercepts=plus(plain.intercepts, border.naive())))
    built: dict[tuple[int, ...], Rule] = {}
    rules = []
    for row in range(len(border.rows)):
        line: list[Rule] = []
        for c in range(len(border.columns)):
            key = tuple(border.table[row, c].tolist())
            if key not in built:
                intercepts = plus(plain.intercepts, border.intercepts(row, c))
                built[key] = build(dataclasses.replace(plain, intercepts=intercepts))
            line.append(built[key])
        rules.append(tuple(line))
    return BorderRule(border, tuple(rules))


def _single_rule(form: Form, code: CodeSpec, steps: list[Steps], range_: Range) -> SingleRule:
    rows, slopes = form.rows, form.terms[0].slopes
    low = [range_.low[k if len(range_.low) > 1 else 0] for k in range(rows)]
    high = [range_.high[k if len(range_.high) > 1 else 0] for k in range(rows)]
    if rows == 1:
        low, high = [range_.least], [range_.largest]
    all_slopes = [at(slopes, k) for k in range(rows)]
    all_intercepts = [at(form.intercepts, k) for k in range(rows)]
    exact = channel_steps(all_slopes, all_intercepts, steps, low, high)
    line = line_of(form, code, form.intercepts)
    fast = proven_multiplier(line, exact) if line is not None else None
    return SingleRule(form.terms[0].nodes[0], form.axis, exact, fast, range_.error)


def _table_rule(form: Form, steps: Steps, ranges: Mapping[str, Range]) -> TableRule:
    """All combinations by float64 first; those that it cannot tell from a threshold again by rationals."""
    sources = form.sources
    spans = [range(ranges[s].least, ranges[s].largest + 1) for s in sources]
    grid = np.meshgrid(*[np.arange(span.start, span.stop, dtype=np.float64) for span in spans], indexing="ij")
    u = np.full(grid[0].shape, float(form.intercepts[0]))
    size = np.abs(u)
    for term in form.terms:
        part = float(term.slopes[0]) * np.prod([grid[sources.index(n)] for n in term.nodes], axis=0)
        u, size = u + part, size + np.abs(part)
    marks = np.array([float(t) for t in steps.thresholds])
    table = np.array(steps.codes)[np.searchsorted(marks, u, side="right")]
    if len(marks):
        nearest = marks[np.clip(np.searchsorted(marks, u), 0, len(marks) - 1)]
        below = marks[np.clip(np.searchsorted(marks, u) - 1, 0, len(marks) - 1)]
        gap = np.minimum(np.abs(nearest - u), np.abs(below - u))
        for where in zip(*np.nonzero(gap <= 1e-12 * (size + np.abs(marks).max())), strict=True):
            value = {s: span[i] for s, span, i in zip(sources, spans, where, strict=True)}
            exact = form.intercepts[0]
            for term in form.terms:
                exact += term.slopes[0] * math.prod(value[n] for n in term.nodes)
            table[where] = steps(exact)
    return TableRule(sources, tuple(span.start for span in spans), torch.from_numpy(table.astype(np.int64)))


def check_width(magnitudes: Sequence[int]) -> None:
    """UnsupportedOp where an integer, or the error carried with it, needs more than 64 bits."""
    most = max(magnitudes)
    if most >= 2**62:
        raise UnsupportedOp(
            f"a product or sum of values without a quantizer needs {most.bit_length() + 1} bits, and integers have 64 "
            "here: quantize its operands (additions and products by elementwise_bits)"
        )


def _sum_rule(form: Form, code: CodeSpec, steps: list[Steps], ranges: Mapping[str, Range]) -> SumRule:
    """Coefficients in units of a code where only clamps follow, else of u; as many fractional bits as int64 allows."""
    rows = form.rows
    is_line = all(isinstance(f, Clamp) for f in form.functions)
    unit = code.s if is_line else Fraction(1)
    shifted = (code.beta - code.s / 2) if is_line else Fraction(0)
    reaches = [max(map(abs, product_range(ranges, t.nodes))) for t in form.terms]
    span = (
        max(
            sum(abs(at(t.slopes, k)) * reach for t, reach in zip(form.terms, reaches, strict=True))
            + abs(at(form.intercepts, k) - shifted)
            for k in range(rows)
        )
        / unit
    )
    shift = max(0, min(50, HEADROOM - 2 - math.ceil(span + 1).bit_length()))
    scale = Fraction(2) ** shift / unit
    multipliers = tuple(column([round(at(t.slopes, k) * scale) for k in range(len(t.slopes))]) for t in form.terms)
    offset = column([round((at(form.intercepts, k) - shifted) * scale) for k in range(rows)])
    error = 1 + math.ceil(Fraction(sum(reaches) + 1, 2))
    inexact = 0
    for t in form.terms:
        for node in t.nodes:
            others = math.prod(ranges[n].reach for n in t.nodes if n != node)
            inexact += math.ceil(ranges[node].error * others * max(map(abs, t.slopes)) * scale)
    check_width([*reaches, error + inexact])
    doubt = (error + inexact) / (scale * code.s)  # in steps of the quantizer
    if inexact and doubt > _LARGEST_DOUBT:
        raise UnsupportedOp(
            f"a product of values without a quantizer is known to {float(doubt):.2g} steps of it only: quantize the "
            "product's operands"
        )
    marks = None
    low, high = code_limits(form, code) if is_line else (code.n, code.p)
    if not is_line:
        edge = 2**HEADROOM
        marks = channel_steps([1 / scale] * len(steps), [Fraction(0)] * len(steps), steps, [-edge] * len(steps),
                              [edge] * len(steps))  # fmt: skip
    return SumRule(form, tuple(steps), multipliers, offset, shift, error + inexact, inexact == 0, low, high, marks)
