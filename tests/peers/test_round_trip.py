"""Every shipped spec to Timeloop v4 and back: prices equal where the format can say it, the rest named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from experiments.peers import round_trip
from hwsim.convert import main
from hwsim.errors import SpecError
from hwsim.machine.load import load_accelerator, shipped_specs
from hwsim.machine.parts import OPERANDS, Memory
from hwsim.machine.rules import Limit, Rule
from hwsim.nest.count import count_accesses
from hwsim.nest.mapping import Hold, Mapping, Temporal
from hwsim.peers.draft import flow
from hwsim.peers.report import TranslationReport
from hwsim.peers.tagged_yaml import scalar
from hwsim.peers.timeloop.align import aligned
from hwsim.peers.timeloop.read import read_timeloop
from hwsim.peers.timeloop.write import architecture_text, prices_text
from tests.strategies import machine

PLAIN = ("nvdla_small", "eyeriss_v2", "gemmini_16x16")


@pytest.mark.parametrize("name", PLAIN)
def test_what_differs_is_named(name: str) -> None:
    row = round_trip.row_of(name)
    assert row["said"] > 0
    assert round_trip.explained(row), row


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_specs())
def test_what_differs_is_named_for_every_spec(name: str) -> None:
    row = round_trip.row_of(name)
    assert round_trip.explained(row) or row["nests"] == 0, row


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in shipped_specs() if name != "mico_measured"])
def test_memories_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    spec = load_accelerator(name)
    report = TranslationReport()
    (tmp_path / "arch.yaml").write_text(architecture_text(spec, report))
    (tmp_path / "ERT.yaml").write_text(prices_text(spec))
    back = read_timeloop([tmp_path / "arch.yaml", tmp_path / "ERT.yaml"]).machine()
    lost = {entry.subject for entry in report.entries if entry.verdict != "taken"}
    assert [m.name for m in back.memories] == [m.name for m in spec.memories]
    for mine, other in zip(spec.memories, back.memories, strict=True):
        for key in ("size_bits", "word_bits", "read_energy_pj", "write_energy_pj", "keeps", "bypass", "shared_port",
                    "read_bandwidth_bits_per_cycle", "write_bandwidth_bits_per_cycle", "double_buffered",
                    "partitions"):  # fmt: skip
            same = getattr(mine, key) == pytest.approx(getattr(other, key))
            assert same or f"{mine.name}.{key}" in lost, (mine.name, key)
    assert back.mac.latches == spec.mac.latches
    assert back.mac.energy_pj == spec.mac.energy_pj
    assert back.mac_units == spec.mac_units
    assert back.clock_mhz == pytest.approx(spec.clock_mhz)


def test_a_measured_machine_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["mico_measured", "--format", "timeloop", "--to", str(tmp_path / "out")]) == 2
    assert "a measured machine has no parts" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_the_written_files_are_read_by_the_command(tmp_path: Path) -> None:
    assert main(["gemmini_16x16", "--format", "timeloop", "--to", str(tmp_path / "tl"), "--quiet"]) == 0
    files = [str(tmp_path / "tl" / name) for name in ("arch.yaml", "ERT.yaml")]
    assert main([*files, "--to", str(tmp_path / "back"), "--quiet"]) == 0
    (spec,) = (tmp_path / "back").glob("*.yaml")
    assert load_accelerator(spec).mac_units == 256


def test_holds_move_past_loops_that_do_not_index_them() -> None:
    """Weights held below a loop over output rows come to the place of the inputs, above it; counts stay."""
    layer = round_trip.layer()
    head = (Hold("dram", OPERANDS), Temporal("K", 48), Temporal("C", 32))
    inside = (Temporal("Q", 14), Temporal("R", 3), Temporal("S", 3))
    uneven = Mapping((
        *head, Hold("buffer", ("input", "output")), Temporal("P", 14), Hold("buffer", ("weight",)), *inside,
    ))  # fmt: skip
    even = Mapping((*head, Hold("buffer", OPERANDS), Temporal("P", 14), *inside))
    assert aligned(uneven, layer, MACHINE) == even
    assert count_accesses(layer, even, MACHINE) == count_accesses(layer, uneven, MACHINE)


def test_a_mapping_without_an_even_form_is_refused() -> None:
    """Inputs held below a loop over their own rows cannot be held where the weights are."""
    nest = Mapping((
        Hold("dram", OPERANDS), Temporal("C", 32), Hold("buffer", ("weight", "output")), Temporal("P", 14),
        Hold("buffer", ("input",)), Temporal("K", 48), Temporal("Q", 14), Temporal("R", 3), Temporal("S", 3),
    ))  # fmt: skip
    with pytest.raises(SpecError, match="no level of Timeloop's can share"):
        aligned(nest, round_trip.layer(), MACHINE)


def test_written_numbers_come_back_exactly() -> None:
    for value in (0.1, 1e-9, 1 / 3, 123456789.123, 2.5e20):
        assert scalar(flow(value)) == value


MACHINE = machine(Memory("dram", None, OPERANDS), Memory("buffer", 2**40, OPERANDS))


def test_constraints_of_memories_and_axes_come_back(tmp_path: Path) -> None:
    """What Timeloop has no words for is named: loops right inside an array, extents of tiles, `all` on an axis."""
    spec = load_accelerator("nvdla_large")
    rules = {rule.level: rule for rule in spec.constraints}
    wanted = dataclasses.replace(rules["accumulator"], order=("Q", "rest", "C"), factors=(("K", Limit(4, False)),))
    axis = Rule("cmac", unroll=(("atomic_c", (("C", Limit(16)),)),))
    spec = dataclasses.replace(spec, constraints=(rules["conv_buffer"], axis, wanted))
    report = TranslationReport()
    (tmp_path / "arch.yaml").write_text(architecture_text(spec, report))
    (tmp_path / "ERT.yaml").write_text(prices_text(spec))
    back = {r.level: r for r in read_timeloop([tmp_path / "arch.yaml", tmp_path / "ERT.yaml"]).machine().constraints}
    assert (back["accumulator"].order, back["accumulator"].factors) == (wanted.order, wanted.factors)
    assert back["cmac"].unroll == (("meshX", (("C", Limit(16)),)),)
    assert back["conv_buffer"].order == ("Q", "P", "K", "rest")
    lost = {entry.subject for entry in report.entries if entry.verdict != "taken"}
    assert {"conv_buffer.constraints", "conv_buffer.order"} <= lost
