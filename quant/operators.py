"""Names of operators, sorted by what they mean for quantization.

A name is plain: without underscores, in lower case, so that nn.LeakyReLU, F.leaky_relu, `leaky_relu_` and
aten.leaky_relu.default are one. `SEVERAL`: operations of several activations, quantized where they stand. `MOVES`,
`POINTWISE`, `NO_VALUES`: what needs no quantizer of its own. `REASONS`: why anything else stays in floating point.
"""

from __future__ import annotations

import torch


def plain_name(target: object) -> str:
    """`leaky_relu_`, `LeakyReLU`, `aten.leaky_relu.default` -> `leakyrelu`; ParametrizedLinear -> `linear`."""
    if isinstance(target, torch._ops.OpOverload):
        name = target._opname
    elif isinstance(target, str):
        name = target
    else:
        name = getattr(target, "__name__", type(target).__name__)
    return name.replace("_", "").removeprefix("Parametrized").lower()


UNSIGNED, GATE, ASYMMETRIC, SIGNED = "unsigned", "gate", "asymmetric", "signed"
# Values that may be any of two kinds are of the wider one, further right here.
WIDTH = (GATE, UNSIGNED, ASYMMETRIC, SIGNED)

# Names without underscores, in lower case, so that nn.LeakyReLU, F.leaky_relu and aten.leaky_relu_ are one.
ACTIVATIONS = {
    **dict.fromkeys(("relu", "relu6", "softplus", "abs", "square", "exp", "sqrt", "rsqrt"), UNSIGNED),
    **dict.fromkeys(("sigmoid", "hardsigmoid", "softmax", "softmin"), GATE),
    **dict.fromkeys(
        ("silu", "swish", "hardswish", "leakyrelu", "gelu", "elu", "celu", "selu", "mish", "prelu", "rrelu",
         "quickgelu", "memoryefficientswish"),
        ASYMMETRIC,
    ),
}  # fmt: skip
MOVES = {
    *("maxpool1d", "maxpool2d", "avgpool1d", "avgpool2d", "adaptiveavgpool1d", "adaptiveavgpool2d"),
    *("adaptivemaxpool1d", "adaptivemaxpool2d", "lppool2d", "mean", "amax", "max", "sum", "flatten", "unflatten"),
    *("reshape", "view", "permute", "transpose", "t", "contiguous", "clone", "detach", "squeeze", "unsqueeze"),
    *("expand", "expandas", "repeat", "chunk", "split", "splitwithsizes", "unbind", "getitem", "select", "slice"),
    *("index", "indexselect", "narrow", "roll", "flip", "movedim", "swapaxes", "tile", "float", "to", "typeas"),
    *("dropout", "dropout1d", "dropout2d", "alphadropout", "featuredropout", "identity", "droppath"),
    *("stochasticdepth", "zeropad1d", "zeropad2d", "constantpad1d", "constantpad2d", "constantpadnd", "pad"),
    *("reflectionpad1d", "reflectionpad2d", "replicationpad1d", "replicationpad2d", "interpolate", "upsample"),
    *("upsamplenearest2d", "upsamplebilinear2d", "pixelshuffle", "pixelunshuffle", "channelshuffle", "lift"),
    *("fakequantize", "quantizer", "avgpool3d", "maxpool3d", "adaptiveavgpool3d", "adaptivemaxpool3d", "lppool1d"),
    *("unfold", "viewas", "broadcastto", "diagonal", "moveaxis", "swapdims", "ravel", "alias"),
    *("reshapeas", "asstrided", "tensorsplit", "repeatinterleave", "gather", "take", "takealongdim", "circularpad1d"),
    *("circularpad2d", "zeropad3d", "constantpad3d", "upsamplenearest1d", "upsamplenearest3d", "upsamplebicubic2d"),
    *("upsamplelinear1d", "upsampletrilinear3d", "maskedselect", "indexput", "tril", "triu", "double", "half"),
    *("bfloat16", "type", "cuda", "cpu", "median", "cummax", "sort", "topk", "rot90", "fliplr", "flipud", "toempty"),
    *("liftfreshcopy", "tocopy", "maxpool2dwithindices", "maxpool1dwithindices", "unsafeview", "min", "amin"),
}
# What is applied value by value, or per channel with numbers known beforehand: part of the step from one layer's sums
# to the next layer's codes.
POINTWISE = {
    *("tanh", "hardtanh", "clamp", "clampmin", "clampmax", "clip", "neg", "batchnorm", "batchnorm1d", "batchnorm2d"),
    *("batchnorm3d", "syncbatchnorm", "erf", "sin", "cos", "log", "log1p", "expm1", "sqrt", "rsqrt", "reciprocal"),
    *("round", "floor", "ceil", "sign", "softsign", "tanhshrink", "softshrink", "hardshrink", "threshold", "atan"),
    *("logsigmoid", "pow", "ipow", "nantonum", "positive", "trunc", "frac", "isnan", "dequantize"),
}
# What gives indices, flags, sizes or constants, and checks.
NO_VALUES = {
    *("eq", "ne", "lt", "le", "gt", "ge", "logicalnot", "logicaland", "logicalor", "not", "and", "or", "xor", "bool"),
    *("argmax", "argmin", "argsort", "nonzero", "zeroslike", "oneslike", "fulllike", "emptylike", "randlike", "empty"),
    *("randnlike", "newzeros", "newones", "newfull", "newempty", "arange", "zeros", "ones", "full", "long", "int"),
    *("assert", "assertisnone", "isinf", "isfinite", "any", "all", "bincount", "onehot", "invert", "bitwisenot"),
    *(
        "assertscalar",
        "asserttensormetadata",
        "symsize",
        "guardsfn",
        "setgradenabled",
        "item",
        "tolist",
        "isfloatingpoint",
    ),
    *("getdevice", "is", "isnot", "symconstrainrangeforsize", "shapeastensor", "isclose", "equal"),
}
# Operations of several activations that can be quantized, by their many spellings.
SEVERAL = {
    **dict.fromkeys(("add", "iadd"), "add"),
    **dict.fromkeys(("sub", "isub", "subtract"), "sub"),
    **dict.fromkeys(("mul", "imul", "multiply"), "mul"),
    **dict.fromkeys(("matmul", "imatmul", "bmm", "mm"), "matmul"),
    **dict.fromkeys(("cat", "concat", "concatenate"), "concat"),
    **dict.fromkeys(("maximum", "fmax"), "maximum"),
    **dict.fromkeys(("minimum", "fmin"), "minimum"),
    **dict.fromkeys(("div", "idiv", "truediv", "itruediv", "divide"), "div"),
    "scaleddotproductattention": "attention",
}
# What makes complex numbers of real ones, and real ones of complex ones.
COMPLEX = {
    *("viewascomplex", "complex", "polar", "fftfft", "fftfft2", "fftfftn", "fftifft", "fftifft2", "fftifftn"),
    *("fftrfft", "fftrfft2", "fftrfftn", "fftihfft", "stft"),
}
REAL = {"viewasreal", "real", "imag", "abs", "angle", "fftirfft", "fftirfft2", "fftirfftn", "ffthfft", "istft"}

_STATISTICS = "a norm by statistics of its input: computed in floating point"
COMPLEX_NUMBERS = "complex numbers: a quantizer has codes for real ones"
OBJECT = "a method of an object that the network is given: what reads the result quantizes it"
_SELECTION = "chooses or moves values; what reads the result quantizes it"
REASONS = {
    "div": "a quotient of two activations has no quantized counterpart",
    **dict.fromkeys(("where", "maskedfill", "stack", "hstack", "vstack", "setitem", "scatter", "indexput"), _SELECTION),
    **dict.fromkeys(("indexcopy", "indexfill", "slicescatter", "selectscatter", "copy"), _SELECTION),
    **dict.fromkeys(("softmax", "softmin", "logsoftmax", "softmax2d"), "a softmax is computed in floating point"),
    **dict.fromkeys(("layernorm", "groupnorm", "rmsnorm", "localresponsenorm", "normalize"), _STATISTICS),
    **dict.fromkeys(("instancenorm", "instancenorm1d", "instancenorm2d", "instancenorm3d"), _STATISTICS),
    **dict.fromkeys(COMPLEX | REAL, COMPLEX_NUMBERS),
    "sum": "summed in floating point; what reads the result quantizes it",
    "einsum": "no matrix product of two tensors, which alone has a quantized counterpart",
    "forward": "torch.jit keeps its code: give the module before torch.jit.script or torch.jit.trace",
    "lerp": "no quantized counterpart: write it as a sum of products",
    **dict.fromkeys(
        ("clamp", "clip", "clampmin", "clampmax"),
        "no quantized counterpart for computed limits: write it as torch.minimum and torch.maximum",
    ),
}
