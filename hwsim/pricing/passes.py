"""The bill of a batch that runs as several passes of fewer images, one after the other.

Every entry is the sum over the passes: weights, constants and starts of layers count in each of them. What is held
(weights, area) counts once, and activations of one pass are alive at a time.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from hwsim.machine.parts import Accelerator
from hwsim.network.workload import Workload
from hwsim.pricing.layer import LayerCost, Part
from hwsim.pricing.moves import Moved
from hwsim.pricing.network import NetworkCost, Totals, totals
from hwsim.pricing.offsets import OffsetCost
from hwsim.pricing.rates import TimedPasses
from hwsim.pricing.stages import fuse

Runs = Sequence[tuple[int, NetworkCost]]  # how many passes cost so much each


def passes_cost(workload: Workload, accelerator: Accelerator, runs: Runs) -> NetworkCost:
    """What a batch costs whose passes cost `runs`; layers in the workload's order, which is that of every pass."""
    first = runs[0][1]
    layers = tuple(layer_sum([(times, cost.layers[i]) for times, cost in runs]) for i, _ in enumerate(workload.layers))
    whole = totals(workload, accelerator, layers, fuse(workload, accelerator.capabilities), first.areas)
    peak = max(cost.totals.peak_activation_bits for _, cost in runs)
    timed = [(times, cost.timed) for times, cost in runs if cost.timed is not None]
    return dataclasses.replace(
        first,
        layers=layers,
        totals=dataclasses.replace(whole, peak_activation_bits=peak),
        assumptions=tuple(dict.fromkeys(line for _, cost in runs for line in cost.assumptions)),
        warnings=tuple(dict.fromkeys(line for _, cost in runs for line in cost.warnings)),
        timed=TimedPasses(tuple(timed), accelerator) if len(timed) == len(runs) else None,
    )


def totals_sum(runs: Sequence[tuple[int, Totals]]) -> Totals:
    """Energy, time and traffic of passes; the rest is as in the first."""
    first = runs[0][1]
    energy = sum(times * each.energy_pj for times, each in runs)
    seconds = sum(times * each.latency_s for times, each in runs)
    return dataclasses.replace(
        first,
        energy_pj=energy,
        latency_cycles=sum(times * each.latency_cycles for times, each in runs),
        latency_s=seconds,
        edp_pj_s=energy * seconds,
        traffic_bits=sum(times * each.traffic_bits for times, each in runs),
        outermost_traffic_bits=sum(times * each.outermost_traffic_bits for times, each in runs),
    )


def layer_sum(runs: Sequence[tuple[int, LayerCost]]) -> LayerCost:
    """One layer's bill over all passes; what is no sum is as in the first."""
    first = runs[0][1]
    energies: dict[tuple[str, str], float] = {}
    cycles: Counter[str] = Counter()
    words: dict[tuple[str, str, str, int], list[int]] = {}
    kinds: dict[tuple[str, str, str, int], Moved] = {}
    for times, cost in runs:
        for part in cost.parts:
            key = part.component, part.detail
            energies[key] = energies.get(key, 0.0) + times * part.energy_pj
        for name, n in cost.cycles:
            cycles[name] += times * n
        for moved in cost.moved:
            place = moved.memory, moved.operand, moved.kind, moved.word_bits
            kinds.setdefault(place, moved)
            sums = words.setdefault(place, [0, 0])
            sums[0] += times * moved.read_words
            sums[1] += times * moved.write_words
    return dataclasses.replace(
        first,
        parts=tuple(Part(*key, energy) for key, energy in energies.items()),
        latency_cycles=sum(times * cost.latency_cycles for times, cost in runs),
        cycles=tuple(cycles.items()),
        moved=tuple(
            dataclasses.replace(kinds[place], read_words=reads, write_words=writes)
            for place, (reads, writes) in words.items()
        ),
        offset=offset_sum([(times, cost.offset) for times, cost in runs]),
    )


def offset_sum(runs: Sequence[tuple[int, OffsetCost]]) -> OffsetCost:
    """Work and traffic of an offset over all passes; its constants are stored once."""
    return dataclasses.replace(
        runs[0][1],
        extra_adds=sum(times * cost.extra_adds for times, cost in runs),
        extra_read_bits=sum(times * cost.extra_read_bits for times, cost in runs),
        extra_write_bits=sum(times * cost.extra_write_bits for times, cost in runs),
        border_codes=sum(times * cost.border_codes for times, cost in runs),
    )
