"""Exported ONNX files run elsewhere give the integer machine's codes, and read back they are the same workload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hwsim import export_onnx
from hwsim.errors import UnsupportedOp, WorkloadError
from hwsim.frontends.argument import load_model_argument
from hwsim.frontends.torch_export import extract
from hwsim.integer.export.onnx_check import Session, agreement
from hwsim.integer.export.onnx_source import FORMS, onnx_network
from hwsim.integer.export.onnx_values import Exported, code_type
from hwsim.integer.lowering.lower import lower
from hwsim.network.layer import Layer
from hwsim.network.layer import Tensor as Operand
from hwsim.network.workload import Workload
from quant import checkpoint
from tests.integer.nets import quantized, zoo
from tests.integer.test_grouped import lively
from tests.integer.test_lower import SILU_SMALL, Mixture

onnx: Any = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def engine(form: str) -> str:
    """What runs a form quickly; qonnx itself runs in one test, because it takes a second per image."""
    return "onnxruntime" if form == "qdq" else "reference"


def saved(folder: Path, made: Exported) -> Path:
    onnx.checker.check_model(made.proto, full_check=True)
    onnx.save(made.proto, str(folder / "net.onnx"))
    return folder / "net.onnx"


@pytest.mark.long
@pytest.mark.parametrize(
    ("bits", "policy"),
    [
        (2, "pad_code"),
        pytest.param(3, "pad_beta", marks=pytest.mark.slow),
        pytest.param(4, "border_bias", marks=pytest.mark.slow),
        pytest.param(8, "snap_offset", marks=pytest.mark.slow),
    ],
)
def test_files_give_the_machines_codes_and_read_back_they_are_the_same_workload(
    bits: int, policy: str, tmp_path: Path
) -> None:
    model, images = zoo("silu_se_net", bits, batch=2, arguments=SILU_SMALL, padding_policy=policy)
    lowered, ours = lower(model, images), described(extract(model, images[:1]))
    for form in FORMS:
        made = onnx_network(model, images, form=form)
        found = agreement(made, lowered, images, engine=engine(form))
        assert made.kept
        assert not made.snapped
        assert found.codes > 50_000
        assert found.largest <= 1
        # The file computes in float32: a value within its rounding error of a tie may fall on the other side.
        assert found.differing <= 1e-4 * found.codes
        assert found.same_answers == len(images)
        assert described(load_model_argument(str(saved(tmp_path, made)))) == ours
        snapped = onnx_network(model, images, form=form, offset="snap")
        assert snapped.snapped
        assert 0 < snapped.largest_shift <= 0.5
        check_zero_points(load_model_argument(str(saved(tmp_path, snapped))), extract(model, images[:1]), snapped)
        if policy == "pad_code":
            assert agreement(snapped, lowered, images, engine=engine(form)).differing > 1000


@pytest.mark.parametrize(
    ("name", "arguments", "choices"),
    [
        ("resnet8", {"image_size": 8}, {"config": 1, "weight_granularity": "channel"}),
        pytest.param(
            "vit_b_16", {"image_size": 32, "dim": 24, "depth": 1, "heads": 2}, {"config": 4}, marks=pytest.mark.slow
        ),
        ("anomaly_autoencoder", {"features": 32}, {"config": 4}),
    ],
)
def test_other_families_give_the_machines_codes(name: str, arguments: dict[str, Any], choices: dict[str, Any]) -> None:
    model, images = zoo(name, 4, batch=1, arguments=arguments, **choices)
    found = agreement(onnx_network(model, images), lower(model, images), images)
    assert found.differing <= 1e-3 * found.codes


def test_one_bit_and_one_dimension() -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 2, 24)
    for bits in (1, 5):
        model = quantized(Mixture().eval(), images, bits, padding_policy="pad_beta")
        found = agreement(onnx_network(model, images), lower(model, images), images)
        assert found.differing == 0
    with pytest.raises(UnsupportedOp, match=r"QONNX reads one signed bit as -1 and 1; export --format qdq"):
        onnx_network(quantized(Mixture().eval(), images, 1), images, form="qonnx")


@pytest.mark.parametrize(("group", "bits"), [(4, 4), (5, 4), (64, 4), (5, 3)])
def test_groups_are_blocks_of_the_file_and_read_back_they_are_the_same_workload(
    group: int, bits: int, tmp_path: Path
) -> None:
    """Groups that divide the channels, that do not, one wider than all; codes narrower than their type."""
    model, images = lively({"weight_group": group, "bits": bits})
    made, lowered, ours = onnx_network(model, images), lower(model, images), described(extract(model, images[:1]))
    for where in ("onnxruntime", "reference"):
        assert agreement(made, lowered, images, engine=where).differing == 0
    assert described(load_model_argument(str(saved(tmp_path, made)))) == ours
    blocks = [a.i for n in made.proto.graph.node for a in n.attribute if a.name == "block_size"]
    assert blocks == [min(group, channels) for channels in (3, 8, 3, 12, 8, 10)]


class Dense(nn.Module):
    """Matrices of 40 and 24 channels in groups, on vectors or on rows of them, with a bias and without."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(40, 24), nn.SiLU(), nn.Linear(24, 10, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.act(self.up(x)))


@pytest.mark.long
@pytest.mark.parametrize(
    ("bits", "group", "offset"),
    [(4, 16, False), (4, 64, False), (8, 32, False), (2, 16, False), (4, 16, True), (4, 64, True), (2, 16, True)],
)
def test_packed_groups_give_the_machines_codes_and_read_back_they_are_the_same_workload(
    bits: int, group: int, offset: bool, tmp_path: Path
) -> None:
    """Groups that divide the channels, that do not, and one wider than all; real-valued zero points."""
    for shape in ((3, 40), (3, 5, 40)):
        choices = {"bits": bits, "weight_group": group, "weight_offset": offset}
        model, images = lively(choices, Dense(), torch.randn(shape))
        made, lowered = onnx_network(model, images, groups="packed"), lower(model, images)
        assert [n.op_type for n in made.proto.graph.node].count("MatMulNBits") == 2
        found = agreement(made, lowered, images, engine="onnxruntime")
        assert (found.differing, found.codes > 0) == (0, True)
        assert described(load_model_argument(str(saved(tmp_path, made)))) == described(extract(model, images[:1]))


def test_what_packing_cannot_hold_stays_in_blocks_or_is_refused() -> None:
    """Odd groups, widths that fill no byte, convolutions; offsets of those have no place."""
    for bits, group in ((3, 16), (4, 12)):
        model, images = lively({"bits": bits, "weight_group": group}, Dense(), torch.randn(3, 40))
        kinds = [n.op_type for n in onnx_network(model, images, groups="packed").proto.graph.node]
        assert "MatMulNBits" not in kinds
    with pytest.raises(UnsupportedOp, match="real-valued offset, which DequantizeLinear lacks"):
        onnx_network(*lively({"weight_group": 16, "weight_offset": True}), groups="packed")
    odd = {"bits": 8, "weight_group": 16, "weight_offset": True}
    with pytest.raises(UnsupportedOp, match="layer up: its weights have a real-valued offset"):
        onnx_network(*lively(odd, Dense(), torch.randn(3, 40)), groups="packed")
    with pytest.raises(ValueError, match="packed ones go with form qdq"):
        onnx_network(*lively({"weight_group": 16}), form="qonnx", groups="packed")


def test_formats_that_no_export_holds_are_refused_by_name() -> None:
    for choices, form, message in (
        ({"weight_group": 4}, "qonnx", "QONNX has no groups along a sum; export --format qdq"),
        ({"weight_format": "MXFP4"}, "qdq", "e2m1, groups of 32: ONNX export takes integers"),
        ({"weight_format": "MXINT8"}, "qdq", "ONNX export takes integers with learned steps.*hwsim verify"),
        ({"act_format": "FP16"}, "qdq", "input_quantizer: fp16: ONNX export takes integers"),
        ({"act_format": "BF16"}, "qonnx", "input_quantizer: bf16: ONNX export takes integers"),
        ({"act_format": "MXINT8"}, "qonnx", "groups of 32: ONNX export takes integers with learned steps"),
        ({"weight_group": 4, "weight_offset": True}, "qdq", "its weights have an offset"),
    ):
        with pytest.raises(UnsupportedOp, match=message):
            onnx_network(*lively(choices), form=form)


def test_qonnx_itself_agrees() -> None:
    pytest.importorskip("qonnx", reason="needs qonnx: pip install 'hwsim[qonnx]'")
    model, images = zoo("resnet8", 4, batch=1, arguments={"image_size": 8}, config=4, padding_policy="border_bias")
    found = agreement(onnx_network(model, images, form="qonnx"), lower(model, images), images)
    assert (found.engine, found.differing) == ("qonnx", 0)


def test_types_are_the_narrowest_that_the_codes_fill() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 3))
    images = torch.randn(2, 3, 12, 12)
    made = onnx_network(quantized(net.eval(), images, 2, first_last="8bit"), images)
    assert {label: a.type for label, a in made.activations.items()} == {
        "0.input_quantizer": "INT8", "2.input_quantizer": "UINT2", "4.input_quantizer": "UINT8",
    }  # fmt: skip
    stored = {t.name: t.data_type for t in made.proto.graph.initializer}
    assert stored["2.weight_quantizer.codes"] == onnx.TensorProto.INT2
    assert code_type(-128, 255)[0] == "INT16"
    with pytest.raises(UnsupportedOp, match="fit no type"):
        code_type(0, 2**20)


# ---- read back -------------------------------------------------------------------------------------------------------


def operand(t: Operand | None) -> tuple[object, ...]:
    return () if t is None else (t.shape, t.bits, t.signed, t.offset, t.scales)


def described(net: Workload) -> list[tuple[object, ...]]:
    """Everything that decides a price, name by name where there is a MAC array."""

    def one(layer: Layer) -> tuple[object, ...]:
        named = layer.name if layer.has_macs else ""
        policy = layer.padding_policy if layer.inputs[0].offset else ""  # without an offset all policies are one
        tensors = tuple(map(operand, (*layer.inputs, layer.output, layer.weight)))
        return (named, layer.op, tensors, layer.loops, layer.stride, layer.dilation, layer.padding, policy, layer.bias)

    return [one(layer) for layer in net]


def check_zero_points(read: Workload, ours: Workload, made: Exported) -> None:
    """Snapped files: every offset is a zero point now, or gone where that is 0; paddings are those of the network."""
    by_name = {layer.name: layer for layer in ours}
    points = {label.removesuffix(".input_quantizer"): a.grid.zero_point for label, a in made.activations.items()}
    checked = 0
    for layer in read:
        if layer.has_macs and by_name[layer.name].inputs[0].offset:
            assert layer.inputs[0].zero_point == points[layer.name]
            assert layer.inputs[0].offset == (points[layer.name] != 0)
            assert layer.padding == by_name[layer.name].padding
            checked += 1
    assert checked > 10


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_compares_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = zoo("resnet8", 4, batch=1, arguments={"image_size": 8}, config=4)
    settings = {"weight_bits": 4, "act_bits": 4, "first_last": "same", "config": 4}
    meta = checkpoint.Meta("resnet8", {"image_size": 8}, settings, (3, 8, 8), 10)
    folder = checkpoint.save(tmp_path / "net", model, meta)
    out = tmp_path / "net.onnx"
    assert export_onnx.main([str(folder), str(out), "--images", "2", "--random"]) == 0
    printed = capsys.readouterr().out
    assert "kept as arithmetic, 0 snapped" in printed
    assert "onnxruntime: 0 of" in printed
    assert export_onnx.main([str(folder), str(out), "--format", "qonnx", "--offset", "snap"]) == 0
    assert "beta moved by at most 0." in capsys.readouterr().out
    plain = models_without_quantizers(tmp_path)
    assert export_onnx.main([str(plain), str(tmp_path / "no.onnx")]) == 2
    assert "has no quantizers; quantize it with" in capsys.readouterr().err
    assert not (tmp_path / "no.onnx").exists()


def models_without_quantizers(folder: Path) -> Path:
    from quant import models

    model = models.create("resnet8", image_size=8)
    return checkpoint.save(folder / "plain", model, checkpoint.Meta("resnet8", {"image_size": 8}, None, (3, 8, 8), 10))


def test_what_onnx_cannot_say_is_named() -> None:
    images = torch.randn(2, 3, 8, 8)
    with pytest.raises(WorkloadError, match="has no quantizers"):
        onnx_network(nn.Sequential(nn.Conv2d(3, 4, 3)), images)
    odd = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Softplus(), nn.Conv2d(4, 4, 3))
    with pytest.raises(UnsupportedOp, match=r"layer 1: softplus has no ONNX counterpart"):
        onnx_network(quantized(odd, images, 4), images)
    model = quantized(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), images, 4, method="dsq")
    with pytest.raises(UnsupportedOp, match="method 'dsq'"):
        onnx_network(model, images)
    made = onnx_network(quantized(nn.Sequential(nn.Conv2d(3, 4, 3)), images, 4), images, form="qonnx")
    with pytest.raises(WorkloadError, match="onnxruntime knows no Quant nodes"):
        Session(made, "onnxruntime")
