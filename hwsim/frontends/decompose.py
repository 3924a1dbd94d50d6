# pyright: basic
"""Composite operators as the operators that they are made of: `parts_of(target, args, kwargs, known)`.

torch defines many operators by others (kron, tensordot, cosine_similarity, affine_grid). One that has no handler is
traced on the shapes of its operands; it is taken apart only where every part has a handler, else it keeps its name.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._decomp import decomposition_table
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten

Known = Callable[[Any], bool]


@functools.cache
def definitions(known: Known) -> dict[Any, Any]:
    """torch's own definitions of operators that are not lowered as they are."""
    return {op: parts for op, parts in decomposition_table.items() if not known(op)}


def parts_of(target: Any, args: Any, kwargs: Any, known: Known) -> tuple[fx.GraphModule, list[fx.Node]] | None:
    """The graph of an operator on its operands' shapes, and the nodes that its inputs stand for; None: it has no parts.

    `args`, `kwargs`: as the exported node holds them. `known`: whether an operator has a handler.
    """
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return None
    leaves, spec = tree_flatten((args, kwargs))
    sources = [leaf for leaf in leaves if isinstance(leaf, fx.Node)]
    shapes = [source.meta.get("val") for source in sources]
    if not all(isinstance(shape, torch.Tensor) for shape in shapes):
        return None

    def run(*tensors: torch.Tensor) -> Any:
        rest = iter(tensors)
        filled = [next(rest) if isinstance(leaf, fx.Node) else leaf for leaf in leaves]
        positional, named = tree_unflatten(filled, spec)
        return target(*positional, **named)

    mode = next((shape.fake_mode for shape in shapes if isinstance(shape, FakeTensor)), contextlib.nullcontext())
    try:
        with mode, torch.no_grad():
            made = make_fx(run, decomposition_table=definitions(known))(*shapes)
    except Exception:  # an operator that traces in no other form keeps its name, and is refused by it
        return None
    calls = [node for node in made.graph.nodes if node.op == "call_function"]
    if not calls or not all(known(node.target) or not node.all_input_nodes for node in calls):
        return None
    return made, sources
