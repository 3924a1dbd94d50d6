"""What is known of an ONNX network before any input arrives: element types, shapes, and the numbers of small constants.

Shapes come from the onnx package's own inference, helped over quantizers and contributed operators that it does not
know; branches with a known condition are taken. Nothing is guessed: a size that stays open is named.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.errors import WorkloadError
from hwsim.frontends.files.onnx_fold import MAX_KNOWN, Numbers, evaluate, outer_reads
from hwsim.frontends.files.onnx_rewrite import CHANNELS_LAST, Rewriting
from hwsim.frontends.files.onnx_shapes import Shape, contributed_shape
from hwsim.frontends.files.onnx_types import CODES, QLINEAR, QUANT_OPS, SMALL_FLOATS, attributes, numpy_name
from hwsim.frontends.lowering.ir import Meta, is_unknown_float
from hwsim.network.layer import MAX_ELEMENTS

MAX_ROUNDS = 50
MAX_NODES = 200_000
MAX_DEPTH = 100  # of functions that call functions
Shapes = Shape | Mapping[str, Shape] | None
RESHAPING = ("Reshape", "Transpose", "Identity", "Cast", "Squeeze", "Unsqueeze", "Flatten")  # keep a parameter's name
# Operators of onnxruntime that its files have in the standard's domain.
OLD_NAMES = ("SimplifiedLayerNormalization",)
# Types of inputs that `--input NAME=NUMBER` may give a value.
WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")


class Known:
    """The graph of a model (local functions written out), and all that is known of its tensors."""

    def __init__(self, path: Path, onnx: Any, model: Any, handled: Container[str]) -> None:
        self.path, self.onnx = path, onnx
        if model.functions:
            model = without_functions(path, model)
        self.model = model
        self.graph: Any = model.graph
        self.types: dict[str, str] = {}  # element type of a tensor as the file has it: int4, float8e4m3fn, float
        self.metas: dict[str, Meta] = {}
        self.constants: dict[str, str] = {}
        self.values: dict[str, Numbers] = {}
        kinds = (*QUANT_OPS, *QLINEAR)
        self.inputs: set[str] = set()
        self.rounded = {name for node in self.graph.node if node.op_type in kinds for name in node.output}
        self.unread = 0
        self.rewriting = Rewriting(self, handled)
        if len(self.graph.node) > MAX_NODES:
            raise WorkloadError(f"{path}: {len(self.graph.node):,} nodes; this version reads up to {MAX_NODES:,}")

    def find(self, shapes: Shapes) -> list[Any]:
        """Fill in all that is known; the network's inputs. Raises WorkloadError where sizes stay open."""
        stored = {tensor.name for tensor in self.graph.initializer}
        stored |= {tensor.values.name for tensor in self.graph.sparse_initializer}
        inputs = [entry for entry in self.graph.input if entry.name not in stored]
        self.inputs = {entry.name for entry in inputs}
        lists = [entry.name for entry in inputs if entry.type.WhichOneof("value") not in (None, "tensor_type")]
        if lists:
            raise WorkloadError(
                f"{self.path}: its input {lists[0]!r} is a list or an optional, whose length the file leaves open: "
                "export the network with tensors as inputs"
            )
        if not inputs:
            raise WorkloadError(f"{self.path}: the network has no input")
        inputs, shapes = self.take_values(inputs, shapes)
        self.close_sizes(inputs, shapes)
        for tensor in self.graph.initializer:
            self.store(tensor)
        for tensor in self.graph.sparse_initializer:
            self.constants[tensor.values.name] = tensor.values.name
            self.metas[tensor.values.name] = Meta(tuple(tensor.dims), self.meta_type(tensor.values.data_type))
        self.infer()
        missing = [entry for entry in inputs if entry.name not in self.metas]
        if missing:
            raise WorkloadError(f"{self.path}: {self.open_sizes(missing)}")
        return inputs

    def store(self, tensor: Any) -> None:
        """An initializer: its shape, its type, and its numbers where they are few and at hand."""
        dims = tuple(tensor.dims)
        if any(n < 0 for n in dims) or math.prod(dims) > MAX_ELEMENTS:
            raise WorkloadError(
                f"{self.path}: initializer {tensor.name!r} has sizes {dims}; expected 0 to 2^40 elements"
            )
        self.constants[tensor.name] = tensor.name
        self.types[tensor.name] = self.type_name(tensor.data_type)
        self.metas[tensor.name] = Meta(dims, self.meta_type(tensor.data_type))
        external = tensor.data_location == self.onnx.TensorProto.EXTERNAL
        if math.prod(dims) > MAX_KNOWN or (external and not self.beside(tensor)):
            self.unread += external
            return
        self.values[tensor.name] = np.asarray(self.onnx.numpy_helper.to_array(tensor, str(self.path.parent)))
        self.unread += external and math.prod(dims) > MAX_KNOWN

    def beside(self, tensor: Any) -> bool:
        """Whether the file with a tensor's numbers lies in the model's folder, and holds them."""
        where = {item.key: item.value for item in tensor.external_data}
        name = where.get("location", "")
        file = self.path.parent / name
        if not name or Path(name).is_absolute() or ".." in Path(name).parts or file.is_symlink() or not file.is_file():
            return False
        try:
            end = int(where.get("offset", "0")) + int(where.get("length", "0"))
        except ValueError:
            return False
        return 0 <= end <= file.stat().st_size

    def take_values(self, inputs: list[Any], shapes: Shapes) -> tuple[list[Any], Shapes]:
        """The inputs and shapes that remain where `shapes` names whole numbers or flags: a number has no sizes, so what
        is given for it is its value, and it is a constant from then on."""
        if shapes is None or isinstance(shapes, tuple):
            return inputs, shapes
        rest = dict(shapes)
        for entry in inputs:
            kind = entry.type.tensor_type
            scalar = kind.HasField("shape") and not dims_of(entry) and len(rest.get(entry.name, ())) == 1
            if scalar and self.type_name(kind.elem_type) in WHOLE:
                dtype = self.onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
                value = np.asarray(rest.pop(entry.name)[0]).astype(dtype)
                self.graph.initializer.append(self.onnx.numpy_helper.from_array(value, entry.name))
                self.graph.input.remove(entry)
                self.inputs.discard(entry.name)
        remaining = [entry for entry in inputs if entry.name in self.inputs]
        if not remaining:
            raise WorkloadError(f"{self.path}: every input has a value: there is nothing to compute")
        return remaining, rest or None

    # -- sizes of the inputs -------------------------------------------------------------------------------------------

    def close_sizes(self, inputs: list[Any], shapes: Shapes) -> None:
        """Give inputs the sizes asked for: one shape for the first input, or shapes by an input's or a size's name."""
        if shapes is None:
            return
        named = {inputs[0].name: shapes} if isinstance(shapes, tuple) else dict(shapes)
        symbols = {symbol_of(d) for entry in inputs for d in dims_of(entry) if symbol_of(d)}
        known = {entry.name: entry for entry in inputs}
        if "" in named:
            named.setdefault(inputs[0].name, named.pop(""))
        chosen: dict[str, int] = {}
        for name, shape in named.items():
            if name in known:
                said = self.fix(known[name], shape)
            elif name in symbols and len(shape) == 1:
                said = [(name, shape[0])]
            else:
                raise WorkloadError(
                    f"{self.path}: --input {name}=...: no input and no size of that name; inputs: "
                    f"{', '.join(self.describe(entry) for entry in inputs)}"
                )
            for symbol, size in said:
                if chosen.setdefault(symbol, size) != size:
                    raise WorkloadError(
                        f"{self.path}: --input {name}={','.join(map(str, shape))}: its size {symbol!r} is one number "
                        f"in the whole network, and another --input says {chosen[symbol]}, this one {size}"
                    )
        for entry in inputs:
            for dim in dims_of(entry):
                if symbol_of(dim) in chosen:
                    dim.dim_value = chosen[symbol_of(dim)]
        del self.graph.value_info[:]
        for output in self.graph.output:
            output.type.tensor_type.ClearField("shape")

    def fix(self, entry: Any, shape: Shape) -> list[tuple[str, int]]:
        """The sizes of one input; what they say about its symbols. Fixed sizes may not be contradicted."""
        if not has_shape(entry):
            for _ in shape:
                entry.type.tensor_type.shape.dim.add()
        dims = dims_of(entry)
        fixed = [d.dim_value for d in dims]
        if len(dims) != len(shape) or any(old > 0 and old != new for old, new in zip(fixed, shape, strict=True)):
            raise WorkloadError(f"{self.path}: its input is {self.describe(entry)}, --input says {shape}")
        symbols = [(symbol_of(dim), size) for dim, size in zip(dims, shape, strict=True) if symbol_of(dim)]
        for dim, size in zip(dims, shape, strict=True):
            dim.dim_value = size
        return symbols

    def describe(self, entry: Any) -> str:
        """Sizes of an input as the file gives them; an open one without a name is `?`, any number of them `...`."""
        if not has_shape(entry):
            return f"{entry.name} (...)"
        sizes = (str(d.dim_value) if is_known(d) else d.dim_param or "?" for d in dims_of(entry))
        return f"{entry.name} ({', '.join(sizes)})"

    def open_sizes(self, entries: list[Any]) -> str:
        """Why inputs cannot be costed yet, and what to write."""
        shown = ", ".join(self.describe(entry) for entry in entries)
        few = "; ".join(f"--input {entry.name}={','.join('N' for _ in dims_of(entry)) or 'N'}" for entry in entries[:3])
        some_open = any(not has_shape(e) or not all(is_known(d) for d in dims_of(e)) for e in entries)
        how = "leaves sizes open" if some_open else "has no elements"
        return f"input {shown} {how}: give them all with {few} (one --input for each such input)"

    # -- inference -----------------------------------------------------------------------------------------------------

    def infer(self) -> None:
        """Declare every tensor's shape, with constants folded and branches taken as far as they are known."""
        twin = self.twin()
        for _ in range(MAX_ROUNDS):
            try:
                shaped = self.onnx.shape_inference.infer_shapes(twin, data_prop=True)
            except Exception as problem:  # inference raises its own errors for graphs that contradict themselves
                line = next((part for part in str(problem).splitlines() if part.strip()), type(problem).__name__)
                raise WorkloadError(f"{self.path}: its shapes contradict each other: {line}") from None
            for entry in (*shaped.graph.input, *shaped.graph.value_info, *shaped.graph.output):
                self.declare(entry)
            progress = self.fold(twin)
            progress = self.contributed(twin) or progress
            progress = self.take_branches(twin) or progress
            if not progress:
                return

    def twin(self) -> Any:
        """The model without its large constants, quantizers as casts and operators on codes as plain ones."""
        twin = type(self.model)()
        self.copy_without_numbers(twin)
        for node in twin.graph.node:
            self.as_plain(node)
        return twin

    def as_plain(self, node: Any) -> None:
        """Turn a node of the twin into what inference knows: a cast, or the operator on numbers of that name."""
        if node.op_type in CHANNELS_LAST and any(item.name == "channels_last" and item.i for item in node.attribute):
            return  # written out with transpositions, once its input's rank is known
        if node.op_type == "FusedConv":
            kept = [item for item in node.attribute if not item.name.startswith("activation")]
            del node.attribute[:]
            node.attribute.extend(kept)
            del node.input[3:]
            node.op_type, node.domain = "Conv", ""
        if node.op_type in QUANT_OPS or node.op_type in QLINEAR:
            kind, positions, _ = QLINEAR.get(node.op_type, ("Identity", (0,), (0, 0)))
            sources = [node.input[i] for i in (positions or range(2, len(node.input), 3)) if i < len(node.input)]
            if kind == "Identity":
                del node.attribute[:]
            del node.input[:]
            node.op_type, node.domain = kind, ""
            node.input.extend(sources)

    def copy_without_numbers(self, twin: Any) -> None:
        """The model with its large initializers declared as inputs: inference needs their shapes only."""
        kept = ("ir_version", "producer_name")
        for name in kept:
            setattr(twin, name, getattr(self.model, name))
        twin.opset_import.extend(self.model.opset_import)
        graph = twin.graph
        graph.name = self.graph.name
        graph.node.extend(self.graph.node)
        for field in ("input", "output", "value_info"):
            getattr(graph, field).extend(getattr(self.graph, field))
        for entry in graph.output:
            if entry.name in self.rounded:  # inference sees the operator on numbers, whose type is another
                entry.type.Clear()
        declared = {entry.name for entry in graph.input}
        for tensor in self.graph.initializer:
            if tensor.name in self.values and self.values[tensor.name].size <= 4096:
                graph.initializer.append(self.onnx.numpy_helper.from_array(self.values[tensor.name], tensor.name))
            elif tensor.name not in declared:
                info = self.onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
                graph.input.append(info)

    def fold(self, twin: Any) -> bool:
        """Compute what depends on known numbers alone; whether anything is new."""
        new = False
        for node in twin.graph.node:
            if all(name in self.values for name in node.output if name):
                continue
            made = self.folded(node)
            for name, array in zip(node.output, made or (), strict=False):
                if name:
                    kept = node.op_type in RESHAPING and node.input[0] in self.constants
                    self.constants.setdefault(name, self.constants[node.input[0]] if kept else name)
                    self.remember(twin, name, array)
                    if kept:
                        self.keep_width(node.input[0], name)
                    new = True
        done = {tensor.name for tensor in twin.graph.initializer}
        kept = [node for node in twin.graph.node if not all(name in done for name in node.output)]
        del twin.graph.node[:]
        twin.graph.node.extend(kept)
        return new

    def folded(self, node: Any) -> list[Numbers] | None:
        """The results of a node where they are known; codes are not, because their quantizer must be seen."""
        if node.output[0] in self.rounded:
            return None
        empty = [name for name in node.output if name and name in self.metas and 0 in self.metas[name].shape]
        if empty and len(empty) == len([name for name in node.output if name]):
            kinds = [self.onnx.TensorProto.DataType.Value(self.types[name].upper()) for name in empty]
            types = [self.onnx.helper.tensor_dtype_to_np_dtype(kind) for kind in kinds]
            made = [np.zeros(self.metas[name].shape, dtype) for name, dtype in zip(empty, types, strict=True)]
            return made if len(empty) == len(node.output) else None
        if node.op_type in ("Shape", "Size") and node.input[0] in self.metas:
            shape = self.metas[node.input[0]].shape
            if node.op_type == "Size":
                return [np.asarray(math.prod(shape), np.int64)]
            options = attributes(node, self.onnx)
            return [np.asarray(shape[slice(options.get("start", 0), options.get("end"))], np.int64)]
        if any(name and name not in self.values for name in node.input) or self.shows_codes(node):
            return None
        return evaluate(
            self.onnx, node, [self.values.get(name) if name else None for name in node.input], self.model.opset_import
        )

    def shows_codes(self, node: Any) -> bool:
        """Whether a node turns a stored integer tensor into numbers: those stay codes, however few they are."""
        if node.op_type != "Cast" or self.types.get(node.input[0]) not in CODES or self.values[node.input[0]].size < 2:
            return False
        target = self.type_name(next(item.i for item in node.attribute if item.name == "to"))
        return target in ("float", "double") or target in SMALL_FLOATS

    def remember(self, twin: Any, name: str, array: Numbers) -> None:
        """A tensor whose numbers are known now."""
        self.values[name] = array
        tensor = self.onnx.numpy_helper.from_array(array, name)
        self.types[name] = self.type_name(tensor.data_type)
        self.metas[name] = Meta(array.shape, self.meta_type(tensor.data_type))
        twin.graph.initializer.append(tensor)

    def keep_width(self, source: str, name: str) -> None:
        """A parameter that is cast to wider floats stays stored in the small ones that the file has."""
        made = {**SMALL_FLOATS, "float32": 32, "float64": 64}.get(self.metas[name].dtype, 0)
        if SMALL_FLOATS.get(self.metas[source].dtype, 64) < made and not is_unknown_float(self.metas[source].dtype):
            self.metas[name] = Meta(self.metas[name].shape, self.metas[source].dtype)

    def contributed(self, twin: Any) -> bool:
        """Shapes of contributed operators that inference does not know, from those of their operands."""
        new = False
        for node in twin.graph.node:
            known = node.domain in ("", "ai.onnx") and node.op_type not in OLD_NAMES
            if known or node.output[0] in self.metas or not node.input:
                continue
            shape = self.contributed_shape(node)
            if shape is not None:
                name = self.working_type(node)
                kind = self.onnx.TensorProto.DataType.Value(name.upper())
                twin.graph.value_info.append(self.onnx.helper.make_tensor_value_info(node.output[0], kind, shape))
                self.metas[node.output[0]] = Meta(tuple(shape), numpy_name(name))
                new = True
        return new

    def working_type(self, node: Any) -> str:
        """The type of a contributed operator's numbers: that of its first operand that has floats."""
        kinds = (self.types.get(name, "") for name in node.input)
        return next((kind for kind in kinds if kind in ("float16", "bfloat16", "float", "double")), "float")

    def contributed_shape(self, node: Any) -> Shape | None:
        """Shape of the first result of a contributed operator; None: not known."""
        shapes = [self.metas[name].shape if name in self.metas else None for name in node.input]
        packed = self.types.get(node.input[0]) == "uint8"  # several codes in a byte
        return contributed_shape(node.op_type, shapes, {**attributes(node, self.onnx), "packed": packed})

    def take_branches(self, twin: Any) -> bool:
        """Write out nodes that stand for others (branches, loops, lists, definitions), where it is known for which;
        whether there was one."""
        found = False
        for graph in (self.graph, twin.graph):
            nodes = list[Any]()
            for node in graph.node:
                taken = self.rewriting.written_out(node)
                if taken is None:
                    nodes.append(node)
                    continue
                kinds = (*QUANT_OPS, *QLINEAR)
                self.rounded.update(name for new in taken[0] if new.op_type in kinds for name in new.output)
                nodes.extend(copy_of(new) for new in taken[0])
                if graph is twin.graph:
                    for new in nodes[len(nodes) - len(taken[0]) :]:
                        self.as_plain(new)
                graph.initializer.extend(taken[1])
                for tensor in taken[1]:
                    self.store(tensor)
                found = True
            if found:
                copies = [copy_of(node) for node in nodes]
                del graph.node[:]
                graph.node.extend(copies)
        return found

    def declare(self, entry: Any) -> None:
        """Remember a tensor's type, and its shape if it has one."""
        tensor = entry.type.tensor_type
        if entry.type.WhichOneof("value") not in (None, "tensor_type"):  # a list of tensors
            return
        self.types.setdefault(entry.name, self.type_name(tensor.elem_type))
        least = 1 if entry.name in self.inputs else 0  # a result may be empty: a part of nothing
        if not tensor.HasField("shape") or any(not is_known(d) or d.dim_value < least for d in tensor.shape.dim):
            return
        shape = tuple(int(d.dim_value) for d in tensor.shape.dim)
        if math.prod(shape) > MAX_ELEMENTS:
            raise WorkloadError(f"{self.path}: tensor {entry.name!r} of shape {shape} has more than 2^40 elements")
        self.metas.setdefault(entry.name, Meta(shape, self.meta_type(tensor.elem_type)))

    def type_name(self, number: int) -> str:
        """An element type as the standard names it, in lower case."""
        try:
            return str(self.onnx.TensorProto.DataType.Name(number)).lower()
        except ValueError:
            raise WorkloadError(f"{self.path}: element type {number} is not one of the ONNX standard") from None

    def meta_type(self, number: int) -> str:
        """numpy's name of an element type; codes count as numbers, because a quantizer says what they are."""
        name = self.type_name(number)
        return "float32" if name in CODES else numpy_name(name)

    def dependent(self, nodes: Iterable[Any], inputs: Iterable[str]) -> frozenset[str]:
        """Tensors that depend on an input, by the file's own wiring; sizes and folded constants do not."""
        found = set(inputs)
        for node in nodes:
            if outer_reads(node) & found and node.op_type not in ("Shape", "Size"):
                found.update(name for name in node.output if name and name not in self.values)
        return frozenset(found)


def symbol_of(dim: Any) -> str:
    """The name of an open size; "" where the file marks it as open by a sign (`?`, `-1`), which names nothing."""
    name = str(dim.dim_param).strip()
    return name if name[:1].isalpha() or name[:1] == "_" else ""


def dims_of(entry: Any) -> list[Any]:
    """The sizes of an input, open ones included."""
    return list(entry.type.tensor_type.shape.dim)


def has_shape(entry: Any) -> bool:
    """Whether the file says how many sizes an input has."""
    return bool(entry.type.tensor_type.HasField("shape"))


def is_known(dim: Any) -> bool:
    """Whether a size is a number."""
    return dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0


def copy_of(node: Any) -> Any:
    """A node of its own, which outlives the graph it was taken from."""
    twin = type(node)()
    twin.CopyFrom(node)
    return twin


def without_functions(path: Path, model: Any) -> Any:
    """The model with its local functions written out. Raises WorkloadError before that would fill the memory."""
    from onnx import inliner

    bodies = {(function.domain, function.name): function.node for function in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def count(nodes: Iterable[Any], above: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in with_inner(nodes):
            key = node.domain, node.op_type
            if key in above:
                raise WorkloadError(f"{path}: function {key[1]} calls itself: functions without an end have no price")
            if key in bodies and key not in sizes:
                if len(above) == MAX_DEPTH:
                    raise WorkloadError(f"{path}: functions call each other more than {MAX_DEPTH} deep")
                sizes[key] = count(bodies[key], (*above, key))
            total += sizes.get(key, 1)
        return total

    total = count(model.graph.node, ())
    if total > MAX_NODES:
        raise WorkloadError(f"{path}: {total:,} nodes with its functions; this version reads up to {MAX_NODES:,}")
    try:
        return inliner.inline_local_functions(model)
    except Exception as problem:  # its own errors, for functions that contradict their calls
        line = next((part for part in str(problem).splitlines() if part.strip()), type(problem).__name__)
        raise WorkloadError(f"{path}: its functions cannot be written out: {line}") from None


def with_inner(nodes: Iterable[Any]) -> Iterator[Any]:
    """Nodes and those of their branches and bodies."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting.extend(graph.node)
