"""What a finished study leaves: all points as CSV, Parquet and JSON, the front drawn, and per front point its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from hwsim.explore.figures import DrawingError, as_png, scatter_figure, scatter_page
from hwsim.explore.journal import Record
from hwsim.explore.space import NETWORK, Space
from hwsim.explore.study import front_of, objectives_of, reference, volume_of
from hwsim.report import rows_to_csv
from hwsim.workload import write_atomically


def assumptions(space: Space) -> list[str]:
    """What a study's numbers rest on besides those of each report."""
    found = [
        "memories of other sizes: energy per access times sqrt(size ratio), stated area and leakage times size ratio"
        if space.scale_memories
        else "memories of other sizes keep the base spec's energies and areas",
        "average power: energy over latency of one inference after another",
    ]
    if not isinstance(space.bits, str):
        found.append(
            "bits are solved exactly on tables that keep on chip what stays there at the widest widths; each point is "
            "then priced as a whole"
        )
    return found


def study_rows(space: Space, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Flat rows in trial order; `hypervolume` is that of all points up to the row (share of the final box)."""
    bound = reference(objectives_of(space, records))
    front = {record["trial"] for record in front_of(space, records)}
    names = list(dict.fromkeys(name for record in records for name in record["values"]))
    rows: list[dict[str, Any]] = []
    for i, record in enumerate(records):
        costs = objectives_of(space, records[: i + 1])
        rows.append({
            "trial": record["trial"],
            **{key: flat(value) for key, value in record["parameters"].items()},
            "status": record["status"],
            "why": record["why"],
            **{name: record["values"].get(name) for name in names},
            "front": record["trial"] in front,
            "hypervolume": volume_of(costs, bound) if len(records) <= 2000 or i == len(records) - 1 else None,
        })  # fmt: skip
    return rows


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
             "assumptions": assumptions(space), "points": front}  # fmt: skip
    write_atomically(written[1], json.dumps(about, indent=1, allow_nan=False) + "\n")
    written += write_parquet(rows, folder / "study.parquet")
    for record in front:
        place = folder / f"point_{record['trial']:04d}"
        spec = yaml.safe_dump(space.spec(record["parameters"]), sort_keys=False)
        write_atomically(place / "spec.yaml", spec)
        bits = yaml.safe_dump({"default": "W8A8", **record["widths"]}, sort_keys=False)
        said = space.bits if isinstance(space.bits, str) else f"{place / 'bits.yaml'}"
        if record["widths"]:
            write_atomically(place / "bits.yaml", bits)
        shown = {k: v for k, v in record["parameters"].items() if k in NETWORK}
        note = f"# network variant: {shown}\n" if shown else ""
        command = f"python -m hwsim.evaluate {model} {place / 'spec.yaml'} --bits {said}\n"
        write_atomically(place / "commands.txt", note + command)
        written += [place / "spec.yaml", place / "commands.txt"]
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
