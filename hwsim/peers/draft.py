"""A machine on its way from another tool into a spec: plain keys as in accel_specs, each with the line it came from.

`machine` checks a draft by the rules of every spec and names the peer's file and line; `spec_text` writes the YAML that
the loader reads back to the same machine. What peers lack altogether (a vector unit, capabilities) is filled in here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from hwsim.files.strict_yaml import Document, KeyPath
from hwsim.machine.load import accelerator_of
from hwsim.machine.parts import Accelerator
from hwsim.peers.report import TranslationReport

FREE_PJ = 1e-9  # what stands for a price of 0, which a spec refuses
MAX_PJ = 1e6
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
NO_TEXT = ("true", "false", "null", "yes", "no", "on", "off")


@dataclass
class Draft:
    """Keys of a spec, `lines` by key path, and the file they came from."""

    path: str
    data: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict[KeyPath, int])

    def machine(self, report: TranslationReport) -> Accelerator:
        """The machine; what was approximated joins its notes. Raises SpecError at the peer's file and line."""
        return accelerator_of(Document(self.path, self.data, self.lines), report.notes)

    def add_level(self, entry: dict[str, Any], line: int) -> None:
        """Append a memory or an array to the hierarchy."""
        place = len(self.data["hierarchy"])
        self.data["hierarchy"].append(entry)
        for key in ((), *((key,) for key in entry)):
            self.lines[("hierarchy", place, *key)] = line


def bare_name(text: str, fallback: str = "machine") -> str:
    """A name that a spec accepts, as near to `text` as possible."""
    found = re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-")[:60]
    return found if PLAIN.fullmatch(found) else bare_name(f"{fallback}_{found}") if found else fallback


def price_pj(value: float, place: str, subject: str, report: TranslationReport) -> float:
    """The price; 0 becomes 1e-9 pJ and is reported."""
    if value > 0:
        return value
    report.approximated(place, subject, f"0 pJ is written as {FREE_PJ:g} pJ")
    return FREE_PJ


def free_vector(peer: str, report: TranslationReport, place: str) -> dict[str, Any]:
    """A vector unit for tools that have none: wide and without a price, said aloud."""
    text = f"{peer} has no vector unit: requantization, activations and other operators without MACs are free here"
    report.none(place, "vector", text)
    return {
        "lanes": 2**20, "energy_pj_per_op": FREE_PJ, "lookup_energy_pj": FREE_PJ,
        "area_mm2": FREE_PJ, "leakage_mw": FREE_PJ,  # else both are estimated, by its lanes
        "source": f"{peer} has none", "estimated": "wide, free, and of no area",
    }  # fmt: skip


def wide_capabilities(
    peer: str, weight_bits: int, input_bits: int, report: TranslationReport, place: str
) -> dict[str, Any]:
    """Capabilities for tools that know none: any widths up to the unit's, at least 16."""
    report.none(place, "capabilities", f"{peer} states none: widths of 1 to 16 bits (or the unit's) are allowed")
    return {
        "weight_bits": list(range(1, max(16, weight_bits) + 1)),
        "activation_bits": list(range(1, max(16, input_bits) + 1)),
        "output_bits": list(range(1, 33)), "requantization": "shift", "pad_value": "any_code",
        "source": f"{peer} states none",
    }  # fmt: skip


# --- text -------------------------------------------------------------------------------------------------------------


def spec_text(data: dict[str, Any], comment: str = "") -> str:
    """A draft's keys as the YAML of a spec, one level per entry."""
    lines = [f"# {line}" for line in comment.splitlines()]
    for key, value in data.items():
        if key in ("hierarchy", "constraints"):
            lines.append(f"{key}:")
            lines += [f"  - {flow(entry)}" for entry in value]
        else:
            lines.append(f"{key}: {flow(value)}")
    return "\n".join(lines) + "\n"


def flow(value: Any) -> str:
    """A value in flow style.

    >>> flow({"size_bits": "unlimited", "keeps": ["weight"], "source": "a, b", "read_energy_pj": 1e-9})
    '{size_bits: unlimited, keeps: [weight], source: "a, b", read_energy_pj: 1.0e-09}'
    """
    if isinstance(value, dict):
        items: dict[str, Any] = value  # type: ignore[assignment]
        return "{" + ", ".join(f"{flow(key)}: {flow(item)}" for key, item in items.items()) + "}"
    if isinstance(value, (list, tuple)):
        sequence: list[Any] = list(value)  # type: ignore[arg-type]
        widths = run_of(sequence)
        return widths or "[" + ", ".join(flow(item) for item in sequence) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        text = repr(value)
        return text if "e" not in text or "." in text else text.replace("e", ".0e")
    if isinstance(value, str):
        if PLAIN.fullmatch(value) and value.lower() not in NO_TEXT:
            return value
        escaped = "".join(ch if ch.isprintable() else " " for ch in value).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return str(value)


def run_of(sequence: list[Any]) -> str:
    """`1..16` for a long run of whole numbers; empty otherwise."""
    whole = all(isinstance(item, int) for item in sequence) and len(sequence) > 3
    if whole and sequence == list(range(sequence[0], sequence[-1] + 1)):
        return f"{sequence[0]}..{sequence[-1]}"
    return ""
