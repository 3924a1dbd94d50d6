"""Bits for a float network: `assign_bits(workload, "W4A4")`, or a YAML file or mapping of name patterns.

WxAy means what `quant.quantize` trains (rounding.py says where a network rounds). By default the first and last layer
with weights have at least 8 bits (LSQ; `first_last="same"`: LSQ+), and inputs of additions, products and concatenations
have 8 (`elementwise_bits="same"`: the activations'). Weights are signed and symmetric; an activation's codes follow
from what made it (LSQ+ Table 1): unsigned after ReLU, unsigned with an offset after SiLU and its kind, signed else.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path

from hwsim.errors import SpecError
from hwsim.network.bits_file import SAME, BitsRequest, Override, read_bits
from hwsim.network.layer import FLOAT_BITS, Layer, Tensor, activation_inputs
from hwsim.network.ranges import ASYMMETRIC, BY_ORIGIN, GATE, SIGNED, UNSIGNED, stored_kinds
from hwsim.network.rounding import Rule, restored, rounded, unrounded
from hwsim.network.sharing import sharing_groups
from hwsim.network.workload import Workload

# (signed, offset) of Table 1's rows.
TABLE_1 = {"1": (False, False), "2": (True, False), "3": (True, True), "4": (False, True)}
# The kind of a tensor's values decides its row of Table 1 when the configuration is `auto`.
AUTO_CONFIG: Mapping[str, str] = {UNSIGNED: "1", SIGNED: "2", ASYMMETRIC: "4"}
NORMS = ("layer_norm", "group_norm", "batch_norm")


def assign_bits(
    workload: Workload,
    bits: str | Path | Mapping[str, object] | BitsRequest,
    config: str | int = "auto",
    first_last: str | None = None,
    elementwise_bits: int | str | None = None,
) -> Workload:
    """The workload with new bits on every tensor, and notes that say which rules gave them.

    `config` 1 to 4 forces that row of Table 1 on what activation functions make; gates and softmax stay unsigned,
    everything else signed. Tensors that must share bits (`sharing_groups`) follow an override of one of them. Where an
    array is read at several widths or through several quantizers, `requantize` layers appear. Values that pass no
    quantizer and norm parameters stay at 32 bits, indices as they are. Raises SpecError: unknown names, conflicting
    overrides, or layers left without bits.
    """
    request = bits if isinstance(bits, BitsRequest) else read_bits(bits, config, first_last, elementwise_bits)
    rule = rule_of(request)
    plain = unrounded(workload) if rule is not None else workload
    codes = Codes(plain, request.config)
    start = rounded(plain, rule, codes.of) if rule is not None else workload
    widths = Widths(start, request)
    widths.resolve()

    def change(tensor: Tensor) -> Tensor:
        width = widths.of(tensor)
        if width is None:
            return tensor
        known = (tensor.signed, tensor.offset) if rule is not None and tensor.bits < FLOAT_BITS else codes.of(tensor)
        signed, offset = (True, False) if tensor.name in widths.weights else known
        return dataclasses.replace(tensor, bits=width, signed=signed, offset=offset, zero_point=None)

    changed = start.map_tensors(change)
    if rule is not None and request.overrides:
        changed = restored(changed)
    layers = [with_padding_policy(layer, request.padding_policy) for layer in changed.layers]
    said = notes(workload, request, layers)
    return Workload(workload.name, layers, workload.coverage, (*workload.notes, *said))


def rule_of(request: BitsRequest) -> Rule | None:
    """What the request's WxAy means; None where it has none."""
    if request.weight is None or request.activation is None:
        return None
    between = request.elementwise_bits
    return Rule(request.weight, request.activation, request.first_last, None if between == SAME else int(between))


def with_padding_policy(layer: Layer, policy: str) -> Layer:
    """Padded convolutions whose input has an offset need a policy; bounds proven for other bits no longer hold."""
    needs = layer.op == "conv" and any(layer.padding) and layer.inputs[0].offset and not layer.padding_policy
    return dataclasses.replace(layer, padding_policy=policy if needs else layer.padding_policy, accumulator_bits=None)


def notes(workload: Workload, request: BitsRequest, layers: Sequence[Layer]) -> list[str]:
    """The assumptions behind the assignment, for the report."""
    rows = "by what makes each tensor" if request.config == "auto" else f"row {request.config} after activations"
    between = request.elementwise_bits
    found = [
        f"bits: {request.describe()}, configuration (LSQ+ Table 1) {rows}, first/last {request.first_last}, inputs of "
        f"additions and products {between if between == SAME else f'{between} bits'}"
    ]
    found.append("an activation function runs on the accumulator: what it reads is charged at its output's bits")
    if any(layer.op in NORMS for layer in layers):
        found.append(f"scale and shift of normalisation layers stay at {FLOAT_BITS} bits")
    read = {tensor.name for layer in layers for tensor in activation_inputs(layer)}
    bare = [x.name for x in layers if x.output.bits == FLOAT_BITS and x.output.name in read]
    if bare and request.weight is not None:
        shown = ", ".join(bare[:5]) + (f" and {len(bare) - 5} more" if len(bare) > 5 else "")
        found.append(f"{len(bare)} arrays inside the network pass no quantizer and count {FLOAT_BITS} bits: {shown}")
    if workload.quantized:
        found.append("the bits that the model brought along were replaced")
    return found


class Widths:
    """Bits that overrides give to tensors, equal within a sharing group."""

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
        if self.request.weight is None and not self.workload.quantized:
            self.require_all()

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

    def require_all(self) -> None:
        """Raise SpecError where a float network has no default and a tensor has no bits."""
        kept = {*self.bits, *self.norm_weights, *self.indices}
        bare = [
            name for name, tensor in self.workload.tensors.items() if name not in kept and tensor.bits == FLOAT_BITS
        ]
        if bare:
            more = f" and {len(bare) - 3} more" if len(bare) > 3 else ""
            raise SpecError(
                f"{self.request.place}: no bits for tensors {', '.join(bare[:3])}{more}: add `default: W8A8`"
            )


class Codes:
    """Signedness and offset of every activation."""

    def __init__(self, workload: Workload, config: str) -> None:
        self.config = config
        self.kinds = stored_kinds(workload)

    def of(self, tensor: Tensor) -> tuple[bool, bool]:
        """(signed, offset). No configuration gives gates a sign or an offset."""
        kind = self.kinds.get(tensor.name) or BY_ORIGIN.get(tensor.origin, SIGNED)
        if kind == GATE:
            return False, False
        forced = self.config != "auto" and kind != SIGNED
        return TABLE_1[self.config if forced else AUTO_CONFIG[kind]]
