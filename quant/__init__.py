"""Train networks whose weights and activations are codes: LSQ and LSQ+ as printed, and what they are compared with.

`quantize(model, weight_bits=4, act_bits=4)` swaps the layers of a float model, `initialise(model, batches)` sets the
first step sizes and offsets, `fold_batchnorm(model)` prepares deployment. `quant.functional` holds the formulas.
`fit(model, data, recipe)` trains, `calibrate(model, batches)` does without; `quant.models`, `quant.data` and
`quant.checkpoint` are the zoo, the data sets and what is kept of a run.
"""

from quant.accuracy import evaluate
from quant.baselines import METHODS, make_quantizer
from quant.calibration import Calibration, calibrate
from quant.convert import quantize
from quant.fold import fold_batchnorm
from quant.loop import FitResult, TrainingDiverged, fit
from quant.plan import Plan
from quant.quantizer import BaseQuantizer, Quantizer
from quant.recipe import Recipe
from quant.spec import ACTIVATION_CONFIGS, QuantSpec
from quant.whole_models import export_names, initialise, parameter_groups, quantizers

__all__ = [
    "ACTIVATION_CONFIGS",
    "METHODS",
    "BaseQuantizer",
    "Calibration",
    "FitResult",
    "Plan",
    "QuantSpec",
    "Quantizer",
    "Recipe",
    "TrainingDiverged",
    "calibrate",
    "evaluate",
    "export_names",
    "fit",
    "fold_batchnorm",
    "initialise",
    "make_quantizer",
    "parameter_groups",
    "quantize",
    "quantizers",
]
