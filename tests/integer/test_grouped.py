"""Groups, blocks and offsets of weights in the integer machine: what folds, what never does, codes equal float64's."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quant
from hwsim.errors import UnsupportedOp
from hwsim.integer import graph
from hwsim.integer.arithmetic.forms import Form, Term, at
from hwsim.integer.arithmetic.rules import CodeSpec, Range
from hwsim.integer.export.c_check import run_compiled
from hwsim.integer.export.c_source import c_source
from hwsim.integer.graph import IntegerModel
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.as_layers import workload_layer
from hwsim.integer.proof.certificate import UNLIMITED, certify, offset_classes
from hwsim.integer.proof.compare import compare, reference, reference_codes
from hwsim.integer.run import Machine
from hwsim.network.layer import Layer, Loops
from hwsim.network.layer import Tensor as Operand
from hwsim.pricing.offsets import offset_cost
from quant.whole_models import quantizers
from tests.integer.nets import quantized

STRICT = ("-O1", "-Wall", "-Werror")
FORMATS: dict[str, dict[str, Any]] = {
    "g4": {"weight_group": 4},
    "g5": {"weight_group": 5},  # divides neither 8 nor 12 channels
    "g64": {"weight_group": 64},  # wider than every layer
    "g4z": {"weight_group": 4, "weight_offset": True},
    "tensor z": {"weight_offset": True},
    "channel z": {"weight_offset": True, "weight_granularity": "channel"},
    "MXFP4": {"weight_format": "MXFP4"},
    "NVFP4": {"weight_format": "NVFP4"},
    "MXINT8": {"weight_format": "MXINT8"},
    "MXFP6": {"weight_format": "MXFP6"},
    "FP8": {"weight_format": "FP8"},
    "FP4 g4": {"weight_format": "FP4", "weight_group": 4},
}


class Net(nn.Module):
    """Padded, strided, grouped and one-dimensional convolutions, linear layers on maps and on vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.SiLU()
        self.c1, self.c2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1, stride=2)
        self.grouped, self.row = nn.Conv2d(12, 12, 3, padding=1, groups=4), nn.Conv1d(12, 8, 3, padding=1)
        self.each, self.last = nn.Linear(8, 10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.c2(self.act(self.c1(x))))
        x = self.act(self.row(self.act(self.grouped(x)).mean(2)))
        return self.last(self.act(self.each(x.transpose(1, 2))).mean(1))


def lively(
    choices: dict[str, Any], model: nn.Module | None = None, images: Tensor | None = None
) -> tuple[nn.Module, Tensor]:
    """The network in a format, steps of the groups moved away from what they began with, offsets of any size."""
    torch.manual_seed(0)
    images = torch.randn(3, 3, 9, 9) if images is None else images
    made = quantized(model or Net(), images, **choices)
    with torch.no_grad():
        for _, q in quantizers(made):
            if q.is_weight and getattr(q, "s", None) is not None:
                q.s.mul_(1 + 0.2 * torch.rand_like(q.s))
            if q.is_weight and getattr(q, "beta", None) is not None:
                q.beta.copy_(q.s * torch.randn_like(q.beta))
    return made, images


@pytest.mark.long
@pytest.mark.parametrize("name", FORMATS)
def test_codes_equal_float64s_with_an_accumulator_per_group(name: str) -> None:
    made, images = lively(FORMATS[name])
    model = lower(made, images)
    expected, codes = reference_codes(reference(made), images)
    found = Machine(model).run(images.double(), keep=True)
    assert sum(d.elements for d in compare(model, found.codes, codes)) > 3000
    assert not any(d.differing for d in compare(model, found.codes, codes))
    assert not found.tally["undecided"]
    assert torch.allclose(found.values, expected.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.long
@pytest.mark.parametrize("name", ["g5", "g4z", "MXFP4"])
def test_the_certificate_has_a_row_per_layer_and_c_gives_the_machines_codes(name: str) -> None:
    made, images = lively(FORMATS[name])
    certificate = certify(made, images)
    assert certificate.equal
    rows = [layer for layer in certificate.layers if layer.op in ("conv", "linear")]
    assert [row.name for row in rows] == ["c1", "c2", "grouped", "row", "each", "last"]
    assert {row.weight_bits for row in rows} == {4}
    stored = sum(m.weight.numel() for m in made.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Linear)))
    assert certificate.weight_bits == 4 * stored
    machine = Machine(lower(made, images))
    run = run_compiled(machine, c_source(machine, "net"), images, flags=STRICT, repeats=1)
    assert not run.differing


def in_two(model: IntegerModel) -> tuple[list[graph.Convolve], list[graph.Convolve]]:
    """(accumulators of weights, sums of codes)."""
    parts = [n for n in model.convolutions if n.share is not None]
    return [n for n in parts if n.share and n.share.count], [n for n in parts if n.share and not n.share.count]


@pytest.mark.parametrize("name", ["g4", "g5", "MXFP4", "NVFP4", "FP8", "MXINT8"])
def test_a_static_offset_of_activations_is_a_constant_beside_every_weight_format(name: str) -> None:
    """No sum of codes is made; the bias is beta_x times the sum of the weights' numbers, and nothing else has beta."""
    torch.manual_seed(2)
    chain = nn.Sequential(nn.Linear(12, 10), nn.SiLU(), nn.Linear(10, 6))
    made, images = lively(FORMATS[name], chain, torch.randn(9, 12))
    model = lower(made, images)
    assert not in_two(model)[1]
    form = model.output
    assert isinstance(form, Form)
    last = made.get_submodule("2")
    first = model.node(form.sources[0])
    assert isinstance(first, graph.Convolve)
    code = model.node(first.x).code
    assert code is not None
    assert code.beta != 0
    numbers, bias = last.weight_quantizer(last.weight.detach()).double(), last.bias.detach().double()
    for k in range(6):
        folded = sum((Fraction(v) for v in numbers[k].tolist()), Fraction(0)) * code.beta
        assert float(at(form.intercepts, k)) == pytest.approx(float(Fraction(float(bias[k])) + folded), rel=1e-6)
    price = offset_classes(model)["2"]
    assert (price.kind, price.extra_adds, price.extra_bits) == ("folded", 0, 0)  # the layer has a bias anyway


def test_offsets_of_weights_never_fold() -> None:
    """Two inputs with the same sums of products in every group and other sums of codes give other answers."""
    chain = nn.Sequential(nn.Linear(4, 1, bias=False))
    made, _ = quant.quantize(chain, weight_bits=4, act_bits=4, first_last="same", weight_group=2, weight_offset=True,
                             config=1)  # fmt: skip
    quant.initialise(made, [torch.tensor([[0.0, 15, 7, 3]])])
    with torch.no_grad():
        made[0].weight.copy_(torch.tensor([[1.1, 1.1, 2.1, 0.1]]))
        weight, inputs = made[0].weight_quantizer, made[0].input_quantizer
        weight.s.fill_(1.0), weight.beta.fill_(0.1), inputs.s.fill_(1.0)
    one, other = torch.tensor([[3.0, 5, 4, 1]]), torch.tensor([[3.0, 5, 4, 2]])  # the last weight's code is 0
    model = lower(made, one)
    products, sums = in_two(model)
    assert (len(products), len(sums)) == (2, 2)
    first, second = (Machine(model).run(x, keep=True) for x in (one, other))
    assert all(torch.equal(first.codes[n.name], second.codes[n.name]) for n in products)
    assert not torch.equal(first.codes[sums[1].name], second.codes[sums[1].name])
    assert float(second.values - first.values) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["g4z", "g5", "tensor z", "channel z"])
def test_additions_for_offsets_of_weights_are_those_of_the_price(name: str) -> None:
    """Counted in the machine's graph: what sums of codes add up, and a multiply-add for each of their terms."""
    made, images = lively({**FORMATS[name], "weight_offset": True})
    model = lower(made, images)
    sums = in_two(model)[1]
    for node in model.convolutions:
        if not node.stands_for_layer or (node.window is not None and node.window.groups > 1):
            continue
        here = [n for n in sums if n.layer == node.layer]
        added = sum(math.prod(n.shape) * int(n.weight.sum()) for n in here)
        layer = workload_layer(model, node)
        price = offset_cost(layer, UNLIMITED)
        constant = 0 if layer.bias or not layer.inputs[0].offset else layer.output.elements
        assert price.kind == "dynamic"
        assert price.extra_adds == added + len(here) * layer.output.elements + constant


def per_token(weights: Tensor, numbers: list[Fraction]) -> IntegerModel:
    """y = (s code + b) W of tokens whose s and b are found at run time: inputs of the network, as fixed-point codes."""
    outputs, inner = weights.shape
    unit, none = Fraction(1, 64), Fraction(0)
    grid = {"input": CodeSpec(Fraction(1), none, 0, 15), "input 1": CodeSpec(unit, none, 1, 127),
            "input 2": CodeSpec(unit, none, -128, 127)}  # fmt: skip
    nodes: list[graph.Node] = [
        graph.Encode(name=name, shape=(1, inner if name == "input" else 1), range=Range((code.n,), (code.p,)),
                     code=code, source=name, quantizer=name) for name, code in grid.items()
    ]  # fmt: skip
    reach = int(weights.abs().sum(1).max()) * 15
    nodes.append(graph.Convolve(
        name="sums", shape=(1, outputs), range=Range((-reach,), (reach,)), x="input", weight=weights, window=None,
        padding=graph.Padding(policy="none", code=0, naive_code=0), bound=reach,
    ))  # fmt: skip
    form = Form((Term(("sums", "input 1"), (unit,)), Term(("input 2",), tuple(unit * v for v in numbers))),
                (Fraction(0),), (1, outputs), 1)  # fmt: skip
    return IntegerModel("per token", tuple(nodes), form, {}, (1, inner), ((1, 1), (1, 1)))


def test_dynamic_offsets_of_activations_never_fold_and_need_stored_sums_alone() -> None:
    """Equal codes and scales, other offsets: other answers. Beside the accumulator only sum_k w, known beforehand."""
    torch.manual_seed(1)
    weights = torch.randint(-7, 8, (5, 12))
    model = per_token(weights, [Fraction(int(v)) for v in weights.sum(1)])
    codes = torch.randint(0, 16, (6, 12)).double()
    s, b = torch.randint(1, 128, (6, 1)).double() / 64, torch.randint(-128, 128, (6, 1)).double() / 64
    found = Machine(model).run((codes, s, b)).values
    assert torch.equal(found, (s * codes + b) @ weights.double().T)
    assert not torch.equal(Machine(model).run((codes, s, b + 1 / 64)).values, found)
    x = Operand("x", (6, 12), 4, False, offset=True, run_time=True)
    layer = Layer("l", "linear", (x,), Operand("y", (6, 5), 32), Operand("w", (5, 12), 4), Loops(N=6, K=5, C=12))
    price = offset_cost(layer, UNLIMITED)
    assert price.kind == "dynamic"
    assert price.extra_bits == 32 * 5  # one stored sum for each output, none of the codes


def test_what_has_no_form_is_refused_by_name() -> None:
    with pytest.raises(
        UnsupportedOp, match="c2: groups of weights have no integer form with padding_policy border_bias"
    ):
        lower(*lively({"weight_group": 4, "padding_policy": "border_bias", "config": 4}))
    with pytest.raises(UnsupportedOp, match="activations in blocks or float elements"):
        lower(*lively({"weight_format": "MXFP4", "act_format": "MXFP4"}))
