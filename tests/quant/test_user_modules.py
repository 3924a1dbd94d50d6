"""quantize() on networks as users write them: W8A8 near the float network, or refused by name; nothing left unnamed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quant
from quant.plan import Plan
from tests.quant.user_modules import MODULES, Case

WORKING = {name: case for name, case in MODULES.items() if not case.refused}
WEIGHTED = ("conv", "linear", "embedding", "lstm", "gru", "rnn")


def made(case: Case) -> tuple[nn.Module, tuple[Any, ...]]:
    torch.manual_seed(0)
    return case.make().eval(), case.inputs()


def quantized(case: Case) -> tuple[nn.Module, nn.Module, Plan, tuple[Any, ...]]:
    model, inputs = made(case)
    result, plan = quant.quantize(model, weight_bits=8, act_bits=8, **case.choices)
    quant.initialise(result, [inputs])
    return model, result.eval(), plan, inputs


def tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value.values() if isinstance(value, dict) else value)


@pytest.mark.long
@pytest.mark.parametrize("name", WORKING)
def test_eight_bits_stay_within_3_percent_and_the_plan_names_every_operation(name: str) -> None:
    case = WORKING[name]
    model, result, plan, inputs = quantized(case)
    with torch.no_grad():
        for found, expected in zip(tensors(result(*inputs)), tensors(model(*inputs)), strict=True):
            assert (found - expected).norm() <= 0.03 * expected.norm()
            assert not torch.equal(found, expected)
    operations = [layer.op for layer in plan.layers if not layer.op.startswith(WEIGHTED)]
    assert sorted(operations) == sorted(case.operations)
    assert sorted(left.op for left in plan.left if left.why != "one operand is a constant") == sorted(case.left)
    assert all(left.why for left in plan.left)


@pytest.mark.parametrize("name", [name for name, case in MODULES.items() if case.refused])
def test_what_has_no_functional_form_is_refused_with_the_reason(name: str) -> None:
    model, _ = made(MODULES[name])
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=MODULES[name].refused):
        quant.quantize(model, weight_bits=8, act_bits=8)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.long
@pytest.mark.parametrize("name", WORKING)
def test_copies_and_checkpoints_compute_the_same_and_gradients_reach_all(name: str) -> None:
    case = WORKING[name]
    model, result, _, inputs = quantized(case)
    again, _ = quant.quantize(model, weight_bits=8, act_bits=8, **case.choices)
    again.load_state_dict({key: value.clone() for key, value in result.state_dict().items()})
    twin = copy.deepcopy(result)
    assert [n for n, _ in twin.named_parameters()] == [n for n, _ in result.named_parameters()]
    with torch.no_grad():
        expected = tensors(result(*inputs))
        for other in (again.eval(), twin):
            assert all(torch.equal(a, b) for a, b in zip(tensors(other(*inputs)), expected, strict=True))
    if not case.trains:
        return
    sum(t.square().mean() for t in tensors(result.train()(*inputs))).backward()
    used = {n for n, p in result.named_parameters() if p.grad is not None}
    assert all(bool(torch.isfinite(p.grad).all()) for _, p in result.named_parameters() if p.grad is not None)
    steps = {n for n, _ in result.named_parameters() if n.endswith("quantizer.s")}
    assert steps <= used


class Ring(nn.Module):
    """Keeps the last four results of its layer, as streaming networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(8, 8), nn.Linear(32, 3)
        self.register_buffer("kept", torch.zeros(1, 4, 8))

    def forward(self, x: Tensor) -> Tensor:
        self.kept = torch.roll(self.kept, -1, 1)
        self.kept[:, -1] = self.layer(x)
        return self.out(self.kept.flatten(1))


def test_initialising_leaves_the_states_of_a_network_as_they_were() -> None:
    torch.manual_seed(0)
    model = Ring().eval()
    result, _ = quant.quantize(copy.deepcopy(model), weight_bits=16, act_bits=16, example=(torch.zeros(1, 8),))
    quant.initialise(result, [(1.3 * torch.randn(1, 8),) for _ in range(100)])
    (state,) = [buffer for name, buffer in result.named_buffers() if name.endswith("kept")]
    assert not state.any()
    with torch.no_grad():
        for _ in range(3):
            x = torch.randn(1, 8)
            expected = model(x)
            assert (result(x) - expected).norm() <= 0.001 * expected.norm()
