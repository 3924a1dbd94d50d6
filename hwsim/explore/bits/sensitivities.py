"""What each width costs in accuracy, measured elsewhere: reading the file that `quant.sensitivity` writes.

A file holds, per layer and operand, the loss added at each width (any unit that adds up: loss, squared error, Hessian
trace times perturbation), the method's name, and what it was measured on. Nothing here needs torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwsim.errors import SpecError
from hwsim.explore.bits.choices import Site
from hwsim.files.reading import read_text
from hwsim.network.workload import Workload

FORMAT = "quant-sensitivities"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Sensitivities:
    """Losses by site and width, how they were measured, and the model they belong to."""

    model: str
    method: str
    losses: Mapping[Site, Mapping[int, float]]
    source: str = ""
    data: str = ""

    def for_network(self, workload: Workload) -> Mapping[Site, Mapping[int, float]]:
        """The losses, if they name layers of this network. Raises SpecError otherwise."""
        names = {layer.name for layer in workload}
        known = [site for site in self.losses if site.layer in names]
        if not known:
            raise SpecError(
                f"{self.source}: measured on {self.model}: none of its layers ({first_names(self.losses)}) is in "
                f"{workload.name} ({', '.join(list(names)[:3])}, ...)"
            )
        strange = sorted({site.layer for site in self.losses} - names)
        if strange:
            raise SpecError(f"{self.source}: layers {', '.join(strange[:3])} are not in {workload.name}")
        return self.losses


def first_names(losses: Mapping[Site, Mapping[int, float]]) -> str:
    """A few layers, for messages."""
    return ", ".join(list(dict.fromkeys(site.layer for site in losses))[:3])


def read_sensitivities(path: Path) -> Sensitivities:
    """Read a file of sensitivities. Raises SpecError with the place of the first mistake."""
    try:
        data: Any = json.loads(read_text(path))
    except OSError as problem:
        raise SpecError(f"{path}: cannot be read: {problem.strerror or problem}") from None
    except (ValueError, RecursionError) as problem:
        raise SpecError(f"{path}: not a complete JSON file: {problem}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("format_version") != FORMAT_VERSION:
        raise SpecError(f"{path}: expected sensitivities as `hwsim sensitivity` writes them")
    entries = data.get("sensitivities")
    if not isinstance(entries, list) or not entries:
        raise SpecError(f"{path}: sensitivities: expected a list of layers with their losses")
    losses: dict[Site, dict[int, float]] = {}
    for number, entry in enumerate(entries):
        place = f"{path}: sensitivities[{number}]"
        if not isinstance(entry, dict) or entry.get("operand") not in ("weight", "input"):
            raise SpecError(f"{place}: expected layer, operand (weight or input) and loss by bits, got {entry!r}")
        site, table = Site(str(entry.get("layer")), str(entry["operand"])), entry.get("loss_by_bits")
        if site in losses or not isinstance(table, dict) or not table:
            raise SpecError(f"{place}: {site.layer}.{site.operand}: expected one loss_by_bits such as {{'4': 0.1}}")
        losses[site] = {}
        for bits, loss in table.items():
            if not str(bits).isdecimal() or not is_number(loss):
                raise SpecError(f"{place}: {site.layer}.{site.operand}: expected a number at {bits} bits, got {loss!r}")
            losses[site][int(bits)] = float(loss)
    return Sensitivities(
        str(data.get("model", "")), str(data.get("method", "")), losses, str(path), str(data.get("data", ""))
    )


def is_number(value: Any) -> bool:
    """A finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
