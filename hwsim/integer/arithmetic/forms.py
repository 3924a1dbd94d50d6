# pyright: basic
"""What stands between two quantizers, in integers: u = sum_i slopes_i * (product of integer tensors) + intercept.

A `Form` is that affine sum with exact rational coefficients, per channel or for all, followed by scalar functions
(ReLU, SiLU, a batch norm after them, ...). LSQ+ Eq. 5 is the case of one accumulator: slope s_x*s_w_k, and beta folded
into the intercept; `Border` is what is left of the offset where the padding cuts the kernel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from hwsim.integer.arithmetic.geometry import Run
from hwsim.integer.arithmetic.steps import Floats, ScalarFunction, Steps

Rationals = tuple[Fraction, ...]
"""One number for all channels, or one per channel."""


def rationals(values: Tensor | Sequence[float] | float) -> Rationals:
    """The exact rationals behind floating-point numbers."""
    if isinstance(values, Tensor):
        values = values.detach().double().reshape(-1).tolist()
    if isinstance(values, (int, float)):
        return (Fraction(float(values)),)
    return tuple(Fraction(float(v)) for v in values)


def at(values: Rationals, k: int) -> Fraction:
    """Entry of channel k."""
    return values[0] if len(values) == 1 else values[k]


def rows_of(*many: Rationals) -> int:
    """Number of channels that these speak of: 1 if all are single. ValueError when they contradict each other."""
    found = {len(v) for v in many if len(v) > 1}
    if len(found) > 1:
        raise ValueError(f"coefficients of {sorted(found)} channels meet")
    return found.pop() if found else 1


def times(a: Rationals, b: Rationals) -> Rationals:
    """Channel by channel product."""
    return tuple(at(a, k) * at(b, k) for k in range(rows_of(a, b)))


def plus(a: Rationals, b: Rationals) -> Rationals:
    """Channel by channel sum."""
    return tuple(at(a, k) + at(b, k) for k in range(rows_of(a, b)))


def along_axis(values: Rationals, ndim: int, axis: int, device: torch.device) -> Tensor:
    """Coefficients as float64, shaped to broadcast along `axis`."""
    shape = [1] * ndim
    shape[axis] = -1
    return torch.tensor([float(v) for v in values], dtype=torch.float64, device=device).view(shape)


@dataclass(frozen=True)
class Affine:
    """slopes_k * u + intercepts_k after a function: a batch norm behind an activation, a product with a constant."""

    slopes: Rationals
    intercepts: Rationals
    name = "affine"

    def channel(self, k: int) -> Affine:
        """The affine function of one channel."""
        return Affine((at(self.slopes, k),), (at(self.intercepts, k),))

    def __call__(self, u: Floats) -> Floats:
        return np.asarray(u * float(self.slopes[0]) + float(self.intercepts[0]))

    def torch(self, u: Tensor, axis: int) -> Tensor:
        """The same on a tensor, channels along `axis`."""
        slopes, intercepts = (along_axis(v, u.ndim, axis, u.device) for v in (self.slopes, self.intercepts))
        return u * slopes + intercepts

    def pull_back(self, steps: Steps) -> Steps:
        """Thresholds (t - intercept)/slope; a negative slope runs through the codes backwards. Single channel only."""
        slope, intercept = self.slopes[0], self.intercepts[0]
        if slope == 0:
            return Steps((), (), (steps(intercept),))
        moved = [(t - intercept) / slope for t in steps.thresholds]
        if slope > 0:
            return Steps(tuple(moved), steps.closed, steps.codes)
        return Steps(tuple(moved[::-1]), tuple(not c for c in steps.closed[::-1]), steps.codes[::-1])


Function = ScalarFunction | Affine


@dataclass(frozen=True)
class Term:
    """slopes * product of the named integer tensors (one, or two for a product of activations)."""

    nodes: tuple[str, ...]
    slopes: Rationals


@dataclass(frozen=True)
class Border:
    """Offset of a convolution padded with real zeros: slopes_k * table[row run, column run, k], added to u.

    `table` holds the sums of the weight codes on data, `full` those of the whole kernel: the naive constant bias.
    """

    rows: tuple[Run, ...]
    columns: tuple[Run, ...]
    table: Tensor
    full: Tensor
    slopes: Rationals

    def intercepts(self, row: int, column: int) -> Rationals:
        """What this border class adds to the intercepts."""
        return tuple(at(self.slopes, k) * int(v) for k, v in enumerate(self.table[row, column]))

    def naive(self) -> Rationals:
        """What the constant bias of Eq. 5 adds everywhere."""
        return tuple(at(self.slopes, k) * int(v) for k, v in enumerate(self.full))

    @property
    def classes(self) -> int:
        """Number of distinct bias vectors: classes whose sums agree in every channel are one."""
        return len({tuple(row.tolist()) for row in self.table.reshape(-1, self.table.shape[-1])})


@dataclass(frozen=True)
class Form:
    """u = sum of terms + intercepts (+ border), channels along `axis`, then `functions` in order. Batch first."""

    terms: tuple[Term, ...]
    intercepts: Rationals
    shape: tuple[int, ...]
    axis: int = 1
    functions: tuple[Function, ...] = ()
    border: Border | None = None

    @property
    def rows(self) -> int:
        """Channels that the coefficients distinguish."""
        many = [t.slopes for t in self.terms] + [self.intercepts]
        many += [f.slopes for f in self.functions if isinstance(f, Affine)]
        many += [f.intercepts for f in self.functions if isinstance(f, Affine)]
        return max(rows_of(*many), 1 if self.border is None else self.border.table.shape[-1])

    @property
    def sources(self) -> tuple[str, ...]:
        """Distinct integer tensors it reads, in order."""
        return tuple(dict.fromkeys(node for term in self.terms for node in term.nodes))

    def affine(self, slopes: Rationals, intercepts: Rationals) -> Form:
        """slopes * value + intercepts."""
        if self.functions:
            return self.then(Affine(slopes, intercepts))
        border = self.border
        if border is not None:
            border = dataclasses.replace(border, slopes=times(border.slopes, slopes))
        return dataclasses.replace(
            self,
            terms=tuple(Term(t.nodes, times(t.slopes, slopes)) for t in self.terms),
            intercepts=plus(times(self.intercepts, slopes), intercepts),
            border=border,
        )

    def then(self, *functions: Function) -> Form:
        """The same with further functions behind it."""
        return dataclasses.replace(self, functions=(*self.functions, *functions))

    def bare(self) -> Form:
        """Without its functions."""
        return dataclasses.replace(self, functions=())
