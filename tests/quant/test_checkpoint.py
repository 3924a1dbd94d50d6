"""Checkpoints: what is saved comes back, a crash leaves the old one, and what a damaged folder is answered with."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import quant
from quant import checkpoint, data, models
from quant.checkpoint import Meta
from quant.data import Normalisation

SMALL = {"in_channels": 1, "image_size": 8, "depth": 1, "width": 0.5}


def small_float() -> tuple[nn.Module, Meta]:
    torch.manual_seed(0)
    model = models.create("silu_se_net", **SMALL).eval()
    return model, Meta("silu_se_net", dict(SMALL), None, (1, 8, 8), 10, "digits", data.DIGITS)


def small_quantized(**choices: object) -> tuple[nn.Module, Meta]:
    model, meta = small_float()
    settings = {"weight_bits": 4, "act_bits": 4, **choices}
    quantized, plan = quant.quantize(model, **settings)
    quant.initialise(quantized, [torch.randn(16, 1, 8, 8)])
    meta = Meta(**{**vars(meta), "quantization": dict(plan.settings)})
    return quantized.eval(), meta


@pytest.mark.long
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"config": 3, "first_last": "same", "weight_granularity": "channel"},
        {"overrides": {"blocks.1*": {"act_bits": 2, "weight_bits": 3}}, "elementwise_bits": "float"},
        {"weight_bits": 8, "act_bits": 8, "method": "lsq", "init": "lsq"},
    ],
)
def test_a_quantized_network_comes_back_bit_for_bit(tmp_path: Path, choices: dict[str, object]) -> None:
    model, meta = small_quantized(**choices)
    checkpoint.save(tmp_path / "c", model, meta)
    loaded, found = checkpoint.load(tmp_path / "c")
    x = torch.randn(8, 1, 8, 8)
    assert torch.equal(loaded(x), model(x))
    assert found == meta
    assert {k: v.tolist() for k, v in loaded.state_dict().items()} == {
        k: v.tolist() for k, v in model.state_dict().items()
    }


ZOO = {
    name: {"width": 0.25, "image_size": 32} for name in models.names() if "image_size" in models.info(name).arguments()
}
ZOO |= {name: {"width": 0.25} for name in ("resnet20", "resnet32", "resnet44", "resnet56", "ds_cnn")}
ZOO |= {"vit_b_16": {"dim": 48, "depth": 2, "heads": 4, "image_size": 32}, "anomaly_autoencoder": {"hidden": 16}}
QUICK = ("vit_b_16", "resnet8", "anomaly_autoencoder")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in models.names()])
def test_every_zoo_network_comes_back_quantized(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    arguments = ZOO[name]
    shape = models.info(name).input_shape_for(**arguments)
    model, plan = quant.quantize(models.create(name, **arguments), weight_bits=3, act_bits=4)
    quant.initialise(model, [torch.randn(4, *shape)])
    checkpoint.save(tmp_path / "c", model.eval(), Meta(name, arguments, dict(plan.settings), shape))
    x = torch.randn(2, *shape)
    assert torch.equal(checkpoint.load(tmp_path / "c")[0](x), model(x))


def test_nothing_but_json_and_safetensors_is_written(tmp_path: Path) -> None:
    model, meta = small_float()
    checkpoint.save(tmp_path / "c", model, meta, training_state={"momentum/x": torch.ones(3)})
    names = sorted(p.name for p in (tmp_path / "c").iterdir())
    assert [n.split("-")[0] for n in names] == ["settings.json", "training", "weights"]
    assert json.loads((tmp_path / "c" / "settings.json").read_text())["model"] == "silu_se_net"
    assert torch.equal(checkpoint.load_training_state(tmp_path / "c")["momentum/x"], torch.ones(3))


def test_saving_again_replaces_and_leaves_no_old_files(tmp_path: Path) -> None:
    model, meta = small_float()
    checkpoint.save(tmp_path / "c", model, meta)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    checkpoint.save(tmp_path / "c", model, meta)
    assert len(list((tmp_path / "c").iterdir())) == 2
    loaded, _ = checkpoint.load(tmp_path / "c")
    assert torch.equal(next(loaded.parameters()), next(model.parameters()))


@pytest.mark.parametrize("crash_at", [1, 2, 3])
def test_a_crash_while_saving_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    """The disk fills up at the n-th file written (weights, training state, settings)."""
    model, meta = small_float()
    checkpoint.save(tmp_path / "c", model, meta, training_state={"a": torch.zeros(1)})
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        next(model.parameters()).add_(1)
    calls = 0
    real = os.fsync

    def failing(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == crash_at:
            raise OSError(errno.ENOSPC, "no space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="no space") as problem:
        checkpoint.save(tmp_path / "c", model, meta, training_state={"a": torch.ones(1)})
    assert Path(problem.value.filename).parent == tmp_path / "c", "the message names no temporary file, and not nothing"
    assert not Path(problem.value.filename).name.startswith(".")
    monkeypatch.undo()
    loaded, _ = checkpoint.load(tmp_path / "c")
    assert all(torch.equal(v, before[k]) for k, v in loaded.state_dict().items())
    assert checkpoint.load_training_state(tmp_path / "c")["a"].item() == 0
    assert not [p for p in (tmp_path / "c").iterdir() if p.name.startswith(".")]


def test_a_network_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    model, meta = small_float()
    checkpoint.save(tmp_path / "c", model, meta)
    with torch.no_grad():
        model.get_parameter("conv_head.weight")[0] = float("nan")
    with pytest.raises(ValueError, match=r"conv_head\.weight: not finite"):
        checkpoint.save(tmp_path / "c", model, meta)
    loaded, _ = checkpoint.load(tmp_path / "c")
    assert bool(torch.isfinite(loaded.get_parameter("conv_head.weight")).all())


def test_a_network_of_ones_own_needs_its_factory(tmp_path: Path) -> None:
    """A checkpoint must not decide which code runs."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    meta = Meta("os:system", {}, None, (1, 8, 8), 3)
    checkpoint.save(tmp_path / "c", model, meta)
    with pytest.raises(ValueError, match="not of the zoo: pass its factory to"):
        checkpoint.load(tmp_path / "c")
    make = lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))  # noqa: E731
    loaded, _ = checkpoint.load(tmp_path / "c", factory=make)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded(x), model(x))


def settings(folder: Path, **changes: object) -> None:
    file = folder / "settings.json"
    raw = json.loads(file.read_text())
    raw.update(changes)
    file.write_text(json.dumps(raw))


def weights_file(folder: Path) -> Path:
    return next(folder.glob("weights-*"))


def edit_step(folder: Path) -> None:
    """A negative step size in an otherwise well-formed checkpoint."""
    model, _ = checkpoint.load(folder)
    state = model.state_dict()
    state["conv_stem.weight_quantizer.s"] = torch.tensor(-1.0)
    name = checkpoint._write_tensors(folder, "weights", state)
    settings(folder, files={"weights": name})


BAD: list[tuple[Callable[[Path], object], str]] = [
    (lambda f: (f / "settings.json").unlink(), "not a checkpoint: it has no settings.json"),
    (lambda f: (f / "settings.json").write_text("{"), "settings.json: expected JSON"),
    (lambda f: (f / "settings.json").write_bytes(b"\xff\xfe\x00"), "settings.json: expected JSON"),
    (lambda f: settings(f, format_version=99), "expected format_version 1"),
    (lambda f: settings(f, model="resnet99"), "unknown model 'resnet99'"),
    (lambda f: settings(f, model=3), "expected the keys .* with a model name"),
    (lambda f: settings(f, surprise=1), "expected the keys .* got .*surprise"),
    (lambda f: settings(f, arguments=[]), "arguments: expected dict"),
    (lambda f: settings(f, arguments={"widht": 2}), "unknown argument 'widht'"),
    (lambda f: settings(f, input_shape=[0]), "input_shape: expected positive integers"),
    (lambda f: settings(f, input_shape=5), "input_shape: expected positive integers"),
    (lambda f: settings(f, input_shape=[10**9, 10**9]), "input_shape: expected positive integers, .* at most"),
    (lambda f: settings(f, normalisation={"mean": 0, "std": 1}), "normalisation: expected as many means"),
    (lambda f: settings(f, normalisation={"mean": [0, 1], "std": [1]}), "normalisation: expected as many means"),
    (lambda f: settings(f, arguments={"width": 1e9}), "width: expected at most 100,000"),
    (lambda f: settings(f, arguments={"width": 5_000}), "parameters, the file of weights .* of another network"),
    (lambda f: settings(f, quantization={"weight_bits": 4, "act_bits": 4, "overrides": 3}), "overrides: expected"),
    (lambda f: settings(f, quantization={"weight_bits": [4], "act_bits": 4}), "quantization: |bits: "),
    (lambda f: settings(f, normalisation={"mean": [10**400], "std": [1]}), "normalisation: expected as many means"),
    (lambda f: settings(f, normalisation={"mean": [0], "std": [float("nan")]}), "normalisation: expected as many"),
    (lambda f: settings(f, normalisation={"mean": [0]}), "normalisation: expected mean and std"),
    (lambda f: settings(f, quantization="W4A4"), "quantization: expected an object or null"),
    (lambda f: settings(f, quantization={"weight_bits": 4, "act_bits": 4, "colour": 1}), "unknown 'colour'"),
    (lambda f: settings(f, quantization={"weight_bits": 9, "act_bits": 4}), "bits: expected 1 to 8 or 16, got 9"),
    (lambda f: settings(f, quantization={"weight_bits": 2, "act_bits": 2}), "expected codes -2..1.*the checkpoint has"),
    (lambda f: settings(f, quantization=None), "of another network than 'silu_se_net'.*unexpected"),
    (lambda f: settings(f, model="resnet20", arguments={}), "the tensors are of another network"),
    (lambda f: settings(f, files={"weights": "../../etc/passwd"}), "expected names of files in this folder"),
    (lambda f: weights_file(f).unlink(), "named by settings.json but absent"),
    (lambda f: weights_file(f).write_bytes(weights_file(f).read_bytes()[:-8]), "its content has changed"),
    (edit_step, r"conv_stem\.weight_quantizer\.s: expected positive finite values, the checkpoint has \[-1\.0\]"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint.save(tmp_path_factory.mktemp("whole") / "c", *small_quantized())


@pytest.mark.parametrize(("damage", "message"), BAD)
def test_damaged_checkpoints_are_named(
    whole: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    folder = tmp_path / "c"
    shutil.copytree(whole, folder)
    damage(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        checkpoint.load(folder)


def test_absent_folders_and_files_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such checkpoint folder"):
        checkpoint.load(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="expected a folder for the checkpoint"):
        checkpoint.save(tmp_path / "file", *small_float())
    checkpoint.save(tmp_path / "c", *small_float())
    with pytest.raises(FileNotFoundError, match="weights only and cannot be resumed"):
        checkpoint.load_training_state(tmp_path / "c")


def test_meta_round_trip_through_json() -> None:
    _, meta = small_float()
    again = Meta.from_dict(json.loads(json.dumps(meta.to_dict())))
    assert again == meta
    assert isinstance(again.normalisation, Normalisation)


def test_checkpoints_from_before_steps_lost_their_floors_still_load(tmp_path: Path) -> None:
    """They hold a lower bound beside each step; nothing reads it, and everything else is refused as before."""
    shipped = Path(__file__).parents[2] / "networks" / "digits_silu_w4a4"
    (weights,) = shipped.glob("weights-*.safetensors")
    stored = load_file(weights)
    assert any(name.endswith(".s_floor") for name in stored)
    model, _ = checkpoint.load(shipped)
    assert not any(name.endswith("_floor") for name in model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, stored[name])


def test_settings_nested_without_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="expected JSON"):
        checkpoint.load(tmp_path)
