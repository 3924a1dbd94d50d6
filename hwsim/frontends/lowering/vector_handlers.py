"""Handlers of elementwise operators, activation functions, choices, and quantizers.

Each makes one vector layer. Its origin (`relu`, `silu`, `add`, ...) decides later how its output is quantized.
"""

from __future__ import annotations

import dataclasses
import math

from hwsim.frontends.lowering.handler_tables import each, named
from hwsim.frontends.lowering.ir import Arg, Op
from hwsim.frontends.lowering.lower import QUANTIZER, Handler, Lowering, Unhandled, quantize
from hwsim.frontends.lowering.mac_handlers import foldable
from hwsim.frontends.lowering.values import Act, Const

SCALE_FOLDS = "a constant factor folds into the step size"
GATES = ("sigmoid", "hsigmoid", "softmax")  # values in 0..1: a product with them keeps the other side's range
# Functions of one element with a price of their own; the second entry is the origin of what they make.
FUNCTIONS: dict[str, tuple[str, str]] = {
    "relu": ("relu", "relu"),
    "relu6": ("relu6", "relu6"),
    "leaky_relu": ("leaky_relu", "leaky_relu"),
    "prelu": ("leaky_relu", "leaky_relu"),
    **dict.fromkeys(("rrelu", "rrelu_with_noise"), ("leaky_relu", "leaky_relu")),  # its mean slope, at inference
    "silu": ("silu", "silu"),
    "hardswish": ("hswish", "hswish"),
    "hardsigmoid": ("hsigmoid", "hsigmoid"),
    "sigmoid": ("sigmoid", "sigmoid"),
    "gelu": ("gelu", "gelu"),
    "tanh": ("tanh", "tanh"),
    "exp": ("exp", "exp"),
    "sqrt": ("sqrt", "sqrt"),
    "rsqrt": ("sqrt", "sqrt"),
    "softmax": ("softmax", "softmax"),
    "_softmax": ("softmax", "softmax"),
    "log_softmax": ("softmax", "log_softmax"),
    "_log_softmax": ("softmax", "log_softmax"),
}
# Functions of one element priced as a table look-up, like tanh.
TABLE_FUNCTIONS: dict[str, str] = {
    "elu": "elu",
    "celu": "elu",
    "selu": "elu",
    "mish": "silu",
    "softplus": "softplus",
    "erf": "tanh",
    "log": "linear",
    "reciprocal": "linear",
    "sin": "tanh",
    "cos": "tanh",
    **dict.fromkeys(("log_sigmoid", "logsigmoid", "log_sigmoid_forward", "log2", "log10", "log1p"), "linear"),
    **dict.fromkeys(
        ("expm1", "exp2", "tan", "atan", "asin", "acos", "sinh", "cosh", "asinh", "acosh", "atanh"), "linear"
    ),
    **dict.fromkeys(("softsign", "erfc", "erfinv", "hardshrink", "softshrink", "tanhshrink", "logit"), "linear"),
}
# Choices between two values, priced as one elementwise operation.
SELECTIONS = (
    "maximum", "minimum", "where", "masked_fill", "abs", "tril", "triu", "fmax", "fmin", "nan_to_num", "sign", "sgn",
    "floor", "ceil", "round", "trunc", "frac",
)  # fmt: skip
# Questions about values: what they make is one bit for each element.
COMPARISONS = (
    "gt", "lt", "ge", "le", "eq", "ne", "greater", "less", "greater_equal", "less_equal", "not_equal", "logical_and",
    "logical_or", "logical_xor", "logical_not", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "isnan",
    "isinf", "isfinite", "signbit", "isclose",
)  # fmt: skip


def unary(kind: str, origin: str) -> Handler:
    """Handler of a function of one element."""

    def handle(walk: Lowering, op: Op) -> None:
        source = walk.act(op, next(iter(op.args)))
        weight = walk.value(op.get("weight"))
        walk.bind(op, walk.emit(kind, op, [source], walk.shape(op), origin, weight=weight))

    return handle


def table_function(origin: str) -> Handler:
    """Handler of a function that hardware reads from a table."""

    def handle(walk: Lowering, op: Op) -> None:
        source = walk.act(op, next(iter(op.args)))
        walk.note("functions without a unit of their own (elu, mish, erf, ...) are priced as table look-ups, like tanh")
        walk.bind(op, walk.emit("tanh", op, [source], walk.shape(op), origin))

    return handle


def clamp(walk: Lowering, op: Op) -> None:
    """clamp, hardtanh, threshold: a ReLU or a clipped ReLU; below zero the output is signed."""
    lowest = op.get("min", op.get("min_val", op.get("threshold", -1.0 if "hardtanh" in op.op else None)))
    highest = op.get("max", op.get("max_val", 1.0 if "hardtanh" in op.op else None))
    unsigned = isinstance(lowest, int | float) and lowest >= 0
    kind = "relu" if highest is None and unsigned else "relu6"
    source = walk.act(op, next(iter(op.args)))
    walk.bind(op, walk.emit(kind, op, [source], walk.shape(op), kind if unsigned else "linear"))


def elementwise(kind: str) -> Handler:
    """Handler of add, sub, mul, div of two tensors; a constant factor folds into the step size."""

    def handle(walk: Lowering, op: Op) -> None:
        names = list(op.args)
        operands = [walk.value(op.get(name)) for name in names[:2]]
        acts = [item for item in operands if isinstance(item, Act)]
        consts = [item for item in operands if isinstance(item, Const) and math.prod(item.shape) > 1]
        factor = kind == "mul" or (kind == "div" and bool(acts) and operands[0] is acts[0])
        scaled = factor and isinstance(op.get(names[1]), int | float)
        if walk.meta(op.outputs[0]).is_complex and not scaled:
            walk.bind(op, complex_arithmetic(walk, op, kind, acts, consts))
            return
        if factor and len(acts) == 1 and not consts:
            walk.bind(op, acts[0].seen_as(walk.shape(op)))
            walk.count_free(op, SCALE_FOLDS)
            return
        source = op.get(names[0] if operands[0] is acts[0] else names[1]) if acts else None
        if len(acts) == 1 and len(consts) == 1 and folds_per_channel(walk, source, acts[0], consts[0]):
            walk.bind(op, acts[0])
            walk.count_free(op, "a constant per channel folds into the layer before")
            return
        origin = product_origin(acts) if kind == "mul" else "add" if kind in ("add", "sub") else "linear"
        if kind == "add" and len(acts) == 1 and not consts and never_negative(acts[0], op.get(names[1])):
            origin = "relu"
        weight = consts[0] if consts else None
        walk.bind(op, walk.emit(kind, op, acts, walk.shape(op), origin, weight=weight))

    return handle


def never_negative(act: Act, number: Arg) -> bool:
    """Whether the sum of an activation and a number is known not to be negative."""
    positive = isinstance(number, int | float) and number >= 0
    return positive and act.record.origin in ("relu", "relu6", "exp", "sqrt", "softplus", *GATES)


def complex_arithmetic(walk: Lowering, op: Op, kind: str, acts: list[Act], consts: list[Const]) -> Act:
    """A complex product is four products and two additions; other arithmetic acts on both parts. The result's last
    axis of 2 are its real and imaginary parts."""
    if kind not in ("add", "sub", "mul"):
        raise Unhandled("complex numbers")
    shape, weight = walk.shape(op), consts[0] if consts else None
    read = [walk.meta(ref.name) for ref in op.refs() if math.prod(walk.meta(ref.name).shape) > 1]
    if kind != "mul" or not all(meta.is_complex for meta in read):  # a real factor scales both parts
        return walk.emit(kind, op, acts, shape, "add" if kind != "mul" else "linear", weight=weight)
    walk.note("a product of complex numbers is priced as four products and two additions")
    products = walk.emit("mul", op, acts, (*shape, 2), "linear", label="products", weight=weight)
    return walk.emit("add", op, [products], shape, "add", label="parts")


def magnitude(walk: Lowering, op: Op) -> None:
    """abs: one pass for each number; of complex ones both squares, their sum, and a root."""
    source = walk.act(op, next(iter(op.args)))
    if not walk.meta(next(op.refs()).name).is_complex:
        selection(walk, op)
        return
    walk.note("the absolute value of a complex number is priced as two products, an addition and a table look-up")
    squares = walk.emit("mul", op, [source], source.shape, "linear", label="squares")
    total = walk.emit("add", op, [squares], walk.shape(op), "linear", label="total")
    walk.bind(op, walk.emit("tanh", op, [total], walk.shape(op), "sqrt"))


def division(walk: Lowering, op: Op) -> None:
    """remainder, fmod, floor_divide, atan2: no factor folds out of them; priced as one division per element."""
    acts = [act for ref in op.refs() if isinstance(act := walk.value(ref), Act)]
    stored = next((c for ref in op.refs() if isinstance(c := walk.value(ref), Const) and math.prod(c.shape) > 1), None)
    walk.bind(op, walk.emit("div", op, acts, walk.shape(op), "linear", weight=stored))


def folds_per_channel(walk: Lowering, source: Arg, act: Act, const: Const) -> bool:
    """Whether a constant has one value per output channel of the layer right before, which then absorbs it."""
    makers = foldable(walk, source)
    channel = len(act.shape) - 1 if all(maker.kind == "linear" for maker in makers) else 1
    aligned = (1,) * (len(act.shape) - len(const.shape)) + const.shape
    if not makers or any(n not in (1, act.shape[channel] if i == channel else 1) for i, n in enumerate(aligned)):
        return False
    for maker in makers:
        maker.bias = True
    return True


def negation(walk: Lowering, op: Op) -> None:
    """-x: the sign folds into the step size."""
    walk.pass_through(op, SCALE_FOLDS)


def product_origin(acts: list[Act]) -> str:
    """Range of a product: a gate in 0..1 keeps the other side's; x * sigmoid(x) is a SiLU."""
    if len(acts) != 2:
        return "linear"
    for gate, other in (acts, acts[::-1]):
        if gate.record.origin in GATES:
            maker = gate.record.producer
            own = maker is not None and any(
                act.record is other.record and act.part == other.part for act in maker.inputs
            )
            return "silu" if own and gate.record.origin == "sigmoid" else other.record.origin
    origins = {act.record.origin for act in acts}
    return "relu" if origins <= {"relu", "relu6"} else "linear"


def selection(walk: Lowering, op: Op) -> None:
    """where, masked_fill, maximum: one elementwise operation."""
    acts = [act for ref in op.refs() if isinstance(act := walk.value(ref), Act)]
    if op.op.rstrip("_") == "aten.masked_fill" and len(acts) == 1 and op.get("value") == -math.inf:
        walk.pass_through(op, "a mask that is known ahead belongs to the softmax behind it")
        return
    numbers = [act for act in acts if act.record.index_bits is None]
    origin = numbers[0].record.origin if numbers else "linear"
    walk.note("selections (where, masked_fill, maximum, abs) are priced as one addition per element")
    walk.bind(op, beside_stored(walk, op, acts, origin))


def comparison(walk: Lowering, op: Op) -> None:
    """greater, equal, logical and: one operation per element; the answers are masks of one bit."""
    acts = [act for ref in op.refs() if isinstance(act := walk.value(ref), Act)]
    walk.note("comparisons are priced as one addition per element")
    made = beside_stored(walk, op, acts, "index")
    made.record.index_bits = 1
    walk.bind(op, made)


def beside_stored(walk: Lowering, op: Op, acts: list[Act], origin: str) -> Act:
    """One operation per element on activations and the stored tensors that they meet, which are read like weights.

    A layer has room for one stored tensor: every further one is met in an operation of its own. Stored masks (bool) are
    taken for made on the fly, as padding and causal masks are.
    """
    stored = [
        item for ref in op.refs()
        if isinstance(item := walk.value(ref), Const) and math.prod(item.shape) > 1
        and walk.meta(ref.name).dtype != "bool"
    ]  # fmt: skip
    made = walk.emit("add", op, acts, walk.shape(op), origin, weight=stored[0] if stored else None)
    for number, further in enumerate(stored[1:], 1):
        made = walk.emit("add", op, [made], walk.shape(op), origin, weight=further, label=f"operand_{number}")
    return made


def fused_pair(first: str, second: str) -> Handler:
    """Handler of addcmul, addcdiv, lerp: two elementwise operations behind one name."""

    def handle(walk: Lowering, op: Op) -> None:
        names = list(op.args)
        operands = [walk.value(op.get(name)) for name in names[:3]]
        base, others = operands[0], [item for item in operands[1:] if item is not None]
        acts = [item for item in others if isinstance(item, Act)]
        inner = acts or [item for item in [base] if isinstance(item, Act)]
        between = walk.emit(first, op, inner, walk.shape(op), "linear", label=first)
        ends = [item for item in (base, between) if isinstance(item, Act)]
        walk.bind(op, walk.emit(second, op, ends, walk.shape(op), "add", label=second))

    return handle


def squared_difference(walk: Lowering, op: Op) -> None:
    """(x - y)^2: a subtraction and a product."""
    acts = [act for ref in op.refs() if isinstance(act := walk.value(ref), Act)]
    const = next((item for ref in op.refs() if isinstance(item := walk.value(ref), Const)), None)
    difference = walk.emit("sub", op, acts, walk.shape(op), "add", label="sub", weight=const)
    walk.bind(op, walk.emit("mul", op, [difference, difference], walk.shape(op), "relu", label="mul"))


def power(walk: Lowering, op: Op) -> None:
    """x ** n: a product for n = 2, else `pow`; the base or the exponent may be a number."""
    source = next((act for ref in op.refs() if isinstance(act := walk.value(ref), Act)), None)
    if source is None:
        raise Unhandled("neither its base nor its exponent is an activation")
    exponent = op.get("exponent")
    even = isinstance(exponent, int | float) and exponent % 2 == 0
    kind = "mul" if exponent == 2 else "pow"
    walk.bind(op, walk.emit(kind, op, [source], walk.shape(op), "relu" if even else "linear"))


def quantizer(walk: Lowering, op: Op) -> None:
    """A quantizer's node: its input is stored as that quantizer's codes. No layer: rounding is part of the producer."""
    name = op.get("name")
    codes = walk.graph.quantizers.get(name) if isinstance(name, str) else None
    if codes is None:
        raise Unhandled(f"the graph does not say the bits of quantizer {name!r}")
    source = walk.raw(next(iter(op.args.values())))
    if source is None or isinstance(source, tuple):
        raise Unhandled("its input is no tensor")
    if isinstance(source, Act) and codes.of_weight:  # an embedding quantizes the rows that it looked up
        draft = source.record.producer
        if draft is not None and isinstance(draft.weight, Const):
            draft.weight = dataclasses.replace(draft.weight, quantization=codes)
    walk.bind(op, quantize(source, codes))
    walk.count_free(op, "rounding belongs to the layer that makes the tensor")


HANDLERS: dict[str, Handler] = {
    QUANTIZER: quantizer,
    **{f"aten.{name}": unary(kind, origin) for name, (kind, origin) in FUNCTIONS.items()},
    **each(TABLE_FUNCTIONS, table_function),
    **named(("hardtanh", "clamp", "clip", "clamp_min", "clamp_max", "threshold"), clamp),
    **each({"add": "add", "sub": "sub", "rsub": "sub", "mul": "mul", "div": "div"}, elementwise),
    **each({"multiply": "mul", "divide": "div", "subtract": "sub", "true_divide": "div"}, elementwise),
    **named(("remainder", "fmod", "floor_divide", "atan2"), division),
    **named(("neg", "negative"), negation),
    **named(SELECTIONS, selection),
    "aten.abs": magnitude,
    **named(COMPARISONS, comparison),
    **named(("pow", "square"), power),
    "aten.addcmul": fused_pair("mul", "add"),
    "aten.addcdiv": fused_pair("div", "add"),
    "aten.lerp": fused_pair("mul", "add"),
    "aten.squared_difference": squared_difference,
}
