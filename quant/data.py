"""Data sets as tensors of pixels: `load(name, folder) -> Dataset`, then `train_batches` and `eval_batches`.

digits (embedded, no download), cifar10 and fashion_mnist (this project's xz files or the official binary ones), and a
folder of images laid out as for torchvision (`quant.image_folder`). Pixels stay uint8 until a batch is made; crop,
flip, order and validation split depend on the seed alone, not on batch size, workers or number of processes.
"""

import gzip
import hashlib
import lzma
import os
import secrets
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from quant.image_folder import scan

NAMES = ("digits", "cifar10", "fashion_mnist", "imagenet")


@dataclass(frozen=True)
class Normalisation:
    """(pixel / 255 - mean) / std per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """uint8 (N, C, H, W) -> float, on the device of the pixels. ValueError when the channels disagree."""
        if len(self.mean) != pixels.shape[1]:
            raise ValueError(f"normalisation has {len(self.mean)} channels, the images {pixels.shape[1]}")
        mean = torch.tensor(self.mean, dtype=dtype, device=pixels.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, dtype=dtype, device=pixels.device).view(1, -1, 1, 1)
        return pixels.to(dtype).div_(255.0).sub_(mean).div_(std)


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
    """Images and labels of one part of a data set; `read` yields uint8 batches in the order asked for."""

    labels: Tensor

    def __len__(self) -> int: ...

    def shape(self) -> tuple[int, int, int]: ...

    def read(
        self, batches: Sequence[Tensor], draws: Tensor | None, augment: Augment | None
    ) -> Iterator[tuple[Tensor, Tensor]]: ...

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
        for indices in batches:
            where = indices.to(self.images.device)
            images = self.images[where]
            if augment is not None and draws is not None:
                images = crop_flip(images, draws[indices].to(images.device), augment)
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
        yield data.normalisation.apply(images), labels


def eval_batches(
    split: Split, normalisation: Normalisation, batch_size: int = 500, rank: int = 0, processes: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """All images of a split in order (every `processes`-th from `rank`), normalised; the last batch may be smaller."""
    order = torch.arange(rank, len(split), processes)
    # A process without an image must not ask for an empty batch, which `split` would make.
    for images, labels in split.read(order.split(batch_size) if len(order) else [], None, None):
        yield normalisation.apply(images), labels


def load(
    name: str,
    folder: str | Path | None = None,
    *,
    validation: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    test_only: bool = False,
    workers: int | None = None,
) -> Dataset:
    """A data set by name.

    `folder`: where its files lie (default: $HWSIM_DATA); digits needs none. `validation`: images taken from the
    training part by `seed` (default a tenth, at most 5,000; 0 is allowed). `limit`: keep the first so many training
    images, after the split. `test_only`: leave the training part empty and its files unread. `workers`: processes that
    decode a folder of images (default: all processors but one). ValueError for a wrong name or bad content,
    FileNotFoundError for absent files.
    """
    if name == "digits":
        data = _digits()
    elif name == "cifar10":
        data = _cifar10(_folder(name, folder), test_only)
    elif name == "fashion_mnist":
        data = _fashion_mnist(_folder(name, folder), test_only)
    elif name == "imagenet":
        data = _image_folder(_folder(name, folder), workers)
    else:
        raise ValueError(f"unknown data set '{name}': known are {', '.join(NAMES)}")
    for split in (data.train, data.test):
        check_labels(split.labels, data.num_classes, name)
    if test_only:
        return replace(data, train=data.train.subset(torch.arange(0)))
    data = split_validation(data, validation, seed)
    if limit is not None:
        if limit < 1:
            raise ValueError(f"limit: expected at least 1 image, got {limit}")
        data = replace(data, train=data.train.subset(torch.arange(min(limit, len(data.train)))))
    return data


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


# Files


def _folder(name: str, folder: str | Path | None) -> Path:
    named = folder if folder is not None else os.environ.get("HWSIM_DATA")
    if not named:
        raise FileNotFoundError(
            f"{name}: no data folder: pass --data-dir FOLDER or set HWSIM_DATA (the digits need none)"
        )
    path = Path(named)
    if not path.is_dir():
        raise FileNotFoundError(f"{name}: expected a folder, got {path}")
    below = path / name
    found = below if below.is_dir() else path
    if not any(found.iterdir()):
        raise FileNotFoundError(f"{name}: the folder {found} is empty")
    return found


def cache_folder() -> Path:
    """$HWSIM_CACHE, else $XDG_CACHE_HOME/hwsim, else ~/.cache/hwsim."""
    named = os.environ.get("HWSIM_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hwsim"


def decoded(path: Path, width: int, undo: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Rows (label, pixels) of an xz file, decoded once and kept as .npy under the content's hash.

    A cache that cannot be written is no error: the file is then decoded each time.
    """
    packed = path.read_bytes()
    target = cache_folder() / f"{path.stem}-{width}-{hashlib.blake2b(packed, digest_size=12).hexdigest()}.npy"
    if target.exists():
        try:
            return np.load(target, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError):
            target.unlink(missing_ok=True)  # a truncated cache file: decode again
    try:
        flat = np.frombuffer(lzma.decompress(packed), np.uint8)
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{path}: expected xz data, could not decode it: {error}") from error
    _check_rows(path, flat, width)
    count = len(flat) // width
    rows = np.concatenate([flat[:count, None], undo(flat[count:]).reshape(count, width - 1)], axis=1)
    try:
        write_atomically(target, lambda file: np.save(file, rows))
    except OSError:
        return rows
    return rows


def _check_rows(path: Path, flat: np.ndarray, width: int) -> None:
    if len(flat) == 0 or len(flat) % width:
        raise ValueError(f"{path}: expected a multiple of {width:,} bytes (label and pixels), got {len(flat):,}")


def write_atomically(target: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write to a temporary file in the same folder, flush it to the disk, then rename: whole or absent, never half."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _undo_differences(flat: np.ndarray) -> np.ndarray:
    """CIFAR xz: planes R-G, G, B-G (mod 256), each differenced along row and column -> (N, 3, 32, 32)."""
    d = flat.reshape(3, -1, 32, 32).cumsum(2, dtype=np.uint8).cumsum(3, dtype=np.uint8)
    return np.stack([d[0] + d[1], d[1], d[2] + d[1]], 1)


def _cifar_file(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if path.suffix == ".xz":
        rows = decoded(path, 3073, _undo_differences)
    else:
        flat = np.frombuffer(path.read_bytes(), np.uint8)
        _check_rows(path, flat, 3073)
        rows = flat.reshape(-1, 3073)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]


def _arrays(parts: list[tuple[np.ndarray, np.ndarray]]) -> Arrays:
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts]).astype(np.int64)
    return Arrays(torch.from_numpy(images), torch.from_numpy(labels))


def _choose(folder: Path, layouts: Sequence[tuple[list[str], list[str]]], hint: str) -> tuple[list[Path], list[Path]]:
    """The first layout (training files, test files) that is complete; else FileNotFoundError naming what is absent."""
    for train, test in layouts:
        if all((folder / name).is_file() for name in train + test):
            return [folder / name for name in train], [folder / name for name in test]
    train, test = layouts[0]
    absent = [name for name in train + test if not (folder / name).is_file()]
    raise FileNotFoundError(f"{folder}: no {', '.join(absent)}; {hint}")


def _cifar10(folder: Path, test_only: bool) -> Dataset:
    inner = folder / "cifar-10-batches-bin"
    folder = inner if inner.is_dir() else folder
    xz = ([f"train_{i}.xz" for i in range(1, 6)], ["test.xz"])
    official = ([f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"])
    hint = "official files: the binary version (data_batch_1.bin, ..., test_batch.bin); the Python one is pickled"
    train, test = _choose(folder, (xz, official), hint)
    lossy = folder / "lossy_indices.txt"
    note = "149 of 60,000 images are quality-75 JPEG copies" if lossy.exists() else ""
    tested = _arrays([_cifar_file(f) for f in test])
    empty = tested.subset(torch.arange(0))
    trained = empty if test_only else _arrays([_cifar_file(f) for f in train])
    return Dataset("cifar10", trained, empty, tested, 10, CIFAR, Augment(4, True), note)


def _fashion_mnist(folder: Path, test_only: bool) -> Dataset:
    raw = folder / "raw"
    folder = raw if raw.is_dir() else folder
    own = (["train.xz"], ["test.xz"])
    official = (
        ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"],
        ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"],
    )
    train, test = _choose(
        folder, (own, official), "or the official train-images-idx3-ubyte.gz and its three companions"
    )
    note = ""
    parts: list[Arrays] = []
    for files in (test,) if test_only else (test, train):
        if len(files) == 1:
            rows = decoded(files[0], 785, lambda flat: flat)
            images, labels = rows[:, 1:].reshape(-1, 1, 28, 28), rows[:, 0]
            note = "the split is not the official one: 60,000 train, 5,000 test"
        else:
            images, labels = _idx(files[0], 16).reshape(-1, 1, 28, 28), _idx(files[1], 8)
        if len(images) != len(labels):
            raise ValueError(f"{files[0]}: {len(images)} images but {len(labels)} labels")
        parts.append(_arrays([(np.asarray(images), np.asarray(labels))]))
    empty = parts[0].subset(torch.arange(0))
    trained = empty if test_only else parts[1]
    return Dataset("fashion_mnist", trained, empty, parts[0], 10, FASHION, Augment(2, True), note)


def _image_folder(folder: Path, workers: int | None) -> Dataset:
    """ImageNet or any folder laid out like it; its val/ is the test part, the validation part comes out of train/."""
    train, test, classes = scan(folder, workers)
    empty = train.subset(torch.arange(0))
    return Dataset("imagenet", train, empty, test, len(classes), IMAGENET, Augment(0, True), "test = the folder val/")


def _idx(path: Path, header: int) -> np.ndarray:
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: expected gzip data, could not decode it: {error}") from error
    expected = 2051 if header == 16 else 2049
    magic = int.from_bytes(content[:4], "big")
    if magic != expected:
        raise ValueError(f"{path}: expected an IDX file that begins with {expected}, got {magic}")
    return np.frombuffer(content, np.uint8, offset=header)


def _digits() -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels, 0..16 (scaled to 0..255): every fifth of each class is for testing."""
    flat = np.frombuffer(lzma.decompress(Path(__file__).with_name("digits.xz").read_bytes()), np.uint8)
    n = len(flat) // 65
    labels = flat[:n]
    images = np.rint(flat[n:].reshape(n, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    # The file runs writer by writer: every fifth image of a class spreads the writers over both parts.
    rank = np.zeros(n, np.int64)
    for c in range(10):
        rank[labels == c] = np.arange(np.count_nonzero(labels == c))
    test = rank % 5 == 4
    parts = [_arrays([(images[mask], labels[mask])]) for mask in (~test, test)]
    note = "the split is this project's: every fifth image of each class is for testing"
    return Dataset("digits", parts[0], parts[0].subset(torch.arange(0)), parts[1], 10, DIGITS, Augment(1, False), note)
