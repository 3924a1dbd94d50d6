"""`python -m hwsim.explore bits`: its files feed the other commands, and every mistake has one clear message."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import yaml

from hwsim.explore.bits.budgets import parse_budgets
from hwsim.explore.command import main
from hwsim.network.workload import Workload
from tests.explore.test_bill import residual

SITES = [(n, o) for n in ("first", "second", "last") for o in ("weight", "input")] + [("add", "input")]


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    residual().save(tmp_path / "net.json")
    return tmp_path / "net.json"


@pytest.fixture
def losses(tmp_path: Path) -> Path:
    entries = [
        {"layer": name, "operand": operand, "loss_by_bits": {str(b): (i + 1) * 4.0**-b for b in (2, 4, 8)}}
        for i, (name, operand) in enumerate(SITES)
    ]
    document = {"format": "quant-sensitivities", "format_version": 1, "model": "net", "method": "loss"}
    (tmp_path / "s.json").write_text(json.dumps({**document, "sensitivities": entries}))
    return tmp_path / "s.json"


def bits(model: Path, *more: str) -> list[str]:
    return [
        "bits",
        str(model),
        "bit_fusion",
        "--weights",
        "2,4,8",
        "--activations",
        "2,8",
        "--first-last",
        "same",
        "--elementwise-bits",
        "same",
        *more,
    ]


def test_a_front_leaves_tables_figures_and_files_that_other_commands_read(
    model: Path, losses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hwsim.evaluate import main as evaluate

    out = tmp_path / "out"
    assert (
        main(bits(model, "--sensitivities", str(losses), "--front", "energy", "--points", "3", "--out", str(out))) == 0
    )
    said = capsys.readouterr().out
    assert "point_02" in said
    assert "W2A2" in said
    rows = table(out / "points.csv")
    front = [row for row in rows if row["kind"] == "front"]
    assert [float(r["loss"]) for r in front] == sorted(float(r["loss"]) for r in front)
    assert (out / "front.png").stat().st_size > 5000
    assert "plotly" in (out / "front.html").read_text(encoding="utf-8")
    last = out / front[-1]["point"]
    assert evaluate([str(model), "bit_fusion", "--quick", "--bits", str(last / "bits.yaml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["energy_pj"] == float(front[-1]["energy_pj"])
    overrides = yaml.safe_load((last / "overrides.yaml").read_text())
    assert overrides["second"] == {"weight_bits": 2, "act_bits": 2}
    assert overrides["add"] == {"act_bits": 2}
    assert json.loads((out / "points.json").read_text())["points"][0]["point"] == "point_00"


def test_one_point_meets_its_budgets(model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "one"
    assert main(bits(model, "--minimise", "bops", "--budget", "peak=400B", "--out", str(out))) == 0
    row = table(out / "points.csv")[0]
    assert int(row["peak_activation_bits"]) <= 3200


def test_an_impossible_budget_names_itself_and_the_closest_point(
    model: Path, losses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "none"
    code = main(bits(model, "--sensitivities", str(losses), "--budget", "energy=1nJ", "--budget", "weights=10kB",
                     "--out", str(out)))  # fmt: skip
    said = capsys.readouterr().err
    assert code == 3
    assert "energy_pj: budget 1000, the least that any choice of bits reaches is" in said
    assert "closest point: energy_pj" in said
    assert "Traceback" not in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--budget", "energy=2mm"], "expected a unit of J, mJ"),
        (["--budget", "power=2W"], "expected one of energy, latency"),
        (["--budget", "energy=1mJ", "--budget", "energy=2mJ"], "two budgets for energy_pj"),
        (["--budget", "energy=-1mJ"], "expected one of energy"),
        (["--limit", "second.weight"], "expected LAYERS.weight=WIDTHS"),
        (["--limit", "nosuch*.weight=4"], "matches no layer"),
        (["--limit", "second.input=8", "--limit", "sec*.input=2"], "contradict each other"),
        (["--limit", "second.input=8", "--limit", "add.input=2"], "is stored in at most 2 bits"),
        (["--points", "3"], "needs --front"),
        (["--minimise", "loss"], "needs --sensitivities"),
        (["--front", "energy"], "is what is minimised already"),
        (["--front", "bops", "--points", "0"], "at least 1 point"),
        (["--sensitivities", "/nonexistent.json"], "cannot be read"),
        (["--weights", "5..3"], "empty"),
    ],
)
def test_mistakes_are_named(model: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str) -> None:
    assert main(bits(model, *more)) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "1h"])
def test_a_time_limit_is_a_positive_number_of_seconds(
    model: Path, capsys: pytest.CaptureFixture[str], seconds: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(bits(model, "--time-limit", seconds))
    assert ended.value.code == 2
    assert f"expected a positive number of seconds, got {seconds!r}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not a complete JSON file"),
        ("{}", "expected sensitivities"),
        ('{"format": "quant-sensitivities", "format_version": 1, "sensitivities": []}', "expected a list"),
        ('{"format": "quant-sensitivities", "format_version": 1, "sensitivities": [{"layer": "a"}]}', "operand"),
        ('{"format": "quant-sensitivities", "format_version": 1, "sensitivities": '
         '[{"layer": "a", "operand": "input", "loss_by_bits": {"4": "x"}}]}', "expected a number at 4 bits"),
        ('{"format": "quant-sensitivities", "format_version": 1, "sensitivities": '
         '[{"layer": "a", "operand": "input", "loss_by_bits": {"4": 1}}]}', "none of its layers (a)"),
    ],
)  # fmt: skip
def test_broken_sensitivities_are_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (tmp_path / "bad.json").write_text(text)
    assert main(bits(model, "--sensitivities", str(tmp_path / "bad.json"))) == 2
    assert said in capsys.readouterr().err


def test_budgets_are_read_in_their_units() -> None:
    found = parse_budgets(["energy=2mJ", "latency=5ms", "weights=1KiB", "peak=10kB", "bops=2e9"], clock_mhz=100.0)
    assert found == pytest.approx({"energy_pj": 2e9, "latency_cycles": 5e5, "weight_bits": 8192.0,
                                   "peak_activation_bits": 80000.0, "bops": 2e9})  # fmt: skip


def test_a_network_without_choices_is_still_priced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, *_ = residual().layers
    Workload("one", [first]).save(tmp_path / "one.json")
    assert main(["bits", str(tmp_path / "one.json"), "bit_fusion"]) == 0
    assert "8.00/8.00" in capsys.readouterr().out
