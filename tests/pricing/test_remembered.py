"""What is remembered between questions: bills, counts, properties of a machine. None of it changes an answer."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.nest.count import Shape, count_accesses, counted
from hwsim.nest.counts import Conventions
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.pricing import layer as pricing
from hwsim.pricing.latency import Load, limited_ports, port_cycles
from hwsim.pricing.residents import spent, spent_pj
from hwsim.pricing.stages import fuse
from hwsim.search.layer import search
from hwsim.search.network import search_network
from tests.small_workloads import pooled, residual


def convolution(bits: int) -> Layer:
    """A small convolution with all operands of one width."""
    return Layer(
        name="conv", op="conv", loops=Loops(N=1, G=1, K=8, C=6, P=7, Q=7, R=3, S=3),
        inputs=(Tensor("x", (1, 6, 9, 9), bits),), output=Tensor("y", (1, 8, 7, 7), bits),
        weight=Tensor("w", (8, 6, 3, 3), bits),
    )  # fmt: skip


def test_remembered_bills_and_counts_equal_fresh_ones() -> None:
    machine = load_accelerator("eyeriss_v1")
    for bits in (8, 4):
        layer = convolution(bits)
        found = search(layer, machine)
        fresh = counted.__wrapped__(Shape(layer.shape_key(), layer), found.mapping, machine, Conventions())
        assert count_accesses(layer, found.mapping, machine) == fresh
        asked = (layer, fresh, machine, (), (), 0.0, True)
        assert pricing.price(layer, fresh, machine) == pricing.priced.__wrapped__(*asked) == found.cost


def test_a_machine_is_pickled_without_what_it_remembers() -> None:
    machine = load_accelerator("eyeriss_v1")
    before = pickle.dumps(machine)
    assert hash(machine)
    assert machine.outermost is machine.memories[0]
    assert pickle.dumps(machine) == before
    again = pickle.loads(before)
    assert isinstance(again, Accelerator)
    assert again == machine
    assert hash(again) == hash(machine)


@given(st.integers(0, 10**15), st.integers(1, 10**4))
def test_port_cycles_round_up_exactly(bits: int, instances: int) -> None:
    machine = load_accelerator("eyeriss_v1")
    for port in limited_ports(machine):
        load: Load = {(port.memory, port.directions[0]): bits}
        cycles = port_cycles(load, machine, {port.memory: instances})[f"{port.memory} {port.name}"]
        assert cycles == math.ceil(Fraction(bits, instances) / port.bandwidth)


def test_stages_that_differ_by_names_alone_pay_what_each_pays_under_its_own() -> None:
    machine = load_accelerator("eyeriss_v1")
    for workload in (residual(), pooled()):
        counts = {name: found.counts for name, found in search_network(workload, machine).items()}
        for stage in fuse(workload, machine.capabilities):
            names = {tensor.name for tensor in (*stage.inputs, stage.output)}
            mine = counts.get(stage.layer.name)
            for resident in (frozenset[str](), *(frozenset((name,)) for name in names), frozenset(names)):
                assert spent_pj(stage, machine, mine, resident) == spent.__wrapped__(stage, machine, mine, resident)
