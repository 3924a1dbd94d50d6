"""Sentences of docs/formats.md whose numbers no program writes, beside the CSVs that they speak of.

After prices change: `python -m experiments.language.price`, `.vision.price`, `.language.page`, `.vision.page`, and
`python -m experiments.document`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments import table
from experiments.language import page as language
from experiments.language import sweep
from experiments.vision import page as vision

ROOT = Path(__file__).resolve().parents[2]
TEXT = " ".join((ROOT / "docs" / "formats.md").read_text(encoding="utf-8").split())
LANGUAGE, VISION = language.STUDY, vision.STUDY


def said(pattern: str) -> tuple[int, ...]:
    """The whole numbers of the one place where the page says this."""
    found = re.findall(pattern, TEXT)
    assert len(found) == 1, f"{pattern}: {len(found)} places"
    return tuple(int(number) for number in found[0])


def more(study: language.Page, arm: str, than: str, machine: str = "block_array") -> tuple[int, int]:
    """Percent more energy, and more time, of an arm than of another."""
    costs = {(row["arm"], row["machine"]): row for row in table.read(ROOT / study.costs)}
    both = (costs[arm, machine], costs[than, machine])
    energy, time = (float(both[0][c]) / float(both[1][c]) for c in ("energy_uj", "latency_us"))
    return round(100 * energy - 100), round(100 * time - 100)


def test_block_formats_cost_more_on_the_edge_array_than_lsq_plus() -> None:
    assert said(r"On the edge array MXFP4 takes (\d+) % more energy and (\d+) % more time than LSQ\+") == more(
        LANGUAGE, "mxfp4", "lsqplus-4"
    )
    found = said(
        r"On the edge array MXFP4 takes (\d+) % more energy and (\d+) % more time than `lsqplus-4`\. "
        r"NVFP4 takes (\d+) % and (\d+) % more than `lsqplus-4-mlp5`"
    )
    assert found == (*more(VISION, "mxfp4", "lsqplus-4"), *more(VISION, "nvfp4", "lsqplus-4-mlp5"))


def test_lsq_plus_costs_less_than_mxfp4_on_each_machine_that_runs_both() -> None:
    assert "LSQ+ costs less on each machine that runs both" in TEXT
    for study in (LANGUAGE, VISION):
        rows = table.group(table.read(ROOT / study.costs), "machine")
        runs = {machine: {row["arm"]: row for row in members} for (machine,), members in rows.items()}
        both = [arms for arms in runs.values() if not arms["mxfp4"]["refused"] and not arms["lsqplus-4"]["refused"]]
        assert len(both) == 2
        for arms in both:
            assert float(arms["lsqplus-4"]["energy_uj"]) < float(arms["mxfp4"]["energy_uj"])
            assert float(arms["lsqplus-4"]["latency_us"]) <= float(arms["mxfp4"]["latency_us"])
        assert not any(arms["lsqplus-4"]["refused"] for arms in runs.values())  # "LSQ+ runs on all four machines"
        assert len(runs) == 4


@pytest.mark.parametrize("machine", ["a100", "b200"])
def test_more_sequences_give_more_tokens_and_longer_caches_fewer(machine: str) -> None:
    rows = [row for row in table.read(ROOT / sweep.TABLE) if row["machine"] == machine]
    by = {(r["format"], int(r["batch"]), int(r["context"])): float(r["tokens_per_s"]) for r in rows}
    for (name, batch, context), rate in by.items():
        assert by.get((name, 8 * batch, context), rate) >= rate
        assert by.get((name, batch, 4 * context), rate) <= rate
