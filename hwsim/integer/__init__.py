# pyright: basic
"""The integer machine: a trained network lowered to integers, run with integers, and proven equal (LSQ+ Eq. 5).

`lower(model, example) -> IntegerModel`, `Machine(model, mode).run(images)`, `certify(model, images) -> Certificate`;
`lower_tflite(path)` for quantized TFLite files, `c_source(machine)` for a C99 file. Commands: `python -m hwsim.verify`,
`python -m hwsim.export_c`. docs/integer.md says what is exact and why.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwsim.integer.graph import IntegerModel
    from hwsim.integer.lowering.lower import lower
    from hwsim.integer.proof.certificate import Certificate, annotate, certify
    from hwsim.integer.run import Machine, Mode

__all__ = ["Certificate", "IntegerModel", "Machine", "Mode", "annotate", "certify", "lower"]

# Public name -> module that defines it; imported on first use, for `words.py` is asked without torch.
PUBLIC = {
    "IntegerModel": "graph",
    "lower": "lowering.lower",
    **dict.fromkeys(("Certificate", "annotate", "certify"), "proof.certificate"),
    **dict.fromkeys(("Machine", "Mode"), "run"),
}


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        return getattr(importlib.import_module(f"hwsim.integer.{PUBLIC[name]}"), name)
    raise AttributeError(f"module 'hwsim.integer' has no attribute {name!r}")
