"""The quantizer as a module: scale of gradients, positivity, initialisation state, checkpoints, export."""

import copy
import io
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quant
from quant import kernels
from quant.quantizer import BaseQuantizer, Quantizer
from quant.spec import ACTIVATION_CONFIGS, ALLOWED_BITS, QuantSpec
from quant.whole_models import bypassed, observing


def ready(spec: QuantSpec, values: Tensor, **arguments: int | bool) -> Quantizer:
    quantizer = Quantizer(spec, **arguments)
    quantizer.init_from(values)
    return quantizer


def gradients(quantizer: Quantizer, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the mean over the batch of a loss per sample."""
    quantizer.zero_grad()
    (quantizer(x) * weight).flatten(1).sum(1).mean().backward()
    return quantizer.s.grad.clone(), quantizer.beta.grad.clone()


# ---- gradient scale ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "signed", "p"), [(4, False, 15), (4, True, 7), (2, True, 1), (1, True, 1), (1, False, 1)]
)
def test_gradient_scale_of_weights_is_one_over_root_of_count_times_p(bits: int, signed: bool, p: int) -> None:
    """LSQ's worked values are of this form; a signed bit has p = 0 and counts as 1."""
    w = torch.randn(256, 256, 3, 3)[:8].double()
    quantizer = ready(QuantSpec(bits, signed, init="mse"), w, is_weight=True).double()
    g = torch.randn_like(w)
    (quantizer(w) * g).sum().backward()
    spec, s = quantizer.spec, quantizer.s.detach()
    v = w / s
    inside = (v > spec.n) & (v < spec.p)
    code = v.clamp(spec.n, spec.p).round()
    expected = (g * torch.where(inside, code - v, code)).sum() / math.sqrt(w.numel() * p)
    torch.testing.assert_close(quantizer.s.grad, expected)


def test_gradient_scale_of_the_papers_layer() -> None:
    """LSQ: a 3x3 convolution 256 -> 256 has g = 4.92e-4 at 4 bits and 1.30e-3 at 2 bits."""
    for bits, expected in ((4, 4.92e-4), (2, 1.30e-3)):
        spec = QuantSpec(bits, True)
        assert 1 / math.sqrt(256 * 256 * 9 * spec.magnitude) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("config", [3, 4])
def test_batch_size_does_not_change_the_updates(config: int) -> None:
    x = F.silu(torch.randn(8, 4, 5, 5, dtype=torch.float64))
    quantizer = ready(QuantSpec.for_config(3, config), x).double()
    weight = torch.randn(4, 5, 5, dtype=torch.float64)
    ds, dbeta = gradients(quantizer, x, weight)
    twice = gradients(quantizer, torch.cat([x, x]), weight)
    torch.testing.assert_close(twice, (ds, dbeta))
    # Accumulating the halves, each divided by their number, is the whole batch.
    halves = [gradients(quantizer, part, weight) for part in x.chunk(2)]
    torch.testing.assert_close(sum(h[0] for h in halves) / 2, ds)
    torch.testing.assert_close(sum(h[1] for h in halves) / 2, dbeta)


def test_channels_count_their_own_weights() -> None:
    w = torch.randn(6, 4, 3, 3).double()
    spec = QuantSpec(3, True, granularity="channel")
    together = ready(spec, w, is_weight=True, rows=6).double()
    (together(w) ** 2).sum().backward()
    for k in range(6):
        alone = Quantizer(spec.replace(granularity="tensor"), is_weight=True).double()
        alone.set_parameters(together.s[k].detach())
        (alone(w[k]) ** 2).sum().backward()
        torch.testing.assert_close(together.s.grad[k], alone.s.grad)


# ---- positivity --------------------------------------------------------------------------------------------------


def hostile(quantizer: Quantizer, steps: int, update: str) -> float:
    """The least step size seen while gradients and learning rates do their worst."""
    generator = torch.Generator().manual_seed(1)
    optimizer = {
        "sgd": lambda: torch.optim.SGD(quantizer.parameters(), lr=10.0, momentum=0.9),
        "adam": lambda: torch.optim.AdamW(quantizer.parameters(), lr=3.0, weight_decay=0.5),
        "none": lambda: None,
    }[update]()
    least = math.inf
    x = torch.randn(16, 4, generator=generator)
    for i in range(steps):
        for parameter in quantizer.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator).abs() * 10.0 ** (i % 7 - 3)
            if i % 100 > 90:
                parameter.grad.neg_()
        if optimizer is None:
            with torch.no_grad():
                for parameter in quantizer.parameters():
                    parameter.sub_(parameter.grad)
        else:
            optimizer.step()
            assert (quantizer.s > 0).all()
        least = min(least, quantizer.step().min().item())
        if i % 500 == 0:
            assert quantizer(x).isfinite().all()
    return least


@pytest.mark.long
@pytest.mark.parametrize("update", ["sgd", "adam", "none"])
def test_the_step_stays_positive_through_10000_hostile_steps(update: str) -> None:
    quantizer = ready(QuantSpec.for_config(4, 4), torch.randn(64, 4))
    assert hostile(quantizer, 10_000, update) > 0


def test_a_step_that_crosses_0_is_reflected_and_its_momentum_kept() -> None:
    """s = 1 with updates -3, -3 m, -3 m^2: the oracle is SGD on a number, with |s| after every step."""
    quantizer = Quantizer(QuantSpec(4, signed=False))
    quantizer.set_parameters(1.0)
    optimizer = torch.optim.SGD([quantizer.s], lr=1.0, momentum=0.5)
    s, velocity = 1.0, 0.0
    for gradient in (3.0, 0.0, 0.0, -0.25):
        quantizer.s.grad = torch.tensor(gradient)
        optimizer.step()
        velocity = 0.5 * velocity + gradient
        s = abs(s - velocity)
        assert quantizer.s.item() == pytest.approx(s)
        assert optimizer.state[quantizer.s]["momentum_buffer"].item() == velocity


def test_a_step_of_exactly_0_becomes_the_least_positive_one() -> None:
    quantizer = Quantizer(QuantSpec(4, signed=False))
    quantizer.set_parameters(1.0)
    quantizer.s.grad = torch.tensor(1.0)
    torch.optim.SGD([quantizer.s], lr=1.0).step()
    assert quantizer.s.item() == torch.finfo(torch.float32).tiny
    assert quantizer(torch.tensor([-1.0, 0.0, 1.0])).isfinite().all()


@pytest.mark.parametrize("path", ["plain", "fused"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("border", [kernels.NO_BORDER, kernels.BORDER_OF_ZERO, kernels.BORDER_OF_CODE_0])
def test_between_steps_the_forward_pass_uses_the_magnitude(path: str, granularity: str, border: int) -> None:
    """An update by hand may leave s below 0: values are those of |s|, and d/ds has the other sign."""
    if border and granularity == "channel":
        return
    rows = 3 if granularity == "channel" else 1
    x = torch.randn(rows, 64)
    found = []
    for sign in (1.0, -1.0):
        spec = QuantSpec.for_config(4, 4, granularity=granularity)
        quantizer = Quantizer(spec, rows=rows)
        quantizer.set_parameters(torch.full((rows,) if rows > 1 else (), 0.3), -0.2)
        with torch.no_grad():
            quantizer.s.mul_(sign)
        with kernels.using(path):
            out = quantizer(x, border=border)
            y = out[0] * 1.5 + out[1] if border else out
            (y * torch.arange(1.0, 65.0)).sum().backward()
        found.append((y.detach(), quantizer.s.grad * sign, quantizer.beta.grad))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_as_printed_nothing_guards_the_step_and_unsigned_codes_are_a_dead_end() -> None:
    quantizer = Quantizer(QuantSpec(2, signed=False, positivity="printed"))
    quantizer.set_parameters(0.5)
    quantizer.s.grad = torch.tensor(0.8)
    torch.optim.SGD([quantizer.s], lr=1.0).step()
    assert quantizer.s.item() == pytest.approx(-0.3)
    assert quantizer.step().item() == pytest.approx(-0.3)
    quantizer.s.grad = None
    x_hat = quantizer(torch.rand(100) + 0.1)
    x_hat.square().sum().backward()
    assert (x_hat == 0).all()
    assert quantizer.s.grad == 0
    state = quantizer.state_dict()
    again = Quantizer(quantizer.spec)
    again.load_state_dict(state)  # a checkpoint of such a run can be read
    assert again.s.item() == quantizer.s.item()
    with pytest.raises(RuntimeError, match="expected positive finite values"):
        Quantizer(QuantSpec(2, signed=False)).load_state_dict(state)


def test_as_printed_is_for_lsq_alone() -> None:
    for choices in ({"power_of_two": True}, {"method": "pact"}):
        with pytest.raises(ValueError, match="'printed' is for lsq and lsqplus"):
            QuantSpec(4, signed=False, positivity="printed", **choices)
    with pytest.raises(ValueError, match=r"QuantSpec\.positivity: expected one of absolute, printed"):
        QuantSpec(4, signed=False, positivity="floor")


def test_copies_are_kept_positive_too() -> None:
    original = ready(QuantSpec(4, True, init="minmax"), torch.randn(64, 4))
    for twin in (copy.deepcopy(original), nn.Sequential(copy.deepcopy(original))[0]):
        twin.s.grad = torch.tensor(1e9)
        torch.optim.SGD([twin.s], lr=1.0).step()
        assert 1e8 < twin.s < 1e10  # reflected
    assert original.s < 1


# ---- effective step and offset -----------------------------------------------------------------------------------


def test_power_of_two_steps_are_powers_of_two() -> None:
    quantizer = Quantizer(QuantSpec(4, True, power_of_two=True))
    for s in (0.3, 0.25, 1e-5, 0.7, 0.72, 5.0, 0.3535, 0.3536):
        quantizer.set_parameters(s)
        expected = 2.0 ** round(math.log2(s))
        assert quantizer.step().item() == expected
    quantizer.step().backward()
    assert quantizer.s.grad == 1


def test_snapped_offsets_are_integer_multiples_of_the_step() -> None:
    spec = QuantSpec.for_config(3, 4, snap_offset=True)
    quantizer = Quantizer(spec)
    quantizer.set_parameters(0.3, -0.7)
    z = -quantizer.offset() / quantizer.step()
    assert z.item() == pytest.approx(2, abs=1e-6)
    assert quantizer(torch.zeros(3)).tolist() == [0, 0, 0]
    quantizer.offset().backward()
    assert quantizer.beta.grad.item() == 1
    assert quantizer.s.grad.item() == pytest.approx(round(-0.7 / 0.3) - -0.7 / 0.3, abs=1e-5)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_ternary_weights_have_three_values_of_one_size(granularity: str) -> None:
    w = torch.randn(6, 40)
    spec = QuantSpec(2, True, ternary=True, granularity=granularity)
    rows = 6 if granularity == "channel" else 1
    quantizer = ready(spec, w, is_weight=True, rows=rows)
    assert quantizer.codes(w).unique().tolist() == [-1, 0, 1]
    for row, s in zip(quantizer(w), quantizer.step().expand(6), strict=True):
        assert set(row.unique().tolist()) <= {-s.item(), 0.0, s.item()}
    with pytest.raises(ValueError, match="ternary: needs bits=2"):
        QuantSpec(3, True, ternary=True)


def test_autocast_leaves_the_quantizer_in_float32() -> None:
    quantizer = ready(QuantSpec.for_config(8, 4), torch.randn(64, 30))
    x = torch.randn(16, 30).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = quantizer(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, quantizer(x.float()).bfloat16())
    y.float().sum().backward()
    assert quantizer.s.grad.dtype == quantizer.beta.grad.dtype == torch.float32
    model = small_network()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(4, 3, 8, 8)).float().square().mean().backward()
    assert all(q.s.grad.isfinite().all() for _, q in quant.quantizers(model))


@pytest.mark.parametrize("config", [3, 4])
def test_table_6_offsets_stay_where_they_are_fixed(config: int) -> None:
    x = F.silu(torch.randn(4000, 3))
    low = x.min()
    for mode in ("fixed_zero", "fixed_min"):
        quantizer = ready(QuantSpec.for_config(4, config, offset_mode=mode), x)
        optimizer = torch.optim.SGD(quantizer.parameters(), lr=1e-4)
        for _ in range(3):
            optimizer.zero_grad()
            (quantizer(x) - x).square().sum().backward()
            optimizer.step()
        at_lowest = quantizer.offset() + quantizer.spec.n * quantizer.step()
        torch.testing.assert_close(
            quantizer.offset() if mode == "fixed_zero" else at_lowest, low * (mode == "fixed_min")
        )


def test_fixed_minimum_gives_configurations_3_and_4_the_same_gradient() -> None:
    """beta = xmin - n*s moves with s, so its share of the gradient counts."""
    x = F.silu(torch.randn(300, 3, dtype=torch.float64))
    found = []
    for config in (3, 4):
        quantizer = Quantizer(QuantSpec.for_config(4, config, offset_mode="fixed_min")).double()
        quantizer.set_parameters(torch.tensor(0.2).double(), x.min())
        x_hat = quantizer(x, 1) * math.sqrt(quantizer.spec.p)  # the two scales differ by their p
        (x_hat - 1).sum().backward()
        found.append((quantizer(x).detach(), quantizer.s.grad))
    torch.testing.assert_close(found[0], found[1])


def test_offset_and_codes_rebuild_x_hat() -> None:
    x = torch.randn(50, 6)
    for bits in ALLOWED_BITS:
        for config in ACTIVATION_CONFIGS:
            quantizer = ready(QuantSpec.for_config(bits, config, init="minmax"), x)
            c = quantizer.codes(x)
            assert torch.equal(c, c.round())
            assert c.min() >= quantizer.spec.n
            assert c.max() <= quantizer.spec.p
            assert torch.equal(c * quantizer.step() + quantizer.offset(), quantizer(x))


def test_nan_goes_through_a_quantizer() -> None:
    quantizer = ready(QuantSpec.for_config(4, 4), torch.randn(50, 6))
    assert quantizer(torch.full((2, 3), math.nan)).isnan().all()


# ---- initialisation and checkpoints ------------------------------------------------------------------------------


def test_an_uninitialised_quantizer_refuses_to_run() -> None:
    with pytest.raises(RuntimeError, match="no step size yet"):
        Quantizer(QuantSpec(4, True))(torch.randn(3))


def test_training_leaves_the_initialisation_alone() -> None:
    """Nothing is observed after the first time: s only moves by its gradient."""
    x = torch.randn(50, 6)
    quantizer = ready(QuantSpec(4, True), x)
    before = quantizer.s.clone()
    for mode in (True, False):
        quantizer.train(mode)
        quantizer(100 * x)
    assert torch.equal(quantizer.s, before)


def float_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 4 * 4, 5),
    )  # fmt: skip


def small_network(**choices: object) -> nn.Module:
    torch.manual_seed(0)
    model, _ = quant.quantize(float_network(), **{"weight_bits": 3, "act_bits": 3, **choices})
    return quant.initialise(model, [torch.randn(16, 3, 8, 8)])


def train(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for i in range(first, last):
        generator = torch.Generator().manual_seed(i)
        x = torch.randn(8, 3, 8, 8, generator=generator)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(quant.parameter_groups(model, 1e-4), lr=0.05, momentum=0.9)


def test_a_checkpoint_in_mid_training_continues_to_the_same_bits() -> None:
    model = small_network()
    optimizer = sgd(model)
    train(model, optimizer, 0, 5)
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    train(model, optimizer, 5, 10)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    torch.manual_seed(99)
    other = small_network()
    for _, quantizer in quant.quantizers(other):  # values that must not survive the load
        quantizer.set_parameters(7.0, None if quantizer.beta is None else 3.0)
    other.load_state_dict(saved["model"])
    again = sgd(other)
    again.load_state_dict(saved["optimizer"])
    train(other, again, 5, 10)
    for (name, a), (_, b) in zip(model.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_a_checkpoint_initialises_a_fresh_model() -> None:
    model = small_network()
    fresh, _ = quant.quantize(float_network(), weight_bits=3, act_bits=3)
    fresh.load_state_dict(model.state_dict())
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(fresh.eval()(x), model.eval()(x))


@pytest.mark.parametrize("value", [-0.1, 0.0, math.nan, math.inf])
def test_checkpoints_with_impossible_steps_are_refused(value: float) -> None:
    model = small_network()
    state = model.state_dict()
    state["3.input_quantizer.s"] = torch.tensor(value)
    with pytest.raises(RuntimeError, match=r"3.input_quantizer.s: expected positive finite"):
        model.load_state_dict(state)


def test_checkpoints_of_other_bits_are_refused() -> None:
    with pytest.raises(RuntimeError, match=r"expected codes -2..1, the checkpoint has \[-4, 3\]"):
        small_network(weight_bits=2).load_state_dict(small_network().state_dict())


def test_broadcast_parameters_count_as_initialised() -> None:
    """DDP sends parameters and buffers without load_state_dict."""
    source, target = ready(QuantSpec(4, True), torch.randn(9, 9)), Quantizer(QuantSpec(4, True))
    for a, b in zip([*source.parameters(), *source.buffers()], [*target.parameters(), *target.buffers()], strict=True):
        b.data.copy_(a.data)
    x = torch.randn(5, 5)
    assert torch.equal(target(x), source(x))


def test_layers_that_never_ran_are_named() -> None:
    model, _ = quant.quantize(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), weight_bits=4, act_bits=4)
    with pytest.raises(RuntimeError, match=r"1\.input_quantizer: .* saw no data"):
        quant.initialise(model, [torch.randn(2, 4)], forward=lambda m, x: m[0](x))


def test_initialise_leaves_everything_else_as_it_was() -> None:
    model = small_network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    quant.initialise(model, [torch.randn(16, 3, 8, 8) * 9])
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    quant.initialise(model, [torch.randn(16, 3, 8, 8) * 9], again=True)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(before[k], v)}
    assert changed
    assert all("input_quantizer" in name for name in changed)


def test_large_batches_are_sampled_with_their_extremes() -> None:
    x = torch.randn(300, 4000)
    x[17, 5], x[200, 3] = -50.0, 60.0
    quantizer = ready(QuantSpec(8, False, True, init="minmax"), x)
    assert quantizer.observed.tolist() == [-50.0, 60.0]
    torch.testing.assert_close(quantizer.step(), torch.tensor(110 / 255))


def test_what_is_kept_of_batches_is_bounded_and_holds_their_extremes(monkeypatch: pytest.MonkeyPatch) -> None:
    """2^18 values of a batch and 2^20 of all, the least and the largest among them; everything where it is less."""
    seen: list[Tensor] = []
    monkeypatch.setattr(Quantizer, "initialise_parameters", lambda _, values: seen.append(values))
    batch, large = 2**18, 2**18 + 7
    for batches, size, kept in ((1, 100, 100), (1, large, batch), (4, batch, 2**20), (5, batch, 2**20)):
        quantizer = Quantizer(QuantSpec(8, False, True))
        for number in range(batches):
            x = torch.rand(size)
            x[3], x[4] = -10.0 - number, 20.0 + number
            quantizer.observe(x)
        quantizer.finish_observing()
        values = seen.pop()
        assert values.shape == (1, kept)
        assert (values.min(), values.max()) == (-10.0 - (batches - 1), 20.0 + (batches - 1))


@pytest.mark.parametrize("init", ["minmax", "lsq", "lsqplus", "mse"])
def test_constant_inputs_initialise_to_something_usable(init: str) -> None:
    for config in ACTIVATION_CONFIGS:
        for value in (0.0, 2.5, -1.0):
            x = torch.full((4, 5), value)
            quantizer = ready(QuantSpec.for_config(4, config, init=init), x)
            assert quantizer.s > 0
            assert quantizer(x).isfinite().all()


def test_initialising_from_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="finite values"):
        ready(QuantSpec(4, True), torch.tensor([1.0, math.nan]))


# ---- networks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", ALLOWED_BITS)
def test_a_quantized_network_differs_from_float_in_training_and_evaluation(bits: int) -> None:
    model = small_network(weight_bits=bits, act_bits=bits, first_last="same")
    x = torch.randn(4, 3, 8, 8)
    for mode in (True, False):
        model.train(mode)
        with torch.no_grad(), bypassed(model):
            real = model(x)
        quantized = model(x)
        assert not torch.equal(real, quantized)
        if bits < 8:
            assert (real - quantized).abs().max() > 1e-3 * real.abs().max()


def test_steps_and_offsets_are_not_decayed() -> None:
    model = small_network()
    decayed, kept = quant.parameter_groups(model, 1e-4)
    assert decayed["weight_decay"] == 1e-4
    assert kept["weight_decay"] == 0
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)].rsplit(".", 1)[1] for p in kept["params"]} == {"s", "beta"}
    assert {names[id(p)].rsplit(".", 1)[1] for p in decayed["params"]} == {"weight", "bias"}
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))


def test_each_quantizer_is_one_named_node_of_an_exported_graph() -> None:
    model = small_network().eval()
    with quant.export_names(model):
        program = torch.export.export(model, (torch.randn(2, 3, 8, 8),), strict=False)
    nodes = [n for n in program.graph.nodes if n.op == "call_function"]
    marks = [n.args[1] for n in nodes if n.target is torch.ops.hwsim_quant.quantizer.default]
    assert sorted(marks) == sorted(name for name, _ in quant.quantizers(model))
    others = {n.target for n in nodes} - {torch.ops.hwsim_quant.quantizer.default}
    assert not {"div", "round", "clamp"} & {str(t).split(".")[1] for t in others}
    convolution = next(n for n in nodes if n.target is torch.ops.aten.conv2d.default)
    assert convolution.args[4] == [1, 1]  # the nominal padding, not that of the padding policy
    assert not torch.equal(model(torch.ones(2, 3, 8, 8)), torch.zeros(2, 5))  # and it quantizes again afterwards


def test_observing_ends_even_when_the_network_fails() -> None:
    model, _ = quant.quantize(nn.Sequential(nn.Linear(4, 4)), weight_bits=4, act_bits=4)

    def fail(x: Tensor) -> None:
        with observing(model):
            model(x)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail(torch.randn(2, 4))
    assert all(q.mode == "quantize" for _, q in quant.quantizers(model))


def test_the_base_class_says_what_a_method_must_define() -> None:
    base = BaseQuantizer(QuantSpec(4, True))
    for call in (base.step, lambda: base.codes(torch.ones(1)), lambda: base.quantize(torch.ones(1), 1)):
        with pytest.raises(TypeError, match="defines no"):
            call()


def test_channels_of_an_activation_count_the_features_of_one_channel_and_one_sample() -> None:
    """N of the gradient scale: 5 x 7 values share a step, whatever the batch; so do d/ds of one channel alone."""
    spec = QuantSpec(4, signed=True, granularity="channel")
    quantizer = Quantizer(spec, rows=3, axis=1)
    quantizer.set_parameters(torch.tensor([0.1, 0.2, 0.3]))
    x = torch.randn(8, 3, 5, 7)
    assert quantizer.count_features(x) == 35
    assert Quantizer(QuantSpec(4, True)).count_features(torch.randn(7)) == 7  # one sample: its only axis is no batch
    assert Quantizer(spec, rows=3, axis=0).count_features(torch.randn(3, 40)) == 40  # no batch: the channels lead
    quantizer(x).square().sum().backward()
    for channel in range(3):
        alone = Quantizer(QuantSpec(4, signed=True))
        alone.set_parameters(quantizer.s[channel].item())
        alone(x[:, channel]).square().sum().backward()
        torch.testing.assert_close(quantizer.s.grad[channel], alone.s.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_averages_of_weights_and_buffers_are_quantized_networks(average: str) -> None:
    """torch's AveragedModel with `use_buffers`: bounds and flags are averages of equal values."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    model, _ = quant.quantize(net, weight_bits=4, act_bits=4)
    x = torch.rand(2, 3, 8, 8)
    quant.initialise(model, [x])
    how = {"multi_avg_fn": get_ema_multi_avg_fn(0.9)} if average == "ema" else {}
    averaged = AveragedModel(model, use_buffers=True, **how)
    for _ in range(7):
        averaged.update_parameters(model)
    again, _ = quant.quantize(net, weight_bits=4, act_bits=4)
    again.load_state_dict(averaged.module.state_dict())
    torch.testing.assert_close(again(x), model(x), rtol=1e-5, atol=1e-6)
    assert again.half()[0].weight_quantizer.bounds.tolist() == [-128, 127]


def test_quantizers_that_saw_nothing_or_one_value_are_named() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model, _ = quant.quantize(net, weight_bits=4, act_bits=4)
    with pytest.raises(RuntimeError, match=r"1\.input_quantizer: such quantizers saw no data"):
        quant.initialise(model, [torch.rand(2, 3)], forward=lambda network, batch: network[0](batch))
    with pytest.warns(UserWarning, match=r"0\.input_quantizer \(always 0\.5\) saw one value only"):
        quant.initialise(quant.quantize(nn.Sequential(nn.Linear(3, 3)), weight_bits=4, act_bits=4)[0],
                         [torch.full((2, 3), 0.5)])  # fmt: skip
