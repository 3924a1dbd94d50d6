"""Operators that cost nothing: views, which are address arithmetic, and what is the identity at inference.

Reshapes, transposes, slices and splits change where a consumer reads, not what is stored; the layer before writes in
the order the layer after wants. Movement that no strided address expresses (roll, gather, repeat) is a `copy` layer.
"""

from __future__ import annotations

from hwsim.frontends.lowering.ir import Op
from hwsim.frontends.lowering.lower import Handler, Lowering, Unhandled

VIEW = "address arithmetic"
IDENTITY = "identity at inference"
VIEWS = (
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "numpy_T", "mT", "squeeze",
    "unsqueeze", "expand", "expand_as", "slice", "select", "narrow", "split", "split_with_sizes", "chunk",
    "tensor_split", "unbind", "unsafe_chunk", "unsafe_split", "swapaxes", "swapdims", "movedim", "view_as",
    "reshape_as", "_unsafe_view", "_reshape_alias", "as_strided", "unfold", "diagonal", "contiguous", "clone",
    "adjoint", "view_as_real", "unsafe_split_with_sizes", "split_copy", "slice_copy", "broadcast_to", "squeeze_copy",
)  # fmt: skip
IDENTITIES = (
    "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout", "detach", "alias",
    "lift_fresh_copy", "lift_fresh", "to", "_to_copy", "type_as", "float", "half", "double", "bfloat16",
    "requires_grad", "_conj", "resolve_conj", "resolve_neg", "positive",
)  # fmt: skip
CHECKS = (
    "_assert_tensor_metadata", "_assert_async", "_assert_scalar", "sym_size", "sym_constrain_range_for_size",
    "is_nonzero", "sym_constrain_range", "_check_is_size",
    "_local_scalar_dense", "item", "equal", "allclose",
)  # fmt: skip


def view(walk: Lowering, op: Op) -> None:
    """The same array under another shape."""
    walk.pass_through(op, VIEW)


def as_complex(walk: Lowering, op: Op) -> None:
    """Pairs of numbers seen as one each: the last axis of 2 stays in the shape, so that both are stored and moved."""
    source = walk.value(next(iter(op.args.values())))
    if source is None:
        raise Unhandled("it has no tensor to pass on")
    walk.bind(op, source)
    walk.count_free(op, VIEW)


def identity(walk: Lowering, op: Op) -> None:
    """The same array."""
    walk.pass_through(op, IDENTITY)


def check(walk: Lowering, op: Op) -> None:
    """An assertion, or a value that the model's own code looks at; nothing else is computed from it."""
    if op.line and walk.reads_activations(op):
        raise Unhandled(f"the model's own code looks at the input's values ({op.line}); what runs depends on them")
    walk.count_free(op, "read by the model's own code")


HANDLERS: dict[str, Handler] = {
    **{f"aten.{name}": view for name in VIEWS},
    "aten.view_as_complex": as_complex,
    **{f"aten.{name}": identity for name in IDENTITIES},
    **{f"aten.{name}": check for name in CHECKS},
}
