"""`python -m experiments.validate`: published and simulated results next to what the cost model says.

Prints a summary and, with --rows, every row; --out writes validation.csv and validation_studies.csv, --page a
markdown page. --only NAME runs some studies; --search adds the two that search some 150 layers (a minute). Nothing is
fitted per layer; rows that calibrated anything never count as checks.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.drawing import write_bytes
from experiments.validation import (
    arithmetic,
    decode,
    ethos,
    eyeriss,
    gemm,
    gemmini,
    gpu,
    nvdla,
    riscv,
    synergy,
    synergy_right,
    tiny,
    tpu,
)
from experiments.validation.rows import Row, Study, signed_percent, summary_lines
from hwsim.console import wrote
from hwsim.files.csv_text import csv_text

STUDIES: dict[str, Callable[[], Study]] = {
    "eyeriss_alexnet": eyeriss.study,
    "synergy_recorded": synergy.study,
    "tpu_v1": tpu.study,
    "nvdla_resnet50": nvdla.study,
    "hawqv3_t4": gpu.study,
    "a100_gemm": gemm.study,
    "a100_decode": decode.study,
    "ethos_u55_256": ethos.study,
    "mlperf_tiny_m7": tiny.study,
    "mlperf_tiny_m4": lambda: tiny.study(tiny.M4),
    "mico_riscv": riscv.study,
    "gemmini_rtl": gemmini.study,
    "psma_28nm": arithmetic.study,
    "colonnade": arithmetic.macro_study,
}
SEARCHES: dict[str, Callable[[], Study]] = {
    "synergy_search": synergy.search_study,
    "synergy_right": synergy_right.study,
}
WIDTH = 120  # of the page's lines, tables aside
MANY = 60  # rows beyond which the page shows the worst only
ROW_FIELDS = ("study", "item", "quantity", "unit", "published", "ours", "error", "role")
STUDY_FIELDS = ("study", "quantity", "checks", "mean_error", "worst_item", "worst_error", "machine", "source")


def row_lines(rows: Sequence[Row]) -> list[str]:
    """A markdown table of rows."""
    lines = ["| row | quantity | published | ours | error | counts as |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        theirs, ours = f"{row.published:.4g} {row.unit}", f"{row.ours:.4g}"
        lines.append(f"| {row.item} | {row.quantity} | {theirs} | {ours} | {signed_percent(row.error)} | {row.role} |")
    return lines


def study_lines(study: Study) -> list[str]:
    """One study in full; of very long ones the worst rows."""
    rows, note = study.rows, ""
    if len(rows) > MANY:
        kind, known = ("checks", study.checks) if study.checks else ("rows", rows)
        rows = tuple(sorted(known, key=lambda row: -abs(row.error))[:12])
        note = f"The 12 largest errors of {len(known)} {kind}; all rows are in results/validation.csv."
    head = [f"## {study.title}", "", f"Source: {study.source}.  ", f"Machine: {study.machine}.  "]
    return [
        *head,
        *calibrated_lines(study.calibrated),
        "",
        *textwrap.wrap(study.explanation, WIDTH, break_long_words=False, break_on_hyphens=False),
        "",
        *([note, ""] if note else []),
        *row_lines(rows),
        "",
    ]


def calibrated_lines(calibrated: Sequence[str]) -> list[str]:
    """What was fitted: one line, or a list of several numbers."""
    if len(calibrated) > 1:
        return ["Calibrated:", "", *(f"- {number}" for number in calibrated)]
    return [f"Calibrated: {calibrated[0] if calibrated else 'nothing'}."]


def page(studies: Sequence[Study]) -> str:
    """The whole page."""
    lines = [
        "# Validation",
        "",
        "Published and simulated results next to ours. Written by the command below; data and their sources are in",
        "`experiments/data/README.md`. Nothing is fitted per layer. `check` rows calibrated nothing; `calibration`",
        "rows did and do not count; `context` rows cannot be a check (compressed traffic, a bound, a spread). An error",
        "is ours / published - 1; means are over absolute errors of check rows.",
        "",
        "    python -m experiments.validate --search --out results --page docs/validation.md",
        "",
        *summary_lines(studies),
        "",
        "`make gate` repeats all studies and fails where a mean error grew by more than a point; CI runs it.",
        "",
        "Systolic arrays are not in the table because nothing differs. Cycles equal the closed forms of a public cycle",
        "simulator for every layer of ResNet-18 and MobileNetV2. The arrays are 12x14, 32x32 and 128x128 and hold",
        "outputs, weights or inputs. Small ones also equal a simulation register by register",
        "(`tests/pricing/test_systolic.py`).",
        "",
        "How throughput, latency and energy move with bits on each style of MAC unit (`python -m",
        "experiments.mac_styles`; the claims are tests):",
        "",
        "![MAC styles](figures/mac_styles.png)",
        "",
        "Fused bricks need channels side by side. From 8 to 2 bits a 1x1 or 3x3 layer gains 15.9 times on bit_fusion,",
        "and a first layer of 3 channels 3.0 times. A depthwise layer gains nothing (`python -m",
        "experiments.fusion_kinds`):",
        "",
        "![Bit Fusion by layer kind](figures/fusion_kinds.png)",
        "",
    ]
    for study in studies:
        lines += study_lines(study)
    return "\n".join(lines).rstrip() + "\n"


def write_results(studies: Sequence[Study], folder: Path) -> list[Path]:
    """validation.csv (every row) and validation_studies.csv (one line per study and quantity)."""
    rows = [
        (s.name, r.item, r.quantity, r.unit, f"{r.published:.6g}", f"{r.ours:.6g}", f"{r.error:.4f}", r.role)
        for s in studies
        for r in s.rows
    ]
    summary: list[tuple[object, ...]] = []
    for study in studies:
        for quantity in study.quantities:
            worst = study.worst(quantity)
            if worst is not None:
                count = sum(row.quantity == quantity for row in study.checks)
                mean = f"{study.mean_error(quantity):.4f}"
                summary.append(
                    (study.name, quantity, count, mean, worst.item, f"{worst.error:.4f}", study.machine, study.source)
                )
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write_bytes(folder / "validation.csv", csv_text([ROW_FIELDS, *rows]).encode()),
        write_bytes(folder / "validation_studies.csv", csv_text([STUDY_FIELDS, *summary]).encode()),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 for an unknown study."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.validate", description="Published results beside ours."
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join((*STUDIES, *SEARCHES))}")
    parser.add_argument("--search", action="store_true", help="also search on the closest system's machine (a minute)")
    parser.add_argument("--rows", action="store_true", help="print every row")
    parser.add_argument("--out", type=Path, help="folder of validation.csv and validation_studies.csv")
    parser.add_argument("--page", type=Path, help="markdown page to write")
    options = parser.parse_args(arguments)
    known = {**STUDIES, **SEARCHES}
    names = options.only or [*STUDIES, *(SEARCHES if options.search else ())]
    unknown = [name for name in names if name not in known]
    if unknown:
        print(
            f"experiments.validate: --only: expected some of {', '.join(known)}, got {', '.join(unknown)}",
            file=sys.stderr,
        )
        return 2
    studies: list[Study] = []
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        studies.append(known[name]())
    print("\n".join(summary_lines(studies)))
    if options.rows:
        for study in studies:
            print("\n" + "\n".join(study_lines(study)))
    written = write_results(studies, options.out) if options.out else []
    if options.page:
        options.page.parent.mkdir(parents=True, exist_ok=True)
        written.append(write_bytes(options.page, page(studies).encode()))
    for path in written:
        wrote(path, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
