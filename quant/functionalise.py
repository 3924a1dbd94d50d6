"""In-place operations of a traced graph made functional: what is read after a write is the write's result.

`y.add_(z)`, `y += z`, `y[:, 0] = z`, `out=y`, nn.ReLU(inplace=True): later readers of y read the operation's node, and
views of y taken before are taken anew from it. A write through a view of a tensor that is read again by another name
has no such form here; neither has one where it depends on strides whether two names share memory. Those are refused,
with the line of the model's code.
"""

from __future__ import annotations

import inspect
import operator
import re
from typing import Any

from torch import Tensor, fx, nn

# Methods whose trailing underscore is no write of values.
_NO_WRITE = ("requires_grad_", "share_memory_", "pin_memory_")
AUGMENTED = {
    operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv, operator.imod, operator.ipow,
    operator.imatmul, operator.iand, operator.ior, operator.ixor,
}  # fmt: skip
# Results that share memory with their first argument, always or depending on strides and types.
_VIEWS = {
    *(
        "view",
        "view_as",
        "transpose",
        "permute",
        "t",
        "unsqueeze",
        "squeeze",
        "expand",
        "expand_as",
        "narrow",
        "select",
    ),
    *("chunk", "split", "split_with_sizes", "tensor_split", "unbind", "diagonal", "unfold", "movedim", "moveaxis"),
    *("swapaxes", "swapdims", "detach", "unflatten", "as_strided", "broadcast_to", "adjoint", "alias"),
}
_PERHAPS_VIEWS = {"reshape", "reshape_as", "flatten", "ravel", "contiguous", "to", "type", "type_as", "float", "double",
                  "half", "bfloat16", "dropout", "alpha_dropout", "feature_dropout"}  # fmt: skip
_VIEW_ATTRIBUTES = ("data", "T", "mT", "H", "mH", "real", "imag")
_NUMBERS = ("size", "dim", "numel", "ndimension", "stride", "nelement")


def functionalise(graph: fx.Graph, model: nn.Module) -> None:
    """Rewrite `graph` so that no value is read after it was overwritten; ValueError where that is not possible."""
    writer = _Writer(graph, model)
    for node in list(graph.nodes):
        if writes_several(node):
            raise ValueError(f"{place(node)}{_name(node)} writes into several tensors at once; write them one by one")
        target = written(node, model)
        if target is not None and not is_number(target):
            writer.redirect(node, target)


def written(node: fx.Node, model: nn.Module) -> fx.Node | None:
    """The node whose tensor an operation overwrites, or None."""
    out = node.kwargs.get("out")
    if isinstance(out, fx.Node):
        return out
    first = node.args[0] if node.args else node.kwargs.get("input", node.kwargs.get("self"))
    if not isinstance(first, fx.Node):
        return None
    if node.op == "call_module":
        return first if getattr(model.get_submodule(str(node.target)), "inplace", False) is True else None
    if node.op == "call_method":
        return first if _ends_as_write(str(node.target)) else None
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        writes = node.target in AUGMENTED or node.target is operator.setitem or _ends_as_write(name)
        return first if writes or _asks_in_place(node) else None
    return None


def writes_several(node: fx.Node) -> bool:
    """Whether an operation overwrites a list of tensors, as torch._foreach_add_ does."""
    several = node.op == "call_function" and bool(node.args) and isinstance(node.args[0], (list, tuple))
    return several and _ends_as_write(getattr(node.target, "__name__", ""))


def _ends_as_write(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__") and name not in _NO_WRITE


def _asks_in_place(node: fx.Node) -> bool:
    """F.relu(x, inplace=True), by name or by position."""
    if "inplace" in node.kwargs:
        return node.kwargs["inplace"] is True
    try:
        given = inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return given.get("inplace") is True


def is_number(node: fx.Node) -> bool:
    """Whether a node is a size or a number computed from sizes: such values are never overwritten."""
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    if node.target is getattr:
        return node.args[1] in ("shape", "ndim")
    if name in _NUMBERS:
        return True
    sources = node.all_input_nodes
    return node.op == "call_function" and bool(sources) and all(is_number(source) for source in sources)


def shares_memory(node: fx.Node, model: nn.Module) -> bool | None:
    """Whether the result is a view of the first argument: True, False, or None where strides or modes decide."""
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        if isinstance(module, (nn.Flatten, nn.modules.dropout._DropoutNd)):
            return None
        return isinstance(module, (nn.Identity, nn.Unflatten)) or getattr(module, "inplace", False) is True
    if node.op not in ("call_function", "call_method"):
        return False
    if node.target is getattr:
        return node.args[1] in _VIEW_ATTRIBUTES
    if node.target is operator.getitem:
        return not _copies(node.args[1])
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    return True if name in _VIEWS else None if name in _PERHAPS_VIEWS else False


def _copies(index: object) -> bool:
    """Whether an index selects by tensors or lists, which copies."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(p, (list, Tensor)) or (isinstance(p, fx.Node) and not is_number(p)) for p in parts)


class _Writer:
    """The graph while its writes are redirected, one after the other."""

    def __init__(self, graph: fx.Graph, model: nn.Module) -> None:
        self.graph, self.model = graph, model
        self.order: dict[fx.Node, float] = {node: float(i) for i, node in enumerate(graph.nodes)}

    def redirect(self, write: fx.Node, target: fx.Node) -> None:
        """Readers of `target` behind `write` read `write`; so do, through new views, the readers of its views."""
        root = self._path(target)[-1][0]
        inside = {n for n in self._family(root) if self.order[n] < self.order[write]}
        for node in inside - {target}:
            readers = self._before_writing_back(self._later(node, write), node, write)
            if not readers:
                continue
            path = self._path(node, until=target)
            if path is None or any(sure is None for _, sure in path[:-1]):
                raise ValueError(
                    f"{place(write)}{_name(write)} writes into memory that '{readers[0].name}' reads by another name; "
                    "write into a new tensor instead (y = y + z)"
                )
            last = self._again([n for n, _ in reversed(path[:-1])], target, write)
            for reader in readers:
                reader.replace_input_with(node, last)
        for reader in self._later(target, write):
            reader.replace_input_with(target, write)
        if write.target is operator.setitem:
            write.target = set_item

    def _later(self, node: fx.Node, write: fx.Node) -> list[fx.Node]:
        return [user for user in node.users if self.order[user] > self.order[write]]

    def _before_writing_back(self, readers: list[fx.Node], root: fx.Node, write: fx.Node) -> list[fx.Node]:
        """Readers up to the assignment of `x[i] += y`, which is read, added, and assigned to the same place of x."""
        back = [r for r in readers if r.target is operator.setitem and r.args[0] is root and r.args[2] is write]
        return [r for r in readers if not back or self.order[r] < self.order[back[0]]]

    def _path(self, node: fx.Node, until: fx.Node | None = None) -> Any:
        """[(node, sure), ..., (root or `until`, True)] along views; None where `until` is not met."""
        path: list[tuple[fx.Node, bool | None]] = []
        while True:
            shared = shares_memory(node, self.model)
            source = node.args[0] if node.args else None
            if node is until or shared is False or not isinstance(source, fx.Node):
                path.append((node, True))
                return path if until is None or node is until else None
            path.append((node, shared))
            node = source

    def _family(self, root: fx.Node) -> set[fx.Node]:
        """A tensor and all its views, also views of views."""
        found, todo = {root}, [root]
        while todo:
            for user in todo.pop().users:
                views = user not in found and user.args and user.args[0] in found
                if views and shares_memory(user, self.model) is not False:
                    found.add(user)
                    todo.append(user)
        return found

    def _again(self, path: list[fx.Node], target: fx.Node, write: fx.Node) -> fx.Node:
        """The views of a path taken once more, of the result of `write` instead of `target`."""
        taken = {target: write}
        after = write
        for node in path:
            with self.graph.inserting_after(after):
                copy = self.graph.node_copy(node, lambda n: taken.get(n, n))
            self.order[copy] = self.order[write]
            taken[node] = after = copy
        return after


def set_item(x: Tensor, index: Any, value: Any) -> Tensor:
    """A copy of x with x[index] = value."""
    x = x.clone()
    x[index] = value
    return x


def _name(node: fx.Node) -> str:
    return str(node.target) if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def place(node: fx.Node) -> str:
    """`file.py:12 (y += z): `, the line of the model's code behind a node; an empty text where it is not known."""
    found = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n *([^\n]*)', node.stack_trace or "")
    own = [f for f in found if "/torch/" not in f[0] and not f[0].endswith("/quant/tracing.py")]
    if not own:
        return ""
    file, line, code = own[-1]
    return f"{file.rsplit('/', 1)[-1]}:{line} ({code.strip()}): "
