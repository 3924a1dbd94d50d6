"""One meaning of WxAy: a float network priced at some bits is the network that `quant.quantize` trains at them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
import yaml

import hwsim
import quant
from hwsim.network.bits import assign_bits
from hwsim.network.rounding import restored
from hwsim.network.workload import Workload
from hwsim.report.look_up import look_up_table
from quant import models

pytestmark = pytest.mark.usefixtures("shared_searches")
SMALL = ("resnet8", "ds_cnn", "silu_se_net", "mobilenet_v1_025", "anomaly_autoencoder")
NAMES = [name if name in SMALL else pytest.param(name, marks=pytest.mark.slow)
        for name in models.names()]  # fmt: skip


@lru_cache(maxsize=8)
def plain_one(name: str) -> Workload:
    """The float network; nothing is allocated."""
    with torch.device("meta"):
        return hwsim.extract(models.create(name).eval(), torch.zeros(1, *models.info(name).input_shape), name=name)


@lru_cache(maxsize=8)
def trained_one(name: str, bits: int, rules: tuple[tuple[str, Any], ...]) -> Workload:
    """The network as `quant.quantize` makes it."""
    with torch.device("meta"):
        made, _ = quant.quantize(models.create(name).eval(), weight_bits=bits, act_bits=bits, **dict(rules))
        return hwsim.extract(made.eval(), torch.zeros(1, *models.info(name).input_shape), name=name)


def both(name: str, bits: int, **rules: Any) -> tuple[Workload, Workload]:
    """(trained, float) workloads of a zoo network."""
    return trained_one(name, bits, tuple(rules.items())), plain_one(name)


def codes(workload: Workload) -> list[Any]:
    """Everything about bits: of each layer's weight, inputs and output, with sign and offset."""
    return [
        (
            layer.name,
            layer.op,
            layer.weight and (layer.weight.bits, layer.weight.signed, layer.weight.offset),
            [(tensor.name, tensor.shape, tensor.bits, tensor.signed, tensor.offset) for tensor in layer.inputs],
            (layer.output.bits, layer.output.signed, layer.output.offset),
        )
        for layer in workload
    ]


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_network_as_priced_is_the_network_as_trained(name: str) -> None:
    """In bits and in price; also where the bits replace others."""
    trained, plain = both(name, 2)
    priced = hwsim.assign_bits(plain, "W2A2")
    assert codes(priced) == codes(trained)
    assert codes(hwsim.assign_bits(trained, "W2A2")) == codes(trained)
    assert codes(restored(priced)) == codes(priced)
    of_trained = hwsim.evaluate(trained, "bit_fusion", effort="quick")
    assert hwsim.evaluate(plain, "bit_fusion", bits="W2A2", effort="quick").totals == of_trained.totals


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "bits", "rules"),
    [
        ("resnet8", 4, {"first_last": "same"}),
        ("resnet8", 16, {}),
        ("silu_se_net", 8, {"elementwise_bits": "same"}),
        ("silu_se_net", 16, {"first_last": "same", "elementwise_bits": 4}),
    ],
)
def test_the_rules_mean_the_same_in_training_and_pricing(name: str, bits: int, rules: dict[str, Any]) -> None:
    """Integers of any width; the name W16A16 means floats to both (tests/quant/test_formats.py)."""
    trained, plain = both(name, bits, **rules)
    assert codes(assign_bits(plain, f"W{bits}A{bits}", **rules)) == codes(trained)


@pytest.mark.long
def test_resnet8_at_w2a2_is_one_number_everywhere() -> None:
    trained, plain = both("resnet8", 2)
    machine = hwsim.load_accelerator("bit_fusion")
    energy = hwsim.evaluate(trained, machine).energy_pj
    assert sum(row.cost.total_energy_pj for row in look_up_table(plain, machine, ["W2A2"]).rows) == energy
    quick = hwsim.evaluate(trained, machine, effort="quick").energy_pj  # the search that exploration prices with
    assert hwsim.evaluate(plain, machine, bits="W2A2", effort="quick").energy_pj == quick
    (point,) = hwsim.explore_bits(plain, machine, weights="2", activations="2")
    assert point.exact.cost.totals.energy_pj == quick
    assert codes(point.problem.at(point.solution)) == codes(trained)


@pytest.mark.long
def test_files_of_an_exploration_price_what_it_found() -> None:
    """Bits that differ from layer to layer, where what an array is stored in changes sides."""
    _, plain = both("resnet8", 2)
    (point,) = hwsim.explore_bits(
        plain, "bit_fusion", weights="2,4,8", activations="2,4,8", elementwise_bits="same", minimise="bops",
        limits=["blocks.1.first.conv.input=8", "blocks.2.*.input=2,4"], first_last="same",
    )  # fmt: skip
    bits = yaml.safe_load(point.bits_yaml())
    priced = hwsim.assign_bits(plain, bits)
    assert [row[:4] for row in codes(priced)] == [row[:4] for row in codes(point.problem.at(point.solution))]
