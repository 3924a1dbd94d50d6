# pyright: basic
"""The integer machine: a trained network lowered to integers, run with integers, and proven equal (LSQ+ Eq. 5)."""
