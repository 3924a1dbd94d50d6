"""The tables of a bits problem are the prices of the network, and its choices respect groups, machines and limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hwsim.errors import CapabilityError, SpecError
from hwsim.explore.bits.allocate import Solver, front
from hwsim.explore.bits.bill import BitProblem, bit_problem
from hwsim.explore.bits.choices import Freedom, Limit, Site, free_choices, parse_limit, parse_widths
from hwsim.explore.bits.problem import InfeasibleBudget
from hwsim.explore.bits.solve import solve_bits
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator, Array, Memory
from hwsim.network.bits import assign_bits
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.fit import overflows
from tests.explore.problems import enumerated_front
from tests.strategies import conv

SLOW = pytest.mark.slow
SPECS = ("bit_fusion", *(pytest.param(spec, marks=SLOW) for spec in ("eyeriss_v2", "unpu", "cortex_m7")))


def residual() -> Workload:
    """Convolution, ReLU, convolution, addition with the first's output, ReLU, a linear layer."""
    first = conv(Loops(K=4, C=3, P=6, Q=6, R=3, S=3), name="first")
    relu = Layer("relu", "relu", (first.output,), dataclasses.replace(first.output, name="relu.y", origin="relu"))
    second = dataclasses.replace(conv(Loops(K=4, C=4, P=6, Q=6), name="second"), inputs=(relu.output,))
    total = dataclasses.replace(second.output, name="add.y")
    add = Layer("add", "add", (second.output, relu.output), total)
    relu2 = Layer("relu2", "relu", (total,), dataclasses.replace(total, name="relu2.y", origin="relu"))
    pooled = Tensor("pool.y", (1, 4, 1, 1), 8, origin="avg_pool")
    pool = Layer("pool", "avg_pool", (relu2.output,), pooled, window=36)
    deep = dataclasses.replace(conv(Loops(K=5, C=4), name="last"), inputs=(pooled,))
    return Workload("residual", [first, relu, second, add, relu2, pool, deep])


def free_of(machine: Accelerator, *weights: int) -> Freedom:
    """Up to three widths that the machine has."""
    can = machine.capabilities
    widths = tuple(w for w in weights if w in can.weight_bits)
    activations = tuple(w for w in weights if w in can.activation_bits and w in can.output_bits)
    return Freedom(widths, activations, "free")


def alone(problem: BitProblem, picks: np.ndarray) -> tuple[float, int]:
    """Energy and cycles of an assignment with no tensor kept on chip, from `table.py`'s pricing of the same plan."""
    from hwsim.report.look_up import priced_alone
    from hwsim.search.network import plan_network

    network = problem.at(problem.problem.solution(picks))
    plan = plan_network(network, problem.accelerator, problem.objective)
    costs = priced_alone(network, problem.accelerator, plan)
    return sum(c.total_energy_pj for c in costs), sum(c.latency_cycles for c in costs)


@pytest.mark.parametrize("spec", SPECS)
def test_tables_are_prices_of_the_network(spec: str) -> None:
    """Bits held equal the report's to the bit; energy is that of no worse mappings than a search of these widths."""
    machine = load_accelerator(spec)
    made = bit_problem(residual(), machine, free_of(machine, 2, 4, 8))
    rng = np.random.default_rng(0)
    for picks in made.problem.random_picks(2, rng):
        values = made.problem.solution(picks).values
        plan = made.exact(made.problem.solution(picks))
        totals = plan.cost.totals
        assert values["weight_bits"] == totals.weight_bits
        assert values["peak_activation_bits"] == totals.peak_activation_bits
        assert values["bops"] == totals.bops
        energy, cycles = alone(made, picks)
        assert values["energy_pj"] == pytest.approx(energy, rel=0.02)
        assert values["latency_cycles"] <= 1.25 * cycles
        assert totals.energy_pj <= 1.02 * values["energy_pj"]


@pytest.mark.parametrize("spec", ["bit_fusion", pytest.param("unpu", marks=SLOW)])
def test_with_one_mapping_per_layer_tables_equal_pricing_exactly(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from hwsim.report.look_up import priced_alone
    from hwsim.search.network import planned, search_network

    machine = load_accelerator(spec)
    monkeypatch.setattr("hwsim.tables.choice_tables.corners", lambda shape: [tuple(n - 1 for n in shape)])
    made = bit_problem(residual(), machine, free_of(machine, 2, 4, 8))
    widest = made.at(made.problem.solution([len(c.widths) - 1 for c in made.problem.choices]))
    found = search_network(widest, machine, "energy")
    for picks in made.problem.random_picks(10, np.random.default_rng(1)):
        network = made.at(made.problem.solution(picks))
        costs = priced_alone(network, machine, planned(network, machine, found))
        values = made.problem.solution(picks).values
        assert values["energy_pj"] == sum(c.total_energy_pj for c in costs)
        assert values["latency_cycles"] == sum(c.latency_cycles for c in costs)


@pytest.mark.parametrize("spec", ["stripes", pytest.param("eyeriss_v2", marks=SLOW)])
def test_with_what_stays_on_chip_given_tables_equal_the_whole_price(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from hwsim.explore.bits import bill
    from hwsim.search.network import planned

    machine = load_accelerator(spec)
    monkeypatch.setattr("hwsim.tables.choice_tables.corners", lambda shape: [])
    made = bit_problem(residual(), machine, free_of(machine, 2, 4, 8), on_chip=True)
    plan = bill.widest_plan(made.workload, machine, made.freed, "energy")
    assert plan is not None
    assert plan.cost.resident
    for picks in made.problem.random_picks(6, np.random.default_rng(4)):
        whole = planned(made.at(made.problem.solution(picks)), machine, plan.found).cost
        assert whole.resident == plan.cost.resident
        values = made.problem.solution(picks).values
        assert values["energy_pj"] == whole.totals.energy_pj
        assert values["latency_cycles"] == whole.totals.latency_cycles


def test_tables_with_tensors_on_chip_come_close_to_the_whole_price() -> None:
    machine = load_accelerator("stripes")
    freedom = free_of(machine, 2, 4, 8)
    kept, outside = (bit_problem(residual(), machine, freedom, on_chip=stay) for stay in (True, False))
    for picks in kept.problem.random_picks(6, np.random.default_rng(5)):
        solution = kept.problem.solution(picks)
        whole = kept.exact(solution).cost.totals.energy_pj
        assert solution.values["energy_pj"] == pytest.approx(whole, rel=0.02)
        assert solution.values["energy_pj"] < outside.problem.solution(picks).values["energy_pj"]


def test_front_of_a_network_equals_enumeration() -> None:
    machine = load_accelerator("bit_fusion")
    sites = [Site(n, o) for n in ("first", "second", "last") for o in ("weight", "input")] + [Site("add", "input")]
    rng = np.random.default_rng(3)
    losses = {
        site: {w: float(rng.random()) * 4.0**-w for w in (2, 4, 8)} for site in sites if site != Site("last", "input")
    }
    made = bit_problem(residual(), machine, Freedom((2, 4, 8), (2, 8), "free", elementwise_bits="same"), losses)
    assert 100 < made.problem.combinations < 20000
    for against in ("energy_pj", "latency_cycles"):
        found = [(s.values["loss"], s.values[against]) for s in front(made.problem, "loss", against)]
        assert found == enumerated_front(made.problem, ("loss", against), {})
    budget = {"weight_bits": 2000.0, "peak_activation_bits": 2400.0}
    found = [(s.values["loss"], s.values["energy_pj"]) for s in front(made.problem, "loss", "energy_pj", budget)]
    assert found == enumerated_front(made.problem, ("loss", "energy_pj"), budget)


def test_chosen_bits_read_back_as_a_bits_file() -> None:
    machine = load_accelerator("bit_fusion")
    made = bit_problem(residual(), machine, Freedom((2, 4, 8), (2, 4, 8), "free"))
    for picks in made.problem.random_picks(5, np.random.default_rng(2)):
        solution = made.problem.solution(picks)
        network = assign_bits(residual(), {"default": "W8A8", **made.bits_file(solution)})
        assert {n: t.bits for n, t in network.tensors.items()} == {
            n: t.bits for n, t in made.at(solution).tensors.items()
        }


def test_tensors_that_share_are_one_choice_and_policy_keeps_both_ends() -> None:
    machine = load_accelerator("bit_fusion")
    freed = free_choices(residual(), machine, Freedom((2, 4), (2, 4), "8bit"))
    groups = {tensor: entry.choice for entry in freed for tensor in entry.choice.tensors}
    assert groups["relu.y"] is groups["second.y"] is groups["first.y"]
    assert groups["relu.y"].widths == (2, 4)
    kept = ("first.x", "first.w", "last.w", "pool.y", "last.y")
    assert {groups[name].widths for name in kept} == {(8,)}
    assert groups["add.y"].widths == (8,)  # nothing rounds it: a pool reads it, and no sensitivity covers it
    sites = {site for entry in freed for site in entry.sites}
    assert Site("add", "input") in sites
    assert Site("pool", "input") not in sites


def test_limits_narrow_the_choice_and_contradictions_are_named() -> None:
    machine = load_accelerator("bit_fusion")

    def widths(*limits: Limit) -> tuple[int, ...]:
        freed = free_choices(residual(), machine, Freedom((2, 4, 8), (2, 4, 8), "free", limits))
        return next(entry.choice.widths for entry in freed if "relu.y" in entry.choice.tensors)

    assert widths(parse_limit("second.input=4..8")) == (4, 8)
    assert widths(parse_limit("second.input=4..8"), parse_limit("add.input=2,4")) == (4,)
    with pytest.raises(SpecError, match=r"second.input=2 and .*add.input=8: contradict each other .* relu.y"):
        widths(parse_limit("second.input=2"), parse_limit("add.input=8"))
    with pytest.raises(SpecError, match=r"matches no layer; did you mean second"):
        widths(parse_limit("secnd.input=2"))


def test_widths_that_the_machine_lacks_are_refused() -> None:
    with pytest.raises(CapabilityError, match=r"bit_fusion runs .* allowed are 3: allow one that it runs"):
        free_choices(residual(), load_accelerator("bit_fusion"), Freedom((3,), (4,), "free"))


@pytest.mark.parametrize(
    ("text", "widths"), [("2..4", (2, 3, 4)), ("8,2", (2, 8)), ("16", (16,)), ("1..2,8", (1, 2, 8))]
)
def test_widths_are_read(text: str, widths: tuple[int, ...]) -> None:
    assert parse_widths(text, "--weights") == widths


@pytest.mark.parametrize(
    ("text", "said"), [("", "like 2..8"), ("4..2", "empty"), ("0..3", "1 to 16"), ("a", "like 2..8")]
)
def test_bad_widths_are_named(text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse_widths(text, "--weights")


def test_a_width_without_sensitivity_is_named() -> None:
    machine = load_accelerator("bit_fusion")
    losses = {Site("second", "weight"): {4: 0.1}}
    with pytest.raises(SpecError, match=r"not measured: second.weight at 2 bits"):
        bit_problem(residual(), machine, Freedom((2, 4), (2, 4), "free"), losses)


def test_peak_budget_holds_on_the_whole_network() -> None:
    made = bit_problem(residual(), load_accelerator("bit_fusion"), Freedom((2, 4, 8), (2, 4, 8), "free"))
    solver = Solver(made.problem)
    low = solver.best("peak_activation_bits", {})
    limited = solver.best("bops", {"peak_activation_bits": low.values["peak_activation_bits"]})
    assert made.exact(limited).cost.totals.peak_activation_bits == low.values["peak_activation_bits"]


def test_an_array_is_stored_in_its_widest_form() -> None:
    """A reader that needs more than what is stored is refused; tied, all readers that vary share a width."""
    machine = load_accelerator("bit_fusion")
    for between, tied, refused in ((8, False, 0), (4, False, 1), ("same", False, 1), ("same", True, 0)):
        made = bit_problem(residual(), machine, Freedom((4,), (2, 4, 8), "free", (), between, tied))
        assert len(made.problem.refusals) == refused
        for picks in made.problem.random_picks(8, np.random.default_rng(0)):
            network = made.at(made.problem.solution(picks))
            assert between == "same" or {t.bits for x in network if x.op == "add" for t in x.inputs} == {between}
            assert all(x.output.bits <= x.inputs[0].bits for x in network if x.op == "requantize")
            assert [x.name for x in network] == [x.name for x in made.workload]
    limited = Freedom((4,), (2, 4), "free", (parse_limit("second.input=4"),), 2)
    with pytest.raises(SpecError, match=r"stored in at most 2 bits, second.input_quantizer needs at least 4"):
        bit_problem(residual(), machine, limited)


def bounded(machine: Accelerator, outer_bits: int, home_bits: int | None = None) -> Accelerator:
    """The machine with so many bits in its outermost memory, and on chip where that is given."""
    home = machine.activation_memory

    def sized(node: Memory | Array) -> Memory | Array:
        if node is machine.outermost:
            return dataclasses.replace(machine.outermost, total_bits=outer_bits)
        return dataclasses.replace(node, size_bits=home_bits) if node is home and home_bits else node

    return dataclasses.replace(machine, hierarchy=tuple(sized(node) for node in machine.hierarchy))


@pytest.mark.parametrize("spec", ["cortex_m7", "max78000", "bit_fusion"])
def test_rooms_are_the_bits_that_each_choice_needs_of_bounded_memories(spec: str) -> None:
    machine = bounded(load_accelerator(spec), 1)
    made = bit_problem(residual(), machine, free_of(machine, 2, 4, 8))
    assert made.rooms
    for picks in made.problem.random_picks(12, np.random.default_rng(0)):
        solution = made.problem.solution(picks)
        needs = {f"bits in {found.memory}": found.need_bits for found in overflows(made.at(solution), machine)}
        assert needs == {name: value for name, value in solution.values.items() if value > made.rooms.get(name, np.inf)}


def test_bits_are_chosen_among_those_that_fit_bounded_memories() -> None:
    fine = load_accelerator("max78000")
    free = free_of(fine, 2, 4, 8)
    wide = bit_problem(residual(), bounded(fine, 1), free)
    least = int(Solver(wide.problem).best("bits in weights", {}).values["bits in weights"])
    found = solve_bits(residual(), bounded(fine, least), free, None, on_chip=False)
    assert not overflows(found[0].problem.at(found[0].solution), bounded(fine, least))
    assert [point.name for point in found.uniform] == ["W2A2"]
    with pytest.raises(InfeasibleBudget, match=r"(?s)bits in weights: budget .* or --allow-overflow"):
        solve_bits(residual(), bounded(fine, least - 72), free, None, on_chip=False)
    over = solve_bits(residual(), bounded(fine, least - 72), free, None, on_chip=False, allow_overflow=True)
    assert [point.name for point in over.uniform] == ["W2A2", "W4A4", "W8A8"]
