"""The bills of a network at other rates: how far its latency is open where bandwidths, MACs or starts are estimates.

A latency is maxima and sums of times, each of which falls as a rate rises. So it lies between its values at all rates
fast and at all rates slow, mappings and tensors on chip unchanged; both ends are priced, nothing is linearised.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from hwsim.machine.parts import Accelerator, MacUnit, Memory
from hwsim.nest.counts import Counts
from hwsim.pricing.interval import Rate, TimeInterval
from hwsim.pricing.kept_weights import fetched, with_fetch
from hwsim.pricing.layer import LayerCost, price_fused, price_stage
from hwsim.pricing.stages import Stage

Factors = Mapping[str, float]  # part -> how many times as fast


@dataclass(frozen=True)
class Bills:
    """What a network's bills follow from beside the machine. `grouped`: bills of depth-first groups, as they are."""

    stages: tuple[Stage, ...]
    counts: Mapping[str, Counts]
    resident: frozenset[str]
    zero_shares: Mapping[str, float]
    grouped: Mapping[str, LayerCost]

    def on(self, accelerator: Accelerator) -> dict[str, LayerCost]:
        """Every layer's bill by name; operators that the machine fuses run behind their layer.

        A shared weight that stays is fetched by the first layer that multiplies it.
        """
        found, brought = dict(self.grouped), fetched(self.stages, self.resident)
        for index, stage in enumerate(self.stages):
            name = stage.layer.name
            if name in found:
                continue
            share = self.zero_shares.get(name, 0.0)
            found[name] = price_stage(stage, accelerator, self.counts.get(name), self.resident, share)
            if index in brought:
                found[name] = with_fetch(found[name], brought[index], accelerator)
            for follower in stage.fused:
                found[follower.name] = price_fused(follower, accelerator, stage, self.resident)
        return found


@dataclass(frozen=True)
class Timed:
    """A network's latency at other rates of its machine."""

    bills: Bills
    machine: Accelerator

    def seconds(self, factors: Factors) -> float:
        """Latency with every part so many times as fast. Groups of layers: a bound, all their parts by one factor."""
        parts = factors.values()
        together = max(parts, default=1.0) if any(factor > 1 for factor in parts) else min(parts, default=1.0)
        cycles = sum(
            cost.latency_cycles / together if name in self.bills.grouped else cost.latency_cycles
            for name, cost in self.bills.on(at_rates(self.machine, factors)).items()
        )
        return cycles / (self.machine.clock_mhz * 1e6)

    @cached_property
    def interval(self) -> TimeInterval:
        """From all rates fast to all slow; every rate's own part with the others as they are."""
        return interval_of(self.seconds, self.machine)


@dataclass(frozen=True)
class TimedPasses:
    """The latency of a batch's passes, one after the other, at other rates: how many take how long each."""

    runs: tuple[tuple[int, Timed | TimedPasses], ...]
    machine: Accelerator

    def seconds(self, factors: Factors) -> float:
        """Latency with every part so many times as fast."""
        return sum(times * timed.seconds(factors) for times, timed in self.runs)

    @cached_property
    def interval(self) -> TimeInterval:
        """As of one pass."""
        return interval_of(self.seconds, self.machine)


def interval_of(seconds: Callable[[Factors], float], machine: Accelerator) -> TimeInterval:
    """From all rates fast to all slow; every rate's own part with the others as they are."""
    spreads = machine.rate_spreads
    value = seconds({})
    alone = [
        Rate(
            s.component,
            s.factor,
            max(0.0, value - seconds({s.component: s.factor})),
            max(0.0, seconds({s.component: 1 / s.factor}) - value),
        )
        for s in spreads
    ]
    low = seconds({s.component: s.factor for s in spreads})
    high = seconds({s.component: 1 / s.factor for s in spreads})
    widest = sorted(alone, key=lambda rate: -(rate.up_s + rate.down_s))
    return TimeInterval(value, min(low, value), max(high, value), tuple(widest))


def at_rates(machine: Accelerator, factors: Factors) -> Accelerator:
    """The machine with parts so many times as fast: memories by name, `mac`, `vector`, `start`."""
    if not factors:
        return machine
    unknown = set(factors) - {"mac", "vector", "start", *(memory.name for memory in machine.memories)}
    if unknown:
        raise KeyError(f"{machine.name} has no rates of {', '.join(sorted(unknown))}")
    hierarchy = tuple(
        faster_memory(node, factors.get(node.name, 1.0)) if isinstance(node, Memory) else node
        for node in machine.hierarchy
    )
    vector = dataclasses.replace(
        machine.vector, cycles_per_op=machine.vector.cycles_per_op / factors.get("vector", 1.0)
    )
    return dataclasses.replace(
        machine,
        hierarchy=hierarchy,
        mac=faster_mac(machine.mac, factors.get("mac", 1.0), factors.get("start", 1.0)),
        vector=vector,
        layer_overhead_cycles=round(machine.layer_overhead_cycles / factors.get("start", 1.0)),
    )


def faster_memory(memory: Memory, factor: float) -> Memory:
    """Its ports so many times as fast."""
    read, write = memory.read_bandwidth_bits_per_cycle, memory.write_bandwidth_bits_per_cycle
    return dataclasses.replace(
        memory,
        read_bandwidth_bits_per_cycle=None if read is None else read * factor,
        write_bandwidth_bits_per_cycle=None if write is None else write * factor,
    )


def faster_mac(mac: MacUnit, factor: float, start: float) -> MacUnit:
    """Its steps so many times as fast, with as many products side by side, and so the starts of its modes."""
    modes = tuple(dataclasses.replace(mode, start_cycles=round(mode.start_cycles / start)) for mode in mac.modes)
    return dataclasses.replace(mac, sustained=mac.sustained * factor, modes=modes)
