"""The study of formats on images: every arm trains from the same float network, runs go on where they stopped."""

from __future__ import annotations

from pathlib import Path

import torch

from experiments import table
from experiments.format_training import Study
from experiments.language.arms import quantized
from experiments.vision import train
from quant.dataset import CIFAR, Arrays, Augment, Dataset


def noise(count: int, seed: int) -> Arrays:
    """Images without a pattern."""
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=rng, dtype=torch.uint8)
    return Arrays(pixels, torch.randint(0, 10, (count,), generator=rng))


def test_runs_read_the_test_images_once_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    data = Dataset("noise", noise(256, 0), noise(32, 1), noise(32, 2), 10, CIFAR, Augment(4, True), "")
    study = Study(tmp_path / "runs.csv", tmp_path, train.task(data, epochs=1, steps=2))
    for name in ("nvfp4", "lsqplus-4-mlp5", "float-longer"):
        arm = next(arm for arm in train.ARMS if arm.name == name)
        study.tested_run(arm, 0, *study.chosen(arm))
    rows = table.read(study.out)
    assert [row["arm"] for row in rows if row["test_error_percent"]].count("nvfp4") == 1
    assert len(rows) == 1 + 3 * len(train.RATES)
    for name in ("nvfp4", "lsqplus-4-mlp5"):
        arm = next(arm for arm in train.ARMS if arm.name == name)
        study.tested_run(arm, 0, *study.chosen(arm))
    assert table.read(study.out) == rows


def test_arms_hold_the_bits_of_their_names_on_inner_layers() -> None:
    images = torch.randn(2, 3, 32, 32)
    for name, bits in (("lsqplus-4-mlp5", {4, 5}), ("lsqplus-4", {4}), ("mxint8", {8})):
        arm = next(arm for arm in train.ARMS if arm.name == name)
        made, _ = quantized(train.vision_transformer(), arm, arm.rules[0], images, "8bit")
        layers = [m for n, m in made.named_modules() if n.startswith("blocks") and hasattr(m, "weight_quantizer")]
        inner = {layer.weight_quantizer.spec.bits for layer in layers}
        assert inner == bits
        assert made.get_submodule("head").weight_quantizer.spec.bits == 8
