"""The images that a check of an integer network runs on."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hwsim.errors import WorkloadError
from quant import checkpoint, data, own_data


def test_images(folder: Path, data_dir: Path | None, count: int, random: bool) -> tuple[Tensor, Tensor | None]:
    """Normalised test images (and labels) of the data set that the checkpoint names, or noise."""
    meta = checkpoint.load_meta(folder)
    if random or not meta.data:
        if not meta.input_shape:
            raise WorkloadError(f"{folder}: settings.json has no input_shape; without it there are no images to run")
        return torch.randn(count, *meta.input_shape, generator=torch.Generator().manual_seed(0)), None
    if own_data.is_function(meta.data):
        raise WorkloadError(
            f"{folder}: its data set is the function {meta.data}, and no code runs because a checkpoint names it: use "
            "--random, or certify() on images of your own"
        )
    size = meta.input_shape[-1] if meta.input_shape else None
    found = data.load(meta.data, data_dir, test_only=True, image_size=size)
    scale = meta.normalisation or found.normalisation
    batches = data.eval_batches(found.test.subset(torch.arange(min(count, len(found.test)))), scale, 500)
    parts = list(batches)
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
