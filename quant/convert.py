"""`quantize(model, ...)`: a float model with its layers swapped for quantized ones, and the plan that says which, why.

Each layer's activation configuration follows from what its input can be (`quant.context`); first and last layers,
elementwise operations and named exceptions have their own rules. Operations written as functions (`x + y`, `x @ y`) are
replaced by rewriting the traced graph; what cannot be replaced is listed in `plan.left`, never passed over in silence.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from quant import context
from quant.choices import Choices
from quant.context import Op
from quant.overrides import read_yaml
from quant.plan import Plan, printed_dead_ends
from quant.planner import Planner
from quant.short_names import with_short_name
from quant.spec import QuantSpec, check_choice
from quant.tracing import named_arguments
from quant.transformer import open_transformers


def quantize(
    model: nn.Module,
    *,
    bits: str = "",
    weight_bits: int | None = None,
    act_bits: int | None = None,
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
    weight_scale: str = "fp32",
    example: Any = None,
) -> tuple[nn.Module, Plan]:
    """A quantized copy of `model` and the plan behind it; `initialise` it with data before the first forward pass.

    `bits`: a short name such as "W4A4", "W4g64A16" or "MXFP4", in place of `weight_bits`, `act_bits` and what it says.
    `config`: "auto" (by graph context) or a row of LSQ+ Table 1 for everything behind an activation function.
    `first_last`: "8bit" (LSQ: at least 8 bits for the first and last convolution or linear layer) or "same" (LSQ+).
    `elementwise_bits`: bits of the inputs of additions, products and concatenations; "same" (= act_bits), or "float",
    the papers' literal networks, whose residual path no integer machine can run.
    `overrides`: {name pattern: {choice: value}} or a YAML file of that, later patterns win; choices are the fields of
    `Choices`, `skip: true` leaves a layer in float. `shared_inputs`: one step for all inputs of an addition or
    concatenation with equal specs. `positivity`: what keeps s positive, see `QuantSpec`.
    `weight_group`: weights along the input channels that share a learned step; `weight_offset`: an offset for each step
    (asymmetric weights); `weight_scale`: "fp32", or "fp16" for steps per channel or group that are fp16 numbers, as
    W4A16 and W4g64A16 mean. `weight_format`, `act_format`: names of `quant.spec.FORMATS` such as MXFP4, NVFP4, FP8 or
    FP16 (weight-only), in place of the bits; the first and last layer at 8 bits, tables and additions stay integers.
    `scale_rule`: how MX scales follow from a block's maximum. `example`: an input, a tuple
    of arguments, or a dictionary by name; needed where symbolic tracing fails, and for inputs that have a default in
    `forward`.
    Raises ValueError for names, bits and patterns that mean nothing.
    """
    settings = {k: v for k, v in locals().items() if k not in ("model", "example", "overrides", "bits")}
    if bits:
        return quantize(model, **named_bits(bits, settings), overrides=overrides, example=example)
    if weight_bits is None or act_bits is None:
        raise ValueError("weight_bits, act_bits: missing: give both, or bits='W4A4'")
    check_choice("first_last", first_last, ("8bit", "same"))
    if elementwise_bits not in ("same", "float"):
        QuantSpec(elementwise_bits, False)  # type: ignore[arg-type]
    base = Choices(
        weight_bits, act_bits, config, padding_policy, weight_granularity, method, init, clip_rule, offset_mode,
        power_of_two, ternary_weights, shared_inputs, positivity, weight_group, weight_offset, weight_format,
        act_format, scale_rule, weight_scale,
    )  # fmt: skip
    if any(getattr(module, "is_quantized_layer", False) for module in model.modules()):
        raise ValueError("model: expected a float model, this one has quantized layers already")
    patterns = read_overrides(overrides)
    model = own_copy(model)
    open_transformers(model)
    given = named_arguments(model, example)
    if any(isinstance(value, torch.Tensor) and value.is_nested for value in given.values()):
        raise ValueError("example: a nested tensor has rows of different lengths: give padded ones")
    ops, traced = _read(model, given)
    planner = Planner(model, ops, base, first_last, elementwise_bits, patterns)
    model = planner.convert(traced, given)
    layers, left = tuple(planner.layers), tuple(planner.left)
    warnings = (*printed_dead_ends(layers), *planner.dead_channels(), *planner.choices_by_values())
    return model, Plan(layers, left, {**settings, "overrides": patterns}, warnings)


def named_bits(bits: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `quantize` with those that a short name stands for. ValueError where they contradict it."""
    for name in ("weight_bits", "act_bits"):
        if settings[name] is not None:
            raise ValueError(f"{name}: {settings[name]}, but bits={bits!r} says it already: leave one of them out")
    meant = with_short_name(bits, settings)
    if meant is None:
        raise ValueError(f"bits: {bits!r} is the network as it is: there is nothing to quantize")
    return meant


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
    sparse = [name for name, t in (*model.named_parameters(), *model.named_buffers()) if t.layout != torch.strided]
    if sparse:
        raise ValueError(f"model: {sparse[0]} is stored sparse: quantize takes dense tensors; use its to_dense()")
    held = hook_that_holds(model)
    if held:
        raise ValueError(
            f"model: a hook of {held} holds the model or a list of it: a copy's hook would still write into the "
            "original; make it a method of the module, or register it after quantize"
        )
    return copied(model)


def hook_that_holds(model: nn.Module) -> str:
    """The module with a hook whose closure holds a module of the model, or a list or dictionary of one; "" for none."""
    own = {id(module) for module in model.modules()}
    own |= {id(v) for module in model.modules() for v in vars(module).values() if isinstance(v, (list, dict))}
    for name, module in model.named_modules():
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            cells = [cell for cell in getattr(hook, "__closure__", None) or () if cell != types.CellType()]
            if any(id(cell.cell_contents) in own for cell in cells):
                return name or type(module).__name__
    return ""


def copied(model: nn.Module) -> nn.Module:
    """A copy; ValueError with the way out where hooks compute weights."""
    try:
        return copy.deepcopy(model)
    except Exception as reason:  # modules copy themselves in their own ways
        raise ValueError(
            f"model: cannot be copied ({str(reason).splitlines()[0]}); remove hooks that compute weights "
            "(torch.nn.utils.remove_weight_norm), or use torch.nn.utils.parametrizations"
        ) from reason


def read_overrides(source: object) -> dict[str, dict[str, Any]]:
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
