"""A batch of assignments on their way to a price: entries of the layers' tables gathered and added up.

Energy and cycles of a row are those of `pricing.network.price_network`. Operators without MACs are priced by the same
functions as there, once per distinct widths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import SpecError
from hwsim.machine.packing import words
from hwsim.machine.parts import OPERANDS, Operand, Packing
from hwsim.network.layer import Layer, Tensor, operands
from hwsim.pricing.fit import codes_bits
from hwsim.pricing.layer import TIMED, LayerCost, operand_tensors, price_fused, price_vector
from hwsim.pricing.moves import parameter_bits
from hwsim.pricing.offsets import offset_cost
from hwsim.pricing.residents import held_elements, lifetimes
from hwsim.pricing.shares import stored_share
from hwsim.pricing.stages import Stage
from hwsim.pricing.vector import vector_work
from hwsim.tables.assignable import Assignable
from hwsim.tables.grid import Bools, Floats, Ints, latency, static_pj
from hwsim.tables.pool import at_bits
from hwsim.tables.residency import Held, Stays, choose

DENSE = 100_000  # combinations of widths up to which tables are dense


@dataclass(frozen=True)
class Priced:
    """What assignments cost, arrays over them. Energies are infinite where a layer does not fit or is refused.

    `lower_bound_pj` and `lower_bound_cycles`: no choice of mappings and of tensors kept on chip goes below them.
    """

    energy_pj: Floats
    cycles: Ints
    lower_bound_pj: Floats
    lower_bound_cycles: Floats
    packed_weight_bits: Ints
    parameter_bits: Ints
    peak_activation_bits: Ints
    bops: Ints
    resident: Bools  # [assignment, tensor of Assignable.candidates]

    @property
    def edp(self) -> Floats:
        """pJ * cycles."""
        return self.energy_pj * self.cycles

    @property
    def weight_bits(self) -> Ints:
        """Packed weights plus scales, offsets, biases."""
        return self.packed_weight_bits + self.parameter_bits

    @property
    def gap(self) -> Floats:
        """Energy over its bound, less one."""
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(np.maximum(0.0, self.energy_pj / self.lower_bound_pj - 1.0), nan=0.0)


def dynamic_of(cost: LayerCost) -> tuple[float, int]:
    """(energy without idle power, cycles) of a bill."""
    return sum(p.energy_pj for p in cost.parts if p.component not in TIMED), cost.latency_cycles


class Rows:
    """A batch of assignments on their way to a price."""

    def __init__(self, table: Assignable, bits: Ints) -> None:
        self.table, self.accelerator = table, table.accelerator
        if bits.ndim != 2 or bits.shape[1] != len(table.columns):
            raise SpecError(f"assignments: expected [count, {len(table.columns)}] bits, got {list(bits.shape)}")
        known = np.isin(bits, table.widths)
        if not known.all():
            row, column = np.argwhere(~known)[0]
            raise SpecError(
                f"assignment {row}: {table.columns[column].name} has {bits[row, column]} bits, the tables know "
                f"{', '.join(map(str, table.widths))}"
            )
        self.bits, self.count = bits, len(bits)
        self.index = np.searchsorted(np.array(table.widths), bits)
        self.entries: dict[str, Ints] = {}

    def priced(self, alone: bool) -> Priced:
        """Energies, cycles and bounds of the batch."""
        kept = np.zeros((self.count, len(self.table.candidates)), dtype=bool)
        home = self.accelerator.activation_memory
        could = kept
        if not alone and home is not None and home.size_bits is not None:
            sizes = self.sizes(home.word_bits, home.packing)
            kept = choose(self.stays(sizes), self.tiles(), home.size_bits, self.count)
            could = sizes <= home.size_bits
        energy, cycles = np.zeros(self.count), np.zeros(self.count, dtype=np.int64)
        for place in range(len(self.table.stages)):
            dynamic, taken = self.stage(place, kept)
            energy += dynamic + np.where(taken > 0, static_pj(self.accelerator, taken), 0.0)
            cycles += taken
        bound_pj, bound_cycles = self.bounds(could)
        packed, parameters = self.held()
        return Priced(
            energy, cycles, np.minimum(bound_pj, energy), np.minimum(bound_cycles, cycles), packed, parameters,
            self.peak(), self.bops(), kept,
        )  # fmt: skip

    def column(self, tensor: str) -> Ints:
        """Bits of a tensor, over assignments."""
        place = self.table.column_of.get(tensor)
        if place is None:
            return np.full(self.count, self.table.workload.tensors[tensor].bits, dtype=np.int64)
        return self.bits[:, place]

    def keeps(self, kept: Bools, tensor: str) -> Bools:
        """Whether a tensor stays on chip, over assignments."""
        place = self.table.place_of.get(tensor)
        return np.zeros(self.count, dtype=bool) if place is None else kept[:, place]

    # --- stages -------------------------------------------------------------------------------------------------------

    def stage(self, place: int, kept: Bools) -> tuple[Floats, Ints]:
        """(energy without idle power, cycles) of one stage."""
        stage = self.table.stages[place]
        if not stage.layer.has_macs:
            return self.operator(stage.layer, None, kept)
        energy, cycles = self.with_macs(stage, kept)
        for follower in stage.fused:
            energy = energy + self.operator(follower, stage, kept)[0]
        return energy, cycles

    def entry(self, stage: Stage) -> Ints:
        """Places of a layer's widths in its table, arrays of which are flattened."""
        if stage.layer.name not in self.entries:
            layer = self.table.effective[stage.layer.name]
            assert layer.weight is not None
            tensors = (layer.weight, layer.inputs[0], layer.output)
            index = tuple(self.index[:, self.table.column_of[t.name]] for t in tensors)
            shape = self.table.tables[stage.layer.name].widths.shape
            self.entries[stage.layer.name] = np.ravel_multi_index(index, shape)
        return self.entries[stage.layer.name]

    def variants(self, stage: Stage, kept: Bools) -> Iterator[tuple[frozenset[Operand], Ints | slice]]:
        """Which operands' tensors stay at a layer with MACs, with the rows where it is so."""
        code = np.zeros(self.count, dtype=np.int64)
        for operand, name in operand_tensors(self.table.effective[stage.layer.name]).items():
            code += (1 << OPERANDS.index(operand)) * self.keeps(kept, name)
        present = np.flatnonzero(np.bincount(code, minlength=8)).tolist()
        for variant in present:
            operands_kept: frozenset[Operand] = frozenset(o for i, o in enumerate(OPERANDS) if variant >> i & 1)
            yield operands_kept, slice(None) if len(present) == 1 else np.flatnonzero(code == variant)

    def with_macs(self, stage: Stage, kept: Bools) -> tuple[Floats, Ints]:
        """A layer with MACs: its best mapping at these widths, with the tensors kept."""
        table, entry = self.table.tables[stage.layer.name], self.entry(stage)
        vector = self.vector_cycles(stage)
        energy, cycles = np.zeros(self.count), np.zeros(self.count, dtype=np.int64)
        for operands_kept, rows in self.variants(stage, kept):
            prices, mine = table.resident(operands_kept), entry[rows]
            energy[rows] = prices.dynamic_pj.ravel()[mine]
            busy, waiting = prices.busy.ravel()[mine], prices.waiting.ravel()[mine]
            cycles[rows] = latency(self.accelerator, busy, waiting, vector[rows])
        return energy, cycles

    def vector_cycles(self, stage: Stage) -> Ints:
        """Cycles of the vector unit for a layer and the operators fused behind it."""
        layer, table = self.table.effective[stage.layer.name], self.table.tables[stage.layer.name]
        slots = table.grid.vector_slots[self.index[:, self.table.column_of[layer.output.name]]]
        for follower in stage.fused:
            slots = slots + self.each(
                "slots", follower, lambda layer, _: vector_work(layer, self.accelerator.capabilities).slots
            ).astype(np.int64)
        unit = self.accelerator.vector
        rate = Fraction(str(unit.cycles_per_op)) / unit.lanes
        return -(-slots * rate.numerator // rate.denominator)

    def operator(self, layer: Layer, host: Stage | None, kept: Bools) -> tuple[Floats, Ints]:
        """An operator without MACs, on its own or behind a host."""
        names = [t.name for t in operands(layer) if t.name in self.table.place_of]
        code = np.zeros(self.count, dtype=np.int64)
        for i, name in enumerate(names):
            code += (1 << i) * self.keeps(kept, name)

        def dynamic(narrowed: Layer, variant: int) -> tuple[float, int]:
            resident = frozenset(name for i, name in enumerate(names) if variant >> i & 1)
            if host is None:
                return dynamic_of(price_vector(narrowed, self.accelerator, resident))
            return dynamic_of(price_fused(narrowed, self.accelerator, host, resident))

        found = self.each("bill", layer, dynamic, (code, 1 << len(names)))
        return found[:, 0], found[:, 1].astype(np.int64)

    def each(
        self,
        what: str,
        layer: Layer,
        function: Callable[[Layer, int], Any],
        code: tuple[Ints, int] | None = None,
        but: Tensor | None = None,
    ) -> NDArray[np.float64]:
        """`function` of a layer at every row's widths and `code`, computed once per distinct combination.

        `code`: one more argument, with how many values it has. `but`: a tensor whose width does not matter.
        """
        names = list(dict.fromkeys(t.name for t in operands(layer) if but is None or t.name != but.name))
        varying = [name for name in names if name in self.table.column_of]
        columns = list(dict.fromkeys(self.table.column_of[name] for name in varying))
        packed, size = (np.zeros(self.count, dtype=np.int64), 1) if code is None else code
        for column in columns:
            packed, size = packed * len(self.table.widths) + self.index[:, column], size * len(self.table.widths)
        if size <= DENSE:
            present, rows = np.flatnonzero(np.bincount(packed, minlength=size)), None
            place = packed
        else:
            present, rows, place = np.unique(packed, return_index=True, return_inverse=True)
        known = self.table.memo.setdefault((what, layer.name), {})
        values: list[Any] = []
        for value in present.tolist():
            if value not in known:
                left, bits = value, {}
                for column in reversed(columns):
                    left, digit = divmod(left, len(self.table.widths))
                    bits |= dict.fromkeys(self.table.columns[column].tensors, self.table.widths[digit])
                known[value] = function(at_bits(layer, bits), left)
            values.append(known[value])
        found = np.array(values, dtype=np.float64)
        if rows is None:
            table = np.zeros((size, *found.shape[1:]))
            table[present] = found
            return table[place]
        return found[place]

    # --- which tensors stay -------------------------------------------------------------------------------------------

    def sizes(self, word_bits: int, packing: Packing) -> Ints:
        """[assignment, candidate]: bits a tensor takes in the activation memory, whole words."""
        found = np.zeros((self.count, len(self.table.candidates)), dtype=np.int64)
        for place, name in enumerate(self.table.candidates):
            life, (_, *readers) = self.table.lives[name]
            elements = held_elements(life.tensor, readers, self.table.accelerator)
            column = self.table.column_of.get(name)
            if column is None:
                width = self.table.workload.tensors[name].bits
                found[:, place] = words(elements, width, word_bits, packing) * word_bits
            else:
                by_width = [words(elements, width, word_bits, packing) * word_bits for width in self.table.widths]
                found[:, place] = np.array(by_width, dtype=np.int64)[self.index[:, column]]
        return found

    def stays(self, sizes: Ints) -> list[Stays]:
        """The candidates, in the order of `Assignable.candidates`."""
        found: list[Stays] = []
        none = np.zeros((self.count, len(self.table.candidates)), dtype=bool)
        for place, name in enumerate(self.table.candidates):
            life, touched = self.table.lives[name]
            only = none.copy()
            only[:, place] = True
            may, saving = np.ones(self.count, dtype=bool), np.zeros(self.count)
            for stage in touched:
                if stage.layer.has_macs:
                    table, entry = self.table.tables[stage.layer.name], self.entry(stage)
                    tensors = operand_tensors(self.table.effective[stage.layer.name])
                    mine: frozenset[Operand] = frozenset(o for o, tensor in tensors.items() if tensor == name)
                    for operand in mine:
                        may &= table.may_stay(operand).ravel()[entry]
                    if mine:
                        saving += table.saving_pj(mine).ravel()[entry]
                followers = stage.fused if stage.layer.has_macs else (stage.layer,)
                for follower in followers:
                    if name in {t.name for t in operands(follower)}:
                        host = stage if stage.layer.has_macs else None
                        saving += self.operator(follower, host, none)[0] - self.operator(follower, host, only)[0]
            found.append(Stays(name, life.born, life.last, sizes[:, place], saving, may))
        return found

    def tiles(self) -> list[list[Held]]:
        """Per stage what its tiles take in the activation memory."""
        found: list[list[Held]] = []
        for stage in self.table.stages:
            held: list[Held] = []
            if stage.layer.has_macs:
                table, entry = self.table.tables[stage.layer.name], self.entry(stage)
                tensors = operand_tensors(self.table.effective[stage.layer.name])
                for operand in OPERANDS:
                    for partial in (False, True) if operand == "output" else (False,):
                        bits = table.home_bits(operand, partial)
                        if bits.any():
                            name = tensors.get(operand, operand) + ("+sums" if partial else "")
                            held.append(Held(name, bits.ravel()[entry]))
            found.append(held)
        return found

    # --- bounds, memory -----------------------------------------------------------------------------------------------

    def bounds(self, could: Bools) -> tuple[Floats, Floats]:
        """(pJ, cycles) below which no mappings go, with every tensor kept that `could` be."""
        energy, cycles = np.zeros(self.count), np.zeros(self.count)
        for stage in self.table.stages:
            if not stage.layer.has_macs:
                dynamic, taken = self.operator(stage.layer, None, could)
                energy += dynamic + np.where(taken > 0, static_pj(self.accelerator, taken), 0.0)
                cycles += taken
                continue
            table, entry = self.table.tables[stage.layer.name], self.entry(stage)
            for operands_kept, rows in self.variants(stage, could):
                energy[rows] += table.bound_with(operands_kept).ravel()[entry[rows]]
            cycles += table.lower_bound_cycles.ravel()[entry]
            for follower in stage.fused:
                energy += self.operator(follower, stage, could)[0]
        return energy, cycles

    def held(self) -> tuple[Ints, Ints]:
        """(packed weight bits, parameter bits), as `cost.totals` counts them."""
        outer, can = self.accelerator.outermost, self.accelerator.capabilities
        packed, parameters = np.zeros(self.count, dtype=np.int64), np.zeros(self.count, dtype=np.int64)
        seen: set[str] = set()
        for layer in self.table.workload:
            weight = layer.weight
            if weight is not None and not layer.weight_is_activation and weight.name not in seen:
                seen.add(weight.name)
                column = self.table.column_of.get(weight.name)
                known = self.table.widths if column is not None else (weight.bits,)
                by_width = [codes_bits(weight.elements, w, outer, stored_share(outer, "weight", w)) for w in known]
                packed += np.array(by_width, dtype=np.int64)[0 if column is None else self.index[:, column]]

            def stored(narrowed: Layer, _: int) -> int:
                offset = offset_cost(narrowed, can)
                extra = offset.extra_bits if offset.kind in ("folded", "border_bias") else 0
                return parameter_bits(narrowed, can) + extra

            if layer.has_macs:
                parameters += self.each("parameters", layer, stored, but=weight).astype(np.int64)
        return packed, parameters

    def peak(self) -> Ints:
        """Most bits of live activations, as `stages.peak_activation_bits` counts them."""
        lives = lifetimes(self.table.stages)
        sizes = [life.tensor.elements * self.column(life.tensor.name) for life in lives]
        most = np.zeros(self.count, dtype=np.int64)
        for index in range(len(self.table.stages)):
            alive = [size for life, size in zip(lives, sizes, strict=True) if life.born <= index <= life.last]
            most = np.maximum(most, sum(alive, np.zeros(self.count, dtype=np.int64)))
        return most

    def bops(self) -> Ints:
        """MACs times widths of both operands."""
        found = np.zeros(self.count, dtype=np.int64)
        for layer in self.table.workload:
            if layer.has_macs and layer.weight is not None:
                found += layer.macs * self.column(layer.weight.name) * self.column(layer.inputs[0].name)
        return found
