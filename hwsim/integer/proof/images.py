"""The images that a check of an integer network runs on."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hwsim.errors import WorkloadError
from quant import checkpoint, data, own_data
from quant.data import Normalisation
from quant.start import agreed


def test_images(
    folder: Path, data_dir: Path | None, count: int, random: bool,
    chosen: str = "", scale: Normalisation | None = None,  # noqa: PT028 - images for tests, no test
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Normalised test images (and labels) of the data set that the checkpoint names, or noise.

    `chosen`: another data set, by name, path or function, normalised by `scale` (default: as the network was trained).
    """
    meta = checkpoint.load_meta(folder)
    name = chosen or meta.data
    if random or not name:
        if not meta.input_shape:
            raise WorkloadError(f"{folder}: settings.json has no input_shape; without it there are no images to run")
        return torch.randn(count, *meta.input_shape, generator=torch.Generator().manual_seed(0)), None
    if not chosen and own_data.is_function(name):
        raise WorkloadError(
            f"{folder}: its data set is the function {name}, and no code runs because a checkpoint names it: give it "
            f"again, --data {name}, or use --random"
        )
    size = meta.input_shape[-1] if meta.input_shape else None
    found = data.load(name, data_dir, test_only=True, image_size=size)
    scale = agreed(meta.normalisation, scale, str(folder)) or found.normalisation
    batches = data.eval_batches(found.test.subset(torch.arange(min(count, len(found.test)))), scale, 500)
    parts = list(batches)
    images, labels = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    if meta.input_shape and tuple(images.shape[1:]) != tuple(meta.input_shape):
        shapes = f"{tuple(meta.input_shape)}, the data set {name} has {tuple(images.shape[1:])}"
        raise WorkloadError(f"{folder}: takes inputs of shape {shapes}")
    return images, labels
