"""What certificates say, by closed forms; the best of priced mappings against a plain loop; proofs that were cut."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, cast

import pytest

from hwsim.machine.load import load_accelerator
from hwsim.nest.count import count_accesses
from hwsim.pricing.layer import LayerCost, Part, price
from hwsim.search import beyond
from hwsim.search.beyond import in_order, looked_beyond
from hwsim.search.bounds.simple import mac_cycles
from hwsim.search.effort import Options
from hwsim.search.layer import search
from hwsim.search.objective import Budget, Objective, rank_of
from hwsim.search.priced import Pricing
from hwsim.search.quick.candidates import Effort, candidates
from hwsim.search.result import Certificate, NetworkCertificate
from hwsim.search.space.problem import Problem
from hwsim.search.space.timing import VECTOR, Regime
from tests.small_workloads import chain

PLAIN = Certificate("energy", 12.0, 10.0, 7, 3, "a space")


def cost(pj: float, cycles: int) -> LayerCost:
    return LayerCost("l", (Part("mac", "MACs", pj),), cycles, (("compute", cycles),), "compute", ())


def test_a_certificate_claims_nothing_that_it_was_not_told() -> None:
    said = PLAIN.to_dict()
    assert said.pop("gap") == pytest.approx(0.2)
    assert said == {
        "objective": "energy", "value": 12.0, "lower_bound": 10.0, "covered": 7, "priced": 3, "space": "a space",
        "exhaustive": False, "root_bound": 0.0, "any_tiles_bound": 0.0, "slack": 0.0, "then": "", "then_value": 0.0,
        "then_bound": 0.0, "any_tiles_gap": 0.0,
    }  # fmt: skip
    assert (PLAIN.seconds, PLAIN.root_seconds) == (0.0, 0.0)


@pytest.mark.parametrize(("value", "bound", "gap"), [(12.0, 10.0, 0.2), (10.0, 10.0, 0.0), (9.0, 10.0, 0.0),
                                                     (30.0, 10.0, 2.0), (5.0, 0.0, 0.0)])  # fmt: skip
def test_a_gap_is_the_relative_distance_to_its_own_bound(value: float, bound: float, gap: float) -> None:
    layer = dataclasses.replace(PLAIN, value=value, lower_bound=bound, any_tiles_bound=0.0)
    assert layer.gap == pytest.approx(gap)
    assert layer.any_tiles_gap == 0.0
    assert dataclasses.replace(layer, lower_bound=1.0, any_tiles_bound=bound).any_tiles_gap == pytest.approx(gap)
    network = NetworkCertificate("energy", value, bound, 1, True, "a space")
    assert network.gap == pytest.approx(gap)
    assert network.to_dict()["gap"] == network.gap
    assert network.to_dict()["lifetimes"] == "whole"


def test_a_certificate_moves_with_its_bills() -> None:
    """Of a question whose bills are all dearer by 5 pJ and 2 cycles."""
    known = dataclasses.replace(
        PLAIN, root_bound=8.0, any_tiles_bound=6.0, then="latency", then_value=4.0, then_bound=3.0
    )
    moved = known.shifted(cost(17.0, 6), cost(12.0, 4))
    assert (moved.value, moved.lower_bound, moved.root_bound, moved.any_tiles_bound) == (17.0, 15.0, 13.0, 11.0)
    assert (moved.then_value, moved.then_bound) == (6.0, 5.0)
    bare = PLAIN.shifted(cost(17.0, 6), cost(12.0, 4))
    assert (bare.root_bound, bare.any_tiles_bound, bare.then_value, bare.then_bound) == (0.0, 5.0, 0.0, 0.0)
    assert PLAIN.shifted(cost(1.0, 1), cost(12.0, 4)).any_tiles_bound == 0.0
    other = dataclasses.replace(known, exhaustive=True).revalued(cost(20.0, 9))
    assert (other.value, other.lower_bound, other.exhaustive, other.then) == (20.0, 10.0, False, "")


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem(chain().layers[0], load_accelerator("eyeriss_v1"))


def test_the_best_of_priced_mappings_is_the_least_of_all_and_of_those_within_a_budget(problem: Problem) -> None:
    pricing = Pricing(problem, "energy")
    assert (pricing.best_value, pricing.best_mapping, pricing.priced) == (math.inf, None, 0)
    proposed = candidates(problem, Effort(chains=4), None)
    assert pricing.propose(proposed) == proposed.covered
    bills = []
    for mapping in proposed.mappings:
        if not problem.refuses(mapping):
            counts = count_accesses(problem.layer, mapping, problem.accelerator)
            if problem.leaves_room(counts):
                bills.append((price(problem.layer, counts, problem.accelerator), mapping))
    assert pricing.priced == len(bills) > 1
    for objective in ("latency", "edp"):  # others, so that some lie outside a budget
        other = search(problem.layer, problem.accelerator, objective, effort="quick")
        assert pricing.value(other.mapping) == other.cost.total_energy_pj
        bills.append((other.cost, other.mapping))
    least, best = min(bills, key=lambda pair: rank_of(pair[0], "energy"))
    assert (pricing.best_value, pricing.best_mapping) == (least.total_energy_pj, best)
    assert pricing.reaches(least.total_energy_pj)
    assert not pricing.reaches(least.total_energy_pj * 0.999)
    budget = Budget("energy", least.total_energy_pj)
    within = pricing.within(budget, "latency")
    allowed = [bill.latency_cycles for bill, _ in bills if bill.total_energy_pj <= budget.most]
    assert within.best_value == min(allowed)
    assert within.priced == len(bills)
    below = pricing.within(Budget("energy", least.total_energy_pj * 0.999), "latency")
    assert (below.best_value, below.best_mapping) == (math.inf, None)
    assert below.consider(pricing.seen[0]) == math.inf
    assert pricing.consider(pricing.seen[0]) == pricing.seen[0][2].total_energy_pj


class Broken:
    """A proof that runs out of memory."""

    def begin(self, *_: Any) -> None:
        raise MemoryError


def test_a_second_objective_without_a_proof_has_no_bound(problem: Problem) -> None:
    pricing = Pricing(problem, "energy")
    pricing.propose(candidates(problem, Effort(chains=4), None))
    for hunts in ((), (cast(Any, Broken()),)):
        ordered, (then, value, bound) = in_order(pricing, hunts, 0.0, 0.0, math.inf)
        assert (then, bound) == ("latency", 0.0)
        assert value == ordered.best_value < math.inf
    product = Pricing(problem, "edp")
    assert in_order(product, (), 0.0, 0.0, math.inf) == (product, ("", 0.0, 0.0))


def test_a_quick_mapping_is_handed_back_as_it_is(problem: Problem) -> None:
    found = search(problem.layer, problem.accelerator, effort="quick")
    assert beyond.improved(problem, "energy", found, Options()) is found
    assert beyond.ordered(problem, "energy", found, Options()) is found


def test_where_no_legal_mapping_can_be_better_none_is_looked_for(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bound of all mappings that is reached: nothing more is covered or priced, and the space is every mapping."""
    found = search(problem.layer, problem.accelerator, effort="quick")
    pricing = Pricing(problem, "energy")
    value = pricing.value(found.mapping)
    assert value is not None
    monkeypatch.setattr(beyond, "bound_of_all", lambda *_: value)
    known = dataclasses.replace(found.certificate, lower_bound=value / 2)
    after = looked_beyond(pricing, cast(Any, Broken()), known, math.inf)
    assert (after.covered, pricing.priced) == (known.covered, 1)
    assert (after.lower_bound, after.any_tiles_bound, after.space) == (value, value, beyond.EVERYTHING)
    monkeypatch.setattr(beyond, "bound_of_all", lambda *_: known.lower_bound / 2)
    with pytest.raises(AttributeError):  # a bound below leaves something to look for
        looked_beyond(pricing, cast(Any, Broken()), known, math.inf)


class Hunt:
    """A proof whose space a test decides, and which keeps a record of what it is asked for."""

    covers = staticmethod(lambda mapping: False)

    def __init__(self, problem: Problem) -> None:
        self.covered, self.timing = 0, Regimes()
        self.asked: list[str] = []

    def start(self, best: object) -> None:
        self.asked.append("start")

    def learn(self, regime: object) -> None:
        self.asked.append("learn")


class Regimes:
    """Timing with one regime."""

    def default(self) -> Regime:
        return Regime((VECTOR,), ())


@pytest.mark.parametrize(("overlap", "busy", "learns"), [(True, True, True), (True, False, False),
                                                         (False, True, False)])  # fmt: skip
def test_only_a_vector_unit_that_sets_the_time_beside_macs_is_a_regime_of_its_own(
    overlap: bool, busy: bool, learns: bool, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = dataclasses.replace(problem.accelerator, overlap=overlap)
    one = Problem(problem.layer, machine)
    cycles = mac_cycles(one) + (1 if busy else 0)
    monkeypatch.setitem(vars(one), "unit", dataclasses.replace(one.unit, fixed_cycles=cycles))
    pricing, hunt = Pricing(one, "latency"), Hunt(one)
    found = search(one.layer, machine, effort="quick")
    pricing.value(found.mapping)
    monkeypatch.setattr(beyond, "bound_of_all", lambda *_: 0.0)
    looked_beyond(pricing, cast(Any, hunt), dataclasses.replace(found.certificate, exhaustive=False), math.inf)
    assert hunt.asked == (["start", "learn"] if learns else ["start"])


@pytest.mark.parametrize("finished", [True, False])
def test_longer_loops_are_tried_only_behind_a_proof_that_ended(
    finished: bool, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that a limit stopped has no time for them: it covers nothing more."""

    def improve(hunt: Hunt, best: float, limit: float) -> None:
        hunt.covered += 7

    monkeypatch.setattr(beyond.padding, "improve", improve)
    pricing = Pricing(problem, "energy")
    pricing.value(search(problem.layer, problem.accelerator, effort="quick").mapping)
    assert beyond.outside_space(pricing, cast(Any, Hunt(problem)), finished, math.inf) == (7 if finished else 0)


def test_improving_looks_beyond_and_ordering_keeps_what_is_known(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`improved` asks for what the proof leaves out, `ordered` for the second objective, and neither for the other."""
    found = search(problem.layer, problem.accelerator, effort="perfect")
    asked: list[str] = []
    plain_beyond, plain_order = beyond.looked_beyond, beyond.in_order
    monkeypatch.setenv("HWSIM_CACHE", "")
    monkeypatch.setattr(beyond, "looked_beyond", lambda *a: (asked.append("beyond"), plain_beyond(*a))[1])
    monkeypatch.setattr(beyond, "in_order", lambda *a: (asked.append("order"), plain_order(*a))[1])
    beyond.improved(problem, "energy", found, Options(effort="perfect"))
    better = beyond.ordered(problem, "energy", found, Options(effort="perfect"))
    assert asked == ["beyond", "order"]
    assert better.certificate.then == "latency"


def test_looking_beyond_a_proof_adds_to_its_time_and_keeps_its_bound(problem: Problem) -> None:
    found = search(problem.layer, problem.accelerator, effort="perfect")
    known = dataclasses.replace(found, certificate=dataclasses.replace(found.certificate, seconds=100.0))
    for ask in (beyond.improved, beyond.ordered):
        better = ask(problem, "energy", known, Options(effort="perfect"))
        assert 100.0 <= better.certificate.seconds < 200.0
        assert better.certificate.value <= known.certificate.value
        assert better.certificate.lower_bound <= better.certificate.value
        assert better.certificate.priced >= known.certificate.priced


@pytest.mark.parametrize("objective", ["energy", "latency"])
def test_the_second_objective_costs_nothing_of_the_first(objective: Objective) -> None:
    """Without a slack, however much of the first a further saving of the second would be worth."""
    layer = chain().layers[0]
    machine = load_accelerator("eyeriss_v2")
    found = search(layer, machine, objective, effort="perfect")
    second = "latency" if objective == "energy" else "energy"
    best_second = search(layer, machine, second, effort="perfect").certificate.value
    better = beyond.ordered(Problem(layer, machine), objective, found, Options(effort="perfect"))
    assert better.certificate.value <= found.certificate.value
    assert better.certificate.then == second
    assert better.certificate.then_value > best_second  # there is something to be bought, and it was not
