"""einsum of any number of operands as products of two at a time, from the left; `...` stands for letters of its own.

Letters of both operands that stay are G, shared letters that nobody needs any more C; the rest are rows and columns.
"""

from __future__ import annotations

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
    for word in (*letters, result):
        if len(set(word)) < len(word):
            raise Unhandled(f"equation {equation!r}: diagonals of one operand")
    size = {a: n for word, item in zip(letters, operands, strict=True) for a, n in zip(word, item.shape, strict=True)}
    value, word = operands[0], letters[0]
    for number, (other, its) in enumerate(zip(operands[1:], letters[1:], strict=True)):
        later = set("".join(letters[number + 2 :])) | set(result)
        last = number == len(operands) - 2
        value, word = product(walk, op, (value, word), (other, its), later, size, "" if last else f"product_{number}")
    if len(operands) == 1 or set(word) != set(result):
        raise Unhandled(f"equation {equation!r}: sums of one operand")
    made = value if isinstance(value, Act) else None
    if made is None:
        raise Unhandled("no operand is an activation")
    walk.bind(op, made.seen_as(walk.shape(op)))


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
        raise Unhandled(f"equation {op.get('equation')!r}: sums of one operand, or sizes that are repeated")

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
