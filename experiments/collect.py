"""`python -m experiments.collect RUN... --out FILE.csv`: what `quant.train` checkpoints say of themselves, as CSV rows.

One row per checkpoint folder: network, bits, recipe, accuracies, steps, seconds, commit, device and command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import table
from quant import checkpoint


def row_of(folder: Path) -> dict[str, Any]:
    """The row of one finished run; ValueError when it has not come to its end."""
    meta = checkpoint.load_meta(folder)
    training = meta.training
    if "test_accuracy_percent" not in meta.metrics or "recipe" not in training:
        raise ValueError(f"{folder}: this run is not finished: it has no test accuracy yet")
    origin, recipe, chosen = training["provenance"], training["recipe"], meta.quantization
    return {
        "run": folder.name,
        "model": meta.model,
        "data": meta.data,
        "bits": "float" if chosen is None else f"W{chosen['weight_bits']}A{chosen['act_bits']}",
        **({} if chosen is None else {k: chosen[k] for k in ("config", "first_last", "elementwise_bits", "init")}),
        **{k: recipe[k] for k in ("epochs", "batch_size", "learning_rate", "weight_decay", "distill", "seed")},
        "weight_learning_rate": recipe.get("weight_learning_rate"),
        **meta.metrics,
        "steps": training["step"],
        "duration_s": round(training["seconds"], 1),
        **{k: origin[k] for k in ("threads", "device", "torch", "commit", "date", "command")},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 for a folder that is no finished run."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.collect", description=(__doc__ or "").split("\n\n")[-1]
    )
    parser.add_argument("runs", type=Path, nargs="+", help="checkpoint folders")
    parser.add_argument("--out", type=Path, required=True, help="CSV; rows of the same run are replaced")
    options = parser.parse_args(arguments)
    try:
        table.append(options.out, [row_of(folder) for folder in options.runs], key="run")
    except (ValueError, FileNotFoundError) as problem:
        print(f"experiments.collect: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
