# pyright: basic
"""Running an exported ONNX file elsewhere and comparing: onnxruntime, qonnx, or onnx's own reference evaluator.

`run(exported, images, engine) -> (results, codes by quantizer call)`. Files are made for one image; here the batch
axis is opened. Codes are read where the file has them: behind QuantizeLinear (and its Clip), or Quant's output over s.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwsim.errors import WorkloadError
from hwsim.integer.export.onnx_values import QONNX_DOMAIN, Exported, numbered
from hwsim.integer.graph import IntegerModel
from hwsim.integer.proof.compare import compare
from hwsim.integer.run import Machine
from quant import calling

ENGINES = ("onnxruntime", "qonnx", "reference")


@dataclass(frozen=True)
class Agreement:
    """A file run elsewhere beside the integer machine, on the same images."""

    engine: str
    images: int
    codes: int
    differing: int
    largest: int
    same_answers: int
    top1_file_percent: float | None = None
    top1_integer_percent: float | None = None

    def text(self) -> str:
        """One line."""
        line = (
            f"{self.engine}: {self.differing} of {self.codes} codes differ from the integer machine's "
            f"({100 * self.differing / max(1, self.codes):.4f} %, by at most {self.largest}), "
            f"{self.same_answers} of {self.images} answers equal"
        )
        if self.top1_file_percent is not None:
            line += f"; top-1 {self.top1_file_percent:.2f} % (integer machine {self.top1_integer_percent:.2f} %)"
        return line


def engine_for(form: str) -> str:
    """The runtime that a form is made for."""
    return "qonnx" if form == "qonnx" else "onnxruntime"


def agreement(
    exported: Exported, model: IntegerModel, images: Any, labels: Tensor | None = None, *, engine: str = "",
    batch_size: int = 50,
) -> Agreement:  # fmt: skip
    """Codes of every quantizer call, and the largest result of every image, in both.

    `images`: real images, or a tuple of a network's inputs.
    """
    engine = engine or engine_for(exported.form)
    machine, keep = Machine(model), set(model.quantizers.values())
    session = Session(exported, engine)
    codes = differing = largest = same = 0
    right = [0, 0]
    total = calling.rows(images)
    for start in range(0, total, batch_size):
        batch = calling.each(images, lambda tensor, start=start: tensor[start : start + batch_size])
        results, theirs = session.run(batch)
        outcome = machine.run(batch, keep=keep)
        found = compare(model, outcome.codes, {name: theirs[name] for name in model.quantizers})
        codes += sum(d.elements for d in found)
        differing += sum(d.differing for d in found)
        largest = max(largest, *(d.largest for d in found))
        answers = [r.reshape(calling.rows(batch), -1).argmax(1) for r in (results, outcome.values)]
        same += int((answers[0] == answers[1]).sum())
        if labels is not None:
            wanted = labels[start : start + batch_size]
            right = [n + int((a == wanted).sum()) for n, a in zip(right, answers, strict=True)]
    share = None if labels is None else [100 * n / total for n in right]
    return Agreement(engine, total, codes, differing, largest, same, *(share or (None, None)))


class Session:
    """An exported file made ready to run, its quantizers' tensors among the outputs."""

    def __init__(self, exported: Exported, engine: str) -> None:
        if engine not in ENGINES:
            raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
        self.exported, self.engine = exported, engine
        self.names = {label: a.codes for label, a in exported.activations.items()}
        needs = {"onnxruntime": "hwsim[onnx]", "qonnx": "hwsim[qonnx]", "reference": "hwsim[onnx]"}[engine]
        try:
            self._run = getattr(self, f"_{engine}")()
        except ImportError as problem:
            raise WorkloadError(f"running the file needs {engine} ({problem}): pip install '{needs}'") from None

    def run(self, images: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """(results, codes by quantizer call) of real images, or of a tuple of a network's inputs."""
        given = [images] if isinstance(images, Tensor) else list(images)
        arrays = [(x.float() if x.is_floating_point() else x.long()).numpy() for x in given]
        found: Mapping[str, np.ndarray] = self._run({numbered("input", i): array for i, array in enumerate(arrays)})
        codes = {}
        for label, a in self.exported.activations.items():
            values = torch.from_numpy(np.asarray(found[a.codes]).astype(np.float64))
            codes[label] = values if a.is_codes else (values / float(np.float32(a.grid.s))).round() + a.grid.zero_point
        return torch.from_numpy(np.asarray(found["output"])), codes

    def _with_outputs(self, proto: Any, *, cast: bool) -> Any:
        """A copy with an open batch axis and the quantizers' tensors among its outputs (as int32 where cast)."""
        import onnx

        twin = type(proto)()
        twin.CopyFrom(proto)
        for entry in (*twin.graph.input, *twin.graph.output):
            entry.type.tensor_type.shape.dim[0].ClearField("dim_value")
            entry.type.tensor_type.shape.dim[0].dim_param = "images"
        for name in self.names.values():
            shown = name
            if cast and self.exported.form == "qdq":
                shown = f"{name}~shown"
                twin.graph.node.append(onnx.helper.make_node("Cast", [name], [shown], to=onnx.TensorProto.INT32))
            kind = onnx.TensorProto.INT32 if shown != name else onnx.TensorProto.FLOAT
            twin.graph.output.append(onnx.helper.make_tensor_value_info(shown, kind, None))
        return twin

    def _read(self, names: list[str], values: Any) -> dict[str, np.ndarray]:
        return {name.removesuffix("~shown"): value for name, value in zip(names, values, strict=True)}

    def _onnxruntime(self) -> Any:
        """onnxruntime, its rewriting of graphs off: every node as it stands in the file."""
        import onnxruntime

        if self.exported.form == "qonnx":
            raise WorkloadError("onnxruntime knows no Quant nodes: run a qonnx file in qonnx, or export --format qdq")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        twin = self._with_outputs(self.exported.proto, cast=True)
        session = onnxruntime.InferenceSession(twin.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_outputs()]
        return lambda images: self._read(names, session.run(names, images))

    def _reference(self) -> Any:
        """onnx's reference evaluator; Quant by its definition."""
        from onnx.reference import ReferenceEvaluator

        twin = self._with_outputs(self.exported.proto, cast=True)
        session = ReferenceEvaluator(twin, new_ops=[quant_node()])
        names = [entry.name for entry in twin.graph.output]
        return lambda images: self._read(names, session.run(names, images))

    def _qonnx(self) -> Any:
        """qonnx's executor, image by image.

        It wraps every standard node in a model of onnx's newest IR version, which the installed onnxruntime may not
        take yet; inside, those models get the version of this file.
        """
        from unittest.mock import patch

        from qonnx.core import onnx_exec
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.transformation.infer_shapes import InferShapes

        make_model = functools.partial(onnx_exec.qonnx_make_model, ir_version=self.exported.proto.ir_version)

        twin = type(self.exported.proto)()
        twin.CopyFrom(self.exported.proto)
        wrapped = ModelWrapper(twin).transform(InferShapes())
        wanted = ["output", *self.names.values()]

        def run(images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            count = len(next(iter(images.values())))
            with patch.object(onnx_exec, "qonnx_make_model", make_model):
                found: list[Mapping[str, np.ndarray]] = [
                    onnx_exec.execute_onnx(wrapped, one, return_full_exec_context=True)
                    for one in ({k: a[i : i + 1] for k, a in images.items()} for i in range(count))
                ]
            return {name: np.concatenate([one[name] for one in found]) for name in wanted}

        return run


def quant_node() -> Any:
    """QONNX's Quant for the reference evaluator: (round(clamp(x/s + z, n, p)) - z) * s."""
    from onnx.reference.op_run import OpRun

    class Quant(OpRun):  # the evaluator finds an operator by its class's name
        op_domain = QONNX_DOMAIN

        def _run(self, x: Any, scale: Any, zero: Any, bits: Any, signed: int = 1, narrow: int = 0,
                 rounding_mode: str = "ROUND") -> Any:  # fmt: skip
            width = int(bits)
            low, high = (-(2 ** (width - 1)), 2 ** (width - 1) - 1) if signed else (0, 2**width - 1)
            codes = np.round(np.clip(x / scale + zero, low + narrow, high))
            return (((codes - zero) * scale).astype(np.float32),)

    return Quant
