# pyright: basic
"""What an exported node says of itself: its operator, its layer, the shape of its result."""

from __future__ import annotations

import torch
from torch import fx

# Checks of an exported graph that compute nothing.
IGNORED = {"_assert_tensor_metadata", "sym_size", "_guards_fn"}


def layer_of(node: fx.Node) -> str:
    """Qualified name of the innermost module that made an exported node."""
    stack = node.meta.get("nn_module_stack") or {}
    return next(reversed(stack.values()))[0] if stack else ""


def operator_name(node: fx.Node) -> str:
    """`conv2d` of aten.conv2d.default, `quantizer` of the marked node, `getitem` of operator.getitem."""
    target = node.target
    return target._opname if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", str(target))


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of an exported node's result."""
    return tuple(int(n) for n in node.meta["val"].shape)
