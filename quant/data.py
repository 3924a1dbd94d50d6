"""Data sets as tensors of pixels: `load(name, folder) -> Dataset`, then `train_batches` and `eval_batches`.

digits (embedded, no download), cifar10 and fashion_mnist (this project's xz files or the official binary ones), a
folder of images laid out as for torchvision (`quant.image_folder`), and data of one's own by path or function
(`quant.own_data`). The classes are those of `quant.dataset`.
"""

import gzip
import hashlib
import lzma
import os
import secrets
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import torch

from quant import own_data
from quant.dataset import (
    CIFAR,
    DIGITS,
    FASHION,
    IMAGENET,
    PIXELS_0_255,
    UNIT,
    Arrays,
    Augment,
    Dataset,
    Normalisation,
    Split,
    check_labels,
    crop_flip,
    epoch_batches,
    epoch_generator,
    eval_batches,
    from_arrays,
    split_validation,
    train_batches,
)
from quant.image_folder import scan

__all__ = [
    "CIFAR", "DIGITS", "FASHION", "IMAGENET", "NAMES", "PIXELS_0_255", "UNIT", "Arrays", "Augment", "Dataset",
    "Normalisation", "Split", "cache_folder", "check_labels", "crop_flip", "decoded", "epoch_batches",
    "epoch_generator",
    "eval_batches", "from_arrays", "load", "scan", "split_validation", "train_batches", "write_atomically",
]  # fmt: skip

NAMES = ("digits", "cifar10", "fashion_mnist", "imagenet")


def load(
    name: str,
    folder: str | Path | None = None,
    *,
    validation: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    test_only: bool = False,
    workers: int | None = None,
    image_size: int | None = None,
) -> Dataset:
    """A data set by name, or one's own by path or function (`quant.own_data`).

    `folder`: where its files lie (default: $HWSIM_DATA); digits needs none. `validation`: images taken from the
    training part by `seed` (default a tenth, at most 5,000; 0 is allowed). `limit`: keep the first so many training
    images, after the split. `test_only`: leave the training part empty and its files unread. `workers`: processes that
    decode a folder of images (default: all processors but one). `image_size`: of a folder of one's own. ValueError for
    a wrong name or bad content,
    FileNotFoundError for absent files.
    """
    if folder is not None and not Path(folder).is_dir():
        raise FileNotFoundError(f"{name}: expected a folder, got {folder}")
    if name == "digits":
        data = _digits()
    elif name == "cifar10":
        data = _cifar10(_folder(name, folder), test_only)
    elif name == "fashion_mnist":
        data = _fashion_mnist(_folder(name, folder), test_only)
    elif name == "imagenet":
        data = _image_folder(_folder(name, folder), workers)
    elif own_data.is_own(name):
        data = own_data.load_own(name, image_size=image_size, workers=workers)
    else:
        raise ValueError(
            f"unknown data set '{name}': known are {', '.join(NAMES)}, a .npz file, a folder of images, and "
            "package.module:function"
        )
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
    """Write to a temporary file in the same folder, flush it to the disk, then rename: whole or absent, never half.

    A device, a pipe or /dev/stdout is written into, never replaced.
    """
    system = target.is_symlink() and target.absolute().parts[1:2] in (("dev",), ("proc",))
    if system or (target.exists() and not target.is_file() and not target.is_dir()):
        with target.open("wb") as file:
            write(file)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name[:80]}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as problem:
        temporary.unlink(missing_ok=True)
        if isinstance(problem, OSError):  # let it tell of the file that was asked for: a full disk names none
            problem.filename = str(target)
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
