"""What quantize() is given that is no plain network: wrappers, arguments that are no tensors, code no graph holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import hwsim
import quant
import quant.calling
from hwsim.errors import UnsupportedOp
from hwsim.integer import certify


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Weights and inputs are the same in every run: by chance a layer may see zeros alone, which is a warning."""
    torch.manual_seed(0)


class Optional(nn.Module):
    """A network with arguments that are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, times: int, mask: torch.Tensor | None) -> torch.Tensor:
        y = self.layer(x) * times
        return y if mask is None else y * mask


def test_arguments_that_are_no_tensors_stay_what_the_example_says() -> None:
    example = (torch.randn(4, 8), 3, None)
    model = Optional().eval()
    result, _ = quant.quantize(model, weight_bits=8, act_bits=8, example=example)
    quant.initialise(result, [example])
    assert torch.dist(result.eval()(*example), model(*example)) < 0.05 * model(*example).norm()


class WithExtra(nn.Module):
    """A second input that may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 4), nn.Linear(3, 4)

    def forward(self, x: torch.Tensor, extra: torch.Tensor | None = None) -> torch.Tensor:
        return self.a(x) if extra is None else self.a(x) + self.b(extra)


def test_an_optional_input_of_the_example_is_an_input_from_then_on() -> None:
    model, example = WithExtra().eval(), (torch.randn(4, 8), torch.randn(4, 3))
    result, plan = quant.quantize(model, weight_bits=8, act_bits=8, example=example)
    quant.initialise(result, [example])
    assert [layer.op for layer in plan.layers] == ["linear", "linear", "add"]
    assert torch.dist(result.eval()(*example), model(*example)) < 0.05 * model(*example).norm()


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 4, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.gru(nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True))[1]


def test_packed_sequences_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"pack_padded_sequence: lengths are values.*give padded sequences"):
        quant.quantize(Packed(), weight_bits=8, act_bits=8)


class Writes(nn.Module):
    """A network whose code writes into tensors by a way that no graph shows."""

    def __init__(self, write: Callable[[torch.Tensor, torch.Tensor], object]) -> None:
        super().__init__()
        self.layer, self.last, self.write = nn.Linear(8, 8), nn.Linear(8, 4), write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        self.write(y, y.relu())
        return self.last(y)


def assign_data(y: torch.Tensor, z: torch.Tensor) -> None:
    y.data = z


WRITES = {
    ".data is in no graph": assign_data,
    "_foreach_add_ writes into several": lambda y, z: torch._foreach_add_([y], [z]),
}


@pytest.mark.parametrize("message", WRITES)
def test_writes_that_no_graph_shows_are_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quant.quantize(Writes(WRITES[message]), weight_bits=8, act_bits=8)


def test_constants_made_in_forward_follow_the_model_and_no_checkpoint() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) + x.relu()[:, :4] * torch.tensor([1.0, 2.0, 3.0, 4.0])

    result, plan = quant.quantize(Scaled(), weight_bits=8, act_bits=8)
    quant.initialise(result, [torch.randn(4, 8)])
    assert [left.why for left in plan.left] == []
    assert result.double()(torch.randn(2, 8, dtype=torch.float64)).dtype == torch.float64
    assert not any("_tensor_constant" in key for key in result.state_dict())


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (torch.jit.script, "TorchScript module"),
        (torch.compile, r"quantize model\._orig_mod"),
        (nn.DataParallel, r"quantize model\.module"),
        (torch.optim.swa_utils.AveragedModel, r"quantize model\.module"),
        (lambda net: nn.Sequential(net, nn.LazyLinear(3)), r"1\.weight has no size yet"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_modules_that_hide_the_network_are_refused_with_the_way_out(wrap: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quant.quantize(wrap(nn.Sequential(nn.Linear(8, 4), nn.ReLU())), weight_bits=8, act_bits=8)


def test_a_graph_that_no_export_reads_is_refused_without_a_word_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    class Looks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.max().item() > 0 else x

    with pytest.raises(ValueError, match=r"neither by symbolic tracing .* nor by torch\.export"):
        quant.quantize(Looks(), weight_bits=8, act_bits=8, example=torch.ones(2, 3))
    assert capfd.readouterr() == ("", "")


class OfADictionary(nn.Module):
    """One argument that holds all inputs, nested results."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 4), nn.Linear(3, 4)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, object]:
        y = torch.relu(self.a(batch["image"])) + self.b(batch["numbers"])
        return {"loss": None, "logits": y, "parts": [y, (y,)]}


class OfPairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 4)

    def forward(self, pair: tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        u, (v, w) = pair
        return torch.relu(self.a(u)) + self.a(v) * self.a(w)


class OfAList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 4), nn.Linear(4, 2)

    def forward(self, images: list[torch.Tensor]) -> torch.Tensor:
        total = 0
        for image in images:
            total = total + torch.relu(self.a(image))
        return self.b(total)


class OfItems(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"u": nn.Linear(8, 4), "v": nn.Linear(3, 4)})

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([torch.relu(self.layers[name](x)) for name, x in batch.items()], -1)


DRAWS = torch.Generator().manual_seed(0)


def drawn(features: int) -> torch.Tensor:
    """Five rows, the same in every run."""
    return torch.randn(5, features, generator=DRAWS)


NESTED = [
    (OfADictionary, ({"image": drawn(8), "numbers": drawn(3)},), ["linear", "linear", "add"]),
    (OfPairs, ((drawn(8), (drawn(8), drawn(8))),), ["linear", "mul", "add"]),
    (OfAList, ([drawn(8), drawn(8)],), ["linear", "add", "linear"]),
    (OfItems, ({"u": drawn(8), "v": drawn(3)},), ["linear", "linear", "concat"]),
]


@pytest.mark.parametrize(("kind", "example", "operations"), NESTED)
def test_lists_and_dictionaries_as_arguments_go_through_all_steps(
    kind: type[nn.Module], example: tuple[object, ...], operations: list[str]
) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    made, plan = quant.quantize(model, weight_bits=8, act_bits=8, example=example)
    assert sorted(layer.op for layer in plan.layers) == sorted(operations)
    quant.initialise(made, [example]).eval()
    ours, theirs = (quant.calling.answer(net(*example)) for net in (made, model))
    assert (ours - theirs).norm() < 0.03 * theirs.norm()
    assert hwsim.extract(made, example).macs == hwsim.extract(model, example).macs
    with pytest.raises(UnsupportedOp, match="as an argument of its own"):
        certify(made, example)


class Leaf(nn.Module):
    """A module of the user's own around one product of activations."""

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return 2 * torch.relu(q @ k.transpose(1, 2))


class BranchesOnSize(nn.Module):
    """No symbolic trace; torch.export reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.leaf = nn.Linear(8, 8), Leaf()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x if x.shape[1] > 2 else x * 2)
        return self.leaf(y, x)


def test_a_module_around_a_product_is_not_taken_for_the_product() -> None:
    model, x = BranchesOnSize().eval(), torch.randn(2, 5, 8)
    result, plan = quant.quantize(model, weight_bits=8, act_bits=8, example=x)
    quant.initialise(result, [x])
    assert torch.dist(result.eval()(x), model(x)) < 0.03 * model(x).norm()
    assert {left.name for left in plan.left} >= {"leaf.matmul"}


class OtherWeights(nn.Module):
    """A layer that is called with weights of somebody else."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.weight = nn.Linear(8, 4), nn.Parameter(torch.randn(4, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        given = {"weight": self.weight, "bias": torch.zeros(4)}
        return torch.func.functional_call(self.layer, given, (x,))  # pyright: ignore[reportReturnType]


def test_functional_call_is_computed_with_the_weights_it_gives() -> None:
    model, x = OtherWeights().eval(), torch.randn(3, 8)
    result, plan = quant.quantize(model, weight_bits=8, act_bits=8, example=x)
    assert torch.equal(result.eval()(x), model(x))
    assert plan.left
    assert not plan.layers
    with pytest.raises(ValueError, match=r"cannot be traced symbolically.*; pass example="):
        quant.quantize(model, weight_bits=8, act_bits=8)


class WritesState(nn.Module):
    """A running mean that the forward pass replaces."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.past = nn.Linear(8, 8), [torch.zeros(8)]
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        self.mean = 0.9 * self.mean + 0.1 * y.mean(0)
        self.past.append(self.mean)
        return y - self.mean


def test_a_trace_leaves_no_graph_values_in_the_model() -> None:
    model, x = WritesState().eval(), torch.randn(3, 8)
    with pytest.raises(ValueError, match="the forward pass writes"):
        quant.quantize(model, weight_bits=8, act_bits=8)
    result, _ = quant.quantize(model, weight_bits=8, act_bits=8, example=x)
    assert isinstance(result.mean, torch.Tensor)
    assert all(isinstance(past, torch.Tensor) for past in result.past)


class HooksFill(nn.Module):
    """Features that a hook's closure stores in the model."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.found = nn.Linear(8, 8), {}
        self.layer.register_forward_hook(lambda *given: self.found.update(y=given[2]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.found["y"]


def test_a_hook_that_holds_the_model_is_refused() -> None:
    model, x = HooksFill().eval(), torch.randn(3, 8)
    model(x)
    with pytest.raises(ValueError, match="a hook of layer holds the model"):
        quant.quantize(model, weight_bits=8, act_bits=8, example=x)


def test_a_number_of_the_example_is_the_default_from_then_on() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor, n: int = 2) -> torch.Tensor:
            return self.layer(x[:, :n].mean(1))

    model, x = Cut().eval(), torch.randn(3, 5, 8)
    result, _ = quant.quantize(model, weight_bits=8, act_bits=8, example=(x, 3))
    quant.initialise(result, [(x, 3)])
    assert torch.dist(result.eval()(x), model(x, 3)) < 0.03 * model(x, 3).norm()


def test_examples_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"example: too many positional arguments; forward takes"):
        quant.quantize(nn.Linear(8, 4), weight_bits=8, act_bits=8, example=(torch.zeros(1, 8), 1, 2))
    meta, _ = quant.quantize(nn.Linear(8, 4, device="meta"), weight_bits=8, act_bits=8)
    with pytest.raises(ValueError, match="meta device, which holds no numbers"):
        quant.initialise(meta, [torch.zeros(1, 8)])


def test_the_answer_may_lie_in_a_list_of_results() -> None:
    assert quant.calling.answer(([torch.ones(1)], {"count": 3})) == 1


class Experts(nn.Module):
    """Two of four experts for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = nn.Linear(8, 4), nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gates, chosen = self.router(x).softmax(-1).topk(2, -1)
        made = torch.stack([expert(x) for expert in self.experts], -2)
        return (made.gather(-2, chosen[..., None].expand(-1, -1, 8)) * gates[..., None]).sum(-2)


def test_a_choice_by_values_is_named_and_all_other_rows_stay_close() -> None:
    for seed in (0, 9, 11):
        torch.manual_seed(seed)
        model, x = Experts().eval(), torch.randn(200, 8)
        result, plan = quant.quantize(model, weight_bits=8, act_bits=8)
        assert any("topk choose by values" in warning for warning in plan.warnings)
        quant.initialise(result, [x])
        error = (result.eval()(x) - model(x)).norm(dim=1) / model(x).norm(dim=1)
        near = error < 0.1
        assert near.float().mean() > 0.9
        assert torch.dist(result(x)[near], model(x)[near]) < 0.03 * model(x)[near].norm()


class HoldsItself(nn.Module):
    """A function made in the module, which asks another module for the mode of training."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.drop = nn.Linear(8, 8), nn.Linear(8, 8), nn.Dropout(0.3)
        self.pick = lambda x: self.a(x) if self.drop.training else self.b(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pick(x)


def test_a_function_that_holds_the_module_is_refused_or_left_in_float() -> None:
    model, x = HoldsItself().eval(), torch.randn(4, 8)
    with pytest.raises(ValueError, match="a function that holds the module it was made in"):
        quant.quantize(model, weight_bits=8, act_bits=8)
    result, plan = quant.quantize(model, weight_bits=8, act_bits=8, example=x)
    assert torch.equal(result.eval()(x), model(x))
    assert not plan.layers


class Starred(nn.Module):
    """Any number of inputs, by position and by name."""

    def __init__(self, looks: bool) -> None:
        super().__init__()
        self.layer, self.looks = nn.Linear(8, 4), looks

    def forward(self, *images: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        if self.looks and images[0].shape[0] > 1:  # no symbolic trace
            images = tuple(image * 1 for image in images)
        total = sum(torch.relu(self.layer(image)) for image in images)
        return total + self.layer(more["last"]) if more else total  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("looks", [False, True])
def test_starred_arguments_are_those_of_the_example(looks: bool) -> None:
    model, given = Starred(looks).eval(), (torch.randn(5, 8), torch.randn(5, 8))
    result, plan = quant.quantize(model, weight_bits=8, act_bits=8, example=given)
    quant.initialise(result, [given], forward=lambda net, batch: net(*batch))
    assert torch.dist(result.eval()(*given), model(*given)) < 0.03 * model(*given).norm()
    assert [layer.op for layer in plan.layers][:2] == ["linear", "add"][: 1 if looks else 2]
