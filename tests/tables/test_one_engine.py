"""One engine: what a layer costs at some widths is one number in the tables and in what `explain` prices."""

from __future__ import annotations

import pytest

from hwsim.machine.load import load_accelerator
from hwsim.network.bits import assign_bits
from hwsim.network.layer import Loops
from hwsim.network.workload import Workload
from hwsim.pricing.stages import effective_layer, fuse
from hwsim.report.widths import Side, Study
from hwsim.search.network import plan_network
from hwsim.tables.grid import Grid
from hwsim.tables.pool import Pool, Widths, anonymous
from tests.strategies import conv, product

ALL = tuple(range(1, 17))
SIDES: tuple[Side, ...] = ("weight", "input")


@pytest.mark.parametrize("spec", ["bit_fusion", "eyeriss_v1", "stripes", "gemmini_16x16", "cortex_m7"])
def test_explain_prices_a_layer_as_the_tables_do(spec: str) -> None:
    """Every width that the machine has, of either operand, under the mapping of a report: same energy, same cycles."""
    machine = load_accelerator(spec)
    layers = [conv(Loops(K=8, C=4, P=5, Q=5, R=3, S=3), name="first"), product(Loops(K=6, C=10), name="last")]
    network = assign_bits(Workload("two", layers), "W8A8")
    plan = plan_network(network, machine, "energy")
    compared = 0
    for stage in fuse(network, machine.capabilities):
        if not stage.layer.has_macs:
            continue
        found = plan.found[stage.layer.name]
        study = Study(stage, found, machine, frozenset(), "energy")
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
