"""Fused schedules beside AccelForge's: the committed rows are ours, their table is the page's, no peer is no error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.peers_accelforge import CASES, KIBIBYTES, WAYS, einsums, network, ours, rows_of, table, theirs

ROOT = Path(__file__).parents[2]
ROWS = {(r["case"], int(r["buffer_kib"]), r["way"]): r for r in rows_of(ROOT / "results" / "fused_peer.csv")}
PEER = "HWSIM_ACCELFORGE_PYTHON"


def test_the_page_shows_the_rows() -> None:
    page = (ROOT / "docs" / "search_results.md").read_text(encoding="utf-8")
    assert "\n".join(table(list(ROWS.values()))) in page
    assert len(ROWS) == len(CASES) * len(KIBIBYTES) * len(WAYS)


def test_no_value_of_either_lies_below_our_bound() -> None:
    for (_, _, way), row in ROWS.items():
        assert int(row["hwsim_bits"]) >= int(row["hwsim_bound_bits"])
        if way == "fused":
            assert int(row["accelforge_bits"]) >= int(row["hwsim_bound_bits"])


def test_layer_by_layer_ours_is_never_above_the_peers() -> None:
    for (_, _, way), row in ROWS.items():
        assert way == "fused" or int(row["hwsim_bits"]) <= int(row["accelforge_bits"])


def test_where_the_peers_fused_schedule_is_better() -> None:
    """On buffers of 2 and 4 KiB alone: there it cuts maps into slices of channels."""
    better = {(case, kib) for (case, kib, _), r in ROWS.items() if int(r["accelforge_bits"]) < int(r["hwsim_bits"])}
    blocks = {(case, kib) for case in ("inverted residual", "two inverted residuals") for kib in (2, 4)}
    assert better == {("two 1x1", 2), *blocks}


@pytest.mark.parametrize(("case", "kib"), [("two 1x1", 2), ("two 1x1", 4), ("two 3x3", 4), ("inverted residual", 16)])
def test_the_rows_are_what_the_search_finds(case: str, kib: int) -> None:
    """Weights and lines of the two 3x3 fit 4 KiB only if cuts leave room for both."""
    for way, (bits, _, _) in ours(case, kib).items():
        assert bits == int(ROWS[case, kib, way]["hwsim_bits"])


@pytest.mark.parametrize("case", CASES)
def test_both_get_the_same_layers(case: str) -> None:
    text, workload = einsums(case), network(case)
    for i, layer in enumerate(workload.layers, start=1):
        made = layer.output.shape
        assert all(f"    {rank}{i}: {n}\n" in text for rank, n in zip("CPQ", made[1:], strict=True))
        assert layer.macs == made[1] * made[2] * made[3] * layer.loops.C * layer.loops.R * layer.loops.S


def test_the_peer_still_answers_as_recorded(tmp_path: Path) -> None:
    python = os.environ.get(PEER)
    if not python:
        pytest.skip(f"{PEER} names no Python with accelforge")
    for way, (bits, _) in theirs("two 1x1", 4, python, tmp_path).items():
        assert bits == float(ROWS["two 1x1", 4, way]["accelforge_bits"])
