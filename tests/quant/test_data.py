"""Data sets: decoding, splits, order and augmentation, and what bad files are answered with."""

import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch

from quant import data
from quant.image_folder import decode, scan


@pytest.fixture(autouse=True)
def _own_cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tests that write odd files keep them out of the user's cache."""
    if "tmp_path" in request.fixturenames:
        monkeypatch.setenv("HWSIM_CACHE", str(tmp_path / "cache"))


def write_cifar(folder: Path, per_file: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A small data set in this project's xz format, encoded by the inverse of the documented decoding."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (6, per_file, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, 10, (6, per_file), dtype=np.uint8)
    names = [f"train_{i}.xz" for i in range(1, 6)] + ["test.xz"]
    folder.mkdir(parents=True, exist_ok=True)
    for name, x, y in zip(names, images, labels, strict=True):
        r, g, b = x[:, 0], x[:, 1], x[:, 2]
        planes = np.stack([r - g, g, b - g])
        planes = np.diff(planes, axis=2, prepend=np.uint8(0))
        planes = np.diff(planes, axis=3, prepend=np.uint8(0))
        (folder / name).write_bytes(lzma.compress(y.tobytes() + planes.tobytes()))
    return images, labels


def test_digits_are_scikit_learns() -> None:
    """Pixel for pixel, through the scaling to 0..255; the split keeps every image exactly once."""
    datasets = pytest.importorskip("sklearn.datasets")
    expected = datasets.load_digits()
    loaded = data.load("digits", validation=0)
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (1442, 0, 355)
    pixels = torch.cat([loaded.train.images, loaded.test.images]).double()
    assert torch.equal(torch.unique(pixels), (torch.arange(17) * 255 / 16).round().double())
    ours = sorted(bytes(((pixels[i] * 16 / 255).round().byte()).numpy()) for i in range(1797))
    assert ours == sorted(row.astype(np.uint8).tobytes() for row in expected.data)
    counts = torch.bincount(torch.cat([loaded.train.labels, loaded.test.labels]))
    assert counts.tolist() == np.bincount(expected.target).tolist()


def test_validation_is_taken_from_training_by_the_seed() -> None:
    whole = data.load("digits", validation=0)
    one, again, other = (data.load("digits", validation=200, seed=s) for s in (0, 0, 1))
    assert len(one.train) + len(one.validation) == len(whole.train)
    assert torch.equal(one.validation.images, again.validation.images)
    assert not torch.equal(one.validation.images, other.validation.images)
    assert torch.equal(one.test.images, whole.test.images)
    joined = torch.cat([one.train.images, one.validation.images]).flatten(1)
    assert sorted(map(bytes, joined.numpy())) == sorted(map(bytes, whole.train.images.flatten(1).numpy()))


def test_cifar_xz_decodes_to_the_pixels_that_were_encoded(tmp_path: Path) -> None:
    images, labels = write_cifar(tmp_path / "cifar10")
    for _ in range(2):  # decoded, then out of the cache
        loaded = data.load("cifar10", tmp_path, validation=0)
        assert np.array_equal(loaded.train.images.numpy(), images[:5].reshape(-1, 3, 32, 32))
        assert np.array_equal(loaded.train.labels.numpy(), labels[:5].ravel())
        assert np.array_equal(loaded.test.images.numpy(), images[5])
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 6


def test_a_broken_cache_file_is_decoded_again(tmp_path: Path) -> None:
    images, _ = write_cifar(tmp_path / "cifar10")
    data.load("cifar10", tmp_path)
    for file in (tmp_path / "cache").glob("*.npy"):
        file.write_bytes(file.read_bytes()[:100])
    loaded = data.load("cifar10", tmp_path, test_only=True)
    assert len(loaded.train) == 0
    assert np.array_equal(loaded.test.images.numpy(), images[5])


def test_official_binary_files_give_the_same_data(tmp_path: Path) -> None:
    images, labels = write_cifar(tmp_path / "cifar10")
    official = tmp_path / "official" / "cifar-10-batches-bin"
    official.mkdir(parents=True)
    for i, name in enumerate([f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]):
        rows = np.concatenate([labels[i][:, None], images[i].reshape(len(labels[i]), -1)], axis=1)
        (official / name).write_bytes(rows.tobytes())
    ours, theirs = data.load("cifar10", tmp_path), data.load("cifar10", tmp_path / "official")
    assert torch.equal(ours.train.images, theirs.train.images)
    assert torch.equal(ours.test.labels, theirs.test.labels)


def test_official_fashion_mnist_files_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 10)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        head = [2051, count, 28, 28], [2049, count]
        for kind, values, header in (("images-idx3", images, head[0]), ("labels-idx1", labels, head[1])):
            content = b"".join(v.to_bytes(4, "big") for v in header) + values.tobytes()
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
    loaded = data.load("fashion_mnist", tmp_path, validation=0)
    assert loaded.train.shape() == (1, 28, 28)
    assert loaded.test.labels.tolist() == list(range(10))
    assert np.array_equal(loaded.test.images[:, 0].numpy(), images)


@pytest.mark.long
def test_real_cifar_has_its_published_statistics(cifar10_dir: Path) -> None:
    loaded = data.load("cifar10", cifar10_dir, test_only=True)
    assert loaded.test.shape() == (3, 32, 32)
    assert torch.bincount(loaded.test.labels).tolist() == [1000] * 10
    assert loaded.test.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]  # the official first ten
    mean = (loaded.test.images.double() / 255).mean((0, 2, 3))
    torch.testing.assert_close(mean, torch.tensor(data.CIFAR.mean).double(), atol=5e-3, rtol=0)


def test_real_fashion_mnist_has_its_classes(fashion_mnist_dir: Path) -> None:
    loaded = data.load("fashion_mnist", fashion_mnist_dir, test_only=True)
    assert torch.bincount(loaded.test.labels).tolist() == [500] * 10
    assert "not the official one" in loaded.note


def test_every_epoch_is_a_permutation_of_the_whole_batches() -> None:
    batches = data.epoch_batches(103, 10, seed=3, epoch=5)
    flat = torch.cat(batches)
    assert len(batches) == 10
    assert len(set(flat.tolist())) == 100
    assert torch.equal(flat, torch.cat(data.epoch_batches(103, 10, seed=3, epoch=5)))
    assert not torch.equal(flat, torch.cat(data.epoch_batches(103, 10, seed=3, epoch=6)))


def test_order_and_crops_do_not_depend_on_processes_or_batch_size() -> None:
    """Two processes with 16 images each see together what one sees in 32; batch sizes give the same stream."""
    digits = data.load("digits")
    one = list(data.train_batches(digits, 32, seed=1, epoch=2))
    ranks = [list(data.train_batches(digits, 32, seed=1, epoch=2, rank=r, processes=2)) for r in (0, 1)]
    for whole, first, second in zip(one, *ranks, strict=True):
        assert torch.equal(whole[0], torch.cat([first[0], second[0]]))
        assert torch.equal(whole[1], torch.cat([first[1], second[1]]))
    small = torch.cat([x for x, _ in data.train_batches(digits, 8, seed=1, epoch=2)])
    large = torch.cat([x for x, _ in one])
    assert torch.equal(small[: len(large)], large)


def test_starting_late_skips_batches_and_nothing_else() -> None:
    digits = data.load("digits")
    whole = list(data.train_batches(digits, 64, seed=0, epoch=0))
    rest = list(data.train_batches(digits, 64, seed=0, epoch=0, start=7))
    assert len(rest) == len(whole) - 7
    for (a, _), (b, _) in zip(whole[7:], rest, strict=True):
        assert torch.equal(a, b)


def test_crop_and_flip_equal_the_slow_way() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (50, 3, 9, 7), dtype=torch.uint8)
    draws = torch.rand(50, 3)
    out = data.crop_flip(images, draws, data.Augment(2, True))
    seen = set()
    for image, (down, right, flip), got in zip(images, draws.tolist(), out, strict=True):
        padded = torch.zeros(3, 13, 11, dtype=torch.uint8)
        padded[:, 2:11, 2:9] = image
        top, left = int(down * 5), int(right * 5)
        expected = padded[:, top : top + 9, left : left + 7]
        assert torch.equal(got, expected.flip(2) if flip < 0.5 else expected)
        seen.add((top, left, flip < 0.5))
    assert len(seen) > 25
    assert torch.equal(data.crop_flip(images, draws, data.Augment(0, False)), images)


def test_normalisation_is_the_formula() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    out = data.Normalisation((0.5,), (0.25,)).apply(pixels)
    torch.testing.assert_close(out.flatten(), torch.tensor([-2.0, -1.2, 2.0]))


def test_evaluation_reads_every_image_once_across_processes() -> None:
    digits = data.load("digits")
    labels = [y for r in range(3) for _, y in data.eval_batches(digits.test, digits.normalisation, 50, r, 3)]
    assert torch.equal(torch.cat(labels).sort().values, digits.test.labels.sort().values)


def test_a_process_without_images_asks_for_none() -> None:
    digits = data.load("digits")
    one = digits.test.subset(torch.arange(1))
    assert [len(list(data.eval_batches(one, digits.normalisation, 50, r, 2))) for r in range(2)] == [1, 0]


def write_images(folder: Path, counts: dict[str, int]) -> None:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for name, count in counts.items():
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                size = (300 + 10 * i, 280) if i % 2 else (260, 300 + 10 * i)
                smooth = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((80, 80, 1))).astype(np.uint8)
                picture = image.fromarray(smooth).resize(size)
                picture.convert("L" if i == 2 else "RGB").save(folder / part / name / f"{name}_{i}.JPEG", quality=95)


def test_an_image_folder_is_read_like_torchvision(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    write_images(tmp_path, {"n02": 3, "n01": 2})
    loaded = data.load("imagenet", tmp_path, validation=1)
    assert loaded.num_classes == 2
    assert loaded.train.shape() == (3, 224, 224)
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (4, 1, 5)
    assert loaded.test.labels.tolist() == [0, 0, 1, 1, 1]  # classes sorted by name
    # Middle crop of the resized image, done by hand for one file.
    file = tmp_path / "val" / "n01" / "n01_1.JPEG"
    with image.open(file) as picture:
        wide = picture.convert("RGB").resize((round(310 * 256 / 280), 256), image.Resampling.BILINEAR)
    left = round((wide.width - 224) / 2)
    expected = np.asarray(wide)[16:240, left : left + 224].transpose(2, 0, 1)
    assert np.array_equal(decode(file, 256, 224, None).numpy(), expected)


@pytest.mark.long
def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 3, "b": 3})
    batches = [torch.tensor([0, 5]), torch.tensor([3, 1])]
    draws = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    alone, _, _ = scan(tmp_path, workers=0)
    helped, _, _ = scan(tmp_path, workers=1)
    augment = data.Augment(0, True)
    for (x, y), (v, w) in zip(alone.read(batches, draws, augment), helped.read(batches, draws, augment), strict=True):
        assert x.dtype == torch.uint8
        assert torch.equal(x, v)
        assert torch.equal(y, w)


@pytest.mark.parametrize(
    ("prepare", "name", "kind", "message"),
    [
        (lambda p: None, "cifar", ValueError, "unknown data set 'cifar': known are digits, cifar10"),
        (lambda p: None, "cifar10", FileNotFoundError, "the folder .* is empty"),
        (lambda p: (p / "x.txt").write_text("x"), "cifar10", FileNotFoundError, "no train_1.xz, .*test.xz"),
        (lambda p: (write_cifar(p), (p / "test.xz").unlink()), "cifar10", FileNotFoundError, "no test.xz"),
        (lambda p: (write_cifar(p), (p / "test.xz").write_bytes(b"junk")), "cifar10", ValueError, "expected xz data"),
        (
            lambda p: (write_cifar(p), (p / "test.xz").write_bytes(lzma.compress(b"abc"))),
            "cifar10",
            ValueError,
            "3,073",
        ),
        (lambda p: (write_cifar(p), truncate(p / "train_2.xz")), "cifar10", ValueError, "train_2.xz: expected xz data"),
        (lambda p: write_labels(p, 10), "fashion_mnist", ValueError, "labels: expected 0..9, got 10 at image 3"),
        (lambda p: (p / "train").mkdir(), "imagenet", FileNotFoundError, "found no val/"),
        (lambda p: [(p / d).mkdir(parents=True) for d in ("train/a", "val/b")], "imagenet", ValueError, "class 'b'"),
        (
            lambda p: [(p / d).mkdir(parents=True) for d in ("train/a", "val/a")],
            "imagenet",
            FileNotFoundError,
            "no images",
        ),
    ],
)
def test_bad_data_folders_are_named(
    tmp_path: Path, prepare: object, name: str, kind: type[Exception], message: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    prepare(folder)  # type: ignore[operator]
    with pytest.raises(kind, match=message):
        data.load(name, folder)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def write_labels(folder: Path, wrong: int) -> None:
    for name in ("train.xz", "test.xz"):
        labels = np.array([0, 1, 2, wrong], np.uint8)
        (folder / name).write_bytes(lzma.compress(labels.tobytes() + bytes(4 * 784)))


def test_no_folder_named_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HWSIM_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="pass --data-dir FOLDER or set HWSIM_DATA"):
        data.load("cifar10")


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 2})
    (tmp_path / "train" / "a" / "a_0.JPEG").write_bytes(b"not an image")
    loaded = data.load("imagenet", tmp_path, validation=0)
    with pytest.raises(ValueError, match=r"a_0\.JPEG: could not decode"):
        list(data.eval_batches(loaded.train, loaded.normalisation))


@pytest.mark.long
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.load("digits", validation=5000), "validation: expected 0..1441 of the 1442 training images"),
        (lambda: data.load("digits", limit=0), "limit: expected at least 1"),
        (lambda: data.epoch_batches(10, 11, 0, 0), "batch size 11 exceeds the 10 training images"),
        (lambda: data.epoch_batches(10, 0, 0, 0), "batch size: expected at least 1"),
        (lambda: next(data.train_batches(data.load("digits"), 10, seed=0, epoch=0, processes=3)), "must divide by"),
        (
            lambda: data.UNIT.apply(torch.zeros(1, 1, 2, 2, dtype=torch.uint8)),
            "normalisation has 3 channels, the images 1",
        ),
        (lambda: own(torch.tensor([0, 3])), r"own train: labels: expected 0..2, got 3 at image 1 \(1 of 2"),
        (lambda: own(torch.tensor([0, -1])), "got -1 at image 1"),
        (lambda: own(torch.tensor([0])), "as many labels as images, got 1 and 2"),
        (lambda: own(torch.tensor([0, 1]), torch.float32), "expected uint8 images"),
    ],
)
def test_wrong_arguments_say_what_to_do(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def own(labels: torch.Tensor, dtype: torch.dtype = torch.uint8) -> data.Dataset:
    images = torch.zeros(2, 1, 4, 4, dtype=dtype)
    good = (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
    return data.from_arrays((images, labels), good, 3, name="own")
