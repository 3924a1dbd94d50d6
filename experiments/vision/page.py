"""`python -m experiments.vision.page`: the figure of the vision transformer's study; BLOCKS are its tables.

Everything is drawn from the CSVs of results/vision alone. `python -m experiments.document` writes the tables.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.drawing import save
from experiments.format_page import Page
from experiments.vision import price, train
from hwsim.console import wrote

PAIRS = (
    ("lsqplus-4", "mxfp4"), ("lsqplus-4", "nvfp4"), ("lsqplus-4-mlp5", "nvfp4"), ("nvfp4", "mxfp4"),
    ("lsqplus-4-channel", "lsqplus-4-mlpw5"), ("lsqplus-4-g32", "lsqplus-w5a4"), ("lsqplus-8", "mxint8"),
)  # fmt: skip
STUDY = Page(
    train.TABLE, price.TABLE, "error_percent", "test error (%)", "points", 2, train.ARMS, PAIRS, ("float-longer",)
)
BLOCKS = {
    "vision-training": STUDY.training,
    "vision-pairs": STUDY.differences,
    "vision-costs": STUDY.priced,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the figure."""
    parser = argparse.ArgumentParser(prog="python -m experiments.vision.page", description=__doc__)
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"), help="folder of the figure")
    options = parser.parse_args(arguments)
    if not (train.TABLE.exists() and price.TABLE.exists()):
        print("experiments.vision.page: run experiments.vision.train and .price first", file=sys.stderr)
        return 2
    for path in save(STUDY.front(), options.figures, "vision_formats"):
        wrote(path, file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
