# pyright: basic
"""Weight codes of a quantized network, with the steps and offsets that give them a value."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from hwsim.errors import UnsupportedOp
from hwsim.integer.arithmetic.forms import Rationals, rationals
from quant import BaseQuantizer

# Terms of one sum: each is a pass over the weights here, and a multiply-add per output on a machine.
MOST_GROUPS = 4096


@dataclass(frozen=True)
class Group:
    """Weights of every output that share a step and an offset: where they lie behind the outputs' axis, and both."""

    place: tuple[slice, ...]
    steps: Rationals
    offsets: Rationals


@dataclass(frozen=True)
class Weight:
    """Weight codes w with w_hat = steps_k * w, K output channels first. With `groups`, of `size` channels (0: all), it
    is the group's steps_k * w + offsets_k. `element_bits`: stored bits of a float element, 0 for integers.
    """

    codes: Tensor
    steps: Rationals
    quantizer: str
    groups: tuple[Group, ...] = ()
    size: int = 0
    element_bits: int = 0

    def rows(self, some: slice) -> Weight:
        """The weights of some outputs."""

        def of(values: Rationals) -> Rationals:
            return values[some] if len(values) > 1 else values

        groups = tuple(Group(group.place, of(group.steps), of(group.offsets)) for group in self.groups)
        return replace(self, codes=self.codes[some], steps=of(self.steps), groups=groups)


def weight_of(made: BaseQuantizer, values: Tensor, name: str, layer: str) -> Weight:
    """Codes and steps of a weight; an offset of half a step becomes odd codes of half the step (DoReFa)."""
    bits = made.spec.bits if made.spec.element != "int" else 0
    with torch.no_grad():
        codes = made.codes(values).round().to(torch.int64)
        if made.spec.group:
            return Weight(codes, (), name, groups_of(made, values, layer), made.spec.group, bits)
        steps, offsets = rationals(made.step()), rationals(made.offset())
    ratios = {Fraction(float(o / s)).limit_denominator(64) for o, s in zip(offsets, steps, strict=True)}
    ratio = ratios.pop() if len(ratios) == 1 else Fraction(1, 3)
    if ratio.denominator > 2:
        return Weight(codes, (), name, groups_of(made, values, layer))
    codes = codes * ratio.denominator + ratio.numerator
    return Weight(codes, tuple(s / ratio.denominator for s in steps), name, element_bits=bits)


def groups_of(made: BaseQuantizer, values: Tensor, layer: str) -> tuple[Group, ...]:
    """Groups of a weight (K, C, ...): `spec.group` input channels at one place of the kernel, or all of an output's."""
    with torch.no_grad():
        steps, offsets = (
            t.double().expand(values.shape).contiguous() for t in (made.step_at(values), made.offset_at(values))
        )
    found: list[Group] = []
    for place in _places(tuple(values.shape[1:]), made.spec.group):
        if len(found) == MOST_GROUPS:
            raise UnsupportedOp(f"layer {layer}: over {MOST_GROUPS:,} groups in one sum; use wider groups")
        own, beside = (t[(slice(None), *place)].reshape(len(values), -1) for t in (steps, offsets))
        assert bool((own == own[:, :1]).all() and (beside == beside[:, :1]).all()), "a group with two steps"
        found.append(Group(place, rationals(own[:, 0]), rationals(beside[:, 0])))
    return tuple(found)


def _places(shape: tuple[int, ...], size: int) -> Iterator[tuple[slice, ...]]:
    """Where groups lie: runs of channels at every place of the kernel; without groups all of it."""
    if not size:
        yield tuple(slice(0, n) for n in shape)
        return
    for place in itertools.product(*(range(n) for n in shape[1:])):
        for start in range(0, shape[0], size):
            yield (slice(start, min(start + size, shape[0])), *(slice(i, i + 1) for i in place))
