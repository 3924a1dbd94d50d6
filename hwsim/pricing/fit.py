"""Does the network fit? Weights in a bounded outermost memory, activations where whole tensors may live.

A microcontroller's flash holds weights alone: its activations, inputs and outputs of the network included, must fit
the activation memory at every moment, whole. Nothing is assumed to be streamed from outside or recomputed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from hwsim.errors import InfeasibleMapping
from hwsim.machine.packing import shared_words
from hwsim.machine.parts import Accelerator, Memory
from hwsim.network.layer import Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.moves import parameter_bits
from hwsim.pricing.residents import lifetimes
from hwsim.pricing.shares import stored_share
from hwsim.pricing.stages import Stage, fuse


@dataclass(frozen=True)
class Overflow:
    """A memory that the network does not fit: what it needs, what there is, and the largest tensors."""

    memory: str
    what: str  # weights, activations, or both
    need_bits: int
    room_bits: int
    largest: tuple[tuple[str, int], ...]  # (tensor, bits), largest first

    def __str__(self) -> str:
        tensors = ", ".join(f"{name} {bits / 8:,.0f} B" for name, bits in self.largest)
        need, room = f"{self.need_bits / 8:,.0f} B", f"{self.room_bits / 8:,.0f} B"
        if need == room:
            need, room = f"{self.need_bits:,} b", f"{self.room_bits:,} b"
        return (
            f"{self.what} need {need}, {self.memory} holds {room} "
            f"({self.need_bits / self.room_bits:.2f} times as much as there is); the largest: {tensors}"
        )


def overflows(workload: Workload, accelerator: Accelerator) -> tuple[Overflow, ...]:
    """Every bounded memory that the whole network exceeds, from the codes' packed sizes; empty where it fits."""
    outer, home = accelerator.outermost, accelerator.activation_memory
    stages = fuse(workload, accelerator.capabilities)
    weights = weight_sizes(workload, accelerator)
    inside = activations_inside(accelerator)
    found: list[Overflow] = []
    if outer.total_bits is not None:
        alive = {} if inside else fullest_moment(stages, outer)
        need = sum(weights.values()) + sum(alive.values())
        found += over(outer.name, "weights" if inside else "weights and activations", need, outer.total_bits,
                      {**weights, **alive})  # fmt: skip
    if inside and home is not None and home.size_bits is not None:
        alive = fullest_moment(stages, home)
        found += over(home.name, "activations", sum(alive.values()), home.size_bits, alive)
    return tuple(found)


def activations_inside(accelerator: Accelerator) -> bool:
    """Whether activations must fit on chip, because the outermost memory may not hold them."""
    return not {"input", "output"} <= set(accelerator.outermost.stores)


def over(memory: str, what: str, need: int, room: int, sizes: dict[str, int]) -> list[Overflow]:
    """The overflow, where there is one."""
    largest = tuple(sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:3])
    return [Overflow(memory, what, need, room, largest)] if need > room else []


def weight_sizes(workload: Workload, accelerator: Accelerator) -> dict[str, int]:
    """Bits of every layer's weights, packed as the outermost memory packs, with its scales, offsets and biases."""
    outer = accelerator.outermost
    found: dict[str, int] = {}
    for layer in workload:
        if layer.weight is not None and not layer.weight_is_activation:
            found.setdefault(layer.weight.name, stored_weight_bits(layer.weight, outer))
        parameters = parameter_bits(layer, accelerator.capabilities)
        if parameters:
            found[f"parameters of {layer.name}"] = parameters
    return found


def fullest_moment(stages: Sequence[Stage], memory: Memory) -> dict[str, int]:
    """Bits of the tensors that are alive while the stage runs at which they take most."""
    lives = [(life, packed(life.tensor, memory)) for life in lifetimes(stages)]
    moments = [{x.tensor.name: bits for x, bits in lives if x.born <= i <= x.last} for i in range(len(stages))]
    return max(moments, key=lambda alive: sum(alive.values()))


def stored_weight_bits(weight: Tensor, outer: Memory) -> int:
    """Bits that a weight takes in the outermost memory, compressed where that says so."""
    return packed(weight, outer, stored_share(outer, "weight", weight.bits))


def packed(tensor: Tensor, memory: Memory, share: Fraction = Fraction(1)) -> int:
    """Bits that a whole tensor takes in a memory; `share`: of its codes once compressed."""
    side_words = -(-tensor.side_bits // memory.word_bits)
    return codes_bits(tensor.elements, tensor.bits, memory, share) + side_words * memory.word_bits


def codes_bits(elements: int, bits: int, memory: Memory, share: Fraction) -> int:
    """Bits that codes take in a memory, in whole words; `share`: of them once compressed."""
    return shared_words(elements, bits, memory.word_bits, memory.packing, share) * memory.word_bits


def require_fit(workload: Workload, accelerator: Accelerator) -> None:
    """Raises InfeasibleMapping naming every memory that the network exceeds, by how much, and the way out."""
    found = overflows(workload, accelerator)
    if found:
        raise InfeasibleMapping(
            f"{workload.name} does not fit {accelerator.name}: "
            + "; ".join(map(str, found))
            + ": use fewer bits or a smaller network, or price it all the same with --allow-overflow"
        )
