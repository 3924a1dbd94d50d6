"""`quantize(model, ...)`: a float model with its layers swapped for quantized ones, and the plan that says which, why.

Each layer's activation configuration follows from what its input can be (`quant.context`); first and last layers,
elementwise operations and named exceptions have their own rules. Operations written as functions (`x + y`, `x @ y`) are
replaced by rewriting the traced graph; what cannot be replaced is listed in `plan.left`, never passed over in silence.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from quant import context, recurrent, rewrite
from quant.context import Op, Range
from quant.layers import quantized_like
from quant.operators import ASYMMETRIC, GATE, REASONS, SIGNED, UNSIGNED
from quant.overrides import read_yaml
from quant.quantizer import BaseQuantizer
from quant.spec import (
    ACTIVATION_CONFIGS,
    CLIP_RULES,
    FORMATS,
    GRANULARITIES,
    HALF,
    INIT_NAMES,
    METHOD_NAMES,
    OFFSET_MODES,
    PADDING_POLICIES,
    POSITIVITY,
    SCALE_RULES,
    QuantSpec,
    check_choice,
)
from quant.tracing import named_arguments
from quant.transformer import open_transformers

_MATRIX = (
    "conv1d", "conv2d", "conv3d", "linear", "embedding", "embeddingbag",
    "convtranspose1d", "convtranspose2d", "convtranspose3d",
)  # fmt: skip
_TABLES = ("embedding", "embeddingbag")
_RECURRENT = ("lstm", "gru", "rnn")
_WEIGHTED = (
    nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.RNNBase,
)  # fmt: skip
_ELEMENTWISE = ("add", "sub", "mul", "maximum", "minimum", "concat", "mean")
_PAIRS = ("add", "sub", "mul", "matmul", "maximum", "minimum")
_SHARED = ("add", "sub", "maximum", "minimum", "concat")
_OF_ACTIVATIONS = (*_ELEMENTWISE, "matmul", "attention", "multiheadattention")
# Methods that quantize weights and activations differently, and those that know no offset.
_WEIGHT_METHOD = {"pact": "dorefa"}
_WITHOUT_OFFSET = ("lsq", "pact", "qil", "dorefa")


@dataclass(frozen=True)
class Choices:
    """All that can be chosen for one layer. Every field but `skip` is an argument of `quantize` too."""

    weight_bits: int
    act_bits: int
    config: int | str = "auto"
    padding_policy: str = "pad_code"
    weight_granularity: str = "tensor"
    method: str = "lsqplus"
    init: str = "lsqplus"
    clip_rule: str = "strict"
    offset_mode: str = "learned"
    power_of_two: bool = False
    ternary_weights: bool = False
    shared_inputs: bool = False
    positivity: str = "absolute"
    weight_group: int = 0
    weight_offset: bool = False
    weight_format: str = ""
    act_format: str = ""
    scale_rule: str = "floor"
    skip: bool = False

    def __post_init__(self) -> None:
        check_choice("config", self.config, ("auto", *ACTIVATION_CONFIGS))
        check_choice("padding_policy", self.padding_policy, PADDING_POLICIES)
        check_choice("weight_granularity", self.weight_granularity, GRANULARITIES)
        check_choice("method", self.method, METHOD_NAMES)
        check_choice("init", self.init, INIT_NAMES)
        check_choice("clip_rule", self.clip_rule, CLIP_RULES)
        check_choice("offset_mode", self.offset_mode, OFFSET_MODES)
        check_choice("positivity", self.positivity, POSITIVITY)
        check_choice("scale_rule", self.scale_rule, SCALE_RULES)
        check_choice("weight_format", self.weight_format, ("", *FORMATS))
        check_choice("act_format", self.act_format, ("", *FORMATS))
        if self.weight_group and self.weight_granularity == "channel":
            raise ValueError("weight_group: groups are finer than channels: leave weight_granularity out")
        if not self.weight_group and self.weight_granularity == "group":
            raise ValueError("weight_group: missing: elements along the input channels that share a step, e.g. 64")
        self.weight_spec()
        QuantSpec(self.act_bits, False)
        if self.act_format:
            self.input_spec(Range(SIGNED, ""))

    def weight_spec(self) -> QuantSpec:
        """Weights are symmetric and signed (LSQ+ Eq. 1) unless `weight_offset`; DoReFa's levels, odd multiples of s/2,
        have an offset. A named format decides on bits and scales."""
        method = _WEIGHT_METHOD.get(self.method, self.method)
        granularity = "group" if self.weight_group else self.weight_granularity
        if self.weight_format:
            return QuantSpec.for_format(
                self.weight_format, self.weight_group, granularity, method=method, init=self.init,
                offset=self.weight_offset, scale_rule=self.scale_rule,
            )  # fmt: skip
        return QuantSpec(
            2 if self.ternary_weights else self.weight_bits, True, offset=method == "dorefa" or self.weight_offset,
            method=method, init=self.init, clip_rule=self.clip_rule, granularity=granularity, group=self.weight_group,
            power_of_two=self.power_of_two, ternary=self.ternary_weights, positivity=self.positivity,
        )  # fmt: skip

    def without_formats(self) -> Choices:
        """The same with integers and one step per tensor; activations of 16-bit floats stay."""
        act = self.act_format if self.act_format in HALF else ""
        plain = "tensor" if self.weight_granularity == "group" else self.weight_granularity
        return replace(
            self, weight_format="", weight_group=0, weight_offset=False, act_format=act, weight_granularity=plain
        )

    def input_spec(self, source: Range) -> QuantSpec:
        """Spec of an activation quantizer for values of that range. Float formats are signed and know no offset."""
        if self.act_format:
            return QuantSpec.for_format(self.act_format, method=self.method, init=self.init, scale_rule=self.scale_rule)
        config = self.config_for(source)
        offset = ACTIVATION_CONFIGS[config].offset
        return QuantSpec.for_config(
            self.act_bits, config, method=self.method, init=self.init, clip_rule=self.clip_rule,
            offset_mode=self.offset_mode if offset else "learned", power_of_two=self.power_of_two,
            snap_offset=offset and self.padding_policy == "snap_offset", positivity=self.positivity,
        )  # fmt: skip

    def config_for(self, source: Range) -> int:
        """Row of Table 1. A chosen row holds where the paper leaves a choice: not for gates and linear outputs."""
        if source.kind == SIGNED:
            return 2
        if source.kind == GATE or self.method in _WITHOUT_OFFSET:
            # A method without an offset clips what an activation leaves below 0, as LSQ does.
            return 2 if self.config == 2 and source.kind != GATE else 1
        if self.config == "auto":
            return {UNSIGNED: 1, ASYMMETRIC: 4}[source.kind]
        return int(self.config)


@dataclass(frozen=True)
class LayerPlan:
    """What was chosen for one layer: a quantizer per operand, and the reason of each input's configuration."""

    name: str
    op: str
    weight: QuantSpec | None
    inputs: tuple[QuantSpec, ...]
    reasons: tuple[str, ...]
    padding_policy: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Left:
    """An operation of the float model that stays in floating point, and why."""

    name: str
    op: str
    why: str


@dataclass(frozen=True)
class Plan:
    """What `quantize` chose: the layers in order of execution, what stays float, the arguments given, and what is
    likely to go wrong in training.
    """

    layers: tuple[LayerPlan, ...]
    left: tuple[Left, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> list[dict[str, Any]]:
        """One row per quantized operand."""
        rows = []
        for layer in self.layers:
            operands = [("weight", layer.weight, "")] if layer.weight is not None else []
            names = ["input"] if len(layer.inputs) == 1 else [f"input {i}" for i in range(len(layer.inputs))]
            operands += list(zip(names, layer.inputs, layer.reasons, strict=True))
            for operand, spec, reason in operands:
                assert spec is not None
                rows.append(
                    {"layer": layer.name, "op": layer.op, "operand": operand, "bits": spec.bits,
                     "codes": spec.codes_text, "offset": spec.offset, "method": spec.method,
                     "config": None if operand == "weight" else spec.config,
                     "padding": layer.padding_policy or "", "why": "; ".join(filter(None, (reason, layer.note)))}
                )  # fmt: skip
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "settings": dict(self.settings),
            "layers": [
                {**asdict(layer), "weight": layer.weight and layer.weight.to_dict(),
                 "inputs": [spec.to_dict() for spec in layer.inputs]}
                for layer in self.layers
            ],
            "left": [asdict(left) for left in self.left],
            "warnings": list(self.warnings),
        }  # fmt: skip

    def __str__(self) -> str:
        heads = ("layer", "op", "operand", "bits", "codes", "config", "padding", "why")
        rows = [heads]
        for row in self.to_frame():
            config = f"{row['config']}" if row["config"] else "-"
            cells = {**row, "config": config + (" (offset)" if row["offset"] else "")}
            rows.append(tuple(str(cells[head]) for head in heads))
        widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines += [f"left in float: {left.name} ({left.op}): {left.why}" for left in self.left]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def quantize(
    model: nn.Module,
    *,
    weight_bits: int,
    act_bits: int,
    config: int | str = "auto",
    first_last: str = "8bit",
    elementwise_bits: int | str = 8,
    padding_policy: str = "pad_code",
    overrides: str | Path | Mapping[str, Mapping[str, Any]] | None = None,
    weight_granularity: str = "tensor",
    method: str = "lsqplus",
    init: str = "lsqplus",
    clip_rule: str = "strict",
    offset_mode: str = "learned",
    power_of_two: bool = False,
    ternary_weights: bool = False,
    shared_inputs: bool = False,
    positivity: str = "absolute",
    weight_group: int = 0,
    weight_offset: bool = False,
    weight_format: str = "",
    act_format: str = "",
    scale_rule: str = "floor",
    example: Any = None,
) -> tuple[nn.Module, Plan]:
    """A quantized copy of `model` and the plan behind it; `initialise` it with data before the first forward pass.

    `config`: "auto" (by graph context) or a row of LSQ+ Table 1 for everything behind an activation function.
    `first_last`: "8bit" (LSQ: at least 8 bits for the first and last convolution or linear layer) or "same" (LSQ+).
    `elementwise_bits`: bits of the inputs of additions, products and concatenations; "same" (= act_bits), or "float",
    the papers' literal networks, whose residual path no integer machine can run.
    `overrides`: {name pattern: {choice: value}} or a YAML file of that, later patterns win; choices are the fields of
    `Choices`, `skip: true` leaves a layer in float. `shared_inputs`: one step for all inputs of an addition or
    concatenation with equal specs. `positivity`: what keeps s positive, see `QuantSpec`.
    `weight_group`: weights along the input channels that share a learned step; `weight_offset`: an offset for each step
    (asymmetric weights). `weight_format`, `act_format`: names of `quant.spec.FORMATS` such as MXFP4, NVFP4, FP8 or FP16
    (weight-only), in place of the bits; the first and last layer at 8 bits, tables and additions stay integers.
    `scale_rule`: how MX scales follow from a block's maximum. `example`: an input, a tuple
    of arguments, or a dictionary by name; needed where symbolic tracing fails, and for inputs that have a default in
    `forward`.
    Raises ValueError for names, bits and patterns that mean nothing.
    """
    settings = {k: v for k, v in locals().items() if k not in ("model", "example", "overrides")}
    check_choice("first_last", first_last, ("8bit", "same"))
    if elementwise_bits not in ("same", "float"):
        QuantSpec(elementwise_bits, False)  # type: ignore[arg-type]
    base = Choices(
        weight_bits, act_bits, config, padding_policy, weight_granularity, method, init, clip_rule, offset_mode,
        power_of_two, ternary_weights, shared_inputs, positivity, weight_group, weight_offset, weight_format,
        act_format, scale_rule,
    )  # fmt: skip
    if any(getattr(module, "is_quantized_layer", False) for module in model.modules()):
        raise ValueError("model: expected a float model, this one has quantized layers already")
    patterns = read_overrides(overrides)
    model = own_copy(model)
    open_transformers(model)
    given = named_arguments(model, example)
    ops, traced = _read(model, given)
    planner = _Planner(model, ops, base, first_last, elementwise_bits, patterns)
    model = planner.convert(traced, given)
    layers, left = tuple(planner.layers), tuple(planner.left)
    warnings = (*printed_dead_ends(layers), *planner.dead_channels())
    return model, Plan(layers, left, {**settings, "overrides": patterns}, warnings)


def own_copy(model: nn.Module) -> nn.Module:
    """A copy to change. ValueError for modules that wrap or hide the network's code, and for those without weights."""
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("model: a TorchScript module holds no Python code; give the module it was made from")
    if hasattr(model, "_orig_mod") or isinstance(model, (DataParallel, DistributedDataParallel, AveragedModel)):
        inside = "_orig_mod" if hasattr(model, "_orig_mod") else "module"
        raise ValueError(f"model: {type(model).__name__} wraps the network: quantize model.{inside}, then wrap it")
    lazy = [name for name, p in (*model.named_parameters(), *model.named_buffers()) if is_lazy(p)]
    if lazy:
        raise ValueError(f"model: {lazy[0]} has no size yet (lazy modules): run the model once on an input first")
    try:
        return copy.deepcopy(model)
    except Exception as reason:  # modules copy themselves in their own ways
        raise ValueError(
            f"model: cannot be copied ({str(reason).splitlines()[0]}); remove hooks that compute weights "
            "(torch.nn.utils.remove_weight_norm), or use torch.nn.utils.parametrizations"
        ) from reason


def printed_dead_ends(layers: Sequence[LayerPlan]) -> Iterator[str]:
    """A warning where LSQ's text, s without a guard, can end in a state that no gradient leaves."""
    risky = [layer.name for layer in layers if any(s.positivity == "printed" and s.n == 0 for s in layer.inputs)]
    if risky:
        yield (
            f"positivity 'printed' with unsigned codes (n = 0) in {len(risky)} layers ({_few(risky)}): once s is "
            "negative every positive value has code 0 and d/ds = n = 0, so s never comes back; the change limit, or "
            "positivity 'absolute', prevents it"
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def read_overrides(source: str | Path | Mapping[str, Mapping[str, Any]] | None) -> dict[str, dict[str, Any]]:
    """{pattern: {choice: value}} from a mapping or a YAML file, names checked."""
    if source is None:
        return {}
    where = "overrides"
    if isinstance(source, (str, Path)):
        where = str(source)
        source = read_yaml(Path(source))
    if not isinstance(source, Mapping):
        raise ValueError(f"{where}: expected a mapping of name patterns, got {type(source).__name__}")
    allowed = tuple(Choices.__dataclass_fields__)
    for pattern, choices in source.items():
        if not isinstance(choices, Mapping):
            raise ValueError(f"{where}: {pattern!r}: expected a mapping of choices, got {choices!r}")
        for name in choices:
            check_choice(f"{where}: {pattern!r}", name, allowed)
    return {str(pattern): dict(choices) for pattern, choices in source.items()}


def _read(model: nn.Module, given: Mapping[str, Any]) -> tuple[list[Op], bool]:
    """The model's operations, and whether its graph can be rewritten."""
    try:
        return context.trace(model, given=given), True
    except Exception as reason:  # tracing runs the model's own code, which may fail in any way
        if not given:
            raise ValueError(
                f"this model cannot be traced symbolically ({type(reason).__name__}: {reason}); pass example=an input, "
                "so that its graph is read by torch.export"
            ) from reason
        first = reason
    try:
        return context.export(model, given), False
    except Exception as reason:
        raise ValueError(
            f"this model can be read neither by symbolic tracing ({type(first).__name__}: {first}) nor by torch.export "
            f"on the example ({type(reason).__name__}: {str(reason).strip().splitlines()[0]})"
        ) from reason


def _tensors(op: Op) -> list[Op]:
    """The activations that an operation computes on, as often as it reads them."""
    if op.kind == "mean":
        return list(op.inputs[:1])
    return [o for o in op.operands if isinstance(o, Op) and o.is_tensor]


def _alike(one: BaseQuantizer, other: BaseQuantizer) -> bool:
    """Whether two quantizers of one weight can be one; the first one's rule of first values then holds."""
    return (one.spec, one.rows, one.axis) == (other.spec.replace(init=one.spec.init), other.rows, other.axis)


@dataclass
class _Site:
    """A layer or operation to quantize; a shared module has several operations."""

    name: str
    kind: str
    ops: list[Op]


class _Planner:
    """Walks the sites in order of execution, decides, swaps."""

    def __init__(
        self,
        model: nn.Module,
        ops: list[Op],
        base: Choices,
        first_last: str,
        elementwise_bits: int | str,
        patterns: dict[str, dict[str, Any]],
    ) -> None:
        self.model = model
        self.ops = ops
        self.base = base
        self.first_last = first_last
        self.elementwise_bits = elementwise_bits
        self.patterns = patterns
        self.layers: list[LayerPlan] = []
        self.left: list[Left] = []
        self.owners: dict[int, tuple[str, Any]] = {}
        self.sites = self._sites()
        matrices = [site.name for site in self.sites if site.kind in _MATRIX and site.kind not in _TABLES]
        self.ends = {matrices[0], matrices[-1]} if matrices else set()
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(site.name, pattern) for site in self.sites):
                known = ", ".join(site.name for site in self.sites[:6])
                raise ValueError(f"overrides: {pattern!r} matches no layer; there are {known}, ...")

    def _sites(self) -> list[_Site]:
        sites: dict[str, _Site] = {}
        for op in self.ops:
            kind = context.operation(op, self.model)
            if op.node.op not in ("call_module", "call_function", "call_method"):
                continue
            if op.is_fixed and kind not in _MATRIX:
                continue  # a computation on parameters, which a deployed network has done once
            if kind in _MATRIX or kind in _OF_ACTIVATIONS or (kind in _RECURRENT and op.module is not None):
                site = sites.setdefault(op.name, _Site(op.name, kind, []))
                site.ops.append(op)
            elif not context.keeps_values(op, kind) and any(source.is_tensor for source in op.inputs):
                self.left.append(Left(op.name, kind, REASONS.get(kind, "no quantized counterpart")))
        self.left += self._unseen(sites)
        return list(sites.values())

    def _unseen(self, sites: dict[str, _Site]) -> list[Left]:
        """Layers with weights that the graph shows no call of: never called, or inside a module it does not open."""
        shown = {op.name for op in self.ops if op.module is not None}
        opened = tuple(f"{name}." for name, site in sites.items() if site.kind == "multiheadattention")
        around = {name.rpartition(".")[0] for name in (op.name for op in self.ops if op.module is None)}
        found = []
        for name, module in self.model.named_modules():
            known = name in shown or name in sites or name.startswith(opened) or name in around
            if isinstance(module, _WEIGHTED) and not known:
                kind = context.plain_name(type(module))
                found.append(Left(name, kind, "not called, or inside a module whose code the graph does not show"))
        return found

    def choices_for(self, site: _Site) -> tuple[Choices, str]:
        """The choices for a site, and a note where a rule other than the arguments decided."""
        chosen, notes = self.base, []
        if self.first_last == "8bit" and site.name in self.ends:
            wide = {"weight_bits": max(8, self.base.weight_bits), "act_bits": max(8, self.base.act_bits)}
            chosen = replace(chosen.without_formats(), **wide, ternary_weights=False)
            notes.append("first or last layer at 8 bits" + self._plain(chosen)[1])
            chosen = self._plain(chosen)[0]
        if site.kind in _OF_ACTIVATIONS:
            if site.kind in _ELEMENTWISE:
                chosen = chosen.without_formats()
            if site.kind in _ELEMENTWISE and isinstance(self.elementwise_bits, int):
                chosen = replace(chosen, act_bits=self.elementwise_bits)
            elif site.kind == "mean":
                # What reads the mean rounds it again: searches over widths have no place for its input.
                chosen = replace(chosen, act_bits=8)
            notes += [self._plain(chosen)[1].lstrip(", ")]
            chosen = self._plain(chosen)[0]
        for pattern, changes in self.patterns.items():
            if fnmatch.fnmatchcase(site.name, pattern):
                try:
                    chosen = replace(chosen, **changes)
                except (ValueError, TypeError) as error:
                    raise ValueError(f"overrides: {pattern!r}: {error}") from error
                notes.append(f"override {pattern!r}")
        return chosen, ", ".join(filter(None, notes))

    def _plain(self, chosen: Choices) -> tuple[Choices, str]:
        """LSQ+ instead of a baseline where its papers quantize nothing: ends of the network, products, additions."""
        if chosen.method in ("lsq", "lsqplus"):
            return chosen, ""
        return replace(chosen, method="lsqplus"), f", by lsqplus: {chosen.method} leaves it in float"

    def convert(self, traced: bool, given: Mapping[str, Any]) -> nn.Module:
        """Swap every site's module; rewrite the graph where operations have none."""
        written: list[tuple[Op, nn.Module, LayerPlan]] = []
        for site in self.sites:
            chosen, note = self.choices_for(site)
            why = self._reason_to_leave(site, chosen, traced)
            if why:
                self.left.append(Left(site.name, site.kind, why))
                continue
            if site.ops[0].module is not None:
                self._swap(site, chosen, note)
            else:
                for op in site.ops:
                    made, plan = self._written(site, op, chosen, note)
                    written.append((op, made, plan))
                    self.layers.append(plan)
        if not written:
            return self.model
        stuck = rewrite.differing_in_training(self.model, self.ops, given)
        if stuck:
            taken = {plan.name for _, _, plan in written}
            self.layers = [plan for plan in self.layers if plan.name not in taken]
            self.left += [Left(plan.name, plan.op, f"the forward pass depends on training mode: {stuck}")
                          for _, _, plan in written]  # fmt: skip
            return self.model
        return rewrite.insert_modules(self.model, self.ops, [(op, made, plan.name) for op, made, plan in written])

    def _reason_to_leave(self, site: _Site, chosen: Choices, traced: bool) -> str:
        op = site.ops[0]
        if chosen.skip:
            return "skipped by an override"
        module = None if op.module is None else self.model.get_submodule(op.module)
        if isinstance(module, nn.RNNBase):
            return recurrent.obstacle(module)
        if site.kind in _MATRIX and module is not None:
            return rewrite.unquantizable_type(module)
        if op.module is None and not traced:
            return "written as a function in a model that cannot be traced symbolically"
        if site.kind in _MATRIX:
            found = rewrite.layer_of_call(site.kind, op, self.model)
            return found if isinstance(found, str) else ""
        return self._reason_to_leave_operation(site, op)

    def _reason_to_leave_operation(self, site: _Site, op: Op) -> str:
        tensors = _tensors(op)
        if not op.is_tensor:
            return "arithmetic on sizes"
        if site.kind == "mul" and context.is_self_gated(op) and op.operands[0] is not op.operands[1]:
            return "an activation function written as a product"
        if len(tensors) < 2 and site.kind in _PAIRS:
            return "one operand is a constant"
        if site.kind in _ELEMENTWISE and self.elementwise_bits == "float":
            return "elementwise_bits='float'"
        if site.kind == "concat" and all(source.range.kind == SIGNED for source in tensors):
            return "moves values that have no activation yet; what reads them quantizes them"
        return rewrite.obstacle(site.kind, op, self.model)

    def _swap(self, site: _Site, chosen: Choices, note: str) -> None:
        """Put the quantized module in the place of the old one, under every name that it has."""
        old = self.model.get_submodule(site.name)
        if site.kind in _MATRIX:
            new, plan = self._matrix(site, old, chosen, note)
        elif isinstance(old, nn.RNNBase):
            new, plan = self._recurrent(site, old, chosen, note)
        else:
            new, plan = self._operation(site, site.ops[0], chosen, note)
        new.train(old.training)
        for name in [n for n, module in self.model.named_modules(remove_duplicate=False) if module is old]:
            self.model.set_submodule(name, new)
        self.layers.append(plan)

    def _written(self, site: _Site, op: Op, chosen: Choices, note: str) -> tuple[nn.Module, LayerPlan]:
        """The module for an operation that the code writes as a function."""
        if site.kind not in _MATRIX:
            return self._operation(site, op, chosen, note)
        layer = rewrite.layer_of_call(site.kind, op, self.model)
        assert isinstance(layer, nn.Module)
        return self._matrix(site, layer, chosen, note)

    def _matrix(self, site: _Site, old: nn.Module, chosen: Choices, note: str) -> tuple[nn.Module, LayerPlan]:
        weight = chosen.weight_spec()
        if site.kind in _TABLES:
            # LSQ+'s Gaussian rule is for the weights of sums, and cuts at 3 sigma what a row look-up gives out whole.
            rule = "mse" if weight.init == "lsqplus" else weight.init
            weight = chosen.without_formats().weight_spec().replace(granularity="tensor", init=rule)
            new = quantized_like(old, weight)
            note = self._note(new, note)
            return self._tied(new, site.name), LayerPlan(site.name, site.kind, weight, (), (), None, note)
        source = context.join(op.inputs[0].range for op in site.ops)
        spec = chosen.input_spec(source)
        padded = site.kind in ("conv1d", "conv2d", "conv3d")
        extra = self._absorbed_padding(site) if padded and site.ops[0].module is not None else ()
        if not padded:
            spec = spec.replace(snap_offset=False)
        new = quantized_like(old, weight, spec, chosen.padding_policy, extra)
        policy = chosen.padding_policy if padded and any(new.total_padding()) else None
        if policy and new.input_quantizer.zero_is_exact:
            note = ", ".join(filter(None, (note, "0 is a code: all padding policies agree")))
        note = self._note(new, note)
        return self._tied(new, site.name), LayerPlan(
            site.name, site.kind, weight, (spec,), (source.reason,), policy, note
        )

    def _note(self, new: nn.Module, note: str) -> str:
        """The note of a layer, with the name of the layer that it shares its weight with."""
        first = self.owners.get(id(new.weight))
        if first is None:
            return note
        same = _alike(first[1].weight_quantizer, new.weight_quantizer)
        shared = f"weight of {first[0]}, " + ("with the same codes" if same else "with codes of its own")
        return ", ".join(filter(None, (note, shared)))

    def _tied(self, new: nn.Module, name: str) -> nn.Module:
        """Layers that share a weight share its quantizer, where their specs agree: the weight is stored once."""
        first = self.owners.setdefault(id(new.weight), (name, new))[1]
        if first is not new and _alike(first.weight_quantizer, new.weight_quantizer):
            new.weight_quantizer = first.weight_quantizer
        return new

    def _recurrent(self, site: _Site, old: nn.RNNBase, chosen: Choices, note: str) -> tuple[nn.Module, LayerPlan]:
        """Hidden states lie in -1..1, or are not negative behind ReLU."""
        weight = chosen.weight_spec()
        source = context.join(op.inputs[0].range for op in site.ops)
        behind_relu = old.mode == "RNN_RELU"
        hidden = Range(UNSIGNED, "hidden state after relu") if behind_relu else Range(SIGNED, "hidden state")
        specs = tuple(chosen.input_spec(r).replace(snap_offset=False) for r in (source, hidden))
        new = recurrent.QRecurrent(old, weight, *specs)
        note = ", ".join(filter(None, (note, "gates and cell state in floating point")))
        return new, LayerPlan(site.name, site.kind, weight, specs, (source.reason, hidden.reason), None, note)

    def dead_channels(self) -> Iterator[str]:
        """A warning where layers in front of a batch norm have channels of weights that are all 0.

        The norm divides what is constant by sqrt(eps), and multiplies gradients by 1/sqrt(eps): 316 at eps = 1e-5.
        """
        found: dict[str, int] = {}
        for site in self.sites:
            if site.ops[0].module is None or site.kind.startswith("convtranspose"):
                continue
            if not any(user.kind.startswith("batchnorm") for op in site.ops for user in op.users):
                continue
            layer = self.model.get_submodule(site.name)
            quantizer = getattr(layer, "weight_quantizer", None)
            if quantizer is None or layer.weight.is_meta:
                continue
            dead = int((quantizer.codes(layer.weight.detach()).flatten(1) == 0).all(1).sum())
            if dead:
                found[f"{site.name}: {dead} of {len(layer.weight)}"] = dead
        if found:
            yield (
                f"{sum(found.values())} output channels in {len(found)} layers ({_few(list(found))}) have no weight "
                "but 0 and a batch norm behind them, which multiplies gradients by 1/sqrt(eps): init 'mse' or "
                "granularity 'channel' rounds fewer weights to 0"
            )

    def _absorbed_padding(self, site: _Site) -> tuple[int, ...]:
        """Padding of an nn.ZeroPad in front of the convolution alone, which then becomes an nn.Identity."""
        if len(site.ops) != 1 or not site.ops[0].inputs:
            return ()
        source = site.ops[0].inputs[0]
        if source.module is None or len(source.users) != 1:
            return ()
        module = self.model.get_submodule(source.module)
        if not isinstance(module, (nn.ZeroPad1d, nn.ZeroPad2d)) or min(module.padding) < 0:
            return ()
        self.model.set_submodule(source.module, nn.Identity())
        return tuple(module.padding)

    def _operation(self, site: _Site, op: Op, chosen: Choices, note: str) -> tuple[nn.Module, LayerPlan]:
        sources = _tensors(op)
        if site.kind in ("attention", "multiheadattention"):
            return self._attention(site, op, chosen, note)
        specs = tuple(chosen.input_spec(source.range).replace(snap_offset=False) for source in sources)
        reasons = tuple(source.range.reason for source in sources)
        shared = chosen.shared_inputs and site.kind in _SHARED and len(set(specs)) == 1
        module = None if op.module is None else self.model.get_submodule(op.module)
        made = rewrite.quantized_operation(site.kind, specs, shared, rewrite.concat_dim(op, module))
        if shared:
            note = "; ".join(filter(None, (note, "one step for all inputs")))
        return made, LayerPlan(op.name, site.kind, None, specs, reasons, None, note)

    def _attention(self, site: _Site, op: Op, chosen: Choices, note: str) -> tuple[nn.Module, LayerPlan]:
        plain = chosen.input_spec(Range(SIGNED, "")).replace(snap_offset=False)
        gate = chosen.input_spec(Range(GATE, "")).replace(snap_offset=False)
        specs = (plain, plain, gate, plain)
        reasons = ("query", "key", "probabilities after softmax", "value")
        if site.kind == "attention":
            return rewrite.quantized_attention(op, specs), LayerPlan(
                op.name, site.kind, None, specs, reasons, None, note
            )
        old = self.model.get_submodule(site.name)
        weight = chosen.weight_spec()
        made = rewrite.quantized_multihead(old, weight, specs)
        return made, LayerPlan(site.name, site.kind, weight, specs, reasons, None, note)
