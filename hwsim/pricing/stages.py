"""From layers to stages: what runs on the way out of the MAC array, which tensors exist when, which stay on chip.

A stage is a MAC layer with the operators fused behind it, or one operator of its own. Tensors inside a stage never
reach a memory. The tensors that stay between layers are chosen to save most energy among all choices that fit: an
exact dynamic programme over the order of execution, so smaller tensors never lead to a worse choice.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hwsim.machine import Capabilities
from hwsim.workload import ACTIVATION_FUNCTIONS, Layer, Tensor, Workload, activation_inputs

GROUP_OF: dict[str, str] = {
    "requantize": "requantize",
    "batch_norm": "normalization",
    **dict.fromkeys(("add", "sub", "mul"), "elementwise"),
    **dict.fromkeys(ACTIVATION_FUNCTIONS, "activation"),
}
MAX_STATES = 4096


@dataclass(frozen=True)
class Stage:
    """A layer and the operators fused behind it, in order. `layer` writes what the last of them puts out."""

    layer: Layer
    fused: tuple[Layer, ...] = ()

    @property
    def output(self) -> Tensor:
        """The tensor that leaves the stage."""
        return self.fused[-1].output if self.fused else self.layer.output

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Activations that enter the stage, those of fused operators included."""
        inside = {self.layer.output.name, *(follower.output.name for follower in self.fused)}
        found = {t.name: t for layer in (self.layer, *self.fused) for t in activation_inputs(layer)}
        return tuple(t for name, t in found.items() if name not in inside)


def effective_layer(stage: Stage) -> Layer:
    """The stage's MAC layer as memories see it: its output has the bits, sign and name of what leaves the stage."""
    last = stage.output
    output = dataclasses.replace(last, shape=stage.layer.output.shape)
    return dataclasses.replace(stage.layer, output=output)


def fuse(workload: Workload, capabilities: Capabilities) -> tuple[Stage, ...]:
    """Stages in order of execution.

    An operator joins the stage that made one of its inputs when the machine fuses its kind, nobody else reads that
    input, the number of elements stays, and its other inputs exist by then.
    """
    readers: dict[str, int] = defaultdict(int)
    for layer in workload:
        for tensor in activation_inputs(layer):
            readers[tensor.name] += 1
    stages: list[Stage] = []
    tail_of: dict[str, int] = {}  # tensor that leaves a MAC stage -> that stage
    made_in: dict[str, int] = {}  # any tensor -> stage that makes it
    for layer in workload:
        host = host_stage(layer, capabilities, readers, tail_of, made_in)
        if host is None:
            stages.append(Stage(layer))
            host = len(stages) - 1
        else:
            tail_of.pop(stages[host].output.name)
            stages[host] = Stage(stages[host].layer, (*stages[host].fused, layer))
        made_in[layer.output.name] = host
        if stages[host].layer.has_macs:
            tail_of[layer.output.name] = host
    return tuple(stages)


def host_stage(
    layer: Layer,
    capabilities: Capabilities,
    readers: Mapping[str, int],
    tail_of: Mapping[str, int],
    made_in: Mapping[str, int],
) -> int | None:
    """The stage that `layer` may join; None when it runs on its own."""
    if GROUP_OF.get(layer.op) not in capabilities.fused:
        return None
    candidates = [t for t in layer.inputs if t.name in tail_of and readers[t.name] == 1]
    candidates = [t for t in candidates if t.elements == layer.output.elements]
    if not candidates:
        return None
    tail = max(candidates, key=lambda t: tail_of[t.name])
    host = tail_of[tail.name]
    others = [t for t in layer.inputs if t.name != tail.name]
    return host if all(made_in.get(t.name, -1) < host for t in others) else None


def effective_workload(workload: Workload, capabilities: Capabilities) -> dict[str, Layer]:
    """MAC layers by name as memories see them: what a mapping search must be given."""
    return {s.layer.name: effective_layer(s) for s in fuse(workload, capabilities) if s.layer.has_macs}


# --- which tensors exist when -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Life:
    """A tensor between two stages: made at stage `born` (-1: given from outside), last read at `last`."""

    tensor: Tensor
    born: int
    last: int


def lifetimes(stages: Sequence[Stage]) -> tuple[Life, ...]:
    """Every tensor that reaches a memory. What nobody reads is the network's output and lives to the end."""
    born: dict[str, int] = {}
    last: dict[str, int] = {}
    tensors: dict[str, Tensor] = {}
    for index, stage in enumerate(stages):
        for tensor in stage.inputs:
            tensors.setdefault(tensor.name, tensor)
            born.setdefault(tensor.name, -1)
            last[tensor.name] = index
        tensors[stage.output.name] = stage.output
        born[stage.output.name] = index
    end = len(stages) - 1
    return tuple(Life(tensor, born[name], last.get(name, end)) for name, tensor in tensors.items())


def peak_activation_bits(stages: Sequence[Stage]) -> int:
    """Largest sum of live tensors while any stage runs: its inputs, its output, and what later stages still need."""
    lives = lifetimes(stages)
    return max(
        sum(life.tensor.size_bits for life in lives if life.born <= index <= life.last) for index in range(len(stages))
    )


# --- which tensors stay on chip ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stay:
    """A tensor that could stay on chip: when, how large, and how much energy it would save."""

    name: str
    born: int
    last: int
    bits: int
    saving_pj: float


def choose_resident(stays: Iterable[Stay], tiles: Sequence[Mapping[str, int]], capacity_bits: int) -> frozenset[str]:
    """The tensors to keep: most energy saved among all choices that fit at every stage.

    At a stage the memory holds each kept live tensor whole, and a tile for every other operand: `tiles[stage]` gives
    the bits of a tile by tensor name (tiles that no tensor replaces under any other name). Exact as long as no more
    than MAX_STATES sets of live tensors compete; beyond that the best are followed. Ties: see `preferred`.
    """
    by_birth: dict[int, list[Stay]] = defaultdict(list)
    for stay in stays:
        if stay.saving_pj > 0 and stay.bits <= capacity_bits:
            by_birth[max(stay.born, 0)].append(stay)
    # live set -> (energy saved, everything kept so far)
    states: dict[frozenset[Stay], tuple[float, frozenset[str]]] = {frozenset(): (0.0, frozenset())}
    for index, stage_tiles in enumerate(tiles):
        for stay in by_birth[index]:
            grown = {
                live | {stay}: (saved + stay.saving_pj, kept | {stay.name}) for live, (saved, kept) in states.items()
            }
            states = {**states, **grown}
        following: dict[frozenset[Stay], tuple[float, frozenset[str]]] = {}
        for live, (saved, kept) in states.items():
            names = {stay.name for stay in live}
            held = sum(stay.bits for stay in live)
            held += sum(bits for name, bits in stage_tiles.items() if name not in names)
            if live and held > capacity_bits:
                continue
            later = frozenset(stay for stay in live if stay.last > index)
            if later not in following or preferred((saved, kept), following[later]):
                following[later] = (saved, kept)
        ranked = sorted(following.items(), key=lambda item: (-item[1][0], sorted(item[1][1])))
        states = dict(ranked[:MAX_STATES])
        states.setdefault(frozenset(), following.get(frozenset(), (0.0, frozenset())))
    return max(states.values(), key=lambda state: state[0])[1]


def preferred(one: tuple[float, frozenset[str]], other: tuple[float, frozenset[str]]) -> bool:
    """Whether a choice saves more; of two that save equally much, whether it keeps the first name they differ in."""
    if one[0] != other[0] or one[1] == other[1]:
        return one[0] > other[0]
    return min(one[1] ^ other[1]) in one[1]
