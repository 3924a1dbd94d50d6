"""The integer machine on networks as users write them: every code the float64 network's, or refused by name before."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import quant
from hwsim.errors import UnsupportedOp
from hwsim.integer.export.onnx_check import agreement
from hwsim.integer.export.onnx_source import onnx_network
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.certificate import certify
from hwsim.integer.run import Machine
from tests.integer.nets import enliven
from tests.quant.user_modules import MODULES

WORKING = {name: case for name, case in MODULES.items() if not case.refused}


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, case in WORKING.items() if case.integer])
def test_every_code_is_the_float64_networks(name: str) -> None:
    case = WORKING[name]
    torch.manual_seed(0)
    model, inputs = enliven(case.make()), case.inputs()
    quantized, _ = quant.quantize(model, weight_bits=8, act_bits=8, **case.choices)
    quant.initialise(quantized, [inputs])
    found = certify(quantized, inputs)
    assert found.equal
    assert sum(layer.codes.elements for layer in found.layers) > 0
    assert found.images == len(inputs[0])


@pytest.mark.parametrize("name", [name for name, case in WORKING.items() if not case.integer])
def test_layers_without_integer_form_are_named_before_anything_is_computed(name: str) -> None:
    case = WORKING[name]
    torch.manual_seed(0)
    model, inputs = case.make().eval(), case.inputs()
    quantized, _ = quant.quantize(model, weight_bits=8, act_bits=8)
    quant.initialise(quantized, [inputs])
    with pytest.raises(UnsupportedOp, match=r"no integer form for|no quantizer; quantize the layer"):
        certify(quantized, inputs)


def transposed(
    c_in: int, c_out: int, kernel: int, stride: int, padding: int, extra: int, groups: int, dilation: int
) -> nn.Module:
    """A transposed convolution between two others, behind an activation with an offset."""
    return nn.Sequential(
        nn.Conv2d(3, c_in, 3, padding=1), nn.SiLU(),
        nn.ConvTranspose2d(c_in, c_out, kernel, stride, padding, extra, groups, dilation=dilation), nn.SiLU(),
        nn.Conv2d(c_out, 2, 1),
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(
    "numbers",
    [(4, 6, 2, 2, 0, 0, 1, 1), (4, 6, 3, 2, 1, 1, 2, 1), (4, 4, 4, 3, 2, 0, 4, 1), (4, 6, 3, 1, 0, 0, 1, 2),
     (4, 2, 2, 3, 0, 2, 1, 1), (2, 4, 3, 2, 2, 0, 1, 1)],
)  # fmt: skip
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_codes_behind_transposed_convolutions_are_float64s(numbers: tuple[int, ...], granularity: str) -> None:
    """Strides, cut borders, outputs that no tap meets, groups, dilation: with an offset at the input."""
    torch.manual_seed(0)
    x = torch.randn(3, 3, 5, 6)
    model, _ = quant.quantize(
        transposed(*numbers), weight_bits=4, act_bits=4, first_last="same", weight_granularity=granularity
    )
    quant.initialise(model, [x])
    assert model[2].input_quantizer.offset().item() != 0
    found = certify(model, x)
    assert found.equal
    assert not found.float_operators
    lowered = lower(model, x)
    ours = Machine(lowered).run(x).values
    torch.testing.assert_close(ours, model.double().eval()(x.double()), rtol=1e-6, atol=1e-6)


class Averages(nn.Module):
    """One pool between two convolutions, without and with an activation."""

    def __init__(self, pool: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.a, self.act, self.pool, self.b = nn.Conv2d(3, 3, 3, padding=1), act, pool, nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.pool(self.act(self.a(x))))


@pytest.mark.parametrize("act", [nn.Identity(), nn.ReLU(), nn.SiLU()], ids=["none", "relu", "silu"])
@pytest.mark.parametrize(
    "pool",
    [nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AvgPool2d(2, 2, ceil_mode=True),
     nn.AdaptiveAvgPool2d(4), nn.AdaptiveAvgPool2d((3, None)), nn.AdaptiveMaxPool2d((2, 5)),
     nn.MaxPool2d(3, 2, 1, ceil_mode=True)],
    ids=lambda pool: repr(pool).replace(" ", ""),
)  # fmt: skip
def test_codes_behind_pools_of_every_border_are_float64s(pool: nn.Module, act: nn.Module) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 3, 9, 7)
    model, _ = quant.quantize(Averages(pool, act), weight_bits=8, act_bits=8)
    quant.initialise(model, [x])
    found = certify(model, x)
    assert found.equal
    assert not found.float_operators


class HalfGated(nn.Module):
    """A product in place through a view, which no graph of operators replaces: its operands have no quantizer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        z = self.b(y)
        y[:, 2:].mul_(z[:, 2:])
        return self.out(y)


def test_products_too_wide_to_be_decided_are_refused_before_anything_is_computed() -> None:
    torch.manual_seed(0)
    x = torch.rand(4, 3, 8, 8)
    model, _ = quant.quantize(HalfGated().eval(), weight_bits=8, act_bits=8, example=x)
    quant.initialise(model, [x])
    with pytest.raises(UnsupportedOp, match=r"layer out\.input_quantizer: .* quantize the product's operands"):
        certify(model, x)


def test_constants_beside_activations_are_exported_for_every_sample() -> None:
    """A file is written for one sample and run on four: zeros that stay in a filled array are there for each."""
    pytest.importorskip("onnxruntime")
    for name in ("FilledStepByStep", "EverySpelling", "GateExpanded"):
        torch.manual_seed(0)
        model, inputs = enliven(MODULES[name].make()), MODULES[name].inputs()
        quantized, _ = quant.quantize(model, weight_bits=8, act_bits=8)
        quant.initialise(quantized, [inputs])
        found = agreement(onnx_network(quantized, inputs[0]), lower(quantized, inputs[0]), inputs[0])
        assert found.differing <= 1e-3 * found.codes + 1
        assert found.largest <= 1


@dataclass
class Found:
    """A result with fields."""

    logits: Tensor
    features: Tensor


class GivesFields(nn.Module):
    """A dataclass as result."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Found:
        features = torch.relu(self.first(x))
        return Found(self.second(features), features)


def test_a_dataclass_of_results_is_certified_by_its_answer() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    quantized, _ = quant.quantize(GivesFields(), weight_bits=8, act_bits=8)
    quant.initialise(quantized, [x])
    found = certify(quantized, x)
    assert found.equal
    assert len(found.layers) >= 2


class Counts(nn.Module):
    """A buffer that every run writes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)
        self.register_buffer("runs", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return self.layer(x)


def test_a_state_has_no_integer_form() -> None:
    x = torch.randn(4, 8)
    quantized, _ = quant.quantize(Counts(), weight_bits=8, act_bits=8, example=x)
    quant.initialise(quantized, [x])
    with pytest.raises(UnsupportedOp, match="every run writes its buffer runs: an integer network keeps no state"):
        certify(quantized, x)
