"""Handlers of products on the MAC array: linear layers, products of activations, attention.

Rows of a linear layer's input (tokens, windows) are P, its batch N; a product of activations has batch x heads in G,
and its second operand takes the place of the weight. Batch norm is here too, because it folds into these.
"""

from __future__ import annotations

import dataclasses
import math

from hwsim.frontends.lowering.ir import Arg, Op, Ref
from hwsim.frontends.lowering.lower import Handler, Lowering, Unhandled
from hwsim.frontends.lowering.values import Act, Const, Draft, Single
from hwsim.network.layer import Loops


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
        return dataclasses.replace(value, shape=shape)
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
        weight = dataclasses.replace(b, shape=b_shape if groups > 1 else (columns, inner))
        loops = Loops(N=n, G=groups, K=columns, C=inner, P=rows // n)
        return walk.emit("linear", op, [a], shape, "linear", label=label, weight=weight, loops=loops, bias=bias)
    shared = (
        b.repeats if groups % b.repeats == 0 else 1
    )  # batches that see one expanded operand are rows of one product
    second = dataclasses.replace(b.seen_as((groups // shared, inner, columns) if shared > 1 else b_shape), repeats=1)
    loops = Loops(G=groups // shared, K=columns, C=inner, P=rows * shared)
    return walk.emit("matmul", op, [a], shape, "linear", label=label, weight=second, loops=loops, bias=bias)


def broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Common batch shape of two operands."""
    size = max(len(a), len(b))
    left, right = (1,) * (size - len(a)) + a, (1,) * (size - len(b)) + b
    return tuple(max(m, n) for m, n in zip(left, right, strict=True))


def attention(walk: Lowering, op: Op) -> None:
    """scaled_dot_product_attention: two products and a softmax; query heads that share keys are rows of one product.

    A causal mask saves nothing here: the full square of scores is charged. Learned queries (DETR), keys and values are
    the weights of their product.
    """
    query, key, value = (walk.value(op.get(name)) for name in ("query", "key", "value"))
    if query is None or key is None or value is None:
        raise Unhandled("without queries, keys or values")
    groups = math.prod(key.shape[:-2])
    shared = key.repeats if isinstance(key, Act) and isinstance(value, Act) and key.repeats == value.repeats else 1
    if shared > 1 and groups % shared == 0:
        groups //= shared
        key, value = (
            dataclasses.replace(item.seen_as((groups, *item.shape[-2:])), repeats=1) if isinstance(item, Act) else item
            for item in (key, value)
        )
    rows = math.prod(query.shape[:-1]) // groups
    shape = (*query.shape[:-1], key.shape[-2])
    loops = Loops(G=groups, K=key.shape[-2], C=query.shape[-1], P=rows)
    scores = by_heads(walk, op, query, transposed(key), shape, loops, "qk")
    if op.get("softcap") is True:
        scores = walk.emit("tanh", op, [scores], shape, "tanh", label="softcap")
    for mask in walk.members(op.get("attn_mask")):
        scores = add_to(walk, op, scores, mask)
    if op.get("is_causal") is True:
        walk.note("causal attention is charged in full: no product is skipped for masked positions")
    chances = walk.emit("softmax", op, [scores], shape, "softmax", label="softmax")
    inner = Loops(G=groups, K=value.shape[-1], C=key.shape[-2], P=rows)
    result = by_heads(walk, op, chances, value, (*query.shape[:-1], value.shape[-1]), inner, "pv")
    walk.bind(op, result.seen_as(walk.shape(op)))


def by_heads(walk: Lowering, op: Op, a: Single, b: Single, shape: tuple[int, ...], loops: Loops, label: str) -> Act:
    """a @ b for each group of heads; a parameter among them is the weight, whichever side it is on."""
    if isinstance(a, Const):
        a, b, loops = b, a, dataclasses.replace(loops, K=loops.P, P=loops.K)
    if not isinstance(a, Act):
        raise Unhandled("its queries and keys are both parameters")
    kind = "linear" if isinstance(b, Const) else "matmul"
    return walk.emit(kind, op, [a], shape, "linear", label=label, weight=b, loops=loops)


def bilinear(walk: Lowering, op: Op) -> None:
    """y_k = a W_k b: a times all W_k as one linear layer, then one product of activations for each row."""
    names = list(op.args)
    a, b, weight = (walk.value(op.get(name)) for name in names[:3])
    if not isinstance(a, Act) or not isinstance(b, Act) or not isinstance(weight, Const):
        raise Unhandled("operands that are no activations, or weights that are no parameters")
    outputs, left, right = weight.shape
    rows = math.prod(a.shape[:-1])
    flat = dataclasses.replace(weight, shape=(outputs * right, left))
    loops = Loops(K=outputs * right, C=left, P=rows)
    made = walk.emit("linear", op, [a], (rows, outputs * right), "linear", label="left", weight=flat, loops=loops)
    second = b.seen_as((rows, right, 1))
    bias = op.get("bias") is not None
    inner = Loops(G=rows, K=1, C=right, P=outputs)
    seen = made.seen_as((rows, outputs, right))
    walk.bind(
        op,
        walk.emit("matmul", op, [seen], walk.shape(op), "linear", label="right", weight=second, loops=inner, bias=bias),
    )


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
    if draft.label == "interleave":  # the phases of a transposed convolution
        return [part.record.producer for part in draft.inputs if part.record.producer is not None]
    if draft.kind != "concat" or draft.weight is not None or draft.op.get("dim", 0) != 1:
        return []
    parts = [foldable(walk, part) for part in draft.op.refs()]
    return [maker for part in parts for maker in part] if all(parts) else []


HANDLERS: dict[str, Handler] = {
    "aten.linear": linear,
    **dict.fromkeys(("aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot"), matmul),
    **dict.fromkeys(("aten.addmm", "aten.baddbmm"), addmm),
    "aten.bilinear": bilinear,
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
