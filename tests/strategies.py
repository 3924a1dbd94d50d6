"""Random small (layer, machine, mapping) triples for comparing closed forms with the walks of `tests.oracles`.

`triple(seed)` is legal by construction: any hierarchy of memories and arrays, bypasses, uneven holds, factors that
divide or not, in time and in space; strides, dilations, groups, linear layers and matrix products.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from collections.abc import Mapping as Mapping_
from dataclasses import dataclass
from typing import Any

from hwsim.machine.parts import OPERANDS, Accelerator, Array, Axis, Capabilities, MacUnit, Memory, Operand, VectorUnit
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal
from hwsim.nest.points import REDUCTION_DIMS
from hwsim.network.layer import DIMS, Layer, Loops, Tensor

BITS = 8
IDLE = VectorUnit(lanes=1024, energy_pj_per_op=0.0, lookup_energy_pj=0.0)
MAX_MACS = 400  # keeps one walk at a few milliseconds


def conv(
    loops: Loops,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    bits: tuple[int, int, int] = (8, 8, 8),
    name: str = "conv",
) -> Layer:
    """An unpadded convolution whose input has exactly the size its loops need; bits of weight, input, output."""
    rows = (loops.P - 1) * stride[0] + (loops.R - 1) * dilation[0] + 1
    columns = (loops.Q - 1) * stride[1] + (loops.S - 1) * dilation[1] + 1
    return Layer(
        name=name,
        op="conv",
        inputs=(Tensor(f"{name}.x", (loops.N, loops.G * loops.C, rows, columns), bits[1]),),
        output=Tensor(f"{name}.y", (loops.N, loops.G * loops.K, loops.P, loops.Q), bits[2]),
        weight=Tensor(f"{name}.w", (loops.G * loops.K, loops.C, loops.R, loops.S), bits[0]),
        loops=loops,
        stride=stride,
        dilation=dilation,
    )


def product(loops: Loops, op: str = "linear", bits: tuple[int, int, int] = (8, 8, 8), name: str = "fc") -> Layer:
    """A linear layer, or a matrix product of two activations, with loops N, G, K, C, P."""
    return Layer(
        name=name,
        op=op,
        inputs=(Tensor(f"{name}.x", (loops.N, loops.G, loops.P, loops.C), bits[1]),),
        output=Tensor(f"{name}.y", (loops.N, loops.G, loops.P, loops.K), bits[2]),
        weight=Tensor(f"{name}.w", (loops.G, loops.K, loops.C), bits[0]),
        loops=loops,
        weight_is_activation=op == "matmul",
    )


def machine(
    *hierarchy: Memory | Array,
    latches: tuple[Operand, ...] = (),
    energy_pj: float = 1.0,
    name: str = "machine",
    accumulator_bits: int = 32,
    vector: VectorUnit = VectorUnit(lanes=1, energy_pj_per_op=1.0, lookup_energy_pj=1.0),  # noqa: B008
    fused: tuple[str, ...] = ("activation", "requantize"),
) -> Accelerator:
    """An accelerator of these nodes around a fixed 8-bit MAC that can do everything."""
    anything = tuple(range(1, 65))
    return Accelerator(
        name=name,
        clock_mhz=100.0,
        node_nm=65.0,
        hierarchy=hierarchy,
        mac=MacUnit("fixed", 8, 8, accumulator_bits, energy_pj, latches=latches),
        vector=vector,
        capabilities=Capabilities(anything, anything, anything, fused=fused),
    )


# --- instances small enough to list every nest: all codes and words have BITS bits ------------------------------------


def word_machine(
    *hierarchy: Memory | Array,
    latches: tuple[Operand, ...] = (),
    vector: VectorUnit = IDLE,
    fused: tuple[str, ...] = ("activation", "requantize"),
) -> Accelerator:
    """A machine whose partial sums are one word wide, and whose vector unit costs nothing unless another is given."""
    return machine(*hierarchy, latches=latches, accumulator_bits=BITS, vector=vector, fused=fused)


def word_memory(
    name: str, words: int | None, keeps: tuple[Operand, ...], read_pj: float, write_pj: float, **ports: Any
) -> Memory:
    """A memory of so many words (None: unlimited); `ports`: bypass, bandwidths, buffering."""
    size = None if words is None else words * BITS
    return Memory(name, size, keeps, word_bits=BITS, read_energy_pj=read_pj, write_energy_pj=write_pj, **ports)


def word_conv(loops: Loops, stride: int = 1, dilation: int = 1) -> Layer:
    """An unpadded convolution of one word per code and per partial sum."""
    found = conv(loops, (stride, stride), (dilation, dilation), (BITS, BITS, BITS), "small")
    return dataclasses.replace(found, accumulator_bits=BITS)


def drawn_conv(
    rng: random.Random,
    draw: Callable[[], Mapping_[str, int]],
    fits: Callable[[Loops], bool] = lambda _: True,
    strides: tuple[int, ...] = (1, 1, 2),
    dilations: tuple[int, ...] = (1, 1, 2),
) -> Layer:
    """A convolution of the bounds that `draw` gives, drawn again until they fit; then its stride and dilation."""
    while not fits(loops := Loops(**{**dict.fromkeys(DIMS, 1), **draw()})):
        pass
    stride = rng.choice(strides)
    return word_conv(loops, stride, rng.choice(dilations) if dilations else 1)


def primes(n: int) -> list[int]:
    """Prime factors with multiplicity, of numbers without a prime factor above 7."""
    found: list[int] = []
    for p in (2, 3, 5, 7):
        while n % p == 0:
            found.append(p)
            n //= p
    return found


def prime_factors(loops: Loops) -> int:
    """How many prime factors all bounds have together: what the number of nests grows with."""
    return sum(len(primes(n)) for n in loops.as_tuple())


# --- layers, machines and mappings of any kind ------------------------------------------------------------------------


def random_layer(rng: random.Random) -> Layer:
    """A small layer of at most MAX_MACS products; a third are convolutions of long rows, where tiles overlap most."""
    kind = rng.choice(("conv", "conv", "rows", "rows", "linear", "matmul"))
    largest = {"N": 2, "G": 3, "K": 7, "C": 7, "P": 7, "Q": 6, "R": 4, "S": 4}
    dims: tuple[str, ...] = DIMS if kind == "conv" else ("N", "G", "K", "C", "P")
    used = list(rng.sample(dims, k=rng.randint(2, len(dims))))
    if kind == "rows":
        largest |= {"P": 14, "R": 7, "K": 3, "Q": 3}
        used = ["P", "R", *rng.sample(("K", "C", "Q"), k=rng.randint(0, 2))]
    bounds = dict.fromkeys(DIMS, 1)
    for dim in used:
        bounds[dim] = rng.randint(1, largest[dim])
    while Loops(**bounds).macs > MAX_MACS:
        dim = rng.choice(used)
        bounds[dim] = max(1, bounds[dim] - 1)
    if kind in ("linear", "matmul"):
        return product(Loops(**bounds), kind)
    stride = (rng.choice((1, 1, 2, 3)), rng.choice((1, 1, 2, 3)))
    return conv(Loops(**bounds), stride, (rng.choice((1, 1, 2, 3)), rng.choice((1, 1, 2))))


def random_machine(rng: random.Random) -> Accelerator:
    """DRAM and up to four memories and two arrays below it; sizes unlimited."""
    nodes: list[Memory | Array] = [Memory("dram", None, OPERANDS)]
    kinds = ["memory"] * rng.randint(0, 4) + ["array"] * rng.choice((0, 1, 1, 2, 2))
    rng.shuffle(kinds)
    for index, kind in enumerate(kinds):
        if kind == "array":
            reduction = rng.random() < 0.8
            dims = tuple(d for d in DIMS if reduction or d not in REDUCTION_DIMS)
            axes = tuple(Axis(f"axis{i}", 64, dims) for i in range(rng.randint(1, 2)))
            nodes.append(Array(f"array{index}", axes, reduction=reduction, multicast=rng.random() < 0.7))
        else:
            keeps = tuple(rng.sample(OPERANDS, k=rng.randint(1, 3)))
            bypass = tuple(o for o in keeps if rng.random() < 0.3)
            nodes.append(Memory(f"memory{index}", None, keeps, bypass))
    latches = tuple(o for o in OPERANDS if rng.random() < 0.35)
    return machine(*nodes, latches=latches)


@dataclass
class Slot:
    """A loop whose factor is still open: where it stands in the nest, and on which axis if it is spatial."""

    dim: str
    place: float
    array: str = ""
    axis: str = ""
    factor: int = 1


def random_mapping(rng: random.Random, layer: Layer, accelerator: Accelerator) -> Mapping:
    """A legal mapping, each dim cut into up to three factors (perhaps imperfect) in random places."""
    skeleton = random_skeleton(rng, accelerator)
    first = sum(isinstance(node, Hold) and node.memory == "dram" for node in skeleton)
    slots: list[Slot] = []
    arrays = [(i, node) for i, node in enumerate(skeleton) if isinstance(node, Array)]
    width = dict.fromkeys((array.name for _, array in arrays), 1)
    for dim, bound in layer.loops.as_dict().items():
        mine: list[Slot] = []
        for _ in range(rng.randint(1, 3)):
            usable = [(i, a) for i, a in arrays if dim in a.axes[0].dims]
            if usable and rng.random() < 0.45:
                place, array = rng.choice(usable)
                mine.append(Slot(dim, place + rng.random() * 0.1, array.name, rng.choice(array.axes).name))
            else:
                # Just before node `place + 1`, behind the loops of an array at `place`.
                mine.append(Slot(dim, rng.randint(first - 1, len(skeleton) - 1) + 0.2 + rng.random() * 0.1))
        slots += cut(rng, bound, sorted(mine, key=lambda slot: -slot.place), width, first)
    items: list[tuple[float, Node]] = [(i, n) for i, n in enumerate(skeleton) if isinstance(n, Hold)]
    for slot in slots:
        if slot.factor > 1 or rng.random() < 0.05:
            loop = Spatial(slot.dim, slot.factor, slot.array, slot.axis) if slot.array else None
            items.append((slot.place, loop or Temporal(slot.dim, slot.factor)))
    return Mapping(tuple(node for _, node in sorted(items, key=lambda item: item[0])))


def random_skeleton(rng: random.Random, accelerator: Accelerator) -> list[Hold | Array]:
    """Holds and arrays in a legal order: between two arrays the operands' chains interleave freely."""
    skeleton: list[Hold | Array] = [Hold("dram", (operand,)) for operand in OPERANDS]
    chains: dict[Operand, list[str]] = {operand: [] for operand in OPERANDS}
    for node in (*accelerator.hierarchy[1:], None):
        if isinstance(node, Memory):
            for operand in node.keeps:
                if operand not in node.bypass or rng.random() < 0.5:
                    chains[operand].append(node.name)
            continue
        while any(chains.values()):
            operand = rng.choice([operand for operand in OPERANDS if chains[operand]])
            memory = chains[operand].pop(0)
            together = [o for o in OPERANDS if chains[o][:1] == [memory] and rng.random() < 0.5]
            for other in together:
                chains[other].pop(0)
            skeleton.append(Hold(memory, (operand, *together)))
        if node is not None:
            skeleton.append(node)
    return skeleton


def cut(rng: random.Random, bound: int, slots: list[Slot], width: dict[str, int], first: int) -> list[Slot]:
    """Give the loops of one dim (innermost first) factors that cover `bound`, none of them idle throughout."""
    step = 1
    for slot in slots:
        need = -(-bound // step)
        limit = min(need, 12 // width[slot.array]) if slot.array else need
        divisors = [f for f in range(1, limit + 1) if need % f == 0 or f == limit]
        slot.factor = rng.choice(divisors) if rng.random() < 0.4 else rng.randint(1, max(1, limit))
        step *= slot.factor
        if slot.array:
            width[slot.array] *= slot.factor
    if step < bound:
        last = slots[-1]
        if last.array:
            last = Slot(slots[0].dim, first - 1 + 0.2 + rng.random() * 0.1)
            slots = [*slots, last]
        step //= last.factor
        last.factor = -(-bound // step)
    return slots


def triple(seed: int) -> tuple[Layer, Accelerator, Mapping]:
    """The random triple of a seed."""
    rng = random.Random(seed)
    layer, accelerator = random_layer(rng), random_machine(rng)
    return layer, accelerator, random_mapping(rng, layer, accelerator)
