"""docs/results.md and docs/integer.md say what the CSVs say, and the script's numbers are right."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from experiments import beyond, document, table
from experiments.jobs import Job
from experiments.profiles import PROFILES
from experiments.table import Interval

ROOT = Path(__file__).parents[2]
USUAL = {
    "arguments": "{}", "limit": "", "weights": "", "padding_policy": "pad_code", "init": "lsqplus", "method": "lsqplus",
    "offset_mode": "learned", "first_last": "8bit", "learning_rate": "", "weight_decay": "", "distill": "False",
    "gradient_scale": "1/sqrt(Np)", "change_limit": f"{Job.change_limit:g}", "batch_size": "64", "epochs": "8",
    "diverged": "False", "data": "digits", "duration_s": "1", "commit": "c", "device": "d",
}  # fmt: skip
ACCURACIES = {"1": (90.0, 91.0, 92.0), "4": (92.0, 92.5, 94.5), "2": (10.0, 60.0, 70.0)}


@pytest.fixture
def results(tmp_path: Path) -> document.Results:
    """Three configurations of one SiLU network at one precision, three seeds; one run at chance."""
    rows = [{**USUAL, "key": "f", "network": "silu_se_net", "bits": "float", "seed": "0", "config": "auto",
             "test_accuracy_percent": "95"}]  # fmt: skip
    rows += [
        {**USUAL, "key": f"{config}{seed}", "network": "silu_se_net", "bits": "W4A4", "seed": str(seed),
         "config": config, "test_accuracy_percent": str(value)}
        for config, values in ACCURACIES.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    (tmp_path / "digits").mkdir()
    table.write(tmp_path / "digits" / "runs.csv", rows)
    offsets = [{"key": "40", "quantizer": "q", "is_weight": "False", "config": "4", "beta_initial": "-0.3",
                "beta_final": beta} for beta in ("-0.3", "-0.2", "0.1")]  # fmt: skip
    table.write(tmp_path / "digits" / "quantizers.csv", offsets)
    return document.Results(tmp_path)


@pytest.mark.parametrize("page", document.PAGES, ids=lambda page: page.stem)
def test_the_pages_say_what_the_csvs_say(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert document.main(["--check", "--page", str(page)]) == 0, (
        f"{page} differs from its CSVs: run python -m experiments.document"
    )


def test_differences_are_paired_and_carry_their_verdict(results: document.Results) -> None:
    pairs = [b - a for a, b in zip(ACCURACIES["1"], ACCURACIES["4"], strict=True)]
    expected = Interval.of(pairs)
    assert expected.half_width is not None
    line = next(line for line in document.section(results, "configurations").splitlines() if line.startswith("| 4 "))
    assert line.endswith(f"| {expected.mean:+.2f} ± {expected.half_width:.2f}: higher |")
    assert re.search(r"c2 less c4 \| -46.33 ± 77.37 \| 3 \| undecided \|$", document.differences(results, "C3"))
    assert document.differences(results, "C8") == "Not run yet."


def test_mixed_bits_stand_beside_uniform_ones_of_their_energy(results: document.Results) -> None:
    """Ratios of the two prices on the machine of the budget; accuracies paired by seed; in no table of uniform bits."""
    runs, before = results.folder / "digits" / "runs.csv", document.section(results, "configurations")
    name, better = "mixed-silu_se_net-stripes-w4a4", (94.0, 94.5, 96.0)
    table.append(runs, [
        {**USUAL, "key": f"m{seed}", "network": "silu_se_net", "bits": name, "seed": str(seed), "config": "1",
         "test_accuracy_percent": str(value)} for seed, value in enumerate(better)
    ])  # fmt: skip
    point = {**USUAL, "network": "silu_se_net", "config": "1", "status": "ok", "weight_bits": "10", "latency_s": "2"}
    table.write(results.folder / "digits" / "pareto.csv", [
        {**point, "accelerator": "stripes", "bits": "W4A4", "energy_pj": "200"},
        {**point, "accelerator": "stripes", "bits": name, "energy_pj": "190", "weight_bits": "5"},
        {**point, "accelerator": "unpu", "bits": name, "energy_pj": "1"},
    ])  # fmt: skip
    expected = Interval.of([b - a for a, b in zip(ACCURACIES["1"], better, strict=True)])
    (line,) = [line for line in document.mixed(results).splitlines() if "stripes" in line]
    assert "| 0.950 | 1.000 | 0.500 | 91.00 ± 2.48, n=3 | 94.83 ± 2.59, n=3 |" in line
    assert line.endswith(f"| +{expected.mean:.2f} ± {expected.half_width:.2f} | 3 | higher |")
    assert document.section(results, "configurations") == before


def test_runs_at_chance_and_offsets_below_the_minimum_are_counted(results: document.Results) -> None:
    assert re.search(r"\| 3 \| 9 \| 1 \|$", document.what_was_run(results), re.M)
    assert re.search(r"\| W4A4 \| 3 \| 3 \| 2 \| 1 \| 3 \| -0.200 \|$", document.learned_offsets(results), re.M)


def test_only_blocks_are_rewritten(
    results: document.Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- begin differences C3 -->\nold\n<!-- end -->\nAfter.\n")
    options = ["--page", str(page), "--results", str(tmp_path)]
    assert document.main([*options, "--check"]) == 1
    assert document.main(options) == 0
    assert document.main([*options, "--check"]) == 0
    text = page.read_text()
    assert text.startswith("Before.\n<!-- begin differences C3 -->\n| network")
    assert text.endswith("<!-- end -->\nAfter.\n")
    assert "old" not in text
    page.write_text("<!-- begin nonsense -->\n<!-- end -->\n")
    assert document.main(options) == 2
    assert "block 'nonsense'" in capsys.readouterr().err


def test_each_added_method_is_found_in_its_rows_and_set_against_the_base() -> None:
    """Rows as a run of every method writes them: names, means, and differences seed by seed."""
    listed = beyond.jobs(PROFILES["digits"])
    rows = [
        {**{k: table.text_of(v) for k, v in asdict(job).items()},
         "test_accuracy_percent": str(80 + job.seed + (5 if job.distill else 0))}
        for job in listed
    ]  # fmt: skip
    assert Counter(beyond.method_of(row) for row in rows) == dict.fromkeys(beyond.METHODS, len(beyond.SEEDS))
    wide = next(job.wide_job() for job in listed if job.anneal_from)
    half = {**{k: table.text_of(v) for k, v in asdict(wide).items()}, "test_accuracy_percent": "99"}
    assert half["bits"] not in beyond.precisions(PROFILES["digits"])  # so the page leaves it out
    lines = {line[0]: line[1:] for line in beyond.comparison(rows)}
    assert list(lines) == list(beyond.METHODS)
    assert lines["base"] == ["82.00 ± 1.96", "", "5"]
    assert lines["distillation from the float network"] == ["87.00 ± 1.96", "+5.00 ± 0.00", "5"]
