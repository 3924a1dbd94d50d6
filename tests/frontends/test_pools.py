"""Pools slide alike whether torch, ONNX or TFLite says how: window, stride, dilation and padding on every side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hwsim.errors import HwsimError
from hwsim.frontends.argument import load_model_argument
from hwsim.frontends.files.tflite import read_tflite_graph
from hwsim.frontends.lowering.lower import lower
from hwsim.frontends.lowering.table import HANDLERS
from hwsim.frontends.torch_export import extract
from hwsim.network.layer import Layer
from tests.frontends.test_onnx_forms import Graph
from tests.frontends.tflite_files import O, T, write

Slide = tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int, int, int]]
PLAIN = ((3, 3), (2, 2), (1, 1), (0, 0, 0, 0))
CENTRED = ((3, 3), (2, 2), (1, 1), (1, 1, 1, 1))


def slide(layer: Layer) -> Slide:
    assert layer.op in ("max_pool", "avg_pool")
    return layer.kernel, layer.stride, layer.dilation, layer.padding


@pytest.mark.parametrize(("model", "expected"), [
    (nn.MaxPool2d(3, 2, 1), CENTRED),
    (nn.AvgPool2d((3, 3), (2, 2), (1, 1), count_include_pad=False), CENTRED),
    (nn.MaxPool2d(3, 2), PLAIN),
    (nn.MaxPool2d(2), ((2, 2), (2, 2), (1, 1), (0, 0, 0, 0))),
    (nn.AvgPool2d((2, 3)), ((2, 3), (2, 3), (1, 1), (0, 0, 0, 0))),
    (nn.MaxPool2d(3, 2, ceil_mode=True), PLAIN),
    (nn.MaxPool2d(3, 1, 1, dilation=2), ((3, 3), (1, 1), (2, 2), (1, 1, 1, 1))),
    (nn.AdaptiveAvgPool2d(5), ((0, 0), (1, 1), (1, 1), (0, 0, 0, 0))),
], ids=str)  # fmt: skip
def test_torch(model: nn.Module, expected: Slide) -> None:
    assert slide(extract(model.eval(), torch.zeros(1, 4, 12, 12)).layers[0]) == expected


@pytest.mark.parametrize(("options", "expected"), [
    ({"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, CENTRED),
    ({"kernel_shape": [3, 3], "strides": [2, 2]}, PLAIN),
    ({"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, (*PLAIN[:3], (0, 1, 0, 1))),
    ({"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}, (*PLAIN[:3], (1, 0, 1, 0))),
    ({"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "VALID"}, PLAIN),
    ({"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, PLAIN),
    ({"kernel_shape": [3, 2], "dilations": [2, 1]}, ((3, 2), (1, 1), (2, 1), (0, 0, 0, 0))),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_onnx(kind: str, options: dict[str, Any], expected: Slide, tmp_path: Path) -> None:
    net = Graph((1, 4, 12, 12))
    path = net.saved(tmp_path, net.op(kind, "x", **options))
    assert slide(load_model_argument(str(path)).layers[0]) == expected


def test_onnx_strides_of_nothing_are_refused_by_name(tmp_path: Path) -> None:
    net = Graph((1, 4, 12, 12))
    path = net.saved(tmp_path, net.op("MaxPool", "x", kernel_shape=[3, 3], strides=[0, 2], auto_pad="SAME_UPPER"))
    with pytest.raises(HwsimError, match="n0"):
        load_model_argument(str(path))


@pytest.mark.parametrize(("same", "expected"), [(1, (*PLAIN[:3], (0, 1, 0, 1))), (0, PLAIN)])
@pytest.mark.parametrize("kind", ["MAX_POOL_2D", "AVERAGE_POOL_2D"])
def test_tflite(kind: str, same: int, expected: Slide, tmp_path: Path) -> None:
    made = 6 if same else 5
    options = {"same": same, "stride_w": 2, "stride_h": 2, "filter_w": 3, "filter_h": 3}
    tensors = [T((1, 12, 12, 4)), T((1, made, made, 4))]
    path = write(tmp_path / "net.tflite", tensors, [O(kind, [0], [1], options)], (0,))
    assert slide(lower(read_tflite_graph(path, None), HANDLERS).layers[0]) == expected
