"""`python -m experiments.ship runs/NAME networks/NAME`: a trained network without what only training needs.

Momentum, random states, history and best/ stay behind; weights, settings, command and accuracies are copied.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from quant import checkpoint

LARGEST_BYTES = 1_000_000


def ship(source: Path, target: Path) -> int:
    """Write `target` from the checkpoint `source`; its size in bytes. ValueError above 1 MB."""
    model, meta = checkpoint.load(source)
    kept = {key: value for key, value in meta.training.items() if key != "history"}
    checkpoint.save(target, model, replace(meta, training=kept))
    size = sum(path.stat().st_size for path in target.iterdir())
    if size > LARGEST_BYTES:
        raise ValueError(f"{target}: {size:,} bytes: expected at most {LARGEST_BYTES:,}; ship a smaller network")
    return size


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 for bad input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        size = ship(Path(arguments[0]), Path(arguments[1]))
    except (ValueError, FileNotFoundError) as problem:
        print(f"experiments.ship: {problem}", file=sys.stderr)
        return 2
    print(f"{arguments[1]}: {size:,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
