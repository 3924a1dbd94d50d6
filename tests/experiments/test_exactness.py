"""The grid of exactness: a quantized network is one case as it is, a float one every case; rows say which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import exactness, table
from quant import checkpoint, models
from quant.convert import quantize
from quant.whole_models import initialise

ARGUMENTS = {"image_size": 8, "in_channels": 1}


def saved(folder: Path, settings: dict[str, Any] | None, training: dict[str, object]) -> Path:
    """ResNet-8 for the digits: weights at random, codes are what is compared."""
    torch.manual_seed(0)
    model = models.create("resnet8", **ARGUMENTS)
    if settings is not None:
        model = initialise(quantize(model, **settings)[0], [torch.rand(8, 1, 8, 8)])
    meta = checkpoint.Meta("resnet8", dict(ARGUMENTS), settings, (1, 8, 8), 10, "digits", training=training)
    return checkpoint.save(folder, model, meta)


@pytest.mark.long
def test_trained_and_calibrated_networks_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.csv"
    settings = {"weight_bits": 4, "act_bits": 4, "first_last": "same", "padding_policy": "pad_beta"}
    folders = [
        str(saved(tmp_path / "quantized", settings, {"recipe": {}})),
        str(saved(tmp_path / "float", None, {"recipe": {}})),
    ]
    few = ["--bits", "2", "--configs", "1", "4", "--policies", "border_bias", "--images", "20", "--batches", "1"]
    assert exactness.main([*folders, *few, "--out", str(out)]) == 0
    trained, plain, offset = table.read(out)
    assert (trained["quantizers"], trained["bits"], trained["policy"]) == ("trained", "4", "pad_beta")
    assert (plain["quantizers"], plain["bits"], plain["config"]) == ("calibrated", "2", "1")
    assert (offset["config"], offset["policy"]) == ("4", "border_bias")
    for row in (trained, plain, offset):
        assert (row["images"], row["differing"]) == ("20", "0")
        assert int(row["codes"]) > 50_000
        assert row["top1_integer_percent"] == row["top1_fake_quantized_percent"]
    assert plain["top1_naive_percent"] == ""  # no offset, no constant that could be wrong
    assert offset["top1_naive_percent"] != ""
    assert capsys.readouterr().out.count("\n") == 3
    assert exactness.main([*folders, *few, "--out", str(out)]) == 0
    assert capsys.readouterr().out == ""  # rows that are there are not measured again


def test_a_network_or_data_that_are_not_there_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exactness.main(["resnet20", "--data-dir", str(tmp_path / "absent")]) == 2
    assert capsys.readouterr().err.startswith("hwsim: cifar10: expected a folder")
