"""The tables of docs/integer.md, each from the CSV of its experiment; `python -m experiments.document` writes them."""

from __future__ import annotations

from collections.abc import Callable

from experiments import (
    accumulators,
    border_error,
    exactness,
    exported_files,
    int8_resnet8,
    offset_is_free,
    requantization,
)
from experiments.table import read

BLOCKS: dict[str, Callable[[], str]] = {
    "codes-trained": lambda: exactness.trained_page(read(exactness.TABLE)),
    "codes-calibrated": lambda: exactness.grid_page(read(exactness.TABLE)),
    "border-error": lambda: border_error.page(read(border_error.TABLE)),
    "offset-overhead": lambda: offset_is_free.page(read(offset_is_free.TABLE)),
    "int8-resnet8": lambda: int8_resnet8.page(read(int8_resnet8.TABLE)),
    "fixed-point": lambda: requantization.page(read(requantization.TABLE)),
    "accumulators": lambda: accumulators.page(read(accumulators.TABLE)),
    "c-files": lambda: exported_files.c_page(read(exported_files.TABLE)),
    "onnx-files": lambda: exported_files.onnx_page(read(exported_files.TABLE)),
}
