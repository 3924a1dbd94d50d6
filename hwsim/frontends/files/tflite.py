"""TFLite networks as an `OpGraph`: `read_tflite_graph(path)`, with real bits, zero points and scales.

Every tensor of codes stands behind a quantizer named after it. Convolutions pad with the zero point, which is policy
`snap_offset`. Shapes become N, C, H, W; layers are numbered, because the file names tensors, not layers. Integer
weights under float activations are a hybrid operator: the runtime quantizes its input anew at every run.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hwsim.errors import WorkloadError
from hwsim.frontends.files.onnx_known import Shapes
from hwsim.frontends.files.tflite_build import GraphBuilder
from hwsim.frontends.files.tflite_file import TfliteModel, TfliteTensor, read_tflite
from hwsim.frontends.files.tflite_flow import CALLS, in_one_graph
from hwsim.frontends.files.tflite_operators import HANDLERS
from hwsim.frontends.lowering.ir import OpGraph


def read_tflite_graph(path: Path, shapes: Shapes = None) -> OpGraph:
    """The network of a TFLite file; `shapes`: of its first input, or by an input's name.

    Raises WorkloadError; operators without a price are named when it is lowered.
    """
    model = read_tflite(path)
    if shapes is not None:
        model = resized(model, shapes)
    builder = GraphBuilder(model, HANDLERS)
    try:
        builder = GraphBuilder(in_one_graph(model), HANDLERS)
        return builder.build()
    except (KeyError, IndexError, TypeError, ValueError, ArithmeticError) as problem:
        raise WorkloadError(f"{path}: {builder.layer}: not as TFLite's schema has it: {problem!r}") from None


def resized(model: TfliteModel, shapes: Shapes) -> TfliteModel:
    """The model at another batch size, where the file's shape signatures leave the batch open.

    Raises WorkloadError where a size is fixed, or where another one than the batch is to change.
    """
    wanted = dict(shapes) if not isinstance(shapes, tuple) and shapes is not None else {}
    if isinstance(shapes, tuple):
        wanted = {model.tensors[model.inputs[0]].name: shapes}
    names = {model.tensors[i].name: model.tensors[i] for i in model.inputs}
    batches: set[tuple[int, int]] = set()
    for name, shape in wanted.items():
        tensor = names.get(name) if name else model.tensors[model.inputs[0]]
        if tensor is None:
            raise WorkloadError(f"{model.path}: --input {name}=...: no such input; it has {', '.join(names)}")
        old = tensor.shape
        channels_first = (old[0], old[3], old[1], old[2]) if len(old) == 4 else old
        if shape in (old, channels_first):
            continue
        signature = tensor.signature or old
        if len(shape) != len(old) or any(n not in (-1, m) for n, m in zip(signature, shape, strict=True)):
            raise WorkloadError(
                f"{model.path}: its input {tensor.name!r} has the shape {signature}, --input says {shape}"
            )
        if shape[1:] != old[1:]:
            raise WorkloadError(
                f"{model.path}: --input says {shape}: this version changes only the first size of a TFLite file "
                f"{signature}: convert the network at that size"
            )
        batches.add((old[0], shape[0]))
    if not batches:
        return model
    if len(batches) > 1 or len({model.tensors[i].shape[0] for i in model.inputs if model.tensors[i].shape}) > 1:
        raise WorkloadError(f"{model.path}: --input gives its inputs different batch sizes")
    return with_batch(model, *batches.pop())


def with_batch(model: TfliteModel, old: int, new: int) -> TfliteModel:
    """Every activation with `new` / `old` times as many entries along its first size."""
    mixing = [op.op for op in model.ops if op.op in ("TRANSPOSE", "BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND", *CALLS)]
    moved = [op for op in model.ops if op.op == "TRANSPOSE" and moves_batch(model, op.inputs)]
    if moved or any(name != "TRANSPOSE" for name in mixing):
        raise WorkloadError(f"{model.path}: {(mixing or ['TRANSPOSE'])[0]} moves the batch: its size cannot be changed")
    made = {i for op in model.ops for i in op.outputs} | set(model.inputs)

    def change(tensor: TfliteTensor) -> TfliteTensor:
        sizes = tensor.shape
        if tensor.index not in made or tensor.stored or not sizes or sizes[0] * new % old:
            return tensor
        return dataclasses.replace(tensor, shape=(sizes[0] * new // old, *sizes[1:]))

    return dataclasses.replace(model, tensors=tuple(change(tensor) for tensor in model.tensors))


def moves_batch(model: TfliteModel, inputs: tuple[int, ...]) -> bool:
    """Whether a transposition puts the first axis elsewhere."""
    order = model.tensors[inputs[1]].data
    return order is None or int(order.reshape(-1)[0]) != 0
