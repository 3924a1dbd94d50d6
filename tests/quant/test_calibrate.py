"""Calibration: batch norms measured behind the quantizers, accuracy regained, and the command line."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import quant
from quant import calibration, checkpoint, data, models, weights
from quant.calibration import calibrate, calibration_batches, top1_percent
from quant.layers import QConv2d


def test_calibration_sees_the_quantized_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second norm's statistics are those behind quantized operands, not the float network's."""
    torch.manual_seed(0)
    model = models.create("silu_se_net", in_channels=1, image_size=8, depth=1)
    x = torch.randn(64, 1, 8, 8)
    quantized, _ = quant.quantize(model, weight_bits=2, act_bits=2)
    calibrate(quantized, [x])
    seen: list[Tensor] = []
    layer = quantized.get_submodule("conv_head")
    assert isinstance(layer, QConv2d)
    layer.register_forward_hook(lambda m, a, out: seen.append(out))
    quantized(x)
    torch.testing.assert_close(quantized.get_buffer("bn2.running_mean"), seen[0].mean((0, 2, 3)), rtol=0.05, atol=0.02)


def test_calibrating_again_replaces_earlier_values() -> None:
    torch.manual_seed(0)
    model = models.create("resnet20", width=0.5)
    images, brighter = torch.randn(16, 3, 32, 32), 3 * torch.randn(16, 3, 32, 32)
    once, twice = (quant.quantize(model, weight_bits=4, act_bits=4, init="lsq")[0] for _ in range(2))
    calibrate(once, [images])
    calibrate(twice, [brighter])
    assert not torch.equal(step_of(once, "conv1.input_quantizer"), step_of(twice, "conv1.input_quantizer"))
    calibrate(twice, [images])
    assert torch.equal(step_of(once, "conv1.input_quantizer"), step_of(twice, "conv1.input_quantizer"))


def step_of(model: nn.Module, name: str) -> Tensor:
    return model.get_parameter(f"{name}.s").detach()


@pytest.mark.long
@pytest.mark.parametrize(("bits", "loss"), [(8, 2.0), pytest.param(4, 12.0, marks=pytest.mark.slow)])
def test_real_network_keeps_its_accuracy_at_8_bits_and_most_of_it_at_4(data_dir: Path, bits: int, loss: float) -> None:
    loaded = data.load("cifar10", data_dir, test_only=True)
    normalisation = weights.trained("resnet20").normalisation
    model = weights.load_pretrained("resnet20", data_dir)
    # Calibrated on test images that are not measured: reading the training files would take longer than the test.
    spare = loaded.test.subset(torch.arange(5000, 5256))
    assert isinstance(spare, data.Arrays)
    draws = torch.rand(256, 3, generator=torch.Generator().manual_seed(0))
    images = normalisation.apply(data.crop_flip(spare.images, draws, loaded.augment))
    test = list(data.eval_batches(loaded.test.subset(torch.arange(300)), normalisation))
    before = top1_percent(model, test)
    quantized, _ = quant.quantize(model, weight_bits=bits, act_bits=bits, init="mse")
    result = calibrate(quantized, [images], test=test)
    assert result.images == 256
    assert result.accuracy_percent is not None
    assert before - loss <= result.accuracy_percent < before + 1


@pytest.mark.long
def test_command_line_calibrates_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    arguments = {"in_channels": 1, "image_size": 8, "depth": 1}
    meta = checkpoint.Meta("silu_se_net", arguments, None, (1, 8, 8), 10, "digits", data.DIGITS)
    checkpoint.save(tmp_path / "float", models.create("silu_se_net", **arguments), meta)
    line = [str(tmp_path / "float"), "--bits", "W4A4", "--batches", "2", "--batch-size", "64", "--json"]
    assert calibration.main([*line, "--out", str(tmp_path / "out"), "--test-images", "100"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 128
    assert result["test_images"] == 100
    model, found = checkpoint.load(tmp_path / "out")
    assert found.metrics["test_accuracy_percent"] == result["accuracy_percent"]
    test = data.load("digits").test.subset(torch.arange(100))
    assert top1_percent(model, data.eval_batches(test, data.DIGITS)) == result["accuracy_percent"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["resnet99"], "no trained weights known for 'resnet99'|unknown model"),
        (["FLOAT", "--bits", "W4"], "bits: expected W4A4"),
        (["FLOAT", "--bits", "W9A4"], "bits: expected 1 to 8 or 16, got 9"),
        (["FLOAT", "--bits", "float"], "calibration needs bits"),
        (["FLOAT", "--batches", "0"], "batches: expected at least 1"),
        (["FLOAT", "--batches", "999"], "exceed the 1298 training images"),
        (["FLOAT", "--batch-size", "1"], "a batch of one image has no variance"),
        (["FLOAT", "--test-images", "0"], "--test-images: expected 1..355, got 0"),
        (["FLOAT", "--elementwise-bits", "few"], "--elementwise-bits: expected a number, same, or float"),
        (["FLOAT", "--overrides", "absent.yaml"], "absent.yaml"),
        (["FLOAT", "--data", "cifar10", "--data-dir", "absent"], "expected a folder, got absent"),
    ],
)
def test_bad_command_lines_get_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWSIM_DATA", str(tmp_path))
    arguments = {"in_channels": 1, "image_size": 8, "depth": 1, "width": 0.25}
    meta = checkpoint.Meta("silu_se_net", arguments, None, (1, 8, 8), 10, "digits", data.DIGITS)
    checkpoint.save(tmp_path / "float", models.create("silu_se_net", **arguments), meta)
    assert calibration.main([str(tmp_path / "float") if a == "FLOAT" else a for a in line]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hwsim: ")
    assert error.count("\n") == 1
    assert __import__("re").search(message, error), error


def test_no_batches_is_an_error() -> None:
    quantized, _ = quant.quantize(models.create("resnet20", width=0.25), weight_bits=4, act_bits=4)
    with pytest.raises(ValueError, match="expected at least one batch"):
        calibrate(quantized, [])
    with pytest.raises(ValueError, match="the test part holds no images"):
        calibrate(quantized, [torch.randn(4, 3, 32, 32)], test=[])


def test_batches_are_distinct_training_images() -> None:
    digits = data.load("digits")
    batches = calibration_batches(digits, 4, 50)
    assert len({bytes(x.numpy()) for batch in batches for x in batch}) > 195
