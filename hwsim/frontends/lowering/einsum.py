"""einsum of any number of operands as products of two at a time, from the left; `...` stands for letters of its own.

Letters of both operands that stay are G, shared letters that nobody needs any more C; the rest are rows and columns.
"""

from __future__ import annotations

import dataclasses
import math
import string

from hwsim.frontends.lowering.ir import Op
from hwsim.frontends.lowering.lower import Handler, Lowering, Unhandled
from hwsim.frontends.lowering.values import Act, Const, Single
from hwsim.network.layer import Loops


def einsum(walk: Lowering, op: Op) -> None:
    """One layer for each operand after the first."""
    equation, operands = op.get("equation"), walk.members(op.get("tensors"))
    if not isinstance(equation, str):
        raise Unhandled(f"equation {equation!r}")
    letters, result = letters_of(equation, [operand.shape for operand in operands])
    for number, operand in enumerate(operands):
        others = set("".join(letters[:number] + letters[number + 1 :])) | set(result)
        operands[number], letters[number] = alone(walk, op, operand, letters[number], others, f"operand_{number}")
    size = {a: n for word, item in zip(letters, operands, strict=True) for a, n in zip(word, item.shape, strict=True)}
    value, word = operands[0], letters[0]
    for number, (other, its) in enumerate(zip(operands[1:], letters[1:], strict=True)):
        later = set("".join(letters[number + 2 :])) | set(result)
        last = number == len(operands) - 2
        value, word = product(walk, op, (value, word), (other, its), later, size, "" if last else f"product_{number}")
    if set(word) != set(result):
        raise Unhandled(f"equation {equation!r}: letters that no operand has")
    made = value if isinstance(value, Act) else None
    if made is None:
        raise Unhandled("no operand is an activation")
    if made.record.producer is None or made.record.producer.op is not op:
        walk.count_free(op, "one operand in another order: address arithmetic")
    walk.bind(op, made.seen_as(walk.shape(op)))


def alone(walk: Lowering, op: Op, value: Single, word: str, others: set[str], label: str) -> tuple[Single, str]:
    """One operand with its diagonals taken out, and summed over the letters that are its own; (value, its letters)."""
    size = dict(zip(word, value.shape, strict=True))
    kept = "".join(dict.fromkeys(word))
    if len(kept) < len(word):
        shape = tuple(size[letter] for letter in kept)
        value = (
            walk.emit("copy", op, [value], shape, value.record.origin, label=f"{label}_diagonal")
            if isinstance(value, Act)
            else dataclasses.replace(value, name=f"{value.name}:diagonal", shape=shape)
        )
    left = "".join(letter for letter in kept if letter in others)
    if len(left) < len(kept):
        shape, window = tuple(size[a] for a in left), math.prod(size[a] for a in kept if a not in others)
        value = (
            walk.emit("reduce_sum", op, [value], shape, "linear", label=f"{label}_sum", window=window)
            if isinstance(value, Act)
            else dataclasses.replace(value, name=f"{value.name}:sum", shape=shape)
        )
    return value, left


def letters_of(equation: str, shapes: list[tuple[int, ...]]) -> tuple[list[str], str]:
    """Letters of each operand and of the result; an ellipsis is written out, a missing result is the usual one."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    words = left.split(",")
    if len(words) != len(shapes):
        raise Unhandled(f"equation {equation!r} for {len(shapes)} operands")
    free = [letter for letter in string.ascii_letters if letter not in equation]
    most = max((len(s) - len(w) + 3 for w, s in zip(words, shapes, strict=True) if "..." in w), default=0)
    dots = "".join(free[:most])
    found: list[str] = []
    for word, shape in zip(words, shapes, strict=True):
        count = len(shape) - len(word) + 3
        full = word.replace("...", dots[most - count :] if count else "")
        if len(full) != len(shape):
            raise Unhandled(f"equation {equation!r} for shapes {shapes}")
        found.append(full)
    together = "".join(found)
    usual = dots + "".join(sorted(a for a in set(together) - set(dots) if together.count(a) == 1))
    return found, right.replace("...", dots) if arrow else usual


def product(
    walk: Lowering, op: Op, one: tuple[Single, str], other: tuple[Single, str], later: set[str], size: dict[str, int],
    label: str,
) -> tuple[Single, str]:  # fmt: skip
    """The product of two operands over the letters that nobody needs later; (value, its letters)."""
    (a, first), (b, second) = one, other
    if isinstance(a, Const):
        a, b, first, second = b, a, second, first
    both = set(first) & set(second)
    apart = (set(first) ^ set(second)) - later
    sizes = [*zip(first, a.shape, strict=True), *zip(second, b.shape, strict=True)]
    if apart or any(n != size[letter] for letter, n in sizes):
        raise Unhandled(f"equation {op.get('equation')!r}: sizes that are repeated")

    def of(chosen: set[str]) -> int:
        return math.prod(size[letter] for letter in chosen)

    kept = [letter for letter in dict.fromkeys(first + second) if letter in later]
    shape = tuple(size[letter] for letter in kept)
    if not isinstance(a, Act):
        raise Unhandled("its first operands are parameters alone")
    if not both - later:  # nothing is summed: an elementwise product
        acts = [item for item in (a, b) if isinstance(item, Act)]
        weight = b if isinstance(b, Const) else None
        return walk.emit("mul", op, acts, shape, "linear", label=label, weight=weight), "".join(kept)
    kind = "linear" if isinstance(b, Const) else "matmul"
    loops = Loops(G=of(both & later), K=of(set(second) - both), C=of(both - later), P=of(set(first) - both))
    return walk.emit(kind, op, [a], shape, "linear", label=label, weight=b, loops=loops), "".join(kept)


HANDLERS: dict[str, Handler] = {"aten.einsum": einsum}
