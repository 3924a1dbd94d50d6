"""Work beside the MAC array: operations and table lookups per element for every operator without MACs.

The counts are a stated table, not a measurement: an operation is one lane-cycle of the vector unit (add, multiply,
compare, shift), a lookup one table access. Bringing a value onto another grid is one requantization, whose price is
the machine's capability (fixed-point multiplier, shift, thresholds).
"""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.machine.parts import Accelerator, Capabilities
from hwsim.network.layer import Layer, Tensor

LOOKUP_BITS = 8  # tables have at most 2^8 entries; wider inputs interpolate between two entries


@dataclass(frozen=True)
class Recipe:
    """Work of an operator: per output element, per element of its window, per input element, per input tensor."""

    ops: int = 0
    lookups: int = 0
    requantizations: int = 0
    window_ops: int = 0
    input_ops: int = 0
    requantize_each_input: bool = False


@dataclass(frozen=True)
class VectorWork:
    """Operations and lookups of one layer."""

    ops: int
    lookups: int

    @property
    def slots(self) -> int:
        """Lane-cycles: a lookup takes a lane as long as an operation."""
        return self.ops + self.lookups


LOOKUP = Recipe(lookups=1)
REDUCE = Recipe(input_ops=1, requantizations=1)
VECTOR_OPS_PER_ELEMENT: dict[str, Recipe] = {
    "add": Recipe(ops=1, requantize_each_input=True),  # inputs come on different grids
    "sub": Recipe(ops=1, requantize_each_input=True),
    "mul": Recipe(ops=1, requantizations=1),
    "div": Recipe(ops=1, lookups=1, requantizations=1),  # multiply by a looked-up reciprocal
    "relu": Recipe(ops=1),
    "relu6": Recipe(ops=1),
    "leaky_relu": Recipe(ops=2),
    **dict.fromkeys(("silu", "hswish", "hsigmoid", "sigmoid", "gelu", "tanh", "exp", "sqrt", "pow"), LOOKUP),
    "softmax": Recipe(ops=4, lookups=1, requantizations=1),  # max, subtract, sum, times reciprocal; exp from a table
    "layer_norm": Recipe(ops=7, requantizations=1),  # mean 1, variance 2, centre 1, scale 1, affine 2
    "rms_norm": Recipe(ops=4, requantizations=1),  # square and sum 2, scale 1, gamma 1
    "rope": Recipe(ops=3, requantizations=1),  # two products and a sum: x cos + rotated x sin
    "swiglu": Recipe(ops=2, lookups=1, requantizations=1),  # SiLU from a table, times the gate, times the other half
    "combine": Recipe(input_ops=2, requantizations=1),  # results of experts, each times its share, summed
    "group_norm": Recipe(ops=7, requantizations=1),
    "batch_norm": Recipe(ops=2),
    "lrn": Recipe(ops=2, lookups=1, requantizations=1, window_ops=2),  # square and add over the window
    "max_pool": Recipe(window_ops=1),
    "avg_pool": Recipe(window_ops=1, requantizations=1),
    "reduce_sum": REDUCE,
    "reduce_mean": REDUCE,
    "reduce_max": Recipe(input_ops=1),
    "concat": Recipe(requantizations=1),
    "requantize": Recipe(requantizations=1),
    **dict.fromkeys(("embedding", "pad", "upsample", "copy"), Recipe()),
}


def requantize_ops(capabilities: Capabilities, output_bits: int) -> int:
    """Operations that turn one accumulator into a code.

    multiplier: multiply, rounding shift; shift: one; thresholds: a binary search through 2^bits - 1 of them.
    """
    return {"multiplier": 2, "shift": 1, "thresholds": output_bits}[capabilities.requantization]


def mac_layer_ops(layer: Layer, accelerator: Accelerator, output_bits: int) -> int:
    """Operations of a layer with MACs on the vector unit: requantization, and copies of windows where it makes them.

    A processor that gathers windows before its products copies N*G*P*Q * C*R*S codes, zeros of the border included.
    """
    ops = layer.output.elements * requantize_ops(accelerator.capabilities, output_bits) + maxima_ops(layer.output)
    if layer.op == "conv":
        ops += accelerator.vector.ops_per_copied_code * (layer.macs // layer.loops.K)
    return ops


def maxima_ops(made: Tensor) -> int:
    """Comparisons that find the maxima which scales of groups, or of tokens, follow from: one per element."""
    shared = made.format is not None and made.format.sharing in ("group", "channel")
    return made.elements if shared else 0


def vector_work(layer: Layer, capabilities: Capabilities) -> VectorWork:
    """Operations and lookups of a layer without MACs. Never more when bits fall."""
    recipe = VECTOR_OPS_PER_ELEMENT[layer.op]
    outputs, inputs = layer.output.elements, sum(t.elements for t in layer.inputs)
    requantizations = recipe.requantizations + (len(layer.inputs) if recipe.requantize_each_input else 0)
    ops = outputs * (recipe.ops + requantizations * requantize_ops(capabilities, layer.output.bits))
    ops += layer.elements * recipe.window_ops + inputs * recipe.input_ops
    ops += maxima_ops(layer.output)
    lookups = outputs * recipe.lookups
    if recipe is LOOKUP and max(t.bits for t in layer.inputs) > LOOKUP_BITS:
        return VectorWork(ops + 2 * outputs, 2 * lookups)  # two entries, one multiply, one add
    return VectorWork(ops, lookups)
