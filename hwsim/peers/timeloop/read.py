"""Timeloop files as a machine, a workload, a mapping and prices of ours, with the report of the translation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwsim.machine.parts import Accelerator, Operand
from hwsim.nest.mapping import Mapping as Nest
from hwsim.network.layer import Layer
from hwsim.peers.accelergy import Prices, read_prices
from hwsim.peers.draft import Draft, bare_name
from hwsim.peers.einsum import Einsum
from hwsim.peers.report import TranslationReport
from hwsim.peers.tagged_yaml import Item
from hwsim.peers.timeloop.accounting import Account, Rules, account, levels_of
from hwsim.peers.timeloop.architecture import Chain, read_architecture
from hwsim.peers.timeloop.documents import Documents, read_documents
from hwsim.peers.timeloop.machine import latches, read_machine
from hwsim.peers.timeloop.mapping import read_mapping
from hwsim.peers.timeloop.problem import USUAL_DIMS, USUAL_SPACES, read_problem
from hwsim.peers.timeloop.rules import read_rules


@dataclass
class Timeloop:
    """Everything that the files said; parts that they did not hold are None."""

    documents: Documents
    prices: Prices
    report: TranslationReport
    einsum: Einsum | None = None
    layer: Layer | None = None
    chain: Chain | None = None
    draft: Draft | None = None
    nest: Nest | None = None

    def machine(self) -> Accelerator:
        """The machine. Raises SpecError where it is none."""
        assert self.draft is not None
        return self.draft.machine(self.report)

    def accounted(self, machine: Accelerator, rules: Rules | None = None) -> Account:
        """The mapping as Timeloop accounts for it."""
        assert self.layer is not None
        assert self.nest is not None
        assert self.chain is not None
        names = {bare_name(level.name): level.name for level in self.chain.storages}
        blocks = {bare_name(s.name): block_of(machine, s.name, s.scope.data_bits or 16)
                  for s in self.chain.storages if bare_name(s.name) in {m.name for m in machine.memories}}  # fmt: skip
        compute = self.prices.of(self.chain.compute.name).get("compute", machine.mac.energy_pj)
        levels = levels_of(machine, blocks, self.prices, names)
        return account(self.layer, self.nest, machine, levels, compute, rules)


def block_of(machine: Accelerator, name: str, data_bits: int) -> int:
    """Elements of one vector access."""
    memory = next(m for m in machine.memories if m.name == bare_name(name))
    return memory.word_bits // data_bits


def read_timeloop(paths: Sequence[Path], variables: Mapping[str, str] | None = None) -> Timeloop:
    """All files of one description. Raises SpecError with file and line."""
    report = TranslationReport()
    documents = read_documents(paths, variables or {}, report)
    found = Timeloop(documents, read_prices(documents.trees, report), report)
    problem = documents.one("problem")
    spaces: Mapping[str, Operand] = USUAL_SPACES
    dims: Mapping[str, str] = USUAL_DIMS
    if problem is not None:
        found.einsum = read_problem(problem, report)
        spaces, dims = found.einsum.operands, found.einsum.dims
    if documents.all("architecture"):
        found.chain = read_architecture(documents, report)
        rules = read_rules(found.chain, documents, list(spaces))
        found.draft = read_machine(found.chain, rules, spaces, dims, found.prices, report)
        mapping = first_mapping(documents)
        if mapping is not None:
            if found.einsum is None:
                raise mapping.error("a mapping needs its problem: give the problem's file, too")
            held = latches(found.chain, rules, spaces, found.prices)
            found.nest = read_mapping(mapping, found.chain, rules, found.einsum, held)
    if found.einsum is not None and problem is not None:
        found.layer = layer_of(problem, found, report)
    return found


def first_mapping(documents: Documents) -> Item | None:
    """The mapping; `extra_mapping_constraints` are constraints, so they never come here."""
    return documents.one("mapping")


def layer_of(problem: Item, found: Timeloop, report: TranslationReport) -> Layer:
    """The layer at the width of the outermost memory's elements (8 bits where no architecture is given)."""
    assert found.einsum is not None
    shape = problem.keys("problem")["shape"]
    named = shape.value.get("name") if isinstance(shape.value, dict) else shape
    name = bare_name(named.text("name") if named is not None else "layer", "layer")
    bits = found.chain.storages[0].scope.data_bits if found.chain is not None else None
    if bits is None or bits > 64:
        report.approximated(problem.place, "widths", "no datawidth is stated: operands of 8 bits")
        bits = 8
    else:
        text = f"operands of {bits} bits, as in {found.chain.storages[0].name}"  # type: ignore[union-attr]
        report.taken(problem.place, "widths", text + "; one width per operand, where Timeloop has one per level")
    return found.einsum.layer(name, {"weight": bits, "input": bits, "output": bits})
