"""Networks of the zoo at their own inputs, as workloads that came along: they need neither torch nor an extraction.

`python -m experiments.zoo_file` writes the file; a test holds every network in it to what extraction gives.
"""

from __future__ import annotations

import functools
import json
import lzma
from pathlib import Path
from typing import Any

from hwsim.network.saved import from_dict
from hwsim.network.workload import Workload

FILE = Path(__file__).with_name("zoo.json.xz")


def shipped(name: str) -> Workload | None:
    """The network of that name at its default input, batch 1, in float; None where none of that name came along."""
    data = contents().get(name)
    return None if data is None else from_dict(data)


@functools.cache
def contents() -> dict[str, Any]:
    """Saved workloads by name."""
    return json.loads(lzma.decompress(FILE.read_bytes()))


def packed(workloads: dict[str, Workload]) -> bytes:
    """The file for these networks."""
    text = json.dumps({name: net.to_dict() for name, net in workloads.items()}, sort_keys=True, separators=(",", ":"))
    return lzma.compress(text.encode(), preset=9)
