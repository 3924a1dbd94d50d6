"""Weights that several layers multiply: kept on chip they pass the outermost memory once, by a closed form."""

from __future__ import annotations

import dataclasses

import pytest

from hwsim.machine.parts import OPERANDS, Accelerator, Capabilities, MacUnit, Memory, VectorUnit
from hwsim.nest.count import count_accesses
from hwsim.nest.mapping import Hold, Mapping, Temporal
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.kept_weights import fetch_cost, shared_weights
from hwsim.pricing.network import NetworkCost, price_network
from hwsim.pricing.stages import fuse
from hwsim.search.network import plan_network

BITS, N, DRAM, HOME = 8, 4, 100.0, 3.0


def machine(words: int, bandwidth: int | None = None) -> Accelerator:
    """DRAM over one buffer for everything; codes and words of 8 bits."""
    dram = Memory("dram", None, OPERANDS, word_bits=BITS, read_energy_pj=DRAM, write_energy_pj=DRAM,
                  read_bandwidth_bits_per_cycle=bandwidth, shared_port=True)  # fmt: skip
    home = Memory("home", words * BITS, OPERANDS, word_bits=BITS, read_energy_pj=HOME, write_energy_pj=HOME,
                  double_buffered=True)  # fmt: skip
    every = tuple(range(1, 65))
    return Accelerator(
        name="small",
        clock_mhz=100.0,
        node_nm=65.0,
        hierarchy=(dram, home),
        mac=MacUnit("fixed", BITS, BITS, BITS, 1.0),
        vector=VectorUnit(1, 0.1, 0.0),
        capabilities=Capabilities(every, every, every),
    )


def steps(count: int) -> Workload:
    """A product with one weight again and again, each with what the one before it made."""
    x, layers = Tensor("x0", (1, N), BITS), list[Layer]()
    weight = Tensor("w", (N, N), BITS)
    for i in range(count):
        y = Tensor(f"x{i + 1}", (1, N), BITS)
        layers.append(Layer(f"t{i}", "linear", (x,), y, weight, Loops(K=N, C=N), accumulator_bits=BITS))
        x = y
    return Workload("steps", layers)


def billed(workload: Workload, accelerator: Accelerator, *resident: str) -> NetworkCost:
    """All operands whole in the buffer."""
    mapping = Mapping((Hold("dram", OPERANDS), Hold("home", OPERANDS), Temporal("K", N), Temporal("C", N)))
    counts = {layer.name: count_accesses(layer, mapping, accelerator) for layer in workload}
    return price_network(workload, accelerator, counts, resident=frozenset(resident))


def read_outside(cost: NetworkCost) -> int:
    """Words of weights that the outermost memory reads."""
    return sum(m.read_words for c in cost.layers for m in c.moved if (m.memory, m.operand) == ("dram", "weight"))


@pytest.mark.parametrize("count", [2, 5, 9])
def test_a_weight_that_stays_is_read_from_dram_once_and_not_once_a_step(count: int) -> None:
    workload, accelerator = steps(count), machine(64)
    away, at_home = billed(workload, accelerator), billed(workload, accelerator, "w")
    assert (read_outside(away), read_outside(at_home)) == (count * N * N, N * N)
    saved = (count - 1) * N * N * (DRAM + HOME)  # read from DRAM, written into the buffer
    assert away.totals.energy_pj - at_home.totals.energy_pj == pytest.approx(saved)


def test_fetching_takes_the_time_of_the_slow_port_before_the_first_step() -> None:
    workload, accelerator = steps(3), machine(64, bandwidth=4)
    first, second, _ = billed(workload, accelerator, "w").layers
    assert first.latency_cycles - second.latency_cycles == N * N * BITS // 4
    assert dict(first.cycles)["weight fetch"] == N * N * BITS // 4


@pytest.mark.parametrize(("words", "once"), [(64, True), (N * N - 1, False)])
def test_the_plan_keeps_the_weight_where_it_fits(words: int, once: bool) -> None:
    plan = plan_network(steps(4), machine(words), effort="proven")
    assert ("w" in plan.cost.resident) == once
    assert plan.certificate is not None
    assert plan.certificate.lower_bound <= plan.certificate.value
    assert read_outside(plan.cost) == N * N * (1 if once else 4)


def test_tables_of_embeddings_and_weights_used_once_are_not_among_them() -> None:
    workload = steps(2)
    index, rows = Tensor("i", (1,), 8), Tensor("e", (1, N), BITS)
    table = Layer("look_up", "embedding", (index,), rows, weight=Tensor("w", (N, N), BITS))
    assert [w.tensor.name for w in shared_weights(fuse(workload, machine(64).capabilities))] == ["w"]
    tied = Workload("tied", (table, *workload.layers))
    assert shared_weights(fuse(tied, machine(64).capabilities)) == ()
    assert shared_weights(fuse(steps(1), machine(64).capabilities)) == ()


def test_a_shared_weight_stays_from_its_first_product_to_its_last() -> None:
    (kept,) = shared_weights(fuse(steps(4), machine(64).capabilities))
    assert (kept.tensor.name, kept.first, kept.last) == ("w", 0, 3)


@pytest.mark.parametrize(("outside", "inside", "cycles"), [(4, 16, 32), (16, 2, 64), (8, 8, 16)])
def test_fetching_takes_as_long_as_the_slower_of_both_ports(outside: int, inside: int, cycles: int) -> None:
    """16 weights of 8 bits; and it costs a read outside and a write at home of each."""
    plain = machine(64, bandwidth=outside)
    dram, home = plain.hierarchy
    assert isinstance(home, Memory)
    accelerator = dataclasses.replace(
        plain, hierarchy=(dram, dataclasses.replace(home, read_bandwidth_bits_per_cycle=inside, shared_port=True))
    )
    pj, taken = fetch_cost(steps(2).layers[0], dataclasses.replace(accelerator, static_power_mw=1e-12))
    assert taken == cycles
    assert pj == pytest.approx(N * N * (DRAM + HOME))
    assert fetch_cost(steps(2).layers[0], dataclasses.replace(machine(64), static_power_mw=1e-12))[1] == 0.0
