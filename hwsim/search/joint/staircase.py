"""What a layer costs over where its operands lie and the room that is left: a staircase, found step by step.

A search at room r whose mapping takes u <= r has solved all rooms from u to r: its bound holds for every smaller room,
its mapping is legal in every one from u on. Bounds are asked first, searches follow where they decide something.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from hwsim.errors import InfeasibleMapping
from hwsim.machine.parts import Operand
from hwsim.nest.count import count_accesses
from hwsim.nest.counts import Counts
from hwsim.nest.mapping import Mapping
from hwsim.pricing.layer import LayerCost
from hwsim.pricing.lifetimes import NOTHING, Freed, outermost, saved_bits
from hwsim.pricing.residents import room_taken, taken_at
from hwsim.search.bounds.any_mapping import bound_of_all, lower_bound
from hwsim.search.joint.blocks import around, block_searches, with_blocks_outside
from hwsim.search.joint.programme import Pair
from hwsim.search.joint.transfer import Transfers
from hwsim.search.objective import Objective
from hwsim.search.result import EVERYTHING, ROUNDING, Bounded, Certificate, Found
from hwsim.search.space.homes import Homes
from hwsim.search.space.problem import Problem


class Solver(Protocol):
    """Who searches a layer (`proofs.Proofs`)."""

    def topic(self, problem: Problem, objective: Objective) -> Hashable:
        """Questions of different topics are answered without looking at each other's answers."""
        ...

    def prove(self, problem: Problem, objective: Objective, seeds: Iterable[Mapping], cutoff: float) -> Found | Bounded:
        """The best mapping of the proof's space, if it costs less than the cutoff; else a bound on all of them."""
        ...

    def improve(self, problem: Problem, objective: Objective, found: Found, ties: bool) -> Found:
        """A mapping that was proven, or a better one outside the proof's space; `ties`: and then in the second one."""
        ...


@dataclass(frozen=True)
class Weights:
    """What is minimised: energy plus `cycle_pj` per cycle, or (None) cycles alone."""

    cycle_pj: float | None = 0.0

    @property
    def objective(self) -> Objective:
        """As the layer's search calls it."""
        return "latency" if self.cycle_pj is None else "energy"

    @property
    def ties(self) -> bool:
        """Whether a layer's search can decide among equals."""
        return self.cycle_pj == 0.0

    def pair(self, energy_pj: float, cycles: float) -> Pair:
        """(what is minimised, what decides among equals)."""
        if self.cycle_pj is None:
            return cycles, energy_pj
        return energy_pj + self.cycle_pj * cycles, cycles


@dataclass(frozen=True)
class At:
    """Operands at home, and whose place there the output takes."""

    operands: tuple[Operand, ...] = ()
    freed: Freed = NOTHING

    def most(self, room: float) -> float:
        """The room that some order of loops could make of what is left: for bounds."""
        return room + self.freed.most_bits


@dataclass(frozen=True)
class Priced:
    """A mapping with operands at given homes: its bill and the bits it takes at home beside tensors in full.

    Other tiles, less what its order of loops saves; perhaps below zero.
    """

    cost: LayerCost
    taken_bits: int


@dataclass
class Pool:
    """Mappings known of one kind of layer, counted once; priced per set of operands at home."""

    problem: Problem  # without homes
    counts: dict[Mapping, Counts] = field(default_factory=dict[Mapping, Counts])
    known: dict[tuple[Mapping, At], Priced | None] = field(default_factory=dict[tuple[Mapping, At], "Priced | None"])
    transfers: dict[Weights, Transfers] = field(default_factory=dict[Weights, Transfers])

    def bounds(self, weights: Weights) -> Transfers:
        """What proofs said, for any operands at home."""
        if weights not in self.transfers:
            problem = placed(self.problem, Homes(), weights.cycle_pj or 0.0)
            self.transfers[weights] = Transfers(problem, weights.objective)
        return self.transfers[weights]

    def add(self, mapping: Mapping, counts: Counts | None = None) -> None:
        """Let a mapping compete, if it is legal."""
        if mapping in self.counts or self.problem.refuses(mapping):
            return
        found = counts or count_accesses(self.problem.layer, mapping, self.problem.accelerator)
        self.counts[mapping] = found

    def priced(self, mapping: Mapping, at: At) -> Priced | None:
        """A mapping with operands at home, None where it does not take them there; room is left to the caller."""
        key = mapping, at
        if key not in self.known:
            self.known[key] = self.price(mapping, at)
        return self.known[key]

    def price(self, mapping: Mapping, at: At) -> Priced | None:
        counts, machine = self.counts[mapping], self.problem.accelerator
        problem = placed(self.problem, Homes(at.operands), 0.0)
        home = machine.activation_memory
        if home is None:
            return Priced(problem.bill(counts), 0) if not at.operands else None
        if not taken_at(home, machine, counts, at.operands):
            return None
        taken = room_taken(home, problem.layer, machine, counts, at.operands)
        return Priced(problem.bill(counts), taken - saved_bits(home, problem.layer, outermost(mapping), at.freed))

    def best(self, at: At, room: int | None, weights: Weights) -> tuple[Pair, Mapping, Priced] | None:
        """The best known mapping with operands at home in what room is left."""
        found: tuple[Pair, Mapping, Priced] | None = None
        for mapping in self.counts:
            priced = self.priced(mapping, at)
            if priced is None or (room is not None and priced.taken_bits > room):
                continue
            pair = weights.pair(priced.cost.total_energy_pj, float(priced.cost.latency_cycles))
            if found is None or pair < found[0]:
                found = pair, mapping, priced
        return found


@dataclass(frozen=True)
class Step:
    """Rooms `low` to `high` (infinite: all of it) are solved: no mapping of the space costs less than `bound`.

    Without a certificate nothing that costs less than a cutoff fits, or nothing at all.
    """

    low: float
    high: float
    bound: float
    certificate: Certificate | None


class Staircase:
    """Bounds over room of one kind of layer, for one set of operands at home and one weighting."""

    def __init__(self, pool: Pool, at: At, weights: Weights) -> None:
        self.pool, self.at, self.weights = pool, at, weights
        self.steps: list[Step] = []
        self.better: dict[int | None, Found] = {}
        self.shared = pool.bounds(weights)
        self.problem = placed(pool.problem, Homes(at.operands), weights.cycle_pj or 0.0)
        self.first, self.refined = max(0.0, lower_bound(self.problem, weights.objective)), False

    def refine(self) -> None:
        """A better bound for all rooms, without a search."""
        self.refined = True
        best = self.pool.best(self.at, None, self.weights)
        if best is not None:
            _, mapping, priced = best
            known = mapping, self.pool.counts[mapping], priced.cost
            self.first = max(self.first, bound_of_all(self.problem, self.weights.objective, known, 0))

    def step(self, room: int | None) -> Step | None:
        """The step that solves a room, if one does."""
        size = math.inf if room is None else room
        return next((step for step in self.steps if step.low <= size <= step.high), None)

    def bound(self, room: int | None) -> float:
        """No mapping of the space costs less: what is known of larger rooms, and of other operands at home."""
        size = math.inf if room is None else room
        known = self.shared.bound(self.at.operands, self.at.most(size))
        return max([self.first, known, *(step.bound for step in self.steps if size <= step.high)])

    def search(self, room: int | None, solver: Solver, cutoff: float = math.inf) -> None:
        """Solve a room, and all those down to what its mapping takes; what costs more than a cutoff is left open."""
        best = self.pool.best(self.at, room, self.weights)
        size = math.inf if room is None else float(room)
        try:
            found = solver.prove(self.at_room(room), self.weights.objective, () if best is None else (best[1],), cutoff)
        except InfeasibleMapping:
            self.steps.append(Step(-math.inf, size, math.inf, None))
            return
        if isinstance(found, Bounded):
            self.solved(Step(size, size, found.lower_bound, None))
            return
        self.pool.add(found.mapping, found.counts)
        mine = self.pool.priced(found.mapping, self.at)
        low = size if mine is None or room is None else float(mine.taken_bits)
        self.solved(Step(min(low, size), size, found.certificate.lower_bound, found.certificate))
        if room is not None and low > size:
            self.search_orders(found, room, solver)

    def search_orders(self, found: Found, room: int, solver: Solver) -> None:
        """Nests whose order frees the room that a found one lacks: that one in other orders, then blocks of the layer.

        The bound stays the one of all orders.
        """
        self.add_orders(found.mapping)
        if self.reached(room, found.certificate.lower_bound):
            return
        home = self.problem.accelerator.activation_memory
        assert home is not None
        for part, loops in block_searches(self.problem, home, self.at.freed, self.at.operands, room):
            try:
                block = solver.prove(part, self.weights.objective, (), math.inf)
            except InfeasibleMapping:
                continue
            if isinstance(block, Found):
                self.pool.add(around(block.mapping, loops))
            if self.reached(room, found.certificate.lower_bound):
                return

    def add_orders(self, mapping: Mapping) -> None:
        """Let a nest compete in orders that save more room."""
        layer, home = self.problem.layer, self.problem.accelerator.activation_memory
        assert home is not None
        saved = saved_bits(home, layer, outermost(mapping), self.at.freed)
        for other in with_blocks_outside(mapping) if self.at.freed != NOTHING else ():
            if saved_bits(home, layer, outermost(other), self.at.freed) > saved:
                self.pool.add(other)

    def reached(self, room: int, bound: float) -> bool:
        """Whether the best nest known costs no more than a bound, but for rounding."""
        best = self.pool.best(self.at, room, self.weights)
        return best is not None and best[0][0] <= bound * (1 + ROUNDING)

    def solved(self, step: Step) -> None:
        """One more step."""
        self.steps.append(step)
        self.shared.learn(self.at.operands, self.at.most(step.high), step.bound)

    def improve(self, room: int | None, solver: Solver) -> float:
        """Look for better mappings outside the proof's space, if that was not done yet; the share of cost gained."""
        if room in self.better:
            return 0.0
        before = self.found(room)
        found = solver.improve(self.at_room(room), self.weights.objective, before, self.weights.ties)
        self.pool.add(found.mapping, found.counts)
        if room is not None and mapping_lacks(self.pool.priced(found.mapping, self.at), room):
            self.add_orders(found.mapping)
        self.better[room] = found
        return 1.0 - found.certificate.value / before.certificate.value if before.certificate.value else 0.0

    def promises(self, room: int | None) -> bool:
        """Whether a mapping was proven, and nothing looked at beside."""
        step = self.step(room)
        return step is not None and step.certificate is not None and room not in self.better

    def found(self, room: int | None) -> Found:
        """The best mapping known, with what is known about it."""
        best, step = self.pool.best(self.at, room, self.weights), self.step(room)
        assert best is not None
        (value, _), mapping, priced = best
        bound, better = min(self.bound(room), value), self.better.get(room)
        if better is not None:
            known = better.certificate
            known = known if mapping == better.mapping else replace(known, then="", then_value=0.0, then_bound=0.0)
        elif step is not None and step.certificate is not None:
            known = step.certificate
        else:  # its bound sufficed
            known = Certificate(
                self.weights.objective, value, bound, 0, len(self.pool.counts), EVERYTHING, True, any_tiles_bound=bound
            )
        certificate = replace(known, value=value, lower_bound=bound, any_tiles_bound=min(known.any_tiles_bound, value))
        return Found(mapping, self.pool.counts[mapping], priced.cost, certificate)

    def at_room(self, room: int | None) -> Problem:
        """The layer's problem where a room is left, and what orders could add to it; None: nothing stays anywhere."""
        homes = Homes() if room is None else Homes(self.at.operands, room + self.at.freed.most_bits)
        return placed(self.pool.problem, homes, self.weights.cycle_pj or 0.0)


def mapping_lacks(priced: Priced | None, room: int) -> bool:
    """Whether a mapping asks for more room."""
    return priced is not None and priced.taken_bits > room


def placed(problem: Problem, homes: Homes, cycle_pj: float) -> Problem:
    """The layer of a problem with its operands elsewhere."""
    return Problem(problem.layer, problem.accelerator, fused=problem.fused, homes=homes, cycle_pj=cycle_pj)
