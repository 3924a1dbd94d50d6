"""Bits for a float network: `assign_bits(workload, "W4A4")`, or a YAML file or mapping of name patterns.

Weights become signed and symmetric; an activation's codes follow from what made it (LSQ+ Table 1): unsigned after
ReLU, unsigned with an offset after SiLU and its kind, signed otherwise. WxAy means the weights and the output
activations of all layers, the network's own output included (LSQ+ footnote 1); `first_last="8bit"` is LSQ's exception.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
from collections.abc import Mapping
from pathlib import Path

from hwsim.errors import SpecError
from hwsim.network.bits_file import BitsRequest, Override, read_bits
from hwsim.network.layer import ACTIVATION_FUNCTIONS, FLOAT_BITS, Layer, Tensor, activation_inputs
from hwsim.network.sharing import sharing_groups
from hwsim.network.workload import Workload

# (signed, offset) of Table 1's rows.
TABLE_1 = {"1": (False, False), "2": (True, False), "3": (True, True), "4": (False, True)}
# What made a tensor decides its row of Table 1 when the configuration is `auto`.
AUTO_CONFIG: Mapping[str, str] = {
    **dict.fromkeys(("relu", "relu6", "exp", "sqrt", "softplus"), "1"),
    **dict.fromkeys(("silu", "hswish", "gelu", "leaky_relu", "elu"), "4"),
}
# Never negative, at most 1: no configuration gives them a sign or an offset.
ALWAYS_UNSIGNED = frozenset(("sigmoid", "hsigmoid", "softmax"))
NORMS = ("layer_norm", "group_norm", "batch_norm")


def assign_bits(
    workload: Workload,
    bits: str | Path | Mapping[str, object] | BitsRequest,
    config: str | int = "auto",
    first_last: str = "same",
) -> Workload:
    """The workload with new bits on every tensor, and notes that say which rules gave them.

    `config` 1 to 4 forces that row of Table 1 on what activation functions make; gates and softmax stay unsigned,
    everything else signed. Tensors that must share bits (`sharing_groups`) follow an override of one of them. Norm
    parameters stay at 32 bits, indices as they are. Raises SpecError: unknown names, conflicting overrides, or layers
    left without bits.
    """
    request = bits if isinstance(bits, BitsRequest) else read_bits(bits, config, first_last)
    widths = Widths(workload, request)
    widths.resolve()
    codes = Codes(workload, request.config)

    def change(tensor: Tensor) -> Tensor:
        width = widths.of(tensor)
        if width is None:
            return tensor
        signed, offset = (True, False) if tensor.name in widths.weights else codes.of(tensor)
        return dataclasses.replace(tensor, bits=width, signed=signed, offset=offset, zero_point=None)

    changed = workload.map_tensors(change)
    layers = [with_padding_policy(layer, request.padding_policy) for layer in changed.layers]
    return Workload(workload.name, layers, workload.coverage, (*workload.notes, *notes(workload, request)))


def with_padding_policy(layer: Layer, policy: str) -> Layer:
    """Padded convolutions whose input has an offset need a policy; bounds proven for other bits no longer hold."""
    needs = layer.op == "conv" and any(layer.padding) and layer.inputs[0].offset and not layer.padding_policy
    return dataclasses.replace(layer, padding_policy=policy if needs else layer.padding_policy, accumulator_bits=None)


def notes(workload: Workload, request: BitsRequest) -> list[str]:
    """The assumptions behind the assignment, for the report."""
    rows = "by what makes each tensor" if request.config == "auto" else f"row {request.config} after activations"
    found = [f"bits: {request.describe()}, configuration (LSQ+ Table 1) {rows}, first/last {request.first_last}"]
    if request.weight is not None:
        found.append("the network's input and output carry activation bits (LSQ+ footnote 1)")
    found.append("an activation function runs on the accumulator: what it reads is charged at its output's bits")
    if any(layer.op in NORMS for layer in workload.layers):
        found.append(f"scale and shift of normalisation layers stay at {FLOAT_BITS} bits")
    if workload.quantized:
        found.append("the bits that the model brought along were replaced")
    return found


class Widths:
    """Bits of every tensor: overrides before the first/last rule before the default, equal within a sharing group."""

    def __init__(self, workload: Workload, request: BitsRequest) -> None:
        self.workload, self.request = workload, request
        self.weights = {
            layer.weight.name
            for layer in workload.layers
            if layer.weight is not None and not layer.weight_is_activation
        }
        self.norm_weights = {layer.weight.name for layer in workload.layers if layer.weight and layer.op in NORMS}
        self.bits: dict[str, int] = {}
        self.chosen: dict[str, Override] = {}
        self.indices = {t.name for t in workload.tensors.values() if t.origin == "index"}

    def of(self, tensor: Tensor) -> int | None:
        """Bits of a tensor; None leaves it as it is."""
        return self.bits.get(tensor.name)

    def resolve(self) -> None:
        """Fill in `bits`. Raises SpecError with every problem."""
        problems = self.apply_overrides()
        groups = sharing_groups(self.workload)
        for group in groups:
            problems.extend(self.agree(group, "overrides"))
        if problems:
            raise SpecError(problems)
        if self.request.first_last == "8bit":
            for name in self.first_and_last():
                wanted = self.request.weight if name in self.weights else self.request.activation
                self.bits.setdefault(name, max(8, wanted or 0))
            for group in groups:
                self.agree(group, "first and last layer")
        self.apply_default()

    def apply_overrides(self) -> list[str]:
        """Later entries win; two exact names that disagree about one tensor do not."""
        problems: list[str] = []
        names = [layer.name for layer in self.workload.layers]
        for override in self.request.overrides:
            matched = [layer for layer in self.workload.layers if fnmatch.fnmatchcase(layer.name, override.pattern)]
            if not matched:
                near = difflib.get_close_matches(override.pattern, names, 3)
                hint = (
                    f"; did you mean {', '.join(near)}?" if near else f"; layers are called {', '.join(names[:3])}, ..."
                )
                problems.append(f"{override.place}: matches no layer{hint}")
            for layer in matched:
                problems.extend(self.set(override, layer))
        return problems

    def set(self, override: Override, layer: Layer) -> list[str]:
        """Apply one override to one layer."""
        wanted: list[tuple[str, int]] = []
        if override.weight is not None and layer.weight is not None:
            wanted.append((layer.weight.name, override.weight))
        elif override.weight is not None and override.exact:
            return [f"{override.place}: layer {layer.name} ({layer.op}) has no weight"]
        if override.input is not None:
            wanted.extend((tensor.name, override.input) for tensor in layer.inputs)
        if override.output is not None:
            wanted.append((layer.output.name, override.output))
        problems: list[str] = []
        for name, bits in wanted:
            earlier = self.chosen.get(name)
            if name in self.indices:
                continue
            final = earlier is not None and (earlier is override or (earlier.exact and override.exact))
            if earlier is not None and final and self.bits[name] != bits:
                problems.append(
                    f"{override.place}: tensor {name!r} would have {bits} bits, "
                    f"{earlier.place} gives it {self.bits[name]}"
                )
            self.bits[name], self.chosen[name] = bits, override
        return problems

    def agree(self, group: tuple[str, ...], why: str) -> list[str]:
        """Give all of a group the bits that some of it have; disagreement is a problem."""
        values = {self.bits[name] for name in group if name in self.bits}
        if len(values) > 1:
            shown = ", ".join(f"{name} {self.bits[name]}" for name in group if name in self.bits)
            place = next((self.chosen[name].place for name in group if name in self.chosen), self.request.place)
            return [f"{place}: {why} disagree about tensors that must share bits: {shown}"]
        for value in values:
            self.bits.update(dict.fromkeys(group, value))
        return []

    def first_and_last(self) -> list[str]:
        """Weights and input of the first and last layer with weights, and the network's outputs."""
        with_weights = [layer for layer in self.workload.layers if layer.has_macs and not layer.weight_is_activation]
        read = {tensor.name for layer in self.workload.layers for tensor in activation_inputs(layer)}
        found = [layer.output.name for layer in self.workload.layers if layer.output.name not in read]
        for layer in (*with_weights[:1], *with_weights[-1:]):
            found.extend(tensor.name for tensor in layer.inputs)
            if layer.weight is not None:
                found.append(layer.weight.name)
        return found

    def apply_default(self) -> None:
        """The default everywhere else. Raises SpecError where there is none and a tensor has no bits."""
        bare: list[str] = []
        for name, tensor in self.workload.tensors.items():
            if name in self.bits or name in self.norm_weights or name in self.indices:
                continue
            if self.request.weight is None or self.request.activation is None:
                if tensor.bits == FLOAT_BITS:
                    bare.append(name)
                continue
            is_weight = name in self.weights and tensor.origin == "weight"
            self.bits[name] = self.request.weight if is_weight else self.request.activation
        if bare and not self.workload.quantized:
            more = f" and {len(bare) - 3} more" if len(bare) > 3 else ""
            raise SpecError(
                f"{self.request.place}: no bits for tensors {', '.join(bare[:3])}{more}: add `default: W8A8`"
            )


class Codes:
    """Signedness and offset of every activation."""

    def __init__(self, workload: Workload, config: str) -> None:
        self.config = config
        self.origins = effective_origins(workload)

    def of(self, tensor: Tensor) -> tuple[bool, bool]:
        """(signed, offset)."""
        origin = self.origins.get(tensor.name, tensor.origin)
        if origin in ALWAYS_UNSIGNED:
            return False, False
        row = AUTO_CONFIG.get(origin, "2")
        if self.config != "auto" and origin in AUTO_CONFIG:
            row = self.config
        return TABLE_1[row]


def effective_origins(workload: Workload) -> dict[str, str]:
    """What made each tensor; one read only by one kind of activation function counts as made by it."""
    read_by: dict[str, list[Layer]] = {}
    for layer in workload.layers:
        for tensor in activation_inputs(layer):
            read_by.setdefault(tensor.name, []).append(layer)
    origins: dict[str, str] = {}
    for layer in reversed(workload.layers):
        name = layer.output.name
        readers = read_by.get(name, [])
        made = {origins.get(reader.output.name, reader.output.origin) for reader in readers}
        fused = bool(readers) and all(reader.op in ACTIVATION_FUNCTIONS for reader in readers) and len(made) == 1
        origins[name] = made.pop() if fused else layer.output.origin
    return origins
