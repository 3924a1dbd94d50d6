"""Train networks whose weights and activations are codes: LSQ and LSQ+ as printed, and what they are compared with.

`quantize(model, weight_bits=4, act_bits=4)` swaps the layers of a float model, `initialise(model, batches)` sets the
first step sizes and offsets, `fold_batchnorm(model)` prepares deployment. `quant.functional` holds the formulas.
"""

from quant.baselines import METHODS, make_quantizer
from quant.convert import Plan, quantize
from quant.fold import fold_batchnorm
from quant.quantizer import BaseQuantizer, Quantizer, export_names, initialise, parameter_groups, quantizers
from quant.spec import ACTIVATION_CONFIGS, QuantSpec

__all__ = [
    "ACTIVATION_CONFIGS",
    "METHODS",
    "BaseQuantizer",
    "Plan",
    "QuantSpec",
    "Quantizer",
    "export_names",
    "fold_batchnorm",
    "initialise",
    "make_quantizer",
    "parameter_groups",
    "quantize",
    "quantizers",
]
