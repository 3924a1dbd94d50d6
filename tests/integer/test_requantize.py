"""Exact thresholds, proven multipliers and fixed-point forms against the float64 formula and exact rationals."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.integer.arithmetic.requantize import (
    Line,
    agrees,
    channel_steps,
    fixed_multiplier,
    narrowest_multiplier,
    proven_multiplier,
    shift_right,
)
from hwsim.integer.arithmetic.steps import SMOOTH, Clamp, Leaky, ScalarFunction, Smooth, quantizer_steps, rational_sqrt

FUNCTIONS: tuple[ScalarFunction | None, ...] = (
    None, Clamp(Fraction(0)), Clamp(Fraction(0), Fraction(6)), Leaky(Fraction(1, 8)), *map(Smooth, SMOOTH),
)  # fmt: skip


def exact_code(u: Fraction, s: Fraction, beta: Fraction, n: int, p: int) -> int:
    return round(min(max((u - beta) / s, Fraction(n)), Fraction(p)))


@pytest.mark.parametrize("seed", range(40))
def test_a_table_of_steps_gives_what_a_search_gives_also_beyond_the_range(seed: int) -> None:
    rng = random.Random(seed)
    rows, n = rng.choice((1, 1, 3, 5)), rng.choice((0, -4))
    steps = quantizer_steps(
        Fraction(rng.uniform(0.01, 2)), Fraction(rng.uniform(-2, 2)), n, n + rng.choice((1, 7, 300))
    )
    low, high = ([edge * rng.randint(0, 200) for _ in range(rows)] for edge in (-1, 1))
    slopes, intercepts = ([Fraction(rng.uniform(-0.1, 0.1)) for _ in range(rows)] for _ in range(2))
    found = channel_steps(slopes, intercepts, [steps], low, high)
    assert found.tabulated is not None
    values = torch.tensor([[rng.randint(-300, 300) for _ in range(200)] for _ in range(rows)])
    for a in (values, values.to(torch.int16), values.clamp(0, 255).to(torch.uint8)):
        assert torch.equal(found.apply(a, 0).long(), found.search(a, 0))
        assert torch.equal(found.apply(a.T[None], 2).long(), found.search(a.T[None], 2))
    wide = channel_steps(slopes, intercepts, [steps], [-(2**19)] * rows, [2**19] * rows)
    assert wide.tabulated is None  # more than 2^20 integers: searched


@pytest.mark.parametrize("seed", range(8))
def test_channels_with_different_numbers_of_steps_are_each_its_own_table(seed: int) -> None:
    rng = random.Random(seed)
    widths = [rng.choice((1, 3, 15, 255)) for _ in range(3)] + [2]
    steps = [quantizer_steps(Fraction(rng.uniform(0.05, 1)), Fraction(rng.uniform(-1, 1)), 0, p) for p in widths]
    slopes = [Fraction(rng.uniform(-0.2, 0.2)) for _ in widths]
    intercepts = [Fraction(rng.uniform(-2, 2)) for _ in widths]
    low, high = ([edge * rng.randint(0, 60) for _ in widths] for edge in (-1, 1))
    found = channel_steps(slopes, intercepts, steps, low, high)
    every = torch.arange(-100, 101)
    for k, row in enumerate(found.search(every.expand(len(widths), -1), 0)):
        own = channel_steps(slopes[k : k + 1], intercepts[k : k + 1], [steps[k]], [low[k]], [high[k]])
        assert torch.equal(row, own.search(every[None], 0)[0]), widths[k]


def name_of(function: ScalarFunction | None) -> str:
    return "identity" if function is None else function.name


@pytest.mark.parametrize("function", FUNCTIONS, ids=name_of)
@settings(max_examples=12, deadline=None)
@given(
    bits=st.integers(1, 8), signed=st.booleans(), s=st.floats(0.01, 2), beta=st.floats(-2, 2),
    slope=st.floats(-0.01, 0.01), intercept=st.floats(-3, 3),
)  # fmt: skip
def test_thresholds_give_the_codes_of_the_float64_formula(
    function: ScalarFunction | None, bits: int, signed: bool, s: float, beta: float, slope: float, intercept: float
) -> None:
    n, p = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    steps = quantizer_steps(Fraction(s), Fraction(beta), n, p)
    if function is not None:
        steps = function.pull_back(steps)
    table = channel_steps([Fraction(slope)], [Fraction(intercept)], [steps], [-3000], [3000])
    a = torch.arange(-3000, 3001)
    u = slope * a.double().numpy() + intercept
    v = (u if function is None else function(u)).astype(np.float64)
    scaled = (v - beta) / s
    expected = np.round(np.clip(scaled, n, p)).astype(np.int64)
    got = table.apply(a[None], 0)[0].numpy()
    # float64 rounds where the thresholds are exact: only there, within its rounding error of a tie, may they differ.
    off = np.abs(np.abs(scaled - np.floor(scaled)) - 0.5)
    assert np.array_equal(got[off > 1e-9], expected[off > 1e-9])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_ties_go_to_the_even_code_exactly(seed: int) -> None:
    rng = random.Random(seed)
    s, slope = (
        Fraction(1, 2 ** rng.randint(0, 5)),
        Fraction(rng.choice([-1, 1]) * rng.randint(1, 9), 2 ** rng.randint(0, 6)),
    )
    intercept, beta = Fraction(rng.randint(-20, 20), 16), Fraction(rng.randint(-20, 20), 32)
    n, p = rng.choice([(0, 3), (-8, 7), (0, 15), (-1, 0)])
    table = channel_steps([slope], [intercept], [quantizer_steps(s, beta, n, p)], [-200], [200])
    for a in range(-200, 201):
        expected = exact_code(slope * a + intercept, s, beta, n, p)
        assert int(table.apply(torch.tensor([[a]]), 0)) == expected
        # torch rounds the same way when all numbers are dyadic, so that float64 holds them exactly
        v = (torch.tensor(float(slope * a + intercept), dtype=torch.float64) - float(beta)) / float(s)
        assert int(v.clamp(n, p).round()) == expected


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_channels_of_all_kinds_share_one_table(seed: int) -> None:
    # Rising, falling, constant, and channels whose range lies beyond every threshold or reaches only some of them.
    rng = random.Random(seed)
    rows, (n, p) = 5, rng.choice([(0, 1), (0, 15), (-4, 3)])
    slopes = [Fraction(rng.choice([0, 1e-5, -1e-5, 0.02, -0.02, 1.5, -1.5]) * rng.random()) for _ in range(rows)]
    intercepts = [Fraction(rng.uniform(-20, 20)) for _ in range(rows)]
    lows = [-rng.randint(0, 100) for _ in range(rows)]
    highs = [rng.randint(0, 100) for _ in range(rows)]
    steps = quantizer_steps(Fraction(1), Fraction(0), n, p)
    if rng.random() < 0.5:
        steps = Smooth("silu").pull_back(steps)
    table = channel_steps(slopes, intercepts, [steps], lows, highs)
    for k in range(rows):
        a = torch.arange(lows[k], highs[k] + 1)
        inputs = a.clamp(min(lows), max(highs)).expand(rows, -1)
        assert table.apply(inputs, 0)[k].tolist() == [steps(slopes[k] * v + intercepts[k]) for v in a.tolist()]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_proven_multiplier_is_right_everywhere(seed: int) -> None:
    rng = random.Random(seed)
    rows, n, p = 4, 0, 2 ** rng.randint(1, 6) - 1
    slopes = [Fraction(rng.uniform(-0.2, 0.2)) for _ in range(rows)]
    intercepts = [Fraction(rng.uniform(-5, 5)) for _ in range(rows)]
    line = Line(tuple(slopes), tuple(intercepts), (n,) * rows, (p,) * rows)
    steps = quantizer_steps(Fraction(1), Fraction(0), n, p)
    reach = rng.randint(1, 2000)
    exact = channel_steps(slopes, intercepts, [steps], [-reach] * rows, [reach] * rows)
    form = proven_multiplier(line, exact)
    assert form is not None
    a = torch.arange(-reach, reach + 1).expand(rows, -1)
    expected = torch.tensor([[exact_code(x * v + y, Fraction(1), Fraction(0), n, p) for v in range(-reach, reach + 1)]
                             for x, y in zip(slopes, intercepts, strict=True)])  # fmt: skip
    assert torch.equal(exact.apply(a, 0), expected)
    assert torch.equal(form.apply(a, 0), expected)
    width = narrowest_multiplier(line, exact)
    assert width is not None
    narrow = proven_multiplier(line, exact, width)
    assert narrow is not None
    assert narrow.multiplier_bits <= width
    assert torch.equal(narrow.apply(a, 0), expected)


def test_a_form_that_is_wrong_somewhere_is_not_proven() -> None:
    line = Line((Fraction(1, 3),), (Fraction(0),), (0,), (255,))
    exact = channel_steps(line.slopes, line.intercepts, [quantizer_steps(Fraction(1), Fraction(0), 0, 255)], [0], [765])
    assert not agrees(fixed_multiplier(line, 4), exact)
    assert proven_multiplier(line, exact, 4) is None
    assert agrees(fixed_multiplier(line, 32), exact)


@pytest.mark.parametrize("rounding", ["half_up", "half_even", "half_away", "floor"])
def test_shifts_round_as_named(rounding: str) -> None:
    import math

    x = torch.arange(-50, 51)
    for shift in range(-2, 5):
        exact = [Fraction(int(v)) / Fraction(2) ** shift for v in x]
        rule = {
            "half_up": lambda v: math.floor(v + Fraction(1, 2)),
            "half_even": round,
            "half_away": lambda v: math.floor(v + Fraction(1, 2)) if v >= 0 else math.ceil(v - Fraction(1, 2)),
            "floor": math.floor,
        }[rounding]
        assert shift_right(x, torch.tensor(shift), rounding).tolist() == [rule(v) for v in exact]


def test_fixed_multipliers_keep_their_width() -> None:
    rng = random.Random(0)
    for width in (2, 8, 16, 32):
        slopes = tuple(Fraction(rng.choice([-1, 1]) * 2 ** rng.uniform(-20, 3)) for _ in range(200))
        form = fixed_multiplier(Line(slopes, (Fraction(1, 3),) * 200, (0,) * 200, (255,) * 200), width)
        assert int(form.multiplier.abs().max()) < 2 ** (width - 1)
        worst = max(
            abs(Fraction(int(m)) / Fraction(2) ** int(sh) / s - 1)
            for m, sh, s in zip(form.multiplier, form.shift, slopes, strict=True)
        )
        assert worst <= Fraction(1, 2 ** (width - 1)) or (width == 2 and worst < Fraction(1, 2))


def test_rational_roots_are_tight() -> None:
    for x in (Fraction(1e-5), Fraction(2), Fraction(3, 7), Fraction(10**9)):
        root = rational_sqrt(x)
        assert abs(root * root / x - 1) < Fraction(1, 2**140)
