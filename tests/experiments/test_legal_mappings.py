"""Random nests are whole, and wider operands never make one fit."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from experiments.legal_mappings import at, fitting, main, prime_factors, random_nest
from hwsim.machine.load import load_accelerator
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Spatial, Temporal
from hwsim.network.layer import Layer
from hwsim.network.workload import Workload
from tests.explore.test_bill import residual


@pytest.fixture(scope="module")
def network() -> Workload:
    return residual()


def conv(network: Workload) -> Layer:
    return next(layer for layer in network if layer.name == "second")


def test_a_nest_covers_its_layer_and_its_arrays(network: Workload) -> None:
    machine, layer = load_accelerator("simba"), conv(network)
    for seed in range(50):
        nest = random_nest(random.Random(seed), layer, machine)
        for dim, bound in layer.loops.as_dict().items():
            loops = [n.factor for n in nest.nodes if isinstance(n, Spatial | Temporal) and n.dim == dim]
            assert math.prod(loops) == bound


def test_what_does_not_fit_narrow_does_not_fit_wide(network: Workload) -> None:
    machine, layer = load_accelerator("simba"), conv(network)
    rng = random.Random(0)
    for _ in range(60):
        nest = random_nest(rng, layer, machine)
        fits = [not validate(nest, at(layer, bits), machine) for bits in (2, 4, 8, 16)]
        assert fits == sorted(fits, reverse=True)
    found = fitting(network, machine, 40, 0)
    assert 0 < found[16] <= found[8] <= found[4] <= found[2]


def test_prime_factors_multiply_back() -> None:
    for number in range(1, 200):
        assert math.prod(prime_factors(number)) == number


def test_a_machine_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--machines", "simbaa", "--out", str(tmp_path / "rows.csv")]) == 2
    assert "did you mean simba" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
