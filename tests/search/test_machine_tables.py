"""Answers from tables over machines against a proof of its own for every machine."""

from __future__ import annotations

import dataclasses
import math
import os
import random
from pathlib import Path

import pytest

from hwsim.errors import HwsimError
from hwsim.machine.parts import Accelerator, Array, Memory
from hwsim.nest.legal import validate
from hwsim.network.layer import Layer
from hwsim.pricing.rounding import rounding_pj
from hwsim.search.effort import Options
from hwsim.search.layer import prove
from hwsim.search.machines import storage
from hwsim.search.machines.answers import MachineAnswers, covered, varies_linearly
from hwsim.search.machines.box import Box, sizes
from hwsim.search.proof.native import why_not_compiled
from hwsim.search.result import Effortful, Found
from hwsim.search.space.problem import Problem
from hwsim.search.space.timing import Timing, rounding_cycles
from tests.search.test_search_machines import small_layer, some_machine, uneven_layer

pytestmark = pytest.mark.skipif(bool(why_not_compiled()), reason=why_not_compiled())
ALIKE = ("read_energy_pj", "write_energy_pj")


def scaled(machine: Accelerator, name: str, factor: float) -> Accelerator:
    """A machine with one thing changed: a memory's energies or bandwidths, an array's hops, or the idle power."""
    if name == "idle":
        return dataclasses.replace(machine, static_power_mw=factor * machine.static_power_mw)
    nodes: list[Memory | Array] = []
    for node in machine.hierarchy:
        if isinstance(node, Array) and name == f"{node.name} hop":
            node = dataclasses.replace(node, hop_energy_pj_per_bit=factor * node.hop_energy_pj_per_bit)
        elif isinstance(node, Memory) and name == f"{node.name} energy":
            node = dataclasses.replace(node, **{key: factor * getattr(node, key) for key in ALIKE})
        elif isinstance(node, Memory) and name == f"{node.name} bandwidth" and node.read_bandwidth_bits_per_cycle:
            limit = factor * node.read_bandwidth_bits_per_cycle
            node = dataclasses.replace(node, read_bandwidth_bits_per_cycle=limit)
        nodes.append(node)
    return dataclasses.replace(machine, hierarchy=tuple(nodes))


def resized(rng: random.Random, machine: Accelerator) -> Accelerator:
    """A machine with every size as it is, half or twice."""
    nodes = [
        dataclasses.replace(node, size_bits=max(node.word_bits, int(node.size_bits * rng.choice((0.5, 1, 2)))))
        if isinstance(node, Memory) and node.size_bits is not None and not node.partitions
        else node
        for node in machine.hierarchy
    ]
    return dataclasses.replace(machine, hierarchy=tuple(nodes))


def question(seed: int) -> tuple[random.Random, Layer, Accelerator, dict[str, tuple[float, float]]]:
    """A layer, a machine, and what varies how far."""
    rng = random.Random(seed)
    while True:
        machine = some_machine(rng)
        if varies_linearly(machine):
            break
    machine = dataclasses.replace(machine, static_power_mw=rng.choice((0.0, 0.5, 2.0)))
    layer = (uneven_layer if seed % 2 else small_layer)(rng)
    names = ["idle", *(f"{array.name} hop" for array in machine.arrays)]
    names += [f"{memory.name} {what}" for memory in machine.memories for what in ("energy", "bandwidth")]
    chosen = rng.sample(names, k=rng.randint(1, min(4, len(names))))
    return rng, layer, machine, {name: (rng.uniform(0.3, 1.0), rng.uniform(1.0, 3.0)) for name in chosen}


def compare(seed: int, count: int = 4) -> tuple[int, int]:
    """Machines answered from tables, each equal to its own proof, and machines left to one."""
    rng, layer, base, ranges = question(seed)
    effort: Effortful = "proven" if seed % 2 else "perfect"
    box = Box.spanned(base, [[scaled(base, name, end) for end in ends] for name, ends in ranges.items()])
    answers = MachineAnswers(box)
    for _ in range(count):
        machine = resized(rng, base)
        for name, (low, high) in ranges.items():
            machine = scaled(machine, name, rng.choice((low, high, rng.uniform(low, high))))
        problem = Problem(layer, machine)
        try:
            fresh = prove(problem, "energy", seeds=(), cutoff=math.inf, options=Options(0.0, None, effort))
        except HwsimError:
            assert answers.find(problem, "energy", effort) is None
            continue
        found = answers.find(problem, "energy", effort)
        if found is None:
            continue
        assert isinstance(fresh, Found)
        assert not validate(found.mapping, layer, machine)
        mine, theirs = found.certificate, fresh.certificate
        more = rounding_pj(problem.unit, machine)
        more += problem.unit.static_pj_per_cycle * rounding_cycles(Timing(problem))
        assert mine.value == pytest.approx(theirs.value, rel=1e-8, abs=more)
        assert mine.lower_bound <= theirs.value * (1 + 1e-8)
        assert theirs.lower_bound <= mine.value * (1 + 1e-8)
        assert mine.lower_bound == pytest.approx(theirs.lower_bound, rel=1e-8, abs=more)
        assert mine.space == theirs.space
        assert mine.exhaustive
    return answers.answered, answers.refused


@pytest.mark.parametrize("seed", range(36))
def test_tables_equal_a_proof_of_every_machine(seed: int) -> None:
    compare(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 400))
def test_tables_equal_proofs_of_1200_machines(seed: int) -> None:
    compare(seed)


def test_most_machines_are_answered_from_tables() -> None:
    answered, refused = map(sum, zip(*(compare(seed, 6) for seed in range(40, 50)), strict=True))
    assert answered > 3 * refused


def test_a_machine_outside_of_the_box_is_left_to_its_own_proof() -> None:
    _, layer, base, _ = question(0)
    name = f"{base.memories[0].name} energy"
    answers = MachineAnswers(Box.spanned(base, [[scaled(base, name, 0.5), scaled(base, name, 2.0)]]))
    assert answers.find(Problem(layer, scaled(base, name, 1.9)), "energy", "perfect") is not None
    assert answers.find(Problem(layer, scaled(base, name, 2.1)), "energy", "perfect") is None
    assert answers.find(Problem(layer, base), "latency", "perfect") is None
    other = dataclasses.replace(
        base, hierarchy=(*base.hierarchy[:-1], dataclasses.replace(base.hierarchy[-1], source="x"))
    )
    assert answers.find(Problem(layer, other), "energy", "perfect") is not None


def test_a_known_machine_is_answered_without_another_lattice() -> None:
    rng, layer, base, _ = question(2)
    name = f"{base.memories[0].name} energy"
    answers = MachineAnswers(Box.spanned(base, [[scaled(base, name, 0.9), scaled(base, name, 1.1)]]))
    for _ in range(30):
        answers.find(Problem(layer, scaled(base, name, rng.uniform(0.9, 1.1))), "energy", "perfect")
    (table,) = answers.tables.values()
    assert table is not None
    covered = table.cells[sizes(base)].covered
    assert answers.find(Problem(layer, scaled(base, name, 1.01)), "energy", "perfect") is not None
    assert table.cells[sizes(base)].covered == covered


def test_weights_give_back_the_parameters_of_a_machine() -> None:
    _, _, base, _ = question(4)
    names = [*[f"{memory.name} energy" for memory in base.memories][:2], "idle"]
    box = Box.spanned(base, [[scaled(base, name, 0.5), scaled(base, name, 2.0)] for name in names])
    machine = scaled(scaled(base, names[0], 0.7), names[1], 1.9)
    weights = box.weights(machine)
    assert weights is not None
    assert weights.sum() == pytest.approx(1.0)
    assert (weights >= 0).all()
    corners = [box.machine_at(corner, base)[0] for corner in box.corners]
    for place, memory in enumerate(machine.memories):
        mean = sum(w * c.memories[place].read_energy_pj for w, c in zip(weights, corners, strict=True))
        assert mean == pytest.approx(memory.read_energy_pj)


def test_a_table_read_back_answers_without_another_lattice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSIM_CACHE", str(tmp_path))
    _, layer, base, _ = question(6)
    name = f"{base.memories[0].name} energy"
    box = Box.spanned(base, [[scaled(base, name, 0.5), scaled(base, name, 2.0)]])
    machines = [scaled(base, name, factor) for factor in (0.5, 0.8, 1.0, 1.7, 2.0)]
    first, again = MachineAnswers(box), MachineAnswers(box)
    before = [first.find(Problem(layer, machine), "energy", "perfect") for machine in machines]
    first.save()
    after = [again.find(Problem(layer, machine), "energy", "perfect") for machine in machines]
    assert all(found is not None for found in before)
    assert [f and f.mapping for f in after] == [f and f.mapping for f in before]
    assert [f and f.certificate.value for f in after] == [f and f.certificate.value for f in before]
    (mine,), (theirs,) = first.tables.values(), again.tables.values()
    assert mine is not None
    assert theirs is not None
    assert covered(theirs) == covered(mine) > 0
    (path,) = (tmp_path / "machine_tables").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"x")  # damaged: made anew
    third = MachineAnswers(box)
    assert third.find(Problem(layer, machines[1]), "energy", "perfect") is not None
    assert not third.written


def test_tables_on_disk_take_no_more_than_their_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MOST_BYTES", 100)
    for i in range(4):
        (tmp_path / f"{i}.npz").write_bytes(b"x" * 40)
        os.utime(tmp_path / f"{i}.npz", (i, i))
    storage.prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.npz", "3.npz"]
