"""A mapping: where one layer's operands are held and in which order its loops run on an accelerator.

One nest, outermost first, of three kinds of nodes: `Hold` (from here inwards these operands are kept in that memory),
`Temporal` and `Spatial` loops. Uneven mappings are plain: a memory may be held twice, each operand cut elsewhere.
`validate` says in words why a nest is illegal; `load_mappings` and `dump_mappings` are the YAML form. Factors need not
divide: a loop's step is the product of the same dim's factors inside it and blocks are cut at the layer's bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from hwsim.machine.parts import Operand
from hwsim.network.layer import DIMS


@dataclass(frozen=True)
class Hold:
    """From here inwards `operands` are kept in `memory`."""

    memory: str
    operands: tuple[Operand, ...]


@dataclass(frozen=True)
class Temporal:
    """A sequential loop: `factor` blocks of dim `dim`, one after another."""

    dim: str
    factor: int


@dataclass(frozen=True)
class Spatial:
    """A parallel loop: `factor` blocks of `dim` side by side on one axis of an array."""

    dim: str
    factor: int
    array: str
    axis: str


Loop = Temporal | Spatial
Node = Hold | Temporal | Spatial


@dataclass(frozen=True)
class Mapping:
    """The nest of one layer, outermost node first."""

    nodes: tuple[Node, ...]

    @property
    def loops(self) -> tuple[Loop, ...]:
        """Temporal and spatial loops, outermost first."""
        return tuple(node for node in self.nodes if not isinstance(node, Hold))

    def hold_index(self, memory: str, operand: Operand) -> int | None:
        """Position in `nodes` of the hold of `operand` in `memory`; None where it is bypassed."""
        return self._holds.get((memory, operand))

    @cached_property
    def _holds(self) -> dict[tuple[str, Operand], int]:
        found: dict[tuple[str, Operand], int] = {}
        for index, node in enumerate(self.nodes):
            if isinstance(node, Hold):
                for operand in node.operands:
                    found.setdefault((node.memory, operand), index)
        return found

    def tile(self, index: int) -> dict[str, int]:
        """Extent of every dim below position `index`: product of its factors there (may exceed the layer's bound)."""
        extent = dict.fromkeys(DIMS, 1)
        for node in self.nodes[index:]:
            if not isinstance(node, Hold):
                extent[node.dim] *= node.factor
        return extent

    def __getstate__(self) -> dict[str, object]:
        """The nodes alone."""
        return {"nodes": self.nodes}

    def steps(self) -> tuple[int, ...]:
        """Per node the distance between blocks of its loop: product of same-dim factors inside it; 0 for holds."""
        inside = dict.fromkeys(DIMS, 1)
        found: list[int] = []
        for node in reversed(self.nodes):
            if isinstance(node, Hold):
                found.append(0)
            else:
                found.append(inside[node.dim])
                inside[node.dim] *= node.factor
        return tuple(reversed(found))

    def __str__(self) -> str:
        return describe(self)


# --- text and YAML --------------------------------------------------------------------------------------------------


def describe(mapping: Mapping) -> str:
    """The nest as indented text, one node per line."""
    lines: list[str] = []
    depth = 0
    for node in mapping.nodes:
        if isinstance(node, Hold):
            lines.append(f"{'  ' * depth}[{node.memory}: {', '.join(node.operands)}]")
        elif isinstance(node, Temporal):
            lines.append(f"{'  ' * depth}for {node.dim} in {node.factor}")
            depth += 1
        else:
            lines.append(f"{'  ' * depth}parallel {node.dim} in {node.factor} on {node.array}.{node.axis}")
            depth += 1
    return "\n".join(lines)
