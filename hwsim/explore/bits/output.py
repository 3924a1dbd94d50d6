"""What a finished allocation leaves behind: a table of points, a figure, and per point files ready to use.

`points.csv` and `points.json` hold every point of the front with its additive and its exact cost; each point's folder
has `spec.yaml` (the machine), `bits.yaml` (for `hwsim.evaluate --bits`), `overrides.yaml` (for `quant.train
--overrides`) and its commands.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hwsim.explore.bits.bill import BitProblem
from hwsim.explore.bits.problem import Solution
from hwsim.files.atomic import write_atomically
from hwsim.machine.load import find_spec
from hwsim.report.files import rows_to_csv
from hwsim.search.network import Plan


@dataclass(frozen=True)
class Point:
    """One allocation: `exact` is the whole network's price at its widths, tensors on chip where that pays."""

    name: str
    problem: BitProblem
    solution: Solution
    exact: Plan
    kind: str = "front"

    def to_row(self) -> dict[str, Any]:
        """Flat columns: what the tables say (`table_` where the whole differs), and what the whole network costs."""
        values, totals = dict(self.solution.values), self.exact.cost.totals
        return {
            "point": self.name,
            "kind": self.kind,
            **({"loss": values["loss"]} if "loss" in values else {}),
            "energy_pj": totals.energy_pj,
            "table_energy_pj": values["energy_pj"],
            "latency_cycles": totals.latency_cycles,
            "latency_s": totals.latency_s,
            "table_latency_cycles": values["latency_cycles"],
            "weight_bits": totals.weight_bits,
            "peak_activation_bits": totals.peak_activation_bits,
            "bops": totals.bops,
            "average_weight_bits": totals.average_weight_bits,
            "average_activation_bits": totals.average_activation_bits,
            "mapping_gap_max": max((f.certificate.gap for f in self.exact.found.values()), default=0.0),
        }

    def widths_by_layer(self) -> dict[str, str]:
        """`4/8`: weight and input bits of every layer with weights."""
        found: dict[str, str] = {}
        for layer in self.problem.at(self.solution):
            if layer.has_macs and layer.weight is not None:
                found[layer.name] = f"{layer.weight.bits}/{layer.inputs[0].bits}"
        return found

    def bits_yaml(self) -> str:
        """The widths as `--bits FILE` reads them."""
        return yaml.safe_dump({"default": "W8A8", **self.problem.bits_file(self.solution)}, sort_keys=False)

    def overrides_yaml(self) -> str:
        """The widths of every place that rounds, as `quant.train --overrides FILE` reads them."""
        return yaml.safe_dump(overrides(self.problem, self.solution), sort_keys=False)


def overrides(problem: BitProblem, solution: Solution) -> dict[str, dict[str, int]]:
    """Weight and input widths by layer, for `quant.quantize(..., overrides=...)`."""
    found: dict[str, dict[str, int]] = {}
    for entry, width in zip(problem.freed, problem.problem.widths(solution.picks), strict=True):
        for site in entry.sites:
            found.setdefault(site.layer, {})["weight_bits" if site.operand == "weight" else "act_bits"] = width
    return found


def write_points(
    points: Sequence[Point], uniform: Sequence[Point], folder: Path, about: Mapping[str, Any], model: str, spec: str
) -> list[Path]:
    """Write tables of all points and a folder per chosen one; each file is whole or absent."""
    rows = [point.to_row() for point in (*points, *uniform)]
    written = [folder / "points.csv", folder / "points.json"]
    write_atomically(written[0], rows_to_csv(rows))
    document = {"format": "hwsim-allocation", "format_version": 1, **about, "points": rows}
    write_atomically(written[1], json.dumps(document, indent=1, allow_nan=False) + "\n")
    machine = find_spec(spec).read_text(encoding="utf-8")
    for point in points:
        place = folder / point.name
        for name, text in (
            ("spec.yaml", machine),
            ("bits.yaml", point.bits_yaml()),
            ("overrides.yaml", point.overrides_yaml()),
            ("commands.txt", commands(place, model, str(about.get("data") or ""))),
        ):
            write_atomically(place / name, text)
            written.append(place / name)
    return written


def trains(model: str) -> bool:
    """Whether `quant.train` can start from what MODEL names: a zoo network, or a checkpoint folder."""
    return Path(model).suffix != ".json" and ":" not in model and (Path(model).is_dir() or not Path(model).exists())


def train_command(
    place: Path,
    model: str,
    data: str,
    bits: Sequence[str] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> list[str]:
    """How to train a point whose files are in `place`: `overrides.yaml`, or `bits`, the words that say them. A network
    with other `arguments` than the zoo's starts untrained."""
    start = ["--weights", model] if Path(model).is_dir() else ["--model", model]
    start += [word for name, value in (arguments or {}).items() for word in ("--model-arg", f"{name}={value}")]
    start += ["--weights", "pretrained"] if "--model" in start and not arguments else []
    how = bits or [
        "--bits", "W8A8", "--first-last", "same", "--overrides", str(place / "overrides.yaml")
    ]  # fmt: skip
    return ["python", "-m", "quant.train", *start, "--data", data or "DATA", *how, "--out", str(place / "trained")]


def commands(place: Path, model: str, data: str) -> str:
    """How to price and to train a point; `data` is the data set that the sensitivities were measured on."""
    price = ["python", "-m", "hwsim.evaluate", model, str(place / "spec.yaml"), "--quick",
             "--bits", str(place / "bits.yaml")]  # fmt: skip
    train = [shlex.join(train_command(place, model, data))] if trains(model) else []
    return "".join(line + "\n" for line in (shlex.join(price), *train))
