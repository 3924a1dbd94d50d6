"""Handlers of what runs on the MAC array: convolutions, linear layers, products of activations, attention.

Rows of a linear layer's input (tokens, windows) are P, its batch N; a product of activations has batch x heads in G,
and its second operand takes the place of the weight. Batch norm is here too, because it folds into these.
"""

from __future__ import annotations

import math

from hwsim.frontends.lowering.ir import Arg, Op, Ref
from hwsim.frontends.lowering.lower import Handler, Lowering, Unhandled
from hwsim.frontends.lowering.values import Act, Const, Draft, Padding, Single
from hwsim.network.layer import Loops


def pair(value: Arg, default: int) -> tuple[int, int]:
    """An argument for rows and columns: one number means both; a 1-D operator has only columns."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, tuple) and value and all(isinstance(item, int) for item in value):
        numbers = [item for item in value if isinstance(item, int)]
        return numbers[0], numbers[-1]
    return default, default


def convolution(walk: Lowering, op: Op) -> None:
    """conv1d, conv2d and aten.convolution: grouped, depthwise, strided, dilated, any zero padding."""
    if op.get("transposed") is True:
        raise Unhandled("transposed")
    weight, bias = walk.const(op, "weight"), walk.const(op, "bias")
    found = walk.raw(op.get("input"))
    if not isinstance(found, Act) or weight is None:
        raise Unhandled("its input is no activation or its weight no parameter")
    one_dim = len(weight.shape) == 3
    if len(weight.shape) not in (3, 4):
        raise Unhandled(f"{len(weight.shape) - 2} spatial dimensions")
    source, absorbed = without_padding(walk, found, one_dim)
    stride, dilation = pair(op.get("stride"), 1), pair(op.get("dilation"), 1)
    kernel = (1, weight.shape[-1]) if one_dim else (weight.shape[-2], weight.shape[-1])
    if one_dim:
        stride, dilation = (1, stride[1]), (1, dilation[1])
    own = own_padding(op.get("padding"), kernel, dilation, one_dim)
    out = image_shape(walk.shape(op), one_dim)
    groups = op.get("groups", 1)
    groups = groups if isinstance(groups, int) else 1
    loops = Loops(out[0], groups, weight.shape[0] // groups, weight.shape[1], out[2], out[3], R=kernel[0], S=kernel[1])
    act = source.seen_as(image_shape(source.shape, one_dim))
    result = walk.emit("conv", op, [act], out, "linear", weight=weight, loops=loops, bias=bias is not None)
    draft = producer(result)
    draft.stride, draft.dilation = stride, dilation
    draft.padding = (own[0] + absorbed[0], own[1] + absorbed[1], own[2] + absorbed[2], own[3] + absorbed[3])
    if any(draft.padding):
        draft.padding_policy = walk.graph.padding_policies.get(op.module, "")
        draft.pad_code = walk.graph.pad_codes.get(op.module)
    walk.bind(op, result.seen_as(walk.shape(op)))


def without_padding(walk: Lowering, act: Act, one_dim: bool) -> tuple[Act, Padding]:
    """The activation before its pending zeros, and those zeros for the convolution to take over."""
    if act.pad is None or (one_dim and any(act.pad[:2])):
        return walk.settled(act), (0, 0, 0, 0)
    top, bottom, left, right = act.pad
    shape = (*act.shape[:-2], act.shape[-2] - top - bottom, act.shape[-1] - left - right)
    return act.seen_as(shape), act.pad


def own_padding(value: Arg, kernel: tuple[int, int], dilation: tuple[int, int], one_dim: bool) -> Padding:
    """(top, bottom, left, right) of the operator's own `padding`; "same" puts the odd zero after, as torch does."""
    if isinstance(value, str):
        if value == "valid":
            return (0, 0, 0, 0)
        rows, columns = (d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
        return (rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)
    rows, columns = pair(value, 0)
    return (0, 0, columns, columns) if one_dim else (rows, rows, columns, columns)


def image_shape(shape: tuple[int, ...], one_dim: bool) -> tuple[int, ...]:
    """(N, channels, rows, columns) of a convolution's operand; a 1-D one has one row, an unbatched one N = 1."""
    spatial = shape[-1:] if one_dim else shape[-2:]
    front = shape[: -len(spatial)]
    if not front or len(front) > 2:
        raise Unhandled(f"an input of shape {shape}")
    front = front if len(front) == 2 else (1, *front)
    return (*front, *((1,) if one_dim else ()), *spatial)


def producer(act: Act) -> Draft:
    """The draft that makes an activation just emitted."""
    assert act.record.producer is not None
    return act.record.producer


def linear(walk: Lowering, op: Op) -> None:
    """y = x W^T + b; with a W computed from the input it is a product of activations."""
    x, weight = walk.value(op.get("input")), walk.value(op.get("weight"))
    bias = walk.value(op.get("bias"))
    if weight is None or x is None:
        raise Unhandled("without input or weight")
    product = contract(walk, op, x, transposed(weight), walk.shape(op), bias=isinstance(bias, Const))
    walk.bind(op, add_to(walk, op, product, bias) if isinstance(bias, Act) else product)


def matmul(walk: Lowering, op: Op) -> None:
    """matmul, mm, bmm, mv, dot."""
    names = list(op.args)
    a, b = walk.value(op.get(names[0])), walk.value(op.get(names[1]))
    if a is None or b is None:
        raise Unhandled("without two operands")
    walk.bind(op, contract(walk, op, a, b, walk.shape(op)))


def addmm(walk: Lowering, op: Op) -> None:
    """addmm, baddbmm: self + a @ b; a constant vector is a bias, anything else an addition."""
    names = list(op.args)
    first, a, b = (walk.value(op.get(name)) for name in names[:3])
    if a is None or b is None:
        raise Unhandled("without two operands")
    shape = walk.shape(op)
    is_bias = isinstance(first, Const) and math.prod(first.shape) in (1, shape[-1])
    product = contract(walk, op, a, b, shape, bias=is_bias)
    walk.bind(op, product if first is None or is_bias else add_to(walk, op, product, first))


def add_to(walk: Lowering, op: Op, product: Act, other: Single) -> Act:
    """The addition behind a product."""
    if isinstance(other, Act):
        return walk.emit("add", op, [product, other], product.shape, "add", label="add")
    return walk.emit("add", op, [product], product.shape, "add", label="add", weight=other)


def transposed(value: Single) -> Single:
    """The same array with its last two dimensions exchanged."""
    if len(value.shape) < 2:
        return value
    shape = (*value.shape[:-2], value.shape[-1], value.shape[-2])
    if isinstance(value, Const):
        return Const(value.name, shape, value.quantization)
    return value.seen_as(shape)


def contract(
    walk: Lowering, op: Op, a: Single, b: Single, shape: tuple[int, ...], *, bias: bool = False, label: str = ""
) -> Act:
    """The layer of a @ b. A constant operand is the weight, whichever side it is on; else b takes that place.

    Batch dimensions that both operands have become G; those that only the input has are further rows.
    """
    if isinstance(a, Const) and isinstance(b, Act):  # (a b)^T = b^T a^T
        a, b = transposed(b), transposed(a)
    if not isinstance(a, Act):
        raise Unhandled("no operand is an activation")
    a_shape = a.shape if len(a.shape) > 1 else (1, *a.shape)
    b_shape = b.shape if len(b.shape) > 1 else (*b.shape, 1)
    inner, columns = b_shape[-2:]
    if a_shape[-1] != inner:
        raise Unhandled(f"shapes {a.shape} and {b.shape}")
    groups = math.prod(b_shape[:-2])
    rows = math.prod(shape) // columns
    if groups > 1:  # broadcast dimensions of b count as often as they are used
        batch = broadcast(a_shape[:-2], b_shape[:-2])
        groups, b_shape = math.prod(batch), (*batch, inner, columns)
    rows //= groups
    if isinstance(b, Const):
        n = walk.batch if groups == 1 and rows % walk.batch == 0 else 1
        weight = Const(b.name, b_shape if groups > 1 else (columns, inner), b.quantization)
        loops = Loops(N=n, G=groups, K=columns, C=inner, P=rows // n)
        return walk.emit("linear", op, [a], shape, "linear", label=label, weight=weight, loops=loops, bias=bias)
    second = b.seen_as(b_shape)
    loops = Loops(G=groups, K=columns, C=inner, P=rows)
    return walk.emit("matmul", op, [a], shape, "linear", label=label, weight=second, loops=loops, bias=bias)


def broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Common batch shape of two operands."""
    size = max(len(a), len(b))
    left, right = (1,) * (size - len(a)) + a, (1,) * (size - len(b)) + b
    return tuple(max(m, n) for m, n in zip(left, right, strict=True))


def attention(walk: Lowering, op: Op) -> None:
    """scaled_dot_product_attention: two products and a softmax; query heads that share keys are rows of one product.

    A causal mask saves nothing here: the full square of scores is charged.
    """
    query, key, value = (walk.act(op, name) for name in ("query", "key", "value"))
    tokens, sources, features = query.shape[-2], key.shape[-2], value.shape[-1]
    groups = math.prod(key.shape[:-2])
    rows = math.prod(query.shape[:-2]) * tokens // groups
    scores_shape = (*query.shape[:-1], sources)
    scores = walk.emit(
        "matmul",
        op,
        [query],
        scores_shape,
        "linear",
        label="qk",
        weight=transposed(key),
        loops=Loops(G=groups, K=sources, C=query.shape[-1], P=rows),
    )
    mask = walk.value(op.get("attn_mask"))
    if mask is not None:
        scores = add_to(walk, op, scores, mask)
    if op.get("is_causal") is True:
        walk.note("causal attention is charged in full: no product is skipped for masked positions")
    probabilities = walk.emit("softmax", op, [scores], scores_shape, "softmax", label="softmax")
    result = walk.emit(
        "matmul",
        op,
        [probabilities],
        (*query.shape[:-1], features),
        "linear",
        label="pv",
        weight=value,
        loops=Loops(G=groups, K=features, C=sources, P=rows),
    )
    walk.bind(op, result.seen_as(walk.shape(op)))


def einsum(walk: Lowering, op: Op) -> None:
    """einsum of two operands as one product: letters of both and the result are G, shared inner ones C."""
    equation = op.get("equation")
    operands = walk.members(op.get("tensors"))
    if not isinstance(equation, str) or len(operands) != 2 or "->" not in equation or "." in equation:
        raise Unhandled(f"equation {equation!r}")
    left, _, right = equation.replace(" ", "").partition("->")
    first, _, second = left.partition(",")
    a, b = operands
    if isinstance(a, Const):
        a, b, first, second = b, a, second, first
    if not isinstance(a, Act):
        raise Unhandled("no operand is an activation")
    size = dict(zip(first + second, a.shape + b.shape, strict=True))
    alone = (set(first) ^ set(second)) - set(right)
    if alone or len(set(first)) < len(first) or len(set(second)) < len(second):
        raise Unhandled(f"equation {equation!r}: sums or diagonals of one operand")

    def product(letters: set[str]) -> int:
        return math.prod(size[letter] for letter in letters)

    both = set(first) & set(second)
    groups, inner = product(both & set(right)), product(both - set(right))
    rows, columns = product(set(first) - both), product(set(second) - both)
    kind = "linear" if isinstance(b, Const) else "matmul"
    loops = Loops(G=groups, K=columns, C=inner, P=rows)
    walk.bind(op, walk.emit(kind, op, [a], walk.shape(op), "linear", weight=b, loops=loops))


def batch_norm(walk: Lowering, op: Op) -> None:
    """Folded into the convolutions or linear layers right before it; elsewhere a layer of its own."""
    if op.get("training") is True:
        raise Unhandled("in training mode; call model.eval()")
    found = walk.act(op, "input")
    weight = walk.const(op, "weight") or walk.const(op, "running_mean")
    folds_into = foldable(walk, op.get("input"))
    if folds_into:
        for draft in folds_into:
            draft.bias = True
        walk.bind(op, found.seen_as(walk.shape(op)))
        walk.count_free(op, "folded into the layer before")
        return
    walk.bind(op, walk.emit("batch_norm", op, [found], walk.shape(op), "linear", weight=weight, bias=True))


def foldable(walk: Lowering, ref: Arg) -> list[Draft]:
    """The layers that can absorb a factor and a summand per channel of a value: its producer, or all producers of a
    concatenation of channels, provided that nobody else reads what they make and nothing stands between."""
    act = walk.values.get(ref.name) if isinstance(ref, Ref) else None
    if not isinstance(ref, Ref) or not isinstance(act, Act) or act.version is not None or act.pad is not None:
        return []
    draft = act.record.producer
    if draft is None or not draft.op.outputs or act.shape != walk.shape(draft.op):
        return []
    if walk.uses.get(ref.name, 0) != 1 or walk.uses.get(draft.op.outputs[0], 0) != 1:
        return []
    if draft.kind in ("conv", "linear"):
        return [draft]
    if draft.kind != "concat" or draft.weight is not None or draft.op.get("dim", 0) != 1:
        return []
    parts = [foldable(walk, part) for part in draft.op.refs()]
    return [maker for part in parts for maker in part] if all(parts) else []


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("aten.conv1d", "aten.conv2d", "aten.convolution", "aten._convolution"), convolution),
    "aten.linear": linear,
    **dict.fromkeys(("aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot"), matmul),
    **dict.fromkeys(("aten.addmm", "aten.baddbmm"), addmm),
    "aten.einsum": einsum,
    **dict.fromkeys(
        (
            "aten.scaled_dot_product_attention",
            "aten._scaled_dot_product_flash_attention_for_cpu",
            "aten._scaled_dot_product_flash_attention",
            "aten._scaled_dot_product_efficient_attention",
            "aten._scaled_dot_product_cudnn_attention",
        ),
        attention,
    ),
    **dict.fromkeys(
        (
            "aten.batch_norm",
            "aten.native_batch_norm",
            "aten._native_batch_norm_legit_no_training",
            "aten._native_batch_norm_legit",
            "aten.cudnn_batch_norm",
            "aten._batch_norm_impl_index",
            "aten._batch_norm_no_update",
        ),
        batch_norm,
    ),
}
