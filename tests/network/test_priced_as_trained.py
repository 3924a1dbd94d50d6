"""`--bits WxAy` of a float network and `quant.quantize` at the same bits: equal at every operand, and in price."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import hwsim
import quant
from hwsim.network.rounding import restored
from hwsim.network.workload import Workload
from hwsim.report.look_up import look_up_table
from quant import models
from tests.network.priced_modules import NETWORKS
from tests.quant.user_modules import MODULES

pytestmark = pytest.mark.usefixtures("shared_searches")
# `quantize` leaves a weight that is computed at every call in float, and says so; a deployed network has it computed.
COMPUTED_WEIGHTS = ("WeightNormed", "TiedTransposed", "Standardised")
# An array of which parts are overwritten holds values of two kinds; the price knows the first alone.
OVERWRITTEN = ("ItemAssignment", "AugmentedItem")
CASES: dict[str, Any] = {
    **NETWORKS,
    **{
        name: lambda case=case: (case.make(), case.inputs())
        for name, case in MODULES.items()
        if not case.refused and name not in COMPUTED_WEIGHTS
    },
}


def operands(workload: Workload, signs: bool = True) -> list[Any]:
    """Of each layer its operator, and of each operand which array it is, how large, and its codes."""
    numbers: dict[str, int] = {}

    def seen(tensor: Any) -> tuple[Any, ...]:
        codes = (tensor.signed, tensor.offset) if signs else ()
        return numbers.setdefault(tensor.name, len(numbers)), tensor.elements, tensor.bits, *codes

    return [
        (layer.op, [seen(t) for t in layer.inputs], layer.weight and seen(layer.weight), seen(layer.output))
        for layer in workload
    ]


def both(make: Any, bits: tuple[int, int], **rules: Any) -> tuple[Workload, Workload]:
    """(trained, priced)."""
    torch.manual_seed(0)
    model, inputs = make()
    model = model.eval()
    made, _ = quant.quantize(model, weight_bits=bits[0], act_bits=bits[1], **rules)
    plain = hwsim.extract(model, inputs, name="net")
    return hwsim.extract(made.eval(), inputs, name="net"), hwsim.assign_bits(plain, "W{}A{}".format(*bits), **rules)


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_bits_as_priced_are_bits_as_trained(name: str) -> None:
    trained, priced = both(CASES[name], (4, 2))
    signs = name not in OVERWRITTEN
    assert operands(priced, signs) == operands(trained, signs)
    if name != "Decoder":  # the mask that is added inside an attention is a sum like any other once it is trained
        assert operands(hwsim.assign_bits(trained, "W4A2"), signs) == operands(priced, signs)
    assert operands(restored(priced), signs) == operands(priced, signs)


@pytest.mark.long
@pytest.mark.parametrize("name", NETWORKS)
def test_prices_are_equal(name: str) -> None:
    trained, priced = both(CASES[name], (4, 2))
    totals = [hwsim.evaluate(net, "bit_fusion", effort="quick").totals for net in (trained, priced)]
    assert totals[0] == totals[1]


@pytest.mark.long
@pytest.mark.parametrize(
    ("bits", "rules"),
    [
        ((3, 5), {"first_last": "same"}),
        ((8, 8), {"elementwise_bits": "same"}),
        ((2, 4), {"first_last": "same", "elementwise_bits": "same", "config": 3}),
    ],
)
@pytest.mark.parametrize(
    "name",
    ["layer_scale", "mean_over_tokens", "encoder_of_two_layers", "lstm", "transposed_convolutions", "class_token"],
)
def test_every_rule_means_the_same(name: str, bits: tuple[int, int], rules: dict[str, Any]) -> None:
    trained, priced = both(CASES[name], bits, **rules)
    assert operands(priced) == operands(trained)


@pytest.mark.parametrize("name", COMPUTED_WEIGHTS)
def test_weights_computed_at_every_call_are_named_as_left(name: str) -> None:
    case = MODULES[name]
    _, plan = quant.quantize(case.make().eval(), weight_bits=4, act_bits=4)
    assert any("weight" in left.why for left in plan.left)


@pytest.mark.long
def test_a_trained_recurrent_layer_reads_its_state_at_the_trained_width() -> None:
    """It counted 32 bits: the quantizer of the hidden state was not in the graph."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(12, 5, num_layers=2, bidirectional=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(x)[0]

    made, _ = quant.quantize(Net(), weight_bits=4, act_bits=3)
    layers = hwsim.extract(made.eval(), torch.randn(4, 1, 12)).layers
    products = [layer for layer in layers if layer.op == "linear"]
    assert len(products) == 2 * 2 * (1 + 4)
    assert {(layer.weight and layer.weight.bits, layer.inputs[0].bits) for layer in products} == {(4, 3)}


def test_an_lstms_last_memory_is_not_its_last_state() -> None:
    """A second layer that begins where the first one ended reads both."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.LSTM(12, 5, batch_first=True), nn.LSTM(12, 5, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(x, self.a(x)[1])[0]

    layers = {layer.name: layer for layer in hwsim.extract(Net().eval(), torch.randn(1, 2, 12))}
    assert layers["b.l0.t0.state"].inputs[0].name == "a.l0.t1.output.out"
    assert layers["b.l0.t0.forget"].inputs[1].name == "a.l0.t1.memory.out"


@pytest.mark.long
def test_two_bits_have_one_price_in_training_pricing_exploration_and_tables() -> None:
    """ResNet-8 at W2A2: explorations price their points with the quick search, tables with the strongest proof."""
    trained, priced = both(lambda: (models.create("resnet8"), torch.zeros(1, 3, 32, 32)), (2, 2))
    quick, proven = (
        [hwsim.evaluate(net, "bit_fusion", effort=effort).energy_pj for net in (trained, priced)]
        for effort in ("quick", "auto")
    )
    point = hwsim.explore_bits("resnet8", "bit_fusion", weights="2", activations="2")[0].to_row()["energy_pj"]
    table = look_up_table(hwsim.load_workload("resnet8"), hwsim.load_accelerator("bit_fusion"), ["W2A2"])
    assert quick == [point, point]
    assert proven == [pytest.approx(sum(row.cost.total_energy_pj for row in table.rows), rel=1e-12)] * 2
