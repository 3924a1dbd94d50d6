"""Data sets of one's own: a `.npz` of arrays, a folder of images, a function that returns a `Dataset`, or tensors.

`--data` takes a path or `package.module:function`; `quant.data.load` hands such names to `load_own`. Pixels are
normalised by `mean` and `std` where they are given, otherwise by those of the training images: the checkpoint keeps
them. A function is imported from the command line only, never because a checkpoint names it.

    data.npz    train_images, train_labels, test_images, test_labels (or x_train, y_train, x_test, y_test);
                images uint8: (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels
    FOLDER      train/CLASS/* and val/CLASS/* (image files)
"""

from __future__ import annotations

import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quant import dataset as sets
from quant.calling import rows
from quant.image_folder import scan
from quant.own_code import own_module

_NAMES = (("train_images", "train_labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test"))
_CHANNELS = (1, 3, 4)
# Images looked at for the mean and deviation of a folder.
_LOOKED_AT = 2000


def is_own(name: str) -> bool:
    """Whether a data set's name is a path or a function instead of a known name."""
    return ":" in name or name.endswith(".npz") or Path(name).is_dir()


def is_function(name: str) -> bool:
    """Whether a data set's name is a `package.module:function`, which runs code of its own."""
    return ":" in name and not name.endswith(".npz") and not Path(name).is_dir()


def load_own(name: str, *, image_size: int | None = None, workers: int | None = None) -> sets.Dataset:
    """The data set behind a path or a `package.module:function`, its validation part still within the training part.

    `image_size`: side of the square that images of a folder are cut to (default 224). ValueError for content that is no
    data set, naming the file or function and what was expected.
    """
    if name.endswith(".npz"):
        return _from_npz(Path(name))
    if Path(name).is_dir():
        return _from_folder(Path(name), image_size or 224, workers)
    return _from_function(name)


def _from_npz(path: Path) -> sets.Dataset:
    content = _content(path)
    names = next((names for names in _NAMES if set(names) <= set(content)), None)
    if names is None:
        raise ValueError(f"{path}: expected arrays {', '.join(_NAMES[0])}, found {', '.join(content)}")
    arrays = [content[name] for name in names]
    parts = [
        (_images(path, names[i], arrays[i]), _labels(path, names[i + 1], arrays[i + 1], len(arrays[i]))) for i in (0, 2)
    ]
    shapes = [tuple(images.shape[1:]) for images, _ in parts]
    if shapes[0][0] != shapes[1][0]:
        raise ValueError(f"{path}: expected as many channels in both parts, found {shapes[0]} and {shapes[1]}")
    classes = 1 + max(int(labels.max()) for _, labels in parts if len(labels))
    scale = statistics([images for images, _ in parts][:1])
    return sets.from_arrays(*parts, classes, normalisation=scale, validation=0, name=str(path))


def _content(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz by name; nothing is unpickled."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: np.asarray(content[name]) for name in content.files}
    except (zipfile.BadZipFile, EOFError, OSError, KeyError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: expected a .npz of arrays, could not read it: {error}") from error


def _images(path: Path, name: str, array: np.ndarray) -> Tensor:
    """uint8 (N, C, H, W); the channels are the last axis where only that has 1, 3 or 4 of them."""
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or len(array) == 0:
        raise ValueError(
            f"{path}: {name}: expected uint8 images (N, H, W), (N, H, W, C) or (N, C, H, W), found {array.dtype} "
            f"{array.shape}"
        )
    if array.ndim == 3:
        array = array[:, None]
    elif array.shape[1] not in _CHANNELS and array.shape[3] in _CHANNELS:
        array = array.transpose(0, 3, 1, 2)
    elif array.shape[1] not in _CHANNELS:
        raise ValueError(f"{path}: {name}: expected 1, 3 or 4 channels on axis 1 or 3, found the shape {array.shape}")
    return torch.from_numpy(np.ascontiguousarray(array))


def _labels(path: Path, name: str, array: np.ndarray, count: int) -> Tensor:
    flat = array.reshape(-1)
    if not np.issubdtype(array.dtype, np.integer) or len(flat) != count:
        raise ValueError(f"{path}: {name}: expected {count} integer labels, found {array.dtype} {array.shape}")
    return torch.from_numpy(flat.astype(np.int64))


def _from_folder(folder: Path, size: int, workers: int | None) -> sets.Dataset:
    train, test, classes = scan(folder, workers, resize=round(size * 256 / 224), crop=size)
    some = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:_LOOKED_AT].split(100)
    scale = statistics(images for images, _ in train.read(some, None, None))
    empty = train.subset(torch.arange(0))
    note = f"test = {folder / 'val'}"
    return sets.Dataset(str(folder), train, empty, test, len(classes), scale, sets.Augment(0, True), note)


def statistics(parts: Any) -> sets.Normalisation:
    """Mean and standard deviation per channel, of pixels scaled to 0..1, over batches of uint8 images."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for images in parts:
        pixels = images.double().div(255).movedim(1, 0).flatten(1)
        count, total = count + pixels.shape[1], total + pixels.sum(1)
        squares = squares + pixels.square().sum(1)
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    return sets.Normalisation(tuple(mean.tolist()), tuple(std.clamp_min(1 / 255).tolist()))


def _from_function(name: str) -> sets.Dataset:
    module, _, function = name.partition(":")
    try:
        found: Callable[[], Any] = getattr(own_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"--data {name}: expected a .npz file, a folder of images, or package.module:function ({error})"
        ) from error
    if not callable(found):
        raise ValueError(f"--data {name}: expected a function, found {type(found).__name__}")
    try:
        made = found()
    except Exception as error:  # whatever the user's code raises
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = "" if frame.filename == __file__ else f" at {frame.filename}:{frame.lineno}"
        raise ValueError(
            f"--data {name}: the function raised {type(error).__name__}{place}: {error}; "
            "it is called without arguments and returns a quant.data.Dataset"
        ) from error
    if not isinstance(made, sets.Dataset):
        raise ValueError(f"--data {name}: expected quant.data.Dataset from the function, got {type(made).__name__}")
    return made


# ---- several inputs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tensors:
    """A split of one input or several, by position or by name, as the network takes them; no pixels are scaled."""

    inputs: Any
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def shape(self) -> tuple[int, ...]:
        """The shape of the first input, without its batch axis."""
        return tuple(_first(self.inputs).shape[1:])

    def subset(self, indices: Tensor) -> Tensors:
        return Tensors(_taken(self.inputs, indices), self.labels[indices])

    def read(self, batches: Sequence[Tensor], draws: Tensor | None, augment: object) -> Iterator[tuple[Any, Tensor]]:
        for indices in batches:
            yield _taken(self.inputs, indices), self.labels[indices]


def from_tensors(
    train: tuple[Any, Tensor], test: tuple[Any, Tensor], num_classes: int, *, validation: int | None = None,
    name: str = "tensors", seed: int = 0,
) -> sets.Dataset:  # fmt: skip
    """A data set whose inputs are a tensor, a tuple of tensors or a dictionary by name, beside their labels."""
    parts = []
    for what, (inputs, labels) in (("train", train), ("test", test)):
        if rows(inputs) != len(labels) or len(labels) == 0:
            raise ValueError(f"{name} {what}: expected as many labels as inputs, got {len(labels)} and {rows(inputs)}")
        sets.check_labels(labels, num_classes, f"{name} {what}")
        parts.append(Tensors(inputs, labels.long()))
    none = sets.Normalisation((), ())
    whole = sets.Dataset(
        name, parts[0], parts[0].subset(torch.arange(0)), parts[1], num_classes, none, sets.Augment(0, False)
    )
    return sets.split_validation(whole, validation, seed)


def _first(inputs: Any) -> Tensor:
    while not isinstance(inputs, Tensor):
        inputs = next(iter(inputs.values() if isinstance(inputs, Mapping) else inputs))
    return inputs


def _taken(inputs: Any, indices: Tensor) -> Any:
    if isinstance(inputs, Tensor):
        return inputs[indices]
    if isinstance(inputs, Mapping):
        return {key: _taken(value, indices) for key, value in inputs.items()}
    return tuple(_taken(value, indices) for value in inputs)
