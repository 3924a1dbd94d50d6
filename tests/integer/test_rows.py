"""What the integer machine cannot follow is told by name: rows that are no samples, operators that do not run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quant
from hwsim.errors import UnsupportedOp
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.certificate import certify


class Net(nn.Module):
    """A linear layer and a function round it."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


class TimeFirst(nn.Module):
    """A loop over the first axis, as PyTorch's recurrent cells are called: causal, so the first row is never wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[1], 8)
        states = []
        for t in range(x.shape[0]):
            state = self.cell(x[t], state)
            states.append(state)
        return self.head(torch.stack(states))


class Graph(nn.Module):
    """Messages along edges: two inputs with different numbers of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        return self.layer(nodes[edges[0]])


class Cache(nn.Module):
    """A row of a cache is written at a position that the caller gives."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.register_buffer("cache", torch.zeros(1, 4, 8))

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        self.cache[:, position] = x
        return self.layer(self.cache.sum(1))


def quantized(model: nn.Module, *inputs: Tensor) -> nn.Module:
    torch.manual_seed(0)
    result, _ = quant.quantize(model.eval(), weight_bits=8, act_bits=8, example=inputs)
    return quant.initialise(result, [inputs]).eval()


MIXED: dict[str, tuple[nn.Module, tuple[Tensor, ...], str]] = {
    "time first": (TimeFirst(), (torch.randn(5, 2, 8),), "rows of its input are no samples"),
    "mean of a batch": (Net(lambda m, x: m.layer(x - x.mean(0))), (torch.randn(4, 8),), "rows of its input"),
    "graph": (Graph(), (torch.randn(7, 8), torch.zeros(2, 9).long()), r"its inputs have \[2, 7\] rows"),
    "size by values": (Net(lambda m, x: m.layer(x[x[:, 0] > -9])), (torch.randn(4, 8),), "this form of index"),
    "batch in the code": (Net(lambda m, x: m.layer(x.reshape(4, 8))), (torch.randn(4, 8),), "does not run in float64"),
    "float32 array": (
        Net(lambda m, x: torch.zeros(len(x), 8).index_add(0, torch.arange(len(x)), m.layer(x))),
        (torch.randn(4, 8),),
        "index_add does not run in float64 beside integers",
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_what_has_no_integer_network_of_one_row_is_refused_by_name(name: str) -> None:
    model, inputs, message = MIXED[name]
    with pytest.raises(UnsupportedOp, match=message):
        certify(quantized(model, *inputs), inputs)


def test_positions_that_are_an_input_stay_whole_numbers() -> None:
    inputs = (torch.randn(1, 1, 8), torch.tensor([2]))
    assert certify(quantized(Cache(), *inputs), inputs).equal


def test_a_network_of_one_row_needs_no_second_one() -> None:
    model = quantized(Net(lambda m, x: m.layer(x)), torch.randn(4, 8))
    assert lower(model, torch.randn(1, 8)).nodes
