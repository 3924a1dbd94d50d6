"""A mapping: where one layer's operands are held and in which order its loops run on an accelerator.

One nest, outermost first, of three kinds of nodes: `Hold` (from here inwards these operands are kept in that memory),
`Temporal` and `Spatial` loops. Uneven mappings are plain: a memory may be held twice, each operand cut elsewhere.
`validate` says in words why a nest is illegal; `load_mappings` and `dump_mappings` are the YAML form. Factors need not
divide: a loop's step is the product of the same dim's factors inside it and blocks are cut at the layer's bound.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from collections.abc import Mapping as Map
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from hwsim.errors import InfeasibleMapping, SpecError
from hwsim.machine import OPERANDS, Accelerator, Array, Memory, Operand
from hwsim.packing import held_bits
from hwsim.workload import DIMS, Layer

REDUCTION_DIMS: tuple[str, ...] = ("C", "R", "S")


@dataclass(frozen=True)
class Hold:
    """From here inwards `operands` are kept in `memory`."""

    memory: str
    operands: tuple[Operand, ...]


@dataclass(frozen=True)
class Temporal:
    """A sequential loop: `factor` blocks of dim `dim`, one after another."""

    dim: str
    factor: int


@dataclass(frozen=True)
class Spatial:
    """A parallel loop: `factor` blocks of `dim` side by side on one axis of an array."""

    dim: str
    factor: int
    array: str
    axis: str


Loop = Temporal | Spatial
Node = Hold | Temporal | Spatial


@dataclass(frozen=True)
class Mapping:
    """The nest of one layer, outermost node first."""

    nodes: tuple[Node, ...]

    @property
    def loops(self) -> tuple[Loop, ...]:
        """Temporal and spatial loops, outermost first."""
        return tuple(node for node in self.nodes if not isinstance(node, Hold))

    def hold_index(self, memory: str, operand: Operand) -> int | None:
        """Position in `nodes` of the hold of `operand` in `memory`; None where it is bypassed."""
        for index, node in enumerate(self.nodes):
            if isinstance(node, Hold) and node.memory == memory and operand in node.operands:
                return index
        return None

    def tile(self, index: int) -> dict[str, int]:
        """Extent of every dim below position `index`: product of its factors there (may exceed the layer's bound)."""
        extent = dict.fromkeys(DIMS, 1)
        for node in self.nodes[index:]:
            if not isinstance(node, Hold):
                extent[node.dim] *= node.factor
        return extent

    def steps(self) -> tuple[int, ...]:
        """Per node the distance between blocks of its loop: product of same-dim factors inside it; 0 for holds."""
        inside = dict.fromkeys(DIMS, 1)
        found: list[int] = []
        for node in reversed(self.nodes):
            if isinstance(node, Hold):
                found.append(0)
            else:
                found.append(inside[node.dim])
                inside[node.dim] *= node.factor
        return tuple(reversed(found))

    def __str__(self) -> str:
        return describe(self)


# --- operands as products of one-dimensional point sets -------------------------------------------------------------


@dataclass(frozen=True)
class Rank:
    """One index of an operand: sum of coefficient * loop variable over `terms` (input rows: stride*P + dilation*R)."""

    terms: tuple[tuple[str, int], ...]

    @property
    def dims(self) -> tuple[str, ...]:
        """The loop names in it."""
        return tuple(dim for dim, _ in self.terms)


def operand_ranks(layer: Layer, operand: Operand) -> tuple[Rank, ...]:
    """The ranks of an operand; each dim is in at most one of them. Input points live in the padded index space."""
    return ranks_of(operand, layer.stride, layer.dilation)


@lru_cache(maxsize=1024)
def ranks_of(operand: Operand, stride: tuple[int, int], dilation: tuple[int, int]) -> tuple[Rank, ...]:
    """`operand_ranks` by geometry alone."""
    if operand == "weight":
        return tuple(Rank(((dim, 1),)) for dim in ("G", "K", "C", "R", "S"))
    if operand == "output":
        return tuple(Rank(((dim, 1),)) for dim in ("N", "G", "K", "P", "Q"))
    rows = Rank((("P", stride[0]), ("R", dilation[0])))
    columns = Rank((("Q", stride[1]), ("S", dilation[1])))
    return (Rank((("N", 1),)), Rank((("G", 1),)), Rank((("C", 1),)), rows, columns)


def relevant_dims(operand: Operand) -> tuple[str, ...]:
    """Dims that index the operand; every other loop reuses it."""
    return tuple(dim for rank in ranks_of(operand, (1, 1), (1, 1)) for dim in rank.dims)


def rank_points(rank: Rank, extent: Map[str, int]) -> int:
    """Distinct points of a rank's tile, holes of strides and dilations not counted.

    |{a*i + b*j : i < m, j < n}| = m*n - max(0, m - b/g) * max(0, n - a/g) with g = gcd(a, b): (i, j) and
    (i + b/g, j - a/g) are the same point.
    """
    if len(rank.terms) == 1:
        return extent[rank.terms[0][0]]
    (first, a), (second, b) = rank.terms
    m, n, g = extent[first], extent[second], math.gcd(a, b)
    return m * n - max(0, m - b // g) * max(0, n - a // g)


def tile_elements(layer: Layer, operand: Operand, extent: Map[str, int]) -> int:
    """Elements of the operand's largest tile when every dim spans `extent` (cut at the layer's bounds)."""
    bounds = layer.loops.as_dict()
    cut = {dim: min(extent[dim], bounds[dim]) for dim in DIMS}
    return math.prod(rank_points(rank, cut) for rank in operand_ranks(layer, operand))


# --- what is legal --------------------------------------------------------------------------------------------------


def validate(mapping: Mapping, layer: Layer, accelerator: Accelerator) -> list[str]:
    """Every rule the mapping breaks, in words; empty when it is legal.

    Capacity is checked last, once the nest itself makes sense. `size_bits` is the capacity usable for tiles: a double
    buffer's second half is not taken from it.
    """
    problems = [
        *hold_problems(mapping, accelerator),
        *spatial_problems(mapping, accelerator),
        *factor_problems(mapping, layer),
    ]
    return problems or capacity_problems(mapping, layer, accelerator)


def check(mapping: Mapping, layer: Layer, accelerator: Accelerator) -> None:
    """Raise InfeasibleMapping with all violations where `validate` finds any."""
    problems = validate(mapping, layer, accelerator)
    if problems:
        raise InfeasibleMapping(
            "\n".join(f"layer {layer.name} on {accelerator.name}: {problem}" for problem in problems)
        )


def hold_problems(mapping: Mapping, accelerator: Accelerator) -> Iterator[str]:
    """Unknown memories, operands a memory does not keep, holds twice, missing or out of order."""
    memories = {memory.name: memory for memory in accelerator.memories}
    for node in mapping.nodes:
        if isinstance(node, Hold):
            if node.memory not in memories:
                yield f"memory {node.memory!r} does not exist; {accelerator.name} has {', '.join(memories)}"
                continue
            for operand in node.operands:
                if operand not in memories[node.memory].keeps:
                    yield f"{node.memory} does not keep {operand}; it keeps {', '.join(memories[node.memory].keeps)}"
    order = {name: depth for depth, name in enumerate(memories)}
    outermost = accelerator.memories[0].name
    for operand in OPERANDS:
        held = [node.memory for node in mapping.nodes if isinstance(node, Hold) and operand in node.operands]
        depths = [order[name] for name in held if name in order]
        for name in dict.fromkeys(name for name in held if held.count(name) > 1):
            yield f"{operand} is held {held.count(name)} times in {name}; once at most"
        if depths != sorted(depths):
            yield f"{operand} is held in {', '.join(held)}; the hierarchy's order is {', '.join(order)}"
        for memory in accelerator.memories:
            if operand in memory.keeps and operand not in memory.bypass and memory.name not in held:
                yield f"{operand} is not held in {memory.name}, which may not be bypassed for it"
        top = mapping.hold_index(outermost, operand)
        if top is None or any(not isinstance(node, Hold) for node in mapping.nodes[:top]):
            yield f"{operand} must be held in {outermost}, the outermost memory, above every loop"


def spatial_problems(mapping: Mapping, accelerator: Accelerator) -> Iterator[str]:
    """Unknown arrays and axes, dims an axis does not allow, too many elements, loops outside their array's place."""
    arrays = {array.name: array for array in accelerator.arrays}
    for node in mapping.loops:
        if isinstance(node, Spatial) and node.array not in arrays:
            known = ", ".join(arrays) or "none"
            yield f"array {node.array!r} does not exist; {accelerator.name} has {known}"
    depth = {node.name: position for position, node in enumerate(accelerator.hierarchy)}
    for array in accelerator.arrays:
        places = [i for i, node in enumerate(mapping.nodes) if isinstance(node, Spatial) and node.array == array.name]
        if not places:
            continue
        first, last = places[0], places[-1]
        if last - first + 1 != len(places):
            yield f"the loops of array {array.name} must follow each other without other nodes between them"
        for index, node in enumerate(mapping.nodes):
            name = node.memory if isinstance(node, Hold) else node.array if isinstance(node, Spatial) else None
            if name not in depth or name == array.name:
                continue
            if depth[name] < depth[array.name] and index > first:
                yield f"{name} lies above array {array.name} in the hierarchy but below its loops in the mapping"
            elif depth[name] > depth[array.name] and index < last:
                yield f"{name} lies below array {array.name} in the hierarchy but above its loops in the mapping"
        yield from axis_problems(mapping, array)


def axis_problems(mapping: Mapping, array: Array) -> Iterator[str]:
    """What the array's axes do not allow."""
    loops = [node for node in mapping.loops if isinstance(node, Spatial) and node.array == array.name]
    axes = {axis.name: axis for axis in array.axes}
    for loop in loops:
        if loop.axis not in axes:
            yield f"array {array.name} has no axis {loop.axis!r}; it has {', '.join(axes)}"
        elif loop.dim not in axes[loop.axis].dims and loop.factor > 1:
            allowed = ", ".join(axes[loop.axis].dims)
            yield f"{loop.dim} may not be unrolled on {array.name}.{loop.axis}; allowed: {allowed}"
        if loop.dim in REDUCTION_DIMS and loop.factor > 1 and not array.reduction:
            yield f"array {array.name} cannot add across its elements, so {loop.dim} may not be unrolled on it"
    for axis in array.axes:
        mine = [loop for loop in loops if loop.axis == axis.name]
        used = math.prod(loop.factor for loop in mine)
        if used > axis.size:
            yield f"{array.name}.{axis.name} has {axis.size} elements, the mapping needs {used}"
        dims = sorted({loop.dim for loop in mine if loop.factor > 1})
        if axis.max_dims is not None and len(dims) > axis.max_dims:
            yield f"{array.name}.{axis.name} takes at most {axis.max_dims} dims at once, got {', '.join(dims)}"


def factor_problems(mapping: Mapping, layer: Layer) -> Iterator[str]:
    """Bounds not covered, factors below one, loops whose last iteration has nothing to do."""
    bounds = layer.loops.as_dict()
    for loop in mapping.loops:
        if loop.dim not in bounds:
            yield f"{loop.dim!r} is no loop; loops are {', '.join(DIMS)}"
        elif loop.factor < 1:
            yield f"factor of {loop.dim} must be at least 1, got {loop.factor}"
    if any(loop.dim not in bounds or loop.factor < 1 for loop in mapping.loops):
        return
    for dim, covered in mapping.tile(0).items():
        if covered < bounds[dim]:
            yield f"the factors of {dim} multiply to {covered}, the layer needs {bounds[dim]}"
    for node, step in zip(mapping.nodes, mapping.steps(), strict=True):
        if not isinstance(node, Hold) and (node.factor - 1) * step >= bounds[node.dim]:
            needed = -(-bounds[node.dim] // step)
            yield f"loop {node.dim}{node.factor} steps by {step} and needs {needed} iterations, not {node.factor}"


def capacity_problems(mapping: Mapping, layer: Layer, accelerator: Accelerator) -> list[str]:
    """Memories (or their partitions) whose tiles, packed into words, do not fit."""
    problems: list[str] = []
    for memory in accelerator.memories:
        need = tile_bits(mapping, layer, accelerator, memory)
        for name, size, wanted in pools(memory, need):
            total = sum(wanted.values())
            if size is not None and total > size:
                parts = " + ".join(f"{operand} {bits:,}" for operand, bits in wanted.items())
                problems.append(
                    f"{name} holds {size:,} bits, its tiles need {total:,} ({parts}; {total / max(size, 1):.3g}x)"
                )
    return problems


def pools(memory: Memory, need: dict[Operand, int]) -> Iterator[tuple[str, int | None, dict[Operand, int]]]:
    """(name, capacity, bits needed by operand) of each partition, then of what the partitions leave to share."""
    shares = dict(memory.partitions)
    for operand, size in shares.items():
        yield f"{memory.name} ({operand})", size, {operand: need.get(operand, 0)}
    left = None if memory.size_bits is None else memory.size_bits - sum(shares.values())
    yield memory.name, left, {operand: bits for operand, bits in need.items() if operand not in shares}


def tile_bits(mapping: Mapping, layer: Layer, accelerator: Accelerator, memory: Memory) -> dict[Operand, int]:
    """Bits that the tile of each operand held in `memory` occupies there, whole words."""
    need: dict[Operand, int] = {}
    for operand in OPERANDS:
        index = mapping.hold_index(memory.name, operand)
        if index is None:
            continue
        partial = operand == "output" and holds_partials(mapping, accelerator, memory.name)
        elements = tile_elements(layer, operand, mapping.tile(index))
        bits = operand_bits(layer, operand)
        if partial:
            bits = accelerator.mac.partial_sum_bits(layer.accumulator_bits_needed())
        need[operand] = held_bits(elements, bits, memory.word_bits, memory.packing)
    return need


def operand_bits(layer: Layer, operand: Operand) -> int:
    """Width of one finished element."""
    weight, input_, output, _ = layer.bits_key()
    return output if operand == "output" else weight if operand == "weight" else input_


def accumulates_only(accelerator: Accelerator, memory: str) -> bool:
    """Whether outputs in `memory` are always accumulators, because no requantizer sits below it.

    Requantization happens beside the array (machine.VectorUnit). So a memory inside the innermost array, and one that
    keeps nothing but outputs below another memory (an accumulator file), never receives finished outputs.
    """
    names = [node.name for node in accelerator.hierarchy]
    place = names.index(memory)
    arrays = [i for i, node in enumerate(accelerator.hierarchy) if isinstance(node, Array)]
    local = bool(arrays) and place > arrays[-1]
    node = accelerator.hierarchy[place]
    return local or (isinstance(node, Memory) and node.keeps == ("output",))


def receives_finals(mapping: Mapping, accelerator: Accelerator, memory: str) -> bool:
    """Whether the last update of an output point in `memory` is its finished, requantized value.

    Not in an accumulator, and not below a spatially unrolled reduction: there every instance has only its share.
    """
    index = mapping.hold_index(memory, "output")
    if index is None or accumulates_only(accelerator, memory):
        return False
    return not any(
        isinstance(node, Spatial) and node.dim in REDUCTION_DIMS and node.factor > 1 for node in mapping.nodes[:index]
    )


def holds_partials(mapping: Mapping, accelerator: Accelerator, memory: str) -> bool:
    """Whether the output tile in `memory` may hold unfinished sums and so needs the accumulator's width.

    True unless every point arrives there exactly once, finished: no reduction loop above the next hold inwards may
    have an output loop inside it, because its wrap brings points back (at a MAC without a latch every step does).
    """
    index = mapping.hold_index(memory, "output")
    if index is None:
        return False
    if not receives_finals(mapping, accelerator, memory):
        return True
    inner = [i for i, n in enumerate(mapping.nodes) if i > index and isinstance(n, Hold) and "output" in n.operands]
    above = [n for n in mapping.nodes[: inner[0] if inner else None] if isinstance(n, Temporal) and n.factor > 1]
    every_step = not inner and "output" not in accelerator.mac.latches
    reduced = False
    for loop in above:
        if loop.dim in REDUCTION_DIMS:
            if every_step:
                return True
            reduced = True
        elif reduced:
            return True
    return False


# --- text and YAML --------------------------------------------------------------------------------------------------


def describe(mapping: Mapping) -> str:
    """The nest as indented text, one node per line."""
    lines: list[str] = []
    depth = 0
    for node in mapping.nodes:
        if isinstance(node, Hold):
            lines.append(f"{'  ' * depth}[{node.memory}: {', '.join(node.operands)}]")
        elif isinstance(node, Temporal):
            lines.append(f"{'  ' * depth}for {node.dim} in {node.factor}")
            depth += 1
        else:
            lines.append(f"{'  ' * depth}parallel {node.dim} in {node.factor} on {node.array}.{node.axis}")
            depth += 1
    return "\n".join(lines)


def dump_mappings(mappings: Map[str, Mapping]) -> str:
    """YAML text of mappings by layer name; `parse_mappings` reads it back to equal objects."""
    lines = ["layers:"]
    for name, mapping in mappings.items():
        lines.append(f"  {quoted(name)}:")
        lines.extend(f"    - {entry}" for entry in entries(mapping))
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A name as a YAML scalar that is always text: double quotes, escapes as in JSON."""
    plain = re.fullmatch(r"[A-Za-z_][\w./-]*", text, re.ASCII) and text.lower() not in YAML_WORDS
    return text if plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")


def entries(mapping: Mapping) -> Iterator[str]:
    """One line per hold and array, each with the temporal loops that follow it."""
    nodes = list(mapping.nodes)
    if nodes and isinstance(nodes[0], Temporal):
        raise SpecError("a mapping must begin with a hold of the outermost memory, not with a loop")
    while nodes:
        head = nodes[0]
        if isinstance(head, Hold):
            text = f"memory: {quoted(head.memory)}, holds: [{', '.join(head.operands)}]"
            nodes = nodes[1:]
        else:
            run = axis_run(nodes)
            axes: dict[str, list[str]] = {}
            for loop in run:
                axes.setdefault(loop.axis, []).append(f"{loop.dim}{loop.factor}")
            inside = ", ".join(f"{quoted(axis)}: [{', '.join(loops)}]" for axis, loops in axes.items())
            text = f"array: {quoted(run[0].array)}, axes: {{{inside}}}"
            nodes = nodes[len(run) :]
        loops = list(itertools.takewhile(lambda node: isinstance(node, Temporal), nodes))
        nodes = nodes[len(loops) :]
        if loops:
            text += f", loops: [{', '.join(f'{n.dim}{n.factor}' for n in loops if isinstance(n, Temporal))}]"
        yield f"{{{text}}}"


def axis_run(nodes: list[Node]) -> list[Spatial]:
    """The leading loops of one array, up to where an axis comes back: what one YAML entry can say in order."""
    run: list[Spatial] = []
    for node in nodes:
        if not isinstance(node, Spatial) or node.array != nodes[0].array:  # type: ignore[union-attr]
            break
        if run and node.axis != run[-1].axis and any(node.axis == other.axis for other in run):
            break
        run.append(node)
    return run


LOOP = re.compile(rf"([{''.join(DIMS)}])([1-9][0-9]{{0,8}})")


def load_mappings(path: str | Path) -> dict[str, Mapping]:
    """Mappings by layer name from a YAML file. Raises SpecError listing every problem with file and line.

    Checks the form only; whether a mapping is legal for a layer on a machine is `validate`'s.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise SpecError(f"{path}: cannot be read as a mapping file: {problem}") from None
    return parse_mappings(text, str(path))


def parse_mappings(text: str, name: str = "mapping") -> dict[str, Mapping]:
    """`load_mappings` on text; `name` stands for the file in messages."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as problem:
        line = problem.problem_mark.line + 1 if problem.problem_mark else 1
        raise SpecError(f"{name}:{line}: not valid YAML: {problem.problem}") from None
    except (yaml.YAMLError, RecursionError) as problem:
        raise SpecError(f"{name}: not valid YAML: {problem}") from None
    reader = MappingReader(name)
    mappings = reader.read(root)
    if reader.problems:
        raise SpecError(reader.problems)
    return mappings


class MappingReader:
    """Turns YAML nodes into mappings and collects every problem with its line."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: list[str] = []

    def read(self, root: yaml.Node | None) -> dict[str, Mapping]:
        """The whole document: `layers: {name: [entry, ...]}`."""
        keys = self.keys(root, "the file", ("layers",), ("layers",)) if root is not None else None
        if keys is None:
            if root is None:
                self.problems.append(f"{self.name}:1: expected 'layers:', found an empty file")
            return {}
        if "layers" not in keys:
            return {}
        layers = self.keys(keys["layers"], "layers", None, ())
        return {
            layer: Mapping(tuple(node for entry in self.items(value, layer) for node in self.entry(entry, layer)))
            for layer, value in (layers or {}).items()
        }

    def entry(self, node: yaml.Node, layer: str) -> list[Node]:
        """One hold or array with the temporal loops that follow it."""
        keys = self.keys(node, layer, ("memory", "holds", "array", "axes", "loops"), ())
        if keys is None:
            return []
        if keys.keys() & {"memory", "holds"} and keys.keys() & {"array", "axes"}:
            self.problem(node, layer, "one entry is either a memory with 'holds' or an array with 'axes', not both")
            return []
        found: list[Node] = []
        if "memory" in keys and "holds" in keys:
            operands = self.operands(keys["holds"], f"{layer}.holds")
            found.append(Hold(self.text(keys["memory"], f"{layer}.memory"), operands))
        elif "array" in keys and "axes" in keys:
            array = self.text(keys["array"], f"{layer}.array")
            for axis, loops in (self.keys(keys["axes"], f"{layer}.axes", None, ()) or {}).items():
                found += [Spatial(d, f, array, axis) for d, f in self.loops(loops, f"{layer}.axes.{axis}")]
        else:
            self.problem(node, layer, "expected 'memory' with 'holds', or 'array' with 'axes'")
        if "loops" in keys:
            found += [Temporal(dim, factor) for dim, factor in self.loops(keys["loops"], f"{layer}.loops")]
        return found

    def loops(self, node: yaml.Node, where: str) -> list[tuple[str, int]]:
        """Loops such as [K4, P7], outermost first."""
        found: list[tuple[str, int]] = []
        for item in self.items(node, where):
            text = self.text(item, where)
            match = LOOP.fullmatch(text)
            if match:
                found.append((match[1], int(match[2])))
            elif text:
                self.problem(
                    item, where, f"expected a loop such as K4 (one of {', '.join(DIMS)}, then its factor)", text
                )
        return found

    def operands(self, node: yaml.Node, where: str) -> tuple[Operand, ...]:
        """A list of weight, input, output."""
        found: list[Operand] = []
        for item in self.items(node, where):
            text = self.text(item, where)
            if text in found:
                self.problem(item, where, "an operand may stand once", text)
            elif text in OPERANDS:
                found.append(text)
            elif text:
                self.problem(item, where, f"expected one of {', '.join(OPERANDS)}", text)
        return tuple(found)

    def text(self, node: yaml.Node, where: str) -> str:
        """A plain scalar; empty, with a problem noted, where there is none."""
        if isinstance(node, yaml.ScalarNode) and node.value:
            return str(node.value)
        self.problem(node, where, "expected a name")
        return ""

    def items(self, node: yaml.Node, where: str) -> list[yaml.Node]:
        """The items of a list."""
        if isinstance(node, yaml.SequenceNode):
            return list(node.value)
        self.problem(node, where, "expected a list")
        return []

    def keys(
        self, node: yaml.Node, where: str, known: tuple[str, ...] | None, needed: tuple[str, ...]
    ) -> dict[str, yaml.Node] | None:
        """Keys and values of a mapping node; unknown, double and missing keys are problems."""
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, where, "expected keys and values")
            return None
        found: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = self.text(key_node, where)
            if key in found:
                self.problem(key_node, where, "a key may stand once", key)
            elif known is not None and key not in known:
                self.problem(key_node, where, f"unknown key; known: {', '.join(known)}", key)
            else:
                found[key] = value
        for key in needed:
            if key not in found:
                self.problem(node, where, f"key {key!r} is missing")
        return found

    def problem(self, node: yaml.Node, where: str, expectation: str, value: str | None = None) -> None:
        """Note one problem with its place."""
        got = "" if value is None else f", got {value!r}"
        self.problems.append(f"{self.name}:{node.start_mark.line + 1}: {where}: {expectation}{got}")
