"""The network as the cost model sees it: layers with loop bounds and bit-widths, in a networkx DiGraph.

Loop names are the field's: N batch, G groups, K output and C input channels per group, P,Q output rows and
columns, R,S filter rows and columns, so MACs = N*G*K*C*P*Q*R*S. Nodes are frozen `Layer`s, edges are tensors.
Nothing here knows torch or an accelerator; files are JSON (`Workload.save`, `load_workload`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.errors import WorkloadError

if TYPE_CHECKING:
    import networkx as nx
from hwsim.files.atomic import write_atomically
from hwsim.network.checks import describe_codes, validate_layer
from hwsim.network.layer import FLOAT_BITS, Layer, Tensor, activation_inputs, operands

FORMAT = "hwsim-workload"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Uncosted:
    """An operator met in the model that has no price: named, counted, never silently free.

    `elements`: how many it makes. `macs`: None where its shapes do not tell them.
    """

    name: str
    op: str
    elements: int
    macs: int | None = None


@dataclass(frozen=True)
class FreeOp:
    """Operators that cost nothing, and why: views, what folds into a neighbour, what is the identity at inference."""

    op: str
    count: int
    why: str


@dataclass(frozen=True)
class Coverage:
    """What became of the model's operators, as found while extracting it.

    `ops_total` counts those that depend on the input; `ops_costed` of them have a price or are `free` with a reason.
    """

    ops_total: int
    ops_costed: int
    uncosted: tuple[Uncosted, ...] = ()
    free: tuple[FreeOp, ...] = ()


@dataclass(frozen=True)
class Shares:
    """Costed shares of a network, each between 0 and 1. `macs` counts the MACs known of uncosted operators;
    `unknown_macs` is how many uncosted operators may hide more."""

    macs: float
    elements: float
    operators: float
    unknown_macs: int


def codes_of(tensor: Tensor) -> tuple[object, ...]:
    """What all who touch a tensor must agree on."""
    return tensor.bits, tensor.signed, tensor.offset, tensor.format


class Workload:
    """A network: a DiGraph of layers. `layers` come in execution order.

    Edges carry `tensor`: the name of the tensor that flows. Graph inputs have no node; they are the tensors that
    no layer produces.
    """

    def __init__(
        self,
        name: str,
        layers: Iterable[Layer],
        coverage: Coverage | None = None,
        notes: tuple[str, ...] = (),
        identity: str = "",
    ):
        """`identity`: of the trained network whose layers and bits these are (`quant.checkpoint.identity`)."""
        self.name, self.identity = name, identity
        self.layers: tuple[Layer, ...] = tuple(layers)
        self.coverage = coverage or Coverage(len(self.layers), len(self.layers))
        self.notes = notes
        self._validate()

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Workload) and self._content == other._content

    @property
    def _content(self) -> tuple[object, ...]:
        """All that a saved file says."""
        return self.name, self.identity, self.notes, self.coverage, self.layers

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def graph(self) -> nx.DiGraph[str]:
        """Nodes: layer names with attribute `layer`; edges: producer to consumer with attribute `tensor`."""
        import networkx as nx  # a tenth of a second that a run which never looks at the graph need not pay

        graph = nx.DiGraph(name=self.name)
        producer = {layer.output.name: layer.name for layer in self.layers}
        for layer in self.layers:
            graph.add_node(layer.name, layer=layer)
        for layer in self.layers:
            for tensor in activation_inputs(layer):
                if tensor.name in producer:
                    graph.add_edge(producer[tensor.name], layer.name, tensor=tensor.name)
        return graph

    @property
    def macs(self) -> int:
        """MACs of the whole network."""
        return sum(layer.macs for layer in self.layers)

    @property
    def quantized(self) -> bool:
        """Whether any operand carries bits of its own; a float network counts 32 bits throughout."""
        return any(t.bits < FLOAT_BITS and t.origin != "index" for t in self.tensors.values())

    @property
    def shares(self) -> Shares:
        """How much of the network has a price: MACs, elements made, operators."""
        uncosted = self.coverage.uncosted
        macs = self.macs + sum(u.macs or 0 for u in uncosted)
        elements = sum(layer.output.elements for layer in self.layers)
        missed = sum(u.elements for u in uncosted)
        return Shares(
            self.macs / macs if macs else 1.0,
            elements / (elements + missed),
            self.coverage.ops_costed / self.coverage.ops_total if self.coverage.ops_total else 1.0,
            sum(u.macs is None for u in uncosted),
        )

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name (weights and activations)."""
        found: dict[str, Tensor] = {}
        for layer in self.layers:
            for tensor in operands(layer):
                found.setdefault(tensor.name, tensor)
        return found

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> Workload:
        """The same network with `change` applied to every operand (for instance new bits).

        Another network than the trained one, as far as `identity` goes.
        """

        def relayer(layer: Layer) -> Layer:
            return dataclasses.replace(
                layer,
                inputs=tuple(change(t) for t in layer.inputs),
                output=change(layer.output),
                weight=change(layer.weight) if layer.weight else None,
            )

        return Workload(self.name, (relayer(layer) for layer in self.layers), self.coverage, self.notes)

    def with_notes(self, *notes: str) -> Workload:
        """The same network with further notes; they end up among the report's assumptions."""
        return Workload(self.name, self.layers, self.coverage, (*self.notes, *notes), self.identity)

    def with_identity(self, identity: str) -> Workload:
        """The same network, known to be the trained one of this identity."""
        return Workload(self.name, self.layers, self.coverage, self.notes, identity)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; `from_dict` reads it back."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": self.name,
            **({"identity": self.identity} if self.identity else {}),
            "notes": list(self.notes),
            "coverage": dataclasses.asdict(self.coverage),
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
        }

    def save(self, path: str | Path) -> None:
        """Write JSON atomically: the file is either the old one or complete."""
        write_atomically(Path(path), json.dumps(self.to_dict(), indent=1) + "\n")

    def _validate(self) -> None:
        if not self.layers:
            raise WorkloadError(f"workload {self.name}: expected at least one layer, found none")
        seen: set[str] = set()
        produced: set[str] = set()
        codes: dict[str, tuple[str, Tensor]] = {}
        for layer in self.layers:
            if layer.name in seen:
                raise WorkloadError(f"workload {self.name}: two layers are called {layer.name!r}; names must differ")
            if layer.output.name in produced:
                raise WorkloadError(f"layer {layer.name}: tensor {layer.output.name!r} is already produced by another")
            seen.add(layer.name)
            produced.add(layer.output.name)
            validate_layer(layer)
            for tensor in operands(layer):
                first, known = codes.setdefault(tensor.name, (layer.name, tensor))
                if codes_of(tensor) != codes_of(known):
                    raise WorkloadError(
                        f"layer {layer.name}: tensor {tensor.name!r} has {describe_codes(tensor)}, "
                        f"but {describe_codes(known)} in layer {first}; one tensor has one kind of codes"
                    )
