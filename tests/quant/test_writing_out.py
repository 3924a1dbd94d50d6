"""Operators that are written out by others and then quantized; and what stays in float, with a true reason."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import quant
from hwsim.errors import UnsupportedOp
from hwsim.frontends.torch_export import extract
from hwsim.integer import certify
from quant.calling import answer
from quant.writing_out import written_out

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 2}


class Code(nn.Module):
    """A forward pass given as a function, with the parts it uses."""

    def __init__(self, run: Any, **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def quantized(model: nn.Module, example: Any) -> tuple[nn.Module, dict[str, str]]:
    """The network at 8 bits after its first values, and by operator why something stays in float."""
    result, plan = quant.quantize(model, weight_bits=8, act_bits=8, example=example)
    quant.initialise(result, [example])
    return result.eval(), {left.op: left.why for left in plan.left}


def random_equation(rng: random.Random) -> tuple[str, list[list[int]]]:
    first, second = ("".join(rng.sample(list(SIZES), rng.randint(1, 4))) for _ in range(2))
    every = sorted(set(first + second))
    result = "".join(rng.sample(every, rng.randint(0, len(every))))
    shapes = [[SIZES[c] for c in term] for term in (first, second)]
    spelling = rng.randrange(4)
    if spelling == 0:
        return f"{first},{second}", shapes
    if spelling == 1:
        return f"...{first},{second} -> ...{result}", [[2, 3, *shapes[0]], shapes[1]]
    if spelling == 2:
        return f"...{first},...{second}->...{result}", [[2, 3, *shapes[0]], [3, *shapes[1]]]
    return f"{first},{second}->{result}", shapes


def test_an_einsum_of_two_tensors_is_a_matrix_product() -> None:
    rng, products = random.Random(0), 0
    for _ in range(600):
        equation, shapes = random_equation(rng)

        class Sum(nn.Module):
            def forward(self, x: Tensor, y: Tensor, text: str = equation) -> Tensor:
                return torch.einsum(text, x, y)

        graph = fx.Tracer().trace(Sum(), {"text": equation})
        written_out(graph, Sum())
        tensors = [torch.randn(*shape, dtype=torch.float64) for shape in shapes]
        made = fx.GraphModule(Sum(), graph)(*tensors, equation)
        torch.testing.assert_close(made, torch.einsum(equation, *tensors))
        products += any(node.target is torch.matmul for node in graph.nodes)
    assert products > 60


@pytest.mark.parametrize("gate", [lambda m, x: F.glu(m.wide(x)), lambda m, x: m.glu(m.wide(x))])
def test_a_gated_unit_is_a_product_with_a_gate(gate: Any) -> None:
    torch.manual_seed(0)
    model = Code(lambda m, x: m.last(gate(m, x)), wide=nn.Linear(8, 12), glu=nn.GLU(), last=nn.Linear(6, 3)).eval()
    x = torch.randn(4, 8)
    result, left = quantized(model, x)
    assert not left
    assert torch.dist(result(x), model(x)) < 0.03 * model(x).norm()
    assert certify(result, x).equal


def test_queries_that_share_keys_are_quantized() -> None:
    torch.manual_seed(0)

    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (-1, 4)).transpose(1, 2) for f in (m.q, m.k, m.v))
        return m.out(F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2))

    model = Code(run, q=nn.Linear(8, 16), k=nn.Linear(8, 8), v=nn.Linear(8, 8), out=nn.Linear(16, 5)).eval()
    x = torch.randn(2, 6, 8)
    result, left = quantized(model, x)
    assert not left
    assert torch.dist(result(x), model(x)) < 0.03 * model(x).norm()
    assert extract(result, x).macs == extract(model, x).macs
    assert certify(result, x).equal


def test_complex_numbers_stay_in_float_and_are_named() -> None:
    model = Code(
        lambda m, x: m.f(torch.view_as_real(torch.view_as_complex(m.f(x).unflatten(-1, (4, 2))) * m.turn).flatten(-2)),
        f=nn.Linear(8, 8), turn=nn.Parameter(torch.polar(torch.ones(4), torch.arange(4.0))),
    ).eval()  # fmt: skip
    x = torch.randn(2, 8)
    result, left = quantized(model, x)
    assert set(left) == {"viewascomplex", "viewasreal", "mul"}
    assert all(why.startswith("complex numbers") for why in left.values())
    assert torch.dist(result(x), model(x)) < 0.03 * model(x).norm()


@dataclasses.dataclass
class Result:
    hidden: Tensor
    logits: Tensor


def test_a_dataclass_holds_the_answer_and_is_no_operator() -> None:
    def run(m: Any, x: Tensor) -> Result:
        h = F.relu(m.f(x))
        return Result(h, m.g(h))

    model, x = Code(run, f=nn.Linear(8, 8), g=nn.Linear(8, 3)).eval(), torch.randn(2, 8)
    result, left = quantized(model, x)
    assert not left
    assert answer(result(x)).shape == (2, 3)


class Store:
    """A cache as users write one."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def update(self, x: Tensor) -> Tensor:
        self.x = torch.cat([self.x, x], 1)
        return self.x


class Cached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(8, 8)

    def forward(self, x: Tensor, cache: Store) -> Tensor:
        return self.f(cache.update(self.f(x)))


def test_what_an_object_computes_is_named() -> None:
    _, plan = quant.quantize(
        Cached(), weight_bits=8, act_bits=8, example=(torch.randn(1, 2, 8), Store(torch.randn(1, 5, 8)))
    )
    assert [(left.op, left.why.partition(":")[0]) for left in plan.left] == [
        ("update", "a method of an object that the network is given")
    ]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_code_that_torch_jit_keeps_is_named_with_the_way_out() -> None:
    inside = torch.jit.trace(nn.Linear(8, 8), torch.randn(2, 8))
    _, plan = quant.quantize(Code(lambda m, x: m.g(m.f(x)), f=inside, g=nn.Linear(8, 3)), weight_bits=8, act_bits=8)
    assert "give the module before torch.jit.script" in plan.left[0].why


def test_sparse_tensors_are_refused_by_name() -> None:
    model = Code(lambda m, x: m.f(m.graph @ x), f=nn.Linear(4, 3))
    model.register_buffer("graph", torch.eye(6).to_sparse())
    with pytest.raises(ValueError, match=r"graph is stored sparse.*to_dense"):
        quant.quantize(model, weight_bits=8, act_bits=8)


def test_a_network_for_one_batch_size_is_refused_without_a_word_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.f(x).view(2, 6, 4)
        return m.g((y.transpose(1, 2) @ y).flatten(1))

    model = Code(run, f=nn.Linear(6, 24), g=nn.Linear(16, 2))
    x = torch.randn(2, 6)
    result, _ = quantized(model.eval(), x)
    with pytest.raises(UnsupportedOp, match="one and on two rows"):
        certify(result, x)
    assert capfd.readouterr().err == ""
