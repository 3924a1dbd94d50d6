# pyright: basic
"""What an exported node says of itself: its operator, its layer, the shape of its result."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import fx

# Checks of an exported graph that compute nothing.
IGNORED = {"_assert_tensor_metadata", "sym_size", "_guards_fn"}


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Inside, tensors that a network's code makes (`torch.zeros(...)`) are float64, as its parameters are here."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def layer_of(node: fx.Node) -> str:
    """Qualified name of the innermost module that made an exported node."""
    stack = node.meta.get("nn_module_stack") or {}
    return next(reversed(stack.values()))[0] if stack else ""


def operator_name(node: fx.Node) -> str:
    """`conv2d` of aten.conv2d.default, `relu` of aten.relu_.default, `quantizer` of the marked node, `getitem` of
    operator.getitem."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._opname.removesuffix("_") if target._schema.is_mutable else target._opname
    return getattr(target, "__name__", str(target))


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of an exported node's result; of its first where there are several (a batch norm's statistics)."""
    value = node.meta["val"]
    return tuple(int(n) for n in (value if isinstance(value, torch.Tensor) else value[0]).shape)
