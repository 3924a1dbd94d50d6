"""The README's headline figure: accuracies with honest intervals, prices of today's model, every mark of the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import headline, table
from hwsim.files.identity import MODEL_VERSION

ROOT = Path(__file__).resolve().parents[2]


def row(bits: str, series: str, energy: float, accuracy: str = "", **changes: str) -> table.Row:
    around = {"accuracy_low": "", "accuracy_high": ""}
    if accuracy:
        around = {"accuracy_low": str(float(accuracy) - 1), "accuracy_high": str(float(accuracy) + 1)}
    return {
        "machine": "m", "bits": bits, "series": series, "status": "ok", "energy_pj": str(energy),
        "energy_low_pj": str(energy / 2), "energy_high_pj": str(energy * 2), "accuracy_percent": accuracy,
        "float_accuracy_percent": "86.3", **around, **changes,
    }  # fmt: skip


def test_one_run_has_the_interval_of_its_test_images_and_says_so() -> None:
    cells = headline.accuracy_cells([90.0])
    # 9,000 of 10,000 right; normal approximation: 1.96 sqrt(0.9 * 0.1 / 10,000) = 0.59 points
    assert cells["interval_of"] == "test images"
    assert cells["accuracy_low"] == pytest.approx(90 - 0.59, abs=0.03)
    assert cells["accuracy_high"] == pytest.approx(90 + 0.59, abs=0.03)


def test_several_runs_have_the_interval_of_their_seeds() -> None:
    cells = headline.accuracy_cells([80.0, 82.0, 84.0])
    assert cells["interval_of"] == "seeds"
    assert cells["accuracy_high"] - 82 == pytest.approx(4.303 * 2 / 3**0.5, rel=1e-3)  # t(0.975, 2) s / sqrt(n)


def test_what_was_not_trained_has_a_price_and_no_accuracy() -> None:
    assert set(headline.accuracy_cells([]).values()) == {None}


def test_an_offset_is_compared_with_the_same_bits_without_one() -> None:
    rows = [
        row("W2A2", "no offset", 100.0), row("W2A2", "pad_beta", 103.0),
        row("W4A4", "no offset", 200.0), row("W4A4", "pad_beta", 250.0),
    ]  # fmt: skip
    found = headline.added_percent(rows)
    assert found == pytest.approx({("W2A2", "pad_beta"): 3.0, ("W4A4", "pad_beta"): 25.0})


def test_every_trained_point_is_drawn_and_refusals_are_named() -> None:
    rows = [row("W4A4", "no offset", 2e8, "84.1"), row("W4A4", "pad_beta", 2.1e8, "84.4"),
            row("W2A2", "pad_beta", 1e8), row("W2A2", "no offset", 1e8, status="refused")]  # fmt: skip
    figure = headline.draw(rows)
    left, right = figure.subfigs
    panel = next(axes for axes in left.axes if axes.get_visible())
    assert panel.get_title(loc="left") == "m (refuses W2A2)"
    assert len(panel.containers) == 2
    assert [mark.get_xdata()[0] for mark in right.axes[0].lines[:1]] == [pytest.approx(5.0)]


def test_the_committed_table_holds_every_point_at_todays_prices() -> None:
    rows = table.read(ROOT / headline.TABLE)
    assert {(row["machine"], row["bits"], row["series"]) for row in rows} == {
        (machine, bits, series) for machine in headline.MACHINES for bits in headline.BITS for series in headline.SERIES
    }
    assert {row["model_version"] for row in rows} == {str(MODEL_VERSION)}, "python -m experiments.headline"
    shown = {(row["bits"], row["series"]): row["accuracy_percent"] for row in rows if row["accuracy_percent"]}
    runs = headline.points(ROOT / "results/cpu_long/runs.csv")
    trained = {(cells["bits"], cells["series"]): cells["accuracy_percent"] for _, cells in runs if cells["runs"]}
    assert {point: float(value) for point, value in shown.items()} == pytest.approx(trained)
