"""A network that does not fit a bounded memory is refused by name and number, or priced with a warning when asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hwsim.errors import InfeasibleMapping
from hwsim.evaluate import main
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.fit import overflows, require_fit
from hwsim.report.evaluation import Request
from hwsim.report.evaluation import evaluate_workload as evaluate


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
