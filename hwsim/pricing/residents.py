"""Which activations stay on chip between layers: lifetimes, what memory holds them, and what staying saves.

Mappings are given here; the choice among whole tensors is exact (dynamic programming over the sets alive).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hwsim.errors import HwsimError
from hwsim.machine.packing import words
from hwsim.machine.parts import Accelerator, Memory, Operand
from hwsim.nest.counts import Counts, Kind
from hwsim.network.generation import CACHE
from hwsim.network.layer import Layer, Tensor
from hwsim.pricing.layer import REMEMBERED, TIMED, operand_tensors, price_fused, price_stage
from hwsim.pricing.moves import operand_bits, side_bits
from hwsim.pricing.offsets import offset_cost
from hwsim.pricing.stages import Stage, effective_layer


def residents(stages: tuple[Stage, ...], accelerator: Accelerator, counts: Mapping[str, Counts]) -> frozenset[str]:
    """Tensors that stay in the activation memory between the stage that makes them and the last that reads them.

    A tensor qualifies when every stage that touches it takes it through that memory and its maker spills no partial
    sums to the outermost memory. At every stage the kept tensors, whole and with the border of codes that a reader may
    need around them, and the tiles of all other operands must fit together.
    """
    home = accelerator.activation_memory
    if home is None or home.size_bits is None:
        return frozenset()
    tiles = [stage_tiles(stage, accelerator, home, counts) for stage in stages]
    stays: list[Stay] = []

    @functools.cache
    def paid(index: int, resident: frozenset[str]) -> float:
        stage = stages[index]
        return spent_pj(stage, accelerator, counts.get(stage.layer.name), resident)

    readers: dict[str, list[int]] = defaultdict(list)
    for index, stage in enumerate(stages):
        for name in {t.name for t in stage.inputs}:
            readers[name].append(index)
    for life in lifetimes(stages):
        name = life.tensor.name
        users = readers[name]
        if not life.may_stay or not users:
            continue
        touched = (life.born, *users)
        if all(goes_through(stages[index], name, accelerator, home, counts) for index in touched):
            size = held_bits(home, life.tensor, [stages[index] for index in users], accelerator)
            saving = sum(paid(index, frozenset()) - paid(index, frozenset((name,))) for index in touched)
            stays.append(Stay(name, life.born, life.last, size, saving))
    return choose_resident(stays, tiles, home.size_bits)


def held_bits(home: Memory, tensor: Tensor, readers: Iterable[Stage], accelerator: Accelerator) -> int:
    """Bits that a tensor takes in `home`, whole: its codes, the border around them, its scales."""
    codes = words(held_elements(tensor, readers, accelerator), tensor.bits, home.word_bits, home.packing)
    return (codes - (-tensor.side_bits // home.word_bits)) * home.word_bits


def held_elements(tensor: Tensor, readers: Iterable[Stage], accelerator: Accelerator) -> int:
    """Codes to keep for a tensor: its own, and the widest border that a reader needs around it (`padded_copy`)."""
    borders = [
        offset_cost(stage.layer, accelerator.capabilities).border_codes
        for stage in readers
        if stage.layer.has_macs and stage.layer.inputs[0].name == tensor.name
    ]
    return tensor.elements + max(borders, default=0)


def stage_tiles(stage: Stage, accelerator: Accelerator, home: Memory, counts: Mapping[str, Counts]) -> dict[str, int]:
    """Bits of every tile a stage holds in the activation memory, by tensor (an unfinished output under `+sums`)."""
    if not stage.layer.has_macs:
        return {}
    layer = effective_layer(stage)
    tensors: dict[str, str] = {**operand_tensors(layer)}
    found: dict[str, int] = {}
    for (operand, partial), held in tiles_at(home, layer, accelerator, counts[stage.layer.name]).items():
        name = tensors.get(operand, operand) + ("+sums" if partial else "")
        found[name] = found.get(name, 0) + held
    return found


def tiles_at(home: Memory, layer: Layer, accelerator: Accelerator, counts: Counts) -> dict[tuple[Operand, bool], int]:
    """Bits of every tile that a layer holds in a memory, by operand and whether it holds partial sums."""
    found: dict[tuple[Operand, bool], int] = {}
    for tile in counts.tiles:
        if tile.memory == home.name:
            kind: Kind = "partial" if tile.partial else "final" if tile.operand == "output" else "code"
            bits = operand_bits(layer, accelerator, tile.operand, kind)
            if kind == "partial":
                bits = max(bits, layer.output.bits)
            taken = words(tile.elements, bits, home.word_bits, home.packing) * home.word_bits
            side = math.ceil(tile.elements * side_bits(layer, tile.operand, kind))
            found[tile.operand, tile.partial] = taken - -side // home.word_bits * home.word_bits
    return found


def room_taken(
    home: Memory, layer: Layer, accelerator: Accelerator, counts: Counts, at_home: Collection[Operand]
) -> int:
    """Bits that a layer's tiles take beside the operands that lie in `home` whole: theirs but for partial sums."""
    tiles = tiles_at(home, layer, accelerator, counts)
    return sum(bits for (operand, partial), bits in tiles.items() if partial or operand not in at_home)


def goes_through(
    stage: Stage, tensor: str, accelerator: Accelerator, home: Memory, counts: Mapping[str, Counts]
) -> bool:
    """Whether a stage can take or leave `tensor` in the activation memory instead of the outermost one."""
    if not stage.layer.has_macs:
        return True
    layer = effective_layer(stage)
    mine: list[Operand] = [operand for operand, name in operand_tensors(layer).items() if name == tensor]
    return taken_at(home, accelerator, counts[stage.layer.name], mine)


def taken_at(home: Memory, accelerator: Accelerator, counts: Counts, operands: Collection[Operand]) -> bool:
    """Whether these operands of a layer pass through `home`, outputs finished: they may lie there whole.

    An operand of a fused operator is none of them: it streams and may come from anywhere.
    """
    if "output" in operands and counts.reads(accelerator.outermost.name, "output"):
        return False
    return set(operands) <= {tile.operand for tile in counts.tiles if tile.memory == home.name}


def spent_pj(stage: Stage, accelerator: Accelerator, counts: Counts | None, resident: frozenset[str]) -> float:
    """Memory energy of a stage and what is fused behind it, with these tensors on chip."""
    plain, numbers = stage.numbered
    try:
        return spent(plain, accelerator, counts, frozenset(numbers[name] for name in resident if name in numbers))
    except HwsimError:  # a refusal names the layer
        return spent(stage, accelerator, counts, resident)


@functools.lru_cache(maxsize=REMEMBERED)
def spent(stage: Stage, accelerator: Accelerator, counts: Counts | None, resident: frozenset[str]) -> float:
    """`spent_pj`: stages that differ by names alone share it."""
    costs = [price_stage(stage, accelerator, counts, resident)]
    costs += [price_fused(follower, accelerator, stage, resident) for follower in stage.fused]
    return sum(part.energy_pj for cost in costs for part in cost.parts if part.component not in TIMED)


MAX_STATES = 4096


# --- which tensors exist when -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Life:
    """A tensor between two stages: made at stage `born` (-1: given from outside), last read at `last`."""

    tensor: Tensor
    born: int
    last: int

    @property
    def may_stay(self) -> bool:
        """Whether it may live on chip alone: made here, and no keys or values, which later passes read."""
        return self.born >= 0 and self.tensor.origin != CACHE


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


def peak_activation_bits(stages: Sequence[Stage], without: str = "") -> int:
    """Largest sum of live tensors while any stage runs: its inputs, its output, and what later stages still need;
    those of the origin `without` left out."""
    change = [0] * (len(stages) + 1)
    for life in lifetimes(stages):
        if not without or life.tensor.origin != without:
            change[max(0, life.born)] += life.tensor.size_bits
            change[life.last + 1] -= life.tensor.size_bits
    return max(itertools.accumulate(change[:-1]))


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
