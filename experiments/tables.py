"""`python -m experiments.tables --profile cpu`: the papers' tables from runs.csv, as Markdown, with intervals.

Every cell is the mean of the test accuracies over the seeds and the half-width of its 95 % interval. Differences are
taken seed by seed (one float network and one order of images per seed). A verdict says no more than its interval:
higher, lower, tie (the whole interval within one point), else undecided.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments import table
from experiments.profiles import BASELINES, CONFIGS, INITS, OFFSET_MODES, POLICIES, PROFILES
from experiments.table import Interval, Row, paired_difference, verdict
from quant.recipe import Recipe

TIE_WITHIN = 1.0
# What keeps s positive in runs without a limit. The floor was the rule until 2026-12.
POSITIVITY = {"": "floor s0/2^14", "absolute": "s reflected at 0", "printed": "as printed"}
# What makes two runs the same but for the change limit and how their batch norms were measured.
SAME_RUN = (
    "bits", "config", "seed", "padding_policy", "init", "offset_mode", "method", "gradient_scale", "weight_decay",
    "learning_rate", "weight_learning_rate", "distill", "first_last", "epochs",
)  # fmt: skip
USUAL = {"config": "4", "padding_policy": "pad_code", **table.USUAL}


def matches(row: Row, **wanted: str) -> bool:
    """Whether a row is the usual run but for these columns; one of mixed bits only where `bits` says so."""
    if row["bits"].startswith(table.MIXED) and "bits" not in wanted:
        return False
    usual = {**USUAL, "init": table.usual_init(row)}
    return all(row[name] == value for name, value in {**usual, **wanted}.items())


def cell(rows: Sequence[Row]) -> str:
    """Mean ± half-width (n), with the number of runs that ended at chance; runs that diverged are counted apart."""
    values = [float(row["test_accuracy_percent"]) for row in rows if row["diverged"] != "True"]
    lost, stuck = len(rows) - len(values), sum(at_chance(row) for row in rows)
    text = Interval.of(values).text() + (f", n={len(values)}" if len(values) > 1 else "") if values else ""
    notes = (text, f"{stuck} at chance" if stuck else "", f"{lost} diverged" if lost else "")
    return "; ".join(part for part in notes if part) or "not run"


def at_chance(row: Row) -> bool:
    """Whether a run's network ended up guessing: below 1.5 times the accuracy of a constant answer."""
    classes = 1000 if row["data"] == "imagenet" else 10
    return row["diverged"] != "True" and float(row["test_accuracy_percent"]) < 150 / classes


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in rows)


def difference_of(rows: Sequence[Row], first: dict[str, str], second: dict[str, str]) -> tuple[str, str, str] | None:
    """('+1.20 ± 0.80', seeds, 'higher') of the first over the second, in points; None without a common seed."""
    finished = [row for row in rows if row["diverged"] != "True"]
    found = paired_difference(
        finished, lambda row: matches(row, **first), lambda row: matches(row, **second), "test_accuracy_percent"
    )
    if found is None:
        return None
    half = f" ± {found.half_width:.2f}" if found.half_width is not None else ""
    return f"{found.mean:+.2f}{half}", str(found.count), verdict(found, tie_within=TIE_WITHIN)


def difference_text(rows: Sequence[Row], first: dict[str, str], second: dict[str, str]) -> str:
    """'+1.20 ± 0.80: higher' of the first over the second, in points."""
    found = difference_of(rows, first, second)
    return "not run" if found is None else f"{found[0]}: {found[2]}"


def comparison(title: str, rows: Sequence[Row], variants: dict[str, dict[str, str]], reference: str) -> str:
    """One table: a line per variant, two columns per precision (accuracy, difference to the reference)."""
    bits = table.precisions(row for row in rows if any(matches(row, **v) for v in variants.values()))
    if not bits:
        return ""
    heads = ["", *(head for b in bits for head in (b, f"{b}, less {reference}"))]
    lines = []
    for name, wanted in variants.items():
        line = [name]
        for b in bits:
            mine = [row for row in rows if row["bits"] == b]
            line.append(cell([row for row in mine if matches(row, **wanted)]))
            line.append("" if name == reference else difference_text(mine, wanted, variants[reference]))
        lines.append(line)
    return f"### {title}\n\n{markdown(heads, lines)}\n"


def tables(rows: Sequence[Row]) -> str:
    """All tables of one runs.csv."""
    parts: list[str] = []
    for (network, arguments, data), members in table.group(rows, "network", "arguments", "data").items():
        floats = [row for row in members if row["bits"] == "float"]
        quantized = [row for row in members if row["bits"] != "float"]
        kinds = table.group(quantized, "change_limit", "norm_batches") or {("", ""): []}
        for (limit, measured), mine in kinds.items():
            guard = f"change limit {limit}" if limit else "no change limit (the papers' way)"
            guard += f", batch norms measured on {measured} batches" if measured else ", batch norms as trained"
            parts.append(
                f"## {network} on {data}, {guard}\n\nArguments {arguments}; float: {cell(floats)}; {extent(mine)}\n"
            )
            parts += [text for text in (make(mine) for make in SECTIONS.values()) if text]
        parts += [text for text in (change_limits(quantized), norms(quantized)) if text]
    return "\n".join(parts)


def extent(rows: Sequence[Row]) -> str:
    """What was trained, in one line."""
    if not rows:
        return "no quantized runs"
    epochs = sorted({f"{row['epochs']} epochs of {row['batch_size']} images a step" for row in rows})
    spent = sum(float(row["duration_s"] or 0) for row in rows)
    return f"{len(rows)} quantized runs of {', '.join(epochs)}; {spent / 60:.0f} minutes in all; " + ", ".join(
        sorted({f"commit {row['commit']} on {row['device']}" for row in rows})
    )


def _by(title: str, column: str, values: Sequence[str], reference: str) -> Callable[[Sequence[Row]], str]:
    def make(rows: Sequence[Row]) -> str:
        present = [v for v in values if any(matches(row, **{column: v}) for row in rows)]
        if len(present) < 2 or reference not in present:
            return ""
        return comparison(title, rows, {v: {column: v} for v in present}, reference)

    return make


def configurations(rows: Sequence[Row]) -> str:
    """Tables 2 to 4, differences to configuration 1 (LSQ)."""
    names = {"1": "1 unsigned", "2": "2 signed", "3": "3 signed, offset", "4": "4 unsigned, offset"}
    present = {names[c]: {"config": c} for c in CONFIGS if any(matches(row, config=c) for row in rows)}
    if names["1"] not in present:
        return ""
    return comparison("Configurations (LSQ+ Tables 2 to 4)", rows, present, names["1"])


def baselines(rows: Sequence[Row]) -> str:
    """Table 4's other methods, differences to configuration 1."""
    present = {
        m: {"config": "1", "method": m} for m in BASELINES if any(matches(r, config="1", method=m) for r in rows)
    }
    if not present:
        return ""
    return comparison("Other methods (LSQ+ Table 4)", rows, {"LSQ+ c1": {"config": "1"}, **present}, "LSQ+ c1")


def lsq_ablations(rows: Sequence[Row]) -> str:
    """LSQ's own tables: gradient scale, weight decay, distillation."""
    lsq = {"config": "1", "method": "lsq", "init": "lsq"}
    variants = {"LSQ": lsq}
    variants |= {f"g = {g}": {**lsq, "gradient_scale": g} for g in ("1/sqrt(N)", "1", "10/sqrt(Np)", "0.1/sqrt(Np)")}
    variants["g = 1, lr 1e-4"] = {**lsq, "gradient_scale": "1", "learning_rate": "0.0001"}
    variants |= {f"weight decay {d}": {**lsq, "weight_decay": d} for d in ("0.0001", "5e-05", "2.5e-05", "1.25e-05")}
    variants["distilled"] = {**lsq, "distill": "True"}
    present = {name: wanted for name, wanted in variants.items() if any(matches(row, **wanted) for row in rows)}
    return comparison("Ablations (LSQ Tables 2 to 4)", rows, present, "LSQ") if len(present) > 1 else ""


def stability(rows: Sequence[Row]) -> str:
    """Each configuration with LSQ's gradient scale and a tenth of it, at the bits that have both."""
    tenth = "0.1/sqrt(Np)"
    both = [{"config": c} for c in CONFIGS if any(matches(row, config=c, gradient_scale=tenth) for row in rows)]
    bits = {row["bits"] for row in rows if any(matches(row, **v, gradient_scale=tenth) for v in both)}
    lines = []
    for b in sorted(bits):
        mine = [row for row in rows if row["bits"] == b]
        for wanted in both:
            with_tenth = {**wanted, "gradient_scale": tenth}
            cells = [cell([row for row in mine if matches(row, **w)]) for w in (wanted, with_tenth)]
            lines.append([f"{b} c{wanted['config']}", *cells, difference_text(mine, with_tenth, wanted)])
    if not lines:
        return ""
    heads = ("", "g = 1/sqrt(Np)", "g/10", "difference")
    return f"### A tenth of the gradient scale of s and beta\n\n{markdown(heads, lines)}\n"


def identity(row: Row, other: str) -> tuple[str, ...]:
    """What a run shares with the one trained in another way; `other`: the second way, in which both are alike."""
    return tuple(row.get(name, "") for name in (*SAME_RUN, other))


def change_limits(rows: Sequence[Row]) -> str:
    """Runs at chance and accuracy at each other limit and rule, beside the same runs at the default limit."""
    kinds = table.group(rows, "change_limit", "positivity")
    usual = {identity(row, "norm_batches"): row for row in kinds.get((table.text_of(Recipe.change_limit), ""), [])}
    lines = []
    for bits in sorted({row["bits"] for row in rows}):
        for (limit, rule), members in kinds.items():
            mine = [row for row in members if row["bits"] == bits and identity(row, "norm_batches") in usual]
            twins = [usual[identity(row, "norm_batches")] for row in mine]
            if mine and mine != twins:
                name = limit or f"none, {POSITIVITY[rule]}"
                lines.append([bits, name, str(len(mine)), lost(mine), cell(mine), lost(twins), cell(twins)])
    if not lines:
        return ""
    bad = "at chance or diverged"
    default = f"at {Recipe.change_limit:g}"
    heads = ("bits", "change limit", "runs", bad, "accuracy", f"{default}: {bad}", f"{default}: accuracy")
    return f"### With and without a change limit, the same runs\n\n{markdown(heads, lines)}\n"


def lost(rows: Sequence[Row]) -> str:
    """How many runs ended at chance or diverged."""
    return str(sum(at_chance(row) or row["diverged"] == "True" for row in rows))


def norms(rows: Sequence[Row]) -> str:
    """Batch norms as trained and measured again, over the runs that have both: LSQ+ and the other methods apart."""
    finished = [row for row in rows if row["diverged"] != "True"]
    before = {identity(row, "change_limit"): row for row in finished if not row.get("norm_batches")}
    measured = [row for row in finished if row.get("norm_batches") and identity(row, "change_limit") in before]
    pairs = [(before[identity(row, "change_limit")], row) for row in measured]
    lines: list[list[str]] = []
    for bits, other in sorted({(after["bits"], after["method"] in BASELINES) for _, after in pairs}):
        mine = [pair for pair in pairs if (pair[1]["bits"], pair[1]["method"] in BASELINES) == (bits, other)]
        gains = [float(b["test_accuracy_percent"]) - float(a["test_accuracy_percent"]) for a, b in mine]
        found = Interval.of(gains)
        half = f" ± {found.half_width:.2f}" if found.half_width is not None else ""
        lines.append([
            bits, "PACT, DSQ, QIL" if other else "LSQ, LSQ+", cell([a for a, _ in mine]), cell([b for _, b in mine]),
            f"{found.mean:+.2f}{half}", f"{sum(gain < 0 for gain in gains)} of {len(gains)}",
        ])  # fmt: skip
    heads = ("bits", "methods", "as trained", "measured again", "gain, run by run", "runs that lost")
    return f"### Batch norms measured again after the last step\n\n{markdown(heads, lines)}\n" if lines else ""


SECTIONS: dict[str, Callable[[Sequence[Row]], str]] = {
    "configurations": configurations,
    "baselines": baselines,
    "initialisations": _by("Initialisations, configuration 4 (LSQ+ Table 5)", "init", INITS, "lsq"),
    "offsets": _by("Offset, configuration 4 (LSQ+ Table 6)", "offset_mode", OFFSET_MODES, "fixed_zero"),
    "padding": _by("Padding policies, configuration 4", "padding_policy", POLICIES, "pad_code"),
    "ablations": lsq_ablations,
    "stability": stability,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 when there are no rows."""
    parser = argparse.ArgumentParser(prog="python -m experiments.tables", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--profile", default="cpu", choices=list(PROFILES))
    parser.add_argument("--runs", type=Path, help="the runs.csv to read (default: results/PROFILE/runs.csv)")
    options = parser.parse_args(arguments)
    path = options.runs or Path("results") / options.profile / "runs.csv"
    rows = table.read(path)
    if not rows:
        print(
            f"experiments.tables: {path}: no rows: train first, e.g. with experiments.lsqplus_tables", file=sys.stderr
        )
        return 2
    print(tables(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
