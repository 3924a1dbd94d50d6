"""LSQ+ Eq. 2-4 against their literal transcription, one number at a time, in Python's float64."""

import math

import pytest
import torch
from torch import Tensor

from quant.functional import codes, lsq_plus
from quant.spec import ACTIVATION_CONFIGS, ALLOWED_BITS, CLIP_RULES, QuantSpec

EVERY_QUANTIZER = [(bits, config) for bits in ALLOWED_BITS for config in ACTIVATION_CONFIGS]


def literal(x: float, s: float, beta: float, n: int, p: int, rule: str) -> tuple[int, float, float, float]:
    """(code, d x_hat/dx, d x_hat/ds, d x_hat/dbeta) of Eq. 2, 3 and 4."""
    v = (x - beta) / s
    code = round(min(max(v, n), p))  # Python rounds half to even
    if n < v < p or (rule == "inclusive" and v in (n, p)):
        return code, 1.0, round(v) - v, 0.0
    return code, 0.0, float(n if v <= n else p), 1.0


def points(s: float, beta: float, n: int, p: int) -> list[float]:
    """Random points, and v exactly at, just below and just above n, p and the ties between codes near them."""
    generator = torch.Generator().manual_seed(0)
    random = torch.rand(50, generator=generator, dtype=torch.float64) * (p - n + 4) + n - 2
    exact = [n, p, n + 0.5, p - 0.5, (n + p) // 2 + 0.5, n - 0.25, p + 0.25, n - 0.5, p + 0.5, n - 40.0, p + 40.0]
    found = []
    for v in [*random.tolist(), *exact]:
        x = beta + s * v
        found += [x, math.nextafter(x, math.inf), math.nextafter(x, -math.inf)]
    return found


def per_element(x: Tensor, s: float, beta: float, spec: QuantSpec, rule: str) -> tuple[Tensor, ...]:
    """x_hat and the three gradients of every element: s and beta are expanded to one value each."""
    x = x.clone().requires_grad_()
    steps = torch.full_like(x, s, requires_grad=True)
    offsets = torch.full_like(x, beta, requires_grad=True)
    x_hat = lsq_plus(x, steps, offsets, spec.n, spec.p, clip_rule=rule)
    x_hat.sum().backward()
    return x_hat.detach(), x.grad, steps.grad, offsets.grad


@pytest.mark.parametrize("rule", CLIP_RULES)
@pytest.mark.parametrize(("bits", "config"), EVERY_QUANTIZER)
def test_gradients_are_those_of_equations_3_and_4(bits: int, config: int, rule: str) -> None:
    spec = QuantSpec.for_config(bits, config)
    # Powers of two, so that v is n or p exactly; and a step and offset without such grace.
    for s, beta in ((0.25, -0.375), (0.2371, -0.2183)):
        beta = beta if spec.offset else 0.0
        x = points(s, beta, spec.n, spec.p)
        expected = [literal(value, s, beta, spec.n, spec.p, rule) for value in x]
        x_hat, dx, ds, dbeta = per_element(torch.tensor(x, dtype=torch.float64), s, beta, spec, rule)
        for i, (code, want_dx, want_ds, want_dbeta) in enumerate(expected):
            assert x_hat[i].item() == code * s + beta
            assert (dx[i].item(), ds[i].item(), dbeta[i].item()) == (want_dx, want_ds, want_dbeta), x[i]


def test_boundary_points_are_hit_exactly() -> None:
    """The test above means something only if v equals n and p at some points."""
    x, s, beta = torch.tensor([points(0.25, -0.375, -8, 7)], dtype=torch.float64), 0.25, -0.375
    v = (x - beta) / s
    for bound in (-8, 7):
        assert (v == bound).any()
        assert ((v - bound).abs() < 1e-12).sum() >= 3


def test_the_papers_points() -> None:
    """d x_hat/ds is -0.49 at v = 1.49 and +0.49 at v = 1.51, and the bound itself beyond it (p + 0.25 included)."""
    spec = QuantSpec(2, False)
    x = torch.tensor([1.49, 1.51, 3.25, -0.25, 3.0], dtype=torch.float64)
    _, dx, ds, dbeta = per_element(x, 1.0, 0.0, spec, "strict")
    torch.testing.assert_close(ds, torch.tensor([-0.49, 0.49, 3.0, 0.0, 3.0], dtype=torch.float64))
    assert dx.tolist() == [1, 1, 0, 0, 0]
    assert dbeta.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("bits", ALLOWED_BITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_configurations_3_and_4_are_one_function(bits: int, dtype: torch.dtype) -> None:
    """x_hat is the same when beta3 = beta4 - n3*s; with s = 2^-3 in exactly the same bits."""
    three, four = QuantSpec.for_config(bits, 3), QuantSpec.for_config(bits, 4)
    x = torch.randn(2000, dtype=dtype) * four.p / 16
    s, beta = torch.tensor(0.125, dtype=dtype), torch.tensor(-0.28125, dtype=dtype)
    beta3 = beta - three.n * s
    a = lsq_plus(x, s, beta, four.n, four.p)
    b = lsq_plus(x, s, beta3, three.n, three.p)
    if dtype == torch.float32 and bits == 16:  # 2^16 codes leave a float32 too few digits for the ties
        assert ((a - b).abs() <= s).all()
        return
    assert torch.equal(a, b)
    assert torch.equal(codes(x, s, beta, four.n, four.p), codes(x, s, beta3, three.n, three.p) - three.n)


def test_gradients_sum_over_what_shares_a_step_and_carry_the_scale() -> None:
    x = torch.randn(5, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    g = torch.randn_like(x)
    s = torch.rand(3, 1, 1, dtype=torch.float64).add(0.1).requires_grad_()
    beta = torch.randn(3, 1, 1, dtype=torch.float64).requires_grad_()
    lsq_plus(x, s, beta, -4, 3, grad_scale=0.125).backward(g)
    wide_s = s.detach().expand(5, 3, 4, 4).clone().requires_grad_()
    wide_beta = beta.detach().expand(5, 3, 4, 4).clone().requires_grad_()
    again = x.detach().clone().requires_grad_()
    lsq_plus(again, wide_s, wide_beta, -4, 3).backward(g)
    torch.testing.assert_close(s.grad, wide_s.grad.sum((0, 2, 3)).view(3, 1, 1) * 0.125)
    torch.testing.assert_close(beta.grad, wide_beta.grad.sum((0, 2, 3)).view(3, 1, 1) * 0.125)
    assert torch.equal(x.grad, again.grad)


@pytest.mark.parametrize("where", ["x", "s", "beta"])
def test_nan_in_gives_nan_out(where: str) -> None:
    operands = {"x": torch.randn(64), "s": torch.tensor(0.2), "beta": torch.tensor(-0.1)}
    operands[where].view(-1)[0] = math.nan
    for value in operands.values():
        value.requires_grad_()
    x_hat = lsq_plus(operands["x"], operands["s"], operands["beta"], 0, 15)
    assert x_hat[0].isnan()
    assert x_hat.isnan().all() == (where != "x")
    assert codes(operands["x"], operands["s"], operands["beta"], 0, 15)[0].isnan()
    x_hat.sum().backward()
    assert operands["s"].grad.isnan()


def test_infinities_are_clipped() -> None:
    x = torch.tensor([math.inf, -math.inf], requires_grad=True)
    s = torch.tensor(0.5, requires_grad=True)
    x_hat = lsq_plus(x, s, None, -2, 1)
    assert x_hat.tolist() == [0.5, -1.0]
    x_hat.sum().backward()
    assert x.grad.tolist() == [0, 0]
    assert s.grad.item() == -1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    x = torch.randn(500).to(dtype).requires_grad_()
    s, beta = torch.tensor(0.0371, requires_grad=True), torch.tensor(-0.21, requires_grad=True)
    x_hat = lsq_plus(x, s, beta, 0, 255)
    assert x_hat.dtype == dtype
    wide = x.detach().float().requires_grad_()
    s2, beta2 = s.detach().clone().requires_grad_(), beta.detach().clone().requires_grad_()
    expected = lsq_plus(wide, s2, beta2, 0, 255)
    assert torch.equal(x_hat, expected.to(dtype))
    x_hat.float().sum().backward()
    expected.sum().backward()
    assert torch.equal(x.grad.float(), wide.grad)
    torch.testing.assert_close(s.grad, s2.grad)
    torch.testing.assert_close(beta.grad, beta2.grad)
    assert s.grad.dtype == torch.float32


def test_numbers_are_taken_for_s_and_beta() -> None:
    x = torch.randn(10, dtype=torch.float64)
    assert torch.equal(lsq_plus(x, 0.1, -0.2, 0, 15), lsq_plus(x, *torch.tensor([0.1, -0.2], dtype=x.dtype), 0, 15))
    assert torch.equal(lsq_plus(x, 0.1, None, -8, 7), 0.1 * codes(x, 0.1, None, -8, 7))


@pytest.mark.parametrize(("n", "p", "rule"), [(0, 15, "round_first"), (3, 1, "strict"), (0, 0, "strict")])
def test_unknown_rules_and_empty_ranges_are_refused(n: int, p: int, rule: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        lsq_plus(torch.randn(3), 0.1, None, n, p, clip_rule=rule)
