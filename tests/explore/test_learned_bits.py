"""The differentiable cost: equal to the tables at integer bits, its gradient equal to differences; bits are learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hwsim.explore.bits.bill import BitProblem, bit_problem
from hwsim.explore.bits.choices import Freedom
from hwsim.explore.bits.learned import SoftCost, learn_bits
from hwsim.explore.bits.problem import Problem
from hwsim.frontends.torch_export import extract
from hwsim.machine.load import load_accelerator
from quant.convert import quantize
from quant.whole_models import initialise
from tests.small_networks import Residual


@pytest.fixture(scope="module")
def made() -> BitProblem:
    workload = extract(Residual(), torch.zeros(1, 3, 6, 6), name="net")
    return bit_problem(workload, load_accelerator("bit_fusion"), Freedom((2, 4, 8), (2, 8), "free"))


def set_bits(cost: SoftCost, bits: list[float]) -> None:
    with torch.no_grad():
        cost.bits.copy_(torch.tensor(bits, dtype=torch.float64))


@pytest.mark.parametrize("measure", ["energy_pj", "latency_cycles", "weight_bits", "peak_activation_bits", "bops"])
def test_at_integer_bits_it_is_the_table(made: BitProblem, measure: str) -> None:
    cost = SoftCost(made, measure)
    for picks in made.problem.random_picks(20, np.random.default_rng(0)):
        set_bits(cost, [float(w) for w in made.problem.widths(picks)])
        assert float(cost.value().detach()) == pytest.approx(made.problem.solution(picks).values[measure], rel=1e-14)


@pytest.mark.parametrize("measure", ["energy_pj", "latency_cycles"])
def test_between_widths_its_gradient_is_that_of_differences(made: BitProblem, measure: str) -> None:
    cost, rng = SoftCost(made, measure), np.random.default_rng(1)
    lows = [float(w[0]) for w in cost.widths]
    highs = [float(w[-1]) for w in cost.widths]
    bits = [low + (high - low) * (0.1 + 0.37 * rng.random()) for low, high in zip(lows, highs, strict=True)]
    set_bits(cost, bits)
    cost.value().backward()
    exact = cost.bits.grad.clone()
    step = 1e-4
    for i, width in enumerate(cost.widths):
        if len(width) == 1:
            assert exact[i] == 0
            continue
        values = []
        for sign in (1, -1):
            set_bits(cost, [b + sign * step * (j == i) for j, b in enumerate(bits)])
            values.append(float(cost.value().detach()))
        assert float(exact[i]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-3)


def test_at_its_widths_the_network_is_the_quantized_one(made: BitProblem) -> None:
    torch.manual_seed(0)
    model, x = Residual().eval(), torch.randn(8, 3, 6, 6)
    cost = SoftCost(made)
    net = learn_bits(model, cost, [x]).eval()
    set_bits(cost, [float(w[0]) for w in cost.widths])
    overrides = {}
    for entry in made.freed:
        for site in entry.sites:
            key = "weight_bits" if site.operand == "weight" else "act_bits"
            overrides.setdefault(site.layer, {})[key] = entry.choice.widths[0]
    whole, _ = quantize(model, weight_bits=8, act_bits=8, init="mse", first_last="same", overrides=overrides)
    initialise(whole, [x])
    assert torch.allclose(net(x), whole.eval()(x), atol=1e-6)


def test_three_lines_learn_bits_that_cost_less(made: BitProblem) -> None:
    torch.manual_seed(0)
    model, x, y = Residual(), torch.randn(32, 3, 6, 6), torch.randint(0, 4, (32,))
    cost = SoftCost(made, "energy_pj")
    net = learn_bits(model, cost, [x])
    optimizer = torch.optim.Adam([{"params": net.network.parameters()}, {"params": cost.parameters(), "lr": 0.5}], 1e-3)
    for _ in range(12):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y) + 5.0 * cost()
        loss.backward()
        optimizer.step()
    widest = made.problem.solution([len(c.widths) - 1 for c in made.problem.choices])
    assert cost.solution().values["energy_pj"] < widest.values["energy_pj"]
    assert float(cost().detach()) < 0.9


def test_refused_combinations_have_no_cost_in_between(made: BitProblem) -> None:
    from hwsim.errors import SpecError
    from hwsim.explore.bits.problem import Refusal

    problem = made.problem
    scope = tuple(i for i, c in enumerate(problem.choices) if len(c.widths) > 1)[:2]
    mask = np.zeros([len(problem.choices[i].widths) for i in scope], dtype=bool)
    mask.flat[0] = True
    refusing = Problem(problem.choices, problem.measures, (Refusal(scope, mask, "last: the machine refuses"),))
    with pytest.raises(SpecError, match="allow only widths that it runs"):
        SoftCost(BitProblem(made.workload, made.accelerator, made.freed, refusing, made.objective))


def test_the_example_of_the_documentation_runs(made: BitProblem) -> None:
    page = (Path(__file__).parents[2] / "docs" / "exploration.md").read_text(encoding="utf-8")
    example = next(block.partition("```")[0] for block in page.split("```python\n")[1:] if "SoftCost" in block)
    x, y = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
    names = {
        "problem": made, "model": Residual(), "calibration_batches": [x], "x": x, "y": y, "strength": 1.0, "F": F,
        "SoftCost": SoftCost, "learn_bits": learn_bits,
    }  # fmt: skip
    exec(example, names)
    names["loss"].backward()
    assert names["cost"].bits.grad.abs().sum() > 0
