"""The main job end to end: totals that add up, monotone in bits, the published report format, exit codes."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hwsim.errors import CapabilityError
from hwsim.evaluate import main
from hwsim.frontends.argument import load_model_argument
from hwsim.machine.load import load_accelerator, shipped_specs
from hwsim.network.layer import Loops
from hwsim.network.workload import Workload
from hwsim.report.evaluation import Request, evaluate_workload
from hwsim.report.report import SCHEMA_FILE, Report
from hwsim.search.result import Effortful
from tests.small_workloads import chain
from tests.strategies import conv, product

FIRST_SPECS = ("eyeriss_v1", "tpu_v1", "bit_fusion")
pytestmark = pytest.mark.usefixtures("shared_searches")
PAPERS = ("resnet18", "efficientnet_b0", "mixnet_s", "mobilenet_v2", "vit_b_16")
BITS = ("W8A8", "W4A4", "W2A2")


@pytest.fixture(scope="module")
def resnet20() -> Workload:
    return load_model_argument("resnet20", None)


def reports(workload: Workload, spec: str, effort: Effortful = "auto") -> list[Report]:
    """Reports at falling widths; a machine that cannot run a width must say so, and its report is left out."""
    accelerator = load_accelerator(spec)
    found = []
    for bits in BITS:
        if int(bits[1]) in accelerator.capabilities.weight_bits:
            found.append(evaluate_workload(workload, accelerator, Request(bits=bits, effort=effort)))
        else:
            with pytest.raises(CapabilityError, match=spec):
                evaluate_workload(workload, accelerator, Request(bits=bits))
    return found


def assert_parts_sum(report: Report) -> None:
    """Components, layers and totals agree exactly, not to a tolerance."""
    totals = report.cost.totals
    assert sum(layer.total_energy_pj for layer in report.cost.layers) == totals.energy_pj
    assert sum(energy for _, energy in report.cost.energy_pj_by_component) == totals.energy_pj
    assert all(sum(layer.energy_pj.values()) == layer.total_energy_pj for layer in report.cost.layers)
    assert sum(layer.latency_cycles for layer in report.cost.layers) == totals.latency_cycles
    assert sum(layer.macs for layer in report.workload) == totals.macs
    assert all(math.isfinite(value) and value >= 0 for value in totals.to_dict().values())


def assert_falling(found: list[Report]) -> None:
    """Energy and memory never rise when bits fall."""
    for wide, narrow in itertools.pairwise(found):
        assert narrow.cost.totals.energy_pj <= wide.cost.totals.energy_pj
        assert narrow.cost.totals.weight_bits <= wide.cost.totals.weight_bits
        assert narrow.cost.totals.peak_activation_bits <= wide.cost.totals.peak_activation_bits


def lowered_effort(effort: str) -> Any:
    """A parameter: proofs of a whole network take most of a minute."""
    return pytest.param(effort, marks=pytest.mark.slow if effort == "auto" else ())


@pytest.mark.long
@pytest.mark.parametrize("spec", FIRST_SPECS)
@pytest.mark.parametrize("effort", [lowered_effort("quick"), lowered_effort("auto")])
def test_parts_sum_and_fewer_bits_never_cost_more(resnet20: Workload, spec: str, effort: Effortful) -> None:
    found = reports(resnet20, spec, effort)
    assert found
    for report in found:
        assert_parts_sum(report)
    assert_falling(found)


@pytest.mark.slow
@pytest.mark.parametrize("spec", shipped_specs())
@pytest.mark.parametrize("model", PAPERS)
def test_the_papers_networks_on_every_spec(model: str, spec: str) -> None:
    found = reports(load_model_argument(model, None), spec)
    assert found
    for report in found:
        assert_parts_sum(report)
        assert report.workload.shares.macs == 1.0
    assert_falling(found)


@pytest.fixture(scope="module")
def written(resnet20: Workload, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Files of one run of the command on a saved workload, and its report."""
    folder = tmp_path_factory.mktemp("evaluate")
    resnet20.save(folder / "resnet20.json")
    assert (
        main([str(folder / "resnet20.json"), "eyeriss_v1", "--bits", "W4A4", "--quick", "--out", str(folder / "out")])
        == 0
    )
    return folder, json.loads((folder / "out" / "report.json").read_text())


def test_report_follows_its_published_schema(written: tuple[Path, dict[str, Any]]) -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(written[1], schema)
    broken = {**written[1], "totals": {}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_files_say_the_same_as_the_report(written: tuple[Path, dict[str, Any]]) -> None:
    folder, report = written
    rows = list(csv.DictReader((folder / "out" / "layers.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == [layer["name"] for layer in report["layers"]]
    assert sum(float(row["energy_pj"]) for row in rows) == report["totals"]["energy_pj"]
    assert (folder / "out" / "energy.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "out" / "energy.svg").read_text()
    page = (folder / "out" / "report.html").read_text()
    assert all(layer["name"] in page for layer in report["layers"])
    assert not re.search(r"(src|href)=.https?:|@import|url\(http", page), "the page must be self-contained"


def test_written_mappings_price_to_the_same_report(
    written: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, report = written
    mappings = str(folder / "out" / "mappings.yaml")
    assert main([str(folder / "resnet20.json"), "eyeriss_v1", "--bits", "W4A4", "--mapping", mappings, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["totals"] == report["totals"]
    assert [layer["counts"] for layer in again["layers"]] == [layer["counts"] for layer in report["layers"]]


def test_table_names_what_a_reader_needs(
    written: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(written[0] / "resnet20.json"), "eyeriss_v1", "--quick"]) == 0
    text = capsys.readouterr().out
    for word in ("energy", "latency", "five costliest layers", "bound", "all MACs", "BOP", "mm²", "proof"):
        assert word in text, word
    assert "W8A8" not in text
    assert main([str(written[0] / "resnet20.json"), "eyeriss_v1", "--quick", "--assumptions"]) == 0
    assert re.search(r"^ *1  .*W8A8", capsys.readouterr().out, re.MULTILINE)


def two_layers() -> Workload:
    layers = [conv(Loops(K=16, C=6, P=9, Q=9, R=3, S=3), name="first"), product(Loops(K=10, C=48, P=4), name="last")]
    return Workload("two", layers)


@pytest.mark.parametrize("model", ["two", pytest.param("resnet20", marks=pytest.mark.slow)])
def test_objectives_win_their_own_game(model: str) -> None:
    accelerator = load_accelerator("eyeriss_v1")
    workload = two_layers() if model == "two" else load_model_argument(model, None)
    energy, latency, edp = (
        evaluate_workload(workload, accelerator, Request(objective=objective))
        for objective in ("energy", "latency", "edp")
    )
    assert energy.certificate
    assert latency.certificate
    least = min(report.totals.energy_pj for report in (latency, edp))  # never worse by more than its own gap
    assert energy.totals.energy_pj <= least * (1 + energy.certificate.gap)
    fastest = min(report.totals.latency_cycles for report in (energy, edp))
    assert latency.totals.latency_cycles <= fastest * (1 + latency.certificate.gap)


@pytest.mark.long
@pytest.mark.parametrize("form", [["--json"], []])
def test_a_proof_that_could_not_be_made_is_said_beside_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    monkeypatch.setenv("HWSIM_CACHE", "")
    chain(4).save(tmp_path / "net.json")
    command = [str(tmp_path / "net.json"), "eyeriss_v1", *form]
    assert main(command) == 0
    assert "not proven" not in capsys.readouterr().err
    monkeypatch.setattr("hwsim.search.proof.native.why_not_compiled", lambda: "no C compiler")
    assert main(command) == 0
    assert capsys.readouterr().err == "hwsim: not proven: no C compiler\n"
    assert main([*command, "--quick"]) == 0  # nothing was asked for
    assert capsys.readouterr().err == ""
