"""The words by which a proof is asked, without torch: the help of a command must not wait for it."""

from __future__ import annotations

METHODS = ("float", "proven", "i-bert")  # how softmax and norms are computed (`arithmetic/nonlinear.py`)
OVERFLOWS = ("check", "wrap", "saturate", "saturate_each")  # what an accumulator does beyond its width
