"""Weights that several layers multiply (time steps, modules called again), and what it costs to keep them on chip.

The first of these layers fetches the whole weight before it begins: read once from the outermost memory, written once
where it stays. No other of them reads it outside. Fetching is not overlapped with work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hwsim.machine.parts import Accelerator
from hwsim.network.layer import Layer, Tensor
from hwsim.pricing.latency import port_cycles, port_loads
from hwsim.pricing.layer import LayerCost, Part, memory_parts, static_parts
from hwsim.pricing.moves import Moved, moved_bits, moved_words
from hwsim.pricing.shares import moved_shares
from hwsim.pricing.stages import Stage


@dataclass(frozen=True)
class SharedWeight:
    """A weight and the stages that multiply it first and last."""

    tensor: Tensor
    first: int
    last: int


def shared_weights(stages: Sequence[Stage]) -> tuple[SharedWeight, ...]:
    """Weights that layers with MACs of more than one stage name; those that another operator reads, too, are left out.

    An embedding's table, for one, is read by rows.
    """
    users: dict[str, list[int]] = {}
    tensors: dict[str, Tensor] = {}
    strangers: set[str] = set()
    for index, stage in enumerate(stages):
        for layer in (stage.layer, *stage.fused):
            weight = layer.weight
            if weight is None or layer.weight_is_activation:
                continue
            users.setdefault(weight.name, []).append(index)
            known = tensors.setdefault(weight.name, weight)
            if not layer.has_macs or known != weight:
                strangers.add(weight.name)
    return tuple(
        SharedWeight(tensors[name], mine[0], mine[-1])
        for name, mine in users.items()
        if len(mine) > 1 and name not in strangers
    )


def fetched(stages: Sequence[Stage], resident: Collection[str]) -> dict[int, Layer]:
    """The layers that fetch weights which stay, by their stage."""
    return {w.first: stages[w.first].layer for w in shared_weights(stages) if w.tensor.name in resident}


def fetch_moves(layer: Layer, accelerator: Accelerator) -> tuple[Moved, ...]:
    """A layer's whole weight from the outermost memory to the memory where it stays, scales included."""
    outer, home, tensor = accelerator.outermost, accelerator.activation_memory, layer.weight
    assert home is not None
    assert tensor is not None
    n, side, found = tensor.elements, tensor.side_bits, list[Moved]()
    for memory, reads, writes in ((outer, 1, 0), (home, 0, 1)):
        shares = moved_shares(layer, accelerator, memory, "weight", "code", tensor.bits)
        found.append(moved_words(memory, "weight", "code", tensor.bits, n * reads, n * writes, shares))
        if side:
            found.append(moved_bits(memory, "weight scales", side * reads, side * writes))
    return tuple(found)


def with_fetch(cost: LayerCost, layer: Layer, accelerator: Accelerator) -> LayerCost:
    """The bill of a layer that first fetches its weight to stay: moves, and the time of the slowest port on top."""
    moved = fetch_moves(layer, accelerator)
    cycles = max(port_cycles(port_loads(moved), accelerator, {}).values(), default=0)
    parts = [Part(p.component, f"{p.detail}, fetched to stay", p.energy_pj) for p in memory_parts(moved, accelerator)]
    return dataclasses.replace(
        cost,
        parts=(*cost.parts, *parts, *(static_parts(cycles, accelerator) if cycles else ())),
        moved=(*cost.moved, *moved),
        latency_cycles=cost.latency_cycles + cycles,
        cycles=(*cost.cycles, *((("weight fetch", cycles),) if cycles else ())),
    )


def fetch_cost(layer: Layer, accelerator: Accelerator) -> tuple[float, float]:
    """(pJ, cycles) that `with_fetch` adds."""
    bare = with_fetch(LayerCost("", (), 0, (), "", ()), layer, accelerator)
    return bare.total_energy_pj, float(bare.latency_cycles)
