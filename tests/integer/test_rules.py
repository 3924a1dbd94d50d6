"""Rules of one, several and inexact integer tensors against exact rationals, element by element."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from hwsim.errors import UnsupportedOp
from hwsim.integer.arithmetic.fixed_point import FixedSingle, FixedSum, LookUp, fixed_rule
from hwsim.integer.arithmetic.forms import Affine, Form, Function, Term, at
from hwsim.integer.arithmetic.requantize import ROUNDINGS
from hwsim.integer.arithmetic.rules import (
    CodeSpec,
    Range,
    Rule,
    SingleRule,
    SumRule,
    TableRule,
    exact_rule,
    pulled_steps,
)
from hwsim.integer.arithmetic.steps import Clamp, Leaky, Smooth

Nodes = tuple[tuple[str, ...], ...]
FUNCTIONS: tuple[tuple[Function, ...], ...] = (
    (), (Clamp(Fraction(0)),), (Clamp(Fraction(-1), Fraction(2)), Clamp(Fraction(0), Fraction(3))),
    (Leaky(Fraction(1, 8)),), (Affine((Fraction(-2),), (Fraction(1, 3),)), Clamp(Fraction(0))),
)  # fmt: skip
TERMS: tuple[Nodes, ...] = ((("a",),), (("a",), ("b",)), (("a", "b"),), (("a", "b"), ("a",), ("b",)))


def value(function: Function, u: Fraction) -> Fraction:
    """A piecewise linear function of a rational."""
    if isinstance(function, Clamp):
        u = u if function.low is None else max(u, function.low)
        return u if function.high is None else min(u, function.high)
    if isinstance(function, Leaky):
        return u * function.slope if u < 0 else u
    assert isinstance(function, Affine)
    return u * function.slopes[0] + function.intercepts[0]


def real(form: Form, k: int, numbers: Mapping[str, Fraction]) -> Fraction:
    """What stands before the quantizer, channel k."""
    u = at(form.intercepts, k)
    for term in form.terms:
        part = at(term.slopes, k)
        for node in term.nodes:
            part *= numbers[node]
        u += part
    for function in form.functions:
        u = value(function, u)
    return u


def quantized(code: CodeSpec, u: Fraction) -> int:
    return round(min(max((u - code.beta) / code.s, Fraction(code.n)), Fraction(code.p)))


def drawn(rng: random.Random, nodes: Nodes, rows: int, functions: tuple[Function, ...] = ()) -> tuple[Form, CodeSpec]:
    """A form and the quantizer behind it; half the coefficients are short, so that sums fall on thresholds."""

    def number(spread: float) -> Fraction:
        exact = Fraction(rng.randint(-16, 16), 16)
        return exact if rng.random() < 0.5 else Fraction(rng.uniform(-spread, spread))

    terms = tuple(Term(names, tuple(number(0.4) for _ in range(rng.choice((1, rows))))) for names in nodes)
    intercepts = tuple(number(3) for _ in range(rows))
    code = CodeSpec(abs(number(1)) + Fraction(1, 8), number(2), *rng.choice(((0, 15), (-8, 7), (0, 1), (-1, 0))))
    return Form(terms, intercepts, (), 1, functions), code


def every(ranges: Mapping[str, Range], rows: int) -> dict[str, Tensor]:
    """All combinations of what the tensors may hold, of shape (combinations, rows)."""
    spans = [range(r.least, r.largest + 1) for r in ranges.values()]
    table = torch.tensor(list(itertools.product(*spans)))
    return {name: table[:, i : i + 1].expand(-1, rows) for i, name in enumerate(ranges)}


def check_exact(rule: Rule, form: Form, code: CodeSpec, sources: Mapping[str, Tensor]) -> Counter[str]:
    tally: Counter[str] = Counter()
    codes = rule.apply(sources, tally)
    first = next(iter(sources.values()))
    assert codes.shape == first.shape
    for i, k in itertools.product(range(first.shape[0]), range(first.shape[1])):
        numbers = {name: Fraction(int(t[i, k])) for name, t in sources.items()}
        assert int(codes[i, k]) == quantized(code, real(form, k, numbers)), (i, k, numbers)
    return tally


@pytest.mark.parametrize("functions", FUNCTIONS, ids=lambda fs: "-".join(f.name for f in fs) or "none")
@pytest.mark.parametrize("nodes", TERMS, ids=str)
@pytest.mark.parametrize("rows", [1, 3])
def test_every_code_is_that_of_exact_rationals(nodes: Nodes, functions: tuple[Function, ...], rows: int) -> None:
    rng = random.Random(f"{nodes} {rows}")
    kind = SingleRule if nodes == (("a",),) else TableRule if rows == 1 else SumRule
    for _ in range(6):
        form, code = drawn(rng, nodes, rows, functions)
        ranges = {name: Range((-rng.randint(0, 9),), (rng.randint(0, 9),)) for name in form.sources}
        rule = exact_rule(form, code, ranges)
        form_rows = form.rows
        assert isinstance(rule, kind if form_rows == rows or kind is SingleRule else TableRule)
        tally = check_exact(rule, form, code, every(ranges, rows))
        assert tally["undecided"] == 0


def test_sums_on_a_threshold_are_decided_with_rationals_and_go_to_the_even_code() -> None:
    halves = Form((Term(("a",), (Fraction(1, 2),)), Term(("b",), (Fraction(1, 2),))), (Fraction(0), Fraction(1)), ())
    code = CodeSpec(Fraction(1), Fraction(0), -8, 7)
    ranges = {"a": Range((-9,), (9,)), "b": Range((-9,), (9,))}
    rule = exact_rule(halves, code, ranges)
    assert isinstance(rule, SumRule)
    sources = every(ranges, 2)
    odd = int(((sources["a"] + sources["b"]) % 2).sum())
    tally = check_exact(rule, halves, code, sources)
    assert 0 < tally["decided with rationals"] <= odd  # a tie beyond n or p has one code on both sides


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("nodes", [(("a",),), (("a",), ("b",)), (("a", "b"),)], ids=str)
def test_an_inexact_integer_that_two_codes_may_stand_for_is_counted(nodes: Nodes, rows: int) -> None:
    """`error`: the real number lies within that of the integer. What is not counted has one code wherever it lies."""
    rng = random.Random(f"inexact {nodes} {rows}")
    for _ in range(12):
        form, code = drawn(rng, nodes, rows)
        form = Form(tuple(Term(t.nodes, tuple(x / 2**20 for x in t.slopes)) for t in form.terms), form.intercepts, ())
        ranges = {n: Range((-(2**20),), (2**20,), error=rng.choice((0, 1, 40))) for n in form.sources}
        unit = 0 if len(nodes[0]) == 1 else 20  # products have 2^20 for a one
        form = Form(tuple(Term(t.nodes, tuple(x / 2**unit for x in t.slopes)) for t in form.terms), form.intercepts, ())
        rule = exact_rule(form, code, ranges)
        sources = {
            n: torch.tensor([[rng.randint(-(2**20), 2**20) for _ in range(form.rows)] for _ in range(150)])
            for n in form.sources
        }
        tally: Counter[str] = Counter()
        codes = rule.apply(sources, tally)
        differing = 0
        for i, k in itertools.product(*map(range, codes.shape)):
            ends = [[Fraction(int(sources[n][i, k]) + e * ranges[n].error) for e in (-1, 0, 1)] for n in form.sources]
            found = {
                quantized(code, real(form, k, dict(zip(form.sources, corner, strict=True))))
                for corner in itertools.product(*ends)
            }
            differing += len(found) > 1
            assert int(codes[i, k]) in found
        assert tally["undecided"] >= differing
        assert all(r.error == 0 for r in ranges.values()) <= (tally["undecided"] == 0)


@pytest.mark.parametrize("slope", [Fraction(1), Fraction(-1)])
@pytest.mark.parametrize(("number", "unsure"), [(4, 0), (5, 0), (6, 1), (7, 1), (8, 0), (12, 0), (13, 1), (15, 0)])
def test_one_tensor_is_in_doubt_where_a_threshold_lies_within_its_error(
    number: int, unsure: int, slope: Fraction
) -> None:
    """Thresholds at 6, which goes to code 0, and 14, which goes to 2: with an error of 1, 6 and 7 may be 0 or 1."""
    code = CodeSpec(Fraction(8), Fraction(2) if slope > 0 else Fraction(-2), -8, 7)
    form = Form((Term(("a",), (slope,)),), (Fraction(0),), ())
    rule = exact_rule(form, code, {"a": Range((-100,), (100,), error=1)})
    tally: Counter[str] = Counter()
    rule.apply({"a": torch.tensor([[number]])}, tally)
    assert tally["undecided"] == unsure


def test_a_product_known_too_badly_is_refused_and_a_better_one_is_not() -> None:
    form = Form((Term(("a", "b"), (Fraction(1, 2**20),)),), (Fraction(0), Fraction(1)), ())
    code = CodeSpec(Fraction(1), Fraction(0), -128, 127)

    def ranges(error: int) -> dict[str, Range]:
        return {"a": Range((-1024,), (1024,), error), "b": Range((-2048,), (2048,))}

    # error * 2048 / 2^20 of a step: 1/64 is 8
    assert isinstance(exact_rule(form, code, ranges(7)), SumRule)
    with pytest.raises(UnsupportedOp, match="quantize the product's operands"):
        exact_rule(form, code, ranges(9))
    finer = CodeSpec(Fraction(1, 4), Fraction(0), -128, 127)
    assert isinstance(exact_rule(form, finer, ranges(1)), SumRule)
    with pytest.raises(UnsupportedOp, match="quantize the product's operands"):
        exact_rule(form, finer, ranges(3))


def test_a_product_of_more_than_63_bits_is_refused() -> None:
    form = Form((Term(("a", "b"), (Fraction(1, 2**56),)),), (Fraction(0), Fraction(1)), ())
    code = CodeSpec(Fraction(1), Fraction(0), -128, 127)
    half = Range((-(2**31) + 1,), (2**31 - 1,))
    assert isinstance(exact_rule(form, code, {"a": half, "b": half}), SumRule)
    with pytest.raises(UnsupportedOp, match=r"needs 64 bits, and integers have 64 here"):
        exact_rule(form, code, {"a": Range((-(2**31),), (0,)), "b": Range((-(2**31),), (0,))})


def test_pairs_of_codes_are_a_table_up_to_its_largest_size() -> None:
    form = Form((Term(("a",), (Fraction(1, 3),)), Term(("b",), (Fraction(1, 7),))), (Fraction(0),), ())
    code = CodeSpec(Fraction(1), Fraction(0), -128, 127)
    for last, kind in ((511, TableRule), (512, SumRule)):
        assert isinstance(exact_rule(form, code, {"a": Range((0,), (255,)), "b": Range((0,), (last,))}), kind)


def test_ranges_speak_of_their_widest_channel() -> None:
    several = Range((-3, -8, 0), (5, 1, 7))
    assert (several.least, several.largest, several.reach) == (-8, 7, 8)
    assert Range((2, 3), (5, 9)).reach == 9


def test_each_channel_is_asked_within_its_own_range() -> None:
    """A multiplier is proven where a channel's integers lie, one channel 1,000 times as wide as the other."""
    form = Form((Term(("a",), (Fraction(1, 3), Fraction(1, 3000))),), (Fraction(1, 7), Fraction(0)), ())
    code = CodeSpec(Fraction(1, 4), Fraction(0), -128, 127)
    rule = exact_rule(form, code, {"a": Range((-90, -90_000), (80, 90_000))})
    a = torch.stack([torch.arange(-90, 81, dtype=torch.int64), torch.arange(-90_000, 90_000, 1053)[:171]], 1)
    check_exact(rule, form, code, {"a": a})


# ---- fixed point -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("nodes", [(("a",), ("b",)), (("a", "b"),), (("a",), ("b",), ("a", "b"))], ids=str)
@pytest.mark.parametrize("width", [4, 16, 31])
def test_a_sum_in_fixed_point_is_as_near_as_its_multipliers_say(nodes: Nodes, width: int, rounding: str) -> None:
    """|code - real/s| is at most the shift's own rounding and half a unit of every multiplier times its operand."""
    rng = random.Random(f"{nodes} {width} {rounding}")
    for _ in range(8):
        form, code = drawn(rng, nodes, 2, (Clamp(Fraction(-3), None),))
        ranges = {n: Range((-rng.randint(1, 200),), (rng.randint(1, 200),)) for n in form.sources}
        rule = fixed_rule(form, code, ranges, width=width, rounding=rounding, table_bits=8)
        assert isinstance(rule, FixedSum)
        shift = int(rule.shift)
        assert all(int(m.abs().max()) < 2 ** (width - 1) for m in rule.multipliers)
        assert max(int(m.abs().max()) for m in rule.multipliers) >= 2 ** (width - 2) or not any(
            any(term.slopes) for term in form.terms
        )
        sources = {
            n: torch.tensor([[rng.randint(r.least, r.largest)] * 2 for _ in range(100)]) for n, r in ranges.items()
        }
        codes = rule.apply(sources, Counter())
        for i, k in itertools.product(*map(range, codes.shape)):
            numbers = {n: Fraction(int(t[i, k])) for n, t in sources.items()}
            exact = (real(form, k, numbers) - code.beta) / code.s
            doubt = Fraction(1) if rounding == "floor" else Fraction(1, 2)
            parts = Fraction(1)
            for term in form.terms:
                part = Fraction(1)
                for node in term.nodes:
                    part *= abs(numbers[node])
                parts += part
            doubt += parts / 2 / Fraction(2) ** shift
            assert abs(int(codes[i, k]) - min(max(exact, Fraction(code.n)), Fraction(code.p))) <= doubt


def test_a_large_constant_takes_bits_from_the_shift_and_never_overflows() -> None:
    """2^40 steps beside a small sum: the shift makes room for it, and the code is the exact one."""
    far = Fraction(2**40)
    form = Form((Term(("a",), (Fraction(1),)), Term(("b",), (Fraction(1),))), (far,), ())
    code = CodeSpec(Fraction(1), far, -128, 127)
    code_far = CodeSpec(Fraction(1), Fraction(0), 2**40 - 128, 2**40 + 127)
    ranges = {"a": Range((-50,), (50,)), "b": Range((-50,), (50,))}
    sources = every(ranges, 1)
    for spec, moved in ((code, 0), (code_far, 2**40)):
        rule = fixed_rule(form, spec, ranges, width=31, rounding="half_even", table_bits=8)
        assert isinstance(rule, FixedSum)
        assert torch.equal(rule.apply(sources, Counter()), sources["a"] + sources["b"] + moved)


def test_constant_and_operand_each_take_their_room() -> None:
    """2^45 from the operand and as much from the constant: 47 bits before the fraction."""
    far = 2**45
    form = Form((Term(("a",), (Fraction(1),)),), (Fraction(far),), ())
    rule = fixed_rule(form, CodeSpec(Fraction(1), Fraction(0), 0, 2 * far), {"a": Range((-far,), (far,))}, width=31,
                      rounding="half_even", table_bits=8)  # fmt: skip
    a = torch.tensor([[-far], [-1], [0], [12345], [far]])
    assert torch.equal(rule.apply({"a": a}, Counter()), a + far)


@pytest.mark.parametrize(("reach", "kind"), [(2**31 - 1, FixedSingle), (2**31, FixedSum)])
def test_an_accumulator_of_more_than_32_bits_is_summed_in_64(reach: int, kind: type) -> None:
    form = Form((Term(("a",), (Fraction(1, 2**26),)),), (Fraction(0),), ())
    rule = fixed_rule(form, CodeSpec(Fraction(1), Fraction(0), -128, 127), {"a": Range((-reach,), (0,))}, width=31,
                      rounding="half_even", table_bits=8)  # fmt: skip
    assert isinstance(rule, kind)
    assert rule.apply({"a": torch.tensor([[-reach], [-(2**26)]])}, Counter()).tolist() == [[-32], [-1]]


@pytest.mark.parametrize("highest", [63, 1])
@pytest.mark.parametrize("name", ["silu", "sigmoid", "hswish"])
def test_a_table_of_a_smooth_function_is_right_but_within_half_an_index_of_a_threshold(name: str, highest: int) -> None:
    """The index is cut over the thresholds and an eighth more; a range of one threshold is a thousandth wide.

    The bias before the index is a whole number of the operand's units, here 1/256.
    """
    form = Form((Term(("a",), (Fraction(1, 256),)),), (Fraction(1, 10),), (), 1, (Smooth(name),))
    code = CodeSpec(Fraction(1, 32), Fraction(1, 2) if name == "sigmoid" else Fraction(-1, 5), 0, highest)
    ranges = {"a": Range((-3000,), (3000,))}
    marks = pulled_steps(form, code)[0].thresholds
    sources = {"a": torch.arange(-3000, 3001)[:, None]}
    right = exact_rule(form, code, ranges).apply(sources, Counter())
    for bits in (4, 8, 12):
        rule = fixed_rule(form, code, ranges, width=31, rounding="half_even", table_bits=bits)
        assert isinstance(rule, LookUp)
        assert len(rule.table) == 2**bits
        step = max(marks[-1] - marks[0], Fraction(1, 1000)) * Fraction(9, 8) / (2**bits - 1)
        wrong = (rule.apply(sources, Counter()) != right).nonzero()[:, 0]
        for place in wrong.tolist():
            u = Fraction(place - 3000, 256) + Fraction(1, 10)
            assert min(abs(u - mark) for mark in marks) <= step * Fraction(501, 1000) + Fraction(1, 512), (place, bits)


def test_a_table_needs_one_function_for_all_channels() -> None:
    form = Form((Term(("a",), (Fraction(1),)),), (Fraction(0),), (), 1,
                (Smooth("silu"), Affine((Fraction(1), Fraction(2)), (Fraction(0),))))  # fmt: skip
    with pytest.raises(ValueError, match="one function for all channels"):
        fixed_rule(form, CodeSpec(Fraction(1), Fraction(0), 0, 15), {"a": Range((-8,), (8,))}, width=31,
                   rounding="half_even", table_bits=8)  # fmt: skip
