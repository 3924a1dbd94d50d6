"""The counts of a mapping as data: traffic of every memory and operand, tiles held, deliveries, use of arrays.

Counts are integers summed over all instances; bits, words and energies come later (pricing/). `count.py` makes them,
`tally.py` walks the boundaries. Conventions and equations: docs/counting.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hwsim.machine.parts import Operand

Kind = Literal["code", "partial", "final"]  # weights and inputs; partial sums; finished outputs
KINDS: tuple[Kind, ...] = ("code", "partial", "final")


@dataclass(frozen=True)
class Conventions:
    """Choices on which published tools differ; the defaults are what the hardware does.

    `drain_reads`: reading an output tile out of a memory to send it up is charged to that memory.
    `broadcast_partials`: a returning partial sum is written to every child of its reduction group, not to one.
    """

    drain_reads: bool = True
    broadcast_partials: bool = False


@dataclass(frozen=True)
class Traffic:
    """Elements of one operand read from and written to one memory, over all its instances and the whole layer."""

    memory: str
    operand: Operand
    kind: Kind
    reads: int
    writes: int


@dataclass(frozen=True)
class Tile:
    """Largest tile of an operand in one instance of a memory; `partial`: it may hold unfinished sums."""

    memory: str
    operand: Operand
    elements: int
    partial: bool


@dataclass(frozen=True)
class Delivery:
    """Elements that pass an array: arriving at its elements (`down`, one per child reached) and leaving them (`up`)."""

    array: str
    operand: Operand
    kind: Kind
    down: int
    up: int


@dataclass(frozen=True)
class ArrayUse:
    """How a mapping uses one array: active elements per axis, and how many tiles it holds still one after another."""

    array: str
    axes: tuple[tuple[str, int], ...]  # (axis name, elements used)
    passes: int


@dataclass(frozen=True)
class Counts:
    """Everything about a (layer, mapping, accelerator) that needs no bits and no prices."""

    traffic: tuple[Traffic, ...]
    tiles: tuple[Tile, ...]
    deliveries: tuple[Delivery, ...]
    arrays: tuple[ArrayUse, ...]
    instances: tuple[tuple[str, int], ...]  # (memory, instances that ever hold anything)
    macs: int
    steps: int  # temporal iterations = compute cycles of the busiest MAC unit at one MAC per cycle
    iterations: tuple[tuple[str, int], ...]  # of every loop in time; their product is `steps`
    active_macs: int  # MAC units that ever work
    reduction_adds: int  # additions that merge partial sums of different array elements

    def reads(self, memory: str, operand: Operand | None = None, kind: Kind | None = None) -> int:
        """Elements read from a memory, of one operand and kind or of all."""
        return sum(t.reads for t in self._select(memory, operand, kind))

    def writes(self, memory: str, operand: Operand | None = None, kind: Kind | None = None) -> int:
        """Elements written to a memory, of one operand and kind or of all."""
        return sum(t.writes for t in self._select(memory, operand, kind))

    def _select(self, memory: str, operand: Operand | None, kind: Kind | None) -> list[Traffic]:
        return [
            t for t in self.traffic if t.memory == memory and operand in (None, t.operand) and kind in (None, t.kind)
        ]
