"""Trained weights: the published accuracies, others' names, and what a wrong file is answered with."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from quant import data, models, weights


def top1_percent(model: nn.Module, split: data.Split, normalisation: data.Normalisation) -> float:
    right = 0
    with torch.no_grad():
        for images, labels in data.eval_batches(split, normalisation):
            right += int((model(images).argmax(1) == labels).sum())
    return 100 * right / len(split)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "resnet44", "resnet56", "resnet8"])
def test_published_accuracy_on_all_test_images(name: str, data_dir: Path) -> None:
    entry = weights.trained(name)
    test = data.load("cifar10", data_dir, test_only=True).test
    got = top1_percent(weights.load_pretrained(name, data_dir), test, entry.normalisation)
    # resnet44: published 93.10, measured 93.11 (one image).
    assert got == pytest.approx(entry.top1_percent, abs=0.015)


@pytest.mark.parametrize(("name", "expected"), [("resnet20", 455), ("resnet8", 445)])
def test_first_500_test_images_as_measured(name: str, expected: int, data_dir: Path) -> None:
    """Correct answers on the first 500 images, measured on 2026-11-20 with the files of the published accuracy."""
    test = data.load("cifar10", data_dir, test_only=True).test.subset(torch.arange(500))
    model = weights.load_pretrained(name, data_dir)
    assert round(5 * top1_percent(model, test, weights.trained(name).normalisation)) == expected


def test_wake_words_network_sees_the_statistics_it_was_trained_on(data_dir: Path) -> None:
    """No such images at hand: on enlarged CIFAR photographs each batch norm's input must follow its moving mean."""
    model = weights.load_pretrained("mobilenet_v1_025", data_dir)
    images = data.load("cifar10", data_dir, test_only=True).test.images[:200]
    x = nn.functional.interpolate(images.float() / 255, size=(96, 96), mode="bilinear", align_corners=False)
    follows: list[float] = []

    def watch(module: nn.Module, args: tuple[torch.Tensor], _: torch.Tensor) -> None:
        means = torch.stack([args[0].mean((0, 2, 3)), module.get_buffer("running_mean")])
        follows.append(float(torch.corrcoef(means)[0, 1]))

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(watch)
    with torch.no_grad():
        model(x)
    assert len(follows) == 27
    # Measured 2026-11-20: 0.94 or more in the first six, 0.86 on average (0.78 if scaled to -1..1, 0.59 if to 0..255).
    assert min(follows[:6]) > 0.9
    assert sum(follows) / 27 > 0.82


def test_names_of_wrappers_are_removed(tmp_path: Path) -> None:
    model = models.create("resnet20", width=0.5)
    state = {f"module._orig_mod.{k}": v for k, v in model.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 91.0}, tmp_path / "a.th")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "b.safetensors")
    for file in ("a.th", "b.safetensors"):
        other = models.create("resnet20", width=0.5)
        weights.load_into(other, weights.read_state_dict(tmp_path / file))
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())


def test_a_classifier_stored_as_convolution_loads() -> None:
    """timm's resnetv2 keeps head.fc as 1x1 convolution."""
    model = models.create("preact_resnet18", width=0.125)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    state["head.fc.weight"] = state["head.fc.weight"][:, :, None, None]
    other = models.create("preact_resnet18", width=0.125)
    weights.load_into(other, state)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())


def test_torchvision_names_of_vit_load() -> None:
    """Names as torchvision writes them, tensors of ours: every one must arrive where it was taken."""
    small = {"dim": 24, "depth": 2, "heads": 2, "image_size": 32}
    model = models.create("vit_b_16", **small)
    own = model.state_dict()
    theirs = {
        "class_token": own["cls_token"],
        "encoder.pos_embedding": own["pos_embed"],
        "encoder.ln.weight": own["norm.weight"],
        "encoder.ln.bias": own["norm.bias"],
    }
    for kind in ("weight", "bias"):
        theirs[f"conv_proj.{kind}"] = own[f"patch_embed.proj.{kind}"]
        theirs[f"heads.head.{kind}"] = own[f"head.{kind}"]
        for i in range(2):
            layer, block = f"encoder.layers.encoder_layer_{i}", f"blocks.{i}"
            theirs[f"{layer}.ln_1.{kind}"] = own[f"{block}.norm1.{kind}"]
            theirs[f"{layer}.ln_2.{kind}"] = own[f"{block}.norm2.{kind}"]
            theirs[f"{layer}.self_attention.in_proj_{kind}"] = own[f"{block}.attn.qkv.{kind}"]
            theirs[f"{layer}.self_attention.out_proj.{kind}"] = own[f"{block}.attn.proj.{kind}"]
            theirs[f"{layer}.mlp.linear_1.{kind}"] = own[f"{block}.mlp.fc1.{kind}"]
            theirs[f"{layer}.mlp.3.{kind}"] = own[f"{block}.mlp.fc2.{kind}"]
    other = models.create("vit_b_16", **small)
    weights.load_into(other, theirs)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(other.eval()(x), model.eval()(x))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "vit_b_16"])
def test_torchvision_state_dicts_give_torchvisions_outputs(name: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(weights=None).eval()
    ours = models.create(name).eval()
    weights.load_into(ours, theirs.state_dict())
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("resnet34", "resnet34"),
        ("mobilenet_v1", "mobilenetv1_100"),
        ("mobilenet_v2", "mobilenetv2_100"),
        ("efficientnet_b0", "efficientnet_b0"),
        ("mixnet_s", "mixnet_s"),
        ("vit_b_16", "vit_base_patch16_224"),
    ],
)
def test_timm_state_dicts_give_timms_outputs(ours: str, theirs: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    reference = timm.create_model(theirs, pretrained=False).eval()
    model = models.create(ours).eval()
    weights.load_into(model, reference.state_dict())
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model(x), reference(x), rtol=1e-4, atol=1e-5)


class Loud:
    """Unpickling this would create a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "was_run"
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Loud(str(trace))))
    torch.save({"state_dict": Loud(str(trace))}, tmp_path / "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(ValueError, match=r"evil2?\.pt: expected tensors only"):
            weights.read_state_dict(tmp_path / name)
    assert not trace.exists()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    state = models.create("resnet32", width=0.5).state_dict()
    with pytest.raises(ValueError, match=r"not the weights of this CifarResNet: 60 unexpected \(layer1\.3\.conv1"):
        weights.load_into(models.create("resnet20", width=0.5), {k: v for k, v in state.items() if "num_b" not in k})
    few = {k: v for k, v in models.create("resnet20").state_dict().items() if not k.startswith("linear")}
    with pytest.raises(ValueError, match=r"2 missing \(linear\.weight, linear\.bias\)"):
        weights.load_into(models.create("resnet20"), few)
    with pytest.raises(ValueError, match=r"of another shape \(linear\.weight \(100, 64\) for \(10, 64\)"):
        weights.load_into(models.create("resnet20"), models.create("resnet20", num_classes=100).state_dict())


def test_bad_files_are_named(tmp_path: Path) -> None:
    cases = {"empty.pt": b"", "junk.safetensors": b"\x00" * 40, "junk.npz": b"PK\x03\x04junk", "text.pth": b"hello"}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: expected tensors only"):
            weights.read_state_dict(tmp_path / name)
    torch.save({"state_dict": {"a": 3}}, tmp_path / "number.pt")
    with pytest.raises(ValueError, match=r"number\.pt: 'a': expected a tensor, got int"):
        weights.read_state_dict(tmp_path / "number.pt")
    with pytest.raises(FileNotFoundError, match="expected a file of weights"):
        weights.read_state_dict(tmp_path / "absent.pt")
    with pytest.raises(FileNotFoundError, match=r"expected pretrained/resnet20-12fca82f\.th"):
        weights.load_pretrained("resnet20", tmp_path)
    with pytest.raises(ValueError, match="no trained weights known for 'resnet18': known are resnet20"):
        weights.load_pretrained("resnet18", tmp_path)
    (tmp_path / "resnet20-12fca82f.th").write_bytes(b"changed")
    with pytest.raises(ValueError, match=r"expected a file with sha256 12fca82f\.\.\., got"):
        weights.load_pretrained("resnet20", tmp_path)
