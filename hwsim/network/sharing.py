"""Tensors that must have the same bits: inputs of an addition or a concatenation, what is stored before rounding."""

from __future__ import annotations

from collections.abc import Iterable

from hwsim.network.layer import Layer, activation_inputs
from hwsim.network.rounding import BEFORE_ROUNDING
from hwsim.network.workload import Workload


def sharing_groups(workload: Workload) -> tuple[tuple[str, ...], ...]:
    """Names of activations that must have equal bits, group by group; a tensor on its own is in none.

    Inputs of an addition or subtraction (integers can only be added at one scale and width), parts and result of a
    concatenation, what a max pooling reads and makes, and what an activation function or an average reads and makes
    when nobody else reads it (it runs before rounding).
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def join(names: Iterable[str]) -> None:
        first, *others = list(names) or [""]
        for other in others:
            parent[root(other)] = root(first)

    read_by: dict[str, list[Layer]] = {}
    for layer in workload.layers:
        for tensor in activation_inputs(layer):
            read_by.setdefault(tensor.name, []).append(layer)
    produced = {layer.output.name for layer in workload.layers}
    for layer in workload.layers:
        inputs = [tensor.name for tensor in layer.inputs if tensor.origin != "index"]
        if layer.op in ("add", "sub"):
            join(inputs)
        elif layer.op in ("concat", "max_pool", "pad", "copy"):
            join([layer.output.name, *inputs])
        elif layer.op in BEFORE_ROUNDING and set(inputs) <= produced:
            readers = [reader for name in inputs for reader in read_by[name]]
            if all(reader.op in BEFORE_ROUNDING for reader in readers):
                join([layer.output.name, *inputs])
    groups: dict[str, list[str]] = {}
    for name in parent:
        groups.setdefault(root(name), []).append(name)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)
