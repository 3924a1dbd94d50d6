"""The same points as one self-contained interactive page: hover for bits per layer, cost by component, the command.

The page's own parts are page/pareto.html and page/pareto.js; this file puts the points and plotly's script into them,
so that it opens without a network. Needs plotly (`pip install 'hwsim[report]'`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import table
from experiments.pareto_figures import AXES, COLOURS, GREY, cost_range, ends_of, fronts, label_of, notes_of, values_of
from experiments.table import Row, usual
from quant.data import write_atomically

PARTS = Path(__file__).parent / "page"
SYMBOLS = {"W2A2": "circle", "W3A3": "triangle-up", "W4A4": "square", "W8A8": "diamond"}
# How the mark of a padding policy differs; the usual one is filled.
OUTLINES = {"pad_code": "", "snap_offset": "-dot", "pad_beta": "-open-dot", "border_bias": "-open"}


def view_of(rows: Sequence[Row], layers: list[dict[str, str]]) -> dict[str, Any]:
    """One network on one machine; tables of bits per layer are added to `layers` once each."""
    priced = [row for row in rows if row["status"] == "ok" and row.get("accuracy_percent")]
    masks = [fronts(*values_of(priced, column)) for column, _, _ in AXES] if priced else []
    first, baseline = rows[0], rows[0].get("float_accuracy_percent")
    return {
        "network": first["network"], "data": first["data"], "machine": first["accelerator"], "note": notes_of(rows),
        "float": float(baseline) if baseline else None,
        "ranges": [[f * end for end in cost_range(priced, column)] for column, _, f in AXES] if priced else [],
        "points": [
            {
                **point_of(row, layers),
                "front": [bool(front[i]) for front, _ in masks],
                "possible": [bool(possible[i]) for _, possible in masks],
            }
            for i, row in enumerate(priced)
        ],
    }  # fmt: skip


def point_of(row: Row, layers: list[dict[str, str]]) -> dict[str, Any]:
    """What the page says of a point."""
    bits = json.loads(row["bits_per_layer"])
    if bits not in layers:
        layers.append(bits)
    return {
        "label": label_of(row),
        "config": row["config"],
        "symbol": SYMBOLS.get(row["bits"], "cross") + OUTLINES[row["padding_policy"]],
        "accuracy": float(row["accuracy_percent"]),
        "half": float(row["accuracy_half_width"]) if row["accuracy_half_width"] else None,
        "seeds": int(row["seeds"]),
        "cost": [float(row[column]) * factor for column, _, factor in AXES],
        "ends": [[factor * float(end[0]) for end in ends_of([row], column)] for column, _, factor in AXES],
        "gap": float(row["mapping_gap_max"]),
        "components": json.loads(row["energy_pj_by_component"]),
        "offsets": json.loads(row["offset_classes"]),
        "layers": layers.index(bits),
        "train": row["train_command"],
        "price": row["price_command"],
    }


def write_page(points: Path, target: Path) -> Path:
    """Write the page. ValueError when plotly is not installed or there is nothing to draw."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ValueError("the interactive page needs plotly: pip install 'hwsim[report]'") from None
    rows = [row for row in table.current(table.read(points)) if usual(row)]
    if not rows:
        raise ValueError(f"{points}: holds no points to draw; run python -m experiments.pareto first")
    layers: list[dict[str, str]] = []
    content = {
        "source": points.name,
        "axes": [{"column": column, "label": label} for column, label, _ in AXES],
        "colours": COLOURS,
        "grey": GREY,
        "views": [view_of(members, layers) for members in table.group(rows, "network", "data", "accelerator").values()],
        "layers": layers,
    }
    page = (PARTS / "pareto.html").read_text(encoding="utf-8")
    for place, text in (
        ("PLOTLY_SCRIPT", get_plotlyjs()),
        ("PAGE_SCRIPT", (PARTS / "pareto.js").read_text(encoding="utf-8")),
        # "</" would end the element that holds the data.
        ("POINTS_AS_JSON", json.dumps(content).replace("</", "<\\/")),
    ):
        page = page.replace(f">{place}<", f">{text}<")
    write_atomically(target, lambda file: file.write(page.encode()))
    return target
