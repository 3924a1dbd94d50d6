"""Images in one folder per class, decoded by worker processes: the layout of torchvision's ImageFolder.

    FOLDER/train/CLASS/*.JPEG    FOLDER/val/CLASS/*.JPEG

Each image's shorter side is resized to 256, then 224 x 224 are cropped: at random when training, in the middle
otherwise. JPEGs are decoded at a reduced scale where that loses nothing (the DCT's own 1/2, 1/4, 1/8). Needs Pillow.
"""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
Item = tuple[int, tuple[float, float, float] | None]


@dataclass(frozen=True)
class FolderSplit:
    """A split whose images stay on the disk until read. `names`: paths below `root`, as bytes."""

    root: Path
    names: np.ndarray
    labels: Tensor
    resize: int = 256
    crop: int = 224
    workers: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def shape(self) -> tuple[int, int, int]:
        return 3, self.crop, self.crop

    def subset(self, indices: Tensor) -> "FolderSplit":
        return FolderSplit(
            self.root, self.names[indices.numpy()], self.labels[indices], self.resize, self.crop, self.workers
        )

    def read(
        self, batches: Sequence[Tensor], draws: Tensor | None, augment: object | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """uint8 (N, 3, crop, crop) and labels; `draws` (len(self), 3) place the crop and decide the flip."""
        parallel = {"multiprocessing_context": "forkserver", "prefetch_factor": 4} if self.workers else {}
        loader = DataLoader(
            _Decoder(self.root, self.names, self.resize, self.crop),
            batch_sampler=_Keys(batches, draws if augment is not None else None),  # type: ignore[arg-type]
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            **parallel,  # type: ignore[arg-type]
        )
        try:
            for batch, images in zip(batches, loader, strict=True):
                yield images, self.labels[batch]
        except ValueError as error:  # of a worker: torch puts the whole traceback into the message
            raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from None


@dataclass(frozen=True)
class _Keys:
    """What the workers are asked for, batch by batch: image numbers with their draws; made when needed."""

    batches: Sequence[Tensor]
    draws: Tensor | None

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Item]]:
        for batch in self.batches:
            rows = [None] * len(batch) if self.draws is None else self.draws[batch].tolist()
            yield [(i, tuple(row) if row else None) for i, row in zip(batch.tolist(), rows, strict=True)]


class _Decoder(Dataset[Tensor]):
    def __init__(self, root: Path, names: np.ndarray, resize: int, crop: int) -> None:
        self.root, self.names, self.resize, self.crop = root, names, resize, crop

    def __getitem__(self, key: Item) -> Tensor:  # type: ignore[override]
        index, draws = key
        return decode(self.root / os.fsdecode(bytes(self.names[index])), self.resize, self.crop, draws)


def decode(path: Path, resize: int, crop: int, draws: tuple[float, float, float] | None) -> Tensor:
    """One image as uint8 (3, crop, crop); ValueError naming the file when it cannot be decoded."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.draft("RGB", (resize, resize))
            rgb = image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path}: could not decode this image: {error}") from error
    scale = resize / min(rgb.size)
    size = (max(crop, round(rgb.width * scale)), max(crop, round(rgb.height * scale)))
    rgb = rgb.resize(size, Image.Resampling.BILINEAR)
    down, right = (draws[0], draws[1]) if draws else (0.5, 0.5)
    # Centre: half of the free room, rounded as torchvision's CenterCrop does.
    top = int(down * (size[1] - crop + 1)) if draws else round((size[1] - crop) / 2)
    left = int(right * (size[0] - crop + 1)) if draws else round((size[0] - crop) / 2)
    pixels = np.asarray(rgb)[top : top + crop, left : left + crop]
    if draws and draws[2] < 0.5:
        pixels = pixels[:, ::-1]
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def scan(
    folder: Path, workers: int | None = None, *, resize: int = 256, crop: int = 224
) -> tuple[FolderSplit, FolderSplit, list[str]]:
    """Training part, validation part and class names (sorted, as torchvision numbers them).

    `resize`: what an image's shorter side becomes; `crop`: the side of the square cut out of that.

    FileNotFoundError for absent or empty folders, ValueError when val/ has a class that train/ lacks.
    """
    if importlib.util.find_spec("PIL") is None:
        raise ValueError("reading images needs Pillow: pip install 'hwsim[train]'")
    for part in ("train", "val"):
        if not (folder / part).is_dir():
            raise FileNotFoundError(f"{folder}: expected train/CLASS/*.JPEG and val/CLASS/*.JPEG, found no {part}/")
    classes = _classes(folder / "train")
    unknown = [c for c in _classes(folder / "val") if c not in classes]
    if unknown:
        raise ValueError(
            f"{folder / 'val'}: class '{unknown[0]}' does not occur in train/ ({len(unknown)} such classes)"
        )
    count = max(1, (os.cpu_count() or 1) - 1) if workers is None else workers
    train, val = (_scan_part(folder / part, classes, count) for part in ("train", "val"))
    return replace(train, resize=resize, crop=crop), replace(val, resize=resize, crop=crop), classes


def _classes(folder: Path) -> list[str]:
    found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if not found:
        raise FileNotFoundError(f"{folder}: expected one folder of images per class, found none")
    return found


def _scan_part(folder: Path, classes: list[str], workers: int) -> FolderSplit:
    names: list[bytes] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        below = folder / name
        files = sorted(e.name for e in os.scandir(below)) if below.is_dir() else []
        files = [f for f in files if f.lower().endswith(EXTENSIONS)]
        names += [os.fsencode(f"{name}/{f}") for f in files]
        labels += [label] * len(files)
    if not names:
        raise FileNotFoundError(f"{folder}: no images ({', '.join(EXTENSIONS)}) in its class folders")
    return FolderSplit(folder, np.array(names), torch.tensor(labels), workers=workers)
