"""The table of depth-first groups in docs/search_results.md is that of results/depth_first.csv."""

from __future__ import annotations

from pathlib import Path

from experiments.depth_first import WAYS, fsrcnn, table
from experiments.table import read

ROOT = Path(__file__).parent.parent.parent


def test_the_page_shows_the_measured_table() -> None:
    page = (ROOT / "docs" / "search_results.md").read_text(encoding="utf-8")
    assert "\n".join(table(read(ROOT / "results" / "depth_first.csv"))) in page


def test_fusing_never_costs_more_energy() -> None:
    rows = {row["key"]: row for row in read(ROOT / "results" / "depth_first.csv")}
    for key in {key.rpartition("/")[0] for key in rows}:
        energies = [float(rows[f"{key}/{way}"]["energy_uj"]) for way in WAYS]
        assert energies == sorted(energies, reverse=True), key


def test_fsrcnn_has_the_layers_of_its_paper() -> None:
    shapes = [tuple(p.shape) for p in fsrcnn().parameters() if p.dim() == 4]
    assert shapes == [(56, 1, 5, 5), (12, 56, 1, 1), *[(12, 12, 3, 3)] * 4, (56, 12, 1, 1), (4, 56, 5, 5)]
