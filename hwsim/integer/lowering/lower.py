# pyright: basic
"""From a quantized torch network to integers: `lower(model, example) -> IntegerModel`.

The network is exported with every quantizer as one marked node, in float64, and walked operator by operator
(`hwsim.integer.lowering.walk`); what each operator does is one handler in `hwsim.integer.lowering.operators`.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from hwsim.errors import UnsupportedOp, WorkloadError
from hwsim.integer.graph import IntegerModel
from hwsim.integer.lowering.operators import HANDLERS
from hwsim.integer.lowering.walk import Lowering
from quant import BaseQuantizer, export_names, quantizers


def lower(model: nn.Module, example: Tensor, *, name: str = "", allow_float: bool = True) -> IntegerModel:
    """The integer network of a quantized model; `example` is one input with its batch axis.

    Raises WorkloadError for a model without (initialised) quantizers, UnsupportedOp for an operator without integer
    form, naming layer and way out. `allow_float`: softmax, normalisations and the like may stay float (and are listed).
    """
    name = name or type(model).__name__
    model, program, found = exported(model, example, name)
    return Lowering(model, program, found, HANDLERS, allow_float).run(name)


def exported(
    model: nn.Module, example: Tensor, name: str
) -> tuple[nn.Module, torch.export.ExportedProgram, dict[str, BaseQuantizer]]:
    """A float64 copy of a quantized model, its graph with a marked node per quantizer, and the quantizers by name.

    Raises WorkloadError for a model without (initialised) quantizers, UnsupportedOp where torch.export fails.
    """
    model = copy.deepcopy(model).double().eval()
    found = dict(quantizers(model))
    if not found:
        raise WorkloadError(
            f"{name}: the network has no quantizers; quantize it first (quant.quantize, then quant.initialise or "
            "training), or price it as it is with hwsim.evaluate"
        )
    unset = [n for n, q in found.items() if not bool(q.initialized)]
    if unset:
        raise WorkloadError(f"quantizer {unset[0]} has no step size yet: call quant.initialise(model, batches) first")
    with export_names(model), torch.no_grad():
        try:
            program = torch.export.export(model, (example[:1].double(),), strict=False)
        except Exception as problem:  # torch.export runs the model's own code, which may fail in any way
            raise UnsupportedOp(f"{name}: torch.export cannot read the network: {problem}") from problem
    return model, program, found
