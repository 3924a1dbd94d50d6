# pyright: basic
"""Bits learned by gradient: an exact cost that is differentiable in the bits, and a network that feels them.

    cost = SoftCost(problem, "energy_pj")                  # problem = bit_problem(..., Freedom(..., tied=True))
    net = learn_bits(model, cost, batches)                 # every place that rounds blends its two nearest widths
    loss = F.cross_entropy(net(x), y) + strength * cost()

Between two widths the cost is the multilinear interpolation of the tables: at integer bits it equals them, inside a
cell its gradient is exact. The blend of two quantizers is linear in the same shares, so loss and cost see one set of
bits. `cost.solution()` rounds them; the mappings behind the tables are fixed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from hwsim.errors import SpecError
from hwsim.explore.bits.bill import BitProblem
from hwsim.explore.bits.problem import Solution
from quant.convert import quantize
from quant.layers import QMean
from quant.quantizer import BaseQuantizer
from quant.whole_models import initialise, quantizers


class SoftCost(nn.Module):
    """A measure of a bits problem as a function of real-valued bits, in shares of its value at the widest.

    `bits` (choices,) is the parameter that is learned; it starts at each choice's widest and stays within its widths.
    Raises SpecError where the machine refuses combinations: between a width it runs and one it does not is no cost.
    """

    def __init__(self, made: BitProblem, measure: str = "energy_pj") -> None:
        super().__init__()
        problem = made.problem
        if problem.refusals:
            raise SpecError(f"{problem.refusals[0].why} some of these widths together: allow only widths that it runs")
        self.made, self.measure = made, problem.measure(measure)
        self.widths = [torch.tensor(choice.widths, dtype=torch.float64) for choice in problem.choices]
        self.bits = nn.Parameter(torch.stack([w[-1] for w in self.widths]))
        self.tables = [
            [(term.scope, torch.from_numpy(term.values.copy())) for term in row] for row in self.measure.rows
        ]
        self.unit = problem.solution([len(choice.widths) - 1 for choice in problem.choices]).values[measure]

    def shares(self, index: int) -> Tensor:
        """Shares of a choice's widths, (widths,): linear between the two nearest, one at a width."""
        widths, bits = self.widths[index], self.bits[index]
        with torch.no_grad():
            self.bits[index].clamp_(float(widths[0]), float(widths[-1]))
        if len(widths) == 1:
            return torch.ones(1, dtype=torch.float64)
        low = min(int((widths <= bits.detach()).sum()) - 1, len(widths) - 2)
        up = (bits - widths[low]) / (widths[low + 1] - widths[low])
        rest = torch.zeros(len(widths), dtype=torch.float64)
        return rest.index_put((torch.tensor([low, low + 1]),), torch.stack([1 - up, up]))

    def value(self) -> Tensor:
        """The measure in its own unit (pJ, cycles, bits) at the present bits."""
        shares = [self.shares(i) for i in range(len(self.widths))]
        sums = []
        for row in self.tables:
            total = torch.zeros((), dtype=torch.float64)
            for scope, table in row:
                for index in reversed(scope):  # contracts the last axis first
                    table = table @ shares[index]
                total = total + table
            sums.append(total)
        return torch.stack(sums).max()

    def forward(self) -> Tensor:
        """The measure as a share of its value at the widest widths."""
        return self.value() / self.unit

    def solution(self) -> Solution:
        """The bits rounded to the nearest allowed width (the wider of two), with their values."""
        picks = []
        for widths, bits in zip(self.widths, self.bits.detach(), strict=True):
            distance = (widths - bits).abs()
            picks.append(max(i for i in range(len(widths)) if distance[i] == distance.min()))
        return self.made.problem.solution(picks)


class Blend(nn.Module):
    """Quantizers of one place at all its widths, blended by the shares of its bits."""

    def __init__(self, cost: SoftCost, index: int, by_width: dict[int, BaseQuantizer]) -> None:
        super().__init__()
        self.index, self.choices = index, [f"bits_{int(w)}" for w in cost.widths[index].tolist()]
        self.widest = by_width[int(cost.widths[index][-1])]
        for width in cost.widths[index].tolist():
            self.add_module(f"bits_{int(width)}", by_width[int(width)])
        object.__setattr__(self, "cost", cost)  # the cost owns the bits; they are not this module's parameters twice

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("widest"), name)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The blend of the quantizers whose share is not zero; a layer's border code is blended alike."""
        shares = self.cost.shares(self.index).to(x.dtype)
        total: Any = None
        for name, share, used in zip(self.choices, shares, (shares.detach() != 0).tolist(), strict=True):
            if not used and not self.near(name):
                continue
            found = getattr(self, name)(x, *args, **kwargs)
            part = tuple(share * f for f in found) if isinstance(found, tuple) else share * found
            total = part if total is None else added(total, part)
        return total

    def near(self, name: str) -> bool:
        """Whether a width borders on the present cell, so that its share has a gradient though it is zero."""
        widths = self.cost.widths[self.index]
        if len(widths) == 1:
            return True
        low = min(int((widths <= self.cost.bits[self.index].detach()).sum()) - 1, len(widths) - 2)
        return self.choices.index(name) in (low, low + 1)


def added(a: Any, b: Any) -> Any:
    """Sum of two results of a quantizer: tensors, or pairs of them."""
    return tuple(x + y for x, y in zip(a, b, strict=True)) if isinstance(a, tuple) else a + b


class LearnedBits(nn.Module):
    """A network whose places that round blend widths; `cost.bits` is among its parameters."""

    def __init__(self, network: nn.Module, cost: SoftCost) -> None:
        super().__init__()
        self.network, self.cost = network, cost

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the network's."""
        return self.network(*args, **kwargs)


def learn_bits(model: nn.Module, cost: SoftCost, batches: Iterable[Any], **settings: Any) -> LearnedBits:
    """A quantized copy of a float model that feels `cost.bits`; steps and offsets are set from `batches`.

    `settings` go to `quant.quantize`. Raises SpecError where the model's places are not those of the problem.
    """
    batches = list(batches)
    settings = {"init": "mse", "first_last": "same", "elementwise_bits": "same", **settings}
    places = {(s.layer, s.operand): i for i, entry in enumerate(cost.made.freed) for s in entry.sites}
    copies = {}
    for width in sorted({int(w) for widths in cost.widths for w in widths.tolist()}):
        made, _ = quantize(model, weight_bits=width, act_bits=width, **settings)
        copies[width] = dict(quantizers(initialise(made, batches)))
    network, _ = quantize(model, weight_bits=8, act_bits=8, **settings)
    initialise(network, batches)
    means = {name for name, module in network.named_modules() if isinstance(module, QMean)}
    for name, quantizer in list(quantizers(network)):
        operand = "weight" if quantizer.is_weight else "input"
        owner = max((layer for layer, _ in places if name.startswith(f"{layer}.")), key=len, default=None)
        if name.rpartition(".input_quantizers")[0] in means:
            continue  # its input keeps 8 bits: the result is rounded again by what reads it
        if owner is None or (owner, operand) not in places:
            raise SpecError(f"{name}: no place of the problem's network {cost.made.workload.name}: same model?")
        index = places[owner, operand]
        by_width = {int(w): copies[int(w)][name] for w in cost.widths[index].tolist()}
        network.set_submodule(name, Blend(cost, index, by_width))
    return LearnedBits(network, cost)
