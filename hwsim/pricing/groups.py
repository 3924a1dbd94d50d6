"""Which neighbouring stages may run depth first, and the maps between them along rows and columns.

A stage may join where every line of its output needs a window of lines of each input: convolutions, elementwise
operators, concatenations, pools. What needs a whole map first (squeeze-excite behind its pool, softmax, attention,
linear layers) breaks a group; an operand that is broadcast may come from before the group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from hwsim.machine.parts import Accelerator
from hwsim.nest.lines import Lines, Map, Read
from hwsim.network.layer import ACTIVATION_FUNCTIONS, Layer, Tensor
from hwsim.pricing.offsets import offset_cost
from hwsim.pricing.stages import Stage

ROWS, COLUMNS = 0, 1
AXES = (ROWS, COLUMNS)
PER_ELEMENT = {"add", "sub", "mul", "div", "relu6", "requantize", "batch_norm", *ACTIVATION_FUNCTIONS}
POOLS = {"max_pool", "avg_pool"}


@dataclass(frozen=True)
class Window:
    """What one stage reads of one map along both axes; `whole`: all of it for every line (a broadcast operand)."""

    tensor: Tensor
    stride: tuple[int, int] = (1, 1)
    reach: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    border: bool = False  # the padding stands in memory around the map
    whole: bool = False


def is_map(tensor: Tensor) -> bool:
    """Whether a tensor has rows and columns, in codes that nothing travels with."""
    return len(tensor.shape) == 4 and tensor.format is None and not tensor.run_time


def windows(stage: Stage, accelerator: Accelerator) -> tuple[Window, ...] | None:
    """What a stage reads, line by line; None where it cannot run depth first."""
    layer, output = stage.layer, stage.layer.output
    if not is_map(output) or any(not is_map(f.output) or f.output.shape != output.shape for f in stage.fused):
        return None
    first = convolution(layer, accelerator) if layer.op == "conv" else beside(layer)
    inside = {output.name, *(follower.output.name for follower in stage.fused)}
    found = list(first or ())
    for follower in stage.fused:
        more = elementwise(follower, [t for t in follower.inputs if t.name not in inside])
        if more is None:
            return None
        found += more
    return tuple(found) if first else None


def convolution(layer: Layer, accelerator: Accelerator) -> list[Window] | None:
    """Of a plain convolution: one window. None where its shapes are others', or its border needs biases of its own."""
    x, loops = layer.inputs[0], layer.loops
    if layer.weight_is_activation or len(layer.inputs) != 1 or not is_map(x):
        return None
    if layer.padding_policy == "border_bias" and not accelerator.capabilities.border_bias:
        return None
    reach = layer.reach
    for axis, outputs in ((ROWS, loops.P), (COLUMNS, loops.Q)):
        padded = x.shape[2 + axis] + layer.padding[2 * axis] + layer.padding[2 * axis + 1]
        if outputs != (padded - reach[axis]) // layer.stride[axis] + 1 or outputs != layer.output.shape[2 + axis]:
            return None
    if (x.shape[0], layer.output.shape[0]) != (loops.N, loops.N) or min(layer.padding) < 0:
        return None
    border = offset_cost(layer, accelerator.capabilities).border_codes > 0
    return [Window(x, layer.stride, reach, layer.padding, border)]


def beside(layer: Layer) -> list[Window] | None:
    """Of an operator without MACs of its own."""
    if layer.op in POOLS:
        return pool(layer)
    if layer.op == "concat":
        same = all(is_map(t) and shares_lines(t, layer.output) for t in layer.inputs)
        return [Window(tensor) for tensor in layer.inputs] if same else None
    return elementwise(layer, layer.inputs) if layer.op in PER_ELEMENT else None


def elementwise(layer: Layer, inputs: Iterable[Tensor]) -> list[Window] | None:
    """Of an operator that works element by element; operands of one line and column are broadcast."""
    found: list[Window] = []
    for tensor in inputs:
        if is_map(tensor) and tensor.shape == layer.output.shape:
            found.append(Window(tensor))
        elif tensor.format is None and tensor.elements * lines_of(layer.output) == layer.output.elements:
            found.append(Window(tensor, whole=True))
        else:
            return None
    return found


def lines_of(tensor: Tensor) -> int:
    """Rows times columns."""
    return tensor.shape[2] * tensor.shape[3]


def pool(layer: Layer) -> list[Window] | None:
    """Of a pool; where only the size of its window is known, windows must lie side by side as the shapes tell."""
    x, made = layer.inputs[0], layer.output
    if len(layer.inputs) != 1 or not is_map(x) or x.shape[:2] != made.shape[:2]:
        return None
    if any(layer.kernel):
        return [Window(x, layer.stride, layer.reach, layer.padding)]
    steps = tuple(before // after for before, after in zip(x.shape[2:], made.shape[2:], strict=True))
    exact = all(after * step == before for before, after, step in zip(x.shape[2:], made.shape[2:], steps, strict=True))
    side_by_side = exact and layer.window == steps[0] * steps[1]
    return [Window(x, (steps[0], steps[1]), (steps[0], steps[1]))] if side_by_side else None


def shares_lines(one: Tensor, other: Tensor) -> bool:
    """Equal batch, rows and columns."""
    return (one.shape[0], *one.shape[2:]) == (other.shape[0], *other.shape[2:])


@dataclass(frozen=True)
class Group:
    """Neighbouring stages that run depth first: `maps` in the order they are made, those from before the group first.

    `maker[m]`: position of the stage that makes map m, -1 for one from before. `wholes`: broadcast operands.
    """

    first: int  # place of its first stage in the network
    stages: tuple[Stage, ...]
    maps: tuple[Tensor, ...]
    maker: tuple[int, ...]
    lines: tuple[Lines, Lines]  # rows, columns
    wholes: tuple[Tensor, ...]

    @property
    def end(self) -> int:
        """The place behind its last stage."""
        return self.first + len(self.stages)

    @property
    def images(self) -> int:
        """The batch: images pass one after another."""
        return self.maps[-1].shape[0]

    @cached_property
    def places(self) -> dict[int, int]:
        """Map of every stage, by position."""
        return {stage: place for place, stage in enumerate(self.maker) if stage >= 0}

    @cached_property
    def names(self) -> frozenset[str]:
        """All tensors it touches."""
        return frozenset(tensor.name for tensor in (*self.maps, *self.wholes))

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the stages' layers."""
        return tuple(stage.layer.name for stage in self.stages)

    def elements_per_line(self, place: int) -> int:
        """Channels: codes that a map has in one row of one column."""
        return self.maps[place].shape[1]


def group_of(
    stages: Sequence[Stage],
    first: int,
    end: int,
    read: Sequence[tuple[Window, ...] | None],
    last_reader: dict[str, int],
) -> Group | None:
    """Stages `first` to `end` - 1 as a group; None where they are none.

    `read`: `windows` of every stage of the network. `last_reader`: last stage that reads a tensor; outputs of the
    network have none and are needed to the end.
    """
    made = {stages[place].output.name: place - first for place in range(first, end)}
    entering: dict[str, Tensor] = {}
    wholes: dict[str, Tensor] = {}
    for place in range(first, end):
        for window in read[place] or ():
            name = window.tensor.name
            if window.whole and name in made:
                return None  # the whole map would have to stand first
            if name in made and stages[first + made[name]].output.shape != window.tensor.shape:
                return None
            if name not in made:
                (wholes if window.whole else entering).setdefault(name, window.tensor)
    if any(read[place] is None for place in range(first, end)) or entering.keys() & wholes.keys():
        return None
    maps = (*entering.values(), *(stages[place].output for place in range(first, end)))
    if len({tensor.shape[0] for tensor in maps}) != 1:
        return None
    index = {tensor.name: place for place, tensor in enumerate(maps)}
    seen = {w.tensor.name for place in range(first, end) for w in read[place] or () if not w.whole}
    if any(tensor.name not in seen for tensor in maps[:-1]) or maps[-1].name in seen:
        return None
    leaves = {name for name in made if last_reader.get(name, len(stages)) >= end}
    lines = [axis_lines(axis, maps, index, stages, read, range(first, end), leaves) for axis in AXES]
    maker = (*(-1 for _ in entering), *range(end - first))
    return Group(first, tuple(stages[first:end]), maps, maker, (lines[0], lines[1]), tuple(wholes.values()))


def axis_lines(
    axis: int,
    maps: Sequence[Tensor],
    index: dict[str, int],
    stages: Sequence[Stage],
    read: Sequence[tuple[Window, ...] | None],
    places: range,
    leaves: set[str],
) -> Lines:
    """The group along one axis."""
    reads: list[Read] = []
    before, after = [0] * len(maps), [0] * len(maps)
    for place in places:
        reader = index[stages[place].output.name]
        for window in read[place] or ():
            if window.whole:
                continue
            source = index[window.tensor.name]
            reads.append(Read(reader, source, window.stride[axis], window.reach[axis], window.padding[2 * axis]))
            if window.border:
                before[source] = max(before[source], window.padding[2 * axis])
                after[source] = max(after[source], window.padding[2 * axis + 1])
    extents = tuple(
        Map(tensor.shape[2 + axis], before[place], after[place], tensor.name in leaves)
        for place, tensor in enumerate(maps)
    )
    return Lines(extents, tuple(reads))
