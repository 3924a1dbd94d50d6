"""MAC styles: each moves with bits as its source says, and fewer bits never cost more energy or time."""

from __future__ import annotations

import dataclasses
import itertools
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import CapabilityError
from hwsim.machine.load import load_accelerator, shipped_specs
from hwsim.machine.mac import adc_bits, lossless_adc_bits, mac_cost, work_ratio
from hwsim.machine.parts import Accelerator, MacMode, MacUnit
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.pricing.assumptions import modelled_assumptions
from hwsim.pricing.mac import refusals, require_capable

FIXED = MacUnit("fixed", 8, 8, 32, 0.3)
FUSION = MacUnit("fusion", 8, 8, 32, 1.6)
SERIAL = MacUnit("bit_serial", 16, 16, 32, 1.6, macs_per_cycle=0.0625)
BOTH = MacUnit("bit_serial", 8, 8, 32, 6.4, macs_per_cycle=0.015625, serial="both")
MODES = tuple(
    MacMode(w, a, n, e) for w, a, n, e in ((8, 8, 1.0, 1.4), (8, 4, 2.0, 0.7), (4, 4, 4.0, 0.34), (2, 2, 16.0, 0.08))
)
TABLE = MacUnit("table", 8, 8, 32, 1.4, modes=MODES)
MEMORY = MacUnit("in_memory", 8, 8, 32, 0.64, cell_bits=1, dac_bits=1, rows=256, adc_energy_pj=2.56)
ROW = MacUnit("in_memory", 8, 8, 32, 1.6, macs_per_cycle=1.0, rows=128, columns=128, sum_columns=7)
SUMS = dataclasses.replace(BOTH, sum_bits=0.7)
ALL = {unit.style + unit.serial: unit for unit in (FIXED, FUSION, SERIAL, BOTH, TABLE, MEMORY)}
ALL |= {"row": ROW, "sums": SUMS}


def ratio(mac: MacUnit, narrow: tuple[int, int], wide: tuple[int, int] = (8, 8)) -> tuple[float, Fraction]:
    """Energy and time at narrow widths relative to wide ones."""
    a, b = mac_cost(mac, *narrow), mac_cost(mac, *wide)
    return a.energy_pj / b.energy_pj, a.cycles / b.cycles


def test_a_fixed_unit_gains_nothing_and_takes_passes_beyond_its_width() -> None:
    assert ratio(FIXED, (2, 3)) == (1.0, 1)
    assert mac_cost(FIXED, 8, 16).cycles == 2  # TPU v1: 8x16 at half speed
    assert mac_cost(FIXED, 16, 16).cycles == 4  # and 16x16 at a quarter
    assert mac_cost(FIXED, 16, 16).energy_pj == pytest.approx(1.2)


def test_a_fusion_unit_quadruples_from_8x8_to_4x4() -> None:
    assert ratio(FUSION, (4, 4)) == (0.25, Fraction(1, 4))
    assert ratio(FUSION, (2, 2)) == (1 / 16, Fraction(1, 16))
    assert ratio(FUSION, (8, 2)) == (0.25, Fraction(1, 4))
    assert ratio(FUSION, (16, 16)) == (4.0, 4)
    assert ratio(FUSION, (5, 5)) == (9 / 16, 1)  # nine of sixteen bricks: the other seven make no second MAC


def test_a_serial_unit_is_linear_in_its_serial_operand() -> None:
    assert [mac_cost(SERIAL, bits, 16).cycles for bits in (16, 8, 4, 1)] == [16, 8, 4, 1]
    assert mac_cost(SERIAL, 4, 16) == mac_cost(SERIAL, 4, 2)
    assert [mac_cost(BOTH, bits, bits).cycles for bits in (8, 4, 2)] == [64, 16, 4]
    digits = dataclasses.replace(SERIAL, digit_bits=4, macs_per_cycle=0.25)
    assert [mac_cost(digits, bits, 16).cycles for bits in (16, 8, 5, 4)] == [4, 2, 2, 1]
    with pytest.raises(CapabilityError, match="inputs of at most 16 bits in parallel, got 17"):
        mac_cost(SERIAL, 4, 17)


def test_a_serial_unit_keeps_its_fixed_share() -> None:
    """UNPU saves 53.6 % against a fixed unit at 1 bit, not 15/16: part of the energy does not follow the digits."""
    unit = dataclasses.replace(SERIAL, fixed_energy_share=0.4)
    assert mac_cost(unit, 16, 16).energy_pj == pytest.approx(1.6)
    assert mac_cost(unit, 1, 16).energy_pj == pytest.approx(1.6 * (0.4 + 0.6 / 16))


def test_a_table_runs_the_best_mode_that_holds_both() -> None:
    assert mac_cost(TABLE, 8, 8).cycles == 1
    assert mac_cost(TABLE, 4, 8) == dataclasses.replace(mac_cost(TABLE, 8, 8), mode="8x8 mode")
    assert mac_cost(TABLE, 5, 3).mode == "8x4 mode"
    assert mac_cost(TABLE, 3, 3).mode == "4x4 mode"
    assert mac_cost(TABLE, 1, 1).mode == "2x2 mode"
    with pytest.raises(CapabilityError, match="no mode of the table MAC holds 9x8 operands; modes: 8x8, 8x4"):
        mac_cost(TABLE, 9, 8)


def test_in_memory_slices_and_phases() -> None:
    assert lossless_adc_bits(MEMORY) == 9  # 256 rows of one-bit products: sums 0..256
    assert adc_bits(MEMORY) == 9
    lossy = dataclasses.replace(MEMORY, adc_bits=5)
    assert "5-bit converter loses bits" in mac_cost(lossy, 8, 8).mode
    assert mac_cost(MEMORY, 8, 8).energy_pj == pytest.approx(0.64 + 64 * 2.56 / 256)
    assert ratio(MEMORY, (4, 8)) == (0.5, Fraction(1, 2))
    wider = dataclasses.replace(MEMORY, cell_bits=2, dac_bits=4)
    assert lossless_adc_bits(wider) == (256 * 3 * 15).bit_length()
    assert mac_cost(wider, 8, 8).mode == "4 slices x 2 phases"


def test_packed_weights_run_in_the_mode_that_unpacks_them() -> None:
    """W4A16: the 16-bit MACs, at the share and after the start of the kernel that unpacks, slower or not."""
    modes = (
        MacMode(16, 16, 0.5, 0.6, 0.8, start_cycles=10),
        MacMode(8, 16, 0.5, 0.6, 0.75, start_cycles=30, unpacks=True),
        MacMode(4, 16, 0.5, 0.6, 0.7, start_cycles=40, unpacks=True),
        MacMode(8, 8, 1.0, 0.1, 0.9, start_cycles=20),
    )
    unit = MacUnit("subword", 8, 8, 32, 0.1, modes=modes)
    told = {
        pair: mac_cost(unit, *pair) for pair in ((16, 16), (16, 8), (8, 16), (5, 16), (4, 16), (4, 9), (4, 8), (8, 8))
    }
    assert {pair: cost.start_cycles for pair, cost in told.items()} == {
        (16, 16): 10, (16, 8): 10, (8, 16): 30, (5, 16): 30, (4, 16): 40, (4, 9): 40, (4, 8): 20, (8, 8): 20,
    }  # fmt: skip
    assert told[4, 16].cycles == Fraction(2) / Fraction("0.7") > told[16, 16].cycles
    assert told[4, 16].energy_pj == told[16, 16].energy_pj
    assert told[4, 16].mode == "4x16 mode, weights unpacked"


def test_modes_made_for_some_elements_serve_no_others() -> None:
    """A GPU with fp4 MACs and no int4: 4-bit integers run at the rate of 8 bits, e2m1 beside e4m3 too."""
    modes = (
        MacMode(16, 16, 0.5, 0.6, elements=("bf16",)),
        MacMode(8, 8, 1.0, 0.1, elements=("int", "e4m3", "e2m1")),
        MacMode(4, 4, 2.0, 0.05, elements=("e2m1",)),
    )
    unit = MacUnit("subword", 8, 8, 32, 0.1, modes=modes)
    assert mac_cost(unit, 4, 4, ("e2m1", "e2m1")).cycles == Fraction(1, 2)
    assert mac_cost(unit, 4, 8, ("e2m1", "e4m3")).cycles == 1
    assert mac_cost(unit, 4, 4).cycles == 1
    assert mac_cost(unit, 16, 16, ("bf16", "bf16")).cycles == 2
    with pytest.raises(CapabilityError, match=r"no mode of the subword MAC holds 16x16 operands; modes: 8x8$"):
        mac_cost(unit, 16, 16)
    with pytest.raises(CapabilityError, match="operands of fp16; modes: none"):
        mac_cost(unit, 16, 16, ("fp16", "fp16"))


def test_a_row_of_columns_holds_weights_and_their_sums() -> None:
    """Colonnade's law: input bits * 128 / floor(128 / (w + 7)), whole rows, whatever the widths (counted by hand)."""
    held = {1: 16, 2: 14, 4: 11, 8: 8, 16: 5}
    for (w, at_once), a in itertools.product(held.items(), (1, 3, 8)):
        cost = mac_cost(ROW, w, a)
        assert cost.products == at_once
        assert cost.step_cycles == a  # one input bit of all rows per cycle
        assert cost.energy_pj == pytest.approx(1.6 * (a / 8) * (8 / at_once))
    narrow_row = dataclasses.replace(ROW, columns=16)  # a native weight and its sum; 16 bits take two turns
    assert mac_cost(narrow_row, 16, 8).cycles == 2 * mac_cost(narrow_row, 8, 8).cycles
    assert mac_cost(ROW, 8, 8).mode == "8 slices + 7 of the sum x 8 phases"


def test_registers_and_adders_go_with_the_sum_of_the_widths() -> None:
    assert work_ratio((2, 2), (8, 8), 0.0) == Fraction(1, 16)
    assert work_ratio((2, 2), (8, 8), 1.0) == Fraction(8, 80)
    assert work_ratio((8, 2), (8, 8), 0.5) == Fraction(21, 72)
    summing = dataclasses.replace(BOTH, sum_bits=1.0)
    assert mac_cost(summing, 2, 2).energy_pj == pytest.approx(0.64)
    assert mac_cost(summing, 2, 2).cycles == mac_cost(BOTH, 2, 2).cycles  # time is digits, as before
    assert mac_cost(dataclasses.replace(SERIAL, sum_bits=1.0), 4, 16) == mac_cost(SERIAL, 4, 16)


@pytest.mark.parametrize("mac", ALL.values(), ids=ALL)
def test_fewer_bits_never_cost_more(mac: MacUnit) -> None:
    widths = range(1, 9)
    for w, a in itertools.product(widths, widths):
        here = mac_cost(mac, w, a)
        for narrower in ((w - 1, a), (w, a - 1)):
            if min(narrower) >= 1:
                less = mac_cost(mac, *narrower)
                assert less.energy_pj <= here.energy_pj * (1 + 1e-12)
                assert less.cycles <= here.cycles


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8), st.floats(0.01, 2.0)), min_size=1, max_size=6), st.data()
)
def test_any_table_that_the_loader_accepts_is_monotone(rows: list[tuple[int, int, float]], data: st.DataObject) -> None:
    """Ranking modes alike by energy and speed is all it takes, whatever widths they have."""
    energies = sorted({e for _, _, e in rows}, reverse=True)
    modes = tuple(MacMode(w, a, float(energies.index(e) + 1), e) for w, a, e in rows)
    unit = dataclasses.replace(TABLE, modes=(*modes, MacMode(8, 8, 0.5, 3.0)))
    w, a = data.draw(st.integers(2, 8)), data.draw(st.integers(1, 8))
    assert mac_cost(unit, w - 1, a).energy_pj <= mac_cost(unit, w, a).energy_pj
    assert mac_cost(unit, w - 1, a).cycles <= mac_cost(unit, w, a).cycles


def test_bricks_follow_measured_arrays() -> None:
    """Medians of 54 synthesised 28 nm arrays (Ibrahim et al. 2021, 200 MHz, fully unrolled), fJ per operation.

    Bricks are within 10 % of them at every pair of widths.
    """
    measured = {(8, 8): 694.2, (8, 4): 355.6, (8, 2): 182.8, (4, 4): 171.5, (2, 2): 40.7}
    for widths, femtojoules in measured.items():
        predicted = ratio(FUSION, widths)[0] * measured[8, 8]
        assert predicted == pytest.approx(femtojoules, rel=0.10), widths


def test_products_at_once_and_their_step() -> None:
    """What fits side by side in each style; a step takes as long with one product as with all."""
    widths = ((8, 8), (4, 8), (4, 4), (2, 2), (16, 16))
    fused = [mac_cost(FUSION, w, a) for w, a in widths]
    assert [(cost.products, cost.step_cycles) for cost in fused] == [(1, 1), (2, 1), (4, 1), (16, 1), (1, 4)]
    assert [mac_cost(TABLE, b, b).products for b in (8, 4, 2)] == [1, 4, 16]
    assert {mac_cost(SERIAL, b, 16).products for b in (16, 8, 1)} == {1}  # digits take time, not room
    side_by_side = dataclasses.replace(SERIAL, macs_per_cycle=0.25)
    assert {mac_cost(side_by_side, b, 16).products for b in (16, 8, 1)} == {4}
    assert [mac_cost(side_by_side, b, 16).step_cycles for b in (16, 4)] == [16, 4]
    assert [mac_cost(MEMORY, w, 8).products for w in (8, 4, 3, 2, 1)] == [1, 2, 2, 4, 8]  # columns of 8 slices
    assert {mac_cost(MEMORY, 8, a).products for a in (8, 1)} == {1}


def test_a_sustained_share_stretches_every_step_and_nothing_else() -> None:
    """Time = peak time / share; products at once and energy stay, so few products gain nothing from it."""
    for mac in ALL.values():
        slow = dataclasses.replace(mac, sustained=0.8)
        for bits in (8, 4, 2):
            peak, real = mac_cost(mac, bits, bits), mac_cost(slow, bits, bits)
            assert real == dataclasses.replace(peak, cycles=peak.cycles / Fraction(4, 5))
    modes = tuple(dataclasses.replace(mode, sustained=0.5) if mode.weight_bits == 8 else mode for mode in MODES)
    assert [mac_cost(dataclasses.replace(TABLE, modes=modes), b, b).cycles for b in (8, 4)] == [2, Fraction(1, 4)]


def test_nothing_has_zero_bits() -> None:
    with pytest.raises(CapabilityError, match="at least 1 bit, got 0x8"):
        mac_cost(FIXED, 0, 8)


# --- capabilities -----------------------------------------------------------------------------------------------------


def linear(weight_bits: int = 8, input_bits: int = 8, output_bits: int = 8, **changes: object) -> Layer:
    """A small linear layer."""
    layer = Layer(
        "fc",
        "linear",
        (Tensor("x", (1, 16), input_bits, signed=False),),
        Tensor("y", (1, 8), output_bits),
        weight=Tensor("w", (8, 16), weight_bits),
        loops=Loops(K=8, C=16),
    )
    return dataclasses.replace(layer, **changes)


def test_refusals_name_the_rule_the_widths_and_the_tensor() -> None:
    machine = load_accelerator("bit_fusion")
    assert refusals(linear(4, 8), machine) == ()
    assert refusals(linear(3, 5), machine) == (
        "layer fc: bit_fusion capabilities.weight_bits: expected one of 2, 4, 8, 16 bits for w, got 3",
        "layer fc: bit_fusion capabilities.activation_bits: expected one of 2, 4, 8, 16 bits for x, got 5",
    )
    limited = dataclasses.replace(
        machine,
        capabilities=dataclasses.replace(
            machine.capabilities, unsigned_activations=False, per_channel_scales=False, operators=("conv",)
        ),
    )
    layer = linear(weight=Tensor("w", (8, 16), 8, scales=8))
    found = refusals(layer, limited)
    assert [text.split("capabilities.")[1].split(":")[0] for text in found] == [
        "operators",
        "unsigned_activations",
        "per_channel_scales",
    ]
    with pytest.raises(CapabilityError, match=r"capabilities.operators: expected one of conv, got linear\n"):
        require_capable(layer, limited)
    with pytest.raises(CapabilityError, match=r"output_bits: expected one of 2, 4, 8, 16, 32 bits for y, got 7"):
        require_capable(linear(8, 8, 7), machine)


def runs(machine: Accelerator, w: int, a: int, element: str) -> bool:
    """Whether a mode holds operands of these widths and this element."""
    made = [mode for mode in machine.mac.modes if not mode.elements or element in mode.elements]
    return any(mode.weight_bits >= w and mode.input_bits >= a for mode in made)


@pytest.mark.parametrize("name", shipped_specs())
def test_every_width_that_a_shipped_spec_promises_has_a_price(name: str) -> None:
    machine = load_accelerator(name)
    can = machine.capabilities
    for w, a in itertools.product(can.weight_bits, can.activation_bits):
        made = next(e for e in can.elements if machine.mac.style != "subword" or runs(machine, w, a, e))
        cost = mac_cost(machine.mac, w, a, (made, made))
        assert cost.energy_pj > 0 or machine.mac.style == "measured"  # per layer, not per MAC
    for bits in (8, 4, 2):
        assert bits in can.weight_bits
        assert bits in can.activation_bits
        assert bits in can.output_bits


def test_eyeriss_gains_nothing_and_bit_fusion_sixteenfold() -> None:
    eyeriss, fusion, t4 = (load_accelerator(n).mac for n in ("eyeriss_v1", "bit_fusion", "t4"))
    assert ratio(eyeriss, (2, 2)) == (1.0, 1)
    assert ratio(fusion, (2, 2)) == (1 / 16, Fraction(1, 16))
    assert ratio(t4, (4, 4)) == (0.5, Fraction(1, 2))
    assert ratio(t4, (4, 8)) == (1.0, 1)


def test_the_report_says_that_a_unit_is_as_busy_as_its_lanes() -> None:
    said = " ".join(modelled_assumptions(load_accelerator("bit_fusion")))
    assert "works on as many as its lanes (C" in said
    assert "kept busy" not in said
    assert "one product at a time" in " ".join(modelled_assumptions(load_accelerator("eyeriss_v1")))
