"""Softmax and norms in integers: within what is claimed of the real operators, and networks of them exact."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant
from hwsim.errors import UnsupportedOp
from hwsim.integer.arithmetic import nonlinear
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.certificate import certify
from hwsim.integer.proof.compare import compare, reference, reference_codes
from hwsim.integer.run import Machine
from quant.models.ops import Add
from tests.integer.nets import zoo

VIT_SMALL: dict[str, Any] = {"image_size": 32, "dim": 24, "depth": 2, "heads": 2}


def integers(rng: torch.Generator, shape: tuple[int, ...], spread: float, shift: int) -> Tensor:
    """Gaussian numbers of that spread in units of 2^-shift."""
    return (torch.randn(shape, generator=rng, dtype=torch.float64) * spread * 2**shift).round().to(torch.int64)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 300), spread=st.sampled_from([1e-3, 0.1, 1, 10, 300]),
       shift=st.integers(0, 26), masks=st.booleans())  # fmt: skip
def test_proven_softmax_is_within_its_error(seed: int, count: int, spread: float, shift: int, masks: bool) -> None:
    rng = torch.Generator().manual_seed(seed)
    u = integers(rng, (3, count), spread, shift)
    hidden = torch.rand(1, count, generator=rng) < 0.5
    hidden[:, seed % count] = False
    hidden &= torch.tensor(masks)
    real = (u.double() / 2**shift).masked_fill(hidden, -math.inf).softmax(-1)
    found = nonlinear.softmax(u, shift, -1, "proven", hidden)
    error = nonlinear.softmax_error(0, shift, count, "proven")
    assert float((found - real * 2**nonlinear.EXP_BITS).abs().max()) <= error
    assert bool((found[:, hidden[0]] == 0).all())


def test_proven_softmax_knows_what_its_operand_may_be_off() -> None:
    """Operands moved by up to e units: the softmax of the first is within the bound of the second's integers."""
    rng = torch.Generator().manual_seed(0)
    for e in (1, 50, 2000):
        u = integers(rng, (200, 17), 2, 20)
        moved = u + torch.randint(-e, e + 1, u.shape, generator=rng)
        real = (u.double() / 2**20).softmax(-1) * 2**nonlinear.EXP_BITS
        off = (nonlinear.softmax(moved, 20, -1, "proven") - real).abs().max()
        assert float(off) <= nonlinear.softmax_error(e, 20, 17, "proven")


def real_norm(row: list[int], shift: int, eps: Fraction, centred: bool) -> list[Fraction]:
    """y to 2^-80, by rationals alone."""
    count, unit = len(row), Fraction(1, 2**shift)
    mean = Fraction(sum(row), count) if centred else Fraction(0)
    variance = sum((v - mean) ** 2 for v in row) / count * unit**2 + eps
    root = Fraction(math.isqrt(math.floor(variance * 4**100)), 2**100)
    return [(v - mean) * unit / root for v in row]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 200), spread=st.sampled_from([0.0, 1e-6, 1e-3, 1, 100]),
       shift=st.integers(20, 40), mean=st.sampled_from([0.0, 1.0, -100.0]), centred=st.booleans())  # fmt: skip
def test_proven_norm_is_within_its_error(
    seed: int, count: int, spread: float, shift: int, mean: float, centred: bool
) -> None:
    rng = torch.Generator().manual_seed(seed)
    x = integers(rng, (2, count), spread, shift) + round(mean * 2**shift)
    eps = Fraction(1e-5)
    found = nonlinear.normalize(x, shift, eps, centred, "proven")
    error = nonlinear.norm_error(0, shift, count, eps, "proven")
    scale = 2 ** nonlinear.norm_bits(count, "proven")
    for row, values in zip(x.tolist(), found.tolist(), strict=True):
        real = real_norm(row, shift, eps, centred)
        assert max(abs(v - r * scale) for v, r in zip(values, real, strict=True)) <= error


@pytest.mark.parametrize("centred", [True, False])
def test_proven_norm_knows_what_its_operand_may_be_off(centred: bool) -> None:
    rng, eps = torch.Generator().manual_seed(1), Fraction(1e-5)
    for spread, e in ((1.0, 3), (1e-3, 3), (1e-6, 2), (0.0, 3)):
        x = integers(rng, (100, 64), spread, 40)
        moved = x + torch.randint(-e, e + 1, x.shape, generator=rng)
        error = nonlinear.norm_error(e, 40, 64, eps, "proven")
        scale = 2 ** nonlinear.norm_bits(64, "proven")
        for row, values in zip(
            x.tolist(), nonlinear.normalize(moved, 40, eps, centred, "proven").tolist(), strict=True
        ):
            real = real_norm(row, 40, eps, centred)
            assert max(abs(v - r * scale) for v, r in zip(values, real, strict=True)) <= error


def test_i_exp_is_as_near_as_its_paper_says() -> None:
    """Kim et al. 2021, section 3.5: the largest distance of i-exp from exp is 1.9e-3."""
    below = torch.arange(0, 20 * 2**14)
    unit = nonlinear._IBERT[0] / 2.0**28
    off = (nonlinear.exp_ibert(below, 14).double() * unit - (-below.double() / 2**14).exp()).abs().max()
    assert 1.5e-3 < float(off) < 2.1e-3


def test_i_bert_norm_is_near_the_real_one() -> None:
    x = integers(torch.Generator().manual_seed(2), (50, 64), 1.0, 16)
    real = nn.functional.layer_norm(x.double() / 2**16, (64,), eps=1e-5)
    off = (nonlinear.normalize(x, 16, Fraction(1e-5), True, "i-bert").double() / 2**12 - real).abs().max()
    assert float(off) < 2**-11


def differing(model: nn.Module, x: Tensor, method: str) -> tuple[int, int, int]:
    """(codes, differing, undecided) end to end."""
    lowered = lower(model, x, nonlinear=method)
    assert not lowered.float_operators
    outcome = Machine(lowered).run(x, keep=set(lowered.quantizers.values()))
    found = compare(lowered, outcome.codes, reference_codes(reference(model), x)[1])
    return sum(d.elements for d in found), sum(d.differing for d in found), outcome.tally["undecided"]


@pytest.mark.parametrize("bits", [4, 8])
def test_a_vision_transformer_is_integer_throughout_and_exact(bits: int) -> None:
    model, images = zoo("vit_b_16", bits, batch=2, arguments=VIT_SMALL, config=4)
    elements, off, undecided = differing(model, images, "proven")
    assert off <= undecided < elements / 1000


class Attention(nn.Module):
    """Causal, or with a mask that is added to the scores."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)
        self.causal = causal
        self.register_buffer("mask", torch.full((7, 7), -math.inf).triu(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.causal:
            return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)


class Decoder(nn.Module):
    """Attention with both masks, and norms without means."""

    def __init__(self, eps: float | None = 1e-6) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(16, 16), nn.Linear(16, 5)
        self.norm, self.last = nn.RMSNorm(16, eps=eps), nn.RMSNorm(16, eps=1e-5, elementwise_affine=False)
        self.first, self.second = Attention(causal=True), Attention(causal=False)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = self.add(x, self.first(self.norm(x)))
        return self.head(self.last(self.second(x)))


def decoder(x: Tensor, **choices: Any) -> nn.Module:
    """Quantized, attention and additions included, and initialised."""
    made, _ = quant.quantize(Decoder(**choices), weight_bits=4, act_bits=4, first_last="same", example=x)
    return quant.initialise(made, [x]).eval()


def test_a_causal_decoder_with_rms_norms_is_integer_throughout_and_exact() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 7, 16)
    model = decoder(x)
    elements, off, undecided = differing(model, x, "proven")
    assert off <= undecided < elements / 1000


def test_what_has_no_method_stays_float_and_is_named() -> None:
    """Without an epsilon torch adds 2e-16: no words are wide enough for that."""
    torch.manual_seed(0)
    x = torch.randn(3, 7, 16)
    model = decoder(x, eps=None)
    assert lower(model, x, nonlinear="proven").float_operators == ("rms_norm (norm)",)
    with pytest.raises(UnsupportedOp, match="rms_norm has no integer form here: a norm whose epsilon"):
        lower(model, x, nonlinear="proven", allow_float=False)


def test_the_certificate_says_how_many_codes_i_bert_changes() -> None:
    model, images = zoo("vit_b_16", 8, batch=2, arguments=VIT_SMALL, config=4)
    exact, approximate = (certify(model, images, nonlinear=method) for method in ("proven", "i-bert"))
    assert exact.equal
    assert not approximate.equal
    own = sum(layer.codes.own_differing for layer in approximate.layers)
    assert 0 < own < 0.05 * sum(layer.codes.elements for layer in approximate.layers)
    assert approximate.integer_methods[0] == "normalize (blocks.0.norm1): i-bert"
    assert "integer_methods" in approximate.to_dict()


def test_an_unknown_method_is_refused() -> None:
    model, images = zoo("vit_b_16", 4, batch=1, arguments=VIT_SMALL)
    with pytest.raises(ValueError, match="nonlinear: expected one of float, proven, i-bert, got 'lut'"):
        lower(model, images, nonlinear="lut")
