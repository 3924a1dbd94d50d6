"""ZigZag's workload file: operators by equation, with loop sizes, precisions and sources.

Products become layers with MACs, roles told by membership. `Add` and `Pooling` become vector operators. Padding is
taken where it is stated; without it the rows and columns that the loops read count as real, as they do there.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from hwsim.errors import WorkloadError
from hwsim.network.layer import Layer, Tensor
from hwsim.network.workload import Workload
from hwsim.peers.draft import bare_name
from hwsim.peers.einsum import Einsum, Space, Term, read_einsum
from hwsim.peers.report import TranslationReport
from hwsim.peers.tagged_yaml import Item

KEYS = ("id", "name", "operator_type", "equation", "dimension_relations", "loop_dims", "loop_sizes",
        "operand_precision", "operand_source", "pr_loop_dims", "pr_loop_sizes", "padding")  # fmt: skip
NEEDED = ("id", "operator_type", "equation", "loop_dims", "loop_sizes", "operand_precision")
EQUATION = re.compile(r"(\w+)((?:\[\w+\])+)\s*\+?=\s*(\w+)((?:\[\w+\])+)\s*([*+])\s*(\w+)((?:\[\w+\])+)")
RELATION = re.compile(r"(\w+)\s*=\s*(?:(\d+)\s*\*\s*)?(\w+)\s*\+\s*(?:(\d+)\s*\*\s*)?(\w+)")
MAX_LAYERS, MAX_BOUND = 10_000, 2**32


@dataclasses.dataclass(frozen=True)
class Operator:
    """One entry of the file, checked."""

    place: Item
    id: int
    name: str
    kind: str
    spaces: dict[str, Space]
    output: str
    product: bool
    bounds: dict[str, int]
    bits: dict[str, int]
    sources: dict[str, int]
    padding: dict[str, tuple[int, int]]


def read_workload(tree: Item, name: str, report: TranslationReport) -> tuple[Workload, list[dict[str, str]]]:
    """The network, and per product what its loops are called here. Raises SpecError or WorkloadError."""
    entries = tree.items("a ZigZag workload")
    if not 1 <= len(entries) <= MAX_LAYERS:
        raise tree.error(f"{len(entries)} layers: expected 1 to {MAX_LAYERS:,}")
    operators = [read_operator(item) for item in entries]
    seen: dict[int, Operator] = {}
    names: set[str] = set()
    layers: list[Layer] = []
    dims: list[dict[str, str]] = []
    for operator in operators:
        if operator.id in seen:
            raise operator.place.error(f"id {operator.id} stands twice, first in {seen[operator.id].place.place}")
        unique = operator.name if operator.name not in names else f"{operator.name}_{operator.id}"
        names.add(unique)
        operator = dataclasses.replace(operator, name=unique)
        layers.append(to_layer(operator, seen, dims, report))
        seen[operator.id] = operator
    try:
        return Workload(name, layers), dims
    except WorkloadError as problem:
        raise tree.error(str(problem)) from None


def read_operator(item: Item) -> Operator:
    """One entry. Raises SpecError."""
    keys = item.keys("a layer")
    for key, value in keys.items():
        if key not in KEYS:
            raise value.error(f"layer: unknown key {key!r}; known: {', '.join(KEYS)}")
    for key in NEEDED:
        if key not in keys:
            raise item.error(f"layer: key {key!r} is missing")
    number = keys["id"].integer("id", 0, 10**9)
    name = bare_name(keys["name"].text("name") if "name" in keys else f"Layer{number}", "layer")
    match = EQUATION.fullmatch(keys["equation"].text("equation").replace(" ", ""))
    if match is None:
        raise keys["equation"].error(
            f"equation: expected one such as O[b][k]+=W[k][c]*I[b][c], got {keys['equation'].value!r}"
        )
    dims = [part.text("a loop").upper() for part in keys["loop_dims"].items("loop_dims")]
    sizes = [part.integer("a loop size", 1, MAX_BOUND) for part in keys["loop_sizes"].items("loop_sizes")]
    if len(dims) != len(sizes):
        raise keys["loop_sizes"].error(f"loop_sizes: expected {len(dims)} for {', '.join(dims)}, got {len(sizes)}")
    if len(set(dims)) < len(dims):
        raise keys["loop_dims"].error("loop_dims: expected each loop once")
    relations = read_relations(keys.get("dimension_relations"))
    spaces = {
        name: Space(name, tuple(rank_of(index, relations) for index in re.findall(r"\[(\w+)\]", indexes)))
        for name, indexes in ((match[1], match[2]), (match[3], match[4]), (match[6], match[7]))
    }
    bits = {k: v.integer(f"operand_precision.{k}", 0, 64) for k, v in
            keys["operand_precision"].keys("operand_precision").items()}  # fmt: skip
    sources = {k: v.integer(f"operand_source.{k}", 0, 10**9) for k, v in
               (keys["operand_source"].keys("operand_source") if "operand_source" in keys else {}).items()}  # fmt: skip
    return Operator(
        item,
        number,
        name,
        keys["operator_type"].text("operator_type"),
        spaces,
        match[1],
        match[5] == "*",
        dict(zip(dims, sizes, strict=True)),
        bits,
        sources,
        read_padding(keys),
    )


def read_relations(item: Item | None) -> dict[str, tuple[Term, ...]]:
    """`ix=2*ox+1*fx` as IX -> ((OX, 2), (FX, 1))."""
    found: dict[str, tuple[Term, ...]] = {}
    for part in item.items("dimension_relations") if item is not None else ():
        match = RELATION.fullmatch(part.text("a relation").replace(" ", ""))
        if match is None:
            raise part.error(f"dimension_relations: expected one such as ix=2*ox+1*fx, got {part.value!r}")
        found[match[1].upper()] = ((match[3].upper(), int(match[2] or 1)), (match[5].upper(), int(match[4] or 1)))
    return found


def rank_of(index: str, relations: Mapping[str, tuple[Term, ...]]) -> tuple[Term, ...]:
    """One index of an operand."""
    return relations.get(index.upper(), ((index.upper(), 1),))


def read_padding(keys: Mapping[str, Item]) -> dict[str, tuple[int, int]]:
    """Padding per input row and column index, where it is stated."""
    if "padding" not in keys:
        return {}
    if "pr_loop_dims" not in keys:
        raise keys["padding"].error("padding: pr_loop_dims is missing, which names its dimensions")
    names = [part.text("a dimension").upper() for part in keys["pr_loop_dims"].items("pr_loop_dims")]
    found: dict[str, tuple[int, int]] = {}
    pairs = keys["padding"].items("padding")
    if len(pairs) != len(names):
        raise keys["padding"].error(f"padding: expected {len(names)} for {', '.join(names)}, got {len(pairs)}")
    for name, pair in zip(names, pairs, strict=True):
        sides = [side.integer("padding", 0, 10_000) for side in pair.items("padding")]
        if len(sides) != 2:
            raise pair.error("padding: expected [before, after]")
        found[name] = (sides[0], sides[1])
    return found


def to_layer(
    operator: Operator, before: Mapping[int, Operator], dims: list[dict[str, str]], report: TranslationReport
) -> Layer:
    """One operator as a layer of ours."""
    name_strangers(operator, before, report)
    output = operator.spaces[operator.output]
    inputs = [space for name, space in operator.spaces.items() if name != operator.output]
    if not operator.product or operator.kind in ("Add", "Pooling"):
        return vector_layer(operator, output, before, report)
    weight = "W" if any(space.name == "W" for space in inputs) else None
    einsum = read_einsum(operator.place, operator.bounds, inputs, output, weight)
    einsum.note_joined(operator.place.place, report)
    dims.append(dict(einsum.dims))
    for key in ("O",):
        if key not in operator.bits:
            raise operator.place.error(f"operand_precision: {key!r} is missing")
    final = operator.bits.get("O_final", operator.bits["O"])
    weight_name = next(name for name, role in einsum.operands.items() if role == "weight")
    input_name = next(name for name, role in einsum.operands.items() if role == "input")
    for name in (weight_name, input_name):
        if not operator.bits.get(name):
            raise operator.place.error(f"operand_precision: bits of {name!r} are missing or 0")
    layer = einsum.layer(
        operator.name, {"weight": operator.bits[weight_name], "input": operator.bits[input_name], "output": final},
        operator.bits["O"],
    )  # fmt: skip
    layer = padded(layer, operator, einsum)
    return connected(layer, operator, input_name, weight_name, before, report)


def name_strangers(operator: Operator, before: Mapping[int, Operator], report: TranslationReport) -> None:
    """Name precisions and sources of what the equation does not have, and sources that no layer above is."""
    place, known = operator.place.place, (*operator.spaces, f"{operator.output}_final")
    for key, given in (("operand_precision", operator.bits), ("operand_source", operator.sources)):
        for name in given:
            if name not in known:
                report.none(place, f"{operator.name}.{key}.{name}", "no operand of its equation")
    for name, source in operator.sources.items():
        if source != operator.id and source not in before:
            text = f"no layer above has the id {source}: taken as an input of the network"
            report.approximated(place, f"{operator.name}.operand_source.{name}", text)


def padded(layer: Layer, operator: Operator, einsum: Einsum) -> Layer:
    """The layer with its stated padding taken off the input's real rows and columns."""
    if not operator.padding:
        return layer
    found = {"P": (0, 0), "Q": (0, 0)}
    for index, sides in operator.padding.items():
        axis = "P" if index.endswith("Y") else "Q"
        found[axis] = sides
    tensor = layer.inputs[0]
    n, c, rows, columns = tensor.shape
    rows, columns = rows - sum(found["P"]), columns - sum(found["Q"])
    if rows < 1 or columns < 1:
        raise operator.place.error("padding: more than the rows or columns that the loops read")
    padding = (*found["P"], *found["Q"])
    return dataclasses.replace(
        layer, inputs=(dataclasses.replace(tensor, shape=(n, c, rows, columns)),), padding=padding
    )


def connected(
    layer: Layer, operator: Operator, input_name: str, weight_name: str, before: Mapping[int, Operator],
    report: TranslationReport,
) -> Layer:  # fmt: skip
    """The layer with its input named after the layer that makes it."""
    source = operator.sources.get(input_name)
    if source is not None and source != operator.id and source in before:
        tensor = tensor_of(before[source], layer.inputs[0], operator, report)
        layer = dataclasses.replace(layer, inputs=(tensor,))
    return layer


def tensor_of(maker: Operator, tensor: Tensor, user: Operator, report: TranslationReport) -> Tensor:
    """The maker's output as it is read; where the widths differ it is another tensor."""
    final = maker.bits.get("O_final", maker.bits.get("O", tensor.bits))
    if final != tensor.bits:
        text = f"reads {tensor.bits} bits of what {maker.name} writes with {final}: taken as a tensor of its own"
        report.approximated(user.place.place, user.name, text)
        return tensor
    return dataclasses.replace(tensor, name=f"{maker.name}.output")


def vector_layer(operator: Operator, output: Space, before: Mapping[int, Operator], report: TranslationReport) -> Layer:
    """Add and Pooling on the vector unit."""
    sizes = operator.bounds
    shape = tuple(math_prod(sizes, rank) for rank in output.ranks)
    final = operator.bits.get("O_final", operator.bits.get("O", 8))
    names = [name for name in operator.spaces if name != operator.output and operator.bits.get(name, 8)]
    window = 1
    for dim, size in sizes.items():
        if dim not in output.dims:
            window *= size
    op = {"Add": "add", "Pooling": "max_pool"}.get(operator.kind)
    if op is None:
        raise operator.place.error(
            f"operator {operator.kind!r} without a product: expected Add or Pooling (others have no counterpart)"
        )
    inputs: list[Tensor] = []
    for name in names:
        space = operator.spaces[name]
        extents = tuple(math_prod(sizes, rank) for rank in space.ranks)
        tensor = Tensor(f"{operator.name}.{name}", extents, operator.bits.get(name, 8))
        source = operator.sources.get(name)
        if source is not None and source != operator.id and source in before:
            tensor = tensor_of(before[source], tensor, operator, report)
        if not any(tensor.name == other.name for other in inputs) or op == "add":
            inputs.append(tensor)
    if op == "max_pool":
        inputs = inputs[:1]
        report.taken(operator.place.place, operator.name, f"pooling over {window} points on the vector unit")
    return Layer(operator.name, op, tuple(inputs), Tensor(f"{operator.name}.output", shape, final),
                 window=window if op == "max_pool" else 1)  # fmt: skip


def math_prod(sizes: Mapping[str, int], rank: tuple[Term, ...]) -> int:
    """Extent of an index: 1 + sum of coefficient * (size - 1)."""
    return 1 + sum(coefficient * (sizes.get(dim, 1) - 1) for dim, coefficient in rank)
