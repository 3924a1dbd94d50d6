"""The whole pipeline at tiny scale: train, price, draw, write the page; then redraw everything from the CSVs alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import (
    figures,
    lsq_tables,
    lsqplus_tables,
    pareto,
    pareto_figures,
    pareto_page,
    profiles,
    table,
    tables,
)
from experiments.pricing import Prices, job_of, price_job, price_point, refresh_accuracies, workload_of
from hwsim.evaluate import main as evaluate_main
from hwsim.machine.load import load_accelerator
from hwsim.report.evaluation import Request, evaluate_workload
from hwsim.verify import main as verify_main
from tests.experiments import browser

MACHINES = ("bit_fusion", "gemmini_16x16")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A results folder of the smoke profile, shrunk to one precision and a few steps."""
    out = tmp_path_factory.mktemp("results") / "smoke"
    smoke = profiles.PROFILES["smoke"]
    silu = replace(smoke.silu, limit=256, float_epochs=3, epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(profiles.PROFILES, "smoke", replace(smoke, silu=silu, bits=("W4A4",)))
        assert pareto.main(["--out", str(out), "--accelerators", *MACHINES]) == 0
        yield out


@pytest.mark.long
def test_every_configuration_is_priced_on_every_machine(results: Path) -> None:
    points = table.read(results / "pareto.csv")
    found = {(row["config"], row["accelerator"]) for row in points if row["status"] == "ok"}
    assert found == {(config, machine) for config in "1234" for machine in MACHINES}
    for row in points:
        assert sum(json.loads(row["energy_pj_by_component"]).values()) == pytest.approx(
            float(row["energy_pj"]), rel=1e-3
        )
        assert "--only silu_se_net-digits-W4A4" in row["train_command"]


def test_accuracies_can_be_brought_up_to_date_without_pricing(results: Path, tmp_path: Path) -> None:
    points, runs = tmp_path / "pareto.csv", tmp_path / "runs.csv"
    points.write_bytes((results / "pareto.csv").read_bytes())
    rows = table.read(results / "runs.csv")
    second = [{**row, "seed": "1", "test_accuracy_percent": "50"} for row in rows]
    table.write(runs, [*rows, *second])
    refresh_accuracies(runs, points)
    first = {(r["config"], r["accelerator"]): float(r["accuracy_percent"]) for r in table.read(results / "pareto.csv")}
    for row in table.read(points):
        assert float(row["accuracy_percent"]) == pytest.approx((first[row["config"], row["accelerator"]] + 50) / 2)
        assert row["seeds"] == "2"
    table.write(runs, [*rows, {**rows[-1], "bits": "W3A3"}])
    with pytest.raises(ValueError, match="no price of"):
        refresh_accuracies(runs, points)


def test_prices_are_those_of_evaluate(results: Path) -> None:
    row = next(
        r for r in table.read(results / "pareto.csv") if r["config"] == "4" and r["accelerator"] == "gemmini_16x16"
    )
    totals = evaluate_workload(
        workload_of(job_of(row)), load_accelerator("gemmini_16x16"), Request(effort="quick")
    ).cost.totals
    assert float(row["energy_pj"]) == pytest.approx(totals.energy_pj, rel=1e-7)
    assert int(row["peak_activation_bits"]) == totals.peak_activation_bits


def test_the_figures_are_there(results: Path) -> None:
    for kind, magic in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        assert (results / f"pareto-silu_se_net.{kind}").read_bytes().startswith(magic)


@pytest.mark.long
def test_the_page_opens_in_a_browser(results: Path, tmp_path: Path) -> None:
    """Off line, without a complaint, every priced point in it; the page's own tests look at its parts."""
    pytest.importorskip("plotly")
    priced = [row for row in table.read(results / "pareto.csv") if row["accelerator"] == MACHINES[0]]
    with browser.opened(results / "pareto.html", tmp_path / "profile") as (page, complaints):
        labels = page.locator("#plot-0 .annotation-text").all_text_contents()
        assert sorted(labels) == sorted(map(pareto_figures.label_of, priced))
        commands = page.evaluate("data.views[0].points.map((point) => point.train)")
        assert all("experiments.pareto --profile smoke --only" in command for command in commands)
    assert complaints == []


@pytest.mark.long
def test_a_trained_network_is_verified_and_evaluated(results: Path, tmp_path: Path) -> None:
    """The checkpoint behind a row runs on the integer machine code for code, and costs what the row says."""
    row = next(
        r for r in table.read(results / "pareto.csv") if r["config"] == "4" and r["accelerator"] == "gemmini_16x16"
    )
    key = next(r["key"] for r in table.read(results / "runs.csv") if r["config"] == "4" and r["bits"] != "float")
    folder = str(results / "checkpoints" / key)
    assert verify_main([folder, "gemmini_16x16", "--images", "16", "--accuracy-images", "0"]) == 0
    assert evaluate_main([folder, "gemmini_16x16", "--quick", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["totals"]["energy_pj"] == pytest.approx(float(row["energy_pj"]), rel=1e-6)


@pytest.mark.long
def test_figures_are_redrawn_from_the_csvs_to_the_same_bytes(results: Path, tmp_path: Path) -> None:
    for folder in ("first", "second"):
        assert figures.main(["--results", str(results.parent), "--out", str(tmp_path / folder)]) == 0
    first = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    second = {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}
    assert first == second
    assert {"pareto-smoke-silu_se_net.svg", "configurations-smoke.png", "offsets-smoke.pdf"} <= set(first)


def test_tables_show_every_configuration(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["--runs", str(results / "runs.csv")]) == 0
    printed = capsys.readouterr().out
    for words in ("1 unsigned", "2 signed", "3 signed, offset", "4 unsigned, offset", "undecided"):
        assert words in printed


def test_other_experiments_reuse_the_runs(results: Path) -> None:
    """Tables 5 and 6 share their usual run with the Pareto plot, and LSQ's ablations measure R without training."""
    keys = {row["key"] for row in table.read(results / "runs.csv")}
    smoke = profiles.PROFILES["smoke"]
    shared = [job for job in lsqplus_tables.jobs(smoke) if job.key in keys]
    assert {job.config for job in shared} == {"1", "2", "3", "4"}
    base = lsq_tables.base_job(smoke, "W2A2")
    assert base.float_job().key in keys


@pytest.mark.long
def test_prices_found_meanwhile_are_the_same() -> None:
    """Another process prices what this one would; jobs that differ in what costs nothing are priced once."""
    job = replace(profiles.PROFILES["smoke"].silu, bits="W4A4", config="3")
    with Prices(["bit_fusion"], workers=1) as prices:
        prices.ask([job, replace(job, seed=3, epochs=9), job.float_job()])
        assert len(prices.found) == 1
        found, here = prices.of(job), price_job(job, ["bit_fusion"])
    assert found.bits == here.bits
    for cells in (*found.cells, *here.cells):
        del cells["pricing_s"]
    assert found.cells == here.cells


def test_a_refusal_is_a_row_with_its_reason(tmp_path: Path) -> None:
    spec = tmp_path / "two_bits_only.yaml"
    text = (Path(__file__).parents[2] / "accel_specs" / "t4.yaml").read_text(encoding="utf-8")
    assert "weight_bits: 1..16" in text
    spec.write_text(text.replace("weight_bits: 1..16", "weight_bits: 1..2").replace("name: t4", "name: two_bits_only"))
    job = replace(profiles.PROFILES["smoke"].silu, bits="W4A4", config="1")
    cells = price_point(workload_of(job), load_accelerator(spec))
    assert cells["status"] == "refused"
    assert "weight" in cells["reason"]
    row = {"bits": "W4A4", "config": "1", "padding_policy": "pad_code", "diverged_runs": "0", **cells}
    assert "W4A4 c1 refused" in pareto_figures.notes_of([row])


def test_grey_points_are_those_that_intervals_cannot_save() -> None:
    cost, accuracy = np.array([1.0, 2.0, 2.0, 3.0]), np.array([50.0, 60.0, 40.0, 59.0])
    sure, possible = pareto_figures.fronts(cost, accuracy, np.array([1.0, 1.0, 1.0, 1.5]))
    assert sure.tolist() == [True, True, False, False]
    assert possible.tolist() == [True, True, False, True]


def test_page_without_points_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    with pytest.raises(ValueError, match="no points to draw"):
        pareto_page.write_page(tmp_path / "absent.csv", tmp_path / "page.html")
