"""Bits and offset classes of the layers, and what fewer bits would buy."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from hwsim.report.page.energy import joules
from hwsim.report.terminal import share

Data = dict[str, Any]
MOST = 12  # rows of a list that could be long


@dataclass(frozen=True)
class Column:
    """Bits of one layer: heights in percent of the widest."""

    layer: int
    weight: float
    input: float
    text: str


@dataclass(frozen=True)
class OffsetClass:
    """Layers whose offset is treated alike."""

    name: str
    layers: int
    extra: str
    why: str


@dataclass(frozen=True)
class Saving:
    """One operand of one layer at its next narrower width."""

    layer: int
    name: str
    operand: str
    bits: str
    energy: str
    width: float
    cycles: str
    why: str


def columns(data: Data) -> tuple[list[Column], int]:
    """One column per layer with MACs, and the widest width."""
    macs = [(i, layer) for i, layer in enumerate(data["layers"]) if layer["macs"]]
    widest = max((max(layer["bits"]["weight"], layer["bits"]["input"]) for _, layer in macs), default=1)
    return [
        Column(
            i,
            round(100 * layer["bits"]["weight"] / widest, 2),
            round(100 * layer["bits"]["input"] / widest, 2),
            f"{layer['name']}: weights {layer['bits']['weight']}, inputs {layer['bits']['input']}, "
            f"outputs {layer['bits']['output']}, sums {layer['bits']['accumulator']} bits",
        )
        for i, layer in macs
    ], widest


def offset_classes(data: Data) -> list[OffsetClass]:
    """Layers with MACs by the class of their offset; what each class adds."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for layer in data["layers"]:
        if layer["macs"]:
            groups[layer["offset"]["class"]].append(layer["offset"])
    return [
        OffsetClass(name, len(members), extra_of(members), members[0]["why"])
        for name, members in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]


def extra_of(members: list[dict[str, Any]]) -> str:
    """What the offsets of a class add, in words."""
    named = {"extra_bits": "bits kept", "extra_adds": "additions", "extra_read_bits": "bits read",
             "extra_write_bits": "bits written"}  # fmt: skip
    sums = {word: sum(m[key] for m in members) for key, word in named.items()}
    return ", ".join(f"{n:,} {word}" for word, n in sums.items() if n) or "nothing"


def savings(data: Data) -> tuple[list[Saving], dict[str, int]]:
    """Operands that save energy or time at their next width, most energy first; and how many operands say what."""
    total, verdicts = data["totals"]["energy_pj"], dict.fromkeys(("saves", "same", "refused"), 0)
    found: list[tuple[float, int, str, dict[str, Any]]] = []
    for i, layer in enumerate(data["layers"]):
        for operand, change in layer.get("narrower", {}).items():
            verdicts[change["verdict"]] = verdicts.get(change["verdict"], 0) + 1
            if change["verdict"] == "saves":
                found.append((-change["energy_pj"], i, operand, change))
    found.sort(key=lambda item: (-item[0], item[3]["cycles"], item[1]))
    most = found[0][0] if found and found[0][0] > 0 else 1.0
    return [
        Saving(
            i, data["layers"][i]["name"], operand, f"{data['layers'][i]['bits'][operand]} to {change['bits']}",
            f"{joules(saved)} ({share(saved, total)})", round(100 * max(0.0, saved) / most, 2),
            f"{change['cycles']:,}", "; ".join(change["why"]),
        )
        for saved, i, operand, change in found[:MOST]
    ], {**verdicts, "listed": min(MOST, len(found))}  # fmt: skip


def useless(data: Data) -> list[str]:
    """`inputs of 23 layers`: whose next narrower width has the same price."""
    counts: dict[str, int] = defaultdict(int)
    for layer in data["layers"]:
        for operand, change in layer.get("narrower", {}).items():
            counts[operand] += change["verdict"] == "same"
    return [f"{operand}s of {n} layer{'s' * (n != 1)}" for operand, n in counts.items() if n]
