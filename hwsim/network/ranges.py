"""What values a tensor can hold, by the operators that make it: never negative, a gate, one-sided, or of both signs.

The same rules as `quant.context` reads off a torch graph (tests hold the two together): activation functions give what
their formula allows, sums and choices the widest of their operands, products their own rule, and everything that only
moves or averages values hands on what it gets. The kind decides the row of LSQ+ Table 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from hwsim.network.layer import ACTIVATION_FUNCTIONS, Layer, Tensor, activation_inputs
from hwsim.network.workload import Workload

UNSIGNED, GATE, ASYMMETRIC, SIGNED = "unsigned", "gate", "asymmetric", "signed"
WIDTH = (GATE, UNSIGNED, ASYMMETRIC, SIGNED)  # of two kinds the one further right
BY_ORIGIN: Mapping[str, str] = {
    **dict.fromkeys(("relu", "relu6", "exp", "sqrt", "softplus"), UNSIGNED),
    **dict.fromkeys(("sigmoid", "hsigmoid", "softmax"), GATE),
    **dict.fromkeys(("silu", "hswish", "gelu", "leaky_relu", "elu"), ASYMMETRIC),
}
PASSING = frozenset(
    ("max_pool", "avg_pool", "reduce_mean", "reduce_max", "reduce_sum", "pad", "upsample", "copy", "requantize")
)
FUNCTIONS = ACTIVATION_FUNCTIONS | {"exp", "sqrt", "pow", "softmax"}
CHOICES = frozenset(("minimum", "fmin", "min", "where", "masked_fill"))
LARGEST = frozenset(("maximum", "fmax", "max"))


def operator(layer: Layer) -> str:
    """The plain name of the operator that a layer was in its model; empty where no front end noted it."""
    name, found, _ = layer.source.partition(" in ")
    return name.removeprefix("aten.").rstrip("_") if found and name.startswith("aten.") else ""


def widest(kinds: Iterable[str]) -> str:
    """The widest of some kinds; signed if there are none."""
    return max(kinds, key=WIDTH.index, default=SIGNED)


def kinds(workload: Workload) -> dict[str, str]:
    """The kind of every activation by name."""
    found: dict[str, str] = {}
    for layer in workload:
        for tensor in activation_inputs(layer):
            found.setdefault(tensor.name, BY_ORIGIN.get(tensor.origin, SIGNED))
        found[layer.output.name] = made(layer, found)
    return found


def made(layer: Layer, known: Mapping[str, str]) -> str:
    """The kind of what a layer makes, from those of what it reads."""
    read = [known[tensor.name] for tensor in values(layer)]
    stored = layer.weight is not None and not layer.weight_is_activation
    if layer.op in PASSING:
        return widest(read)
    if layer.op in FUNCTIONS:
        return BY_ORIGIN.get(layer.output.origin, SIGNED)
    if layer.op == "concat":
        return summed([*read, *([SIGNED] if stored else [])])
    if layer.op == "mul" and not stored:
        return product(layer, read)
    if layer.op == "add":
        return sum_or_choice(layer, read, stored)
    return SIGNED


def values(layer: Layer) -> Iterator[Tensor]:
    """The activations that a layer reads, without positions and masks."""
    return (tensor for tensor in activation_inputs(layer) if tensor.origin != "index")


def sum_or_choice(layer: Layer, read: list[str], stored: bool) -> str:
    """What an addition makes, or a choice of values that is priced as one."""
    name = operator(layer)
    if name == "abs":
        return UNSIGNED
    if name in LARGEST and {UNSIGNED, GATE} & set(read):
        return UNSIGNED
    if name in LARGEST | CHOICES:
        return widest([*read, *([SIGNED] if stored else [])])
    if name not in ("", "add"):
        return BY_ORIGIN.get(layer.output.origin, SIGNED)
    if stored:
        return SIGNED
    return summed(read) if len(read) > 1 else BY_ORIGIN.get(layer.output.origin, SIGNED)


def summed(read: Iterable[str]) -> str:
    """The kind of a sum: of two gates it may exceed 1."""
    kind = widest(read)
    return UNSIGNED if kind == GATE else kind


def product(layer: Layer, read: list[str]) -> str:
    """The kind of a product of activations."""
    names = {tensor.name for tensor in values(layer)}
    if len(names) == 1 and (len(read) > 1 or layer.output.origin == "relu"):
        return UNSIGNED  # a square
    if layer.output.origin in ("silu", "hswish"):  # x times its own gate
        return ASYMMETRIC
    if len(read) < 2 or SIGNED in read or set(read) == {ASYMMETRIC}:
        return SIGNED
    return widest(read)


def stored_kinds(workload: Workload) -> dict[str, str]:
    """The kind of what is stored: an array that activation functions of one kind alone read holds what they make."""
    found = kinds(workload)
    read_by: dict[str, list[Layer]] = {}
    for layer in workload:
        for tensor in activation_inputs(layer):
            read_by.setdefault(tensor.name, []).append(layer)
    result = dict(found)
    for layer in reversed(workload.layers):
        readers = read_by.get(layer.output.name, [])
        after = {result[reader.output.name] for reader in readers}
        if readers and len(after) == 1 and all(reader.op in ACTIVATION_FUNCTIONS for reader in readers):
            result[layer.output.name] = after.pop()
    return result
