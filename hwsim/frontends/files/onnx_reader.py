"""One ONNX graph as operators: what every handler may ask for, and how codes get their quantizers.

A scale or zero point is a number that the file states, or it is found at run time (`dynamic`), or it is refused by
name. It is never a default, except where the standard itself names one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.errors import WorkloadError
from hwsim.frontends.files.onnx_fold import Numbers
from hwsim.frontends.files.onnx_known import Known, Shapes
from hwsim.frontends.files.onnx_patterns import MOVEMENT, Patterns, find_patterns
from hwsim.frontends.files.onnx_types import (
    CODES,
    QUANT_OPS,
    QUANTIZERS,
    SCALE_TYPES,
    SMALL_FLOATS,
    attributes,
)
from hwsim.frontends.lowering.ir import SMALL_FLOATS as ELEMENTS
from hwsim.frontends.lowering.ir import Arg, Meta, Op, OpGraph, Quantization, Ref
from hwsim.frontends.lowering.lower import QUANTIZER
from hwsim.network.formats import MAX_BITS, Format, Sharing


@dataclass(frozen=True)
class Affine:
    """Codes of a tensor: width, sign, zero points (None: found at run time), how many scales.

    `format`: of small floats, and of blocks along `axis`. `beside_floats`: of a weight that 16-bit floats read.
    """

    bits: int
    signed: bool
    zeros: Numbers | None
    scales: int = 1
    format: Format | None = None
    axis: int = -1
    beside_floats: Format | None = None


Handler = Callable[["OnnxReader", Any], None]


class OnnxReader:
    """Translates one ONNX graph, node by node; `handlers` goes by operator."""

    def __init__(self, path: Path, onnx: Any, model: Any, handlers: Mapping[str, Handler]) -> None:
        self.path, self.onnx, self.handlers = path, onnx, handlers
        self.known = Known(path, onnx, model, frozenset(handlers))
        self.file_nodes = list(model.graph.node)
        self.graph = self.known.graph
        self.metas = self.known.metas
        self.constants = self.known.constants
        self.values = self.known.values
        self.parameters: set[str] = set()  # what depends on no input: constants, and what is computed from them
        self.quantizers: dict[str, Quantization] = {}
        self.policies: dict[str, str] = {}
        self.coded: dict[str, str] = {}  # values that are codes -> their quantizer
        self.ops: list[Op] = []
        self.layer = ""
        self.dtype = "float32"  # of the numbers that the node being translated works on
        self.patterns = Patterns()

    def read(self, shapes: Shapes) -> OpGraph:
        """The whole graph."""
        inputs = self.known.find(shapes)
        self.parameters = set(self.constants)
        self.patterns = find_patterns(self)
        for number, node in enumerate(self.patterns.nodes):
            self.layer = layer_name(node, number)
            self.translate(node)
        names = tuple(entry.name for entry in inputs)
        outputs = tuple(entry.name for entry in self.graph.output)
        unread = self.known.unread
        notes = (f"the numbers of {unread} weights are in other files, which were not read",) if unread else ()
        return OpGraph(
            self.path.stem, names, self.constants, self.metas, tuple(self.ops), outputs, self.quantizers,
            self.policies, notes, dependent=self.known.dependent(self.patterns.nodes, names),
        )  # fmt: skip

    # -- what handlers ask for -----------------------------------------------------------------------------------------

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor. Raises WorkloadError where inference found none, naming the operator it stopped at."""
        if name not in self.metas:
            raise WorkloadError(f"{self.path}: {self.layer}: {self.why_unknown(name)}")
        return self.metas[name].shape

    def why_unknown(self, name: str) -> str:
        """The first operator whose result has no known shape, and what to do."""
        makers = {output: node for node in self.graph.node for output in node.output}
        seen: set[str] = set()
        while name in makers:
            missing = [item for item in makers[name].input if item and item not in self.metas]
            if not missing:
                break
            if name in seen:
                return f"{name!r} depends on itself: a network without an order has no price"
            seen.add(name)
            name = missing[0]
        maker = makers.get(name)
        if maker is None:
            return f"the shape of {name!r} is unknown: give the input's sizes with --input"
        full = f"{maker.domain}.{maker.op_type}" if maker.domain else str(maker.op_type)
        if maker.op_type in ("If", "Loop", "Scan"):
            return (
                f"{full} {maker.name!r} depends on the input's values: networks with data-dependent paths have no price"
            )
        return (
            f"the shape of {name!r} is unknown: shape inference stops at {full} {maker.name!r} (its result depends on "
            "the input's values, or the operator is not in the standard): run the file through a simplifier"
        )

    def op(self, name: str, output: str, /, **arguments: Arg) -> None:
        """One operator of the node being translated; its output's shape must be known."""
        self.shape(output)
        self.ops.append(Op(name, arguments, (output,), self.layer, self.layer))

    def ref(self, node: Any, position: int) -> Arg:
        """An input; None where it is absent."""
        return Ref(node.input[position]) if self.has(node, position) else None

    def has(self, node: Any, position: int) -> bool:
        """Whether an optional input is there."""
        return position < len(node.input) and bool(node.input[position])

    def options(self, node: Any) -> dict[str, Any]:
        """Attributes by name."""
        return attributes(node, self.onnx)

    def number(self, node: Any, position: int, default: float | None = None) -> Numbers | None:
        """The values of a constant input."""
        name = node.input[position] if self.has(node, position) else ""
        if name in self.values:
            return self.values[name]
        return None if default is None else np.asarray(default)

    def fresh(self, stem: str, shape: tuple[int, ...]) -> str:
        """A new value of that shape, of the type that the node works in."""
        name = f"{stem}~{len(self.metas)}"
        self.metas[name] = Meta(shape, self.dtype)
        return name

    def refuse(self, why: str) -> WorkloadError:
        """What to raise at the node being translated."""
        return WorkloadError(f"{self.path}: {self.layer}: {why}")

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def translate(self, node: Any) -> None:
        """One node. What has no translation keeps its name, and is refused by it later."""
        kind, self.dtype = node.op_type, self.working_type(node)
        if all(name in self.values for name in node.output if name) and kind not in QUANT_OPS:
            return
        from_parameters = all(name in self.parameters for name in node.input if name) and kind not in ("If", "Loop")
        if from_parameters:
            self.parameters.update(node.output)
        if from_parameters and kind == "Cast" and self.known.types.get(node.input[0], "") in CODES:
            self.stored_codes(node)
        elif from_parameters and kind in MOVEMENT and kind not in VIEWS and self.quantizer_of(node.input[0]):
            self.moved_codes(node, self.quantizer_of(node.input[0]))
        elif from_parameters and kind not in (*QUANT_OPS, "QuantizeLinear", "DequantizeLinear", *VIEWS, *KEEPING_CODES):
            for name in node.output:
                self.constants[name] = str(name)
        elif kind in self.handlers:
            self.handlers[kind](self, node)
        else:
            domain = f"{node.domain}." if node.domain else ""
            arguments = {f"input_{i}": Ref(name) for i, name in enumerate(node.input) if name}
            self.ops.append(Op(f"onnx.{domain}{kind}", arguments, tuple(node.output), self.layer, self.layer))

    def working_type(self, node: Any) -> str:
        """The float type of a node's first result that has one, else of its first operand; float32 without any."""
        kinds = (self.metas[name].dtype for name in (*node.output, *node.input) if name in self.metas)
        return next((kind for kind in kinds if kind in ("float16", "bfloat16", "float32")), "float32")

    def declare(self, name: str, shape: tuple[int, ...]) -> None:
        """A result whose shape inference left open, of the type that the node works in."""
        self.metas.setdefault(name, Meta(shape, self.dtype))

    def stored_codes(self, node: Any) -> None:
        """A stored integer tensor cast to numbers, which operators behind it scale: still codes of its type."""
        source, output = str(node.input[0]), str(node.output[0])
        self.metas.setdefault(output, Meta(self.shape(source)))
        bits, signed = CODES[self.known.types[source]]
        self.quantizer(output, Ref(source), Affine(bits, signed, np.zeros(1)), of_weight=True)

    def quantizer_of(self, name: str) -> str:
        """The quantizer whose codes a stored tensor's numbers are, looked at in another order or not; "" for none."""
        makers = {output: node for node in self.patterns.nodes for output in node.output}
        while name not in self.coded and name in makers and makers[name].op_type in (*VIEWS, *MOVEMENT):
            name = makers[name].input[0]
        return self.coded.get(name, "")

    def moved_codes(self, node: Any, quantizer: str) -> None:
        """Stored codes in other places, known ahead (rows of a table of positions, say): stored codes of that width."""
        output = str(node.output[0])
        shape, name = self.shape(output), f"{self.layer}.moved"
        codes = self.quantizers[quantizer]
        source = self.fresh(f"{output}.codes", shape)
        self.constants[source] = source
        self.quantizers[name] = dataclasses.replace(codes, module=name)
        self.coded[output] = name
        self.ops.append(Op(QUANTIZER, {"x": Ref(source), "name": name}, (output,), self.layer, self.layer))

    # -- codes ---------------------------------------------------------------------------------------------------------

    def affine(self, node: Any, scale: int, zero: int, source: str) -> Affine:
        """Codes by the scale and zero point among a node's inputs; `source`: the integer tensor, where there is one."""
        kind = self.code_type(node, zero, source)
        scales = math.prod(self.shape(node.input[scale])) if self.has(node, scale) else 1
        options = self.options(node)
        block, axis = int(options.get("block_size", 0)), int(options.get("axis", 1))
        if node.op_type in QUANTIZERS and self.has(node, scale) and (block or scales > 1):
            self.require_scales(node, self.shape(node.input[scale]), block, axis)
        if kind in SMALL_FLOATS:
            form = self.float_format(kind, node.input[scale], scales, block)
            return Affine(SMALL_FLOATS[kind], True, np.zeros(1), max(1, scales), form, axis)
        bits, signed = (32, True) if kind == "int32" else CODES[kind]
        zeros = self.zero_points(node, zero)
        if block:
            return Affine(
                bits, signed, zeros, max(1, scales), self.block_format(bits, node.input[scale], zeros, block), axis
            )
        return Affine(
            bits, signed, zeros, max(1, scales), axis=axis,
            beside_floats=self.step_format(bits, node.input[scale], scales, zeros) if self.has(node, scale) else None,
        )  # fmt: skip

    def require_scales(self, node: Any, scales: tuple[int, ...], block: int, axis: int) -> None:
        """Raises WorkloadError unless there is a scale for each index of the axis, or for each block along it."""
        shape = self.shape(node.input[0])
        rank = len(shape)
        if not -rank <= axis < rank:
            raise self.refuse(f"axis {axis} of an array with {rank} axes: expected {-rank} to {rank - 1}")
        if block < 0:
            raise self.refuse(f"block_size {block}: expected 1 or more, or 0 for none")
        place = axis % rank
        if block:
            wanted = (*shape[:place], -(-shape[place] // block), *shape[place + 1 :])
            right, each = scales == wanted, f"block of {block} along axis {place}"
        else:
            wanted, each = (shape[place],), f"index of axis {place}"
            right = math.prod(scales) == shape[place]
        if not right:
            raise self.refuse(f"scales of shape {scales} for codes of shape {shape}: expected {wanted}, one per {each}")
        self.require_outside_sums(node, place, block)

    def require_outside_sums(self, node: Any, place: int, block: int) -> None:
        """Raises WorkloadError where a product reads these codes as weights and their scales differ from value to value
        of a sum: blocks along the outputs, or a scale for each input channel."""
        rank = len(self.shape(node.input[0]))
        for reader in self.file_nodes:
            if node.output[0] not in list(reader.input)[1:2] or reader.op_type not in ("MatMul", "Gemm", "Conv"):
                continue
            turned = reader.op_type == "Conv" or bool(self.options(reader).get("transB", 0))
            inner = 1 if turned else rank - 2
            if rank > 1 and (place == inner) != bool(block):
                raise self.refuse(
                    f"its scales differ from value to value of the sums of {reader.op_type} {reader.output[0]!r}, "
                    f"which no machine here multiplies: expected blocks along axis {inner}, or a scale for each output"
                )

    def block_format(self, bits: int, scale: str, zeros: Numbers | None, block: int) -> Format:
        """Integers with a scale, and perhaps a zero point, for every `block` of them."""
        offset = "code" if zeros is not None and np.any(zeros) else ""
        return Format("int", bits, "group", block, self.scale_type(scale)[0], offset)

    def step_format(self, bits: int, scale: str, scales: int, zeros: Numbers | None) -> Format | None:
        """Integers with a scale, and perhaps a zero point, for each channel, as weights beside floats are stored."""
        offset = "code" if zeros is not None and np.any(zeros) else ""
        if (scales < 2 and not offset) or bits > MAX_BITS:
            return None
        return Format("int", bits, "channel" if scales > 1 else "tensor", 0, self.scale_type(scale)[0], offset)

    def float_format(self, kind: str, scale: str, scales: int, block: int) -> Format:
        """A small float with its scales: for the tensor, each channel, or every `block` of them."""
        element = ELEMENTS.get(kind)
        if element is None:
            known = ", ".join(name for name in SMALL_FLOATS if name in ELEMENTS)
            raise self.refuse(f"{kind} is an element that no machine here multiplies; known: {known}")
        name, beside = self.scale_type(scale)
        sharing: Sharing = "group" if block else "channel" if scales > 1 else "tensor"
        return Format(element, SMALL_FLOATS[kind], sharing, block, name, "", beside if block else "")

    def scale_type(self, name: str) -> tuple[str, str]:
        """(format of the scales, of the tensor's scale that multiplies them): behind a Cast from a small float, and a
        Mul with one number, the scales are stored as that float, which the standard does not take as they are."""
        node, beside = self.producers.get(name), ""
        if node is not None and node.op_type == "Mul":
            parts = [i for i in node.input if i in self.producers and self.producers[i].op_type == "Cast"]
            if len(parts) == 1:
                node, beside = self.producers[parts[0]], "fp32"
        kind = self.known.types.get(node.input[0] if node is not None and node.op_type == "Cast" else name, "float")
        return (SCALE_TYPES[kind], beside) if kind in ("float8e8m0", "float8e4m3fn") else (
            SCALE_TYPES.get(self.known.types.get(name, "float"), "fp32"), ""
        )  # fmt: skip

    @cached_property
    def producers(self) -> dict[str, Any]:
        """The file's node behind each tensor, folded ones included."""
        return {name: node for node in self.file_nodes for name in node.output}

    def code_type(self, node: Any, zero: int, source: str) -> str:
        """Element type of the codes: the zero point's, the stored tensor's, or `output_dtype`'s; else uint8, which
        the standard names for QuantizeLinear without any of them."""
        names = [name for name in (node.input[zero] if self.has(node, zero) else "", source) if name]
        kinds = [self.known.types.get(name, "") for name in names]
        wanted = self.options(node).get("output_dtype") if node.op_type == "QuantizeLinear" else None
        if wanted:
            kinds.append(self.known.type_name(int(wanted)))
        found = next((kind for kind in kinds if kind in CODES or kind in SMALL_FLOATS or kind == "int32"), None)
        if found is None and not names and node.op_type == "QuantizeLinear":
            return "uint8"
        if found is None:
            shown = ", ".join(
                f"{name!r} has {kind or 'no known type'}" for name, kind in zip(names, kinds, strict=False)
            )
            raise self.refuse(f"the width of its codes is unknown: {shown}; expected one of {', '.join(CODES)}")
        return found

    def zero_points(self, node: Any, zero: int) -> Numbers | None:
        """The zero points; 0 where the input is absent, None where they are computed from the network's input."""
        if not self.has(node, zero):
            return np.zeros(1)
        name = node.input[zero]
        if name in self.values:
            return self.values[name].astype(np.float64)
        if name not in self.parameters:
            return None
        raise self.refuse(
            f"its zero point {name!r} is a constant whose numbers are not at hand (a missing external file, or "
            "an operator that is not folded): put the file's data beside it, or run it through a simplifier"
        )

    def quantizer(self, output: str, source: Arg, codes: Affine, *, of_weight: bool = False, name: str = "") -> None:
        """A quantizer node of the graph: `output` are codes of `source`."""
        name = name or self.layer
        bits, signed = self.patterns.narrowed.get(output, (codes.bits, codes.signed))
        offset, zero = True, None
        if codes.zeros is not None:
            flat = np.unique(codes.zeros.astype(np.float64).reshape(-1))
            whole = flat.size == 1 and float(flat[0]).is_integer()
            offset, zero = bool(np.any(flat)), int(flat[0]) if whole else None
        if output in self.patterns.offsets:
            offset, zero = True, None
        if not 1 <= bits <= 64:
            raise self.refuse(f"codes of {bits} bits; expected 1 to 64")
        form = codes.format
        if form is not None and not form.is_float:
            form = dataclasses.replace(form, bits=bits)
        alone = codes.beside_floats if of_weight else None
        self.quantizers[name] = Quantization(
            name, bits, signed, offset, codes.scales, of_weight, zero, run_time=codes.zeros is None, format=form,
            beside_floats=alone and dataclasses.replace(alone, bits=bits), axis=codes.axis,
        )  # fmt: skip
        self.coded[output] = name
        self.ops.append(Op(QUANTIZER, {"x": source, "name": name}, (output,), self.layer, self.layer))

    def codes_of(self, node: Any, position: int) -> str:
        """An integer input behind its quantizer (its scale and zero point follow it); codes that have one keep it."""
        source = node.input[position]
        if source in self.coded:
            return source
        made = self.fresh(f"{source}.codes", self.shape(source))
        codes = self.affine(node, position + 1, position + 2, source)
        self.quantizer(made, Ref(source), codes, of_weight=source in self.parameters, name=source)
        if source in self.parameters:
            self.parameters.add(made)
        return made


# Operators on parameters alone whose result may still be codes: parts side by side, scales, offsets.
KEEPING_CODES = ("Concat", "Mul", "Div", "Sub", "Add")
# Operators that change no number, or only which of them are looked at.
VIEWS = frozenset(
    ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Slice", "Identity", "Dropout", "Cast",
     "CastLike", "Split")
)  # fmt: skip


def layer_name(node: Any, number: int) -> str:
    """A node's name as a dotted path; its operator and number where it has none."""
    name = str(node.name).strip("/").replace("/", ".").replace(" ", "_")
    return name or f"{number:03d}_{node.op_type.lower()}"
