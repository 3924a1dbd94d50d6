"""First steps and offsets: the papers' rules by hand, and Eq. 8 against a dense grid."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quant.init import RULES, gaussian, initial, squared_error
from quant.spec import INIT_NAMES, QuantSpec

INPUTS = {
    "silu": (F.silu, 4),
    "hardswish": (F.hardswish, 4),
    "relu": (F.relu, 1),
    "linear": (lambda x: x, 2),
}


def first(values: Tensor, spec: QuantSpec, *, is_weight: bool = False) -> tuple[Tensor, Tensor]:
    s, beta = initial(values.view(1, -1), spec, is_weight=is_weight)
    return s[0], beta[0]


def true_error(values: Tensor, s: Tensor, beta: Tensor, spec: QuantSpec) -> float:
    """||x_hat - x||^2 / N, by the quantizer's own formula in float64."""
    x = values.double()
    codes = ((x - beta.double()) / s.double()).clamp(spec.n, spec.p).round()
    return (codes * s.double() + beta.double() - x).square().mean().item()


def dense_grid_optimum(values: Tensor, spec: QuantSpec) -> float:
    """The least error over a grid of both ends of the range (or of the step), far finer than any search would use."""
    x = values.double().view(1, -1)
    low, high = x.min(), x.max()
    best = math.inf
    if not spec.offset:
        scale = x.abs().max() / max(spec.p, 1) * 1.05
        steps = scale * torch.linspace(1e-3, 1, 3000, dtype=torch.float64)
        return squared_error(x, steps[None], torch.zeros_like(steps)[None], spec).min().item()
    for fraction in torch.linspace(-0.02, 0.6, 125, dtype=torch.float64):
        start = low + fraction * (high - low)
        steps = (high - start) / (spec.p - spec.n) * torch.linspace(0.05, 1.02, 400, dtype=torch.float64)
        best = min(best, squared_error(x, steps[None], (start - spec.n * steps)[None], spec).min().item())
    return best


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", INPUTS)
def test_eq_8_is_within_2_percent_of_a_dense_grid(kind: str, bits: int) -> None:
    function, config = INPUTS[kind]
    x = function(torch.randn(8000, generator=torch.Generator().manual_seed(bits)))
    spec = QuantSpec.for_config(bits, config, init="mse")
    s, beta = first(x, spec)
    assert true_error(x, s, beta, spec) <= 1.02 * dense_grid_optimum(x, spec)


def test_the_grids_error_is_the_quantizers_error() -> None:
    """squared_error counts by thresholds; the definition rounds each value."""
    x = F.silu(torch.randn(500, dtype=torch.float64))
    for bits, config in ((1, 2), (2, 3), (4, 4), (8, 1)):
        spec = QuantSpec.for_config(bits, config)
        s = torch.rand(6, dtype=torch.float64) / spec.levels + 0.01
        beta = torch.randn(6, dtype=torch.float64) / 4
        counted = squared_error(x[None], s[None], beta[None], spec)[0]
        direct = [true_error(x, *pair, spec) for pair in zip(s, beta, strict=True)]
        torch.testing.assert_close(counted, torch.tensor(direct, dtype=torch.float64))


def test_eq_8_beats_the_offset_free_and_the_integer_offset_by_what_is_known() -> None:
    """SiLU(N(0,1)): without an offset 1.39 (2 bits), 2.86 (3), 7.7 (4) times the error of a real offset."""
    x = F.silu(torch.randn(100_000, generator=torch.Generator().manual_seed(0)))
    for bits, ratio in ((2, 1.39), (3, 2.86), (4, 7.7)):
        errors = []
        for config in (1, 4):
            spec = QuantSpec.for_config(bits, config, init="mse")
            errors.append(true_error(x, *first(x, spec), spec))
        assert errors[0] / errors[1] == pytest.approx(ratio, rel=0.03)


@pytest.mark.parametrize("config", [3, 4])
def test_minmax_is_eq_6_and_7(config: int) -> None:
    x = torch.randn(1000)
    spec = QuantSpec.for_config(4, config, init="minmax")
    s, beta = first(x, spec)
    torch.testing.assert_close(s, (x.max() - x.min()) / 15)
    torch.testing.assert_close(beta, x.min() - spec.n * s)


def exact_optimum(values: Tensor, spec: QuantSpec) -> float:
    """The least error over every monotone assignment of codes to the different values, each with its best line."""
    x, count = values.double().unique(return_counts=True)
    weight = count / count.sum()
    best = math.inf
    for assignment in itertools.combinations_with_replacement(range(spec.n, spec.p + 1), len(x)):
        code = torch.tensor(assignment, dtype=torch.float64)
        centre = (weight * code).sum() if spec.offset else torch.tensor(0.0, dtype=torch.float64)
        spread = (weight * (code - centre) ** 2).sum()
        if spread > 0 and (s := (weight * (code - centre) * x).sum() / spread) > 0:
            beta = (weight * x).sum() - s * centre if spec.offset else 0.0
            best = min(best, ((s * code + beta - x).square() * weight).sum().item())
    return best


def test_few_values_are_fitted_as_well_as_every_assignment_of_codes_allows() -> None:
    """Three to six different values, unevenly many of each: 93 of 100 cases are the exact optimum, none is far off."""
    exact, cases = 0, 0
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        kinds = 3 + seed % 4
        repeats = torch.randint(1, 40, (kinds,), generator=generator)
        values = torch.randn(kinds, generator=generator, dtype=torch.float64).repeat_interleave(repeats)
        for config, bits in ((4, 2), (4, 3), (1, 2), (3, 2), (2, 3)):
            spec = QuantSpec.for_config(bits, config, init="mse")
            x = values.abs() if config == 1 else values
            found, least = true_error(x, *first(x, spec), spec), exact_optimum(x, spec)
            assert found <= 1.1 * least + 1e-9
            exact += found <= 1.001 * least + 1e-9
            cases += 1
    assert cases == 100
    assert exact >= 93


def test_rows_of_few_and_of_many_values_do_not_disturb_each_other() -> None:
    rows = torch.randn(3, 300)
    rows[1] = rows[1].sign() * 0.5
    spec = QuantSpec(3, True, init="mse", granularity="channel")
    s, _ = initial(rows, spec, is_weight=True)
    torch.testing.assert_close(s, torch.cat([initial(row[None], spec, is_weight=True)[0] for row in rows]))


def test_minmax_without_an_offset_holds_both_ends() -> None:
    x = torch.tensor([-3.0, 0.5, 2.0])
    assert first(x, QuantSpec(4, True, init="minmax"))[0] == pytest.approx(max(2 / 7, 3 / 8))
    assert first(x, QuantSpec(4, False, init="minmax"))[0] == pytest.approx(2 / 15)
    assert first(x, QuantSpec(1, True, init="minmax"))[0] == pytest.approx(3)


@pytest.mark.parametrize(("bits", "p"), [(4, 7), (2, 1), (8, 127), (1, 1)])
def test_lsq_rule(bits: int, p: int) -> None:
    w = torch.randn(5000)
    s, beta = first(w, QuantSpec(bits, True, init="lsq"), is_weight=True)
    torch.testing.assert_close(s, 2 * w.abs().mean() / math.sqrt(p))
    assert beta == 0


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_gaussian_rule_is_the_papers(bits: int) -> None:
    """max(|mu - 3 sigma|, |mu + 3 sigma|) / 2^(b-1), mu the signed mean, not mean|w|."""
    w = torch.randn(1, 20_000) * 0.1 - 0.05
    mu, sigma = w.mean(), w.std(correction=0)
    expected = max(abs(mu - 3 * sigma), abs(mu + 3 * sigma)) / 2 ** (bits - 1)
    s, _ = first(w, QuantSpec(bits, True, init="lsqplus"), is_weight=True)
    torch.testing.assert_close(s, expected)
    assert s == pytest.approx((0.05 + 0.3) / 2 ** (bits - 1), rel=0.02)
    absolute = gaussian(w, QuantSpec(bits, True), mean="absolute")[0]
    assert absolute == pytest.approx((w.abs().mean() + 3 * sigma).item() / 2 ** (bits - 1), rel=1e-5)


def test_rows_are_initialised_independently() -> None:
    w = torch.randn(5, 300) * torch.tensor([0.01, 0.1, 1.0, 3.0, 10.0])[:, None]
    for init in INIT_NAMES:
        spec = QuantSpec(3, True, init=init, granularity="channel")
        s, _ = initial(w, spec, is_weight=True)
        alone = [initial(row[None], spec, is_weight=True)[0] for row in w]
        torch.testing.assert_close(s, torch.cat(alone))


def test_power_of_two_starts_on_the_better_neighbour() -> None:
    x = torch.randn(3000)
    for bits in (2, 3, 4, 8):
        spec = QuantSpec(bits, True, init="mse", power_of_two=True)
        s, _ = first(x, spec)
        assert math.log2(s) == round(math.log2(s))
        others = [true_error(x, s * factor, torch.tensor(0.0), spec) for factor in (0.5, 2.0)]
        assert true_error(x, s, torch.tensor(0.0), spec) <= min(others)


def test_fixed_offsets_are_zero_or_the_minimum_and_the_step_fits_the_rest() -> None:
    x = F.silu(torch.randn(3000))
    for config in (3, 4):
        spec = QuantSpec.for_config(4, config, offset_mode="fixed_min")
        s, beta = first(x, spec)
        assert beta == x.min()
        reference, _ = first(x - x.min(), QuantSpec(4, False))
        torch.testing.assert_close(s, reference)
        s, beta = first(x, spec.replace(offset_mode="fixed_zero"))
        assert beta == 0
        torch.testing.assert_close(s, first(x, QuantSpec(4, spec.signed))[0])


def test_sixteen_bits_take_the_range() -> None:
    x = torch.randn(3000)
    s, _ = first(x, QuantSpec(16, True, init="mse"))
    assert s == pytest.approx(max(x.max().item() / 32767, -x.min().item() / 32768))


def test_bad_values_are_refused() -> None:
    for values in (torch.empty(1, 0), torch.ones(3), torch.tensor([[math.inf]])):
        with pytest.raises(ValueError, match="initialisation: expected"):
            initial(values, QuantSpec(4, True), is_weight=False)
    assert set(RULES) == set(INIT_NAMES)


@pytest.mark.parametrize(("bits", "offset"), [(8, False), (8, True), (5, True)])
def test_rows_together_get_what_each_gets_alone(bits: int, offset: bool) -> None:
    """The finer grids are round each row's own best candidate."""
    torch.manual_seed(0)
    rows = torch.stack([0.01 * torch.randn(400), torch.randn(400).exp(), 3 + torch.rand(400), torch.randn(400) ** 3])
    spec = QuantSpec(bits, signed=True, offset=offset, init="mse")
    together = initial(rows, spec, is_weight=True)
    alone = [initial(row[None], spec, is_weight=True) for row in rows]
    for i, found in enumerate(together):
        assert torch.allclose(found, torch.cat([each[i] for each in alone]), rtol=1e-6)
