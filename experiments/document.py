"""`python -m experiments.document`: writes the tables of docs/results.md, integer.md, coming_from.md, formats.md.

Everything between `<!-- begin NAME ARGUMENTS -->` and `<!-- end -->` is replaced by what the block of that name says
(BLOCKS below, and those of the pages of single studies, `experiments.language.page` and the like); the rest of a
page is prose, written by hand. `--check` writes nothing and fails where they differ.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, stdev

from experiments import beyond, integer_page, nonlinear, offset_lifetimes, table
from experiments.language import families as language_families
from experiments.language import page as language_page
from experiments.pareto_figures import fronts as front_masks
from experiments.pareto_figures import label_of, values_of
from experiments.peers import page as peers_page
from experiments.profiles import INITS, POLICIES, PROFILES
from experiments.table import Row
from experiments.tables import (
    SECTIONS,
    at_chance,
    cell,
    change_limits,
    difference_of,
    markdown,
    matches,
    norms,
)
from experiments.vision import page as vision_page
from quant.data import write_atomically

PAGES = (Path("docs/results.md"), Path("docs/integer.md"), Path("docs/coming_from.md"), Path("docs/formats.md"))
SILU_MINIMUM = -0.2784645
BLOCK = re.compile(r"(<!-- begin ([a-z-]+)((?: [^ >]+)*) -->\n).*?(<!-- end -->)", re.S)


@dataclass(frozen=True)
class Results:
    """A folder of results: one folder with CSVs per profile."""

    folder: Path

    def profiles(self) -> list[str]:
        """Profiles that have runs, in their own order."""
        return [name for name in PROFILES if (self.folder / name / "runs.csv").exists()]

    def rows(self, profile: str, name: str = "runs") -> list[Row]:
        return table.read(self.folder / profile / f"{name}.csv")

    def networks(self) -> Iterator[tuple[str, str, list[Row], list[Row]]]:
        """(profile, 'network, data', its float rows, its quantized rows that may be compared)."""
        for profile in self.profiles():
            current = table.current(self.rows(profile))
            for (network, data), members in table.group(current, "network", "data").items():
                floats = [row for row in members if row["bits"] == "float"]
                quantized = [row for row in members if row["bits"] != "float"]
                notes = [
                    text for name, text in (("change_limit", "no limit"), ("norm_batches", "norms as trained"))
                    if quantized and not any(row.get(name) for row in quantized)
                ]  # fmt: skip
                yield profile, ", ".join([f"`{network}`, {data}", *notes]), floats, quantized


def is_silu(name: str) -> bool:
    return "silu" in name or "efficientnet" in name or "mixnet" in name


def what_was_run(results: Results) -> str:
    """Every network of every profile: float accuracy, quantized runs, how many ended at chance."""
    lines: list[list[str]] = []
    for profile, name, floats, quantized in results.networks():
        if quantized:
            *others, most = sorted({row["epochs"] for row in quantized})
            epochs = " or ".join([", ".join(others), most]) if others else most
            base = cell(floats) if floats else "published weights"
            bad = sum(at_chance(row) or row["diverged"] == "True" for row in quantized)
            lines.append([
                f"`{profile}`", name, base, f"{epochs} epochs of {quantized[0]['batch_size']} images a step",
                str(len({row["seed"] for row in quantized})), str(len(quantized)), str(bad),
            ])  # fmt: skip
    heads = ("profile", "network, data", "float accuracy", "quantized training", "seeds", "runs",
             "of them at chance or diverged")  # fmt: skip
    return markdown(heads, lines)


def section(results: Results, name: str) -> str:
    """One of the papers' tables for every network that has it."""
    parts: list[str] = []
    for profile, network, _, quantized in results.networks():
        made = SECTIONS[name](quantized)
        if made:
            parts.append(f"**{network}** (`{profile}`)\n\n" + made.split("\n\n", 1)[1].strip())
    return "\n\n".join(parts) or "Not run yet."


def differences(results: Results, claim: str) -> str:
    """The differences that a claim is about, paired by seed, with their verdicts."""
    lines: list[list[str]] = []
    for profile, network, _, quantized in results.networks():
        for bits in table.precisions(quantized):
            mine = [row for row in quantized if row["bits"] == bits]
            for what, first, second in CLAIMS[claim]:
                found = difference_of(mine, first, second)
                if found is not None:
                    lines.append([f"{network} (`{profile}`)", bits, what, *found])
    return markdown(("network", "bits", "difference", "points", "seeds", "verdict"), lines) if lines else "Not run yet."


Variant = dict[str, str]
Comparison = tuple[str, Variant, Variant]


def configs(*pairs: str) -> list[Comparison]:
    """Comparisons of configurations, written '3-1'."""
    return [(f"c{a} less c{b}", {"config": a}, {"config": b}) for a, b in (pair.split("-") for pair in pairs)]


def variants(column: str, *pairs: tuple[str, str]) -> list[Comparison]:
    return [(f"{a} less {b}", {column: a}, {column: b}) for a, b in pairs]


# Claim -> what it compares that the papers' tables, with their differences to one row, do not show.
CLAIMS: dict[str, list[Comparison]] = {
    "C2": configs("3-4"),
    "C3": configs("2-3", "2-4"),
    "C5": variants("init", ("lsqplus", "minmax")),
    "C8": variants("offset_mode", ("learned", "fixed_min")),
}


def spreads(results: Results) -> str:
    """C5's other half: standard deviation over the seeds by initialisation."""
    lines: list[list[str]] = []
    for profile, network, _, quantized in results.networks():
        for bits in table.precisions(quantized):
            mine = [row for row in quantized if row["bits"] == bits and row["diverged"] != "True"]
            found = {
                init: [float(row["test_accuracy_percent"]) for row in mine if matches(row, init=init)] for init in INITS
            }
            if all(len(values) > 1 for values in found.values()):
                cells = [f"{stdev(values):.2f} (n={len(values)})" for values in found.values()]
                lines.append([f"{network} (`{profile}`)", bits, *cells])
    heads = ("standard deviation over the seeds", "bits", *INITS)
    return markdown(heads, lines) if lines else "Not run yet."


def learned_offsets(results: Results) -> str:
    """C7: of the learned offsets of configuration 4, how many are negative, how many below SiLU's minimum."""
    lines: list[list[str]] = []
    for profile, network, _, quantized in results.networks():
        if not is_silu(network):
            continue
        for bits in table.precisions(quantized):
            keys = {
                row["key"]
                for row in quantized
                if row["bits"] == bits and matches(row, config="4") and row["diverged"] != "True" and not at_chance(row)
            }
            betas = [
                (float(q["beta_initial"]), float(q["beta_final"]))
                for q in results.rows(profile, "quantizers")
                if q["key"] in keys and q["config"] == "4" and q["is_weight"] == "False"
            ]
            if betas:
                lines.append([
                    f"{network} (`{profile}`)", bits, str(len(keys)), str(len(betas)),
                    str(sum(final < 0 for _, final in betas)), str(sum(final < SILU_MINIMUM for _, final in betas)),
                    str(sum(first < SILU_MINIMUM for first, _ in betas)),
                    f"{median(final for _, final in betas):.3f}",
                ])  # fmt: skip
    heads = ("network", "bits", "runs", "offsets", "negative", "below -0.2785", "of them before training", "median")
    return markdown(heads, lines) if lines else "Not run yet."


def first_steps(results: Results) -> str:
    """C6: how far the first step of the weights is from the learned one, by initialisation of configuration 4."""
    lines: list[list[str]] = []
    for profile, network, _, quantized in results.networks():
        steps = table.group([q for q in results.rows(profile, "quantizers") if q["is_weight"] == "True"], "key")
        for bits in table.precisions(quantized):
            cells: list[str] = []
            for init in INITS:
                mine = [row for row in quantized if row["bits"] == bits and matches(row, init=init)]
                ratios = [
                    float(q["s_initial"]) / float(q["s_final"])
                    for row in mine
                    for q in steps.get((row["key"],), [])
                    if not at_chance(row) and row["diverged"] != "True"
                ]
                away = [max(ratio, 1 / ratio) for ratio in ratios]
                cells.append(f"{median(away):.2f} ({len(away)})" if away else "not run")
            if cells.count("not run") < len(INITS) - 1:
                lines.append([f"{network} (`{profile}`)", bits, *cells])
    heads = ("median factor between first and learned s (weight tensors)", "bits", *INITS)
    return markdown(heads, lines) if lines else "Not run yet."


def gradient_ratios(results: Results) -> str:
    """LSQ section 3.4: R by gradient scale, over the weight tensors."""
    lines: list[list[str]] = []
    for profile in results.profiles():
        for (rule,), members in table.group(results.rows(profile, "lsq_ratio"), "gradient_scale").items():
            values = [float(row["R"]) for row in members]
            lines.append([f"`{profile}`", f"g = {rule}", *(f"{f(values):.3g}" for f in (median, min, max))])
    return markdown(("profile", "gradient scale", "median R", "least", "largest"), lines) if lines else "Not run yet."


def step_errors(results: Results) -> str:
    """LSQ section 3.6: how far the learned s is from the s of least error."""
    lines: list[list[str]] = []
    for profile in results.profiles():
        for (weight, bits), members in table.group(
            results.rows(profile, "lsq_error"), "is_weight", "bits"
        ).items():  # fmt: skip
            found = [median([float(row[f"difference_{kind}_percent"]) for row in members]) for kind in ("mae", "mse")]
            kind = "weights" if weight == "True" else "activations"
            lines.append([f"`{profile}`", kind, bits, str(len(members)), *(f"{value:.0f} %" for value in found)])
    heads = ("profile", "of", "bits", "quantizers", "median distance to the s of least MAE", "of least MSE")
    return markdown(heads, lines) if lines else "Not run yet."


def guard(results: Results) -> str:
    """Runs at chance with and without the limit on changes of s and beta."""
    return both_ways(results, change_limits)


def long_runs(results: Results, profile: str) -> str:
    """Accuracy at the end of the long runs, what their last epoch still gained, and how long they took."""
    lines = []
    rows = [row for row in table.current(results.rows(profile)) if row["bits"] != "float"]
    places = {bits: place for place, bits in enumerate(table.precisions(rows))}
    rows.sort(key=lambda row: places[row["bits"]])
    for (network, bits, config, policy), mine in table.group(
        rows, "network", "bits", "config", "padding_policy"
    ).items():  # fmt: skip
        gains = [float(row["last_epoch_gain_points"]) for row in mine if row["last_epoch_gain_points"]]
        hours = sum(float(row["duration_s"]) for row in mine) / 3600
        gain = f"{sum(gains) / len(gains):+.2f}" if gains else ""
        lines.append([f"`{network}`", bits, config, f"`{policy}`", mine[0]["epochs"], cell(mine), gain, f"{hours:.2f}"])
    heads = ("network", "bits", "configuration", "padding", "epochs", "test accuracy",
             "points of validation accuracy that the last epoch gained", "hours, all runs")  # fmt: skip
    return markdown(heads, lines) if lines else "Not run yet."


def beyond_lsqplus(results: Results) -> str:
    """What may be added to LSQ+, each less the base, seed by seed."""
    parts = []
    for name, profile in PROFILES.items():
        rows = [row for row in results.rows(name, "beyond") if row["bits"] in beyond.precisions(profile)]
        for (network, data, bits), mine in table.group(rows, "network", "data", "bits").items():
            heads = ("training", "test accuracy", "less the base", "seeds")
            parts.append(f"**`{network}`, {data}, {bits}** (`{name}`)\n\n{markdown(heads, beyond.comparison(mine))}")
    return "\n\n".join(parts) or "Not run yet."


def measured_norms(results: Results) -> str:
    """Accuracy with batch norms as trained, and measured again."""
    return both_ways(results, norms)


def both_ways(results: Results, compare: Callable[[Sequence[Row]], str]) -> str:
    """A comparison of runs with and without something, per network: over all rows, not only the current ones."""
    parts: list[str] = []
    for profile in results.profiles():
        quantized = [row for row in results.rows(profile) if row["bits"] != "float"]
        for (network, data), members in table.group(quantized, "network", "data").items():
            made = compare(members)
            if made:
                parts.append(f"**`{network}`, {data}** (`{profile}`)\n\n" + made.split("\n\n", 1)[1].strip())
    return "\n\n".join(parts) or "Not run yet."


def points_of(results: Results, profile: str, network: str) -> list[Row]:
    rows = [row for row in table.current(results.rows(profile, "pareto")) if table.usual(row)]
    return [row for row in rows if row["network"] == network and row["status"] == "ok"]


def offset_prices(results: Results, profile: str, network: str, bits: str) -> str:
    """C9: energy / latency of configuration 4 over configuration 1, by machine and padding policy."""
    rows = [row for row in points_of(results, profile, network) if row["bits"] == bits]
    lines: list[list[str]] = []
    for (machine,), members in table.group(rows, "accelerator").items():
        base = next((row for row in members if row["config"] == "1"), None)
        if base is None:
            continue
        line = [f"`{machine}`"]
        for policy in POLICIES:
            mine = [row for row in members if row["config"] == "4" and row["padding_policy"] == policy]
            line.append(" / ".join(
                f"{float(mine[0][column]) / float(base[column]):.3f}" for column in ("energy_pj", "latency_s")
            ) if mine else "not run")  # fmt: skip
        lines.append([*line, offset_classes(members)])
    heads = ("machine", *(f"`{policy}`" for policy in POLICIES), "layers by offset class, `pad_code`")
    return markdown(heads, lines) if lines else "Not run yet."


def offset_classes(members: Sequence[Row]) -> str:
    """'folded 15, padded_copy 4' of configuration 4 with `pad_code`."""
    mine = [row for row in members if row["config"] == "4" and row["padding_policy"] == "pad_code"]
    classes = json.loads(mine[0]["offset_classes"]) if mine else {}
    return ", ".join(f"{name} {count}" for name, count in classes.items() if name != "none")


def bit_prices(results: Results, profile: str, network: str, fewer: str, more: str) -> str:
    """What fewer bits save in configuration 1, by machine: ratios of the four costs."""
    rows = [row for row in points_of(results, profile, network) if row["config"] == "1"]
    lines: list[list[str]] = []
    for (machine,), members in table.group(rows, "accelerator").items():
        by_bits = {row["bits"]: row for row in members}
        if fewer in by_bits and more in by_bits:
            lines.append([f"`{machine}`", *(
                f"{float(by_bits[fewer][column]) / float(by_bits[more][column]):.3f}"
                for column in ("energy_pj", "latency_s", "weight_bits", "peak_activation_bits")
            )])  # fmt: skip
    heads = (f"{fewer} over {more}", "energy", "latency", "weight memory", "peak activations")
    return markdown(heads, lines) if lines else "Not run yet."


def fronts(results: Results, profile: str, network: str) -> str:
    """Which points are on each machine's front of accuracy against energy, by their means and within intervals."""
    lines: list[list[str]] = []
    for (machine,), members in table.group(points_of(results, profile, network), "accelerator").items():
        members = [row for row in members if row["accuracy_percent"]]
        cost, accuracy, half = values_of(members, "energy_pj")
        sure, possible = front_masks(cost, accuracy, half)
        order = sorted(range(len(members)), key=lambda i: cost[i])
        on = [label_of(members[i]) for i in order if sure[i]]
        maybe = sum(bool(possible[i]) and not sure[i] for i in order)
        lines.append([f"`{machine}`", ", ".join(on), f"{maybe} of {len(members) - len(on)}"])
    heads = ("machine", "on the energy front by their means", "others that may be, given the intervals")
    return markdown(heads, lines) if lines else "Not run yet."


def mixed(results: Results) -> str:
    """Mixed bits against the uniform ones whose energy they were given, on the machine that they were chosen for."""
    lines: list[list[str]] = []
    for profile, network, _, quantized in results.networks():
        points = [row for row in table.current(results.rows(profile, "pareto")) if row["status"] == "ok"]
        for name in dict.fromkeys(row["bits"] for row in quantized if row["bits"].startswith(table.MIXED)):
            of, machine, budget, *method = name.removeprefix(table.MIXED).split("-")
            config = next(row["config"] for row in quantized if row["bits"] == name)
            pair = ({"bits": name, "config": config}, {"bits": budget.upper(), "config": config})
            here = [row for row in points if (row["network"], row["accelerator"]) == (of, machine)]
            prices = [row for wanted in pair for row in here if matches(row, **wanted)]
            found = difference_of(quantized, *pair)
            if len(prices) != 2 or found is None:
                continue
            ratios = [
                f"{float(prices[0][column]) / float(prices[1][column]):.3f}"
                for column in ("energy_pj", "latency_s", "weight_bits")
            ]
            accuracies = [cell([row for row in quantized if matches(row, **wanted)]) for wanted in reversed(pair)]
            chosen = method[0] if method else "loss, one width per tensor, all in the outermost memory"
            where = [f"{network} (`{profile}`)", f"`{machine}`", budget.upper(), chosen]
            lines.append([*where, *ratios, *accuracies, *found])
    heads = ("network", "machine", "budget: energy of", "chosen by", "energy, mixed over uniform", "latency", "weights",
             "uniform accuracy", "mixed accuracy", "mixed less uniform", "seeds", "verdict")  # fmt: skip
    return markdown(heads, lines) if lines else "Not run yet."


BLOCKS: dict[str, Callable[..., str]] = {
    "what-was-run": what_was_run,
    "section": section,
    "differences": differences,
    "spreads": spreads,
    "learned-offsets": learned_offsets,
    "first-steps": first_steps,
    "gradient-ratios": gradient_ratios,
    "step-errors": step_errors,
    "guard": guard,
    "norms": measured_norms,
    "beyond": beyond_lsqplus,
    "long-runs": long_runs,
    "offset-prices": offset_prices,
    "bit-prices": bit_prices,
    "fronts": fronts,
    "mixed": mixed,
}


def filled(text: str, blocks: Mapping[str, Callable[..., str]]) -> str:
    """The page with every block anew. ValueError for a block that does not exist."""

    def block(found: re.Match[str]) -> str:
        name, arguments = found[2], found[3].split()
        if name not in blocks:
            raise ValueError(f"block {name!r}: expected one of {', '.join(blocks)}")
        return f"{found[1]}{blocks[name](*arguments)}\n{found[4]}"

    return BLOCK.sub(block, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 where --check finds a difference, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.document", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--page", type=Path, nargs="+", default=PAGES, help="default: all")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--check", action="store_true", help="only compare")
    options = parser.parse_args(arguments)
    results = Results(options.results)
    own = {name: functools.partial(block, results) for name, block in BLOCKS.items()}
    blocks = own | integer_page.BLOCKS | peers_page.BLOCKS | language_page.BLOCKS
    blocks |= language_families.BLOCKS | vision_page.BLOCKS | nonlinear.BLOCKS | offset_lifetimes.BLOCKS
    try:
        before = {page: page.read_text(encoding="utf-8") for page in options.page}
        after = {page: filled(text, blocks) for page, text in before.items()}
    except (OSError, ValueError) as problem:
        print(f"experiments.document: {problem}", file=sys.stderr)
        return 2
    if options.check:
        return int(before != after)
    for page, text in after.items():
        write_atomically(page, lambda file, text=text: file.write(text.encode()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
