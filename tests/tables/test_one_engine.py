"""One engine: what a layer costs at some widths is one number in the tables and in what `explain` prices."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hwsim.machine.load import load_accelerator
from hwsim.network.bits import assign_bits
from hwsim.network.layer import Loops
from hwsim.network.workload import Workload
from hwsim.pricing.stages import effective_layer, fuse
from hwsim.report.evaluation import Request, evaluate_workload
from hwsim.report.explain import explain
from hwsim.search.network import plan_network
from hwsim.tables.grid import Grid
from hwsim.tables.mapped import SIDES, MappedStage
from hwsim.tables.network_table import NetworkTable
from hwsim.tables.pool import Pool, Widths, anonymous, at_widths
from tests.strategies import conv, product

ALL = tuple(range(1, 17))


def two_layers() -> Workload:
    layers = [conv(Loops(K=8, C=4, P=5, Q=5, R=3, S=3), name="first"), product(Loops(K=6, C=10), name="last")]
    return Workload("two", layers)


def with_proven_sums(network: Workload, saved_bits: int) -> Workload:
    """The network as the integer machine leaves it: accumulators narrower than the widths of the factors alone need."""
    layers = [dataclasses.replace(y, accumulator_bits=y.accumulator_bits_needed() - saved_bits) for y in network]
    return Workload(network.name, layers)


@pytest.mark.parametrize(
    ("spec", "saved_bits"),
    [("bit_fusion", 0), ("eyeriss_v1", 0), ("stripes", 0), ("gemmini_16x16", 0), ("cortex_m7", 0), ("eyeriss_v2", 5)],
)
def test_a_whole_bill_is_the_entry_of_the_tables(spec: str, saved_bits: int) -> None:
    """Every width that the machine has, of either operand, under the mapping of a report: same energy, same cycles."""
    machine = load_accelerator(spec)
    network = with_proven_sums(assign_bits(two_layers(), "W8A8"), saved_bits)
    plan = plan_network(network, machine, "energy")
    compared = 0
    for stage in fuse(network, machine.capabilities):
        if not stage.layer.has_macs:
            continue
        found = plan.found[stage.layer.name]
        study = MappedStage(stage, found, machine, frozenset())
        layer = anonymous(effective_layer(stage))
        pool = Pool(layer, machine, (found.mapping,), (found.counts,))
        for place, side in enumerate(SIDES):
            widths = [(study.tensor("weight").bits,), (study.tensor("input").bits,), (study.layer.output.bits,)]
            widths[place] = ALL
            grid = Grid(layer, machine, Widths(*widths))
            prices = grid.prices(pool)
            cycles = prices.cycles(grid.vector)
            energy = prices.energy_pj(cycles)
            for i, bits in enumerate(ALL):
                at = study.at(side, bits)
                index = (0, i, 0, 0) if side == "weight" else (0, 0, i, 0)
                if not at.refusals() and not at.misfit():
                    assert (energy[index], cycles[index]) == (at.cost.total_energy_pj, at.cost.latency_cycles)
                    compared += 1
    assert compared >= 8


def test_explain_has_no_prices_of_its_own() -> None:
    """What it says of a width is the difference of two entries of the tables."""
    machine = load_accelerator("eyeriss_v2")
    report = evaluate_workload(assign_bits(two_layers(), "W8A8"), machine, Request(effort="quick"))
    stages = {s.layer.name: s for s in fuse(report.workload, machine.capabilities)}
    compared = 0
    for part in explain(report):
        here = MappedStage(stages[part.layer], report.found[part.layer], machine, frozenset(report.cost.resident))
        for change in (part.fewer, part.more, part.next_saving):
            if change is not None and not change.remapped and change.verdict in ("saves", "same", "costs"):
                there = here.at(part.operand, change.bits).cost
                assert change.energy_pj == there.total_energy_pj - here.cost.total_energy_pj
                assert change.cycles == there.latency_cycles - here.cost.latency_cycles
                compared += 1
    assert compared >= 4


def test_proven_accumulators_bound_narrower_factors_only() -> None:
    network = with_proven_sums(assign_bits(two_layers(), "W8A8"), 5)
    first = network.layers[0]
    proven = first.accumulator_bits
    assert proven is not None
    assert at_widths(first, 8, 7, 8).accumulator_bits == proven  # 4 * 9 terms of 8 x 7 bits alone would need more
    assert (
        at_widths(first, 2, 2, 8).accumulator_bits
        == at_widths(two_layers().layers[0], 2, 2, 8).accumulator_bits_needed()
    )
    assert at_widths(first, 9, 8, 8).accumulator_bits is None
    assert at_widths(anonymous(first), 8, 8, 8).accumulator_bits == proven


@pytest.mark.long
@pytest.mark.parametrize("spec", ["bit_fusion", "eyeriss_v2"])
def test_a_row_of_assignments_and_evaluate_enclose_each_other(spec: str) -> None:
    """The tables' bound, what `evaluate` finds for the same bits, the tables' price: in this order.

    Where no tensor can stay on chip, proven tables and `evaluate` meet: one answer from both.
    """
    machine = load_accelerator(spec)
    chain = [product(Loops(K=4, C=3), name="first"), product(Loops(K=2, C=4), name="last")]
    chain[1] = dataclasses.replace(chain[1], inputs=(chain[0].output,))
    alone = machine.activation_memory is None
    table = NetworkTable.build(Workload("chain", chain), machine, (4, 8), effort="proven" if alone else "quick")
    for row in table.random(2, np.random.default_rng(0)):
        priced = table.price(row[None])
        found = evaluate_workload(table.workload_at(row), machine, Request()).energy_pj
        assert priced.lower_bound_pj[0] <= found <= priced.energy_pj[0]
        if alone:
            assert priced.energy_pj[0] == found
