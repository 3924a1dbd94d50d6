"""One layer on one machine at every triple of widths: the best known mapping, its exact price, a proven bound.

`LayerTable.build` searches a few triples, prices all mappings found at every triple, and carries what the searches
proved over to the others. Where that leaves a gap larger than asked for, the triple with the largest gap is searched
next. So a sweep over bits costs a few searches, and every entry says how far from the optimum it can be.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from hwsim.errors import CapabilityError, InfeasibleMapping
from hwsim.machine.packing import held_bits
from hwsim.machine.parts import OPERANDS, Accelerator, Operand
from hwsim.nest.mapping import Mapping
from hwsim.nest.text import from_lists, to_lists
from hwsim.network.bits_file import WIDTHS
from hwsim.network.layer import Layer
from hwsim.pricing.layer import LayerCost, price
from hwsim.pricing.mac import refusals
from hwsim.pricing.unit_prices import unit_prices
from hwsim.search import cache
from hwsim.search.network import RUNGS
from hwsim.search.objective import Objective, objective_value
from hwsim.search.result import Effortful
from hwsim.tables.bounds import SimpleBounds, Solved, prices_of_counts, solved_point, transferred
from hwsim.tables.dominance import best_places, structure, undominated
from hwsim.tables.grid import Bools, Floats, Grid, Ints, Prices, tile_of
from hwsim.tables.hunt import Hunt, Searched, question
from hwsim.tables.pool import Pool, Triple, Widths, anonymous, at_widths

ANCHORS: tuple[int, ...] = (*RUNGS, WIDTHS[-1])
TOLERANCE = 1e-6


@dataclass(frozen=True)
class LayerTable:
    """Costs of a layer on a grid of widths, arrays of shape [weight, input, output].

    `best`: place of the best mapping in `pool`, -1 where none fits or the machine refuses. `energy_pj` (infinite
    there), `cycles`: exactly what `price` says of it. `lower_bound`: no mapping goes below, in the objective's unit.
    """

    layer: Layer
    accelerator: Accelerator
    widths: Widths
    objective: Objective
    pool: Pool
    searched: tuple[Searched, ...]
    seconds: float = field(default=0.0, compare=False)

    @classmethod
    def build(
        cls,
        layer: Layer,
        accelerator: Accelerator,
        widths: Widths | None = None,
        *,
        objective: Objective = "energy",
        effort: Effortful = "quick",
        anchors: Sequence[int] = ANCHORS,
        gap: float = TOLERANCE,
        time_limit_s: float | None = None,
        search_limit_s: float | None = None,
    ) -> LayerTable:
        """A table from searches at all pairs of `anchors`, outputs as wide as inputs.

        `proven` goes on at the triples with the largest gap until every gap is at most `gap` or `time_limit_s` is
        over (`search_limit_s`: per search). Raises InfeasibleMapping where no triple of the grid fits, CapabilityError
        where the machine runs none.
        """
        if layer.format_key:
            raise CapabilityError(
                f"layer {layer.name}: tables vary integer widths, and it has number formats: price those with evaluate"
            )
        began = time.perf_counter()
        widths, plain = widths or Widths(), anonymous(layer)
        question: dict[str, Any] = {
            "table": dataclasses.asdict(widths), "objective": objective, "effort": effort, "anchors": list(anchors),
            "gap": gap, "time_limit_s": time_limit_s, "search_limit_s": search_limit_s,
        }  # fmt: skip
        key = cache.content_hash(plain, accelerator, question)
        known = cls.recalled(key, layer, accelerator, widths, objective)
        if known is not None:
            return known
        hunt = Hunt(plain, accelerator, widths, objective, effort, search_limit_s)
        hunt.anchored(anchors)
        table = cls(plain, accelerator, widths, objective, hunt.pool, tuple(hunt.searched))
        while effort == "proven":
            place = table.worst()
            over = time_limit_s is not None and time.perf_counter() - began > time_limit_s
            if over or place is None or table.gap[place] <= gap or not hunt.at(widths.at(place)):
                break
            table = dataclasses.replace(table, pool=hunt.pool, searched=tuple(hunt.searched))
        table = table.pruned()
        cache.store(key, table.remembered())
        return dataclasses.replace(table, layer=layer, seconds=time.perf_counter() - began)

    # --- the arrays ---------------------------------------------------------------------------------------------------

    @cached_property
    def grid(self) -> Grid:
        """What does not depend on mappings."""
        return Grid(anonymous(self.layer), self.accelerator, self.widths)

    @cached_property
    def prices(self) -> Prices:
        """Every mapping at every triple."""
        return self.grid.prices(self.pool)

    @cached_property
    def all_cycles(self) -> Ints:
        """[mapping, weight, input, output]: latency of this layer alone."""
        return self.prices.cycles(self.grid.vector)

    @cached_property
    def all_energies(self) -> Floats:
        """[mapping, weight, input, output]: pJ; infinite where it does not fit or is refused."""
        return self.prices.energy_pj(self.all_cycles)

    @cached_property
    def best(self) -> Ints:
        """Place of the best mapping by the objective, ties broken by the others as the search does; -1: none."""
        return best_places(self.all_energies, self.all_cycles, self.objective)

    def of_best(self, values: Floats | Ints) -> Any:
        """The best mapping's entries of an array [mapping, weight, input, output]."""
        return np.take_along_axis(values, np.maximum(self.best, 0)[None], axis=0)[0]

    @cached_property
    def energy_pj(self) -> Floats:
        """pJ of the best mapping."""
        return self.of_best(self.all_energies)

    @cached_property
    def cycles(self) -> Ints:
        """Latency of the best mapping, of this layer alone."""
        return self.of_best(self.all_cycles)

    @cached_property
    def value(self) -> Floats:
        """What the objective minimises: pJ, cycles or pJ * cycles; infinite where nothing fits."""
        cycles = np.where(np.isfinite(self.energy_pj), self.cycles, np.inf)
        return objective_value(self.objective, self.energy_pj, cycles)

    @cached_property
    def simple(self) -> SimpleBounds:
        """Bounds without a search."""
        return SimpleBounds(self.grid)

    @cached_property
    def lower_bound_pj(self) -> Floats:
        """Energy that no mapping goes below."""
        if self.measured:
            return self.energy_pj  # the same under every mapping
        bound = self.simple.energy_pj()
        if self.objective == "energy":
            self.raise_equivalent(bound)
            proven = self.solved_points
            for index, widths in self.widths:
                if self.grid.allowed[index] and bound[index] * (1 + TOLERANCE) < self.energy_pj[index]:
                    prices = prices_of_counts(unit_prices(at_widths(self.grid.layer, *widths), self.accelerator))
                    moving = transferred(proven, widths, prices)
                    bound[index] = max(bound[index], self.grid.fixed_pj[index] + moving)
        return np.minimum(bound, np.where(self.grid.allowed, self.energy_pj, np.inf))

    @cached_property
    def lower_bound_cycles(self) -> Floats:
        """Cycles that no mapping goes below."""
        if self.measured:
            return self.cycles.astype(np.float64)
        return self.simple.cycles()

    @cached_property
    def lower_bound(self) -> Floats:
        """Bound on `value`; the value itself where a search proved it."""
        if self.objective == "energy":
            return self.lower_bound_pj
        bound = objective_value(self.objective, self.lower_bound_pj, self.lower_bound_cycles)
        self.raise_equivalent(bound)
        for index, widths in self.widths:  # costs rise with widths: narrower searches bound wider triples
            for s in self.searched:
                if all(a <= b for a, b in zip(s.widths, widths, strict=True)):
                    bound[index] = max(bound[index], s.lower_bound)
        return np.minimum(bound, self.value)

    def raise_equivalent(self, bound: Floats) -> None:
        """Give triples that ask the same question as a proven one its bound."""
        proven = {s.widths: s.lower_bound for s in self.searched if s.effort == "proven"}
        if not proven:
            return
        layer, machine = self.grid.layer, self.accelerator
        by_question = {question(at_widths(layer, *widths), machine): value for widths, value in proven.items()}
        for index, widths in self.widths:
            if self.grid.allowed[index]:
                known = by_question.get(question(at_widths(layer, *widths), machine), 0.0)
                bound[index] = max(bound[index], known)

    @cached_property
    def solved_points(self) -> list[Solved]:
        """What the proven searches found, as points of the price space."""
        return [
            solved_point(
                self.grid.layer,
                self.accelerator,
                s.widths,
                float(self.grid.fixed_pj[self.widths.index(*s.widths)]),
                s.lower_bound,
            )
            for s in self.searched
            if self.objective == "energy"
        ]

    @property
    def gap(self) -> Floats:
        """value / lower_bound - 1; 0 where nothing fits (there is nothing to gain)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            found = self.value / self.lower_bound - 1.0
        return np.where(np.isfinite(self.value) & (self.lower_bound > 0), np.maximum(found, 0.0), 0.0)

    def worst(self) -> Triple | None:
        """The triple with the largest gap among those not searched; None where all were."""
        gaps = self.gap
        for s in self.searched:
            gaps[self.widths.index(*s.widths)] = 0.0
        place = np.unravel_index(int(gaps.argmax()), gaps.shape)
        return (int(place[0]), int(place[1]), int(place[2])) if gaps[place] > 0 else None

    # --- with neighbours: tensors that stay on chip -------------------------------------------------------------------

    def resident(self, operands: frozenset[Operand]) -> Prices:
        """The best mappings with the tensors of some operands staying on chip; arrays [weight, input, output].

        The mapping is the one that is best alone: which tensors stay is decided between layers, after it.
        """
        if operands not in self.variants:
            prices = self.grid.prices(self.pool, operands) if operands else self.prices
            self.variants[operands] = Prices(
                self.accelerator,
                self.of_best(prices.dynamic_pj),
                self.of_best(prices.busy),
                self.of_best(prices.waiting),
            )
        return self.variants[operands]

    @cached_property
    def variants(self) -> dict[frozenset[Operand], Prices]:
        """Cache of `resident`."""
        return {}

    def saving_pj(self, operands: frozenset[Operand]) -> Floats:
        """[weight, input, output]: energy without idle power that keeping these operands' tensors on chip saves."""
        if operands not in self.savings:
            with np.errstate(invalid="ignore"):
                saved = self.resident(frozenset()).dynamic_pj - self.resident(operands).dynamic_pj
            self.savings[operands] = np.where(self.best >= 0, saved, 0.0)
        return self.savings[operands]

    @cached_property
    def savings(self) -> dict[frozenset[Operand], Floats]:
        """Cache of `saving_pj`."""
        return {}

    def bound_with(self, operands: frozenset[Operand]) -> Floats:
        """Energy that no mapping goes below with the tensors of some operands staying on chip."""
        if not operands:
            return self.lower_bound_pj
        if operands not in self.bounds:
            self.bounds[operands] = (
                np.where(self.grid.allowed, 0.0, np.inf) if self.measured else self.simple.energy_pj(operands)
            )
        return self.bounds[operands]

    @cached_property
    def bounds(self) -> dict[frozenset[Operand], Floats]:
        """Cache of `bound_with`."""
        return {}

    @property
    def measured(self) -> bool:
        """Whether the machine is known by a table of measured layers."""
        return self.accelerator.mac.measurements is not None

    def may_stay(self, operand: Operand) -> Bools:
        """Cached `find_may_stay`."""
        if operand not in self.stays:
            self.stays[operand] = self.find_may_stay(operand)
        return self.stays[operand]

    @cached_property
    def stays(self) -> dict[Operand, Bools]:
        """Cache of `may_stay`."""
        return {}

    def find_may_stay(self, operand: Operand) -> Bools:
        """[weight, input, output]: whether the best mapping takes or leaves this operand in the activation memory."""
        home, outer = self.accelerator.activation_memory, self.accelerator.outermost.name
        if home is None:
            return np.zeros(self.widths.shape, dtype=bool)
        fine = [
            any(t.memory == home.name and t.operand == operand for t in counts.tiles)
            and not (operand == "output" and counts.reads(outer, "output"))
            for counts in self.pool.counts
        ]
        return np.array(fine)[np.maximum(self.best, 0)] & (self.best >= 0)

    def home_bits(self, operand: Operand, partial: bool) -> Ints:
        """Cached `find_home_bits`."""
        if (operand, partial) not in self.homes:
            self.homes[operand, partial] = self.find_home_bits(operand, partial)
        return self.homes[operand, partial]

    @cached_property
    def homes(self) -> dict[tuple[Operand, bool], Ints]:
        """Cache of `home_bits`."""
        return {}

    def find_home_bits(self, operand: Operand, partial: bool) -> Ints:
        """[weight, input, output]: bits of the best mapping's tile in the activation memory, unfinished sums or not.

        Unfinished sums are at least as wide as the output they become there.
        """
        home = self.accelerator.activation_memory
        elements = np.array([tile_of(c, home.name if home else "", operand, partial) for c in self.pool.counts])
        found = np.zeros(self.widths.shape, dtype=np.int64)
        if home is None or not elements.any():
            return found
        chosen = np.where(self.best >= 0, elements[np.maximum(self.best, 0)], 0)
        grid = np.indices(self.widths.shape)
        axis = {"weight": self.widths.weight, "input": self.widths.input, "output": self.widths.output}[operand]
        bits = np.array(axis)[grid[OPERANDS.index(operand)]]
        if partial:
            bits = np.maximum(bits, self.grid.accumulator[:, :, None])
        for width in np.unique(bits).tolist():
            found = np.where(bits == width, held_bits(chosen, width, home.word_bits, home.packing), found)
        return found

    # --- single entries -----------------------------------------------------------------------------------------------

    def mapping(self, weight: int, input_: int, output: int) -> Mapping:
        """The best mapping at these widths. Raises InfeasibleMapping or CapabilityError where there is none."""
        return self.pool.mappings[self.place(weight, input_, output)]

    def place(self, weight: int, input_: int, output: int) -> int:
        """Place of the best mapping in the pool; see `mapping`."""
        index = self.widths.index(weight, input_, output)
        if self.best[index] >= 0:
            return int(self.best[index])
        layer = at_widths(self.layer, weight, input_, output)
        refused = refusals(layer, self.accelerator)
        if refused:
            raise CapabilityError("\n".join(refused))
        raise InfeasibleMapping(f"layer {self.layer.name} does not fit {self.accelerator.name} at W{weight}A{input_}")

    def cost(self, weight: int, input_: int, output: int) -> LayerCost:
        """The bill of the best mapping, by `price` itself."""
        place = self.place(weight, input_, output)
        return price(at_widths(self.layer, weight, input_, output), self.pool.counts[place], self.accelerator)

    def under(self, accelerator: Accelerator) -> LayerTable:
        """The same mappings under other unit energies and bandwidths: nothing is searched again.

        What searches proved is carried over in the space of prices. Raises ValueError for a machine that could map
        differently.
        """
        if structure(accelerator) != structure(self.accelerator):
            raise ValueError(f"{accelerator.name} differs from {self.accelerator.name} in more than its prices")
        pool = dataclasses.replace(self.pool, accelerator=accelerator)
        return dataclasses.replace(self, accelerator=accelerator, pool=pool)

    def pruned(self) -> LayerTable:
        """Only mappings that are best somewhere or that none beats in every count (see `undominated`)."""
        keep = sorted(set(self.best[self.best >= 0].tolist()) | set(undominated(self.pool, self.accelerator.mac.lanes)))
        return dataclasses.replace(self, pool=self.pool.only(keep))

    # --- disk ---------------------------------------------------------------------------------------------------------

    def remembered(self) -> dict[str, Any]:
        """As a cache entry: mappings and what was proven; counts and prices are always computed anew."""
        return {
            "mappings": [to_lists(mapping) for mapping in self.pool.mappings],
            "searched": [dataclasses.asdict(s) for s in self.searched],
        }

    @classmethod
    def recalled(
        cls, key: str, layer: Layer, accelerator: Accelerator, widths: Widths, objective: Objective
    ) -> LayerTable | None:
        """A cache entry as a table; None where there is none or it is not what it claims to be."""
        entry = cache.load(key)
        if entry is None:
            return None
        try:
            pool = Pool(anonymous(layer), accelerator)
            for nodes in entry["mappings"]:
                mapping = from_lists(nodes)
                if not pool.legal(mapping):
                    return None
                pool = pool.with_mapping(mapping)
            searched = tuple(
                Searched(tuple(s["widths"]), s["lower_bound"], s["effort"], s["exhaustive"]) for s in entry["searched"]
            )
        except (KeyError, TypeError, IndexError, AttributeError):
            return None
        return cls(layer, accelerator, widths, objective, pool, searched) if len(pool) else None
