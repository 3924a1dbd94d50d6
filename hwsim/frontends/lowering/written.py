"""Which arrays of a graph depend on its inputs, and which are changed in place: before any operator is walked."""

from __future__ import annotations

from hwsim.frontends.lowering.ir import Op, OpGraph

# Operators that read the shape of an activation and none of its values: what they make is known before any input.
SHAPE_ONLY = frozenset(
    f"aten.{name}"
    for name in ("new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like", "empty_like")
)
# Operators whose result is their first operand's own memory.
ALIASES = frozenset(
    f"aten.{name}"
    for name in (
        "slice", "select", "view", "reshape", "narrow", "transpose", "permute", "unsqueeze", "squeeze", "expand", "t",
        "as_strided", "alias", "detach", "flatten", "unflatten", "unbind", "split", "chunk", "diagonal", "view_as",
    )
)  # fmt: skip

# Operators that write values into a part of an array that stays in place.
WRITES = frozenset(
    f"aten.{name}"
    for name in (
        "copy", "fill", "zero", "scatter", "scatter_add", "scatter_reduce", "index_put", "_unsafe_index_put",
        "index_add", "index_copy", "index_fill", "masked_scatter", "masked_fill",
    )
)  # fmt: skip


def reached_by_inputs(graph: OpGraph) -> tuple[set[str], set[str]]:
    """(states, values that depend on an input). States: constants into which operators write what depends on the input
    (caches, buffers filled step by step)."""
    source: dict[str, str] = {}
    dependent = set(graph.inputs)
    states: set[str] = set()
    for op in graph.ops:
        refs = [ref.name for ref in op.refs()]
        if op.op in ALIASES and refs:
            source.update(dict.fromkeys(op.outputs, refs[0]))
        if op.op not in SHAPE_ONLY and any(name in dependent for name in refs):
            dependent.update(op.outputs)
        if writes_in_place(op) and any(name in dependent for name in refs[1:]):
            root = refs[0]
            while root in source:
                root = source[root]
            if root not in dependent:
                states.add(root)
                dependent.add(root)
    return states, dependent


def changes_views(graph: OpGraph) -> bool:
    """Whether arithmetic in place changes an array that is read later by a name which shows it as it was: then only a
    functional form of the graph says who reads what. Writes of parts have handlers of their own."""
    root: dict[str, str] = {}
    stale: dict[str, set[str]] = {}  # an array -> names that show it as it was before a change
    for op in graph.ops:
        refs = [ref.name for ref in op.refs()]
        roots = [root.get(name, name) for name in refs]
        old = [name in stale.get(array, ()) for name, array in zip(refs, roots, strict=True)]
        if op.op in ALIASES and refs:
            root.update(dict.fromkeys(op.outputs, roots[0]))
            if old[0]:
                stale[roots[0]].update(op.outputs)
            continue
        writes = writes_in_place(op) and op.op.rstrip("_") in WRITES
        if writes and any(old) and roots[:1] == roots[1:2] and not any(old[1:]):
            stale.pop(roots[0])  # y[part] += z: the changed part is written back
        elif any(old):
            return True
        if writes_in_place(op) and refs:
            if not writes:
                views = {name for name, array in root.items() if array == roots[0]} | {roots[0]}
                stale.setdefault(roots[0], set()).update(views - {refs[0]})
                stale[roots[0]].discard(refs[0])
            root.update(dict.fromkeys(op.outputs, roots[0]))
    return False


def writes_in_place(op: Op) -> bool:
    """Whether an operator changes its first operand, by torch's convention for names."""
    return op.op.endswith("_") and not op.op.endswith("__")
