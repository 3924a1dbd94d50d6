"""`python -m experiments.front_ends --data DIR [--files DIR] [--hub]`: what the front ends make of real networks.

Files of DIR (ONNX, TFLite), files of any further folder, the zoo, and modules as users write them. MACs and weight
bits are held against counters that share no code with the front ends: onnxruntime's shape inference, the flatbuffer
as the `tflite` package reads it, and torch's FlopCounterMode on a real run. `--hub`: timm and transformers, too.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from experiments.front_end_modules import MODULES
from hwsim.errors import HwsimError
from hwsim.files.csv_text import csv_text
from hwsim.frontends.argument import LIBRARIES, from_library, load_model_argument
from hwsim.frontends.torch_export import as_arguments, extract
from hwsim.network.workload import Workload
from quant import models

OUT = Path("results/front_ends.csv")
FIELDS = ("kind", "network", "outcome", "macs", "macs_counted", "weight_bits", "weight_bits_counted", "counter", "note")
TIMM = ("resnet18", "mobilenetv3_small_100", "efficientnet_b0", "vit_tiny_patch16_224", "convnext_atto", "ghostnet_100")
HF = (
    "gpt2[text-generation]",
    "bert[fill-mask]",
    "vit[image-classification]",
    "t5[text2text-generation]",
    "clip",
    "whisper",
)
# Sizes for files of common packages that leave them open; a folder before the name where two files share it.
OPEN: dict[str, dict[str, tuple[int, ...]]] = {
    "model.onnx": {"bytes": (1, 2048)},
    "embedding_model.onnx": {"input_1": (1, 76, 32, 1)},
    "openwakeword/hey_mycroft_v0.1.onnx": {"input_1": (1, 16, 96)},
    "nmp.onnx": {"serving_default_input_2:0": (1, 43844, 1)},
    "320n.onnx": {"images": (1, 3, 320, 320)},
    "PP-OCRv5_det_mobile_infer.onnx": {"x": (1, 3, 640, 640)},
    "PP-OCRv5_rec_mobile_infer.onnx": {"x": (1, 3, 48, 320)},
    "ch_PP-OCRv4_cls_infer.onnx": {"x": (1, 3, 48, 192)},
    "model_v8.onnx": {"input_1": (1, 900, 120)},
    "bak_ovr.onnx": {"input_1": (1, 901, 161)},
    "sig.onnx": {"input_1": (1, 901, 161)},
    "sig_bak_ovr.onnx": {"input_1": (1, 144160)},
    "plcmos_v2.onnx": {"degraded_audio": (1, 1, 900, 257), "rater_embed": (1, 64)},
    "Run_1663829550_Stage_0.onnx": {"input": (1, 3, 900, 160)},
    "Run_1663915512_Stage_0.onnx": {"input": (1, 3, 900, 160)},
    "Run_1668423760_Stage_0.onnx": {"input": (1, 3, 900, 160)},
    "silero_vad/silero_vad.onnx": {"input": (1, 576), "state": (2, 1, 128), "sr": (16000,)},
    "openwakeword/silero_vad.onnx": {"input": (1, 480), "h": (2, 1, 64), "c": (2, 1, 64), "sr": (16000,)},
    "silero_vad_v6.onnx": {"input": (1, 576), "state": (2, 1, 128), "sr": (16000,)},
    "silero_vad_legacy.onnx": {"input": (1, 1536), "h": (2, 1, 64), "c": (2, 1, 64), "sr": (16000,)},
    "silero_vad_v5.onnx": {"input": (1, 576), "state": (2, 1, 128), "sr": (16000,)},
    "melspectrogram.onnx": {"input": (1, 1280)},
    "ch_PP-OCRv4_det_infer.onnx": {"x": (1, 3, 640, 640)},
    "ch_PP-OCRv4_rec_infer.onnx": {"x": (1, 3, 48, 320)},
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": {"x": (1, 3, 48, 192)},
    "silero_vad_16k_op15.onnx": {"input": (1, 576), "state": (2, 1, 128)},
    "silero_vad_16k_sequence.onnx": {"input": (1, 576)},
    "silero_vad_half.onnx": {"input": (1, 576), "state": (2, 1, 128)},
    "silero_vad_op18_ifless.onnx": {"input": (1, 576), "state": (2, 1, 128)},
}
SAME_NUMBERS = ("QuantizeLinear", "DequantizeLinear", "Identity", "Transpose", "Reshape", "Cast", "Squeeze")
# MACs by hand: torch counts none for nn.Bilinear; a run on the meta device cannot fill an array of the CPU.
CLOSED = {"bilinear": 3 * 4 * (6 * 5 + 5), "filled_array": 3 * 8 * 8 + 3 * 8 * 4}
Counted = tuple[int | None, int | None, str]  # MACs, bits of the weights of layers with MACs, who counted


def row(kind: str, name: str, read: Callable[[], Workload], count: Callable[[], Counted]) -> dict[str, Any]:
    """One network: read, counted independently, compared."""
    try:
        net = read()
    except HwsimError as problem:
        note = next(line.strip() for line in str(problem).splitlines()[-2::-1] or [str(problem)])
        return {"kind": kind, "network": name, "outcome": "refused by name", "note": re.sub(r"/\S*/", "", note)[:160]}
    except Exception as problem:
        return {
            "kind": kind,
            "network": name,
            "outcome": "TRACEBACK",
            "note": f"{type(problem).__name__}: {problem}"[:160],
        }
    macs, bits = net.macs, weight_bits(net)
    try:
        counted, counted_bits, counter = count()
    except Exception as problem:  # a counter may know an operator less than the front end
        counted, counted_bits, counter = None, None, f"none ({type(problem).__name__}: {str(problem)[:60]})"
    same = counted in (None, macs) and counted_bits in (None, bits)
    outcome = "not counted" if counted is None else "equal" if same else "DIFFERENT"
    return {
        "kind": kind, "network": name, "outcome": outcome, "macs": macs, "macs_counted": counted, "weight_bits": bits,
        "weight_bits_counted": counted_bits, "counter": counter,
    }  # fmt: skip


def sizes_given(path: Path) -> dict[str, tuple[int, ...]]:
    """What `--input` says for a file that leaves sizes open."""
    return OPEN.get(f"{path.parent.name}/{path.name}", OPEN.get(path.name, {}))


def weight_bits(net: Workload) -> int:
    """Bits of all weights of layers with MACs, every tensor once."""
    weights = [layer.weight for layer in net if layer.has_macs and not layer.weight_is_activation]
    return sum({w.name: w.size_bits for w in weights if w is not None}.values())


# -- counters ----------------------------------------------------------------------------------------------------------


def flops_of(model: nn.Module, example: Any) -> Counted:
    """MACs of one real run on the meta device, as torch's own counter has them; bits of all weights at 32 bits."""
    args, kwargs = as_arguments(example)
    model = model.eval().to("meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(*(a.to("meta") for a in args), **{key: a.to("meta") for key, a in kwargs.items()})
    return counter.get_total_flops() // 2, None, "torch FlopCounterMode"


def onnx_macs(path: Path) -> Counted:
    """MACs by node from onnxruntime's shapes; weight bits of float files from what their layers multiply by."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    codes = ("Quant", "BipolarQuant", "QuantizeLinear", "DequantizeLinear")
    bits = plain(model)
    for entry in model.graph.input:
        for dim, size in zip(entry.type.tensor_type.shape.dim, sizes_given(path).get(entry.name, ()), strict=False):
            dim.dim_value = size
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer} | shapes_of(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    stored = {t.name for t in model.graph.initializer}
    total, weights = 0, {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            total += math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type == "ConvTranspose":
            total += math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("MatMul", "Gemm"):
            flipped = any(a.name == "transA" and a.i for a in node.attribute)
            total += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if flipped else -1]
        elif node.op_type in ("LSTM", "GRU", "RNN"):
            steps, batch = shapes[node.input[0]][:2]
            both = [math.prod(shapes[name]) for name in node.input[1:3]]
            total += steps * batch * sum(both)
            weights.update({name: 32 * n for name, n in zip(node.input[1:3], both, strict=True)})
            continue
        elif node.op_type in ("If", "Loop", "Einsum", "Attention"):
            raise NotImplementedError(node.op_type)
        else:
            continue
        source, width = node.input[1], bits.get(node.input[1], 32)
        while source in makers and source not in stored and makers[source].op_type in SAME_NUMBERS:
            source = makers[source].input[0]
            width = bits.get(source, width)
        if source in stored or (source in makers and makers[source].op_type in ("Constant", "ConstantOfShape")):
            weights[source] = width * math.prod(shapes[node.input[1]])
    quantized = any(node.op_type in codes for node in model.graph.node)
    return total, None if quantized else sum(weights.values()), "onnxruntime shapes"


def shapes_of(model: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by onnxruntime's symbolic inference; where that stops, of a real run with every tensor as an output."""
    import onnxruntime
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # it leaves files where it runs
            inferred: Any = SymbolicShapeInference.infer_shapes(model, auto_merge=True)
        found = inferred.graph
        entries = (*found.input, *found.value_info, *found.output)
        shapes = {e.name: tuple(d.dim_value for d in e.type.tensor_type.shape.dim) for e in entries}
        if all(name in shapes and 0 not in shapes[name] for node in found.node for name in node.output if name):
            return shapes
    except Exception:  # its own errors, for operators that it does not know
        shapes = {}
    names = [name for node in model.graph.node for name in node.output if name]
    del model.graph.output[:]
    model.graph.output.extend(type(model.graph.input[0])(name=name) for name in names)
    onnxruntime.set_default_logger_severity(4)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
    feed = {
        e.name: np.zeros([n if isinstance(n, int) else 1 for n in e.shape], kinds[e.type]) for e in session.get_inputs()
    }
    made: dict[str, Any] = dict(zip(names, session.run(names, feed), strict=True))
    return {name: tuple(np.shape(array)) for name, array in {**feed, **made}.items()}


def plain(model: Any) -> dict[str, int]:
    """Write QONNX's quantizers as identities; the bits of what each makes."""
    numbers = {t.name: onnx_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            numbers[node.output[0]] = onnx_array(node.attribute[0].t)
    bits: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in ("Quant", "BipolarQuant"):
            bits[node.output[0]] = 1 if node.op_type == "BipolarQuant" else int(numbers[node.input[3]])
            source = node.input[0]
            del node.input[:], node.attribute[:]
            node.input.append(source)
            node.op_type, node.domain = "Identity", ""
    return bits


def onnx_array(tensor: Any) -> Any:
    """The numbers of a stored tensor; None where they are elsewhere."""
    import onnx

    return None if tensor.data_location == 1 else onnx.numpy_helper.to_array(tensor)


def tflite_macs(path: Path) -> Counted:
    """MACs and weight bits by operator, as the `tflite` package reads the flatbuffer."""
    import tflite  # type: ignore[import-not-found]

    model = tflite.Model.GetRootAsModel(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    names = {value: key for key, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
    width = {tflite.TensorType.INT8: 8, tflite.TensorType.UINT8: 8, tflite.TensorType.FLOAT16: 16}

    def shape(index: int) -> tuple[int, ...]:
        return tuple(int(graph.Tensors(index).Shape(i)) for i in range(graph.Tensors(index).ShapeLength()))

    def held(index: int) -> bool:
        buffer = graph.Tensors(index).Buffer()
        return bool(buffer and model.Buffers(buffer).DataLength())

    total, weights = 0, {}
    makers = {graph.Operators(i).Outputs(0): graph.Operators(i) for i in range(graph.OperatorsLength())}
    for i in range(graph.OperatorsLength()):
        op = graph.Operators(i)
        code = model.OperatorCodes(op.OpcodeIndex())
        kind = names.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "")
        if kind == "CUSTOM" and code.CustomCode() == b"Convolution2DTransposeBias":
            total += math.prod(shape(op.Inputs(0))) * math.prod(shape(op.Inputs(1))[:3])
            kind = "counted"
        if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "counted"):
            if kind in ("BATCH_MATMUL", "SVDF", "CUSTOM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "CONV_3D"):
                raise NotImplementedError(kind)
            continue
        weight, made = shape(op.Inputs(1)), math.prod(shape(op.Outputs(0)))
        if kind == "CONV_2D":
            total += made * math.prod(weight[1:])
        elif kind == "DEPTHWISE_CONV_2D":
            total += made * weight[1] * weight[2]
        elif kind == "FULLY_CONNECTED":
            total += made * weight[-1]
        elif kind == "TRANSPOSE_CONV":
            total += math.prod(shape(op.Inputs(2))) * weight[0] * weight[1] * weight[2]
        source = op.Inputs(1)
        while source in makers and not held(source):  # half floats and sparse weights, shown as numbers
            source = makers[source].Inputs(0)
        weights[source] = math.prod(weight) * width.get(graph.Tensors(source).Type(), 32)
    return total, sum(weights.values()), "flatbuffer (tflite package)"


# -- networks ----------------------------------------------------------------------------------------------------------


def rows(data: Path, files: Sequence[Path], hub: bool) -> Iterator[dict[str, Any]]:
    """Everything, one row each."""
    for folder in (data / "onnx", data / "tflite", data / "mlperf_tiny", *files):
        for path in sorted(folder.rglob("*")):
            if path.suffix not in (".onnx", ".tflite"):
                continue
            where = path.relative_to(folder).parts
            name = path.name if len(where) == 1 else f"{where[0]}/{path.name}"
            count = onnx_macs if path.suffix == ".onnx" else tflite_macs
            yield row(
                "file", name, partial(load_model_argument, str(path), sizes_given(path) or None), partial(count, path)
            )
    for name, make in MODULES.items():
        yield row("module", name, lambda n=name, m=make: extract(*m(), name=n), partial(module_macs, name))
    for name in models.names():
        yield row("zoo", name, lambda n=name: load_model_argument(n), lambda n=name: zoo_flops(n))
    for prefix, names in (("timm", TIMM), ("hf", HF)) if hub else ():
        for name in names:
            yield row(prefix, name, partial(from_library, prefix, name, None, False), partial(hub_macs, prefix, name))


def hub_macs(prefix: str, name: str) -> Counted:
    """A library's network by torch's own counter."""
    package, builder = LIBRARIES[prefix]
    return flops_of(*builder(importlib.import_module(package), name, None))


def module_macs(name: str) -> Counted:
    """A module by torch's counter, or by hand where that does not know its operator."""
    if name in CLOSED:
        return CLOSED[name], None, "closed form"
    return flops_of(*MODULES[name]())


def zoo_flops(name: str) -> Counted:
    """A network of the zoo by torch's own counter."""
    with torch.device("meta"):
        return flops_of(models.create(name), torch.zeros(1, *models.info(name).input_shape))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table; exit status 1 where a network differs or ends in a traceback."""
    parse = argparse.ArgumentParser(prog="python -m experiments.front_ends", description=__doc__)
    parse.add_argument(
        "--data", type=Path, default=Path(os.environ.get("HWSIM_DATA", "data")), help="default: $HWSIM_DATA"
    )
    parse.add_argument(
        "--files", type=Path, action="append", default=[], help="a further folder of .onnx and .tflite files"
    )
    parse.add_argument("--hub", action="store_true", help="timm and transformers by name, where they are installed")
    parse.add_argument("--out", type=Path, default=OUT)
    options = parse.parse_args(arguments)
    wrong = 0
    with options.out.open("w", newline="", encoding="utf-8") as file:
        file.write(csv_text([FIELDS]))
        for found in rows(options.data, options.files, options.hub):
            file.write(csv_text([[found.get(key, "") for key in FIELDS]]))
            file.flush()
            wrong += found["outcome"] in ("DIFFERENT", "TRACEBACK")
            print(*(found.get(key, "") for key in FIELDS), sep="  ", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
