"""The offset class that the certificate proves is the one that the cost model charges, layer by layer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from hwsim.frontends.argument import load_model_argument
from hwsim.frontends.torch_export import extract
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.certificate import UNLIMITED, annotate, certify, offset_classes
from hwsim.integer.run import Machine
from hwsim.machine.load import load_accelerator
from hwsim.pricing.offsets import OffsetCost, offset_cost
from hwsim.report.evaluation import Request, evaluate_workload
from quant import checkpoint
from quant.quantizer import Quantizer
from quant.spec import PADDING_POLICIES
from quant.whole_models import quantizers
from tests.integer.nets import quantized, zoo
from tests.integer.test_lower import Mixture

MACHINES = (
    UNLIMITED,
    dataclasses.replace(UNLIMITED, border_bias=False),
    dataclasses.replace(UNLIMITED, pad_value="zero_only", border_bias=False),
)


def network() -> nn.Module:
    """Padded, unpadded, depthwise, a stride that steps past the padding, 1x1, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.SiLU(),
        nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(4, 6, 2, stride=2), nn.SiLU(), nn.Conv2d(6, 4, 1), nn.SiLU(),
        nn.Conv2d(4, 4, 3, padding=2, bias=False), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    ).eval()  # fmt: skip


def priced(model: nn.Module, images: torch.Tensor, machine: Any) -> dict[str, OffsetCost]:
    """What the cost model charges for the layers with MACs."""
    return {layer.name: offset_cost(layer, machine) for layer in extract(model, images[:1]) if layer.has_macs}


@pytest.mark.long
def test_certificate_and_price_agree_under_every_policy_and_machine() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 8)
    seen: dict[str, tuple[str, ...]] = {}
    for policy in PADDING_POLICIES:
        model = quantized(network(), images, 4, config=4, padding_policy=policy)
        lowered = lower(model, images)
        for i, machine in enumerate(MACHINES):
            proven = offset_classes(lowered, machine)
            assert proven == priced(model, images, machine), (policy, i)
            seen[f"{policy} {i}"] = tuple(cost.kind for cost in proven.values())
    assert len(set(seen.values())) >= 3  # the policy and the machine both decide
    # Both columns of the ZeroPad2d lie beyond the last window: an 8 x 8 map under 2 x 2 windows with stride 2.
    assert {kinds[2] for kinds in seen.values()} == {"folded"}


class Excited(nn.Module):
    """A depthwise convolution, squeeze-excite behind it, a shortcut around both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act1 = nn.Conv2d(3, 8, 3, padding=1), nn.SiLU()
        self.dw, self.act2 = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.SiLU()
        self.pool, self.reduce, self.act3 = nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.SiLU()
        self.expand, self.gate = nn.Conv2d(4, 8, 1), nn.Sigmoid()
        self.pw, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act1(self.stem(x))
        y = self.act2(self.dw(x))
        y = y * self.gate(self.expand(self.act3(self.reduce(self.pool(y)))))
        return self.head(x + self.pw(y))


@pytest.mark.long
def test_products_and_additions_are_charged_what_the_certificate_says() -> None:
    """Squeeze-excite (a product of activations behind a border_bias convolution) and a residual addition."""
    torch.manual_seed(0)
    images = torch.randn(1, 3, 8, 8)
    model = quantized(Excited().eval(), images, 4, config=4, padding_policy="border_bias")
    proven = offset_classes(lower(model, images), MACHINES[2])
    assert proven == priced(model, images, MACHINES[2])
    assert proven["dw"].kind == "border_bias"
    certificate = certify(model, images, capabilities=MACHINES[2])
    for op, kind in (("mul", "dynamic"), ("add", "folded")):
        charged = [offset_cost(x, MACHINES[2]) for x in extract(model, images) if x.op == op]
        assert [layer.offset for layer in certificate.layers if layer.op == op] == charged
        assert {cost.kind for cost in charged} == {kind}
        assert all(cost.extra_adds > 0 for cost in charged)


class Attention(nn.Module):
    """Queries, keys and values behind SiLU, so that all four operands of the two products have offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.act, self.out = nn.Linear(12, 24), nn.SiLU(), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.act(self.qkv(x)).chunk(3, -1)
        scores = nn.functional.silu(torch.matmul(q, k.transpose(-2, -1)))
        return self.out(torch.matmul(scores, v))


def test_products_of_attention_need_row_and_column_sums() -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 5, 12)
    model = quantized(Attention().eval(), images, 4, config=4)
    lowered = lower(model, images)
    assert [type(n).__name__ for n in lowered.nodes].count("SumAlong") == 4
    assert lowered.float_operators == ()
    proven = offset_classes(lowered)
    assert proven == priced(model, images, UNLIMITED)
    found = certify(model, images)
    assert found.equal
    products = [layer for layer in found.layers if layer.op == "matmul"]
    assert [(layer.offset.kind, layer.codes.elements) for layer in products] == [("dynamic", 75), ("dynamic", 120)]
    # 5x8 by 8x5, then 5x5 by 5x8: sums over both operands, and one more term per output for each.
    assert [layer.offset.extra_adds for layer in products] == [2 * 40 + 2 * 25, 25 + 40 + 2 * 40]
    assert [proven[layer.name] for layer in products] == [layer.offset for layer in products]


def test_no_quantizer_is_missing_from_a_certificate() -> None:
    """Also those that were pushed in front of a pool, a concatenation, a slice: their codes are somebody's."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 15, 15)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(144, 2),
    )  # fmt: skip
    for model, example in ((net, images), (Mixture(), torch.randn(2, 2, 24))):
        made = quantized(model.eval(), example, 4, config=4, padding_policy="border_bias")
        lowered = lower(made, example)
        outcome = Machine(lowered).run(example, keep=set(lowered.quantizers.values()))
        certificate = certify(made, example)
        assert certificate.equal
        assert {layer.name for layer in certificate.layers} >= {node.layer for node in lowered.convolutions}
        once = {q: outcome.codes[n].numel() for q, n in lowered.quantizers.items()}
        assert sum(layer.codes.elements for layer in certificate.layers) >= sum(once.values())


def test_a_certificate_that_ran_says_the_same() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 8)
    model = quantized(network(), images, 4, config=4, padding_policy="border_bias")
    ran = {layer.name: layer.offset for layer in certify(model, images, capabilities=MACHINES[2]).layers}
    for name, cost in priced(model, images, MACHINES[2]).items():
        assert ran[name] == cost


@pytest.mark.long
def test_an_offset_of_zero_and_a_pad_code_of_zero_are_free() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 8)
    model = quantized(network(), images, 4, config=4, padding_policy="pad_code")
    plain = MACHINES[2]
    assert priced(model, images, plain)["2"].kind == "padded_copy"
    quantizer = cast(Any, model)[2].input_quantizer
    s = float(quantizer.step().detach())
    quantizer.set_parameters(s, 0.3 * s)  # 0.0 lies below code 0: clipped to it
    assert offset_classes(lower(model, images), plain)["2"] == priced(model, images, plain)["2"]
    assert priced(model, images, plain)["2"].kind == "folded"
    quantizer.set_parameters(s, 0.0)
    assert offset_classes(lower(model, images), plain)["2"] == priced(model, images, plain)["2"]
    assert priced(model, images, plain)["2"].kind == "none"
    net = extract(model, images)
    assert annotate(net, lower(model, images)).layers[0].accumulator_bits is not None


@pytest.mark.long
def test_evaluate_on_a_checkpoint_charges_what_its_certificate_says(tmp_path: Path) -> None:
    machine = load_accelerator("gemmini_16x16")
    charged: dict[str, float] = {}
    for policy in ("pad_code", "pad_beta"):
        settings = {"weight_bits": 4, "act_bits": 4, "first_last": "same", "config": 4, "padding_policy": policy}
        model, images = zoo("resnet8", 4, batch=1, arguments={"image_size": 8}, config=4, padding_policy=policy)
        for _, q in quantizers(model):
            if q.spec.offset and not q.is_weight and isinstance(q, Quantizer):
                s = float(q.step().detach())
                q.set_parameters(s, -2.3 * s)  # behind ReLU calibration leaves 0.0 at code 0, where a border is free
        meta = checkpoint.Meta("resnet8", {"image_size": 8}, settings, (3, 8, 8), 10)
        folder = checkpoint.save(tmp_path / policy, model, meta)
        report = evaluate_workload(load_model_argument(str(folder)), machine, Request(effort="quick"))
        proven = offset_classes(lower(model, images), machine.capabilities)
        found = {cost.name: cost.offset for cost in report.cost.layers if cost.mac_mode}
        assert found == proven
        charged[policy] = sum(cost.energy_pj.get("offset", 0.0) for cost in report.cost.layers)
        if policy == "pad_code":
            assert any(cost.kind == "padded_copy" for cost in found.values())
            assert any("stored inside it by their maker" in line for line in report.assumptions)
    assert charged["pad_beta"] <= charged["pad_code"]


@pytest.mark.parametrize(
    "folder",
    [pytest.param(p.parent, marks=() if p.parent.name.startswith("digits") else pytest.mark.slow, id=p.parent.name)
     for p in sorted((Path(__file__).resolve().parents[2] / "networks").glob("*_w4a4/settings.json"))],
)  # fmt: skip
def test_shipped_networks_are_charged_the_class_of_their_certificate(folder: Path) -> None:
    """What `evaluate FOLDER ACCEL` prices, layer by layer, on machines that pad differently."""
    model, meta = checkpoint.load(folder)
    assert meta.input_shape is not None
    lowered, net = lower(model, torch.zeros(1, *meta.input_shape)), load_model_argument(str(folder))
    for name in ("eyeriss_v1", "nvdla_small", "cortex_m7"):
        can = load_accelerator(name).capabilities
        charged = {layer.name: offset_cost(layer, can) for layer in net if layer.has_macs}
        assert charged == offset_classes(lowered, can), name
        assert {"folded"} <= {cost.kind for cost in charged.values()}, name
