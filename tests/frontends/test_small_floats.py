"""Models in 16-bit floats are priced as such, whichever file or module they come from; nothing is an integer of 16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hwsim
from hwsim.errors import HwsimError
from hwsim.frontends.argument import load_model_argument
from hwsim.frontends.torch_export import extract
from hwsim.machine.load import load_accelerator
from hwsim.network.layer import Tensor, operands
from hwsim.network.workload import Workload
from hwsim.pricing.scales import mac_elements, mac_widths
from tests.frontends.test_onnx_forms import FORMS, Graph
from tests.frontends.tflite_files import O, T, write

onnx: Any = pytest.importorskip("onnx")
HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
MACHINES = ("a100", "h100", "l40s")


class Block(nn.Module):
    """Products, a norm, an activation function, a sum and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(64, 96), nn.Linear(96, 64), nn.LayerNorm(64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x + self.down(nn.functional.gelu(self.up(self.norm(x)))), -1)


def block(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return Block().eval().to(dtype), torch.zeros(4, 64, dtype=dtype)


def activations_and_weights(net: Workload) -> list[Tensor]:
    return [tensor for layer in net for tensor in operands(layer) if tensor.origin != "index"]


def price(net: Workload, machine: str, **options: Any) -> tuple[float, int, int]:
    totals = hwsim.evaluate(net, machine, effort="quick", **options).totals
    return totals.energy_pj, totals.latency_cycles, totals.weight_bits


@pytest.mark.long
@pytest.mark.parametrize("element", HALVES)
def test_a_module_in_halves_costs_what_the_float_one_costs_at_that_format(element: str) -> None:
    small, full = extract(*block(HALVES[element])), extract(*block())
    assert {(t.element, t.bits) for t in activations_and_weights(small)} == {(element, 16)}
    for machine in MACHINES:
        assert price(small, machine) == price(full, machine, bits=element.upper(), first_last="same")
        assert price(small, machine, bits="W8A8") == price(full, machine, bits="W8A8")
        assert price(small, machine, bits="W4g32A16") == price(full, machine, bits="W4g32A16")


def test_a_machine_of_integers_refuses_a_module_in_halves_and_says_the_way_out() -> None:
    net = extract(*block(torch.float16))
    with pytest.raises(HwsimError, match=r"(?s)expected one of int for .*got fp16.*--bits W8A8"):
        hwsim.evaluate(net, "eyeriss_v1", effort="quick")


@pytest.mark.parametrize("element", HALVES)
def test_an_exported_program_in_halves_is_the_module_in_halves(tmp_path: Path, element: str) -> None:
    model, x = block(HALVES[element])
    torch.export.save(torch.export.export(model, (x,), strict=False), tmp_path / "net.pt2")
    assert list(load_model_argument(str(tmp_path / "net.pt2"))) == list(extract(model, x))


def test_a_type_that_a_program_numbers_and_nobody_knows_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    model, x = block(torch.float16)
    torch.export.save(torch.export.export(model, (x,), strict=False), tmp_path / "net.pt2")
    monkeypatch.delitem(__import__("hwsim.frontends.files.pt2", fromlist=["DTYPES"]).DTYPES, 6)
    with pytest.raises(HwsimError, match="has element type 6, which this version does not know"):
        load_model_argument(str(tmp_path / "net.pt2"))


def in_halves(graph: Any) -> None:
    """Every float of an ONNX graph, and of the graphs inside, becomes fp16."""
    small = onnx.TensorProto.FLOAT16
    stored = [*graph.initializer, *(a.t for node in graph.node for a in node.attribute if a.name == "value")]
    for tensor in stored:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            numbers = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(numbers, tensor.name))
    for entry in (*graph.input, *graph.output, *graph.value_info):
        if entry.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            entry.type.tensor_type.elem_type = small
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = small
            if attribute.g.node:
                in_halves(attribute.g)


# DynamicQuantizeLinear and integer products make float32 by the standard.
@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in FORMS if name != "dynamic products"])
def test_an_onnx_file_in_halves_has_fp16_where_the_float_one_has_32_bits(tmp_path: Path, name: str) -> None:
    net = Graph((1, 7, 8, 8) if name == "fused convolution" else (1, 7, 64))
    path = net.saved(tmp_path, FORMS[name][0](net), opset=23 if name == "standard attention" else 21)
    full = load_model_argument(str(path))
    model = onnx.load(str(path))
    in_halves(model.graph)
    onnx.save(model, str(path))
    small = load_model_argument(str(path))
    assert [(x.name, x.op, x.loops) for x in small] == [(x.name, x.op, x.loops) for x in full]
    for mine, theirs in zip(activations_and_weights(small), activations_and_weights(full), strict=True):
        integers = name == "packed cached attention" and theirs.shape == (1, 10)  # how long each sequence is
        bare = theirs.format is None and theirs.bits == 32 and not integers
        assert (mine.shape, mine.bits) == (theirs.shape, 16 if bare else theirs.bits)
        assert not bare or mine.element == "fp16"


class Mixed(nn.Module):
    """A norm in float32 between products in fp16, as language models have it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = self.first(x).float()
        return self.second((wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype))


def test_what_is_cast_to_halves_is_read_and_stored_as_halves() -> None:
    net = extract(Mixed().eval().half(), torch.zeros(4, 64, dtype=torch.float16))
    product = net.layers[-1]
    assert [t.element for t in product.multiplied] == ["fp16", "fp16"]
    assert (net.layers[-2].output.element, net.layers[-2].output.bits) == ("fp16", 16)
    inside = [x.output.bits for x in net if x.op in ("pow", "reduce_mean", "mul")]
    assert 32 in inside  # float32 within the norm stays float32


class Copies(nn.Module):
    """One result, added in float32 and multiplied in fp16."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Linear(64, 64, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.exp(x)
        return y + self.weight(y.half()).float()


def test_a_cast_beside_a_reader_of_32_bits_is_a_layer_of_its_own() -> None:
    model = Copies().eval()
    model.weight.half()
    net = extract(model, torch.zeros(4, 64))
    assert [layer.op for layer in net] == ["exp", "requantize", "linear", "add"]
    assert [t.bits for t in (net.layers[1].inputs[0], net.layers[1].output)] == [32, 16]


def test_stored_halves_under_float32_values_are_multiplied_as_float32(tmp_path: Path) -> None:
    stored = T((8, 64), "float16", None, data=bytes(2 * 512))
    ops = [O("DEQUANTIZE", [1], [2]), O("FULLY_CONNECTED", [0, 2, -1], [3])]
    tensors = [T((4, 64), "float32", None), stored, T((8, 64), "float32", None), T((4, 8), "float32", None)]
    write(tmp_path / "net.tflite", tensors, ops)
    net = load_model_argument(str(tmp_path / "net.tflite"))
    (layer,) = net
    assert layer.weight is not None
    assert (layer.weight.element, layer.weight.size_bits, layer.inputs[0].bits) == ("fp16", 16 * 512, 32)
    machine = load_accelerator("eyeriss_v1")
    assert (mac_widths(layer, machine), mac_elements(layer)) == ((32, 32), ("int", "int"))  # as of two bare operands


@pytest.mark.parametrize(("kind", "known"), [("FLOAT8E4M3FN", True), ("FLOAT8E5M2", True), ("FLOAT8E4M3FNUZ", False)])
def test_a_stored_float8_is_its_element_or_refused_by_its_name(tmp_path: Path, kind: str, known: bool) -> None:
    number = getattr(onnx.TensorProto, kind)
    net = Graph((4, 64), onnx.TensorProto.FLOAT16)
    weight = net.typed(number, 64, 32)
    path = net.saved(tmp_path, net.op("MatMul", "x", net.op("Cast", weight, to=onnx.TensorProto.FLOAT16)))
    model = onnx.load(str(path))
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, str(path))
    layer = load_model_argument(str(path)).layers[-1]
    assert layer.weight is not None
    element = {"FLOAT8E4M3FN": "e4m3", "FLOAT8E5M2": "e5m2"}.get(kind, "fp16")  # unknown codes are unpacked ahead
    assert (layer.weight.element, layer.weight.bits) == (element, 8 if known else 16)
