"""Boxes of machines: which prices vary, how far, and the corners that decide what wins inside.

A mapping's energy is linear in the energies of memories and arrays, in the idle energy of a cycle, and, once a port is
named the slowest, in idle energy over its bandwidth. So a machine inside a box costs the weighted mean of the box's
corners, under every mapping. What is cheaper at all corners is cheaper everywhere; a bound at the corners, so weighted,
is a bound. Sizes of memories are no part of it: they decide what fits.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hwsim.machine.parts import Accelerator, Array, Memory
from hwsim.nest.points import Ints
from hwsim.pricing.area import working_power_mw

Floats = NDArray[np.float64]
MAX_CORNERS = 8  # a box of three parameters; more parameters have a simplex around them
SAME = 1e-9


@dataclass(frozen=True)
class Box:
    """Ranges of parameters.

    `groups[g]`: positions that move together, from `low` by up to `span`; the others stand still.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    span: tuple[float, ...]
    groups: tuple[tuple[int, ...], ...]

    @staticmethod
    def spanned(base: Accelerator, axes: Iterable[Sequence[Accelerator]] = ()) -> Box:
        """The box of all machines that differ from `base` in what several axes change: each of them alone is given.

        Where two axes change one parameter their changes add up. Parameters that move alike are one.
        """
        names, start = tuple(parameters(base)), values_of(base)
        low, high = start.copy(), start.copy()
        rows = [start]
        for machines in axes:
            own = [values_of(machine) for machine in machines]
            low += np.min([start, *own], axis=0) - start
            high += np.max([start, *own], axis=0) - start
            rows += own
        span = np.where(high - low > SAME * np.abs(low), high - low, 0.0)
        groups: dict[tuple[float, ...], list[int]] = {}
        for i in np.flatnonzero(span):
            shares = tuple(np.round((np.array(rows)[:, i] - low[i]) / span[i], 9).tolist())
            groups.setdefault(shares, []).append(int(i))
        return Box(names, tuple(low.tolist()), tuple(span.tolist()), tuple(map(tuple, groups.values())))

    @property
    def corners(self) -> Floats:
        """[corner, group]: where every corner stands in each range; beyond 1 where a simplex is around the box."""
        count = len(self.groups)
        if 1 << count <= MAX_CORNERS:
            return np.array(list(itertools.product((0.0, 1.0), repeat=count)), dtype=float).reshape(1 << count, count)
        return np.concatenate([np.zeros((1, count)), count * np.eye(count)])

    def weights(self, machine: Accelerator) -> Floats | None:
        """How much of every corner a machine is; None outside of the box."""
        if tuple(parameters(machine)) != self.names:
            return None
        values, low, span = values_of(machine), np.array(self.low), np.array(self.span)
        shares = np.zeros(len(self.groups))
        here = low.copy()
        for g, members in enumerate(self.groups):
            first = members[0]
            shares[g] = (values[first] - low[first]) / span[first]
            here[list(members)] += shares[g] * span[list(members)]
        inside = bool(((shares >= -SAME) & (shares <= 1 + SAME)).all())
        if not inside or not np.allclose(values, here, rtol=SAME, atol=0.0):
            return None
        shares = np.clip(shares, 0.0, 1.0)
        if 1 << len(shares) <= MAX_CORNERS:
            return np.where(self.corners > 0, shares, 1 - shares).prod(axis=1)
        return np.concatenate([[1 - shares.mean()], shares / len(shares)])

    def machine_at(self, corner: Floats, machine: Accelerator) -> tuple[Accelerator, float]:
        """A machine with a corner's parameters, and its idle pJ per cycle, which stands in no spec."""
        values = dict(zip(self.names, self.low, strict=True))
        for share, members in zip(corner.tolist(), self.groups, strict=True):
            for i in members:
                values[self.names[i]] += share * self.span[i]
        nodes = tuple(priced(node, values) for node in machine.hierarchy)
        return dataclasses.replace(machine, hierarchy=nodes), values["idle"]


def ports(memory: Memory) -> dict[str, float]:
    """Limited bandwidths of a memory, by field."""
    fields = ["read_bandwidth_bits_per_cycle", *([] if memory.shared_port else ["write_bandwidth_bits_per_cycle"])]
    return {name: limit for name in fields if (limit := getattr(memory, name)) is not None}


@lru_cache(maxsize=1024)
def parameters(machine: Accelerator) -> dict[str, float]:
    """What prices are linear in, by name: pJ per access and hop, per idle cycle, and that over bandwidths."""
    idle = working_power_mw(machine) / machine.clock_mhz * 1e3
    found = {"idle": idle}
    for node in machine.hierarchy:
        if isinstance(node, Array):
            found[f"{node.name} hop"] = node.hop_energy_pj_per_bit
            continue
        found[f"{node.name} read"], found[f"{node.name} write"] = node.read_energy_pj, node.write_energy_pj
        for port, limit in ports(node).items():
            found[f"{node.name} {port}"] = idle / limit
    return found


def values_of(machine: Accelerator) -> Floats:
    """Parameters as an array."""
    return np.array(list(parameters(machine).values()))


def priced(node: Memory | Array, values: dict[str, float]) -> Memory | Array:
    """A memory or an array at given parameters."""
    if isinstance(node, Array):
        return dataclasses.replace(node, hop_energy_pj_per_bit=values[f"{node.name} hop"])
    limits = {
        port: values["idle"] / values[f"{node.name} {port}"] if values["idle"] > 0 else limit
        for port, limit in ports(node).items()
    }
    return dataclasses.replace(
        node, read_energy_pj=values[f"{node.name} read"], write_energy_pj=values[f"{node.name} write"], **limits
    )


def sizes(machine: Accelerator) -> tuple[int | None, ...]:
    """Sizes of the memories, outermost first."""
    return tuple(memory.size_bits for memory in machine.memories)


def with_sizes(machine: Accelerator, wanted: Sequence[int | None]) -> Accelerator:
    """A machine with other sizes."""
    left = iter(wanted)
    nodes = tuple(
        dataclasses.replace(node, size_bits=next(left)) if isinstance(node, Memory) else node
        for node in machine.hierarchy
    )
    return dataclasses.replace(machine, hierarchy=nodes)


@lru_cache(maxsize=1024)
def skeleton(machine: Accelerator) -> Accelerator:
    """What machines of one table have in common: all but sizes, parameters and what is no price."""
    nodes: list[Memory | Array] = []
    for node in machine.hierarchy:
        if isinstance(node, Array):
            nodes.append(dataclasses.replace(node, hop_energy_pj_per_bit=0.0, source=""))
            continue
        limited: dict[str, float] = dict.fromkeys(ports(node), 1.0)
        size = None if node.size_bits is None else 0
        nodes.append(
            dataclasses.replace(
                node, size_bits=size, read_energy_pj=0.0, write_energy_pj=0.0, efficiency=1.0, area_mm2=0.0,
                leakage_mw=0.0, source="", **limited,
            )
        )  # fmt: skip
    mac = dataclasses.replace(machine.mac, area_mm2=0.0, leakage_mw=0.0, source="")
    vector = dataclasses.replace(machine.vector, area_mm2=0.0, leakage_mw=0.0, source="")
    return dataclasses.replace(
        machine, name="", clock_mhz=1.0, hierarchy=tuple(nodes), mac=mac, vector=vector, static_power_mw=0.0,
        control_power_mw=0.0, other_area_mm2=0.0, sources=(), spreads=(), rate_spreads=(), notes=(), constraints=(),
    )  # fmt: skip


def at_most(left: Ints, right: Ints) -> NDArray[np.bool_]:
    """[row]: whether every entry is at most the other's."""
    return np.asarray((left <= right).all(axis=-1))
