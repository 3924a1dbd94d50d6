"""Quantized layers against the operation written out on x_hat and w_hat, padding policies included."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.attention import QAttention, QMultiheadAttention
from quant.layers import (
    COUNTERPARTS,
    QAdd,
    QConcat,
    QConv1d,
    QConv2d,
    QEmbedding,
    QLinear,
    QMatmul,
    QMul,
    pad_with,
    quantized_like,
)  # fmt: skip
from quant.spec import PADDING_POLICIES, QuantSpec
from quant.whole_models import export_names, initialise, quantizers

W = QuantSpec(4, True)
A = {config: QuantSpec.for_config(4, config, init="minmax") for config in (1, 2, 3, 4)}

GEOMETRIES = {
    "3x3 pad 1": {"kernel_size": 3, "padding": 1},
    "stride": {"kernel_size": 3, "padding": 1, "stride": 2},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "same, even kernel": {"kernel_size": (4, 2), "padding": "same"},
    "valid": {"kernel_size": 3, "padding": "valid"},
    "uneven": {"kernel_size": (5, 3), "padding": (2, 0)},
    "grouped": {"kernel_size": 3, "padding": 1, "groups": 2},
    "depthwise": {"kernel_size": 5, "padding": 2, "groups": 4},
    "reflect": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    "one side": {"kernel_size": 3, "stride": 2, "extra_padding": (0, 1, 0, 1)},
    "both": {"kernel_size": 3, "padding": 1, "extra_padding": (0, 1, 2, 0)},
}


def spec_for(policy: str, config: int) -> QuantSpec:
    return A[config].replace(snap_offset=policy == "snap_offset" and A[config].offset)


def convolution(policy: str, config: int, **geometry: object) -> QConv2d:
    torch.manual_seed(0)
    specs = {"weight_spec": W, "input_spec": spec_for(policy, config), "padding_policy": policy}
    layer = QConv2d(4, 8, **specs, **geometry).double()
    layer.input_quantizer.init_from(F.silu(torch.randn(500, 4)))
    return layer


def written_out(layer: QConv2d, x: Tensor, policy: str) -> Tensor:
    """The definition of each policy, with copies and masks."""
    w_hat, padding, quantizer = layer.weight_quantizer(layer.weight), layer.total_padding(), layer.input_quantizer
    features = quantizer.count_features(x)
    if layer.padding_mode != "zeros":
        x_hat = quantizer(F.pad(x, padding, mode=layer.padding_mode), features)
    elif policy in ("pad_code", "snap_offset"):
        x_hat = quantizer(F.pad(x, padding), features)
    else:
        inside = F.pad(torch.ones_like(x), padding)
        # The border is code 0 of the same quantizer: its gradient carries the same scale.
        scale = 1 / math.sqrt(features * quantizer.spec.magnitude)
        border = quantizer.offset() * scale if policy == "pad_beta" else torch.zeros(()).double()
        border = border + (quantizer.offset() * (policy == "pad_beta") - border).detach()
        x_hat = F.pad(quantizer(x), padding) * inside + border * (1 - inside)
    return F.conv2d(x_hat, w_hat, layer.bias, layer.stride, 0, layer.dilation, layer.groups)


def gradients(layer: nn.Module, y: Tensor, x: Tensor) -> list[Tensor]:
    layer.zero_grad()
    x.grad = None
    y.backward(torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape))
    return [x.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("policy", PADDING_POLICIES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolutions_equal_their_definition(geometry: str, policy: str) -> None:
    for config in (1, 2, 3, 4):
        layer = convolution(policy, config, **GEOMETRIES[geometry])
        x = F.silu(torch.randn(2, 4, 9, 8, dtype=torch.float64)).requires_grad_()
        y, expected = layer(x), written_out(layer, x, policy)
        torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
        found, wanted = gradients(layer, layer(x), x), gradients(layer, expected, x)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)


def test_the_border_is_where_the_policies_differ() -> None:
    x = F.silu(torch.randn(2, 4, 8, 8, dtype=torch.float64))
    outputs = {policy: convolution(policy, 4, kernel_size=3, padding=1)(x) for policy in PADDING_POLICIES}
    for a, b in itertools.combinations(("pad_code", "pad_beta", "border_bias"), 2):
        torch.testing.assert_close(outputs[a][..., 1:-1, 1:-1], outputs[b][..., 1:-1, 1:-1])
        assert (outputs[a][..., 0, :] - outputs[b][..., 0, :]).abs().max() > 0.01
    without = {policy: convolution(policy, 1, kernel_size=3, padding=1)(x) for policy in PADDING_POLICIES}
    assert all(torch.equal(without["pad_code"], y) for y in without.values())


@pytest.mark.parametrize("policy", ["pad_code", "snap_offset", "pad_beta"])
def test_equation_5_folds_the_offset_into_a_constant_bias(policy: str) -> None:
    """y = s_w * s_x * conv(codes) + bias + beta * s_w * sum(w_codes), the border included: what hardware computes."""
    for config in (3, 4):
        layer = convolution(policy, config, kernel_size=3, padding=1)
        x = F.silu(torch.randn(2, 4, 8, 8, dtype=torch.float64))
        quantizer, weight = layer.input_quantizer, layer.weight_quantizer
        s_w, w_codes = weight.step(), weight.codes(layer.weight)
        zero_code = quantizer.codes(torch.zeros(1).double()) if policy != "pad_beta" else torch.zeros(1).double()
        padded = pad_with(quantizer.codes(x), [1, 1, 1, 1], zero_code)
        bias = layer.bias + quantizer.offset() * s_w * w_codes.flatten(1).sum(1)
        y = s_w * quantizer.step() * F.conv2d(padded, w_codes) + bias.view(-1, 1, 1)
        torch.testing.assert_close(layer(x), y, rtol=1e-12, atol=1e-12)


def test_snapped_offsets_make_zero_padding_exact() -> None:
    layer = convolution("snap_offset", 4, kernel_size=3, padding=1)
    x = F.silu(torch.randn(2, 4, 8, 8, dtype=torch.float64))
    zero_padded = F.conv2d(layer.input_quantizer(x), layer.weight_quantizer(layer.weight), layer.bias, padding=1)
    torch.testing.assert_close(layer(x), zero_padded, rtol=1e-12, atol=1e-12)


def test_one_dimension() -> None:
    layer = QConv1d(3, 6, 3, padding=1, weight_spec=W, input_spec=A[4]).double()
    x = F.silu(torch.randn(2, 3, 20, dtype=torch.float64))
    layer.input_quantizer.init_from(x)
    x_hat = layer.input_quantizer(F.pad(x, (1, 1)))
    torch.testing.assert_close(layer(x), F.conv1d(x_hat, layer.weight_quantizer(layer.weight), layer.bias))


def test_linear_and_embedding() -> None:
    linear = QLinear(12, 5, weight_spec=W, input_spec=A[2])
    x = torch.randn(4, 7, 12)
    linear.input_quantizer.init_from(x)
    expected = F.linear(linear.input_quantizer(x), linear.weight_quantizer(linear.weight), linear.bias)
    assert torch.equal(linear(x), expected)
    table = QEmbedding(30, 6, weight_spec=W)
    index = torch.tensor([[1, 5, 29], [0, 1, 1]])
    assert torch.equal(table(index), F.embedding(index, table.weight_quantizer(table.weight)))
    with pytest.raises(ValueError, match="one step"):
        QEmbedding(30, 6, weight_spec=W.replace(granularity="channel"))


def test_channels_have_their_own_steps() -> None:
    layer = QConv2d(3, 5, 3, weight_spec=W.replace(granularity="channel"), input_spec=A[1])
    w_hat = layer.weight_quantizer(layer.weight)
    assert layer.weight_quantizer.step().shape == (5,)
    for k in range(5):
        ratio = w_hat[k] / layer.weight_quantizer.step()[k]
        torch.testing.assert_close(ratio, ratio.round())


def test_operations_of_two_activations() -> None:
    x, y = torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    operations = {
        QAdd: lambda a, b: a + b, QMul: lambda a, b: a * b, QMatmul: lambda a, b: a @ b,
    }  # fmt: skip
    for kind, plain in operations.items():
        layer = kind(A[2], A[1])
        layer.quantizer_of(0).init_from(x)
        layer.quantizer_of(1).init_from(y)
        assert torch.equal(layer(x, y), plain(layer.quantizer_of(0)(x), layer.quantizer_of(1)(y)))
    joined = QConcat([A[2], A[1]], dim=1)
    joined.quantizer_of(0).init_from(x)
    joined.quantizer_of(1).init_from(y)
    assert torch.equal(joined([x, y]), torch.cat([joined.quantizer_of(0)(x), joined.quantizer_of(1)(y)], 1))
    with pytest.raises(ValueError, match="expected 2 tensors, got 3"):
        joined([x, y, y])


def test_shared_quantizers_are_one_and_see_all_inputs() -> None:
    layer = QAdd(A[2], A[2], shared=True)
    small, large = torch.rand(50, 4) * 0.1, torch.randn(50, 4)
    initialise(layer, [(small, large)], forward=lambda m, pair: m(*pair))
    assert len(list(quantizers(layer))) == 1
    assert layer.quantizer_of(0) is layer.quantizer_of(1)
    assert layer.quantizer_of(0).observed[0] == large.min()
    with pytest.raises(ValueError, match="one spec"):
        QAdd(A[1], A[2], shared=True)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_at_sixteen_bits_is_attention(causal: bool) -> None:
    torch.manual_seed(0)
    plain, gate = QuantSpec(16, True, init="minmax"), QuantSpec(16, False, init="minmax")
    layer = QAttention((plain, plain, gate, plain))
    q, k, v = (torch.randn(2, 3, 6, 8) for _ in range(3))
    initialise(layer, [(q, k, v)], forward=lambda m, t: m(*t, is_causal=causal))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    torch.testing.assert_close(layer(q, k, v, is_causal=causal), expected, rtol=0, atol=2e-3)
    assert not torch.equal(layer(q, k, v, is_causal=causal), expected)


@pytest.mark.parametrize("batch_first", [True, False])
def test_multihead_attention_at_sixteen_bits_is_torchs(batch_first: bool) -> None:
    torch.manual_seed(0)
    source = nn.MultiheadAttention(12, 3, batch_first=batch_first).eval()
    plain, gate = QuantSpec(16, True, init="minmax"), QuantSpec(16, False, init="minmax")
    layer = QMultiheadAttention(source, plain, [plain], (plain, plain, gate, plain)).eval()
    x = torch.randn(4, 5, 12) if batch_first else torch.randn(5, 4, 12)
    hidden = torch.zeros(4, 5, dtype=torch.bool)
    hidden[1, 3:] = True
    blocked = torch.ones(5, 5, dtype=torch.bool).triu(1)
    for masks in ({}, {"key_padding_mask": hidden}, {"attn_mask": blocked}):
        initialise(layer, [x], forward=lambda m, t, masks=masks: m(t, t, t, **masks), again=True)
        expected, _ = source(x, x, x, need_weights=False, **masks)
        torch.testing.assert_close(layer(x, x, x, **masks)[0], expected, rtol=0, atol=2e-3)


def test_swapping_keeps_parameters_and_draws_no_random_numbers() -> None:
    layer = nn.Conv2d(3, 4, 3, padding=1)
    state = torch.get_rng_state()
    swapped = quantized_like(layer, W, A[4], "pad_beta")
    assert torch.equal(torch.get_rng_state(), state)
    assert swapped.weight is layer.weight
    assert swapped.bias is layer.bias
    assert type(layer) is nn.Conv2d
    assert not hasattr(layer, "weight_quantizer")
    assert swapped.padding_policy == "pad_beta"
    with pytest.raises(TypeError, match="expected Conv1d"):
        quantized_like(nn.Bilinear(3, 4, 5), W, A[4])


@pytest.mark.parametrize("kind", sorted(COUNTERPARTS, key=lambda kind: kind.__name__))
def test_every_quantized_layer_is_made_with_the_arguments_of_its_float_layer(kind: type[nn.Module]) -> None:
    """... and its specs; what it computes is what quantized_like makes of the same float layer."""
    arguments = (5, 4) if issubclass(kind, (nn.Linear, nn.Embedding, nn.EmbeddingBag)) else (5, 4, 3)
    weight_spec, input_spec = QuantSpec(bits=4, signed=True), QuantSpec(bits=4, signed=True)
    looks_up = issubclass(kind, (nn.Embedding, nn.EmbeddingBag))
    specs = {"weight_spec": weight_spec} | ({} if looks_up else {"input_spec": input_spec})
    torch.manual_seed(0)
    made = COUNTERPARTS[kind](*arguments, **specs)
    torch.manual_seed(0)
    like = quantized_like(kind(*arguments), weight_spec, None if looks_up else input_spec)
    shape = {3: (2, 5, 6), 4: (2, 5, 6, 6), 5: (2, 5, 6, 6, 6)}.get(made.weight.ndim, (2, 5))
    x = torch.randint(5, (2, 3)) if looks_up else torch.randn(shape)
    for layer in (made, like):
        if not looks_up:
            layer.input_quantizer.init_from(x)
    assert torch.equal(made(x), like(x))


def test_layers_can_be_built_on_the_meta_device() -> None:
    layer = quantized_like(nn.Conv2d(3, 4, 3, device="meta"), W, A[4])
    with export_names(layer):
        program = torch.export.export(layer, (torch.randn(1, 3, 8, 8, device="meta"),), strict=False)
    marks = [n.args[1] for n in program.graph.nodes if n.target is torch.ops.hwsim_quant.quantizer.default]
    assert sorted(marks) == ["input_quantizer", "weight_quantizer"]


def test_padding_in_the_exported_graph_is_the_nominal_one() -> None:
    layer = convolution("pad_code", 4, kernel_size=3, stride=2, extra_padding=(0, 1, 0, 1)).float()
    with export_names(layer):
        program = torch.export.export(layer, (torch.randn(1, 4, 8, 8),), strict=False)
    names = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert names.count("aten.pad.default") == 1


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"padding_policy": "pad_zero"}, "padding_policy: expected one of"),
        ({"extra_padding": (1, 1)}, "extra_padding: expected 4 numbers"),
        ({"extra_padding": (1, 1, 1, 1), "padding_mode": "reflect"}, "only with padding_mode 'zeros'"),
        ({"input_spec": A[4].replace(snap_offset=True)}, "needs 'snap_offset'"),
    ],
)
def test_impossible_choices_are_refused(choices: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QConv2d(3, 4, 3, **{"weight_spec": W, "input_spec": A[4], **choices})
