"""PACT, DoReFa, DSQ and QIL against their formulas, one number at a time, and the interface they share."""

import math

import pytest
import torch
from torch import Tensor

import quant
from quant.baselines import METHODS, Pact, Qil, make_quantizer
from quant.quantizer import BaseQuantizer
from quant.spec import METHOD_NAMES, QuantSpec


def spec(method: str, bits: int, signed: bool, **choices: object) -> QuantSpec:
    return QuantSpec(bits, signed, method=method, init="minmax", **choices)


def made(kind: QuantSpec, values: Tensor, *, is_weight: bool = False) -> BaseQuantizer:
    quantizer = make_quantizer(kind, is_weight=is_weight).double()
    quantizer.init_from(values.double())
    return quantizer


def test_one_table_names_every_method() -> None:
    assert tuple(METHODS) == METHOD_NAMES
    with pytest.raises(ValueError, match="method: expected one of"):
        QuantSpec(4, True, method="brecq")


# ---- PACT --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_pact_is_its_formula(bits: int) -> None:
    """y = (|x| - |x - alpha| + alpha)/2, rounded to steps of alpha/(2^b - 1)."""
    x = torch.randn(200, dtype=torch.float64) * 2
    quantizer = made(spec("pact", bits, False), x)
    alpha = 1.37
    quantizer.alpha.data.fill_(alpha)
    y = 0.5 * (x.abs() - (x - alpha).abs() + alpha)
    steps = 2**bits - 1
    expected = torch.round(y * steps / alpha) * alpha / steps
    torch.testing.assert_close(quantizer(x), expected, rtol=1e-12, atol=1e-12)


def test_pact_gradients() -> None:
    """d/dalpha is 1 from alpha on and 0 below; d/dx is 1 on [0, alpha)."""
    quantizer = made(spec("pact", 4, False), torch.rand(9))
    quantizer.alpha.data.fill_(2.0)
    below, above = math.nextafter(2.0, 0), math.nextafter(2.0, 3)
    x = torch.tensor([-1.0, -1e-300, 0.0, 0.7, below, 2.0, above, 9.0], dtype=torch.float64, requires_grad=True)
    for i, (dx, dalpha) in enumerate([(0, 0), (0, 0), (1, 0), (1, 0), (1, 0), (0, 1), (0, 1), (0, 1)]):
        quantizer.zero_grad()
        x.grad = None
        quantizer(x)[i].backward()
        assert (x.grad[i].item(), quantizer.alpha.grad.item()) == (dx, dalpha)


def test_signed_pact_is_the_unsigned_one_on_both_sides() -> None:
    signed, unsigned = (made(spec("pact", bits, s), torch.ones(1)) for bits, s in ((4, True), (3, False)))
    x = torch.randn(100, dtype=torch.float64)
    torch.testing.assert_close(signed(x), unsigned(x.abs()) * x.sign())
    signed(x).sum().backward()
    clipped = (x.abs() >= 1) * x.sign()
    assert signed.alpha.grad == clipped.sum()


def test_pact_regularises_alpha_like_a_weight() -> None:
    quantizer = Pact(spec("pact", 4, False))
    weights, kept, alphas = quant.parameter_groups(quantizer, 1e-4)
    assert alphas["params"] == [quantizer.alpha]
    assert alphas["weight_decay"] == weights["weight_decay"] == 1e-4
    assert alphas["quantizers"]
    assert not weights["quantizers"]
    assert kept["params"] == weights["params"] == []


# ---- DoReFa ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_dorefa_weights_are_their_formula(bits: int) -> None:
    w = torch.randn(200, dtype=torch.float64)
    quantizer = made(spec("dorefa", bits, True, offset=True), w, is_weight=True)
    t = torch.tanh(w) / torch.tanh(w).abs().max()
    steps = 2**bits - 1
    expected = 2 * torch.round((t / 2 + 0.5) * steps) / steps - 1
    torch.testing.assert_close(quantizer(w), expected, rtol=1e-10, atol=1e-10)
    assert quantizer.offset() == quantizer.step() / 2
    # Straight through: the derivative of the normalised tanh.
    w.requires_grad_()
    g = torch.randn(200, dtype=torch.float64)
    (quantizer(w) * g).sum().backward()
    again = w.detach().clone().requires_grad_()
    (torch.tanh(again) / torch.tanh(again).abs().max() * g).sum().backward()
    torch.testing.assert_close(w.grad, again.grad)


def test_dorefa_activations_are_clipped_to_one() -> None:
    x = torch.tensor([-0.5, 0.0, 0.24, 0.5, 1.0, 3.0], dtype=torch.float64)
    quantizer = made(spec("dorefa", 2, False), x)
    torch.testing.assert_close(quantizer(x), torch.tensor([0, 0, 1, 2, 3, 3]).double() / 3)


# ---- DSQ ---------------------------------------------------------------------------------------------------------


def test_dsq_is_hard_forwards_and_soft_backwards() -> None:
    """phi(x) = tanh(k(x - m_i)) / tanh(k*Delta/2) with k = ln(2/a - 1)/Delta, a = 0.4, on the clipped range."""
    x = torch.linspace(-0.4, 2.6, 101, dtype=torch.float64).requires_grad_()
    quantizer = made(spec("dsq", 2, False, offset=True), torch.tensor([-0.3, 2.4], dtype=torch.float64)).eval()
    low, high, levels = -0.3, 2.4, 4
    delta = (high - low) / (levels - 1)
    k = math.log(2 / 0.4 - 1) / delta
    y = quantizer(x)
    y.sum().backward()
    for i, value in enumerate(x.tolist()):
        clipped = min(max(value, low), high)
        interval = min(int((clipped - low) / delta), levels - 2)
        middle = low + (interval + 0.5) * delta
        hard = low + delta * (interval + (1 if clipped > middle else 0))
        if abs(clipped - middle) > 1e-9:
            assert y[i].item() == pytest.approx(hard, abs=1e-9)
        slope = delta / 2 * k * (1 - math.tanh(k * (clipped - middle)) ** 2) / math.tanh(k * delta / 2)
        inside = low < value < high
        near_edge = abs((clipped - low) / delta - round((clipped - low) / delta)) < 1e-6
        if not near_edge:
            assert x.grad[i].item() == pytest.approx(slope if inside else 0.0, rel=1e-6)


def test_dsq_ranges() -> None:
    """Weights: mu +- 2.6 sigma of the weights themselves. Activations: running extremes, momentum 0.9, in training."""
    w = torch.randn(500, dtype=torch.float64)
    weights = made(spec("dsq", 4, True), w, is_weight=True)
    reach = max(abs(w.mean() - 2.6 * w.std(correction=0)), abs(w.mean() + 2.6 * w.std(correction=0)))
    torch.testing.assert_close(weights.step(), 2 * reach / 15)
    weights(2 * w)
    torch.testing.assert_close(weights.step(), 4 * reach / 15)
    activations = made(spec("dsq", 4, False, offset=True), torch.tensor([-1.0, 3.0]))
    activations(torch.tensor([-2.0, 13.0], dtype=torch.float64))
    torch.testing.assert_close(activations.low, torch.tensor(-1.1).double())
    torch.testing.assert_close(activations.high, torch.tensor(4.0).double())
    activations.eval()(torch.full((3,), 99.0).double())
    torch.testing.assert_close(activations.high, torch.tensor(4.0).double())


# ---- QIL ---------------------------------------------------------------------------------------------------------


def test_qil_prunes_spreads_and_clips() -> None:
    """|w| < C - D gives 0, |w| > C + D gives +-1, between them a line, rounded to steps of 1/(2^(b-1) - 1)."""
    w = torch.randn(300, dtype=torch.float64)
    quantizer = made(spec("qil", 4, True), w, is_weight=True)
    c, d = 0.8, 0.5
    quantizer.centre.data.fill_(c)
    quantizer.distance.data.fill_(d)
    spread = [min(max(abs(v) / (2 * d) - c / (2 * d) + 0.5, 0.0), 1.0) for v in w.tolist()]
    expected = [round(t * 7) / 7 * math.copysign(1, v) for t, v in zip(spread, w.tolist(), strict=True)]
    y = quantizer(w)
    torch.testing.assert_close(y, torch.tensor(expected, dtype=torch.float64))
    assert (y[w.abs() < c - d] == 0).all()
    assert (y[w.abs() > c + d].abs() == 1).all()


def test_qil_gradients_are_the_transformers_times_the_lsq_scale() -> None:
    w = torch.randn(300, dtype=torch.float64)
    quantizer = made(spec("qil", 3, True), w, is_weight=True)
    quantizer.centre.data.fill_(0.8)
    quantizer.distance.data.fill_(0.5)
    g = torch.randn(300, dtype=torch.float64)
    x = w.clone().requires_grad_()
    (quantizer(x) * g).sum().backward()
    c, d = torch.tensor(0.8).double().requires_grad_(), torch.tensor(0.5).double().requires_grad_()
    again = w.clone().requires_grad_()
    t = (again.abs() / (2 * d) - c / (2 * d) + 0.5).clamp(0, 1) * again.sign()
    (t * g).sum().backward()
    scale = 1 / math.sqrt(300 * 3)
    torch.testing.assert_close(x.grad, again.grad)
    torch.testing.assert_close(quantizer.centre.grad, c.grad * scale)
    torch.testing.assert_close(quantizer.distance.grad, d.grad * scale)


# ---- all of them -------------------------------------------------------------------------------------------------

CASES = [
    ("pact", False, False, False), ("pact", True, False, False), ("dorefa", True, True, True),
    ("dorefa", False, False, False), ("dsq", True, False, True), ("dsq", False, True, False),
    ("dsq", False, False, False), ("qil", True, False, True), ("qil", False, False, False),
]  # fmt: skip


@pytest.mark.parametrize(("method", "signed", "offset", "is_weight"), CASES)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codes_step_and_offset_rebuild_x_hat(
    method: str, signed: bool, offset: bool, is_weight: bool, bits: int
) -> None:
    x = torch.randn(40, 5)
    quantizer = made(spec(method, bits, signed, offset=offset), x, is_weight=is_weight).eval()
    for values in (x.double(), x.double() * 3 - 1):
        codes = quantizer.codes(values)
        assert torch.equal(codes, codes.round())
        assert quantizer.spec.n <= codes.min()
        assert codes.max() <= quantizer.spec.p
        torch.testing.assert_close(quantizer(values), codes * quantizer.step() + quantizer.offset())
    assert quantizer(torch.full((2, 2), math.nan).double()).isnan().all()
    if quantizer.zero_is_exact:
        assert (quantizer(torch.zeros(2, 2).double()) == 0).all() or is_weight
    assert quantizer(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(("method", "signed", "offset", "is_weight"), CASES)
def test_learned_ranges_stay_positive(method: str, signed: bool, offset: bool, is_weight: bool) -> None:
    quantizer = made(spec(method, 4, signed, offset=offset), torch.randn(40, 5), is_weight=is_weight)
    parameters = list(quantizer.parameters())
    if not parameters:
        assert method in ("dorefa", "dsq")
        return
    optimizer = torch.optim.SGD(parameters, lr=10.0, momentum=0.9)
    for i in range(300):
        for parameter in parameters:
            parameter.grad = torch.tensor(1.0 if i % 3 else 100.0).double()
        optimizer.step()
        assert quantizer.step() > 0
        assert quantizer(torch.randn(4, 4).double()).isfinite().all()


@pytest.mark.parametrize(
    ("choices", "is_weight", "message"),
    [
        ({"method": "pact", "offset": True}, False, "without an offset"),
        ({"method": "pact", "signed": True}, True, "quantizes activations"),
        ({"method": "qil", "offset": True}, False, "no offset"),
        ({"method": "dorefa", "signed": True}, True, "signed with offset=True"),
        ({"method": "dsq", "signed": True, "granularity": "channel"}, True, "one step per tensor"),
        ({"method": "dsq", "power_of_two": True}, False, "are for lsq, lsqplus"),
        ({"method": "lsq", "offset": True}, False, "has no offset"),
    ],
)
def test_what_a_method_cannot_do_is_refused(choices: dict, is_weight: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_quantizer(QuantSpec(4, **{"signed": False, **choices}), is_weight=is_weight)


@pytest.mark.parametrize(("kind", "name"), [(Pact, "alpha"), (Qil, "distance")])
def test_impossible_ranges_in_a_checkpoint_are_refused(kind: type[BaseQuantizer], name: str) -> None:
    method = kind.__name__.lower()
    quantizer = made(spec(method, 4, False), torch.rand(9))
    state = quantizer.state_dict()
    state[name] = torch.tensor(-1.0)
    with pytest.raises(RuntimeError, match=f"{name}: expected positive finite"):
        make_quantizer(spec(method, 4, False)).load_state_dict(state)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_method_trains_a_network(method: str) -> None:
    """Loss falls, and the plan says where LSQ+ stands in for a method that has no quantizer there."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(32, 3),
    )  # fmt: skip
    model, plan = quant.quantize(model, weight_bits=3, act_bits=3, method=method)
    x = torch.randn(48, 2, 6, 6)
    y = (x.mean((1, 2, 3)) * 20).long().clamp(-1, 1) + 1
    quant.initialise(model, [x])
    optimizer = torch.optim.SGD(quant.parameter_groups(model, 1e-4), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    middle = next(layer for layer in plan.layers if layer.name == "3")
    assert middle.inputs[0].method == method
    if method not in ("lsq", "lsqplus"):
        assert all(f"by lsqplus: {method} leaves it in float" in plan.layers[i].note for i in (0, -1))
