"""`python -m hwsim.verify` on checkpoints: its table, its JSON, its exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from hwsim.errors import WorkloadError
from hwsim.frontends.argument import load_model_argument
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof import verify as proofs
from hwsim.integer.proof.accuracy import accuracies
from hwsim.integer.run import Machine, Mode
from hwsim.machine.load import load_accelerator
from hwsim.report.evaluation import Request, evaluate_workload, load_zero_shares
from hwsim.verify import main
from quant import checkpoint, models
from tests.integer.nets import zoo
from tests.integer.test_lower import SILU_SMALL

pytestmark = pytest.mark.usefixtures("shared_searches")
SETTINGS = {"weight_bits": 4, "act_bits": 4, "first_last": "same"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, _ = zoo("silu_se_net", 4, arguments=SILU_SMALL, padding_policy="border_bias")
    meta = checkpoint.Meta("silu_se_net", SILU_SMALL, {**SETTINGS, "padding_policy": "border_bias"}, (3, 8, 8), 10)
    return checkpoint.save(tmp_path_factory.mktemp("verify") / "net", model, meta)


@pytest.mark.long
def test_the_certificate_of_a_checkpoint(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "certificate.json"
    assert main([str(folder), "tpu_v1", "--random", "--images", "4", "--out", str(out)]) == 0
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
    assert main([str(tmp_path / "net"), "--random"]) == 2
    assert "has no quantizers; quantize it with" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "no such checkpoint" in capsys.readouterr().err


@pytest.mark.long
def test_what_no_integer_machine_can_follow_is_named_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that bends the axis, a layer left in float, an accumulator too narrow, a width without images."""
    arguments, said = {"image_size": 8, "in_channels": 1}, {}
    for name, choices in {
        "qil": {"method": "qil"}, "skip": {"overrides": {"blocks.0.first.conv": {"skip": True}}}, "narrow": {},
    }.items():  # fmt: skip
        model, _ = zoo("resnet8", 4, arguments=arguments, **choices)
        meta = checkpoint.Meta("resnet8", arguments, {**SETTINGS, **choices}, (1, 8, 8), 10, "digits")
        said[name] = str(checkpoint.save(tmp_path / name, model, meta))
    monkeypatch.setattr(proofs, "FORMS", {})
    few = ["--images", "2", "--accuracy-images", "4"]
    narrow = ["--accumulator-bits", "9", "--overflow", "check"]
    for given, code, message in (
        ([said["qil"], *few], 2, r"quantizer stem\.conv\.input_quantizer: method 'qil' .* train with --method lsqplus"),
        ([said["skip"], *few], 2, r"layer blocks\.0\.first\.conv: its weights have no quantizer; quantize the layer"),
        ([said["narrow"], *few, *narrow], 3, r"layer [\w.]+: \d+ sums do not fit .* 9 bits; .* widen it"),
        ([said["narrow"], "--random", *narrow], 2, r"--accumulator-bits measures an accuracy, .* leave out --random"),
    ):
        assert main(given) == code
        assert re.search(message, capsys.readouterr().err)


@pytest.mark.long
def test_zero_shares_of_the_certificate_gate_multipliers(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "certificate.json"
    assert main([str(folder), "--random", "--images", "2", "--out", str(out)]) == 0
    shares = load_zero_shares(out)
    assert 0 < max(shares.values()) <= 1
    net, machine = load_model_argument(str(folder)), load_accelerator("eyeriss_v1")
    plain = evaluate_workload(net, machine, Request(effort="quick"))
    gated = evaluate_workload(net, machine, Request(effort="quick", zero_shares=shares))
    saving = machine.capabilities.zero_gating_saving
    for before, after in zip(plain.cost.layers, gated.cost.layers, strict=True):
        expected = before.energy_pj.get("mac", 0.0) * (1 - saving * shares.get(before.name, 0.0))
        assert after.energy_pj.get("mac", 0.0) == pytest.approx(expected, abs=2e-3)
    assert gated.cost.totals.energy_pj < plain.cost.totals.energy_pj
    assert any("zero input codes gate 45 %" in line for line in gated.assumptions)
    with pytest.raises(WorkloadError, match="has no layer 'nowhere'"):
        evaluate_workload(net, machine, Request(effort="quick", zero_shares={"nowhere": 0.5}))
    (tmp_path / "other.json").write_text("[]", encoding="utf-8")
    with pytest.raises(WorkloadError, match="expected a certificate with zero_shares"):
        load_zero_shares(tmp_path / "other.json")


def test_wrapping_and_saturating_accumulators_have_an_accuracy() -> None:
    model, images = zoo("resnet8", 8, batch=40, arguments={"image_size": 8}, first_last="same")
    lowered = lower(model, images)
    labels = Machine(lowered).run(images).values.argmax(1)  # the exact machine's own answers
    forms = {
        f"{overflow} {bits}": Mode(accumulator_bits=bits, overflow=overflow)
        for overflow, bits in (("wrap", 24), ("wrap", 12), ("saturate", 12), ("saturate_each", 12))
    }
    found = accuracies(model, lowered, images, labels, forms=forms)
    assert found["wrap 24"] == 100
    assert found["wrap 12"] < 100
    assert all(0 <= found[name] <= 100 for name in forms)
    assert len({found["wrap 12"], found["saturate 12"]}) == 2


def test_a_lossy_converter_is_measured_beside_the_exact_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--adc-bits`: three bits for sums of up to 64 products spoil what the exact network knows."""
    monkeypatch.setattr(proofs, "FORMS", {"integer_exact": Mode()})
    network, out = Path(__file__).resolve().parents[2] / "networks" / "digits_silu_w4a4", tmp_path / "found.json"
    given = ["--images", "1", "--accuracy-images", "60", "--adc-bits", "3", "--adc-rows", "64", "--out", str(out)]
    assert main([str(network), *given]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))["accuracies_percent"]
    assert found["integer_exact"] > 90
    assert found["adc_3_bits_64_rows"] < found["integer_exact"] - 10


@pytest.mark.parametrize("option", [["--images", "0"], ["--images", "-5"], ["--accuracy-images", "-1"]])
def test_no_images_prove_nothing(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["networks/digits_silu_w4a4", "--random", *option]) == 2
    assert "expected 1 or more images" in capsys.readouterr().err


def own_images(path: Path, size: int = 8) -> Path:
    """A data set of noise."""
    numbers = np.random.default_rng(0)
    pixels, labels = numbers.integers(0, 256, (12, 3, size, size), np.uint8), numbers.integers(0, 10, 12)
    np.savez(path, train_images=pixels, train_labels=labels, test_images=pixels, test_labels=labels)
    return path


@pytest.mark.long
def test_images_of_ones_own_are_verified_on(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(own_images(tmp_path / "own.npz"))
    scale = ["--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2"]
    assert main([str(folder), "--data", data, *scale, "--images", "2", "--accuracy-images", "4"]) == 0
    assert "of 4 images" in capsys.readouterr().err
    cases: list[tuple[list[str], str]] = [
        (["--data", data, "--mean", "0.5,0.5,0.5"], "--std: missing"),
        (["--data", str(own_images(tmp_path / "large.npz", 16))], "takes inputs of shape (3, 8, 8)"),
        (["--data", "nowhere.npz"], "nowhere.npz"),
    ]
    for arguments, message in cases:
        assert main([str(folder), *arguments]) == 2
        assert message in capsys.readouterr().err
