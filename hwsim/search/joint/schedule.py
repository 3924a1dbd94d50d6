"""A network as the choice of homes sees it: stages in order, tensors that may stay on chip, when they live, how large.

A tensor may stay in the activation memory from the stage that makes it to the last that reads it, with the border of
codes that a reader needs around it: whole, or as `Lifetimes` say. So may a weight that several stages multiply, from
the first of them to the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from hwsim.machine.parts import Accelerator, Memory, Operand
from hwsim.network.layer import Layer, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.kept_weights import SharedWeight, shared_weights
from hwsim.pricing.layer import operand_tensors
from hwsim.pricing.lifetimes import (
    NOTHING,
    WHOLE_TENSORS,
    Freed,
    Lifetimes,
    elementwise_saved_bits,
    freed_of,
    packed,
    shared_border_elements,
)
from hwsim.pricing.offsets import offset_cost
from hwsim.pricing.residents import Life, held_bits, lifetimes
from hwsim.pricing.stages import Stage, effective_layer, fuse
from hwsim.search.space.homes import can_be_home

Names = frozenset[str]
NOBODY: Names = frozenset()


@dataclass(frozen=True)
class Tenant:
    """A tensor that may stay: made at stage `born`, last read at `last`; `bits_later` after stage `bordered`.

    A weight is born where it is fetched.
    """

    name: str
    born: int
    last: int
    bits: int
    bordered: int
    bits_later: int

    def bits_at(self, stage: int) -> int:
        """What it takes while a stage runs."""
        return self.bits if stage <= self.bordered else self.bits_later


@dataclass(frozen=True)
class Schedule:
    """A workload's stages on an accelerator."""

    workload: Workload
    accelerator: Accelerator
    lifetimes: Lifetimes = WHOLE_TENSORS

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """In order of execution."""
        return fuse(self.workload, self.accelerator.capabilities)

    @property
    def home(self) -> Memory | None:
        """The memory in which tensors may stay."""
        return self.accelerator.activation_memory if can_be_home(self.accelerator) else None

    @property
    def capacity_bits(self) -> int:
        """Its size; 0 without one."""
        return (self.home.size_bits or 0) if self.home is not None else 0

    @cached_property
    def touched(self) -> tuple[Names, ...]:
        """Per stage the tensors it reads or makes, weights that may stay among them."""
        return tuple(
            frozenset({*(t.name for t in stage.inputs), stage.output.name, *mine.values()})
            for stage, mine in zip(self.stages, self.operands, strict=True)
        )

    @cached_property
    def operands(self) -> tuple[dict[Operand, str], ...]:
        """Per stage the tensors behind the operands of its layer with MACs."""
        return tuple(self.operands_of(stage) if stage.layer.has_macs else {} for stage in self.stages)

    def operands_of(self, stage: Stage) -> dict[Operand, str]:
        found, weight = operand_tensors(effective_layer(stage)), stage.layer.weight
        if weight is not None and weight.name in self.weights:
            found["weight"] = weight.name
        return found

    @cached_property
    def weights(self) -> dict[str, SharedWeight]:
        """Weights that may stay, by name: several stages multiply them."""
        home = self.home
        if home is None or "weight" not in home.keeps:
            return {}
        return {weight.tensor.name: weight for weight in shared_weights(self.stages)}

    def fetched(self, stage: int, mine: Names) -> Layer | None:
        """The layer of a stage that fetches its weight to stay, if `mine` do."""
        name = self.operands[stage].get("weight", "")
        weight = self.weights.get(name) if name in mine else None
        return self.stages[stage].layer if weight is not None and weight.first == stage else None

    @cached_property
    def tenants(self) -> tuple[Tenant, ...]:
        """Tensors that some stage makes and a later one reads, small enough, of operands that the home keeps."""
        found = (*self.find_tenants(), *self.weight_tenants())
        return tuple(tenant for tenant in found if tenant.bits <= self.capacity_bits)

    def weight_tenants(self) -> Iterator[Tenant]:
        for name, weight in self.weights.items():
            assert self.home is not None
            bits = held_bits(self.home, weight.tensor, (), self.accelerator)
            yield Tenant(name, weight.first, weight.last, bits, weight.last, bits)

    @cached_property
    def readers(self) -> dict[str, list[int]]:
        """Stages that read a tensor, in order, by its name."""
        found: dict[str, list[int]] = {}
        for index, stage in enumerate(self.stages):
            for name in {t.name for t in stage.inputs}:
                found.setdefault(name, []).append(index)
        return found

    @cached_property
    def parts_played(self) -> dict[str, set[Operand]]:
        """Operands that a tensor is of layers with MACs, by its name."""
        found: dict[str, set[Operand]] = {}
        for mine in self.operands:
            for operand, name in mine.items():
                found.setdefault(name, set()).add(operand)
        return found

    def find_tenants(self) -> Iterator[Tenant]:
        home = self.home
        for life in lifetimes(self.stages) if home is not None else ():
            name = life.tensor.name
            assert home is not None
            parts = self.parts_played.get(name, set())
            if not life.may_stay or name not in self.readers or not parts <= set(home.keeps):
                continue
            yield self.tenant(home, life)

    def tenant(self, home: Memory, life: Life) -> Tenant:
        """A tensor with its sizes."""
        x, can = life.tensor, self.accelerator.capabilities
        readers = self.readers[x.name]
        bits = held_bits(home, x, [self.stages[i] for i in readers], self.accelerator)
        around = [
            i
            for i in readers
            if self.operands[i].get("input") == x.name and offset_cost(self.stages[i].layer, can).border_codes
        ]
        if not around or not self.lifetimes.borders:
            return Tenant(x.name, life.born, life.last, bits, life.last, bits)
        sizes = [shared_border_elements(x, self.stages[i].layer.padding) for i in around]
        scales = held_bits(home, x, (), self.accelerator) - packed(home, x.elements, x.bits)
        most, later = (scales + packed(home, elements, x.bits) for elements in map(max, *sizes, (0, 0)))
        return Tenant(x.name, life.born, life.last, min(bits, most), around[-1], min(bits, later))

    # --- places that outputs take -------------------------------------------------------------------------------------

    def room(self, stage: int, live: frozenset[Tenant]) -> int:
        """Bits of the home that live tensors leave; below zero where they fit only if `freed` ones make place."""
        names = frozenset(tenant.name for tenant in live)
        left = self.capacity_bits - sum(tenant.bits_at(stage) for tenant in live)
        return left + self.saved_by_streaming(stage, names & self.touched[stage])

    def freed(self, stage: int, mine: Names) -> Freed:
        """Whose place the output of a stage with MACs may take, if `mine` stay."""
        key = stage, mine
        if key not in self.known_freed:
            self.known_freed[key] = self.find_freed(stage, mine)
        return self.known_freed[key]

    def find_freed(self, stage: int, mine: Names) -> Freed:
        dying = self.dying(stage, mine)
        if not dying or self.home is None or not self.operands[stage]:
            return NOTHING
        operands, layer = self.operands[stage], effective_layer(self.stages[stage])
        behind = [t.name for follower in self.stages[stage].fused for t in follower.inputs]
        others = [t for t in dying if t.name not in operands.values() and behind.count(t.name) == 1]
        x = operands["input"]
        dies = x in {t.name for t in dying} and x != operands.get("weight") and x not in behind
        return freed_of(self.home, layer, input_dies=dies, others=others)

    def saved_by_streaming(self, stage: int, mine: Names) -> int:
        """Bits that an elementwise stage of its own saves, if `mine` stay."""
        layer = self.stages[stage].layer
        dying = () if layer.has_macs else self.dying(stage, mine)
        if not dying or self.home is None:
            return 0
        return elementwise_saved_bits(self.home, layer, dying, self.accelerator.vector.lanes)

    def dying(self, stage: int, mine: Names) -> tuple[Tensor, ...]:
        """Inputs that stay and that no later stage reads, where the output stays as well and lifetimes are of rows."""
        made = self.stages[stage].output.name
        if not self.lifetimes.rows or made not in mine:
            return ()
        last = mine & self.ending.get(stage, NOBODY)
        return tuple(t for t in self.stages[stage].inputs if t.name in last)

    @cached_property
    def known_freed(self) -> dict[tuple[int, Names], Freed]:
        """Cache of `freed`."""
        return {}

    @cached_property
    def born(self) -> dict[int, tuple[Tenant, ...]]:
        """Tenants by the stage that makes or fetches them: its output, and the weight that it multiplies first."""
        found: dict[int, list[Tenant]] = {}
        for tenant in self.tenants:
            found.setdefault(tenant.born, []).append(tenant)
        return {stage: tuple(tenants) for stage, tenants in found.items()}

    @cached_property
    def ending(self) -> dict[int, Names]:
        """Names of tenants by the stage that reads them last."""
        found: dict[int, set[str]] = {}
        for tenant in self.tenants:
            found.setdefault(tenant.last, set()).add(tenant.name)
        return {stage: frozenset(names) for stage, names in found.items()}
