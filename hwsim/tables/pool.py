"""Mappings of one layer shape on one machine with their counts, and the triples of widths they are priced at.

Access counts do not depend on bits: a mapping is counted once and priced at every width. What depends on bits is how
many words its elements fill, and whether its tiles fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Map
from dataclasses import dataclass
from functools import cached_property

from hwsim.machine.parts import Accelerator
from hwsim.nest.count import count_accesses
from hwsim.nest.counts import Counts
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Mapping
from hwsim.network.bits_file import WIDTHS
from hwsim.network.formats import at_width
from hwsim.network.layer import Layer, Tensor

Triple = tuple[int, int, int]  # bits of weight, input, output


@dataclass(frozen=True)
class Widths:
    """The grid of widths that a table covers: bits of weights, inputs and outputs, each ascending."""

    weight: tuple[int, ...] = WIDTHS
    input: tuple[int, ...] = WIDTHS
    output: tuple[int, ...] = WIDTHS

    @property
    def shape(self) -> tuple[int, int, int]:
        """Points along each axis; tables are arrays of this shape."""
        return (len(self.weight), len(self.input), len(self.output))

    def __iter__(self) -> Iterator[tuple[Triple, Triple]]:
        """Every (index, widths)."""
        for i, w in enumerate(self.weight):
            for j, x in enumerate(self.input):
                for k, o in enumerate(self.output):
                    yield (i, j, k), (w, x, o)

    def index(self, weight: int, input_: int, output: int) -> Triple:
        """Place of a triple in the grid. Raises ValueError outside it."""
        return (self.weight.index(weight), self.input.index(input_), self.output.index(output))

    def at(self, index: Sequence[int]) -> Triple:
        """Widths at a place of the grid."""
        return (self.weight[index[0]], self.input[index[1]], self.output[index[2]])


def tensor_at(tensor: Tensor, bits: int) -> Tensor:
    """The tensor with codes of another width; of a number format its elements, with its scales and offsets."""
    if bits == tensor.bits:
        return tensor
    form = None if tensor.format is None else at_width(tensor.format, bits)
    scales = tensor.scales if form is None else {"none": 0, "tensor": 1}.get(form.sharing, tensor.scales)
    return dataclasses.replace(tensor, bits=bits, format=form, scales=scales)


def at_bits(layer: Layer, bits: Map[str, int]) -> Layer:
    """The layer with other bits on the tensors that are named."""

    def change(tensor: Tensor) -> Tensor:
        return tensor_at(tensor, bits.get(tensor.name, tensor.bits))

    return with_sums_of(
        layer,
        dataclasses.replace(
            layer,
            inputs=tuple(change(t) for t in layer.inputs),
            output=change(layer.output),
            weight=change(layer.weight) if layer.weight is not None else None,
        ),
    )


def at_widths(layer: Layer, weight: int, input_: int, output: int) -> Layer:
    """The layer with other bits on its operands."""
    assert layer.weight is not None
    return with_sums_of(
        layer,
        dataclasses.replace(
            layer,
            weight=tensor_at(layer.weight, weight),
            inputs=(tensor_at(layer.inputs[0], input_), *layer.inputs[1:]),
            output=tensor_at(layer.output, output),
        ),
    )


def with_sums_of(before: Layer, after: Layer) -> Layer:
    """`after` with the accumulator that was proven for `before`: an upper bound while no factor has grown.

    Where one has grown, and where nothing was proven, the width follows from the operands' as always.
    """
    if before.accumulator_bits is None:
        return after
    derived = dataclasses.replace(after, accumulator_bits=None)
    if any(new.bits > old.bits for new, old in zip(after.multiplied, before.multiplied, strict=True)):
        return derived
    proven = min(before.accumulator_bits, derived.accumulator_bits_needed())
    return dataclasses.replace(after, accumulator_bits=proven)


def anonymous(layer: Layer) -> Layer:
    """The layer without names and widths: equal for layers that share a table.

    A proven accumulator keeps the widths of the factors that it was proven for.
    """
    assert layer.weight is not None
    proven = layer.accumulator_bits is not None
    factors = (layer.weight.bits, layer.inputs[0].bits) if proven else (1, 1)
    plain = at_widths(layer, *factors, 1)
    assert plain.weight is not None
    return dataclasses.replace(
        plain,
        name="layer",
        source="",
        weight=dataclasses.replace(plain.weight, name="weight", origin=""),
        inputs=tuple(dataclasses.replace(t, name=f"input{i}", origin="") for i, t in enumerate(plain.inputs)),
        output=dataclasses.replace(plain.output, name="output", origin=""),
    )


@dataclass(frozen=True)
class Pool:
    """Distinct legal mappings of a layer, with their counts."""

    layer: Layer
    accelerator: Accelerator
    mappings: tuple[Mapping, ...] = ()
    counts: tuple[Counts, ...] = ()

    def __len__(self) -> int:
        return len(self.mappings)

    @cached_property
    def known(self) -> frozenset[Mapping]:
        """The mappings as a set."""
        return frozenset(self.mappings)

    def with_mapping(self, mapping: Mapping, counts: Counts | None = None) -> Pool:
        """The pool with one more mapping; itself where it has it."""
        if mapping in self.known:
            return self
        found = counts or count_accesses(self.layer, mapping, self.accelerator)
        return dataclasses.replace(self, mappings=(*self.mappings, mapping), counts=(*self.counts, found))

    def only(self, keep: Sequence[int]) -> Pool:
        """The mappings at these places."""
        return dataclasses.replace(
            self, mappings=tuple(self.mappings[i] for i in keep), counts=tuple(self.counts[i] for i in keep)
        )

    def legal(self, mapping: Mapping) -> bool:
        """Whether a mapping is legal for the layer at one bit: everything but capacity at the widths asked for."""
        return not validate(mapping, at_widths(self.layer, 1, 1, 1), self.accelerator)
