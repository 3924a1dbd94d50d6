"""Operators written out by others that can be quantized: `F.glu` and nn.GLU as a product with a gate, an einsum of two
tensors as a matrix product.

`written_out(graph, model)` changes the graph. An einsum stays as it is where no sum joins its two tensors, where a
letter stands twice in one of them or in one of them alone without being in the result, and where `...` is not in front.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn


def written_out(graph: fx.Graph, model: nn.Module) -> None:
    """Replace every gated unit and every einsum that has another form."""
    for node in list(graph.nodes):
        made = None
        with graph.inserting_before(node):
            if node.op == "call_module" and type(module := model.get_submodule(str(node.target))) is nn.GLU:
                made = _gated(_maker(graph, node), node.args[0], module.dim)
            elif node.op == "call_function" and node.target is F.glu:
                given = dict(zip(("input", "dim"), node.args, strict=False)) | node.kwargs
                made = _gated(_maker(graph, node), given["input"], given.get("dim", -1))
            elif node.op == "call_function" and getattr(node.target, "__name__", "") == "einsum":
                made = _einsum(_maker(graph, node), node)
        if made is not None:
            node.replace_all_uses_with(made)
            graph.erase_node(node)


Make = Callable[..., fx.Node]


def _maker(graph: fx.Graph, node: fx.Node) -> Make:
    """Nodes that stand where `node` stands: methods by their name, functions by themselves."""

    def make(target: Any, *arguments: Any) -> fx.Node:
        new = graph.create_node("call_method" if isinstance(target, str) else "call_function", target, arguments)
        new.meta = dict(node.meta)
        new.stack_trace = node.stack_trace
        return new

    return make


def _gated(make: Make, x: Any, dim: Any) -> fx.Node:
    """One half times the sigmoid of the other."""
    halves = make(torch.chunk, x, 2, dim)
    value, gate = (make(operator.getitem, halves, i) for i in (0, 1))
    return make(torch.mul, value, make(torch.sigmoid, gate))


@dataclass(frozen=True)
class _Letters:
    """The letters of an einsum of two tensors, and what each is: `batch` in all three, `summed` in both tensors,
    `left` and `right` in one of them and in the result."""

    first: str
    second: str
    result: str
    batch: str
    summed: str
    left: str
    right: str


def _letters(equation: str) -> _Letters | None:
    """The letters of an equation; None where it is no matrix product."""
    terms, arrow, out = equation.replace(" ", "").partition("->")
    parts = terms.split(",")
    dots = any("..." in part for part in parts)
    if not arrow:
        every = "".join(parts).replace(".", "")
        out = "..." * dots + "".join(sorted(c for c in set(every) if every.count(c) == 1))
    named = [part.removeprefix("...") for part in (*parts, out)]
    if len(parts) != 2 or any("." in part or len(set(part)) < len(part) for part in named):
        return None
    if dots != out.startswith("..."):
        return None
    first, second, result = named
    batch = "".join(c for c in first if c in second and c in result)
    summed = "".join(c for c in first if c in second and c not in result)
    left, right = ("".join(c for c in one if c not in other) for one, other in ((first, second), (second, first)))
    if not summed or not set(left + right) <= set(result):
        return None
    return _Letters(first, second, result, batch, summed, left, right)


def _einsum(make: Make, node: fx.Node) -> fx.Node | None:
    """torch.einsum(equation, x, y) by transposing, flattening and x @ y; None where it has no such form."""
    equation, *given = node.args
    if len(given) == 1 and isinstance(given[0], (list, tuple)):
        given = list(given[0])
    if not isinstance(equation, str) or len(given) != 2 or node.kwargs:
        return None
    letters = _letters(equation)
    if letters is None:
        return None
    x, y = given
    a = _ordered(make, x, letters.first, letters.batch + letters.left + letters.summed)
    a = _joined(make, _joined(make, a, len(letters.summed), 0), len(letters.left), 1)
    b = _ordered(make, y, letters.second, letters.batch + letters.summed + letters.right)
    b = _joined(make, _joined(make, b, len(letters.right), 0), len(letters.summed), 1)
    made = make(torch.matmul, a, b)
    for source, term, apart, at in ((x, letters.first, letters.left, -2), (y, letters.second, letters.right, -1)):
        if not apart:
            made = make("squeeze", made, at)
        elif len(apart) > 1:
            made = make("unflatten", made, at, tuple(make("size", source, term.index(c) - len(term)) for c in apart))
    return _ordered(make, made, letters.batch + letters.left + letters.right, letters.result)


def _ordered(make: Make, x: fx.Node, now: str, then: str) -> fx.Node:
    """The last axes of a tensor in another order."""
    if now == then:
        return x
    places = tuple(i - len(now) for i in range(len(now)))
    return make("movedim", x, places, tuple(then.index(c) - len(then) for c in now))


def _joined(make: Make, x: fx.Node, axes: int, behind: int) -> fx.Node:
    """So many axes as one, in front of the `behind` last; one of size 1 where there is none."""
    if axes == 0:
        return make("unsqueeze", x, -1 - behind)
    return x if axes == 1 else make("flatten", x, -axes - behind, -1 - behind)
