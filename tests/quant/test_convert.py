"""quantize(): the right configuration for the right reason, nothing left in silence, the model itself untouched."""

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quant
from quant import context
from quant.attention import QAttention, QMultiheadAttention
from quant.layers import QAdd, QConcat, QConv2d, QEmbedding, QLinear, QMatmul, QMean, QMul
from quant.models import create, info, names
from quant.plan import Plan

# Deeper sisters of networks that are tested, with the same blocks.
MORE_OF_THE_SAME = {"resnet34", "resnet32", "resnet44", "resnet56", "preact_resnet34"}


def plan_of(model: nn.Module, **choices: object) -> Plan:
    return quant.quantize(model, **{"weight_bits": 4, "act_bits": 4, **choices})[1]


def configs(plan: Plan) -> dict[str, tuple[int, ...]]:
    return {layer.name: tuple(spec.config for spec in layer.inputs) for layer in plan.layers}


class Functional(nn.Module):
    """Everything written as functions: residual addition, squeeze-excite product, concatenation, products."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.reduce = nn.Conv2d(8, 4, 1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.bn(self.conv1(x)))
        gate = torch.sigmoid(F.pad(self.reduce(x.mean((2, 3), keepdim=True)), (0, 0, 0, 0, 0, 4)))
        y = x * gate
        y = self.conv2(y)
        y += x
        y = F.dropout(F.relu(y), 0.5, self.training)
        z = torch.cat([y, F.leaky_relu(x, 0.1)], dim=1)
        z = F.adaptive_avg_pool2d(z, 1).flatten(1)
        return self.head(z) / 2.0


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 12)
        self.qkv = nn.Linear(12, 36)
        self.inner = nn.MultiheadAttention(12, 3, batch_first=True)
        self.proj = nn.Linear(12, 12)

    def forward(self, index: Tensor) -> Tensor:
        x = self.table(index)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        x = x + F.scaled_dot_product_attention(q, k, v, dropout_p=0.1 if self.training else 0.0)
        x = x + self.inner(x, x, x, need_weights=False)[0]
        scores = torch.softmax(x @ x.transpose(1, 2), dim=-1)
        return self.proj(torch.matmul(scores, x))


class HandWritten(nn.Module):
    """Activation functions without modules, and a branch that depends on a value."""

    def __init__(self, branch: bool) -> None:
        super().__init__()
        self.branch = branch
        self.conv1, self.conv2, self.conv3, self.conv4 = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = x * torch.sigmoid(x)
        x = self.conv2(x)
        x = x * F.relu6(x + 3) / 6
        x = self.conv3(x)
        if self.branch and x.shape[0] > 100:
            x = -x
        return self.conv4(x.clamp(min=0) * 2)


@pytest.mark.parametrize("name", sorted(set(names()) - MORE_OF_THE_SAME))
def test_every_network_of_the_zoo_converts_completely(name: str) -> None:
    """Each convolution and linear layer is quantized; what is left is listed and multiplies no two activations."""
    with torch.device("meta"):
        model = create(name)
    quantized, plan = quant.quantize(model, weight_bits=4, act_bits=4)
    for module in quantized.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            assert isinstance(module, (QConv2d, QLinear))
    assert {left.op for left in plan.left} <= {"concat", "mul", "softmax", "layernorm"}
    assert type(quantized) is type(model)
    assert list(quantized.state_dict().keys() & model.state_dict().keys()) != []
    assert set(dict(model.named_parameters())) <= set(dict(quantized.named_parameters()))


@pytest.mark.parametrize("name", ["resnet8", "silu_se_net", "ds_cnn"])
def test_small_networks_of_the_zoo_run_and_train(name: str) -> None:
    torch.manual_seed(0)
    model, _ = quant.quantize(create(name), weight_bits=4, act_bits=4, init="minmax")
    x = torch.randn(2, *info(name).input_shape)
    quant.initialise(model, [x])
    model.train()(x).square().mean().backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or p.grad.isnan().any())]
    assert not missing


def test_configurations_follow_the_graph() -> None:
    found = configs(plan_of(create("silu_se_net"), first_last="same"))
    assert found["conv_stem"] == (2,)  # the image
    assert found["blocks.1.0.conv_pw"] == (2,)  # behind a linear bottleneck
    assert found["blocks.1.0.conv_dw"] == (4,)  # behind SiLU
    assert found["blocks.1.0.se.conv_reduce"] == (4,)  # the mean of it
    assert found["blocks.1.0.se.mul"] == (4, 1)  # SiLU times a sigmoid gate
    assert found["blocks.1.0.conv_pwl"] == (4,)
    assert found["blocks.1.1.add"] == (2, 2)
    assert set(configs(plan_of(create("resnet20"))).values()) == {(2,), (1,), (2, 1)}


@pytest.mark.parametrize("config", [1, 2, 3, 4])
def test_a_chosen_configuration_spares_gates_and_linear_outputs(config: int) -> None:
    """LSQ+ 5.1: no offset behind a sigmoid, symmetric signed behind a layer without activation."""
    found = configs(plan_of(create("silu_se_net"), config=config, first_last="same"))
    assert found["conv_stem"] == found["blocks.1.0.conv_pw"] == (2,)
    assert found["blocks.1.0.conv_dw"] == (config,)
    assert found["blocks.1.0.se.mul"] == (config, 1)


def test_functions_become_modules_and_the_network_stays_the_same_network() -> None:
    torch.manual_seed(0)
    model = Functional()
    quantized, plan = quant.quantize(model, weight_bits=8, act_bits=8)
    kinds = {n: type(m) for n, m in quantized.named_modules() if getattr(m, "is_quantized_layer", False)}
    assert kinds == {
        "conv1": QConv2d, "reduce": QConv2d, "conv2": QConv2d, "head": QLinear, "mul": QMul, "add": QAdd,
        "cat": QConcat, "mean": QMean,
    }  # fmt: skip
    assert configs(plan) == {
        "conv1": (2,), "mean": (4,), "reduce": (4,), "mul": (4, 1), "conv2": (4,), "add": (2, 4), "cat": (1, 4),
        "head": (4,),
    }  # fmt: skip
    assert [left.op for left in plan.left] == []
    x = torch.randn(8, 3, 8, 8)
    quant.initialise(quantized, [x])
    assert quantized.training
    assert not torch.equal(quantized(x), quantized(x))  # dropout is still random in training
    model.eval(), quantized.eval()
    assert torch.equal(quantized(x), quantized(x))
    error = (quantized(x) - model(x)).norm() / model(x).norm()
    assert 0 < error < 0.1
    assert set(model.state_dict()) <= set(quantized.state_dict())


def test_attention_in_all_its_spellings() -> None:
    torch.manual_seed(0)
    model = Attention()
    quantized, plan = quant.quantize(model, weight_bits=8, act_bits=8, weight_granularity="channel")
    kinds = [type(m) for m in quantized.modules() if getattr(m, "is_quantized_layer", False)]
    assert kinds.count(QAttention) == 2  # one of them inside the module
    assert kinds.count(QMultiheadAttention) == 1
    assert kinds.count(QMatmul) == 2 + 2 * 2
    assert kinds.count(QEmbedding) == 1
    assert {layer.op for layer in plan.layers} == {
        "embedding", "linear", "attention", "add", "multiheadattention", "matmul",
    }  # fmt: skip
    probabilities = next(layer for layer in plan.layers if layer.op == "attention").inputs[2]
    assert (probabilities.signed, probabilities.offset) == (False, False)
    index = torch.randint(0, 20, (4, 6))
    quant.initialise(quantized, [index])
    assert quantized.get_submodule("attention" if hasattr(quantized, "attention") else "scaleddotproductattention")
    model.eval(), quantized.eval()
    error = (quantized(index) - model(index)).norm() / model(index).norm()
    assert 0 < error < 0.1
    quantized.train()(index).sum().backward()


def test_activations_written_by_hand_are_recognised() -> None:
    plan = plan_of(HandWritten(branch=False), first_last="same")
    assert configs(plan) == {"conv1": (2,), "conv2": (4,), "conv3": (4,), "conv4": (1,)}
    reasons = {left.why for left in plan.left}
    assert reasons == {"an activation function written as a product", "one operand is a constant"}


def test_models_that_cannot_be_traced_need_an_example() -> None:
    model = HandWritten(branch=True)
    with pytest.raises(ValueError, match=r"cannot be traced symbolically .* pass example="):
        plan_of(model)
    plan = plan_of(model, example=torch.randn(2, 4, 6, 6), first_last="same")
    assert configs(plan) == {"conv1": (2,), "conv2": (4,), "conv3": (4,), "conv4": (1,)}


def test_layers_that_the_graph_does_not_show_are_listed() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.unused = nn.Conv2d(3, 3, 3)
            self.both = nn.Bilinear(8, 8, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.both(x, x)

    left = {entry.name: entry.why for entry in plan_of(Hidden()).left}
    assert left["both"] == "no quantized counterpart"
    assert "not called" in left["unused"]


def test_code_that_depends_on_training_mode_is_not_frozen() -> None:
    class Fickle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.fc(x) + x
            return y * 2 if self.training else y

    model, plan = quant.quantize(Fickle(), weight_bits=4, act_bits=4)
    assert type(model) is Fickle
    assert isinstance(model.fc, QLinear)
    assert any("depends on training mode" in left.why for left in plan.left)


def test_first_and_last_layers_have_8_bits_unless_asked_not_to() -> None:
    layers = {layer.name: layer for layer in plan_of(create("resnet8"), weight_bits=2, act_bits=3).layers}
    for name in ("stem.conv", "linear"):
        assert (layers[name].weight.bits, layers[name].inputs[0].bits) == (8, 8)
        assert "first or last layer" in layers[name].note
    assert (layers["blocks.0.first.conv"].weight.bits, layers["blocks.0.first.conv"].inputs[0].bits) == (2, 3)
    same = plan_of(create("resnet8"), weight_bits=2, act_bits=3, first_last="same").layers
    assert {layer.weight.bits for layer in same if layer.weight} == {2}


def test_elementwise_bits() -> None:
    def bits(choice: int | str) -> set[int]:
        return {spec.bits for layer in plan_of(create("resnet8"), elementwise_bits=choice).layers
                for spec in layer.inputs if layer.op == "add"}  # fmt: skip

    assert bits(8) == {8}
    assert bits("same") == {4}
    assert bits("float") == set()
    left = plan_of(create("resnet8"), elementwise_bits="float").left
    assert next((x.name, x.why) for x in left) == ("blocks.0.add", "elementwise_bits='float'")


def test_shared_inputs_give_one_step_where_the_specs_agree() -> None:
    model, plan = quant.quantize(create("silu_se_net"), weight_bits=4, act_bits=4, shared_inputs=True)
    assert model.blocks[1][1].add.shared
    assert not model.blocks[1][1].se.mul.shared
    assert any("one step for all inputs" in layer.note for layer in plan.layers)


def test_overrides_by_name_pattern(tmp_path: Path) -> None:
    file = tmp_path / "bits.yaml"
    file.write_text(
        "'blocks.*':\n  weight_bits: 2\n'blocks.1.*':\n  weight_bits: 3\n  act_bits: 6\n  config: 3\n"
        "  padding_policy: pad_beta\n  weight_granularity: channel\nstem.conv:\n  skip: true\n",
        encoding="utf-8",
    )
    plan = plan_of(create("resnet8"), overrides=file)
    layers = {layer.name: layer for layer in plan.layers}
    first, second = layers["blocks.0.first.conv"], layers["blocks.1.second.conv"]
    assert (first.weight.bits, first.inputs[0].bits) == (2, 4)
    assert (second.weight.bits, second.inputs[0].bits, second.inputs[0].config) == (3, 6, 3)
    assert second.weight.granularity == "channel"
    assert second.padding_policy == "pad_beta"
    assert "stem.conv" not in layers
    assert [left.why for left in plan.left] == ["skipped by an override"]
    assert plan_of(create("resnet8"), overrides=json.loads(json.dumps(plan.settings["overrides"]))) == plan


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"weight_bits": 9}, "bits: expected 1 to 8 or 16, got 9"),
        ({"act_bits": 0}, "bits: expected 1 to 8 or 16, got 0"),
        ({"elementwise_bits": 12}, "bits: expected 1 to 8 or 16, got 12"),
        ({"config": 5}, "config: expected one of auto, 1, 2, 3, 4, got 5"),
        ({"first_last": "none"}, "first_last: expected one of 8bit, same"),
        ({"padding_policy": "zero"}, "padding_policy: expected one of"),
        ({"method": "lsq++"}, "method: expected one of"),
        ({"init": "random"}, "init: expected one of"),
        ({"clip_rule": "loose"}, "clip_rule: expected one of"),
        ({"offset_mode": "free"}, "offset_mode: expected one of"),
        ({"weight_granularity": "block"}, "weight_granularity: expected one of"),
        ({"overrides": {"conv9": {"weight_bits": 2}}}, "'conv9' matches no layer; there are stem.conv"),
        ({"overrides": {"stem.conv": {"wbits": 2}}}, "'stem.conv': expected one of weight_bits"),
        ({"overrides": {"stem.conv": {"weight_bits": 77}}}, "'stem.conv': QuantSpec.bits: expected"),
        ({"overrides": {"stem.conv": 4}}, "expected a mapping of choices, got 4"),
        ({"method": "qil", "weight_bits": 1}, "no signed 1-bit codes"),
    ],
)
def test_choices_that_mean_nothing_are_refused(choices: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_of(create("resnet8"), **choices)


def test_a_quantized_model_is_not_quantized_again() -> None:
    model, _ = quant.quantize(create("resnet8"), weight_bits=4, act_bits=4)
    with pytest.raises(ValueError, match="has quantized layers already"):
        plan_of(model)


def test_the_float_model_is_left_alone() -> None:
    torch.manual_seed(0)
    model = create("resnet8")
    before = copy.deepcopy(model.state_dict())
    quantized, _ = quant.quantize(model, weight_bits=2, act_bits=2)
    with torch.no_grad():
        for parameter in quantized.parameters():
            parameter.fill_(1)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not any(getattr(m, "is_quantized_layer", False) for m in model.modules())


def test_the_plan_prints_every_layer_with_its_reason() -> None:
    plan = plan_of(create("silu_se_net"))
    text = str(plan)
    for layer in plan.layers:
        assert layer.name in text
    assert "after silu (blocks.1.0.act1)" in text
    assert "first or last layer at 8 bits" in text
    rows = plan.to_frame()
    assert sum(row["operand"] == "weight" for row in rows) == sum(layer.weight is not None for layer in plan.layers)
    assert json.loads(json.dumps(plan.to_dict()))["settings"]["weight_bits"] == 4


def test_the_settings_of_a_plan_rebuild_it() -> None:
    overrides = {"blocks.*": {"weight_bits": 3, "config": 3}}
    plan = plan_of(create("resnet8"), overrides=overrides, padding_policy="pad_beta", weight_granularity="channel")
    settings = json.loads(json.dumps(plan.to_dict()["settings"]))
    assert quant.quantize(create("resnet8"), **settings)[1] == plan


def test_absorbed_zero_padding_follows_the_policy() -> None:
    model, _ = quant.quantize(create("resnet8"), weight_bits=4, act_bits=4, config=4, padding_policy="pad_beta")
    layer = model.blocks[1].first
    assert isinstance(layer.pad, nn.Identity)
    assert layer.conv.extra_padding == (0, 1, 0, 1)
    assert layer.conv.total_padding() == [0, 1, 0, 1]


def test_shared_layers_take_the_wider_of_their_inputs() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(F.relu(self.conv(F.silu(x))))

    assert configs(plan_of(Twice())) == {"conv": (4,)}


def test_ranges_of_sizes_are_not_tensors() -> None:
    class Reshaping(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            batch, channels = x.shape[0], x.size(1)
            return F.relu(x).view(batch, channels * 2 // 2, -1) * (channels + batch)

    ops = context.trace(Reshaping())
    assert [op.kind for op in ops if op.is_tensor] == ["placeholder", "relu", "view", "mul", "output"]
    assert ops[-2].range.kind in ("unsigned", "signed")


def test_the_plan_warns_of_dead_channels_before_a_batch_norm_and_of_nothing_else() -> None:
    """At 2 bits the Gaussian rule rounds a narrow channel to 0; least squared error per channel keeps it."""
    torch.manual_seed(0)
    with_norm = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
    with torch.no_grad():
        for layer in (with_norm[0], with_norm[3]):
            layer.weight[2] *= 0.01  # only the first is followed by a batch norm
    plan = plan_of(with_norm, weight_bits=2, first_last="same")
    assert len(plan.warnings) == 1
    assert plan.warnings[0].startswith(
        "1 output channels in 1 layers (0: 1 of 8) have no weight but 0 and a batch norm"
    )
    assert f"warning: {plan.warnings[0]}" in str(plan)
    assert plan_of(with_norm, weight_bits=2, first_last="same", weight_granularity="channel").warnings == ()
    assert plan_of(with_norm, weight_bits=8, first_last="same").warnings == ()


def test_the_plan_warns_of_unsigned_steps_as_printed() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    (warning,) = plan_of(network, positivity="printed").warnings
    assert "n = 0" in warning
    assert "(2)" in warning
    assert plan_of(network, positivity="printed", config=2).warnings == ()
    assert plan_of(network).warnings == ()


def test_a_pointwise_function_with_a_computed_operand_is_left_with_its_reason() -> None:
    class Limited(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
            self.register_buffer("limit", torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.one(x)
            y = torch.clamp(y, max=self.two(x)).pow(torch.sigmoid(y))
            return self.out(torch.clamp(y, max=self.limit))

    left = plan_of(Limited()).left
    assert [entry.op for entry in left] == ["clamp", "pow"]
    assert "torch.minimum" in left[0].why
