"""A quantized network has the MACs of its float twin, whatever its code looks like."""

from __future__ import annotations

import copy

import pytest
import torch

import quant
from hwsim.frontends.torch_export import extract
from quant import models
from tests.quant.user_modules import MODULES

SMALL = ("resnet8", "silu_se_net", "ds_cnn", "mobilenet_v1_025", "anomaly_autoencoder")


@pytest.mark.long
@pytest.mark.parametrize("name", SMALL)
def test_networks_of_the_zoo(name: str) -> None:
    example = torch.zeros(1, *models.info(name).input_shape)
    model = models.create(name)
    quantized, _ = quant.quantize(copy.deepcopy(model), weight_bits=4, act_bits=4, example=example)
    assert extract(quantized, example).macs == extract(model, example).macs > 0


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, case in MODULES.items() if not case.refused])
def test_modules_as_users_write_them(name: str) -> None:
    case = MODULES[name]
    model, inputs = case.make().eval(), case.inputs()
    quantized, _ = quant.quantize(copy.deepcopy(model), weight_bits=8, act_bits=8, **case.choices)
    found = extract(quantized, inputs, allow_uncosted=True)
    assert found.macs == extract(model, inputs, allow_uncosted=True).macs > 0
