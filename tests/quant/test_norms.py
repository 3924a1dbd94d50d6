"""Batch norms measured again: the average over the batches, at the end of a training, with nothing else changed."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

import quant
from quant import data, models
from quant.accuracy import evaluate
from quant.loop import fit
from quant.norms import reestimate_norms
from quant.recipe import Recipe


def test_norms_take_the_average_over_the_batches() -> None:
    """Against the definition: mean of batch means, mean of unbiased batch variances, of each norm's input."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, momentum=0.3), nn.ReLU(), nn.Dropout(0.5))
    batches = [torch.randn(10, 2, 6, 6) + i for i in range(3)]
    assert reestimate_norms(model.train(), batches) == 1
    inputs = [model[0](b).detach() for b in batches]
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0))
    assert norm.momentum == 0.3
    assert all(m.training for m in model.modules())


def test_a_network_without_norms_is_left_alone() -> None:
    model = nn.Linear(3, 2)
    assert reestimate_norms(model, [torch.randn(4, 3)]) == 0


def trained(recipe: Recipe) -> tuple[nn.Module, data.Dataset, float | None]:
    """A ResNet-8 (its norms forget 1 % a step) after a few steps at 4 bits, and its validation accuracy."""
    digits = data.load("digits", validation=64, limit=320)
    torch.manual_seed(1)
    model, _ = quant.quantize(
        models.create("resnet8", in_channels=1, image_size=8, width=0.5), weight_bits=4, act_bits=4
    )
    result = fit(model, digits, recipe, test=False)
    return model, digits, result.history[-1].validation_accuracy_percent


def test_a_training_ends_with_the_statistics_of_the_network_it_made() -> None:
    """As when they are measured by hand after a training without; weights, steps and offsets are the same."""
    recipe = Recipe(epochs=4, batch_size=64, learning_rate=0.1, seed=3)
    plain, digits, before = trained(recipe)
    measured, _, after = trained(replace(recipe, norm_batches=2))
    parameters = dict(plain.named_parameters())
    assert all(torch.equal(parameters[name], p) for name, p in measured.named_parameters())
    statistics = {name: b for name, b in measured.named_buffers() if "running" in name}
    assert not all(torch.equal(dict(plain.named_buffers())[name], b) for name, b in statistics.items())
    stream = data.train_batches(digits, 64, seed=3, epoch=2**20 + 1)
    reestimate_norms(plain, itertools.islice((x for x, _ in stream), 2))
    assert all(torch.equal(dict(plain.named_buffers())[name], b) for name, b in statistics.items())
    assert after == evaluate(plain, digits.validation, digits.normalisation) != before


def test_quantized_recipes_measure_and_older_ones_did_not() -> None:
    assert (Recipe.for_bits(None).norm_batches, Recipe.for_bits(4).norm_batches) == (0, 16)
    assert Recipe.for_bits(4, norm_batches=0).norm_batches == 0
    older = {name: value for name, value in Recipe.for_bits(4).to_dict().items() if name != "norm_batches"}
    assert Recipe.from_dict(older).norm_batches == 0


def test_one_image_has_no_variance() -> None:
    with pytest.raises(ValueError, match="a batch of one image has no variance"):
        reestimate_norms(nn.BatchNorm2d(2), [torch.zeros(1, 2, 3, 3)])
