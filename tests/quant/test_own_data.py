"""Data of one's own: arrays, folders, functions, several inputs; and normalisation that is asked for, never guessed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import quant
from quant import calibration, checkpoint, data, models, own_data, train
from quant.recipe import Recipe

SMALL = ["--model", "resnet8", "--model-arg", "width=0.25", "--epochs", "1", "--batch-size", "8"]


def arrays(folder: Path, **changes: Any) -> Path:
    rng = np.random.default_rng(0)
    content = {
        "train_images": rng.integers(0, 200, (40, 8, 8, 3), dtype=np.uint8), "train_labels": np.arange(40) % 4,
        "test_images": rng.integers(0, 200, (12, 8, 8, 3), dtype=np.uint8), "test_labels": np.arange(12) % 4,
        **changes,
    }  # fmt: skip
    np.savez(folder / "own.npz", **content)
    return folder / "own.npz"


def test_arrays_of_a_file_are_a_data_set_normalised_by_its_training_images(tmp_path: Path) -> None:
    path = arrays(tmp_path)
    loaded = data.load(str(path), validation=4)
    assert (len(loaded.train), len(loaded.validation), len(loaded.test), loaded.num_classes) == (36, 4, 12, 4)
    assert loaded.train.shape() == (3, 8, 8)
    with np.load(path) as content:
        pixels = content["train_images"] / 255
    assert loaded.normalisation.mean == pytest.approx(pixels.mean((0, 1, 2)))
    assert loaded.normalisation.std == pytest.approx(pixels.std((0, 1, 2)))
    parts = {f"{part}_images": np.zeros((count, 5, 7), np.uint8) for part, count in (("train", 40), ("test", 12))}
    grey = data.load(str(arrays(tmp_path, **parts)), validation=0)
    assert grey.train.shape() == (1, 5, 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((40, 8, 8, 3), np.float32)}, "train_images: expected uint8 images .* found float32"),
        ({"train_images": np.zeros((40, 8, 8, 8), np.uint8)}, "expected 1, 3 or 4 channels"),
        ({"test_labels": np.arange(3)}, "test_labels: expected 12 integer labels"),
        ({"test_labels": np.zeros(12)}, "test_labels: expected 12 integer labels, found float64"),
        ({"train_labels": np.arange(40) - 1}, "labels: expected 0..38, got -1"),
    ],
)
def test_arrays_that_are_no_images_and_labels_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.load(str(arrays(tmp_path, **changes)))


def test_files_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"bad\.npz: expected a \.npz of arrays"):
        data.load(str(tmp_path / "bad.npz"))
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    with pytest.raises(ValueError, match=r"expected arrays train_images, .* found images"):
        data.load(str(tmp_path / "other.npz"))
    np.savez(tmp_path / "objects.npz", **dict.fromkeys(own_data._NAMES[0], np.array([{}], dtype=object)))
    with pytest.raises(ValueError, match="could not read it"):
        data.load(str(tmp_path / "objects.npz"))
    with pytest.raises(FileNotFoundError, match=r"absent\.npz: no such file"):
        data.load(str(tmp_path / "absent.npz"))
    with pytest.raises(ValueError, match=r"unknown data set 'nonsense': known are digits, .* a folder of images"):
        data.load("nonsense")


def test_a_folder_of_images_is_a_data_set_of_any_size(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 2)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                image.fromarray(pixels).save(tmp_path / part / name / f"{i}.png")
    loaded = data.load(str(tmp_path), validation=2, workers=0, image_size=16)
    assert loaded.train.shape() == (3, 16, 16)
    assert (len(loaded.train), len(loaded.validation), len(loaded.test), loaded.num_classes) == (10, 2, 4, 2)
    assert loaded.normalisation.mean == pytest.approx((0.5,) * 3, abs=0.05)


def own_set() -> data.Dataset:
    images = torch.randint(0, 256, (24, 1, 8, 8), dtype=torch.uint8)
    return data.from_arrays((images, torch.arange(24) % 2), (images, torch.arange(24) % 2), 2, validation=0)


def no_set() -> int:
    return 3


def test_a_function_of_ones_own_returns_the_data_set() -> None:
    assert data.load(f"{__name__}:own_set", validation=4).num_classes == 2
    with pytest.raises(ValueError, match=r"expected quant\.data\.Dataset from the function, got int"):
        data.load(f"{__name__}:no_set")
    with pytest.raises(ValueError, match=r"expected a \.npz file, a folder of images, or package\.module:function"):
        data.load("no_such_module:thing")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def f(): raise RuntimeError('the server is down')", r"raised RuntimeError at .*loader\w*.py:1: the server"),
        ("def f(x): return x", "raised TypeError: .*missing 1 required .* called without arguments"),
        ("f = 3", "expected a function, found int"),
        ("def f(): return None", "expected quant.data.Dataset"),
    ],
)
def test_a_function_that_gives_no_data_set_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    module = f"loader{abs(hash(code))}"
    (tmp_path / f"{module}.py").write_text(code + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=message):
        own_data.load_own(f"{module}:f")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_decoded_is_one_line(tmp_path: Path, workers: int) -> None:
    pytest.importorskip("PIL")
    for part in ("train", "val"):
        (tmp_path / part / "a").mkdir(parents=True)
        (tmp_path / part / "a" / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="could not decode this image") as refused:
        own_data.load_own(str(tmp_path), image_size=8, workers=workers)
    assert "\n" not in str(refused.value)


@pytest.mark.long
def test_parts_with_other_channels_are_refused(tmp_path: Path) -> None:
    images, labels = np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 0, 1])
    np.savez(tmp_path / "d.npz", train_images=np.stack([images] * 3, -1), train_labels=labels, test_images=images,
             test_labels=labels)  # fmt: skip
    with pytest.raises(ValueError, match=r"as many channels in both parts, found \(3, 8, 8\) and \(1, 8, 8\)"):
        own_data.load_own(str(tmp_path / "d.npz"))


def test_a_checkpoint_never_runs_the_function_it_names(tmp_path: Path) -> None:
    from hwsim.errors import WorkloadError
    from hwsim.integer.proof.images import test_images as images_of

    model = models.create("resnet8", image_size=8, in_channels=1)
    meta = checkpoint.Meta("resnet8", {"image_size": 8, "in_channels": 1}, None, (1, 8, 8), 10, f"{__name__}:own_set")
    with pytest.raises(WorkloadError, match="no code runs because a checkpoint names it"):
        images_of(checkpoint.save(tmp_path / "net", model, meta), None, 2, False)


def test_training_on_arrays_keeps_their_normalisation_and_bare_weights_ask_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(arrays(tmp_path))
    assert train.main([*SMALL, "--data", path, "--out", str(tmp_path / "net")]) == 0
    meta = checkpoint.load_meta(tmp_path / "net")
    assert meta.normalisation == data.load(path).normalisation
    assert meta.data == path
    model, _ = checkpoint.load(tmp_path / "net")
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    bare = [*SMALL, "--data", path, "--weights", str(tmp_path / "bare.pt")]
    assert train.main([*bare, "--out", str(tmp_path / "a")]) == 2
    assert "does not say how the pixels of its training were scaled: give --mean and --std" in capsys.readouterr().err
    assert train.main([*bare, "--mean", "0.1,0.2,0.3", "--out", str(tmp_path / "a")]) == 2
    assert "--std: missing" in capsys.readouterr().err
    said = ["--mean", "0.1,0.2,0.3", "--std", "0.5,0.5,0.4"]
    assert train.main([*bare, *said, "--bits", "W8A8", "--out", str(tmp_path / "b")]) == 0
    assert checkpoint.load_meta(tmp_path / "b").normalisation == data.Normalisation((0.1, 0.2, 0.3), (0.5, 0.5, 0.4))
    capsys.readouterr()
    float_net = str(tmp_path / "net")
    assert calibration.main([float_net, "--data", path, *said, "--batches", "1", "--batch-size", "8"]) == 2
    assert "leave out --mean and --std" in capsys.readouterr().err
    given = [float_net, "--data", path, "--batches", "1", "--batch-size", "8", "--json"]
    assert calibration.main(given) == 0
    assert json.loads(capsys.readouterr().out)["test_images"] == 12


class TwoInputs(nn.Module):
    """An image and numbers beside it; the answer is in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.bn = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.numbers, self.head = nn.Linear(3, 4), nn.Linear(8, 2)

    def forward(self, image: Tensor, numbers: Tensor) -> dict[str, Tensor]:
        a = torch.relu(self.bn(self.image(image))).mean((2, 3))
        return {"features": a, "logits": self.head(torch.cat([a, torch.relu(self.numbers(numbers))], 1))}


def by_position(image: Tensor, numbers: Tensor) -> Any:
    return image, numbers


def by_name(image: Tensor, numbers: Tensor) -> Any:
    return {"numbers": numbers, "image": image}


@pytest.mark.parametrize("held", [by_position, by_name])
def test_networks_with_several_inputs_and_results_are_initialised_trained_and_calibrated(
    held: Callable[[Tensor, Tensor], Any],
) -> None:
    torch.manual_seed(0)
    numbers = torch.randn(64, 3)
    inputs, labels = held(torch.rand(64, 1, 6, 6), numbers), (numbers.sum(1) > 0).long()
    loaded = own_data.from_tensors((inputs, labels), (inputs, labels), 2, validation=8)
    model, _ = quant.quantize(TwoInputs(), weight_bits=8, act_bits=8)
    recipe = Recipe(epochs=12, batch_size=8, accumulate=2, learning_rate=0.1, norm_batches=2)
    result = quant.fit(model, loaded, recipe)
    assert result.test_accuracy_percent is not None
    assert result.test_accuracy_percent > 85
    batches = [(inputs, labels)]
    found = quant.calibrate(model, [inputs], test=batches)
    assert found.images == 64
    assert found.accuracy_percent is not None
    assert found.accuracy_percent > 80
    assert quant.evaluate(model, loaded.test, loaded.normalisation) == pytest.approx(found.accuracy_percent)
