"""`python -m hwsim.verify` on checkpoints: its table, its JSON, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwsim import verify
from quant import checkpoint, models
from tests.integer.nets import zoo
from tests.integer.test_lower import SILU_SMALL

SETTINGS = {"weight_bits": 4, "act_bits": 4, "first_last": "same"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, _ = zoo("silu_se_net", 4, arguments=SILU_SMALL, padding_policy="border_bias")
    meta = checkpoint.Meta("silu_se_net", SILU_SMALL, {**SETTINGS, "padding_policy": "border_bias"}, (3, 8, 8), 10)
    return checkpoint.save(tmp_path_factory.mktemp("verify") / "net", model, meta)


def test_the_certificate_of_a_checkpoint(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "certificate.json"
    assert verify.main([str(folder), "tpu_v1", "--random", "--images", "4", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "every code equals the float64 network's: silu_se_net, 4 images, tpu_v1" in printed
    assert "pad_beta     folded: 0 bits" in printed
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["equal"] is True
    layer = next(x for x in found["layers"] if x["name"] == "blocks.0.0.conv_dw")
    assert layer["offset"]["class"] == "border_bias"
    assert layer["border_classes"] == 9
    assert layer["codes"]["elements"] > 0
    assert layer["naive"]["border_differing"] > 0
    assert layer["naive"]["inside_differing"] == 0
    assert 0 <= found["zero_shares"]["classifier"] <= 1


def test_a_float_checkpoint_and_an_absent_one_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = models.create("resnet8", image_size=8)
    checkpoint.save(tmp_path / "net", model, checkpoint.Meta("resnet8", {"image_size": 8}, None, (3, 8, 8), 10))
    assert verify.main([str(tmp_path / "net"), "--random"]) == 2
    assert "has no quantizers; quantize it with" in capsys.readouterr().err
    assert verify.main([str(tmp_path / "nowhere")]) == 2
    assert "no such checkpoint" in capsys.readouterr().err
