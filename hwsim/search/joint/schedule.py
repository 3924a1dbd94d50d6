"""A network as the choice of homes sees it: stages in order, tensors that may stay on chip, when they live, how large.

A tensor may stay in the activation memory from the stage that makes it to the last that reads it, whole, with the
border of codes that a reader needs around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from hwsim.machine.parts import Accelerator, Memory, Operand
from hwsim.network.workload import Workload
from hwsim.pricing.layer import operand_tensors
from hwsim.pricing.residents import held_bits, lifetimes
from hwsim.pricing.stages import Stage, effective_layer, fuse
from hwsim.search.space.homes import can_be_home

Names = frozenset[str]
NOBODY: Names = frozenset()


@dataclass(frozen=True)
class Tenant:
    """A tensor that may stay: made at stage `born`, last read at `last`."""

    name: str
    born: int
    last: int
    bits: int


@dataclass(frozen=True)
class Schedule:
    """A workload's stages on an accelerator."""

    workload: Workload
    accelerator: Accelerator

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
        """Per stage the tensors it reads or makes."""
        return tuple(frozenset({*(t.name for t in stage.inputs), stage.output.name}) for stage in self.stages)

    @cached_property
    def operands(self) -> tuple[dict[Operand, str], ...]:
        """Per stage the tensors behind the operands of its layer with MACs."""
        return tuple(operand_tensors(effective_layer(s)) if s.layer.has_macs else {} for s in self.stages)

    @cached_property
    def tenants(self) -> tuple[Tenant, ...]:
        """Tensors that some stage makes and a later one reads, small enough, of operands that the home keeps."""
        return tuple(self.find_tenants())

    def find_tenants(self) -> Iterator[Tenant]:
        home = self.home
        for life in lifetimes(self.stages) if home is not None else ():
            name = life.tensor.name
            readers = [stage for stage in self.stages if name in {t.name for t in stage.inputs}]
            assert home is not None
            kept = all(o in home.keeps for mine in self.operands for o, tensor in mine.items() if tensor == name)
            if life.born < 0 or not readers or not kept:
                continue
            bits = held_bits(home, life.tensor, readers, self.accelerator)
            if bits <= self.capacity_bits:
                yield Tenant(name, life.born, life.last, bits)

    @cached_property
    def born(self) -> dict[int, Tenant]:
        """Tenants by the stage that makes them: a stage makes one tensor."""
        return {tenant.born: tenant for tenant in self.tenants}
