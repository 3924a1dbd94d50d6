"""What a finished study leaves: all points as CSV, Parquet and JSON, the front drawn, and per front point its files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from hwsim.explore.bits.figures import DrawingError, as_png, scatter_figure, scatter_page, volume_figure
from hwsim.explore.bits.output import train_command, trains
from hwsim.explore.bits.sensitivities import Sensitivities
from hwsim.explore.machines.journal import Record
from hwsim.explore.machines.space import NETWORK, Space, solved_for
from hwsim.explore.machines.study import front_of, objectives_of, reference, volume_of
from hwsim.explore.machines.trial import network_key
from hwsim.files.atomic import write_atomically, write_folder
from hwsim.network.format_bits import asks_for_formats
from hwsim.network.formats import parse_formats
from hwsim.report.files import rows_to_csv

NOT_MEASURED = Sensitivities("", "", {})
# What a bits file says of all layers, as quant.train's options.
FIXED_OPTIONS = {"default": "--bits", "first_last": "--first-last", "elementwise_bits": "--elementwise-bits",
                 "padding_policy": "--padding-policy", "config": "--config"}  # fmt: skip


def assumptions(space: Space) -> list[str]:
    """What a study's numbers rest on besides those of each report."""
    found = [
        "memories of other sizes: energy per access times sqrt(size ratio), stated area and leakage times size ratio"
        if space.scale_memories
        else "memories of other sizes keep the base spec's energies and areas",
        "average power: energy over latency of one inference after another",
    ]
    if space.fixed_bits is None:
        found.append(
            "bits are solved exactly on tables that keep on chip what stays there at the widest widths; each point is "
            "then priced as a whole"
        )
    return found


def origin_of_proofs(records: Sequence[Record]) -> list[str]:
    """How many layers tables over machines answered, and how many got a proof of their own, over all trials."""
    told = [record["tables"] for record in records if record.get("tables")]
    if not told:
        return []
    answered, anew = sum(t["answered"] for t in told), sum(len(t["proven_anew"]) for t in told)
    return [
        f"distinct layers of {len(told)} trials: tables over machines answered {answered:,}; {anew:,} were proven anew "
        "where tables could not answer (journal.jsonl names them under `tables`)"
    ]


def study_rows(space: Space, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Flat rows in trial order; `hypervolume` is that of all points up to the row (share of the final box)."""
    bound = reference(objectives_of(space, records))
    front = {record["trial"] for record in front_of(space, records)}
    names = list(dict.fromkeys(name for record in records for name in record["values"]))
    tables = any("tables" in record for record in records)
    rows: list[dict[str, Any]] = []
    for i, record in enumerate(records):
        costs = objectives_of(space, records[: i + 1])
        rows.append({
            "trial": record["trial"],
            **{key: flat(value) for key, value in record["parameters"].items()},
            "status": record["status"],
            "why": record["why"],
            **{name: record["values"].get(name) for name in names},
            **(proofs_of(record) if tables else {}),
            "front": record["trial"] in front,
            "hypervolume": volume_of(costs, bound) if len(records) <= 2000 or i == len(records) - 1 else None,
        })  # fmt: skip
    return rows


def proofs_of(record: Record) -> dict[str, int | None]:
    """Columns of a study that asks tables over machines: layers that they answered, and layers proven anew."""
    told = record.get("tables")
    return {
        "from_tables": told["answered"] if told else None,
        "proven_anew": len(told["proven_anew"]) if told else None,
    }


def flat(value: Any) -> Any:
    """A cell of a table."""
    return value if isinstance(value, int | float | str) else json.dumps(value)


def write_study(space: Space, records: Sequence[Record], folder: Path, model: str) -> list[Path]:
    """Write everything; returns the files. Parquet and the page only where their libraries are."""
    rows = study_rows(space, records)
    front = front_of(space, records)
    written = [folder / "study.csv", folder / "front.json"]
    write_atomically(written[0], rows_to_csv(rows))
    about = {"format": "hwsim-front", "format_version": 1, "model": model, "base": space.base_path.name,
             "objectives": list(space.objectives), "limits": dict(space.limits),
             "assumptions": [*assumptions(space), *origin_of_proofs(records)], "points": front}  # fmt: skip
    write_atomically(written[1], json.dumps(about, indent=1, allow_nan=False) + "\n")
    written += write_parquet(rows, folder / "study.parquet")
    for record in front:
        written += write_point(space, record, folder, model)
    written += draw_hypervolume(rows, folder / "hypervolume.png")
    if front and len(space.objectives) > 1:
        x, y = space.objectives[:2]
        good = [record for record in records if record["status"] == "ok"]
        write_atomically(folder / "front.png", as_png(scatter_figure(good, front, x, y)))
        written.append(folder / "front.png")
        try:
            write_atomically(folder / "front.html", scatter_page(good, front, x, y, f"{model}: {space.base_path.stem}"))
            written.append(folder / "front.html")
        except DrawingError:
            pass
    return written


def write_point(space: Space, record: Record, folder: Path, model: str) -> list[Path]:
    """The machine, the bits and the commands of a point; a network variant is the study's own file of it."""
    place = folder / f"point_{record['trial']:04d}"
    fixed = space.fixed_bits
    said = fixed if isinstance(fixed, dict) else {"default": fixed or "W8A8"}
    files = {
        "spec.yaml": yaml.safe_dump(space.spec(record["parameters"]), sort_keys=False),
        "bits.yaml": yaml.safe_dump({**said, **record["widths"]}, sort_keys=False),
    }
    if record.get("overrides"):
        files["overrides.yaml"] = yaml.safe_dump(record["overrides"], sort_keys=False)
    variant = {key.removeprefix("network."): v for key, v in record["parameters"].items() if key in NETWORK}
    stored = variant and not space.phase
    subject = str(folder / "networks" / network_key(record["parameters"])) if stored else model
    asked = [w for k, v in (space.pass_at(record["parameters"]) if space.phase else {}).items() for w in (f"--{k}", v)]
    lines = [shlex.join(["python", "-m", "hwsim.evaluate", subject, str(place / "spec.yaml"), "--effort", space.effort,
                         "--bits", str(place / "bits.yaml"), *map(str, asked)])]  # fmt: skip
    # quant.train names modules, a bits file layers
    by_layer = fixed is not None and (set(said) - set(FIXED_OPTIONS) or not learnable(str(said["default"])))
    if trains(model) and "resolution" not in variant and not by_layer:  # quant.train takes images as they are
        data = "" if fixed is not None else (solved_for(cast(dict[str, Any], space.bits), 1.0)[2] or NOT_MEASURED).data
        words = [word for key, option in FIXED_OPTIONS.items() if key in said for word in (option, str(said[key]))]
        lines.append(shlex.join(train_command(place, model, data, None if record.get("overrides") else words, variant)))
    files["commands.txt"] = "".join(line + "\n" for line in lines)
    return write_folder(place, files)


def learnable(bits: str) -> bool:
    """Whether training has a form for what all layers get: no zero points, no integer activations in groups."""
    if not asks_for_formats(bits):
        return True
    formats = parse_formats(bits)
    grouped = formats.activation.element == "int" and formats.activation.along_reduction
    return {formats.weight.offset, formats.activation.offset} <= {"", "fp32"} and not grouped


def draw_hypervolume(rows: Sequence[dict[str, Any]], path: Path) -> list[Path]:
    """The share of the box that is dominated, trial by trial; nothing where too many trials leave it out."""
    volumes = [row["hypervolume"] for row in rows]
    if not volumes or None in volumes:
        return []
    write_atomically(path, as_png(volume_figure(volumes)))
    return [path]


def write_parquet(rows: Sequence[dict[str, Any]], path: Path) -> list[Path]:
    """The rows as Parquet; nothing where pyarrow is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        return []
    library: Any = pyarrow
    writer: Any = parquet
    sink = library.BufferOutputStream()
    writer.write_table(library.Table.from_pylist(list(rows)), sink)
    write_atomically(path, sink.getvalue().to_pybytes())
    return [path]
