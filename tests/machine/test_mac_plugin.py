"""MAC styles of other packages: a function of the widths becomes a table of modes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

import hwsim
from hwsim.errors import SpecError
from hwsim.frontends.argument import load_model_argument
from hwsim.machine.load import load_accelerator
from hwsim.machine.mac import mac_cost
from hwsim.machine.parts import Accelerator
from tests.frontends.test_plugins import install

CODE = """
def booth(mac, w, x):
    if x > mac.input_bits: return None
    share = -(-w // 2) / -(-mac.weight_bits // 2)
    return mac.energy_pj * share, mac.macs_per_cycle / share
def bent(mac, w, x): return mac.energy_pj * (2 if w == 5 else 1), mac.macs_per_cycle
def upside_down(mac, w, x): return mac.energy_pj * w / 8, mac.macs_per_cycle * w / 8
def other(mac, w, x): return 1.0, 1.0
def never(mac, w, x): return None
def fails(mac, w, x): return mac.parameters["slack"]
def text(mac, w, x): return "cheap"
def one(mac, w, x): return 0.3
def zero(mac, w, x): return 0.0, 1.0
def infinite(mac, w, x): return 0.3, float("inf")
"""
NAMES = ("booth", "bent", "upside_down", "other", "never", "fails", "text", "one", "zero", "infinite")
SPEC = """name: plugged
clock_mhz: 500
node_nm: 45
source: this test
hierarchy:
  - {memory: dram, size_bits: unlimited, keeps: [weight, input, output], word_bits: 32, read_energy_pj: 320,
     write_energy_pj: 320, source: this test}
mac: {STYLE, weight_bits: 8, input_bits: 8, accumulator_bits: 32,
      energy_pj: 0.4, macs_per_cycle: 0.25, area_mm2: 0.001, source: this test}
vector: {lanes: 8, energy_pj_per_op: 1, lookup_energy_pj: 2, source: this test}
capabilities: {weight_bits: 2..8, activation_bits: 2..8, output_bits: 2..32, source: this test}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mac_plugin_of_tests.py").write_text(CODE, encoding="utf-8")
    entries = "".join(f"tests.{name} = mac_plugin_of_tests:{name}\n" for name in NAMES)
    install(tmp_path, "mac-package", f"[hwsim.mac_styles]\n{entries}tests.absent = mac_plugin_of_tests:nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mac_plugin_of_tests", raising=False)
    return tmp_path


def machine(folder: Path, style: str, *changes: tuple[str, str]) -> Accelerator:
    text = SPEC.replace("STYLE", style)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "plugged.yaml"
    path.write_text(text, encoding="utf-8")
    return load_accelerator(path)


def test_a_style_of_a_package_is_a_table_of_what_its_function_says(folder: Path) -> None:
    modes = ", ".join(
        f"{{weight_bits: {w}, input_bits: 8, macs_per_cycle: {0.25 * 8 / w}, energy_pj: {0.4 * w / 8}}}"
        for w in (8, 6, 4, 2)
    )
    plugged, by_hand = machine(folder, "style: tests.booth"), machine(folder, f"style: table, modes: [{modes}]")
    assert dataclasses.replace(plugged.mac, source="") == dataclasses.replace(by_hand.mac, source="")
    assert plugged.notes[-1:] == ("mac: modes as the plug-in tests.booth prices them, by its function",)


def test_a_style_of_a_package_is_priced_for_every_pair_of_widths(folder: Path) -> None:
    mac = machine(folder, "style: tests.booth").mac
    for w in range(2, 9):
        for x in range(2, 9):
            cost = mac_cost(mac, w, x)
            assert cost.energy_pj == pytest.approx(0.1 * -(-w // 2))
            assert float(cost.cycles) == pytest.approx(-(-w // 2))


def test_fewer_bits_never_cost_more_with_a_style_of_a_package(folder: Path) -> None:
    mac = machine(folder, "style: tests.bent").mac
    assert [mac_cost(mac, w, 8).energy_pj for w in (4, 5, 6)] == [0.4, 0.4, 0.4]


def test_a_mac_style_runs_only_when_a_spec_names_it(folder: Path) -> None:
    machine(folder, "style: fixed")
    assert "mac_plugin_of_tests" not in sys.modules
    machine(folder, "style: tests.booth")
    assert "mac_plugin_of_tests" in sys.modules


def test_an_identity_holds_what_the_function_of_a_style_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = load_model_argument("resnet8")
    before = hwsim.evaluate(workload, machine(folder, "style: tests.booth"), bits="W4A4", effort="quick")
    code = CODE.replace("mac.energy_pj * share", "mac.energy_pj * (share if w > 6 else 0.5 * share)")
    (folder / "mac_plugin_of_tests.py").write_text(code, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "mac_plugin_of_tests")
    after = hwsim.evaluate(workload, machine(folder, "style: tests.booth"), bits="W4A4", effort="quick")
    assert after.energy_pj < before.energy_pj
    assert after.identity.value != before.identity.value


@pytest.mark.parametrize(
    ("style", "changes", "message"),
    [
        ("tests.unknown", (), r"yaml:8: mac.style: no installed package has the MAC style 'tests.unknown'"),
        ("tests.absent", (), r"yaml:8: mac.style: .*of mac-package cannot be loaded: AttributeError"),
        ("tests.never", (), r"yaml:8: mac.style: tests.never: its function takes no pair"),
        ("tests.fails", (), r"yaml:8: mac.style: tests.fails at 8x8: its function failed: KeyError: 'slack'"),
        ("tests.text", (), r"at 8x8: expected \(pJ per MAC, MACs per cycle\), two numbers above 0, got 'cheap'"),
        ("tests.one", (), r"at 8x8: expected .*, got 0.3"),
        ("tests.zero", (), r"at 8x8: expected .*, got \(0.0, 1.0\)"),
        ("tests.infinite", (), r"at 8x8: expected .*, got \(0.3, inf\)"),
        ("tests.other", (), r"expected the native mode's 1 pJ and 1 MACs per cycle, got 0.4 and 0.25"),
        (
            "tests.upside_down",
            (),
            r"tests.upside_down is cheaper at .*, and slower; energy and speed must rank",
        ),
        ("tests.booth", ((", area_mm2: 0.001", ""),), r"mac.area_mm2: missing key: nothing estimates it"),
        ("tests.booth", (("energy_pj: 0.4", "energy_pj: auto"),), r"mac.energy_pj: missing key: nothing estimates it"),
        ("tests.booth", (("2..8, activation_bits: 2..8", "1..64, activation_bits: 1..64"),), r"at most 1024 pairs"),
        ("tests.booth, digits: 2", (), r"mac.digits: unknown key"),
        ("tests.booth, parameters: {a: [1]}", (), r"mac.parameters.a: expected a number, got \[1\]"),
        ("Booth", (), r"expected one of fixed, .*or LIBRARY.NAME of a plug-in, got 'Booth'"),
    ],
)
def test_what_is_wrong_with_a_style_of_a_package_is_said(
    folder: Path, style: str, changes: tuple[tuple[str, str], ...], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        machine(folder, f"style: {style}", *changes)
