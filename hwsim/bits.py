"""Bits for a float network: `assign_bits(workload, "W4A4")`, or a YAML file or mapping of name patterns.

Weights become signed and symmetric; an activation's codes follow from what made it (LSQ+ Table 1): unsigned after
ReLU, unsigned with an offset after SiLU and its kind, signed otherwise. WxAy means the weights and the output
activations of all layers, the network's own output included (LSQ+ footnote 1); `first_last="8bit"` is LSQ's exception.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hwsim.errors import SpecError
from hwsim.spec.strict_yaml import Document, read_document
from hwsim.workload import ACTIVATION_FUNCTIONS, FLOAT_BITS, Layer, Tensor, Workload, activation_inputs

CONFIGS = ("auto", "1", "2", "3", "4")
FIRST_LAST = ("same", "8bit")
PADDING_POLICIES = ("pad_code", "snap_offset", "pad_beta", "border_bias")
# (signed, offset) of Table 1's rows.
TABLE_1 = {"1": (False, False), "2": (True, False), "3": (True, True), "4": (False, True)}
# What made a tensor decides its row of Table 1 when the configuration is `auto`.
AUTO_CONFIG: Mapping[str, str] = {
    **dict.fromkeys(("relu", "relu6", "exp", "sqrt", "softplus"), "1"),
    **dict.fromkeys(("silu", "hswish", "gelu", "leaky_relu", "elu"), "4"),
}
# Never negative, at most 1: no configuration gives them a sign or an offset.
ALWAYS_UNSIGNED = frozenset(("sigmoid", "hsigmoid", "softmax"))
MAX_BITS = 16
MAX_OUTPUT_BITS = 32
WXAY = re.compile(r"[wW]([0-9]{1,3})[aA]([0-9]{1,3})")
RESERVED = ("default", "config", "first_last", "padding_policy")
OPERAND_KEYS = ("weight", "input", "activation", "output")
NORMS = ("layer_norm", "group_norm", "batch_norm")


@dataclass(frozen=True)
class Override:
    """Bits for the layers whose names match; None leaves an operand as it is. `place` is for messages."""

    pattern: str
    place: str
    weight: int | None = None
    input: int | None = None
    output: int | None = None

    @property
    def exact(self) -> bool:
        """Whether it names one layer and no pattern."""
        return not any(mark in self.pattern for mark in "*?[")


@dataclass(frozen=True)
class BitsRequest:
    """Everything `assign_bits` needs; without a default, layers that no override names keep what they have."""

    weight: int | None = None
    activation: int | None = None
    config: str = "auto"
    first_last: str = "same"
    padding_policy: str = "pad_code"
    overrides: tuple[Override, ...] = ()
    place: str = "bits"

    def describe(self) -> str:
        """`W4A4`, or what the overrides come from."""
        default = f"W{self.weight}A{self.activation}" if self.weight is not None else "the model's own bits"
        return default + (f" with {len(self.overrides)} overrides" if self.overrides else "")


def parse_wxay(text: str, place: str = "bits") -> tuple[int, int]:
    """(weight bits, activation bits) of `W4A8`. Raises SpecError.

    >>> parse_wxay("W4A8")
    (4, 8)
    """
    match = WXAY.fullmatch(text.strip())
    if match is None:
        raise SpecError(f"{place}: expected W<bits>A<bits> such as W4A4 or W8A8, got {text!r}")
    weight, activation = int(match[1]), int(match[2])
    for what, bits in (("weight", weight), ("activation", activation)):
        if not 1 <= bits <= MAX_BITS:
            raise SpecError(f"{place}: {what} bits must be 1 to {MAX_BITS}, got {bits} in {text!r}")
    return weight, activation


def read_bits(
    bits: str | Path | Mapping[str, object], config: str | int = "auto", first_last: str = "same"
) -> BitsRequest:
    """The request behind `W4A4`, a YAML file or a mapping of the same form. Raises SpecError with every problem.

    The file: `default: W4A4`, optional `config`, `first_last`, `padding_policy`, and name patterns (shell wildcards)
    with `W2A4` or `{weight: 8, input: 8, output: 8}`. Later entries win over earlier ones.
    """
    config = str(config)
    problems = [] if config in CONFIGS else [f"config: expected one of {', '.join(CONFIGS)}, got {config!r}"]
    if first_last not in FIRST_LAST:
        problems.append(f"first_last: expected one of {', '.join(FIRST_LAST)}, got {first_last!r}")
    if problems:
        raise SpecError(problems)
    if isinstance(bits, Mapping):
        return BitsReader(Document("bits", bits), config, first_last).read()
    text = str(bits)
    if isinstance(bits, str) and not looks_like_path(text):
        weight, activation = parse_wxay(text)
        return BitsRequest(weight, activation, config, first_last)
    document = read_document(Path(text))
    if not isinstance(document.data, dict):
        raise SpecError(f"{document.place(())}: expected name patterns with bits, got {document.data!r}")
    return BitsReader(document, config, first_last).read()


def looks_like_path(text: str) -> bool:
    """Whether a --bits argument names a file rather than WxAy."""
    return WXAY.fullmatch(text.strip()) is None and (
        text.endswith((".yaml", ".yml")) or "/" in text or Path(text).is_file()
    )


class BitsReader:
    """Reads a bits file or mapping, collecting every problem with its place."""

    def __init__(self, document: Document, config: str, first_last: str) -> None:
        self.document = document
        self.chosen = {"config": config, "first_last": first_last}
        self.problems: list[str] = []

    def complain(self, keys: tuple[str, ...], message: str) -> None:
        """Note a problem."""
        dotted = f": {'.'.join(keys)}" if keys else ""
        place = self.document.place(keys) if self.document.lines else f"{self.document.path}{dotted}"
        self.problems.append(f"{place}: {message}")

    def read(self) -> BitsRequest:
        """The request. Raises SpecError with all problems."""
        data = cast(Mapping[str, object], self.document.data)
        default = data.get("default")
        weight, activation = self.wxay(("default",), default) if default is not None else (None, None)
        config = self.choice("config", CONFIGS, "auto")
        first_last = self.choice("first_last", FIRST_LAST, "same")
        policy = self.choice("padding_policy", PADDING_POLICIES, "pad_code")
        overrides = [self.override(key, value) for key, value in data.items() if key not in RESERVED]
        if not overrides and default is None and not self.problems:
            self.complain((), "expected `default: W4A4` or name patterns with bits, found neither")
        if self.problems:
            raise SpecError(self.problems)
        return BitsRequest(weight, activation, config, first_last, policy, tuple(overrides), self.document.path)

    def choice(self, key: str, allowed: tuple[str, ...], fallback: str) -> str:
        """One of a few words; the command line may say the same, not something else."""
        asked = self.chosen.get(key, fallback)
        value = cast(Mapping[str, object], self.document.data).get(key)
        if value is None:
            return asked
        if str(value) not in allowed:
            self.complain((key,), f"expected one of {', '.join(allowed)}, got {value!r}")
        elif asked not in (fallback, str(value)):
            self.complain((key,), f"says {value}, the command line says {asked}: keep one of them")
        return str(value)

    def wxay(self, keys: tuple[str, ...], value: object) -> tuple[int | None, int | None]:
        """Bits of a `W4A4` entry."""
        try:
            return parse_wxay(value if isinstance(value, str) else repr(value), place="")
        except SpecError as problem:
            self.complain(keys, str(problem).removeprefix(": "))
            return None, None

    def override(self, pattern: str, value: object) -> Override:
        """One pattern with its bits."""
        line = self.document.line((pattern,)) if self.document.lines else None
        place = f"{self.document.path}:{line}: {pattern}" if line else f"{self.document.path}: {pattern}"
        if isinstance(value, str):
            weight, activation = self.wxay((pattern,), value)
            return Override(pattern, place, weight, activation)
        if not isinstance(value, Mapping) or not value:
            self.complain((pattern,), f"expected W4A4 or {{weight: 4, input: 4}}, got {value!r}")
            return Override(pattern, place)
        found: dict[str, int] = {}
        for key, bits in cast(Mapping[str, object], value).items():
            name = "input" if key == "activation" else str(key)
            limit = MAX_OUTPUT_BITS if name == "output" else MAX_BITS
            if key not in OPERAND_KEYS:
                self.complain((pattern, str(key)), f"unknown key; expected one of {', '.join(OPERAND_KEYS)}")
            elif not isinstance(bits, int) or isinstance(bits, bool) or not 1 <= bits <= limit:
                self.complain((pattern, str(key)), f"expected a whole number from 1 to {limit}, got {bits!r}")
            elif name in found:
                self.complain((pattern, str(key)), "input and activation are the same operand: keep one")
            else:
                found[name] = bits
        return Override(pattern, place, found.get("weight"), found.get("input"), found.get("output"))


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


def sharing_groups(workload: Workload) -> tuple[tuple[str, ...], ...]:
    """Names of activations that must have equal bits, group by group; a tensor on its own is in none.

    Inputs of an addition or subtraction (integers can only be added at one scale and width), parts and result of a
    concatenation, what a max pooling reads and makes, and what an activation function reads and makes when nobody else
    reads it (it runs before rounding).
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
        elif layer.op in ACTIVATION_FUNCTIONS and set(inputs) <= produced:
            readers = [reader for name in inputs for reader in read_by[name]]
            if all(reader.op in ACTIVATION_FUNCTIONS for reader in readers):
                join([layer.output.name, *inputs])
    groups: dict[str, list[str]] = {}
    for name in parent:
        groups.setdefault(root(name), []).append(name)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)
