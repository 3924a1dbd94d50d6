"""The study of formats on images: every arm trains from the same float network, runs go on where they stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from experiments import nonlinear, table
from experiments.format_page import bits_of
from experiments.format_pricing import average_bits
from experiments.format_training import Study
from experiments.language.arms import quantized
from experiments.vision import page, price, train
from quant.dataset import CIFAR, Arrays, Augment, Dataset


def noise(count: int, seed: int) -> Arrays:
    """Images without a pattern."""
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=rng, dtype=torch.uint8)
    return Arrays(pixels, torch.randint(0, 10, (count,), generator=rng))


@pytest.mark.long
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


def test_pairs_compare_formats_of_equal_bits() -> None:
    """Within a tenth of a bit of the weights, scales counted, but for those that say that LSQ+ has fewer."""
    costs = bits_of(table.read(price.TABLE))
    assert set(costs) == {arm.name for arm in train.ARMS if arm.settings}
    arm = next(arm for arm in train.ARMS if arm.name == "lsqplus-4-g32")
    assert average_bits(price.workload_of(arm)) == pytest.approx(costs["lsqplus-4-g32"], abs=1e-6)
    fewer = {("lsqplus-4", "mxfp4"), ("lsqplus-4", "nvfp4"), ("nvfp4", "mxfp4"), ("lsqplus-8", "mxint8")}
    for first, second in set(page.PAIRS) - fewer:
        assert costs[first][0] == pytest.approx(costs[second][0], abs=0.1)
    assert all(len(members) == 3 for members in page.STUDY.tested().values())


@pytest.mark.long
def test_integers_compare_all_codes_and_err_as_float64_does(tmp_path: Path) -> None:
    """Without training: a row per method, no float operator left by integers, the proven ones equal code for code."""
    data = Dataset("noise", noise(128, 0), noise(32, 1), noise(32, 2), 10, CIFAR, Augment(4, True), "")
    study = Study(tmp_path / "runs.csv", tmp_path, train.task(data, epochs=1, steps=1))
    arm = next(arm for arm in train.ARMS if arm.name == nonlinear.ARM)
    study.tested_run(arm, 0, *study.chosen(arm))
    trained = dataclasses.replace(nonlinear.images(data, tmp_path, 32), study=study)
    trained = dataclasses.replace(trained, rows=trained.rows[:2])
    by_method = {row["method"]: row for row in nonlinear.rows(trained, 0)}
    assert by_method["float"]["float_operators"] > 0
    assert by_method["proven"]["float_operators"] == by_method["i-bert"]["float_operators"] == 0
    assert by_method["proven"]["own_differing"] == by_method["proven"]["end_to_end_differing"] == 0
    assert by_method["proven"]["error_integer"] == by_method["proven"]["error_float64"]
    assert by_method["i-bert"]["codes"] == by_method["proven"]["codes"] > 10_000
