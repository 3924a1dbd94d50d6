"""Parameters made from parameters, and arrays changed in place, straight from their definitions."""

from __future__ import annotations

import dataclasses

import pytest

from hwsim.frontends.lowering.constants import computed, shifted, side_by_side, steps_beside
from hwsim.frontends.lowering.ir import Op, OpGraph, Quantization, Ref
from hwsim.frontends.lowering.values import Const
from hwsim.frontends.lowering.written import changes_views, reached_by_inputs, writes_in_place
from hwsim.network.formats import Format, floating

CODES = Quantization("w", 4, True, False, zero_point=0)
WEIGHT = Const("w", (2, 4), CODES)
HALF, TINY = floating("fp16"), floating("e4m3")


# ---- constants of constants ------------------------------------------------------------------------------------------


def test_a_parameter_keeps_its_name_and_codes_while_it_is_whole() -> None:
    assert computed("out", (4, 2), [WEIGHT], None) == Const("w", (4, 2), CODES)
    assert computed("out", (3,), [WEIGHT], None) == Const("w:out", (3,), CODES)


def test_codes_times_steps_have_as_many_scales_as_there_are_steps() -> None:
    """Steps of each channel beside 16-bit floats are stored numbers; a single step is a multiplier of the outputs."""
    by_channel = computed("out", (2, 4), [WEIGHT, Const("s", (2, 1), form=HALF)], HALF)
    assert (by_channel.name, by_channel.form) == ("w", HALF)
    kept = dataclasses.replace(CODES, scales=2, beside_floats=Format("int", 4, "channel", 0, "fp16"))
    assert by_channel.quantization == kept
    single = computed("out", (2, 4), [Const("s", (1,)), WEIGHT], None)
    assert single == Const("w", (2, 4), CODES)
    several = computed("out", (2, 4), [WEIGHT, Const("a", (1,), form=TINY), Const("s", (2,))], None)
    assert several.quantization == dataclasses.replace(kept, beside_floats=Format("int", 4, "channel", 0, "fp32"))


def test_a_mixture_is_called_after_its_operator_and_stored_as_the_smallest_float() -> None:
    plain = [Const("a", (2,), form=HALF), Const("b", (2,), form=TINY)]
    assert computed("out", (2,), plain, HALF) == Const("out", (2,), None, TINY)
    assert computed("out", (2,), [WEIGHT, dataclasses.replace(WEIGHT, name="v")], None) == Const("out", (2,))
    assert computed("out", (2,), [Const("a", (2,)), Const("b", (2,))], None) == Const("out", (2,))
    assert computed("out", (2,), [Const("a", (2,), form=HALF)], None) == Const("a", (2,), None, HALF)


@pytest.mark.parametrize(
    ("bits", "scale", "steps", "made"),
    [
        (4, None, 2, Format("int", 4, "channel", 0, "fp32")),
        (16, HALF, 3, Format("int", 16, "channel", 0, "fp16")),
        (4, None, 1, None),
        (17, None, 2, None),
        (4, floating("e2m1"), 2, None),  # no format of scales
    ],
)
def test_steps_beside_floats(bits: int, scale: Format | None, steps: int, made: Format | None) -> None:
    assert steps_beside(dataclasses.replace(CODES, bits=bits), scale, steps) == made


def test_parameters_side_by_side_are_codes_of_the_widest_where_all_are_codes() -> None:
    wide = Const("v", (2, 4), Quantization("v", 8, False, True, scales=2, zero_point=0))
    assert side_by_side("out", (4, 4), [WEIGHT, wide], None) == Const(
        "out", (4, 4), Quantization("v", 8, True, True, scales=3, zero_point=0)
    )
    moved = dataclasses.replace(wide, quantization=Quantization("v", 8, False, True, zero_point=7))
    together = side_by_side("out", (4, 4), [WEIGHT, moved], None).quantization
    assert together is not None
    assert together.zero_point is None
    assert side_by_side("out", (3, 4), [WEIGHT, Const("b", (1, 4), form=HALF)], None) == Const(
        "out", (3, 4), None, HALF
    )
    assert side_by_side("out", (2, 4), [Const("none", (0, 4)), WEIGHT], None) == WEIGHT


@pytest.mark.parametrize(
    ("others", "left"),
    [
        ([], CODES),
        ([(1,)], dataclasses.replace(CODES, offset=True, zero_point=None)),
        ([(4,)], dataclasses.replace(CODES, offset=True, zero_point=None)),
        ([(2, 4)], None),
        ([(2, 4), (1,)], None),
        ([(1,), (1,)], dataclasses.replace(CODES, offset=True, zero_point=None)),
    ],
)
def test_an_offset_is_smaller_than_what_it_is_added_to(
    others: list[tuple[int, ...]], left: Quantization | None
) -> None:
    made = shifted(WEIGHT, [WEIGHT, *(Const("b", shape) for shape in others)])
    assert made == dataclasses.replace(WEIGHT, quantization=left)
    number = Const("w", (1,), CODES)
    assert shifted(number, [number, Const("b", (1,))]).quantization == dataclasses.replace(
        CODES, offset=True, zero_point=None
    )
    pair = Const("w", (2,), CODES)
    assert shifted(pair, [pair, Const("b", (2,))]).quantization is None
    plain = Const("p", (2,))
    assert shifted(plain, [plain, Const("b", (2,))]) == plain


# ---- arrays changed in place -----------------------------------------------------------------------------------------


def graph(*ops: tuple[str, str, str]) -> OpGraph:
    """`(operator, "output", "read read")` in order; `x` is the input, `k` a constant."""
    made = tuple(
        Op(f"aten.{kind}", {str(i): Ref(name) for i, name in enumerate(read.split())}, tuple(out.split()))
        for kind, out, read in ops
    )
    return OpGraph("net", ("x",), {"k": "k"}, {}, made, ())


@pytest.mark.parametrize(
    ("ops", "stale"),
    [
        ([("view", "y", "x"), ("add_", "x1", "x k"), ("relu", "z", "y")], True),  # y shows x before the change
        ([("view", "y", "x"), ("add_", "x1", "x k"), ("relu", "z", "x")], False),
        ([("view", "y", "x"), ("add_", "x1", "x k"), ("relu", "z", "x1")], False),
        ([("view", "y", "x"), ("add_", "x1", "x k"), ("view", "v", "y"), ("relu", "z", "v")], True),
        ([("view", "y", "x"), ("add_", "x1", "x k"), ("view", "v", "x1"), ("relu", "z", "v")], False),
        ([("view", "y", "x"), ("add_", "y1", "y k"), ("relu", "z", "x")], True),
        ([("view", "y", "x"), ("relu_", "y1", "y"), ("add", "z", "k x")], True),
        ([("view", "y", "x"), ("relu_", "y1", "y"), ("relu", "z", "k")], False),
        ([("relu", "y", "x"), ("add_", "x1", "x k"), ("relu", "z", "y")], False),  # y is no view
        ([("view", "y", "x"), ("copy_", "x1", "x k"), ("relu", "z", "y")], False),  # writes have handlers of their own
        # y[part] += k: the changed part is written back, and the whole is what it says again
        ([("slice", "y", "x"), ("add_", "y1", "y k"), ("slice", "t", "x"), ("copy_", "t1", "t y1"), ("relu", "z", "x")],
         False),
        # what is written back is itself old, or of another array
        ([("slice", "y", "x"), ("slice", "u", "x"), ("add_", "y1", "y k"), ("slice", "t", "x"), ("copy_", "t1", "t u")],
         True),
        ([("slice", "y", "x"), ("add_", "y1", "y k"), ("slice", "t", "x"), ("copy_", "t1", "t k")], True),
        ([("view", "y", "x"), ("__and__", "x1", "x k"), ("relu", "z", "y")], False),
    ],
)  # fmt: skip
def test_a_change_in_place_is_seen_where_an_old_view_is_read(ops: list[tuple[str, str, str]], stale: bool) -> None:
    assert changes_views(graph(*ops)) is stale


@pytest.mark.parametrize(
    ("ops", "states", "dependent"),
    [
        ([("relu", "y", "x"), ("relu", "c", "k")], "", "x y"),
        ([("zeros_like", "y", "x"), ("add", "z", "y k")], "", "x"),  # reads a shape alone
        ([("copy_", "k1", "k x")], "k", "x k k1"),
        ([("slice", "s", "k"), ("view", "v", "s"), ("copy_", "v1", "v x"), ("relu", "z", "k")], "k", "x k v1 z"),
        ([("copy_", "k1", "k k")], "", "x"),
        ([("copy_", "x1", "x k")], "", "x x1"),
        ([("relu", "y", "x"), ("copy_", "y1", "y x")], "", "x y y1"),
    ],
)
def test_constants_that_take_what_depends_on_the_input_are_states(
    ops: list[tuple[str, str, str]], states: str, dependent: str
) -> None:
    assert reached_by_inputs(graph(*ops)) == (set(states.split()), set(dependent.split()))


def test_names_of_torch_say_what_changes_its_operand() -> None:
    kinds = {"aten.add_": True, "aten.add": False, "aten.__and__": False, "aten.relu_": True}
    assert {kind: writes_in_place(Op(kind, {}, ())) for kind in kinds} == kinds
