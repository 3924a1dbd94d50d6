"""Level bars of the Pareto plots: what a machine's estimates leave open of energy and latency."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from experiments import table
from experiments.figures import configurations
from experiments.pareto_figures import AXES, ENDS, cost_range, draw_panel, ends_of
from experiments.pareto_page import view_of
from experiments.pricing import cost_cells
from hwsim.machine.load import load_accelerator
from hwsim.report.evaluation import Request, evaluate_workload
from tests.small_workloads import chain

ROOT = Path(__file__).parents[2]
PRICED = [ROOT / "results" / profile / "pareto.csv" for profile in ("digits", "fashion")]


def rows_of(*costs: tuple[float, float, float]) -> list[table.Row]:
    """Points of one machine: (energy, its lowest, its highest); the second axis has no interval."""
    return [
        {
            "network": "n", "data": "d", "accelerator": "m", "status": "ok", "config": "4", "bits": "W4A4",
            "seeds": "3",
            "padding_policy": "pad_code", "accuracy_percent": str(90 + i), "accuracy_half_width": "0.5",
            "float_accuracy_percent": "95", "diverged_runs": "0", "energy_pj": str(1e6 * cost),
            "energy_low_pj": str(1e6 * low), "energy_high_pj": str(1e6 * high), "latency_s": "1e-6",
            "weight_bits": "8000",
            "peak_activation_bits": "8000", "mapping_gap_max": "0", "energy_pj_by_component": "{}",
            "offset_classes": "{}", "bits_per_layer": "{}", "train_command": "t", "price_command": "p",
        }
        for i, (cost, low, high) in enumerate(costs)
    ]  # fmt: skip


def level_bars(rows: list[table.Row], place: int) -> list[tuple[float, float]]:
    """Ends of the level bars that a panel draws, in its label's unit."""
    axes = Figure().subplots()
    draw_panel(axes, rows, *AXES[place])
    segments = [s for found in axes.collections if isinstance(found, LineCollection) for s in found.get_segments()]
    return sorted((s[0][0], s[1][0]) for s in segments if s[0][1] == s[1][1])


def test_a_panel_draws_the_interval_of_every_energy() -> None:
    rows = rows_of((10.0, 8.0, 13.0), (16.0, 12.8, 20.1))
    assert level_bars(rows, 0) == [pytest.approx((8.0, 13.0)), pytest.approx((12.8, 20.1))]


def test_costs_without_estimates_have_no_level_bar() -> None:
    rows = rows_of((10.0, 8.0, 13.0), (16.0, 16.0, 16.0))
    assert level_bars(rows, 0) == [pytest.approx((8.0, 13.0))]
    assert [level_bars(rows, place) for place in (1, 2, 3)] == [[], [], []]


@pytest.mark.parametrize("profile", ["cpu", "cpu_long", "digits", "fashion"])
def test_intervals_of_accuracy_end_inside_the_frame(profile: str) -> None:
    figure = configurations(table.current(table.read(ROOT / "results" / profile / "runs.csv")))
    assert figure is not None
    for axes in figure.axes:
        bottom, top = axes.get_ylim()
        bars = [s for found in axes.collections if isinstance(found, LineCollection) for s in found.get_segments()]
        assert bars
        for (_, low), (_, high) in bars:
            assert max(0, bottom) <= low <= high <= min(100, top)


def test_wide_bars_leave_the_axis_and_points_do_not() -> None:
    rows = rows_of((1.0, 0.5, 9.0), (2.0, 1.0, 18.0))
    low, high = (end / 1e6 for end in cost_range(rows, "energy_pj"))
    assert low < 1.0
    assert 2.0 < high < 9.0
    whole = [end / 1e6 for end in cost_range(rows_of((1.0, 0.9, 1.2), (2.0, 1.8, 2.4)), "energy_pj")]
    assert whole[0] <= 0.9
    assert whole[1] >= 2.4


def test_the_page_has_the_same_ends_and_ranges() -> None:
    rows = rows_of((10.0, 8.0, 13.0), (16.0, 12.8, 20.1))
    view = view_of(rows, [])
    assert [point["ends"][0] for point in view["points"]] == [pytest.approx([8.0, 13.0]), pytest.approx([12.8, 20.1])]
    assert [point["ends"][2] for point in view["points"]] == [[1.0, 1.0]] * 2
    assert view["ranges"][0] == pytest.approx([end / 1e6 for end in cost_range(rows, "energy_pj")])


@pytest.mark.parametrize("machine", ["eyeriss_v1", "t4"])
def test_a_priced_point_has_the_intervals_of_its_report(machine: str) -> None:
    report = evaluate_workload(chain(), load_accelerator(machine), Request(effort="quick"))
    cells = {name: str(value) for name, value in cost_cells(report).items()}
    for column, interval in (("energy_pj", report.cost.energy_interval), ("latency_s", report.cost.latency_interval)):
        low, high = ends_of([cells], column)
        ends = (interval.low_pj, interval.high_pj) if column == "energy_pj" else (interval.low_s, interval.high_s)  # type: ignore[union-attr]
        assert (low[0], high[0]) == ends
        assert low[0] <= float(cells[column]) <= high[0]
    assert float(cells["energy_low_pj"]) < float(cells["energy_high_pj"])


@pytest.mark.parametrize("points", PRICED, ids=lambda path: path.parent.name)
def test_committed_points_lie_within_their_intervals(points: Path) -> None:
    rows = [row for row in table.read(points) if row["status"] == "ok"]
    for column, names in ENDS.items():
        assert all(row[name] for row in rows for name in names)
        low, high = ends_of(rows, column)
        cost = np.array([float(row[column]) for row in rows])
        assert (low <= cost * (1 + 1e-6)).all()
        assert (cost <= high * (1 + 1e-6)).all()
