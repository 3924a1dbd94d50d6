"""hwsim: what a quantized network costs on an accelerator.

The core (workload, machine, accelerator, mapping, counts, cost, search, report) needs no torch; `extract` and
`integer` do, and are imported only when asked for.
"""

from __future__ import annotations

__version__ = "0.1.0"
