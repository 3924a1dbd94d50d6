"""Operations of vector operators, beside plain programs whose operations are counted one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hwsim.machine.load import load_accelerator
from hwsim.network.layer import Layer, Tensor
from hwsim.pricing.vector import LOOKUP_BITS, VECTOR_OPS_PER_ELEMENT, Recipe, vector_work


class Counted:
    """A number that counts every addition, subtraction, product and comparison that it takes part in."""

    done = 0

    def one(self, other: object) -> Counted:
        Counted.done += 1
        return self

    __add__ = __sub__ = __mul__ = one

    def larger(self, other: object) -> Counted:
        return self.one(other)


Row = list[Counted]


def total(row: Row) -> Counted:
    found = row[0]
    for x in row[1:]:
        found = found + x
    return found


def leaky_relu(x: Row, y: Row) -> None:
    for a in x:
        a.larger(a * 0.01)


def rms_norm(x: Row, y: Row) -> None:
    scale = total([a * a for a in x])
    _ = [a * scale * gamma for a, gamma in zip(x, y, strict=True)]


def layer_norm(x: Row, y: Row) -> None:
    mean = total(x)
    centred = [a - mean for a in x]
    scale = total([a * a for a in centred])
    _ = [a * scale * gamma + beta for a, gamma, beta in zip(centred, y, y, strict=True)]


def rope(x: Row, y: Row) -> None:
    _ = [a * cosine + turned * sine for a, turned, cosine, sine in zip(x, x, y, y, strict=True)]


def swiglu(x: Row, y: Row) -> None:
    _ = [a * table * b for a, table, b in zip(x, x, y, strict=True)]


def softmax(x: Row, y: Row) -> None:
    largest = x[0]
    for a in x[1:]:
        largest = largest.larger(a)
    raised = [a - largest for a in x]  # a table raises e to it
    reciprocal = total(raised)
    _ = [a * reciprocal for a in raised]


PROGRAMS: dict[str, Callable[[Row, Row], None]] = {
    "add": lambda x, y: [a + b for a, b in zip(x, y, strict=True)] and None,
    "sub": lambda x, y: [a - b for a, b in zip(x, y, strict=True)] and None,
    "mul": lambda x, y: [a * b for a, b in zip(x, y, strict=True)] and None,
    "div": lambda x, y: [a * b for a, b in zip(x, y, strict=True)] and None,  # by a reciprocal from a table
    "relu": lambda x, y: [a.larger(0) for a in x] and None,
    "relu6": lambda x, y: [a.larger(0) for a in x] and None,
    "batch_norm": lambda x, y: [a * 1 + 1 for a in x] and None,
    "leaky_relu": leaky_relu, "rms_norm": rms_norm, "layer_norm": layer_norm, "group_norm": layer_norm, "rope": rope,
    "swiglu": swiglu, "softmax": softmax,
}  # fmt: skip


@pytest.mark.parametrize("op", PROGRAMS)
def test_an_operator_takes_the_operations_of_a_program_that_does_it(op: str) -> None:
    """Sums of n take n - 1 additions: the recipe says n."""
    n, Counted.done = 64, 0
    PROGRAMS[op]([Counted() for _ in range(n)], [Counted() for _ in range(n)])
    assert 0 <= VECTOR_OPS_PER_ELEMENT[op].ops * n - Counted.done <= 2


def test_nothing_is_done_that_a_recipe_leaves_out() -> None:
    assert Recipe() == Recipe(0, 0, 0, 0, 0, False)
    tables = {"div", "softmax", "swiglu", "lrn"} | {
        op for op, recipe in VECTOR_OPS_PER_ELEMENT.items() if recipe == Recipe(lookups=1)
    }
    assert {op for op, recipe in VECTOR_OPS_PER_ELEMENT.items() if recipe.lookups} == tables
    assert all(VECTOR_OPS_PER_ELEMENT[op].lookups == 1 for op in tables)
    windows = {op: recipe.window_ops for op, recipe in VECTOR_OPS_PER_ELEMENT.items() if recipe.window_ops}
    assert windows == {"lrn": 2, "max_pool": 1, "avg_pool": 1}


def test_results_on_another_grid_are_requantized_once() -> None:
    """Comparisons and tables give codes at once; additions bring each input to one grid."""
    times = {op: recipe.requantizations for op, recipe in VECTOR_OPS_PER_ELEMENT.items() if recipe.requantizations}
    assert set(times.values()) == {1}
    assert set(times) == {
        "mul", "div", "softmax", "layer_norm", "rms_norm", "rope", "swiglu", "combine", "group_norm", "lrn", "avg_pool",
        "reduce_sum", "reduce_mean", "concat", "requantize",
    }  # fmt: skip
    assert {op for op, recipe in VECTOR_OPS_PER_ELEMENT.items() if recipe.requantize_each_input} == {"add", "sub"}


@pytest.mark.parametrize(("bits", "ops", "lookups"), [(LOOKUP_BITS, 0, 1), (LOOKUP_BITS + 1, 2, 2)])
def test_a_function_of_wide_codes_interpolates_between_two_entries(bits: int, ops: int, lookups: int) -> None:
    x = Tensor("x", (1, 6, 2, 2), bits)
    layer = Layer("f", "sigmoid", (x,), Tensor("f.out", (1, 6, 2, 2), 8))
    found = vector_work(layer, load_accelerator("eyeriss_v2").capabilities)
    assert (found.ops, found.lookups) == (24 * ops, 24 * lookups)
