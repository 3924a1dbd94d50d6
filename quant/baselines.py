"""The one name -> quantizer class table, and the quantizers that LSQ+ is compared with.

`make_quantizer(spec)` builds the class that `spec.method` names.
"""

from __future__ import annotations

from quant.quantizer import BaseQuantizer, Quantizer
from quant.spec import QuantSpec, check_choice

METHODS: dict[str, type[BaseQuantizer]] = {"lsq": Quantizer, "lsqplus": Quantizer}


def make_quantizer(spec: QuantSpec, *, is_weight: bool = False, rows: int = 1, axis: int = 0) -> BaseQuantizer:
    """An uninitialised quantizer of the class that `spec.method` names."""
    check_choice("method", spec.method, tuple(METHODS))
    return METHODS[spec.method](spec, is_weight=is_weight, rows=rows, axis=axis)
