# pyright: basic
"""Weights whose steps or offsets change within a sum: groups, blocks, and offsets of any size.

With w = s_g w_code + beta_g in group g and x = s_x x_code + beta_x, a sum over the window is
    s_x sum_g s_g P_g + s_x sum_g beta_g X_g + beta_x sum w,   P_g = sum x_code w_code, X_g = sum x_code over the group.
P_g and X_g are accumulators of their own, terms of one form. The third part is known beforehand: a bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from hwsim.integer import graph
from hwsim.integer.arithmetic.forms import Form, Rationals, Term, plus, times
from hwsim.integer.arithmetic.geometry import Window
from hwsim.integer.arithmetic.kernels import accumulator_bounds, magnitude_bound, narrowest
from hwsim.integer.arithmetic.rules import CodeSpec, Range
from hwsim.integer.lowering.walk import Lowering
from hwsim.integer.lowering.weights import Group, Weight


@dataclass(frozen=True)
class Site:
    """Where a weight meets its codes: their node, quantizer and, for a convolution, the window."""

    source: str
    code: CodeSpec
    window: Window | None
    padding: graph.Padding
    shape: tuple[int, ...]


def grouped_sums(low: Lowering, site: Site, weight: Weight, constant: Rationals) -> Form:
    """The form of a linear layer or convolution, an accumulator for each group and for each sum of codes."""
    terms: list[Term] = []
    code, first = site.code, ""
    for index, group in enumerate(weight.groups):
        own = weight.codes[(slice(None), *group.place)]
        sums = [int(v) for v in own.to(torch.int64).flatten(1).sum(1)]
        count = own[0].numel()
        share = graph.Share(
            index=index, of=first, count=own.numel(), group=weight.size, whole=tuple(weight.codes.shape),
            offset=any(any(g.offsets) for g in weight.groups),
        )  # fmt: skip
        node = _part(low, site, own, group, share, weight.element_bits)
        first = first or node
        terms.append(Term((node,), times(group.steps, (code.s,))))
        if any(group.offsets):
            ones = torch.ones_like(own if site.window is not None and site.window.groups > 1 else own[:1])
            summed = _part(low, site, ones, group, graph.Share(index=index, of=first), 0)
            terms.append(Term((summed,), times(group.offsets, (code.s,))))
        if code.beta != 0:
            inner = plus(times(group.steps, tuple(map(Fraction, sums))), times(group.offsets, (Fraction(count),)))
            constant = plus(constant, times(inner, (code.beta,)))
    axis = 1 if site.window is not None else len(site.shape) - 1
    return Form(tuple(terms), constant, site.shape, axis)


def _part(low: Lowering, site: Site, own: Tensor, group: Group, share: graph.Share, element_bits: int) -> str:
    """Accumulators of some of the weights: of the channels that they read, at their place of the kernel alone."""
    label = f"{low.layer}.{'accumulators' if share.count else 'codes'}"
    source, window = site.source, site.window
    if window is None:
        source = _channels(low, source, len(low.nodes[source].shape) - 1, group.place[0])
    elif window.groups == 1:
        source = _channels(low, source, 1, group.place[0])
        own = _within(own, group.place[1:], window.kernel)
    else:
        channels = low.nodes[source].shape[1] // window.groups
        own = _within(own, group.place[1:], window.kernel)
        whole = torch.zeros(len(own), channels, *own.shape[2:], dtype=own.dtype)
        whole[:, group.place[0]] = own
        own = whole
    least, largest = accumulator_bounds(own, site.code.n, site.code.p)
    shape = (*site.shape[:1], len(own), *site.shape[2:]) if window is not None else (*site.shape[:-1], len(own))
    return low.add(graph.Convolve(
        name=label, shape=shape, layer=low.layer, x=source, window=window,
        range=Range(tuple(least.tolist()), tuple(largest.tolist())),
        weight=own.to(narrowest(int(own.min()), int(own.max()))), padding=site.padding,
        bound=magnitude_bound(own, site.code.n, site.code.p), per_channel_scale=True, share=share,
        element_bits=element_bits,
    ))  # fmt: skip


def _within(own: Tensor, place: tuple[slice, ...], kernel: tuple[int, int]) -> Tensor:
    """Weights at their place of the kernel, zeros elsewhere."""
    whole = torch.zeros(*own.shape[:2], *kernel, dtype=own.dtype)
    whole[(slice(None), slice(None), *place)] = own
    return whole


def _channels(low: Lowering, source: str, axis: int, run: slice) -> str:
    """Some channels of codes."""
    shape = list(low.nodes[source].shape)
    if (run.start, run.stop) == (0, shape[axis]):
        return source
    shape[axis] = run.stop - run.start
    return low.move("slice", (source,), (axis, run.start, run.stop, 1), tuple(shape), f"{low.layer}.group")
