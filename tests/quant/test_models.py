"""The zoo against counts measured on timm and torchvision, and against shapes and names users rely on."""

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from quant import models
from quant.models import mobile, ops, tiny

REFERENCE = Path(__file__).parent.parent / "reference"
# Our name -> (source, name) in tests/reference/model_counts.csv.
COUNTED = {
    "resnet18": ("tv", "resnet18"),
    "resnet34": ("timm", "resnet34"),
    "resnet50": ("tv", "resnet50"),
    "preact_resnet50": ("timm", "resnetv2_50"),
    "mobilenet_v2": ("tv", "mobilenet_v2"),
    "efficientnet_b0": ("tv", "efficientnet_b0"),
    "mixnet_s": ("timm", "mixnet_s"),
    "vit_b_16": ("timm", "vit_base_patch16_224"),
}
SHAPED = {"resnet18": "resnet18", "mobilenet_v2": "mobilenetv2_100", "efficientnet_b0": "efficientnet_b0"}
SHAPED["mixnet_s"] = "mixnet_s"


def layer_macs(model: nn.Module, shape: tuple[int, ...]) -> dict[str, tuple[int, list[int], list[int]]]:
    """Per convolution or linear layer, in call order: MACs, input and output shapes (meta device: no arithmetic)."""
    seen: dict[str, tuple[int, list[int], list[int]]] = {}

    def watch(name: str, module: nn.Module) -> None:
        def hook(_: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
            weight = module.get_parameter("weight")
            positions = out.numel() if isinstance(module, nn.Linear) else out[0].numel()
            seen[name] = (positions * weight[0].numel(), list(args[0].shape[1:]), list(out.shape[1:]))

        module.register_forward_hook(hook)

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            watch(name, module)
    with torch.no_grad():
        model.eval()(torch.empty(1, *shape, device="meta"))
    return seen


def on_meta(name: str, **arguments: int) -> nn.Module:
    with torch.device("meta"):
        return models.create(name, **arguments)


def rows(file: str) -> list[dict[str, str]]:
    with (REFERENCE / file).open() as f:
        return list(csv.DictReader(f))


@pytest.mark.parametrize("name", COUNTED)
def test_parameters_and_macs_equal_the_measured_ones(name: str) -> None:
    source, theirs = COUNTED[name]
    row = next(r for r in rows("model_counts.csv") if (r["source"], r["model"]) == (source, theirs))
    model = on_meta(name)
    layers = layer_macs(model, (3, 224, 224))
    assert sum(p.numel() for p in model.parameters()) == int(row["parameters"])
    assert sum(macs for macs, _, _ in layers.values()) == int(row["conv_fc_macs"])
    assert len(layers) == int(row["conv"]) + int(row["depthwise"]) + int(row["fc"])


@pytest.mark.parametrize("name", SHAPED)
def test_each_layer_has_the_measured_name_shape_and_macs(name: str) -> None:
    expected = [r for r in rows("layer_shapes_measured.csv") if r["model"] == SHAPED[name]]
    layers = layer_macs(on_meta(name), (3, 224, 224))
    assert {r["name"]: int(r["macs"]) for r in expected} == {n: macs for n, (macs, _, _) in layers.items()}
    for row in expected:
        _, c_in, c_out = layers[row["name"]]
        if row["type"] != "fc":
            assert "x".join(map(str, c_in)) == row["in_shape_CHW"]
            assert "x".join(map(str, c_out)) == row["out_shape_CHW"]


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        # He et al. 2015, Table 6: 0.27 M, 0.46 M, 0.66 M, 0.85 M parameters.
        ("resnet20", 269_722, 40_551_040),
        ("resnet32", 464_154, 68_862_592),
        ("resnet44", 658_586, 97_174_144),
        ("resnet56", 853_018, 125_485_696),
        # Howard et al. 2017 Table 4: 4.2 M parameters, 569 M MACs.
        ("mobilenet_v1", 4_231_976, 568_740_352),
        # mlcommons/tiny: trainable parameters of the Keras models.
        ("resnet8", 78_186, 12_501_632),
        ("mobilenet_v1_025", 216_322, 7_489_664),
        ("ds_cnn", 23_756, 2_656_768),
        ("anomaly_autoencoder", 267_928, 264_192),
    ],
)
def test_small_networks_have_their_published_sizes(name: str, parameters: int, macs: int) -> None:
    model = on_meta(name)
    layers = layer_macs(model, models.info(name).input_shape)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(m for m, _, _ in layers.values()) == macs


def test_attention_products_are_named_modules() -> None:
    """Forward hooks on Linear miss 4 % of ViT-B/16; here the products are modules: 715,382,784 MACs."""
    seen = 0

    def hook(_: nn.Module, args: tuple[torch.Tensor, torch.Tensor], out: torch.Tensor) -> None:
        nonlocal seen
        seen += out.numel() * args[0].shape[-1]

    model = on_meta("vit_b_16")
    for module in model.modules():
        if isinstance(module, ops.MatMul):
            module.register_forward_hook(hook)
    with torch.no_grad():
        model.eval()(torch.empty(1, 3, 224, 224, device="meta"))
    assert seen == 12 * 2 * 197 * 197 * 768


SMALL = {
    "resnet18": {"width": 0.125},
    "resnet34": {"width": 0.125},
    "resnet50": {"width": 0.125},
    "preact_resnet18": {"width": 0.125},
    "preact_resnet34": {"width": 0.125},
    "preact_resnet50": {"width": 0.125},
    "mobilenet_v1": {"width": 0.25},
    "mobilenet_v2": {"width": 0.25},
    "efficientnet_b0": {"width": 0.25},
    "mixnet_s": {"width": 0.5},
    "vit_b_16": {"dim": 48, "depth": 2, "heads": 4, "image_size": 32},
}


# One of each kind in the plain run; their larger relatives with the slow tests.
RELATIVES = ("resnet34", "resnet50", "preact_resnet34", "preact_resnet50", "mobilenet_v1", "mobilenet_v2")
RELATIVES += ("resnet32", "resnet44", "resnet56", "mobilenet_v1_025")
EXPORTED = [pytest.param(n, marks=pytest.mark.slow) if n in RELATIVES else n for n in models.names()]


@pytest.mark.long
@pytest.mark.parametrize("name", EXPORTED)
def test_every_model_exports_with_batch_one(name: str) -> None:
    """torch.export (non-strict), then the exported program computes what the module computes."""
    arguments = SMALL.get(name, {})
    torch.manual_seed(0)
    model = models.create(name, **arguments).eval()
    shape = models.info(name).input_shape_for(**arguments)
    if name in SMALL and name != "vit_b_16":
        shape = (3, 64, 64)
    x = torch.randn(1, *shape)
    program = torch.export.export(model, (x,), strict=False)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_model_exports_at_full_size(name: str) -> None:
    model = models.create(name).eval()
    x = torch.randn(1, *models.info(name).input_shape)
    program = torch.export.export(model, (x,), strict=False)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x))


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 28), (1, 8)])
def test_silu_se_net_fits_the_small_data_sets(channels: int, size: int) -> None:
    arguments = {"in_channels": channels, "image_size": size}
    model = models.create("silu_se_net", **arguments)
    assert models.info("silu_se_net").input_shape_for(**arguments) == (channels, size, size)
    maps: list[tuple[int, ...]] = []
    model.get_submodule("conv_head").register_forward_hook(lambda m, a, out: maps.append(tuple(out.shape[2:])))
    assert model(torch.randn(2, channels, size, size)).shape == (2, 10)
    assert maps == [{32: (4, 4), 28: (7, 7), 8: (4, 4)}[size]]
    kinds = {type(m) for m in model.modules()}
    assert nn.SiLU in kinds
    assert mobile.SqueezeExcite in kinds
    assert any(isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1 for m in model.modules())


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet50", "mobilenet_v2", "efficientnet_b0", "mixnet_s"])
def test_small_images_keep_their_size_in_the_stem(name: str) -> None:
    """Whole ImageNet networks on CIFAR: four halvings instead of five (ResNet: three)."""
    arguments = {"image_size": 32, "num_classes": 10}
    layers = layer_macs(on_meta(name, **arguments), models.info(name).input_shape_for(**arguments))
    first = next(iter(layers.values()))
    assert first[1][1:] == first[2][1:] == [32, 32]
    sizes = {out[-1] for _, _, out in layers.values() if len(out) == 3 and out[-1] > 1}
    assert min(sizes) == (4 if "resnet" in name else 2)


def test_every_activation_is_its_own_module_called_once() -> None:
    """A shared ReLU would give one quantizer to several tensors."""
    for name in models.names():
        model = on_meta(name)
        calls: dict[nn.Module, int] = {}

        def count(m: nn.Module, *_: object, calls: dict[nn.Module, int] = calls) -> None:
            calls[m] = calls.get(m, 0) + 1

        for module in model.modules():
            if not list(module.children()):
                module.register_forward_hook(count)
        with torch.no_grad():
            model.eval()(torch.empty(1, *models.info(name).input_shape, device="meta"))
        assert max(calls.values()) == 1, name


def test_same_padding_follows_tensorflow() -> None:
    """Against the definition: the windows that start at multiples of the stride cover the input, the odd zero last."""
    for size in range(1, 40):
        for kernel in range(1, 12):
            for stride in range(1, 4):
                before, after = ops.same_padding(size, kernel, stride)
                out = (size + before + after - kernel) // stride + 1
                assert out == -(-size // stride)
                assert after - before in (0, 1)


def test_resnet8_pads_after_the_data_at_stride_two() -> None:
    block = models.create("resnet8").get_submodule("blocks.1.first")
    assert isinstance(block.pad, nn.ZeroPad2d)
    assert block.pad.padding == (0, 1, 0, 1)
    assert block.conv.padding == (0, 0)
    stem = models.create("resnet8").get_submodule("stem")
    assert isinstance(stem, tiny.ConvNormAct)
    assert stem.conv.padding == (1, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: models.create("resnet21"), "unknown model 'resnet21': did you mean .*resnet20"),
        (lambda: models.create("zzz"), "known: resnet18"),
        (lambda: models.create("resnet20", classes=10), "unknown argument 'classes'.*it takes num_classes"),
        (lambda: models.create("resnet20", num_classes=0), "num_classes: expected a positive number, got 0"),
        (lambda: models.create("resnet20", num_classes=2.5), "expected a whole number, got 2.5"),
        (lambda: models.create("resnet20", width="wide"), "width: expected a positive number, got 'wide'"),
        (lambda: models.create("vit_b_16", image_size=100), "must divide by the patch size 16, got 100"),
        (lambda: models.create("vit_b_16", heads=7), "must divide by the number of heads, got 7"),
        (lambda: models.create("silu_se_net", image_size=2), "image_size must be at least 4, got 2"),
    ],
)
def test_wrong_names_and_arguments_say_what_to_do(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
