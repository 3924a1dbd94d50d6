"""Prices of crossings follow from the rates they are given, and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Array, Memory, Operand
from hwsim.nest.counts import Kind
from hwsim.network.layer import Loops
from hwsim.pricing.moves import Direction
from hwsim.search.space.homes import Homes
from hwsim.search.space.prices import in_order
from hwsim.search.space.problem import Crossings, Ends, EnergyRates, Problem, Rates
from hwsim.search.space.timing import CycleRates, Timing
from tests.strategies import conv

SPECS = ("eyeriss_v1", "simba", "edge_tpu", "tpu_v1")
LAYER = conv(Loops(K=8, C=6, P=5, Q=5, R=3, S=3))


@dataclass(frozen=True)
class Times:
    """Other rates, so many times; it remembers what was asked about which crossing."""

    rates: Rates
    factor: float
    asked: list[tuple[Ends, Memory]]

    def access(self, ends: Ends, memory: Memory, operand: Operand, kind: Kind, direction: Direction) -> float:
        self.asked.append((ends, memory))
        return self.factor * self.rates.access(ends, memory, operand, kind, direction)

    def hop(self, array: Array, operand: Operand, kind: Kind) -> float:
        return self.factor * self.rates.hop(array, operand, kind)

    @property
    def dearest(self) -> float:
        return self.factor * self.rates.dearest


def some_rates(problem: Problem) -> list[Rates]:
    timing = Timing(problem)
    cycles = [CycleRates(timing, timing.default(), segment) for segment in range(len(problem.arrays) + 1)]
    return [EnergyRates(problem.unit, problem.accelerator.outermost), *cycles]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("homes", [Homes(), Homes(("input",), 10_000), Homes(("output",), 10_000)], ids=str)
def test_twice_the_rates_are_twice_the_prices(spec: str, homes: Homes) -> None:
    problem = Problem(LAYER, load_accelerator(spec), homes=homes)
    assert problem.home is not None or not homes.operands
    for rates in some_rates(problem):
        twice = Times(rates, 2.0, [])
        once = in_order(Crossings(problem, rates).all)
        for a, b in zip(once, in_order(Crossings(problem, twice).all), strict=True):
            assert [2 * price for price in a.prices] == list(b.prices)
            assert (2 * a.first_pj, 2 * a.back_pj, 2 * a.saved_pj) == (b.first_pj, b.back_pj, b.saved_pj)
            assert (a.key, a.capacity_bits, a.bits_per_element) == (b.key, b.capacity_bits, b.bits_per_element)
        assert twice.asked
        assert all(memory in (ends.parent, ends.child) for ends, memory in twice.asked)


@pytest.mark.parametrize("spec", SPECS)
def test_crossings_of_a_problem_are_those_at_its_energies(spec: str) -> None:
    problem = Problem(LAYER, load_accelerator(spec))
    assert problem.crossings == Crossings(problem, some_rates(problem)[0]).all
