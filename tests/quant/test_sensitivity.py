"""Sensitivities: each is what rounding that one operand does; the Hessian estimate meets a quadratic's exact trace."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quant.sensitivity import Subject, check_additivity, hessian_traces, main, measure, sites
from quant.whole_models import bypassed, quantizers
from tests.small_networks import Residual


@pytest.fixture
def subject() -> Subject:
    torch.manual_seed(0)
    net, images = Residual().eval(), 2 * torch.randn(24, 3, 8, 8)
    nn.init.normal_(net.last.weight, std=2.0)
    with torch.no_grad():
        labels = net(images).argmax(1)
    return Subject(net, [images[:16]], [(images[:16], labels[:16]), (images[16:], labels[16:])])


def test_every_place_that_rounds_is_measured_by_rounding_it_alone(subject: Subject) -> None:
    found = measure(subject, (2, 8), "mse")
    keys = [(s.layer, s.operand) for s in found]
    assert keys == [("first", "weight"), ("first", "input"), ("second", "weight"), ("second", "input"),
                    ("add", "input"), ("last", "weight"), ("last", "input")]  # fmt: skip
    made, _ = subject.at(2)
    alone = Residual().eval()
    alone.load_state_dict(subject.model.state_dict())
    weight = dict(quantizers(made))["second.weight_quantizer"]
    with torch.no_grad():
        alone.second.weight.copy_(weight(alone.second.weight))
        errors = [(alone(x) - subject.model(x)).square().mean(1) for x, _ in subject.batches]
    expected = float(torch.cat(errors).mean())
    assert found[2].loss_by_bits[2] == pytest.approx(expected, rel=1e-5)
    assert all(0 < s.loss_by_bits[8] < s.loss_by_bits[2] for s in found)


@pytest.mark.parametrize("method", ["loss", "kl", "hessian"])
def test_methods_rank_two_bits_above_eight(subject: Subject, method: str) -> None:
    found = measure(subject, (2, 8), method)
    assert sum(s.loss_by_bits[2] for s in found) > sum(s.loss_by_bits[8] for s in found)


def test_trace_of_a_linear_layer_is_the_exact_one() -> None:
    """Cross-entropy of logits z = W x + b: the trace for W is sum_k p_k (1 - p_k) |x|^2, averaged over the images."""
    torch.manual_seed(1)
    net, images = nn.Sequential(nn.Linear(6, 4)), torch.randn(32, 6)
    with torch.no_grad():
        p = F.softmax(net(images), 1)
    exact = float(((p * (1 - p)).sum(1) * images.square().sum(1)).mean()) / net[0].weight.numel()
    linear = Subject(net, [images], [(images, torch.randint(0, 4, (32,)))])
    assert hessian_traces(linear, draws=300)["0.weight_quantizer"] == pytest.approx(exact, rel=0.15)


def test_small_errors_add_up(subject: Subject) -> None:
    found = measure(subject, (16,), "mse")
    checked = check_additivity(subject, found, 2, "mse")
    assert checked.slope == pytest.approx(1.0, rel=0.05)
    assert checked.measured[0] == pytest.approx(sum(s.loss_by_bits[16] for s in found), rel=0.05)


def test_nothing_is_left_switched_off(subject: Subject) -> None:
    made, plan = subject.at(4)
    whole = subject.cost(made, "mse")
    for names in sites(made, plan).values():
        with bypassed(made, lambda name, names=names: name in names):
            pass
    assert subject.cost(made, "mse") == whole


def test_command_writes_what_explore_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hwsim.explore.bits.sensitivities import read_sensitivities

    out = tmp_path / "s.json"
    assert main(["networks/digits_silu_float", "--widths", "4", "--images", "32", "--calibration-images", "32",
                 "--check", "1", "--out", str(out)]) == 0  # fmt: skip
    assert "rank correlation" in capsys.readouterr().out
    read = read_sensitivities(out)
    assert read.method == "loss"
    assert {tuple(t) for t in read.losses.values()} == {(4,)}
    assert len(json.loads(out.read_text())["additivity"]["measured"]) == 1


@pytest.mark.parametrize(("change", "said"), [(["--widths", "x"], "expected numbers"), (["--images", "0"], "--images")])
def test_bad_input_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], said: str) -> None:
    out = tmp_path / "s.json"
    assert main(["networks/digits_silu_float", "--out", str(out), *change]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()
