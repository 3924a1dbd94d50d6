"""Random networks: at 8 bits near the float network, or refused by name; integers and ONNX compute the same."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

import quant
from hwsim.errors import UnsupportedOp
from hwsim.integer.export.onnx_check import agreement
from hwsim.integer.export.onnx_source import onnx_network
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.certificate import certify
from quant.calling import answer
from tests.quant.random_networks import Plan, Step, network, networks

QUICK = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
NEAR, CERTIFIED, EXPORTED = 0.7, 0.5, 0.1  # shares that must have an answer
LONG = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


def quantized(plan: Plan) -> tuple[nn.Module, nn.Module, tuple[torch.Tensor, ...]] | None:
    """(float, quantized, inputs), or None where the network is refused by name."""
    model, inputs = network(plan)
    try:
        result, _ = quant.quantize(model, weight_bits=8, act_bits=8, init="mse", weight_granularity="channel")
    except ValueError as refusal:
        if "reads by another name" not in str(refusal):
            raise
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*saw one value only")  # x - x
        quant.initialise(result, [inputs])
    return model, result.eval(), inputs


def near(plan: Plan) -> str:
    """8 bits within 3 % of float; returns the outcome."""
    made = quantized(plan)
    if made is None:
        return "refused"
    model, result, inputs = made
    with torch.no_grad():
        expected = answer(model(*[x.clone() for x in inputs]))
        found = answer(result(*[x.clone() for x in inputs]))
    if (found - expected).norm() <= 0.03 * expected.norm():
        return "near"
    # A difference of like values leaves little but rounding, which 16 bits take away; another network would stay.
    wide, _ = quant.quantize(model, weight_bits=16, act_bits=16, elementwise_bits=16, weight_granularity="channel")
    quant.initialise(wide, [inputs]).eval()
    with torch.no_grad():
        found = answer(wide(*[x.clone() for x in inputs]))
    assert (found - expected).norm() <= 0.01 * max(expected.norm(), 0.05 * expected.numel() ** 0.5)
    return "near at 16 bits"


def exported(plan: Plan) -> str:
    """The file's codes are the integer machine's, but for ties in its float32 arithmetic; returns the outcome."""
    made = quantized(plan)
    if made is None:
        return "refused"
    _, result, inputs = made
    images = inputs if plan.inputs > 1 else inputs[0]
    try:
        file, lowered = onnx_network(result, images), lower(result, images)
        found = agreement(file, lowered, images)
    except UnsupportedOp as refusal:
        if not re.search(r"layer .+", str(refusal)):
            raise
        return f"not exported: {re.sub(r'layer [^:]*|^.*Inputs?: ', '', str(refusal))}"
    assert found.differing <= 1e-3 * found.codes + 1
    assert found.largest <= 1
    return "equal"


def certified(plan: Plan) -> str:
    """Every code that of float64; returns the outcome."""
    made = quantized(plan)
    if made is None:
        return "refused"
    _, result, inputs = made
    try:
        assert certify(result, inputs).equal
    except UnsupportedOp as refusal:
        if not re.search(r"layer .*: quantize its operands", str(refusal)):
            raise
        return "refused by the machine"
    return "equal"


def plan_of(*kinds: str, inputs: int = 2, named: bool = False, words: bool = True) -> Plan:
    """A plan of these steps, each on the two newest values."""
    return Plan(tuple(Step(kind, 0, 1) for kind in kinds), inputs, named, 1, words)


@pytest.mark.long
@pytest.mark.parametrize(
    "plan",
    [
        plan_of("transposed", "maximum", "minimum", named=True),
        plan_of("conv", "stack", "into_", inputs=3),
        plan_of("linear", "sub_", "concat", inputs=1),
        plan_of("shared", "into_", inputs=3),  # a batch norm in a functional graph has three results
    ],
)
def test_new_operators_are_exported_not_refused(plan: Plan) -> None:
    pytest.importorskip("onnxruntime")
    assert exported(plan) == "equal"


@pytest.mark.long
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_recurrent_layers_run_as_integers_and_are_not_exported(kind: str) -> None:
    plan = plan_of("conv", f"started_{kind}", words=False)
    assert (near(plan), certified(plan)) == ("near", "equal")
    assert re.search(rf"{kind}\w* has no ONNX counterpart here", exported(plan))


def answered(check: Callable[[Plan], str], how: settings, least: float, *, answers: str = "near|equal") -> None:
    """Run a check over random networks; at least a share of them must have an answer, not a refusal."""
    outcomes: Counter[str] = Counter()

    @given(networks())
    @how
    def each(plan: Plan) -> None:
        outcomes[check(plan)] += 1

    each()
    print(dict(outcomes))
    found = sum(n for outcome, n in outcomes.items() if re.match(answers, outcome))
    assert found >= least * outcomes.total(), outcomes


@pytest.mark.long
def test_eight_bits_are_near_float() -> None:
    answered(near, QUICK, NEAR)


@pytest.mark.long
def test_the_integer_machine_computes_every_code() -> None:
    answered(certified, settings(QUICK, max_examples=6), CERTIFIED)


@pytest.mark.slow
def test_eight_bits_are_near_float_at_length() -> None:
    answered(near, LONG, NEAR)


@pytest.mark.slow
def test_the_integer_machine_computes_every_code_at_length() -> None:
    answered(certified, settings(LONG, max_examples=100), CERTIFIED)


@pytest.mark.slow
def test_exported_networks_compute_the_same_elsewhere() -> None:
    pytest.importorskip("onnxruntime")
    answered(exported, settings(LONG, max_examples=40), EXPORTED)
