"""The tables of docs/coming_from.md, from results/peers/*.csv."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from experiments.table import Row, read
from experiments.tables import markdown

FOLDER = Path("results/peers")


def timeloop(rows: list[Row]) -> str:
    """One line per recorded run: cycles, levels whose accesses are equal, energies, our own price."""
    lines: list[list[str]] = []
    for run in dict.fromkeys(row["run"] for row in rows):
        mine = [row for row in rows if row["run"] == run]
        levels = [row for row in mine if row["its_accesses"]]
        equal = sum(row["accesses"] == row["its_accesses"] for row in levels)
        (total,) = [row for row in mine if row["level"] == "Total"]
        lines.append([
            run, f"{int(total['its_cycles']):,}", f"{int(total['cycles']):,}", f"{equal} of {len(levels)}",
            f"{float(total['its_fj_per_compute']):,.2f}", f"{float(total['fj_per_compute']):,.2f}",
            f"{float(total['our_own_fj_per_compute']):,.2f}",
        ])  # fmt: skip
    heads = ["recorded run", "its cycles", "ours", "levels with equal accesses", "its fJ per MAC", "ours, its rules",
             "ours, our rules"]  # fmt: skip
    return markdown(heads, lines)


def zigzag(rows: list[Row], beside: list[Row]) -> str:
    """One line per row of its tests; what its installed version answered stands beside."""
    answers = {name_of(row): row for row in beside}
    lines: list[list[str]] = []
    for row in rows:
        its = answers.get(name_of(row), {})
        lines.append([
            row["machine"], row["question"], row["workload"].removeprefix("resnet18."),
            f"{float(row['its_cycles']):,.0f}", f"{int(row['cycles']):,}", f"{float(row['cycles_ratio']):.3f}",
            gap(row), micro(row["its_energy_pj"]), micro(its.get("counted_pj")), micro(row["energy_pj"]),
            f"{float(row['energy_ratio']):.3f}", its.get("cpu_s", "-"), row["seconds"],
        ])  # fmt: skip
    heads = ["machine", "question", "network", "its cycles", "ours", "ratio", "gap", "its uJ", "its mappings here",
             "ours", "ratio", "its CPU s", "ours"]  # fmt: skip
    return markdown(heads, lines)


def zigzag_terms(rows: list[Row]) -> str:
    """By memory and operand, for the rows whose energy of ours is above its."""
    above = [row for row in rows if (row["machine"], row["question"]) == ("edge_tpu_like", "plain")]
    lines: list[list[str]] = []
    for term in dict.fromkeys((row["memory"], row["operand"]) for row in above):
        found = {row["workload"]: row for row in above if (row["memory"], row["operand"]) == term}
        values = [micro(found.get(network, {}).get(key)) for network in ("resnet18.onnx", "resnet18.yaml")
                  for key in ("its_pj", "counted_pj", "our_pj")]  # fmt: skip
        lines.append([" ".join(term).strip(), *values])
    heads = ["memory, operand", *(f"{network}: {what}" for network in ("onnx", "yaml")
                                  for what in ("its", "its mappings here", "ours"))]  # fmt: skip
    return markdown(heads, lines)


def name_of(row: Row) -> tuple[str, str, str]:
    """What tells a row."""
    return row["machine"], row["question"], row["workload"]


def micro(energy_pj: str | None) -> str:
    """uJ of pJ; a dash where there is none."""
    return "-" if energy_pj is None else f"{float(energy_pj) / 1e6:,.2f}"


def gap(row: Row) -> str:
    """How far our cycles could be above the least; the bound knows nothing of tensors that stay on chip."""
    if row["question"] != "plain":
        return "-"
    cycles, bound = float(row["cycles"]), float(row["no_less_than"])
    return f"{100 * (cycles - bound) / bound:.2f} %"


def scalesim(rows: list[Row]) -> str:
    """One line per configuration and topology."""
    lines = [
        [row["config"], row["flow"], row["array"], row["topology"], f"{row['equal']} of {row['layers']}",
         f"{int(row['closed_form_cycles']):,}", f"{int(row['cycles']):,}"] for row in rows
    ]  # fmt: skip
    return markdown(["configuration", "flow", "array", "topology", "layers equal", "closed form", "ours"], lines)


def scalesim_runs(rows: list[Row]) -> str:
    """One line per printed run."""
    lines = [[row["flow"], f"{row['m']} x {row['k']} x {row['n']}", f"{int(row['printed_cycles']):,}",
              f"{int(row['cycles']):,}"] for row in rows]  # fmt: skip
    return markdown(["flow", "M x K x N", "its last cycle index", "our cycles"], lines)


def round_trip(rows: list[Row]) -> str:
    """One line per shipped spec."""
    lines = [
        [f"`{row['spec']}`", f"{row['said']} of {row['nests']}", row["unequal"] or "-", words(row["cannot_be_said"])]
        for row in rows
    ]
    return markdown(["spec", "mappings said", "prices unequal", "what Timeloop cannot say"], lines)


def accelergy(rows: list[Row]) -> str:
    """One line per component: the table's energy and our estimate."""
    lines = [
        [row["design"], f"`{row['component']}`", row["size_bits"] and f"{int(row['size_bits']):,}", row["word_bits"],
         f"{float(row['its_pj']):,.3f}", f"{float(row['our_pj']):,.3f}", f"{float(row['ratio']):.2f}"] for row in rows
    ]  # fmt: skip
    return markdown(["design", "component", "bits", "bits of an access", "its pJ", "our estimate", "ratio"], lines)


def maestro(rows: list[Row]) -> str:
    """One line per dataflow."""
    lines = [
        [row["dataflow"], f"{int(row['turns']):,}", f"{int(row['steps']):,}", f"{int(row['cycles']):,}",
         micro(row["energy_pj"]), f"{int(row['least_cycles']):,}", micro(row["least_energy_pj"])] for row in rows
    ]  # fmt: skip
    heads = ["dataflow", "turns of its directives", "our steps", "cycles", "uJ", "our search: cycles", "uJ"]
    return markdown(heads, lines)


def words(text: str) -> str:
    """Keys in a table's cell."""
    return ", ".join(f"`{part}`" if "." in part and " " not in part else part for part in text.split("; "))


BLOCKS: dict[str, Callable[[], str]] = {
    "peers-timeloop": lambda: timeloop(read(FOLDER / "timeloop.csv")),
    "peers-zigzag": lambda: zigzag(read(FOLDER / "zigzag.csv"), read(FOLDER / "zigzag_beside.csv")),
    "peers-zigzag-terms": lambda: zigzag_terms(read(FOLDER / "zigzag_terms.csv")),
    "peers-scalesim": lambda: scalesim(read(FOLDER / "scalesim.csv")),
    "peers-scalesim-runs": lambda: scalesim_runs(read(FOLDER / "scalesim_runs.csv")),
    "peers-accelergy": lambda: accelergy(read(FOLDER / "accelergy.csv")),
    "peers-maestro": lambda: maestro(read(FOLDER / "maestro.csv")),
    "peers-round-trip": lambda: round_trip(read(FOLDER / "round_trip.csv")),
}
