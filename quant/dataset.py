"""What a data set is: three parts of inputs and labels, and the batches that training and evaluation see.

Pixels stay uint8 until a batch is made; crop, flip, order and validation split depend on the seed alone, not on batch
size, workers or number of processes.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """(pixel / 255 - mean) / std per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """uint8 (N, C, H, W) -> float, on the device of the pixels. ValueError when the channels disagree."""
        if len(self.mean) != pixels.shape[1]:
            raise ValueError(f"normalisation has {len(self.mean)} channels, the images {pixels.shape[1]}")
        mean, std = (_per_channel(values, dtype, pixels.device) for values in (self.mean, self.std))
        return pixels.to(dtype).div_(255.0).sub_(mean).div_(std)


@functools.lru_cache(maxsize=64)
def _per_channel(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(1, C, 1, 1) on the device, made once: a copy from the host in every step would wait for the GPU."""
    return torch.tensor(values, dtype=dtype).view(1, -1, 1, 1).to(device)


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of ImageNet; the public trained CIFAR ResNets use it too."""
CIFAR = Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
FASHION = Normalisation((0.2860,), (0.3530,))
DIGITS = Normalisation((0.3053,), (0.3763,))
UNIT = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
PIXELS_0_255 = Normalisation((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))


@dataclass(frozen=True)
class Augment:
    """Random crop after zero padding by `pad` pixels a side, and a horizontal flip of half the images."""

    pad: int
    flip: bool


class Split(Protocol):
    """Inputs and labels of one part of a data set; `read` yields batches (uint8 images) in the order asked for."""

    labels: Tensor

    def __len__(self) -> int: ...

    def shape(self) -> tuple[int, ...]: ...

    def read(
        self, batches: Sequence[Tensor], draws: Tensor | None, augment: Augment | None
    ) -> Iterator[tuple[Any, Tensor]]: ...

    def subset(self, indices: Tensor) -> "Split": ...


@dataclass(frozen=True)
class Arrays:
    """A split held in memory: uint8 (N, C, H, W) and int64 labels (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def shape(self) -> tuple[int, int, int]:
        return int(self.images.shape[1]), int(self.images.shape[2]), int(self.images.shape[3])

    def subset(self, indices: Tensor) -> "Arrays":
        return Arrays(self.images[indices], self.labels[indices])

    def to(self, device: torch.device | str) -> "Arrays":
        return Arrays(self.images.to(device), self.labels.to(device))

    def read(
        self, batches: Sequence[Tensor], draws: Tensor | None, augment: Augment | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """`draws` (len(self), 3): row offset, column offset and flip in [0, 1), indexed like the images."""
        if not len(batches):
            return
        # One copy to the device for all batches: a copy in every step would wait for the GPU.
        device = self.images.device
        places = torch.cat(list(batches)).to(device).split([len(indices) for indices in batches])
        draws = None if draws is None else draws.to(device)
        for where in places:
            images = self.images[where]
            if augment is not None and draws is not None:
                images = crop_flip(images, draws[where], augment)
            yield images, self.labels[where]


@dataclass(frozen=True)
class Dataset:
    """Three disjoint parts, the number of classes, and how pixels are scaled and augmented by default.

    `note` says what limits the use of its accuracies (a split of our own, lossy copies).
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    normalisation: Normalisation
    augment: Augment
    note: str = ""

    def with_normalisation(self, normalisation: Normalisation) -> "Dataset":
        return replace(self, normalisation=normalisation)


def crop_flip(images: Tensor, draws: Tensor, augment: Augment) -> Tensor:
    """Each image cropped at its own offset and flipped or not. draws (N, 3) in [0, 1) -> same shape as `images`."""
    n, _, height, width = images.shape
    pad = augment.pad
    padded = F.pad(images, (pad, pad, pad, pad)) if pad else images
    offsets = (draws[:, :2] * (2 * pad + 1)).long()
    rows = offsets[:, :1] + torch.arange(height, device=images.device)
    columns = offsets[:, 1:2] + torch.arange(width, device=images.device)
    if augment.flip:
        columns = torch.where(draws[:, 2:] < 0.5, columns.flip(1), columns)
    picked = padded.permute(0, 2, 3, 1)[
        torch.arange(n, device=images.device)[:, None, None], rows[:, :, None], columns[:, None]
    ]
    return picked.permute(0, 3, 1, 2)


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The generator of one epoch's order and augmentation: a function of (seed, epoch), so nothing must be saved."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """Shuffled indices of one epoch in full batches; the remainder is left out (it returns in other epochs)."""
    if batch_size < 1:
        raise ValueError(f"batch size: expected at least 1, got {batch_size}")
    if count < batch_size:
        raise ValueError(f"batch size {batch_size} exceeds the {count} training images: choose at most {count}")
    order = torch.randperm(count, generator=epoch_generator(seed, epoch))
    return list(order[: count - count % batch_size].view(-1, batch_size))


def train_batches(
    data: Dataset,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    start: int = 0,
    rank: int = 0,
    processes: int = 1,
    augment: bool = True,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches `start`, `start` + 1, ... of an epoch: normalised images and labels.

    `batch_size` counts all processes; each gets its slice of every batch: order and crops do
    not depend on them.
    """
    if batch_size % processes:
        raise ValueError(f"batch size {batch_size} must divide by the number of processes, {processes}")
    batches = epoch_batches(len(data.train), batch_size, seed, epoch)[start:]
    share = batch_size // processes
    mine = [b[rank * share : (rank + 1) * share] for b in batches]
    draws = None
    if augment:
        generator = epoch_generator(seed, epoch)
        torch.randperm(len(data.train), generator=generator)
        draws = torch.rand(len(data.train), 3, generator=generator)
    for images, labels in data.train.read(mine, draws, data.augment if augment else None):
        yield scaled(images, data.normalisation), labels


def scaled(inputs: Any, normalisation: Normalisation) -> Any:
    """What a network is called with: uint8 images normalised, other inputs (`own_data.Tensors`) as they are."""
    if isinstance(inputs, Tensor) and inputs.dtype == torch.uint8 and inputs.dim() == 4:
        return normalisation.apply(inputs)
    return inputs


def eval_batches(
    split: Split, normalisation: Normalisation, batch_size: int = 500, rank: int = 0, processes: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """All images of a split in order (every `processes`-th from `rank`), normalised; the last batch may be smaller."""
    order = torch.arange(rank, len(split), processes)
    # A process without an image must not ask for an empty batch, which `split` would make.
    for images, labels in split.read(order.split(batch_size) if len(order) else [], None, None):
        yield scaled(images, normalisation), labels


def from_arrays(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    num_classes: int,
    *,
    normalisation: Normalisation | None = None,
    augment: Augment | None = None,
    validation: int | None = None,
    name: str = "arrays",
    seed: int = 0,
) -> Dataset:
    """A data set of one's own: uint8 images (N, C, H, W) and labels, training and test part."""
    parts = []
    for what, (images, labels) in (("train", train), ("test", test)):
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise ValueError(
                f"{name} {what}: expected uint8 images (N, C, H, W), got {images.dtype} {tuple(images.shape)}"
            )
        if len(images) == 0 or len(images) != len(labels):
            raise ValueError(f"{name} {what}: expected as many labels as images, got {len(labels)} and {len(images)}")
        check_labels(labels, num_classes, f"{name} {what}")
        parts.append(Arrays(images, labels.long()))
    channels = int(train[0].shape[1])
    scale = normalisation or Normalisation((0.5,) * channels, (0.5,) * channels)
    data = Dataset(
        name, parts[0], parts[0].subset(torch.arange(0)), parts[1], num_classes, scale, augment or Augment(0, False)
    )
    return split_validation(data, validation, seed)


def check_labels(labels: Tensor, num_classes: int, where: str) -> None:
    """ValueError naming the first label outside 0 .. num_classes - 1."""
    bad = torch.nonzero((labels < 0) | (labels >= num_classes)).flatten()
    if len(bad):
        first = int(bad[0])
        raise ValueError(
            f"{where}: labels: expected 0..{num_classes - 1}, got {int(labels[first])} at image {first} "
            f"({len(bad)} of {len(labels)} out of range)"
        )


def split_validation(data: Dataset, count: int | None, seed: int) -> Dataset:
    """Move `count` training images, chosen by `seed`, to the validation part (default a tenth, at most 5,000)."""
    total = len(data.train)
    if count is None:
        count = min(5_000, total // 10)
    if not 0 <= count < total:
        raise ValueError(f"validation: expected 0..{total - 1} of the {total} training images, got {count}")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    taken, kept = order[:count].sort().values, order[count:].sort().values
    return replace(data, train=data.train.subset(kept), validation=data.train.subset(taken))
