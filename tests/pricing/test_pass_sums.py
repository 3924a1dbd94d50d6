"""Bills of a batch in several passes: every entry is so many times one pass and so many times the other."""

from __future__ import annotations

from dataclasses import fields, replace

from hwsim.machine.load import load_accelerator
from hwsim.pricing.layer import LayerCost, Part
from hwsim.pricing.moves import Moved
from hwsim.pricing.network import Totals
from hwsim.pricing.offsets import OffsetCost
from hwsim.pricing.passes import layer_sum, offset_sum, passes_cost, totals_sum
from hwsim.search.network import plan_network
from tests.small_workloads import chain

SUMMED = ("energy_pj", "latency_cycles", "latency_s", "traffic_bits", "outermost_traffic_bits")


def test_totals_of_passes_are_their_sums_and_what_is_held_counts_once() -> None:
    """3 passes of `a` and 5 of `b`; energy times time is that of the sums, no sum of products."""
    a = Totals(*(100 + i for i, _ in enumerate(fields(Totals))))
    b = Totals(*(1000 + 7 * i for i, _ in enumerate(fields(Totals))))
    found = totals_sum([(3, a), (5, b)])
    for name in SUMMED:
        assert getattr(found, name) == 3 * getattr(a, name) + 5 * getattr(b, name), name
    assert found.edp_pj_s == found.energy_pj * found.latency_s
    kept = {field.name: getattr(a, field.name) for field in fields(Totals) if field.name not in (*SUMMED, "edp_pj_s")}
    assert {name: getattr(found, name) for name in kept} == kept


def test_a_layers_bill_over_passes_sums_parts_cycles_and_words_by_name() -> None:
    """2 passes of one bill, 3 of another whose weights have words of another width and which lacks the hops."""
    a = LayerCost(
        "c", (Part("dram", "weight", 7.0), Part("dram", "input", 11.0), Part("hops", "", 13.0)), 17,
        (("mac", 19), ("dram", 23)), "dram",
        (Moved("dram", "weight", "final", 29, 31, 64), Moved("dram", "input", "final", 37, 41, 64)),
        OffsetCost(extra_bits=3, extra_adds=5, extra_read_bits=7, extra_write_bits=11, border_codes=13),
    )  # fmt: skip
    b = LayerCost(
        "c", (Part("dram", "input", 43.0), Part("dram", "weight", 47.0)), 53, (("dram", 59), ("mac", 61)), "mac",
        (Moved("dram", "weight", "final", 67, 71, 32), Moved("dram", "input", "final", 73, 79, 64)),
        OffsetCost(extra_bits=3, extra_adds=83, extra_read_bits=89, extra_write_bits=97, border_codes=101),
    )  # fmt: skip
    found = layer_sum([(2, a), (3, b)])
    assert found.parts == (
        Part("dram", "weight", 2 * 7.0 + 3 * 47.0), Part("dram", "input", 2 * 11.0 + 3 * 43.0), Part("hops", "", 26.0),
    )  # fmt: skip
    assert found.latency_cycles == 2 * 17 + 3 * 53
    assert dict(found.cycles) == {"mac": 2 * 19 + 3 * 61, "dram": 2 * 23 + 3 * 59}
    assert found.moved == (
        Moved("dram", "weight", "final", 58, 62, 64),
        Moved("dram", "input", "final", 2 * 37 + 3 * 73, 2 * 41 + 3 * 79, 64),
        Moved("dram", "weight", "final", 201, 213, 32),
    )
    assert found.offset == OffsetCost(
        extra_bits=3, extra_adds=2 * 5 + 3 * 83, extra_read_bits=2 * 7 + 3 * 89, extra_write_bits=2 * 11 + 3 * 97,
        border_codes=2 * 13 + 3 * 101,
    )  # fmt: skip
    assert (found.name, found.bottleneck) == ("c", "dram")


def test_one_pass_is_itself() -> None:
    one = OffsetCost("constant", 3, 5, 7, 11, "why", 13)
    assert offset_sum([(1, one)]) == one
    assert offset_sum([(4, one)]) == replace(
        one, extra_adds=20, extra_read_bits=28, extra_write_bits=44, border_codes=52
    )


def test_passes_can_be_timed_at_other_rates_where_each_of_them_can() -> None:
    machine, network = load_accelerator("simba"), chain(6)
    one = plan_network(network, machine, effort="quick").cost
    assert one.timed is not None
    three = passes_cost(network, machine, [(2, one), (1, one)])
    assert three.timed is not None
    assert three.totals.latency_cycles == 3 * one.totals.latency_cycles
    assert three.totals.peak_activation_bits == one.totals.peak_activation_bits
    assert passes_cost(network, machine, [(2, one), (1, replace(one, timed=None))]).timed is None
