"""Number formats in training: every code and midpoint, block scales, gradients, groups, options and checkpoints."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hwsim
import quant
from hwsim.errors import UnsupportedOp
from hwsim.frontends.torch_export import extract
from hwsim.integer.lowering.lower import check_layers
from hwsim.network import formats
from quant import checkpoint, models
from quant.baselines import make_quantizer
from quant.checkpoint import Meta
from quant.diagnostics import inspect
from quant.elements import ELEMENTS, Element, round_to
from quant.quantizer import BaseQuantizer, Quantizer
from quant.spec import FLOAT_ELEMENTS, FORMATS, QuantSpec
from quant.whole_models import quantizers

SMALL = ("e2m1", "e2m3", "e3m2", "e4m3", "e5m2")


# ---- elements ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["e2m1", "e2m3", "e3m2", "e4m3", "e5m2", "fp16", "bf16"])
def test_every_code_is_what_its_bit_fields_say(name: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    theirs = {
        "e2m1": "float4_e2m1fn", "e2m3": "float6_e2m3fn", "e3m2": "float6_e3m2fn", "e4m3": "float8_e4m3fn",
        "e5m2": "float8_e5m2", "bf16": "bfloat16",
    }  # fmt: skip
    dtype = np.float16 if name == "fp16" else getattr(ml_dtypes, theirs[name])
    element = ELEMENTS[name]
    width = np.uint16 if element.bits == 16 else np.uint8
    with np.errstate(invalid="ignore"):  # NaN of one type to NaN of another
        expected = np.arange(2**element.bits, dtype=width).view(dtype).astype(np.float64)
    mine = np.array([element.decode(code) for code in range(2**element.bits)])
    np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("name", SMALL)
def test_tables_have_the_sizes_of_the_standards(name: str) -> None:
    finite, largest, unit = {
        "e2m1": (15, 6.0, 0.5), "e2m3": (63, 7.5, 0.125), "e3m2": (63, 28.0, 0.0625), "e4m3": (253, 448.0, 2.0**-9),
        "e5m2": (247, 57344.0, 2.0**-16),
    }[name]  # fmt: skip
    element = ELEMENTS[name]
    assert (len(element.values), max(element.values), element.unit) == (finite, largest, unit)
    assert FLOAT_ELEMENTS[name] == (element.bits, element.units)


def nearest(x: float, element: Element) -> float:
    """Brute force: the nearest value of the table, of two equally near ones that with the even code."""
    x = min(max(x, -element.largest), element.largest)
    positive = [v for v in element.values if v >= 0]
    best = min(abs(abs(x) - v) for v in positive)
    ties = [i for i, v in enumerate(positive) if abs(abs(x) - v) == best]
    return math.copysign(positive[next(i for i in ties if len(ties) == 1 or i % 2 == 0)], x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SMALL)
def test_rounding_is_the_nearest_value_on_all_values_midpoints_and_their_neighbours(
    name: str, dtype: torch.dtype
) -> None:
    element = ELEMENTS[name]
    values = np.array(element.values)
    points = np.concatenate([values, (values[1:] + values[:-1]) / 2, [element.largest * 1.07, 1e30, -1e30, 1e-30]])
    kind = np.float32 if dtype == torch.float32 else np.float64
    points = points.astype(kind)
    points = np.concatenate([points, np.nextafter(points, kind(np.inf)), np.nextafter(points, kind(-np.inf))])
    found = round_to(torch.from_numpy(points), element)
    expected = torch.tensor([nearest(float(x), element) for x in points], dtype=dtype)
    assert torch.equal(found, expected)
    assert torch.isnan(round_to(torch.tensor([math.nan], dtype=dtype), element)).all()


@pytest.mark.parametrize(("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_types_round_as_torch_does_within_their_range(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, generator=generator) * torch.exp2(torch.randint(-40, 15, (20_000,), generator=generator))
    x = x.clamp(-60000, 60000)
    assert torch.equal(round_to(x, ELEMENTS[name]), x.to(dtype).float())


def test_pricing_and_training_know_the_same_elements_and_blocks() -> None:
    for name, (bits, _) in FLOAT_ELEMENTS.items():
        mine = formats.FLOATS[name]
        assert (mine.bits, mine.exponent_bits, mine.mantissa_bits) == (
            bits, ELEMENTS[name].exponent_bits, ELEMENTS[name].mantissa_bits
        )  # fmt: skip
    assert set(formats.NAMED) - {"FP32"} == set(FORMATS)
    for name in FORMATS:
        element, group, scale = FORMATS[name]
        priced = formats.NAMED[name]
        assert (priced.element, priced.group) == (element, group)
        assert scale in ("learned", "none", priced.scale)


# ---- block formats -----------------------------------------------------------------------------------------------


def mx_oracle(block: list[float], element: Element | None, rule: str) -> list[float]:
    """OCP MX v1.0 in Python's floats: X = 2^(floor(log2 max) - emax) and its variants, then the nearest value."""
    largest, emax, mantissa = (127 / 64, 0, 6) if element is None else (
        element.largest, math.frexp(element.largest)[1] - 1, element.mantissa_bits
    )  # fmt: skip
    top = max(abs(v) for v in block)
    if top == 0:
        return [0.0] * len(block)
    exponent = math.frexp(top)[1] - 1
    if rule == "even":
        significand = top / 2.0**exponent
        exponent += math.floor(significand * 2**mantissa + 0.5) >= 2 ** (mantissa + 1)
    if rule == "rceil":
        chosen = -400
        while largest * 2.0**chosen < top:
            chosen += 1
    else:
        chosen = exponent - emax
    scale = 2.0 ** max(-127, min(127, chosen))
    if element is None:
        return [min(max(float(np.rint(v / scale * 64)), -127.0), 127.0) / 64 * scale for v in block]
    return [nearest(v / scale, element) * scale for v in block]


def blocks_of_all_kinds() -> Tensor:
    """Gaussian blocks of many ranges, one of zeros, one around a power of two, tiny ones."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(60, 32, generator=generator) * torch.exp2(torch.randint(-20, 20, (60, 1), generator=generator))
    x[0] = 0
    x[1] = torch.linspace(-8, 8, 32)
    x[2, 1:] = 0
    x[3] *= 2.0**-100
    x[4] = torch.tensor([1.75, 0.25, 5.0, 0.75] * 8)
    return x


@pytest.mark.parametrize("rule", ["floor", "even", "rceil"])
@pytest.mark.parametrize("name", ["MXFP4", "MXFP6", "MXFP6_E3M2", "MXFP8", "MXFP8_E5M2", "MXINT8"])
def test_mx_blocks_equal_the_definition(name: str, rule: str) -> None:
    x = blocks_of_all_kinds()
    made = make_quantizer(QuantSpec.for_format(name, scale_rule=rule), axis=1)
    element = ELEMENTS.get(FORMATS[name][0])
    expected = torch.tensor([mx_oracle(row, element, rule) for row in x.double().tolist()])
    assert torch.equal(made(x), expected)
    assert torch.equal(made.codes(x) * made.step_at(x), expected)
    assert made.codes(x).abs().max() <= made.spec.p


def test_nvfp4_equals_the_definition() -> None:
    x = blocks_of_all_kinds()[1:3].repeat(1, 2) + torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    made = make_quantizer(QuantSpec.for_format("NVFP4"), axis=-1)
    e2m1, e4m3 = ELEMENTS["e2m1"], ELEMENTS["e4m3"]
    tensor = np.float32(x.abs().max()) / np.float32(448 * 6)
    expected = torch.zeros_like(x)
    for row in range(2):
        for start in range(0, 64, 16):
            block = x[row, start : start + 16].numpy()
            wanted = np.float32(np.abs(block).max()) / np.float32(6) / tensor
            scale = np.float32(nearest(min(max(float(wanted), 2.0**-9), 448.0), e4m3)) * tensor
            expected[row, start : start + 16] = torch.tensor(
                [np.float32(nearest(float(v / scale), e2m1)) * scale for v in block]
            )
    assert torch.equal(made(x), expected)
    assert torch.equal(made(torch.zeros(2, 16)), torch.zeros(2, 16))


def test_a_block_with_a_nan_is_nan_and_its_neighbours_are_not() -> None:
    x = torch.ones(2, 32)
    x[0, 3] = math.nan
    made = make_quantizer(QuantSpec.for_format("MXFP4"), axis=1)(x)
    assert torch.isnan(made[0]).all()
    assert torch.equal(made[1], torch.ones(32))


# Measured with independent implementations on 2^20 Gaussian values.
@pytest.mark.parametrize(
    ("name", "rule", "decibel"),
    [("MXFP4", "floor", 18.77), ("MXFP4", "even", 19.01), ("MXFP4", "rceil", 18.73), ("MXFP6", "floor", 30.9),
     ("MXFP6_E3M2", "floor", 25.5), ("MXFP8", "floor", 30.63), ("MXINT8", "floor", 41.7), ("NVFP4", "floor", 20.42)],
)  # fmt: skip
def test_gaussian_noise_is_what_others_measured(name: str, rule: str, decibel: float) -> None:
    x = torch.randn(2**13, 32, generator=torch.Generator().manual_seed(0))
    error = make_quantizer(QuantSpec.for_format(name, scale_rule=rule), axis=1)(x) - x
    assert 10 * math.log10(x.square().mean() / error.square().mean()) == pytest.approx(decibel, abs=0.12)


def test_gradients_of_blocks_pass_where_nothing_is_clipped() -> None:
    x = torch.tensor([[7.5, 1.0, -7.0, 0.1] + [0.0] * 28], requires_grad=True)  # X = 1: 7.5 and -7 are beyond 6
    make_quantizer(QuantSpec.for_format("MXFP4"), axis=1)(x).sum().backward()
    assert x.grad is not None
    assert x.grad[0].tolist() == [0.0, 1.0, 0.0, 1.0] + [1.0] * 28
    x.grad = None
    make_quantizer(QuantSpec.for_format("MXFP4", scale_rule="rceil"), axis=1)(x).sum().backward()
    assert x.grad[0].tolist() == [1.0] * 32


def test_blocks_lie_along_what_is_summed() -> None:
    x = torch.randn(2, 40, 5, 7, generator=torch.Generator().manual_seed(1))
    made = make_quantizer(QuantSpec.for_format("MXFP4"), axis=1)
    rows = x.movedim(1, -1)
    alone = make_quantizer(QuantSpec.for_format("MXFP4"), axis=-1)
    expected = torch.cat([alone(rows[..., :32]), alone(rows[..., 32:])], -1).movedim(-1, 1)
    assert torch.equal(made(x), expected)


# ---- learned scales ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@pytest.mark.parametrize("name", ["FP4", "FP6_E2M3", "FP8"])
def test_gradients_of_float_elements_equal_the_oracle(name: str, granularity: str) -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(3, 20, generator=generator, dtype=torch.float64) * 4
    groups = {"tensor": 1, "channel": 3, "group": 9}[granularity]
    spec = QuantSpec.for_format(name, 7 if granularity == "group" else 0, granularity, init="mse")
    made = make_quantizer(spec, is_weight=True, rows=groups, axis=0 if granularity == "channel" else 1).double()
    made.init_from(x)
    element, grad = ELEMENTS[FORMATS[name][0]], torch.randn(3, 20, generator=generator, dtype=torch.float64)
    mine = x.clone().requires_grad_()
    made(mine).backward(grad)
    s = made.s.detach().clone().requires_grad_()
    theirs = x.clone().requires_grad_()
    each = {
        "tensor": lambda: s.expand(3, 20),
        "channel": lambda: s[:, None].expand(3, 20),
        "group": lambda: s.view(3, 3).repeat_interleave(7, 1)[:, :20],
    }[granularity]()
    u = theirs / each
    clamped = u.clamp(-element.largest, element.largest)
    (each * (clamped + (round_to(u, element) - clamped).detach())).backward(grad)
    assert torch.allclose(mine.grad, theirs.grad, rtol=0, atol=1e-14)  # type: ignore[arg-type]
    scale = 1 / math.sqrt(max(60 // groups, 1) * element.largest)
    assert torch.allclose(made.s.grad, s.grad * scale, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("offset", [False, True])
def test_a_group_that_is_the_tensor_is_per_tensor_lsq_plus(offset: bool) -> None:
    x = torch.randn(1, 48, generator=torch.Generator().manual_seed(2))
    grad = torch.randn(1, 48, generator=torch.Generator().manual_seed(3))
    results = []
    for spec in (QuantSpec(4, True, offset), QuantSpec(4, True, offset, granularity="group", group=48)):
        made = make_quantizer(spec, is_weight=True, axis=1 if spec.group else 0)
        made.init_from(x)
        leaf = x.clone().requires_grad_()
        x_hat = made(leaf)
        x_hat.backward(grad)
        parts = [p.grad.flatten() for p in made.parameters()]  # type: ignore[union-attr]
        results.append((x_hat.detach(), made.codes(x), made.step().flatten(), leaf.grad, *parts))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("init", ["lsqplus", "mse", "minmax", "lsq"])
def test_groups_are_independent_quantizers_and_a_short_last_one_knows_no_zeros(init: str) -> None:
    x = torch.randn(3, 20, generator=torch.Generator().manual_seed(7)) + 1
    spec = QuantSpec(3, True, True, init=init, granularity="group", group=8)
    made = make_quantizer(spec, is_weight=True, rows=9, axis=1)
    made.init_from(x)
    x_hat = made(x)
    for row in range(3):
        for start in (0, 8, 16):
            part = x[row : row + 1, start : start + 8]
            alone = Quantizer(spec.replace(granularity="tensor", group=0), is_weight=True)
            alone.init_from(part)
            torch.testing.assert_close(alone(part), x_hat[row : row + 1, start : start + 8], rtol=1e-6, atol=1e-6)


def test_groups_of_a_convolution_lie_along_its_input_channels() -> None:
    layer = quant.layers.quantized_like(
        nn.Conv2d(10, 4, 3), QuantSpec(4, True, granularity="group", group=4), QuantSpec(8, True)
    )
    assert layer.weight_quantizer.rows == 4 * 9 * 3
    steps = layer.weight_quantizer.step_at(layer.weight)
    assert torch.equal(steps[:, :4], steps[:, :1].expand(-1, 4, -1, -1))
    assert not torch.equal(steps[:, 3:4], steps[:, 4:5])


# ---- whole networks ----------------------------------------------------------------------------------------------

CHOICES: list[dict[str, Any]] = [
    {"weight_group": 8}, {"weight_group": 8, "weight_offset": True, "act_format": "FP16"},
    {"weight_format": "MXFP4", "act_format": "MXFP4"}, {"weight_format": "NVFP4", "act_format": "NVFP4"},
    {"weight_format": "FP8", "act_format": "FP8"}, {"weight_format": "MXINT8", "act_format": "MXINT8"},
    {"weight_format": "FP4", "weight_group": 16, "act_format": "BF16"},
    {"weight_format": "FP8", "weight_granularity": "channel"},
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("choices", CHOICES, ids=str)
@pytest.mark.parametrize("name", ["resnet8", "vit_b_16"])
def test_formats_train_and_come_back_from_checkpoints(name: str, choices: dict[str, Any], tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"image_size": 8, "num_classes": 10}
    side = 8
    if name == "vit_b_16":
        side = 32
        arguments |= {"image_size": 32, "dim": 40, "depth": 1, "heads": 2}
    torch.manual_seed(0)
    model = models.create(name, **arguments)
    settings = {"weight_bits": 4, "act_bits": 8, **choices}
    x = torch.randn(2, 3, side, side)
    made, plan = quant.quantize(model, **settings, example=x)
    quant.initialise(made, [x])
    optimizer = torch.optim.SGD(made.parameters(), lr=0.01)
    before = made(x).square().mean().item()
    for _ in range(3):
        optimizer.zero_grad()
        made(x).square().mean().backward()
        optimizer.step()
    assert made(x).square().mean().item() < before
    checkpoint.save(tmp_path / "run", made, Meta(name, arguments, dict(plan.settings), (3, side, side), 10))
    again, _ = checkpoint.load(tmp_path / "run")
    assert torch.equal(again.eval()(x), made.eval()(x))
    assert all(d.error >= 0 for d in inspect(made, [x]))
    if "weight_format" in choices or "weight_group" in choices:
        inner = [q.spec for n, q in quantizers(made) if q.is_weight][1]
        assert inner.group == (choices.get("weight_group") or FORMATS[choices["weight_format"]][1])


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path) -> None:
    one = make_quantizer(QuantSpec.for_format("MXFP4"), axis=1)
    other = make_quantizer(QuantSpec.for_format("MXFP8"), axis=1)
    with pytest.raises(RuntimeError, match="expected codes"):
        other.load_state_dict(one.state_dict())


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"weight_format": "MXFP5"}, "weight_format: expected one of"),
        ({"weight_format": "MXFP4", "weight_group": 16}, "its blocks have 32 elements"),
        ({"weight_group": -1}, "expected a positive number"),
        ({"weight_group": 8, "weight_granularity": "channel"}, "groups are finer"),
        ({"weight_granularity": "group"}, "weight_group: missing"),
        ({"weight_group": 8, "method": "pact"}, "groups are for lsq and lsqplus"),
        ({"weight_format": "FP8", "weight_offset": True}, "a sign and no offset"),
        ({"scale_rule": "round"}, "scale_rule: expected one of"),
    ],
)
def test_contradictory_formats_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quant.quantize(models.create("resnet8"), **{"weight_bits": 4, "act_bits": 4, **choices})


def test_the_command_takes_formats() -> None:
    from quant.train import parser

    options = parser().parse_args(
        ["--model", "resnet8", "--bits", "W4A8", "--weight-group", "16", "--act-format", "FP8", "--out", "x"]
    )
    chosen = quant.start.quantize_arguments(options)
    assert chosen is not None
    assert (chosen["weight_group"], chosen["act_format"]) == (16, "FP8")


SHORT_NAMES = (
    *FORMATS, "W4A4", "W8A8", "W4A16", "W16A16", "W4g16A16", "W4g16A8", "W4g16zfp32A16", "WMXFP4ABF16",
    "WNVFP4A16", "W4AFP8", "WFP8A8",
)  # fmt: skip
Q = formats.parse_formats


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_training_and_pricing_read_the_same_short_names(name: str) -> None:
    """`quant.quantize(bits=NAME)` makes the elements and groups that `--bits NAME` prices."""
    priced = Q(name)
    layer = quant.quantize(chain(), bits=name, first_last="same")[0].get_submodule("2")
    for q, wanted in ((layer.weight_quantizer, priced.weight), (layer.input_quantizer, priced.activation)):
        assert isinstance(q, BaseQuantizer)
        assert (q.spec.element, q.spec.bits, q.spec.group) == (wanted.element, wanted.bits, wanted.group)
    plain = re.fullmatch(r"W\d+A\d+", name) and "A16" not in name  # there LSQ+ has a step per tensor
    sharing = {"none": "tensor"}.get(priced.weight.sharing, priced.weight.sharing)
    assert layer.weight_quantizer.spec.granularity == ("tensor" if plain else sharing)
    assert layer.weight_quantizer.spec.offset == bool(priced.weight.offset)
    if priced.weight.sharing in ("channel", "group") and not plain:
        stored = layer.weight_quantizer.spec.scale_format.replace("learned", "fp32")
        assert stored == priced.weight.scale


@pytest.mark.parametrize("name", ["W4A16", "W4g16A16", "WMXFP4A16", "WNVFP4A16"])
def test_a_trained_weight_is_stored_as_the_name_of_its_format_says(name: str) -> None:
    made, _ = quant.quantize(chain(), bits=name, first_last="same")
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    quant.initialise(made, [x])
    weight = hwsim.extract(made.eval(), x).layers[-1].weight
    assert weight is not None
    assert weight.format == Q(name).weight


def test_steps_in_fp16_are_fp16_numbers_and_learn_as_others_do() -> None:
    spec = QuantSpec(4, True, granularity="group", group=4, scale_format="fp16")
    q = make_quantizer(spec, is_weight=True, rows=6, axis=1)
    exact = make_quantizer(spec.replace(scale_format="learned"), is_weight=True, rows=6, axis=1)
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    s = torch.tensor([0.1, 0.3, 1e-9, 70000.0, 0.05, 0.7])
    q.set_parameters(s)
    held = torch.tensor([0.1, 0.3, 2.0**-24, 65504.0, 0.05, 0.7])
    assert torch.equal(q.step(), held.half().float())
    exact.set_parameters(q.step().detach())
    outputs = [made(x) for made in (q, exact)]
    assert torch.equal(*outputs)
    for made, y in zip((q, exact), outputs, strict=True):
        (y * torch.arange(24.0).view(3, 8)).sum().backward()
        assert made.s.grad is not None
    assert torch.equal(q.s.grad, exact.s.grad)  # straight through the rounding of the step


def test_fp16_steps_are_for_integers_with_more_than_one_step() -> None:
    with pytest.raises(ValueError, match="fp16 is for integers with learned steps per channel or group"):
        quant.quantize(chain(), weight_bits=4, act_bits=8, weight_scale="fp16")
    with pytest.raises(ValueError, match="weight_scale"):
        quant.quantize(chain(), weight_bits=4, act_bits=8, weight_granularity="channel", weight_scale="fp8")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("KV8", "no cache of keys and values; hwsim evaluate"), ("W4g16A16KV8", "no cache of keys and values"),
        ("W4g16zA16", "no z: write zfp32"), ("W4g16zfp16A16", "no zfp16: write zfp32"),
        ("W4g0A16", "1 element or more"),
        ("W4A8g32", "integer activations have one step"), ("W9A4", "expected 1 to 8 or 16, got 9"),
        ("W4g16", "expected W4A4, W4A16"), ("INT8", "expected W4A4, W4A16"), ("float", "nothing to quantize"),
    ],
)  # fmt: skip
def test_short_names_that_training_has_no_form_for_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quant.quantize(chain(), bits=name)


def test_a_short_name_and_what_contradicts_it_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weight_group: 8, but W4g16A16 says 16: leave one of them out"):
        quant.quantize(chain(), bits="W4g16A16", weight_group=8)
    with pytest.raises(ValueError, match="weight_bits: 4, but bits='MXFP4' says it already"):
        quant.quantize(chain(), bits="MXFP4", weight_bits=4)
    with pytest.raises(ValueError, match="act_bits: missing: give both"):
        quant.quantize(chain(), weight_bits=4)
    from quant.train import parser

    options = parser().parse_args(["--model", "resnet8", "--bits", "W4A16", "--act-format", "FP8", "--out", "x"])
    with pytest.raises(ValueError, match="--act-format: 'FP8', but W4A16 says 'FP16'"):
        quant.start.quantize_arguments(options)


def test_quantizers_without_learned_scales_have_nothing_to_learn() -> None:
    made: list[BaseQuantizer] = [make_quantizer(QuantSpec.for_format(n), axis=1) for n in ("MXFP4", "NVFP4", "FP16")]
    assert all(not list(q.parameters()) and bool(q.initialized) for q in made)


# ---- what pricing and the integer machine see ------------------------------------------------------------------------


def chain() -> nn.Module:
    """Three convolutions of 32 channels; formats are in the one between."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 1)
    ).eval()  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(
    ("choices", "side", "element"),
    [
        ({"weight_format": "MXFP4", "act_format": "MXFP4"}, 8, "e2m1"),
        ({"weight_format": "NVFP4", "act_format": "FP16"}, 8, "e2m1"),
        ({"weight_group": 8, "weight_offset": True, "init": "mse"}, 64, "int"),
    ],
)
def test_trained_formats_reach_the_workload_with_their_scales(choices: dict[str, Any], side: int, element: str) -> None:
    x = torch.randn(1, 3, 6, 6)
    made, _ = quant.quantize(chain(), weight_bits=4, act_bits=4, **choices)
    quant.initialise(made, [x])
    layers = [layer for layer in extract(made, x).layers if layer.has_macs]
    weight, source, last = layers[1].weight, layers[1].inputs[0], layers[2].weight
    assert weight is not None
    assert weight.format is not None
    assert (weight.element, weight.format.side_bits_each) == (element, side)
    assert weight.scales == 32 * 9 * (32 // weight.format.group)
    if choices.get("act_format") == "MXFP4":
        assert (source.element, source.scales) == ("e2m1", 6 * 6)  # 32 channels are one block at every pixel
    assert last is not None
    assert (last.bits, last.format) == (8, None)


@pytest.mark.long
@pytest.mark.parametrize("name", ["FP16", "WMXFP4A16", "WNVFP4A16", "WFP8A16"])
def test_a_trained_network_costs_what_its_short_name_says(name: str) -> None:
    """Weight-only formats: but for its output, which passes no quantizer, the trained network stores the same."""
    x = torch.randn(1, 3, 32, 32)
    net = models.create("resnet8").eval()
    made, _ = quant.quantize(net, bits=name, first_last="same")
    quant.initialise(made, [x])
    one, other = (
        hwsim.evaluate((made.eval(), x), "a100", effort="quick"),
        hwsim.evaluate((net, x), "a100", bits=name, first_last="same", effort="quick"),
    )
    pairs = list(zip(one.workload, other.workload, strict=True))  # no casts between equal formats
    for mine, theirs in pairs:
        assert (mine.name, mine.weight, mine.inputs) == (theirs.name, theirs.weight, theirs.inputs)
    last = [layer.output.size_bits for layer, _ in pairs[-1:]]
    assert last == [2 * pairs[-1][1].output.size_bits]
    costs = zip(one.cost.layers[:-1], other.cost.layers[:-1], strict=True)
    assert all(mine.energy_pj == theirs.energy_pj for mine, theirs in costs)


def test_blocks_read_twice_are_rounded_once() -> None:
    """Scales that follow from the values make the same codes behind every reader; learned steps do not."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.one, self.two = (nn.Conv2d(n, 32, 1) for n in (3, 32, 32))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x).relu()
            return torch.cat([self.one(y), self.two(y)], 1)

    x = torch.randn(1, 3, 6, 6)
    for name, casts in (("MXFP4", 0), ("BF16", 0), ("FP8", 1), ("W4A4", 1)):
        made, _ = quant.quantize(Twice(), bits=name, first_last="same")
        quant.initialise(made, [x])
        assert sum(layer.op == "requantize" for layer in extract(made, x).layers) == casts, name


def test_the_integer_machine_refuses_activations_that_it_has_no_form_for() -> None:
    made, _ = quant.quantize(chain(), weight_bits=4, act_bits=8, weight_format="MXFP4", act_format="MXFP4")
    with pytest.raises(UnsupportedOp, match="activations in blocks"):
        check_layers(made, "chain")
