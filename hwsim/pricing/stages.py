"""From layers to stages: what runs on the way out of the MAC array, and which tensors exist between stages.

A stage is a MAC layer with the operators fused behind it, or one operator of its own. Tensors inside a stage never
reach a memory.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from hwsim.machine.parts import Capabilities
from hwsim.network.layer import ACTIVATION_FUNCTIONS, Layer, Tensor, activation_inputs
from hwsim.network.workload import Workload

GROUP_OF: dict[str, str] = {
    "requantize": "requantize",
    "batch_norm": "normalization",
    **dict.fromkeys(("add", "sub", "mul"), "elementwise"),
    **dict.fromkeys(ACTIVATION_FUNCTIONS, "activation"),
}


@dataclass(frozen=True)
class Stage:
    """A layer and the operators fused behind it, in order. `layer` writes what the last of them puts out."""

    layer: Layer
    fused: tuple[Layer, ...] = ()

    @cached_property
    def effective(self) -> Layer:
        """`effective_layer`."""
        output = dataclasses.replace(self.output, shape=self.layer.output.shape)
        return dataclasses.replace(self.layer, output=output)

    @cached_property
    def numbered(self) -> tuple[Stage, dict[str, str]]:
        """The stage with numbers for names, so that like ones are equal; the number of each tensor by its name."""
        numbers: dict[str, str] = {}

        def plain(tensor: Tensor) -> Tensor:
            return dataclasses.replace(tensor, name=numbers.setdefault(tensor.name, str(len(numbers))))

        first, *others = (
            dataclasses.replace(
                layer,
                name=str(index),
                source="",
                inputs=tuple(plain(tensor) for tensor in layer.inputs),
                output=plain(layer.output),
                weight=None if layer.weight is None else plain(layer.weight),
            )
            for index, layer in enumerate((self.layer, *self.fused))
        )
        return Stage(first, tuple(others)), numbers

    @property
    def output(self) -> Tensor:
        """The tensor that leaves the stage."""
        return self.fused[-1].output if self.fused else self.layer.output

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """Activations that enter the stage, those of fused operators included."""
        inside = {self.layer.output.name, *(follower.output.name for follower in self.fused)}
        found = {t.name: t for layer in (self.layer, *self.fused) for t in activation_inputs(layer)}
        return tuple(t for name, t in found.items() if name not in inside)


def effective_layer(stage: Stage) -> Layer:
    """The stage's MAC layer as memories see it: its output has the bits, sign and name of what leaves the stage."""
    return stage.effective


def fuse(workload: Workload, capabilities: Capabilities) -> tuple[Stage, ...]:
    """Stages in order of execution.

    An operator joins the stage that made one of its inputs when the machine fuses its kind, nobody else reads that
    input, the number of elements stays, and its other inputs exist by then.
    """
    readers: dict[str, int] = defaultdict(int)
    for layer in workload:
        for tensor in activation_inputs(layer):
            readers[tensor.name] += 1
    stages: list[Stage] = []
    tail_of: dict[str, int] = {}  # tensor that leaves a MAC stage -> that stage
    made_in: dict[str, int] = {}  # any tensor -> stage that makes it
    for layer in workload:
        host = host_stage(layer, capabilities, readers, tail_of, made_in)
        if host is None:
            stages.append(Stage(layer))
            host = len(stages) - 1
        else:
            tail_of.pop(stages[host].output.name)
            stages[host] = Stage(stages[host].layer, (*stages[host].fused, layer))
        made_in[layer.output.name] = host
        if stages[host].layer.has_macs:
            tail_of[layer.output.name] = host
    return tuple(stages)


def host_stage(
    layer: Layer,
    capabilities: Capabilities,
    readers: Mapping[str, int],
    tail_of: Mapping[str, int],
    made_in: Mapping[str, int],
) -> int | None:
    """The stage that `layer` may join; None when it runs on its own."""
    if GROUP_OF.get(layer.op) not in capabilities.fused:
        return None
    candidates = [t for t in layer.inputs if t.name in tail_of and readers[t.name] == 1]
    candidates = [t for t in candidates if t.elements == layer.output.elements]
    if not candidates:
        return None
    tail = max(candidates, key=lambda t: tail_of[t.name])
    host = tail_of[tail.name]
    others = [t for t in layer.inputs if t.name != tail.name]
    return host if all(made_in.get(t.name, -1) < host for t in others) else None


def effective_workload(workload: Workload, capabilities: Capabilities) -> dict[str, Layer]:
    """MAC layers by name as memories see them: what a mapping search must be given."""
    return {s.layer.name: effective_layer(s) for s in fuse(workload, capabilities) if s.layer.has_macs}
