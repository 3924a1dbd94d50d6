"""A network that does not fit a bounded memory is refused by name and number, or priced with a warning when asked."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest

from hwsim.errors import InfeasibleMapping
from hwsim.evaluate import main
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.fit import overflows, require_fit
from hwsim.pricing.stages import fuse
from hwsim.report.evaluation import Request
from hwsim.report.evaluation import evaluate_workload as evaluate
from tests.small_workloads import add, conv


def linear(name: str, source: str, k: int, c: int) -> Layer:
    """One linear layer at 8 bits without bias."""
    return Layer(
        name, "linear", (Tensor(source, (1, c), 8),), Tensor(f"{name}.out", (1, k), 8),
        weight=Tensor(f"{name}.weight", (k, c), 8), loops=Loops(K=k, C=c),
    )  # fmt: skip


# 256 -> 512 -> 128: 196,608 weights; at most 256 + 512 codes alive at once (512 + 128 in the second layer).
NETWORK = Workload("two", [linear("a", "x", 512, 256), linear("b", "a.out", 128, 512)])
WEIGHT_BITS, ALIVE_BITS = 8 * (512 * 256 + 128 * 512), 8 * (256 + 512)


def microcontroller(flash_bits: int | None, sram_bits: int) -> Accelerator:
    """cortex_m7 with other sizes."""
    machine = load_accelerator("cortex_m7")
    flash, sram, *rest = machine.hierarchy
    flash = dataclasses.replace(flash, total_bits=flash_bits)
    sram = dataclasses.replace(sram, size_bits=sram_bits)
    return dataclasses.replace(machine, hierarchy=(flash, sram, *rest))


def parameters() -> int:
    """Bits of scales and the like beside the weights."""
    (found,) = overflows(NETWORK, microcontroller(1, 10**9))
    return found.need_bits - WEIGHT_BITS


def test_weights_must_fit_to_the_bit() -> None:
    need = WEIGHT_BITS + parameters()
    require_fit(NETWORK, microcontroller(need, 10**9))
    with pytest.raises(InfeasibleMapping, match=r"two does not fit cortex_m7: weights need .* flash holds .*a.weight"):
        require_fit(NETWORK, microcontroller(need - 1, 10**9))


def test_activations_must_fit_to_the_bit_where_flash_cannot_hold_them() -> None:
    require_fit(NETWORK, microcontroller(None, ALIVE_BITS))
    with pytest.raises(InfeasibleMapping, match=r"activations need 768 B, sram holds 767 B .*a.out 512 B, x 256 B"):
        require_fit(NETWORK, microcontroller(None, ALIVE_BITS - 8))


def test_less_than_a_byte_too_many_is_said_in_bits() -> None:
    with pytest.raises(InfeasibleMapping, match=r"activations need 6,144 b, sram holds 6,143 b "):
        require_fit(NETWORK, microcontroller(None, ALIVE_BITS - 1))


def test_the_report_says_at_whose_prices_inputs_come_where_flash_holds_no_activations() -> None:
    said = "the network's own inputs are read and its outputs written at flash's prices"
    machine = microcontroller(None, 10**9)
    outer = dataclasses.replace(machine.outermost, stores=("weight", "input", "output"))
    ordinary = dataclasses.replace(machine, hierarchy=(outer, *machine.hierarchy[1:]))
    for where, expected in ((machine, True), (ordinary, False)):
        found = evaluate(NETWORK, where, Request(effort="quick"))
        assert any(said in each for each in found.assumptions) == expected


def test_activations_count_outside_where_they_may_live_there() -> None:
    machine = microcontroller(WEIGHT_BITS + parameters() + ALIVE_BITS - 1, 10**9)
    outer = dataclasses.replace(machine.outermost, stores=("weight", "input", "output"))
    machine = dataclasses.replace(machine, hierarchy=(outer, *machine.hierarchy[1:]))
    (found,) = overflows(NETWORK, machine)
    assert found.what == "weights and activations"
    assert found.need_bits - found.room_bits == 1


def test_fewer_bits_never_need_more_room() -> None:
    machine = load_accelerator("bit_fusion")
    outer = dataclasses.replace(machine.outermost, total_bits=1)
    machine = dataclasses.replace(machine, hierarchy=(outer, *machine.hierarchy[1:]))
    needs = []
    for bits in range(8, 0, -1):
        (found,) = overflows(NETWORK.map_tensors(lambda t, b=bits: dataclasses.replace(t, bits=b)), machine)
        needs.append(found.need_bits)
    assert needs == sorted(needs, reverse=True)


def test_a_network_that_does_not_fit_is_priced_with_a_warning_when_asked() -> None:
    machine = microcontroller(1000, 10**9)
    with pytest.raises(InfeasibleMapping, match="--allow-overflow"):
        evaluate(NETWORK, machine, Request(effort="quick"))
    report = evaluate(NETWORK, machine, Request(effort="quick", allow_overflow=True))
    assert report.warnings[0].startswith("does not fit: weights need")


def test_the_command_refuses_with_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    big = Workload("big", [linear("fc", "x", 4096, 1024)])
    big.save(tmp_path / "big.json")
    assert main([str(tmp_path / "big.json"), "cortex_m7", "--quick"]) == 3
    assert "flash holds 2,097,152 B" in capsys.readouterr().err
    assert main([str(tmp_path / "big.json"), "cortex_m7", "--quick", "--allow-overflow"]) == 0


def test_unbounded_machines_hold_everything() -> None:
    assert overflows(NETWORK, load_accelerator("eyeriss_v1")) == ()


def random_network(rng: random.Random) -> Workload:
    """Convolutions and residual additions over branches, in an order that runs."""
    alive, layers = [Tensor("x", (1, rng.choice((3, 4, 8)), 12, 12), rng.choice((4, 8)))], list[Layer]()
    for index in range(rng.randint(3, 8)):
        source = rng.choice(alive[-3:])
        alike = [tensor for tensor in alive if tensor.shape == source.shape and tensor is not source]
        if alike and rng.random() < 0.4:
            layers.append(add(f"l{index}", source, rng.choice(alike)))
        else:
            layers.append(conv(f"l{index}", source, rng.choice((4, 8, 12)), taps=rng.choice((1, 3))))
        alive.append(layers[-1].output)
    return Workload("random", layers)


def most_alive(network: Workload, machine: Accelerator) -> int:
    """Bits of the maps alive at once, moment by moment: from the stage that makes a map to the last that reads it.

    The input is there from the start; what nobody reads is a result and stays. What a stage hands to an operator
    behind it, and to nobody else, never reaches a memory.
    """
    stages = [(stage.layer, *stage.fused) for stage in fuse(network, machine.capabilities)]
    made, sizes = dict[str, int](), dict[str, int]()
    readers: dict[str, list[int]] = {}
    for moment, layers in enumerate(stages):
        for layer in layers:
            for tensor in (*layer.inputs, layer.output):
                sizes[tensor.name] = 8 * tensor.elements
                made.setdefault(tensor.name, moment)
            for tensor in layer.inputs:
                readers.setdefault(tensor.name, []).append(moment)
    made |= {name: 0 for name in made if name == "x"}
    most = 0
    for moment in range(len(stages)):
        alive = 0
        for name, bits in sizes.items():
            inside = [layer.output.name for layer in stages[made[name]][:-1]]
            passed_on = name in inside and set(readers[name]) == {made[name]}
            until = max(readers[name]) if name in readers else len(stages)
            alive += 0 if passed_on or not made[name] <= moment <= until else bits
        most = max(most, alive)
    return most


def check_room(seed: int) -> None:
    """The room of a random network's maps, by `most_alive`, to the bit; weights and parameters by their tensors."""
    network = random_network(random.Random(seed))
    need = most_alive(network, microcontroller(8, 8))
    found = {overflow.what: overflow.need_bits for overflow in overflows(network, microcontroller(8, 8))}
    weights = {layer.weight.name: 8 * layer.weight.elements for layer in network if layer.weight}
    parameters = sum(layer.output.shape[1] * 32 + 40 for layer in network if layer.weight)  # bias; multiplier, shift
    assert found == {"activations": need, "weights": sum(weights.values()) + parameters}
    require_fit(network, microcontroller(found["weights"], need))
    for flash, sram in ((found["weights"], need - 8), (found["weights"] - 8, need)):
        with pytest.raises(InfeasibleMapping):
            require_fit(network, microcontroller(flash, sram))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(40))
def test_random_networks_need_what_is_alive_at_once(seed: int) -> None:
    check_room(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 2100))
def test_2000_random_networks_need_what_is_alive_at_once(seed: int) -> None:
    check_room(seed)
