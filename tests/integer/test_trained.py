"""Trained networks at W2A2 to W8A8 in every configuration: all codes equal the float64 network's, on test images."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.compare import compare, reference, reference_codes
from hwsim.integer.run import Machine
from quant import checkpoint, data, initialise
from quant.convert import quantize
from quant.weights import load_pretrained

SCALE = data.Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@cache
def all_test_images(folder: Path) -> tuple[Tensor, Tensor]:
    found = data.load("cifar10", folder, test_only=True)
    batches = list(data.eval_batches(found.test, SCALE))
    return torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])


def calibrated(folder: Path, images: Tensor, bits: int, config: int, policy: str) -> nn.Module:
    """ResNet-20's trained weights; quantizers initialised on images (no labels, and accuracy is not the point)."""
    model, _ = quantize(
        load_pretrained("resnet20", folder), weight_bits=bits, act_bits=bits, config=config, padding_policy=policy,
        init="minmax",
    )  # fmt: skip
    return initialise(model, [images]).eval()


def check(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Every code of every batch equal, hardly any undecided; returns the machine's accuracy in percent."""
    machine, twin = Machine(lower(model, images[:1])), reference(model)
    keep, right = set(machine.model.quantizers.values()), 0
    elements = undecided = 0
    for batch, wanted in zip(images.split(50), labels.split(50), strict=True):
        _, expected = reference_codes(twin, batch)
        outcome = machine.run(batch, keep=keep)
        found = compare(machine.model, outcome.codes, expected)
        assert sum(d.differing for d in found) == 0
        elements += sum(d.elements for d in found)
        undecided += outcome.tally["undecided"]
        right += int((outcome.values.argmax(1) == wanted).sum())
    # Global means have a bounded error: within it of a threshold the machine claims nothing (and agreed here, too).
    assert undecided <= 1e-7 * elements
    return 100 * right / len(labels)


def test_trained_resnet20_is_exact_on_test_images(pretrained_dir: Path, data_dir: Path) -> None:
    images, labels = all_test_images(data_dir)
    model = calibrated(data_dir, images[9000:9032], 8, 4, "border_bias")
    assert check(model, images[:50], labels[:50]) >= 80


@pytest.mark.slow
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("config", [1, 2, 3, 4])
def test_every_configuration_is_exact_on_a_thousand_images(
    pretrained_dir: Path, data_dir: Path, bits: int, config: int
) -> None:
    images, labels = all_test_images(data_dir)
    policy = ("pad_code", "border_bias", "pad_beta", "snap_offset")[(bits + config) % 4]
    check(calibrated(data_dir, images[9000:9064], bits, config, policy), images[:1000], labels[:1000])


@pytest.mark.slow
def test_all_ten_thousand_images_are_exact(pretrained_dir: Path, data_dir: Path) -> None:
    images, labels = all_test_images(data_dir)
    model = calibrated(data_dir, images[9000:9064], 8, 4, "border_bias")
    assert check(model, images, labels) >= 85


# ---- the networks in this repository ---------------------------------------------------------------------------------

NETWORKS = Path(__file__).resolve().parents[2] / "networks"


def shipped(data_name: str) -> list[Path]:
    """Quantized networks of this repository that were trained on a data set."""
    found = [p.parent for p in sorted(NETWORKS.glob("*/settings.json"))]
    metas = {p: checkpoint.load_meta(p) for p in found}
    return [p for p, meta in metas.items() if meta.data == data_name and meta.quantization is not None]


def images_of(folder: Path, data_dir: Path | None) -> tuple[nn.Module, Tensor, Tensor]:
    model, meta = checkpoint.load(folder)
    found = data.load(meta.data, data_dir, test_only=True)
    batches = list(data.eval_batches(found.test, meta.normalisation or found.normalisation))
    return model, torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])


@pytest.mark.parametrize("folder", shipped("digits"), ids=lambda p: p.name)
def test_shipped_networks_are_exact_on_their_test_images(folder: Path) -> None:
    model, images, labels = images_of(folder, None)
    assert check(model, images, labels) >= 90


@pytest.mark.slow
@pytest.mark.parametrize("folder", shipped("cifar10"), ids=lambda p: p.name)
def test_shipped_cifar_networks_are_exact_on_all_test_images(folder: Path, data_dir: Path) -> None:
    model, images, labels = images_of(folder, data_dir)
    assert check(model, images, labels) >= 60
