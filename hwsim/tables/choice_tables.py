"""What a network costs as tables over its choices of widths: energy, cycles, bits held, layer by layer.

A choice is one width for all tensors that share it; each layer's table has one axis per choice that it meets. Layers
with MACs come from `LayerTable`'s engine: mappings searched at a few widths, priced at all of them at once. Which
tensors stay on chip depends on all widths together, so it is given: nothing, or what stays under a plan.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hwsim.errors import CapabilityError, InfeasibleMapping
from hwsim.machine.parts import OPERANDS, Accelerator, Memory, Operand
from hwsim.nest.counts import Counts
from hwsim.network.layer import Layer, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.fit import activations_inside, codes_bits, packed, stored_weight_bits
from hwsim.pricing.kept_weights import shared_weights
from hwsim.pricing.latency import vector_cycles
from hwsim.pricing.layer import operand_tensors, price_fused, price_stage
from hwsim.pricing.mac import refusals
from hwsim.pricing.moves import parameter_bits
from hwsim.pricing.offsets import offset_cost
from hwsim.pricing.residents import goes_through, lifetimes
from hwsim.pricing.shares import stored_share
from hwsim.pricing.stages import Stage, effective_layer, fuse
from hwsim.pricing.vector import vector_work
from hwsim.search.layer import search
from hwsim.search.network import Plan
from hwsim.search.objective import Objective
from hwsim.tables.dominance import best_places
from hwsim.tables.grid import Bools, Floats, Grid, Ints
from hwsim.tables.hunt import Hunt
from hwsim.tables.mapped import MappedStage
from hwsim.tables.pool import Pool, Triple, Widths, anonymous, at_bits, at_widths

NOWHERE: frozenset[str] = frozenset()
FILLER = 0.0  # value of a refused combination; the refusal keeps it from being chosen


@dataclass(frozen=True)
class Table:
    """Values of every combination of the choices in `scope`, one axis per choice."""

    scope: tuple[int, ...]
    values: Floats


@dataclass(frozen=True)
class HostTable:
    """A stage's first layer: energy, cycles and where the machine refuses it (there the values mean nothing)."""

    scope: tuple[int, ...]
    energy_pj: Floats
    cycles: Floats
    refused: Bools


class ChoiceTables:
    """A workload on a machine over choices of widths: `widths` of each, `position` of the tensors that have one.

    `plan`: what stays on chip, and mappings that let it; without one every tensor goes through the outermost memory.
    Stages of one shape are priced once.
    """

    def __init__(
        self,
        workload: Workload,
        accelerator: Accelerator,
        widths: Sequence[tuple[int, ...]],
        position: Mapping[str, int],
        objective: Objective,
        plan: Plan | None = None,
    ) -> None:
        self.workload, self.accelerator = workload, accelerator
        self.objective: Objective = objective
        self.widths, self.position, self.plan = widths, position, plan
        self.stages = fuse(workload, accelerator.capabilities)
        self.known: dict[object, HostTable] = {}
        weights = {weight.tensor.name for weight in shared_weights(self.stages)}  # fetched anew by every layer here
        self.resident = frozenset(plan.cost.resident) - weights if plan is not None else NOWHERE

    # --- combinations of widths ---------------------------------------------------------------------------------------

    def scope(self, layer: Layer) -> tuple[int, ...]:
        """Choices that a layer's tensors meet, each once."""
        tensors = [*layer.inputs, layer.output, *((layer.weight,) if layer.weight is not None else ())]
        return tuple(dict.fromkeys(self.position[t.name] for t in tensors if t.name in self.position))

    def host_scope(self, stage: Stage) -> tuple[int, ...]:
        """Choices that decide a stage's first layer: its operands as memories see them, and fused work that varies."""
        if not stage.layer.has_macs:
            return self.scope(stage.layer)
        scope = list(self.scope(effective_layer(stage)))
        for follower in stage.fused:
            for index in self.scope(follower):
                if index not in scope and self.work_varies(follower, index):
                    scope.append(index)
        return tuple(scope)

    def work_varies(self, layer: Layer, index: int) -> bool:
        """Whether an operator's vector work depends on a choice."""
        ends = (self.bits((index,), (place,)) for place in (0, -1))
        return len({vector_work(at_bits(layer, bits), self.accelerator.capabilities) for bits in ends}) > 1

    def bits(self, scope: Sequence[int], picks: Sequence[int]) -> dict[str, int]:
        """Bits by tensor of one combination."""
        chosen = {index: self.widths[index][pick] for index, pick in zip(scope, picks, strict=True)}
        return {name: chosen[index] for name, index in self.position.items() if index in chosen}

    def shape(self, scope: Sequence[int]) -> tuple[int, ...]:
        """Shape of a table."""
        return tuple(len(self.widths[index]) for index in scope)

    def combinations(self, scope: tuple[int, ...]) -> Iterable[tuple[tuple[int, ...], dict[str, int]]]:
        """(indices, bits by tensor) of every combination of some choices."""
        for picks in itertools.product(*(range(n) for n in self.shape(scope))):
            yield picks, self.bits(scope, picks)

    # --- prices -------------------------------------------------------------------------------------------------------

    def host(self, stage: Stage) -> HostTable:
        """A stage's first layer. Raises InfeasibleMapping or CapabilityError where no combination can be run."""
        scope = self.host_scope(stage)
        key = self.key(stage, scope)
        if key not in self.known:
            made = self.with_macs(stage, scope) if stage.layer.has_macs else self.operator(stage, scope)
            self.known[key] = made
        return dataclasses.replace(self.known[key], scope=scope)

    def key(self, stage: Stage, scope: tuple[int, ...]) -> object:
        """What a stage's table depends on: the stage with names taken out, which tensors share, the widths."""
        names: dict[str, str] = {}

        def plain(tensor: Tensor) -> Tensor:
            alias = names.setdefault(tensor.name, f"t{len(names)}")
            return dataclasses.replace(tensor, name=alias, origin="")

        layers = tuple(
            dataclasses.replace(
                layer,
                name="",
                source="",
                inputs=tuple(plain(t) for t in layer.inputs),
                output=plain(layer.output),
                weight=plain(layer.weight) if layer.weight is not None else None,
            )
            for layer in (stage.layer, *stage.fused)
        )
        sharing = tuple(scope.index(self.position[name]) if self.position.get(name) in scope else -1 for name in names)
        stays = tuple(name in self.resident for name in names)
        return layers, sharing, stays, tuple(self.widths[index] for index in scope)

    def operator(self, stage: Stage, scope: tuple[int, ...]) -> HostTable:
        """A stage without MACs, combination by combination."""
        energy, cycles = np.zeros(self.shape(scope)), np.zeros(self.shape(scope))
        for picks, bits in self.combinations(scope):
            cost = price_stage(stage_at(stage, bits), self.accelerator, None, self.resident)
            energy[picks], cycles[picks] = cost.total_energy_pj, float(cost.latency_cycles)
        return HostTable(scope, energy, cycles, np.zeros(self.shape(scope), dtype=bool))

    def with_macs(self, stage: Stage, scope: tuple[int, ...]) -> HostTable:
        """A layer with MACs under the best of several mappings; where none of them fits it is searched anew."""
        layer = effective_layer(stage)
        widths, index = self.operand_widths(layer, scope)
        grid = Grid(anonymous(layer), self.accelerator, widths)
        pool = self.hunted(stage, scope, widths, index)
        if not len(pool):
            if grid.allowed[index].any():
                raise InfeasibleMapping(f"layer {layer.name}: no mapping fits at any of the widths allowed")
            raise CapabilityError("\n".join(refusals(at_widths(layer, *widths.at((0, 0, 0))), self.accelerator)))
        keeping = [i for i, counts in enumerate(pool.counts) if self.keeps(stage, counts)]
        stays = self.stays(layer) if keeping else frozenset[Operand]()
        prices = grid.prices(pool.only(keeping) if keeping else pool, stays)
        cycles = prices.gathered(index).cycles(self.vector_cycles(stage, scope, grid, index))
        energy = prices.gathered(index).energy_pj(cycles)
        best = best_places(energy, cycles, self.objective)
        refused = best < 0
        place = np.maximum(best, 0)[None]
        table = HostTable(
            scope,
            np.where(refused, FILLER, np.take_along_axis(energy, place, axis=0)[0]),
            np.where(refused, FILLER, np.take_along_axis(cycles, place, axis=0)[0]),
            refused,
        )
        for picks in np.argwhere(refused & grid.allowed[index]).tolist():
            self.search_there(stage, table, tuple(picks))
        return table

    def search_there(self, stage: Stage, table: HostTable, picks: tuple[int, ...]) -> None:
        """Fill one entry by a search of its own; it stays refused where nothing fits."""
        here = stage_at(stage, self.bits(table.scope, picks))
        try:
            found = search(effective_layer(here), self.accelerator, self.objective)
        except InfeasibleMapping:
            return
        stays = self.resident if self.keeps(here, found.counts) else NOWHERE
        cost = MappedStage(here, found, self.accelerator, stays).cost
        table.energy_pj[picks], table.cycles[picks] = cost.total_energy_pj, float(cost.latency_cycles)
        table.refused[picks] = False

    def operand_widths(self, layer: Layer, scope: Sequence[int]) -> tuple[Widths, tuple[Ints, Ints, Ints]]:
        """The widths of weight, input and output, and where each combination of the scope stands among them."""
        assert layer.weight is not None
        axes: list[tuple[int, ...]] = []
        index: list[Ints] = []
        places = np.indices(self.shape(scope))
        for tensor in (layer.weight, layer.inputs[0], layer.output):
            choice = self.position.get(tensor.name)
            axes.append((tensor.bits,) if choice is None else self.widths[choice])
            here = np.zeros(self.shape(scope), dtype=np.int64) if choice is None else places[scope.index(choice)]
            index.append(here)
        return Widths(*axes), (index[0], index[1], index[2])

    def hunted(self, stage: Stage, scope: tuple[int, ...], widths: Widths, index: tuple[Ints, Ints, Ints]) -> Pool:
        """Mappings to choose among, found at the corners of the widths and on the diagonal between."""
        hunt = Hunt(anonymous(effective_layer(stage)), self.accelerator, widths, self.objective, "quick", None)
        if self.plan is not None:
            planned = self.plan.found[stage.layer.name]
            hunt.pool = hunt.pool.with_mapping(planned.mapping, planned.counts)
        for picks in corners(self.shape(scope)):
            place: Triple = (int(index[0][picks]), int(index[1][picks]), int(index[2][picks]))
            hunt.at(widths.at(place))
        return hunt.pool

    def keeps(self, stage: Stage, counts: Counts) -> bool:
        """Whether a stage under these counts takes and leaves in the activation memory what stays there."""
        home = self.accelerator.activation_memory
        mine = {t.name for t in (*stage.inputs, stage.output)} & self.resident
        by_name = {stage.layer.name: counts}
        return home is None or all(goes_through(stage, name, self.accelerator, home, by_name) for name in mine)

    def stays(self, layer: Layer) -> frozenset[Operand]:
        """Operands of a layer with MACs whose tensors stay on chip."""
        names = operand_tensors(layer)
        return frozenset(o for o in OPERANDS if names.get(o) in self.resident)

    def vector_cycles(self, stage: Stage, scope: tuple[int, ...], grid: Grid, index: tuple[Ints, Ints, Ints]) -> Ints:
        """Cycles of the vector unit for a layer and what is fused behind it."""
        slots = grid.vector_slots[index[2]]
        for follower in stage.fused:
            mine = tuple(place for place, choice in enumerate(scope) if choice in self.scope(follower))
            part = tuple(scope[place] for place in mine)
            work = np.zeros(self.shape(part), dtype=np.int64)
            for picks, bits in self.combinations(part):
                work[picks] = vector_work(at_bits(follower, bits), self.accelerator.capabilities).slots
            slots = slots + np.expand_dims(work, tuple(i for i in range(len(scope)) if i not in mine))
        cycles = [vector_cycles(n, self.accelerator.vector) for n in slots.ravel().tolist()]
        return np.array(cycles, dtype=np.int64).reshape(slots.shape)

    def follower(self, stage: Stage, layer: Layer) -> Table:
        """Energy of an operator on the way out of the array."""
        scope = self.scope(layer)
        table = np.zeros(self.shape(scope))
        for picks, bits in self.combinations(scope):
            cost = price_fused(at_bits(layer, bits), self.accelerator, stage_at(stage, bits), self.resident)
            table[picks] = cost.total_energy_pj
        return Table(scope, table)

    def bops(self, layer: Layer) -> Table:
        """Bit operations of a layer with MACs."""
        assert layer.weight is not None
        tensors = (layer.weight, layer.inputs[0])
        scope = tuple(dict.fromkeys(self.position[t.name] for t in tensors if t.name in self.position))
        table = np.zeros(self.shape(scope))
        for picks, bits in self.combinations(scope):
            table[picks] = at_bits(layer, bits).bops
        return Table(scope, table)

    # --- bits held ----------------------------------------------------------------------------------------------------

    def held(self) -> list[Table]:
        """Bits of weights, constants and stored offsets, as `Totals.weight_bits` counts them."""
        found: list[Table] = []
        seen: set[str] = set()
        for layer in (layer for stage in self.stages for layer in (stage.layer, *stage.fused)):
            weight = layer.weight
            if weight is not None and not layer.weight_is_activation and weight.name not in seen:
                seen.add(weight.name)
                found.append(self.packed(weight))
            if layer.has_macs or offset_cost(layer, self.accelerator.capabilities).extra_bits:
                found.append(self.constants(layer))
        return found

    def packed(self, weight: Tensor) -> Table:
        """Bits that a weight tensor takes in the outermost memory."""
        outer, index = self.accelerator.outermost, self.position.get(weight.name)
        widths = (weight.bits,) if index is None else self.widths[index]
        bits = [float(codes_bits(weight.elements, w, outer, stored_share(outer, "weight", w))) for w in widths]
        return Table((), np.array(bits[0])) if index is None else Table((index,), np.array(bits))

    def constants(self, layer: Layer, with_offset: bool = True) -> Table:
        """Bits of a layer's parameters and stored offsets."""
        can = self.accelerator.capabilities
        tensors = (layer.inputs[0], layer.output)
        scope = tuple(dict.fromkeys(self.position[t.name] for t in tensors if t.name in self.position))
        table = np.zeros(self.shape(scope))
        for picks, bits in self.combinations(scope):
            here = at_bits(layer, bits)
            offset = offset_cost(here, can)
            stored = offset.extra_bits if with_offset and offset.kind in ("folded", "border_bias") else 0
            table[picks] = parameter_bits(here, can) + stored
        return Table(scope, table)

    def rooms(self) -> list[tuple[str, int, list[list[Table]]]]:
        """Bounded memories that the whole network must fit (`fit.overflows`): name, bits, what they hold at once."""
        outer, home = self.accelerator.outermost, self.accelerator.activation_memory
        found: list[tuple[str, int, list[list[Table]]]] = []
        inside = activations_inside(self.accelerator)
        if outer.total_bits is not None:
            weights = self.stored_weights()
            rows = [weights] if inside else [[*weights, *row] for row in self.alive(outer)]
            found.append((outer.name, outer.total_bits, rows))
        if inside and home is not None and home.size_bits is not None:
            found.append((home.name, home.size_bits, self.alive(home)))
        return found

    def stored_weights(self) -> list[Table]:
        """Bits of weights and parameters in the outermost memory, as `fit.weight_sizes` counts them."""
        found: list[Table] = []
        seen: set[str] = set()
        for layer in (layer for stage in self.stages for layer in (stage.layer, *stage.fused)):
            weight = layer.weight
            if weight is not None and not layer.weight_is_activation and weight.name not in seen:
                seen.add(weight.name)
                found.append(self.by_width(weight, lambda t: stored_weight_bits(t, self.accelerator.outermost)))
            if layer.has_macs:
                found.append(self.constants(layer, with_offset=False))
        return found

    def alive(self, memory: Memory) -> list[list[Table]]:
        """Bits that live activations take in a memory while each stage runs; one row per stage as in `peak`."""
        return self.live_rows(lambda tensor: self.by_width(tensor, lambda t: packed(t, memory)))

    def by_width(self, tensor: Tensor, bits_of: Callable[[Tensor], int]) -> Table:
        """Bits of a tensor at each of its widths."""
        index = self.position.get(tensor.name)
        if index is None:
            return Table((), np.array(float(bits_of(tensor))))
        sizes = [float(bits_of(dataclasses.replace(tensor, bits=width))) for width in self.widths[index]]
        return Table((index,), np.array(sizes))

    def peak(self) -> list[list[Table]]:
        """Live activations while each stage runs, one row per stage; rows that another one contains are left out."""
        return self.live_rows(self.size)

    def live_rows(self, size: Callable[[Tensor], Table]) -> list[list[Table]]:
        """Sizes of the tensors alive while each stage runs."""
        lives = lifetimes(self.stages)
        rows: dict[frozenset[str], list[Table]] = {}
        for index in range(len(self.stages)):
            live = [life.tensor for life in lives if life.born <= index <= life.last]
            names = frozenset(tensor.name for tensor in live)
            if not any(names <= other for other in rows):
                rows = {other: kept for other, kept in rows.items() if not other <= names}
                rows[names] = [size(tensor) for tensor in live]
        return list(rows.values())

    def size(self, tensor: Tensor) -> Table:
        """Bits of a tensor's codes."""
        index = self.position.get(tensor.name)
        if index is None:
            return Table((), np.array(float(tensor.size_bits)))
        return Table((index,), np.array([float(tensor.elements * width) for width in self.widths[index]]))


def stage_at(stage: Stage, bits: Mapping[str, int]) -> Stage:
    """A stage with new widths on the tensors named."""
    return Stage(at_bits(stage.layer, bits), tuple(at_bits(f, bits) for f in stage.fused))


def corners(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Widest first: the diagonal at both ends and the middle, then each axis alone at its narrow end."""
    last = tuple(n - 1 for n in shape)
    found = [last, tuple(n // 2 for n in shape), tuple(0 for _ in shape)]
    found += [(*last[:axis], 0, *last[axis + 1 :]) for axis in range(len(shape))]
    return list(dict.fromkeys(found))
