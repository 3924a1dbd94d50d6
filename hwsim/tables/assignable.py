"""What an assignment of bits decides: the columns of a network, its tensors that may stay on chip, and the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from hwsim.machine.parts import Accelerator
from hwsim.network.bits import NORMS
from hwsim.network.layer import Layer
from hwsim.network.sharing import sharing_groups
from hwsim.network.workload import Workload
from hwsim.pricing.residents import Life, lifetimes
from hwsim.pricing.stages import Stage, effective_layer, fuse
from hwsim.search.objective import Objective
from hwsim.tables.layer_table import LayerTable


@dataclass(frozen=True)
class Column:
    """One decision of an assignment: the bits of one weight tensor, or of activations that must share them."""

    name: str
    kind: Literal["weight", "activation"]
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Assignable:
    """A workload on an accelerator with a table for every layer with MACs: what may vary, and what may stay on chip."""

    workload: Workload
    accelerator: Accelerator
    objective: Objective
    widths: tuple[int, ...]
    tables: Mapping[str, LayerTable]  # by layer name; equal layers share one

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The decisions, in the order of execution: what varies. Norm parameters and indices do not."""
        group_of = {name: group for group in sharing_groups(self.workload) for name in group}
        weights = {
            layer.weight.name: layer.name
            for layer in self.workload
            if layer.weight is not None and not layer.weight_is_activation
        }
        frozen = {layer.weight.name for layer in self.workload if layer.weight is not None and layer.op in NORMS}
        found: list[Column] = []
        seen: set[str] = set()
        for name, tensor in self.workload.tensors.items():
            if name in seen or name in frozen or tensor.origin == "index":
                continue
            if name in weights:
                found.append(Column(weights[name], "weight", (name,)))
                seen.add(name)
            else:
                group = group_of.get(name, (name,))
                found.append(Column(name, "activation", tuple(group)))
                seen.update(group)
        return tuple(found)

    @cached_property
    def column_of(self) -> dict[str, int]:
        """Tensor name -> its column."""
        return {name: place for place, column in enumerate(self.columns) for name in column.tensors}

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The workload in stages."""
        return fuse(self.workload, self.accelerator.capabilities)

    @cached_property
    def effective(self) -> dict[str, Layer]:
        """Layers with MACs as memories see them."""
        return {stage.layer.name: effective_layer(stage) for stage in self.stages if stage.layer.has_macs}

    @cached_property
    def lives(self) -> dict[str, tuple[Life, tuple[Stage, ...]]]:
        """Tensors between two stages with the stages that make and read them: those that may stay on chip."""
        found: dict[str, tuple[Life, tuple[Stage, ...]]] = {}
        for life in lifetimes(self.stages):
            name = life.tensor.name
            users = tuple(stage for stage in self.stages if name in {t.name for t in stage.inputs})
            if life.may_stay and users:
                found[name] = (life, (self.stages[life.born], *users))
        return found

    @cached_property
    def candidates(self) -> tuple[str, ...]:
        """Names of the tensors that may stay on chip."""
        return tuple(self.lives)

    @cached_property
    def place_of(self) -> dict[str, int]:
        """Candidate -> its place."""
        return {name: place for place, name in enumerate(self.candidates)}

    @cached_property
    def memo(self) -> dict[tuple[str, str], dict[int, Any]]:
        """What operators without MACs cost, by stage, widths and tensors kept."""
        return {}
