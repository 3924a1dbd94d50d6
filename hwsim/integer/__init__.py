# pyright: basic
"""The integer machine: a trained network lowered to integers, run with integers, and proven equal (LSQ+ Eq. 5).

`lower(model, example) -> IntegerModel`, `Machine(model, mode).run(images)`, `certify(model, images) -> Certificate`;
`lower_tflite(path)` for quantized TFLite files, `c_source(machine)` for a C99 file. Commands: `python -m hwsim.verify`,
`python -m hwsim.export_c`. docs/integer.md says what is exact and why.
"""

from hwsim.integer.graph import IntegerModel
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.certificate import Certificate, annotate, certify
from hwsim.integer.run import Machine, Mode

__all__ = ["Certificate", "IntegerModel", "Machine", "Mode", "annotate", "certify", "lower"]
