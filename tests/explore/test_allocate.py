"""Bit allocation is exact: every front and every refusal equals trying all assignments."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hwsim.errors import SpecError
from hwsim.explore.bits import elimination
from hwsim.explore.bits.allocate import Solver, allocate, front, swept
from hwsim.explore.bits.elimination import elimination_order, whole_front
from hwsim.explore.bits.problem import Choice, InfeasibleBudget, Measure, Problem, Refusal, Term, collect, separate
from tests.explore.problems import enumerated_front, every_assignment, random_problem

PAIRS = (("loss", "energy"), ("energy", "cycles"), ("loss", "peak"))


def tight(problem: Problem) -> dict[str, float]:
    """Budgets that leave about a sixth of all assignments."""
    values = problem.evaluate(every_assignment(problem))
    return {"cycles": float(np.quantile(values["cycles"], 0.3)), "peak": float(np.quantile(values["peak"], 0.5))}


def assert_front_is_all(seed: int, choices: int = 5) -> None:
    problem = random_problem(seed, choices)
    for names, budgets in itertools.product(PAIRS, ({}, tight(problem))):
        expected = enumerated_front(problem, names, budgets)
        for method in (front, swept):
            try:
                found = [(s.values[names[0]], s.values[names[1]]) for s in method(problem, *names, budgets)]
            except InfeasibleBudget:
                found = []
            assert found == expected, (method, names, budgets)


@pytest.mark.parametrize("seed", [1, 4])
def test_front_equals_enumeration(seed: int) -> None:
    assert_front_is_all(seed, choices=4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_many_fronts_equal_enumeration(seed: int) -> None:
    assert_front_is_all(seed, choices=6)


def assert_elimination_finds_all(seed: int, choices: int) -> None:
    problem = random_problem(seed, choices)
    for names in PAIRS[:2]:
        found = whole_front(problem, *names)
        assert found is not None
        assert [(s.values[names[0]], s.values[names[1]]) for s in found] == enumerated_front(problem, names, {})
        assert problem.allowed([s.picks for s in found]).all()


@pytest.mark.parametrize("seed", range(20))
def test_elimination_equals_enumeration(seed: int) -> None:
    assert_elimination_finds_all(seed, 5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200, 300))
def test_elimination_equals_enumeration_of_larger_problems(seed: int) -> None:
    assert_elimination_finds_all(seed, 8)


def test_choices_too_entangled_for_elimination_are_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(1, 4)
    monkeypatch.setattr(elimination, "MOST_COMBINATIONS", 1)
    assert elimination_order(problem, ("loss", "energy")) is None
    assert whole_front(problem, "loss", "energy") is None
    found = [(s.values["loss"], s.values["energy"]) for s in front(problem, "loss", "energy")]
    assert found == enumerated_front(problem, ("loss", "energy"), {})


def test_a_chain_is_eliminated_in_tables_of_one_choice() -> None:
    """Twelve choices in a row, neighbours joined: 4^12 assignments, no table larger than 4."""
    rng = np.random.default_rng(0)
    choices = tuple(Choice(f"t{i}", (2, 3, 4, 8)) for i in range(12))
    energy = Measure("energy", (tuple(Term((i, i + 1), rng.integers(0, 99, (4, 4)).astype(float)) for i in range(11)),))
    loss = Measure("loss", (tuple(Term((i,), rng.random(4)) for i in range(12)),))
    problem = Problem(choices, (loss, energy))
    found = whole_front(problem, "loss", "energy")
    assert found is not None
    ends = [Solver(problem).best("loss", {}, then="energy"), Solver(problem).best("energy", {}, then="loss")]
    assert [found[0].values, found[-1].values] == [end.values for end in ends]
    middle = found[len(found) // 2].values
    assert Solver(problem).best("loss", {"energy": middle["energy"]}).values["loss"] == middle["loss"]


@pytest.mark.parametrize("seed", [5, 6])
def test_a_thinned_front_lies_on_the_whole_one(seed: int) -> None:
    problem = random_problem(seed)
    whole = enumerated_front(problem, ("loss", "energy"), {})
    thin = [(s.values["loss"], s.values["energy"]) for s in front(problem, "loss", "energy", points=4)]
    assert set(thin) <= set(whole)
    assert thin[0] == whole[0]
    assert thin[-1] == whole[-1]


@pytest.mark.parametrize("seed", range(3))
def test_least_of_a_peak_is_the_least_over_all_assignments(seed: int) -> None:
    problem = random_problem(seed)
    values = problem.evaluate(every_assignment(problem))
    assert allocate(problem, "peak").values["peak"] == values["peak"].min()


def test_closest_point_misses_by_the_least_possible_share() -> None:
    checked = 0
    for seed in range(12):
        problem = random_problem(seed)
        values = problem.evaluate(every_assignment(problem))
        budgets = {"cycles": float(values["cycles"].min()), "energy": float(values["energy"].min()) + 1.0}
        excess = np.max([(values[name] - limit) / limit for name, limit in budgets.items()], axis=0)
        if excess.min() <= 0:
            continue
        checked += 1
        with pytest.raises(InfeasibleBudget, match="not all at once; binding") as caught:
            allocate(problem, "loss", budgets)
        closest = caught.value.closest
        assert closest is not None
        assert max((closest.values[n] - b) / b for n, b in budgets.items()) == pytest.approx(excess.min(), rel=1e-6)
        assert caught.value.binding == tuple(n for n, b in budgets.items() if closest.values[n] > b)
    assert checked >= 3


def test_a_budget_impossible_by_itself_is_named_with_the_least_that_is_possible() -> None:
    problem = random_problem(1)
    least = problem.evaluate(every_assignment(problem))["energy"].min()
    with pytest.raises(InfeasibleBudget, match=rf"energy: budget {least - 1:g}, the least .* is {least:g}") as caught:
        allocate(problem, "loss", {"energy": least - 1, "cycles": 1e9})
    assert caught.value.binding == ("energy",)
    assert caught.value.exit_code == 3


def test_refused_combinations_are_never_chosen() -> None:
    choices = (Choice("w", (2, 4)), Choice("a", (2, 4)))
    cost = Measure("cost", ((Term((0, 1), np.array([[0.0, 1.0], [2.0, 3.0]])),),))
    mask = np.array([[True, True], [False, False]])
    assert allocate(Problem(choices, (cost,), (Refusal((0, 1), mask, "modes"),)), "cost").picks == (1, 0)
    with pytest.raises(InfeasibleBudget, match="refuses every combination"):
        allocate(Problem(choices, (cost,), (Refusal((0, 1), mask | True, "modes"),)), "cost")


def test_ties_of_the_objective_go_to_the_second_measure() -> None:
    flat = Measure("loss", ((Term((0,), np.zeros(3)),),))
    cost = Measure("cost", ((Term((0,), np.array([3.0, 1.0, 2.0])),),))
    problem = Problem((Choice("w", (2, 4, 8)),), (flat, cost))
    assert allocate(problem, "loss", then="cost").picks == (1,)
    assert [s.picks for s in front(problem, "loss", "cost")] == [(1,)]


def test_a_budget_met_only_by_rounding_is_not_met() -> None:
    """The solver's tolerance would let the better point through; the answer must not."""
    loss = Measure("loss", ((Term((0,), np.array([1.0, 0.0])),),))
    cost = Measure("cost", ((Term((0,), np.array([1e12, 1e12 + 1.0])), Term((1,), np.array([0.0, 1e6]))),))
    problem = Problem((Choice("w", (2, 4)), Choice("a", (2, 4))), (loss, cost))
    assert allocate(problem, "loss", {"cost": 1e12}).picks == (0, 0)
    assert allocate(problem, "loss", {"cost": 1e12 + 1.0}).picks == (1, 0)


@pytest.mark.parametrize("seed", range(20))
def test_separated_tables_add_up_to_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [((0, 1), rng.integers(0, 9, (3, 4))), ((1, 2), rng.integers(0, 9, (4, 2))), ((2,), rng.integers(0, 9, 2))]
    whole = np.zeros((3, 4, 2))
    for scope, part in parts:
        shape = [n if i in scope else 1 for i, n in enumerate((3, 4, 2))]
        whole += part.reshape(shape)
    found = separate(Term((0, 1, 2), whole))
    assert max(len(term.scope) for term in found) == 2
    total = np.zeros_like(whole)
    for term in collect([Term((0, 1, 2), whole)]):
        total += term.values.reshape([n if i in term.scope else 1 for i, n in enumerate((3, 4, 2))])
    assert np.array_equal(total, whole)


def test_evaluate_is_the_sum_of_tables_and_the_largest_row() -> None:
    problem = random_problem(3)
    picks = every_assignment(problem)[::7]
    values = problem.evaluate(picks)
    for row, pick in enumerate(picks):
        for measure in problem.measures:
            sums = [sum(float(t.values[tuple(pick[i] for i in t.scope)]) for t in terms) for terms in measure.rows]
            assert values[measure.name][row] == pytest.approx(max(sums), abs=1e-12)


def test_mistakes_are_named() -> None:
    problem = random_problem(0)
    with pytest.raises(SpecError, match="unknown measure 'joules': known are loss, energy"):
        Solver(problem).best("joules", {})
    with pytest.raises(SpecError, match="at least 1 point"):
        next(front(problem, "loss", "energy", points=0))
    with pytest.raises(SpecError, match="at least one width"):
        Choice("w", ())
    with pytest.raises(SpecError, match="expected a table of"):
        Problem((Choice("w", (2, 4)),), (Measure("m", ((Term((0,), np.zeros(3)),),)),))
