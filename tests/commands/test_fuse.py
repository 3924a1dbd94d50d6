"""`--fuse on`: what the command says and writes, what it takes back, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

import hwsim
from hwsim.errors import RequestError
from hwsim.evaluate import main
from hwsim.report.page.render import report_page
from hwsim.report.report import SCHEMA_FILE
from hwsim.report.terminal import certificate_line
from hwsim.search.result import FUSED, UNTRIED
from tests.small_workloads import chain, residual


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine whose maps' memory is small, a network, and what `--fuse on` writes of it."""
    folder = tmp_path_factory.mktemp("fuse")
    spec = (Path(hwsim.__file__).parent.parent / "accel_specs" / "simba.yaml").read_text(encoding="utf-8")
    (folder / "small.yaml").write_text(spec.replace("size_bits: 524_288", "size_bits: 24_576"), encoding="utf-8")
    chain(size=32).save(folder / "chain.json")
    residual(size=8).save(folder / "residual.json")
    arguments = [str(folder / "chain.json"), str(folder / "small.yaml"), "--quick", "--fuse", "on"]
    assert main([*arguments, "--out", str(folder / "out")]) == 0
    return folder


def report_of(folder: Path) -> dict:
    """report.json, valid under its schema."""
    report = json.loads((folder / "report.json").read_text())
    jsonschema.validate(report, json.loads(SCHEMA_FILE.read_text()))
    return report


def test_report_and_mappings_name_the_groups_and_what_goes_without_them(files: Path) -> None:
    report, text = report_of(files / "out"), (files / "out" / "mappings.yaml").read_text()
    fusion = report["fusion"]
    assert fusion["groups"]
    assert "groups:" in text
    assert report["totals"]["energy_pj"] < fusion["without"]["energy_pj"]
    assert report["totals"]["outermost_traffic_bits"] < fusion["without"]["outermost_traffic_bits"]
    grouped = [layer for layer in report["layers"] if layer.get("group")]
    assert grouped
    assert all(layer["counts"] == {} for layer in grouped)
    assert sum(layer["energy_pj"]["total"] for layer in report["layers"]) == report["totals"]["energy_pj"]


def test_the_mapping_file_gives_the_same_price(files: Path) -> None:
    arguments = [str(files / "chain.json"), str(files / "small.yaml")]
    assert main([*arguments, "--mapping", str(files / "out" / "mappings.yaml"), "--out", str(files / "again")]) == 0
    first, again = report_of(files / "out"), report_of(files / "again")
    assert again["totals"] == first["totals"]
    assert again["fusion"]["groups"] == first["fusion"]["groups"]
    assert (files / "again" / "mappings.yaml").read_text() == (files / "out" / "mappings.yaml").read_text()


def test_python_gives_what_the_command_gives(files: Path) -> None:
    report = hwsim.evaluate(files / "chain.json", files / "small.yaml", effort="quick", fuse=True)
    assert report.energy_pj == report_of(files / "out")["totals"]["energy_pj"]
    assert "depth-first group" in repr(report)
    assert report.certificate is not None
    assert 0 < report.certificate.lower_bound < report.certificate.value == pytest.approx(report.energy_pj)
    assert "% above any schedule" in " ".join(repr(report).split())


@pytest.mark.long
def test_a_proof_beside_groups_says_what_it_covers(files: Path) -> None:
    report = hwsim.evaluate(files / "residual.json", files / "small.yaml", fuse=True)
    alone = hwsim.evaluate(files / "residual.json", files / "small.yaml")
    known, before = report.certificate, alone.certificate
    assert known is not None
    assert before is not None
    assert report.groups
    assert report.energy_pj <= alone.energy_pj
    assert known.value == pytest.approx(report.energy_pj)
    assert known.lower_bound <= before.lower_bound
    assert before.space.endswith(UNTRIED)
    assert before.space.removesuffix(UNTRIED) in known.space


@pytest.mark.long
@pytest.mark.parametrize(
    ("machine", "options", "without"),
    [
        ("small.yaml", ["--quick"], ""),
        ("small.yaml", ["--lifetimes", "rows"], ", without --lifetimes"),
        ("eyeriss_v1", ["--quick", "--constraints", "own"], ", without --constraints"),
    ],
    ids=["quick", "lifetimes", "constraints"],
)
def test_a_report_says_that_groups_were_not_tried_and_how_to(
    files: Path, tmp_path: Path, machine: str, options: list[str], without: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = str(files / machine) if machine.endswith(".yaml") else machine
    assert main([str(files / "residual.json"), spec, *options, "--out", str(tmp_path)]) == 0
    report, page, text = report_of(tmp_path), (tmp_path / "report.html").read_text(), capsys.readouterr().out
    said = report["fusion"]["not_tried"]
    assert report["fusion"] == {"groups": [], "without": None, "not_tried": said}
    assert said == f"depth-first groups were not tried; --fuse on (Python: fuse=True) looks for them{without}"
    assert said in " ".join(text.split())
    assert f"{said[1:]}." in re.sub(r"</?span[^>]*>", "", page)
    assert report["certificate"] is None or report["certificate"]["space"].endswith(UNTRIED)


def test_nothing_is_said_of_groups_where_none_can_be_or_all_were_looked_for(files: Path) -> None:
    text = (files / "small.yaml").read_text()
    apart = text.replace("keeps: [input, output]", "keeps: [input]")  # no memory keeps inputs and outputs
    assert apart != text
    (files / "apart.yaml").write_text(apart)
    for machine, fuse in (("apart.yaml", False), ("small.yaml", True)):
        report = hwsim.evaluate(files / "chain.json", files / machine, effort="quick", fuse=fuse)
        assert "not_tried" not in report.to_dict().get("fusion", {})
        assert "not tried" not in repr(report)


def test_a_proven_gap_beside_groups_says_which_layers_it_covers(files: Path) -> None:
    """The gap of the few layers outside groups is not the network's."""
    fused = hwsim.evaluate(files / "chain.json", files / "small.yaml", effort="quick", fuse=True)
    macs = fused.found.values()
    outside = [found for found in macs if found.certificate.space != FUSED]
    assert len(outside) < len(macs)
    line, page = certificate_line(fused), report_page(fused.to_dict())
    said = f"in the {len(outside)} of {len(macs)} layers with MACs outside depth-first groups"
    assert said in line if outside else "all layers run depth first" in line
    assert "No schedule, with or without depth-first groups, gives more than" in page
    again = hwsim.evaluate(files / "chain.json", files / "small.yaml", mapping=files / "out" / "mappings.yaml")
    assert "proven the best" not in report_page(again.to_dict())
    assert "layer's bound" not in certificate_line(again) or said in certificate_line(again)


WRONG = {
    "last: last": ("last: lost", "has no stage that begins with a layer 'lost'"),
    "columns: ": ("columns: 9", "the last map has"),
    "halos: kept": ("halos: recomputed", ""),
    "weights_stay: [": ("weights_stay: [nobody, ", "weights_stay: 'nobody' is no stage of the group"),
}


@pytest.mark.parametrize("old", WRONG)
def test_groups_that_do_not_suit_the_network_are_refused(
    files: Path, tmp_path: Path, old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    new, message = WRONG[old]
    text = (files / "out" / "mappings.yaml").read_text()
    changed = text.replace(old, new, 1)
    assert changed != text
    (tmp_path / "m.yaml").write_text(changed)
    code = main([str(files / "chain.json"), str(files / "small.yaml"), "--mapping", str(tmp_path / "m.yaml")])
    output = capsys.readouterr()
    if message:
        assert code == 2
        assert message in " ".join(output.err.split())
    else:  # rows made anew are a way to run a group
        assert code in (0, 3)
    assert "Traceback" not in output.err


def test_groups_that_do_not_fit_are_infeasible(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = (
        (files / "small.yaml").read_text().replace("size_bits: 24_576, keeps: [input", "size_bits: 512, keeps: [input")
    )
    (tmp_path / "tiny.yaml").write_text(tiny)
    mapping = str(files / "out" / "mappings.yaml")
    assert main([str(files / "chain.json"), str(tmp_path / "tiny.yaml"), "--mapping", mapping]) in (2, 3)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [["--mapping", "m.yaml"], ["--constraints", "own"], ["--format", "timeloop", "--out", "x"]],
    ids=lambda o: o[0],
)
def test_options_that_exclude_groups(files: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(files / "chain.json"), str(files / "small.yaml"), "--quick", "--fuse", "on", *options]
    assert main(arguments) == 2
    assert "exclude each other" in capsys.readouterr().err


def test_fuse_is_true_or_false(files: Path) -> None:
    with pytest.raises(RequestError, match="fuse: expected True or False"):
        hwsim.evaluate(files / "chain.json", files / "small.yaml", fuse="on")  # type: ignore[arg-type]


def test_groups_beside_lifetimes_are_refused_with_the_reason_and_the_way_out(files: Path) -> None:
    with pytest.raises(hwsim.RequestError, match="leave no order of loops to free by; use lifetimes whole"):
        hwsim.evaluate(files / "chain.json", files / "small.yaml", effort="quick", fuse=True, lifetimes="rows")
