"""Proofs of layers with operands at home, as the network's optimum asks for them: none is made twice.

An answer for as much room or more, and as little work of the vector unit or less, holds where its mapping fits and
takes no longer; a bound holds everywhere there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from hwsim.nest.mapping import Mapping
from hwsim.search.beyond import improved, ordered
from hwsim.search.bounds.simple import mac_cycles
from hwsim.search.layer import Options, prove
from hwsim.search.objective import Objective
from hwsim.search.result import Bounded, Effortful, Found
from hwsim.search.space.homes import Homes
from hwsim.search.space.likeness import resources_key
from hwsim.search.space.problem import Problem

Key = tuple[object, ...]
Better = tuple[float, Mapping, Problem, Found]  # in what room, from which mapping, of which problem: what was found


@dataclass(frozen=True)
class Answered:
    """An answer, and to what."""

    problem: Problem
    room: float
    vector_cycles: int
    answer: Found | Bounded


@dataclass
class Proofs:
    """How layers are proven (`search.layer.search`), and what they answered."""

    gap: float = 0.0
    time_limit_s: float | None = None
    effort: Effortful = "auto"
    known: dict[Key, Found] = field(default_factory=dict[Key, Found])  # told of new answers
    answers: dict[Key, list[Answered]] = field(default_factory=dict[Key, list[Answered]])
    better: dict[Key, list[Better]] = field(default_factory=dict[Key, list[Better]])

    @property
    def options(self) -> Options:
        """As `search.layer` takes them."""
        return Options(self.gap, self.time_limit_s, self.effort)

    def topic(self, problem: Problem, objective: Objective) -> Key:
        """Questions of different topics are answered without looking at each other's answers."""
        return objective, problem.homes.operands, resources_key(roomy(problem))

    def prove(self, problem: Problem, objective: Objective, seeds: Iterable[Mapping], cutoff: float) -> Found | Bounded:
        """The best mapping of the proof's space, if it costs less than the cutoff; else a bound."""
        room, cycles = room_of(problem), vector_cycles(problem)
        key = self.topic(problem, objective)
        known = self.answers.setdefault(key, [])
        for other in known:
            if room <= other.room and other.vector_cycles <= cycles:
                served = serve(other, problem, objective, cutoff)
                if served is not None:
                    return served
        answer = prove(problem, objective, seeds=seeds, cutoff=cutoff, options=self.options)
        known.append(Answered(problem, room, cycles, answer))
        if isinstance(answer, Found):
            self.known["joint", *key, room, cycles] = answer
        return answer

    def improve(self, problem: Problem, objective: Objective, found: Found, ties: bool) -> Found:
        """A proven mapping, or a better one outside the proof's space; `ties`: and then in the second objective.

        What was found so from the same mapping in a larger room is taken where it fits.
        """
        key = *self.topic(problem, objective), vector_cycles(problem)
        known = self.better.setdefault(key, [])
        for room, start, asked, better in known:
            same = found.mapping in (start, better.mapping)
            if same and room_of(problem) <= room and problem.leaves_room(better.counts):
                return better if asked is problem else moved(better, asked, problem)
        better = improved(problem, objective, found, self.options)
        if ties:
            better = ordered(problem, objective, better, self.options)
        known.append((room_of(problem), found.mapping, problem, better))
        return better


def serve(known: Answered, problem: Problem, objective: Objective, cutoff: float) -> Found | Bounded | None:
    """What a known answer says of a problem with less room or more vector work; None where that is not enough."""
    before, answer = known.problem, known.answer
    if isinstance(answer, Found):
        fits = problem.leaves_room(answer.counts)
        if fits and problem.bill(answer.counts).latency_cycles == before.bill(answer.counts).latency_cycles:
            return moved(answer, before, problem)
        answer = Bounded(answer.certificate.lower_bound)
    bound = answer.lower_bound + constant_pj(problem, objective) - constant_pj(before, objective)
    return Bounded(bound) if bound >= cutoff else None


def moved(found: Found, before: Problem, problem: Problem) -> Found:
    """An answer at another problem's constants."""
    cost = problem.bill(found.counts)
    return Found(found.mapping, found.counts, cost, found.certificate.shifted(cost, before.bill(found.counts)))


def vector_cycles(problem: Problem) -> int:
    """Cycles of the vector unit where they can be what a mapping takes; 0 where MACs always take as long."""
    cycles = problem.unit.fixed_cycles
    return 0 if problem.accelerator.overlap and cycles <= mac_cycles(problem) else cycles


def constant_pj(problem: Problem, objective: Objective) -> float:
    """What every mapping costs alike, of an objective that is a sum."""
    return problem.unit.fixed_pj + problem.layer.macs * problem.unit.mac_pj if objective == "energy" else 0.0


def room_of(problem: Problem) -> float:
    """Room at home; infinite: all of it."""
    return math.inf if problem.homes.room_bits is None else float(problem.homes.room_bits)


def roomy(problem: Problem) -> Problem:
    """The problem with all the room of its home."""
    home = problem.home
    if home is None:
        return problem
    return dataclasses.replace(problem, homes=Homes(problem.homes.operands, home.size_bits))
