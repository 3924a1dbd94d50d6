"""The spec as a drawing: nodes outermost first, every array a frame around all that it replicates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hwsim.report.page.energy import joules
from hwsim.report.quantities import si
from hwsim.report.terminal import share

Data = dict[str, Any]
LOOPS = "N, G, K, C, P, Q, R, S"


@dataclass(frozen=True)
class Part:
    """One node of the drawing: `facts` are lines of text, `used` its share of the network's energy in percent."""

    kind: str  # memory, array, mac, vector
    name: str
    facts: list[str]
    keeps: list[str] = field(default_factory=list[str])
    used: float = 0.0
    energy: str = ""


def drawing(data: Data) -> tuple[list[Part], Part | None]:
    """The nodes from the outside in, the MAC last; and the vector unit beside them."""
    machine = data["accelerator"]
    if "hierarchy" not in machine:
        return [], None
    moved: dict[str, int] = {}
    for layer in data["layers"]:
        for name, bits in layer.get("traffic_bits", {}).items():
            moved[name] = moved.get(name, 0) + bits
    parts = [
        used(data, memory(node, moved) if node["kind"] == "memory" else array(node)) for node in machine["hierarchy"]
    ]
    vector = machine["vector"]
    unit = Part("vector", "vector unit", [f"{vector['lanes']} lanes of {vector['bits']} bits"])
    return [*parts, used(data, mac(machine["mac"]), "mac")], used(data, unit, "vector")


def used(data: Data, part: Part, component: str = "") -> Part:
    """The part with its share of the energy."""
    energy = data["energy_pj_by_component"].get(component or part.name, 0.0)
    total = data["totals"]["energy_pj"]
    said = f"{joules(energy)}, {share(energy, total)} of the energy" if energy else ""
    return Part(part.kind, part.name, part.facts, part.keeps, round(100 * energy / total, 2) if total else 0.0, said)


def memory(node: dict[str, Any], moved: dict[str, int]) -> Part:
    """Size, words, energy and ports of one instance."""
    size = si(node["size_bits"] / 8, "B") if node["size_bits"] is not None else "no limit"
    times = f"{node['instances']:,} x " if node["instances"] > 1 else ""
    read, write = node["read_energy_pj"], node["write_energy_pj"]
    facts = [
        f"{times}{size}{', double-buffered' if node['double_buffered'] else ''}",
        f"words of {node['word_bits']} bits, {node['packing']}: read {read:.4g} pJ, write {write:.4g} pJ",
        ports(node),
    ]
    if node["name"] in moved:
        facts.append(f"moves {si(moved[node['name']] / 8, 'B')} here")
    return Part("memory", node["name"], facts, node["keeps"])


def ports(node: dict[str, Any]) -> str:
    """Bits a cycle, in one instance."""
    read, write = node["read_bandwidth_bits_per_cycle"], node["write_bandwidth_bits_per_cycle"]
    if node["shared_port"]:
        return f"one port of {read:g} bits/cycle" if read else "a port that never bounds"
    if not read and not write:
        return "ports that never bound"
    return " and ".join(f"{what} {n:g} bits/cycle" for what, n in (("read", read), ("write", write)) if n)


def array(node: dict[str, Any]) -> Part:
    """Axes and what may be unrolled on them."""
    facts = [
        f"{axis['name']}: {axis['size']} ({'any loop' if len(axis['dims']) >= 8 else ', '.join(axis['dims'])})"
        for axis in node["axes"]
    ]
    lacks = [word for word, has in (("multicast", node["multicast"]), ("reduction", node["reduction"])) if not has]
    extra = (["systolic"] if node["systolic"] else []) + [f"no {word}" for word in lacks]
    sizes = " x ".join(str(axis["size"]) for axis in node["axes"])
    return Part("array", node["name"], [f"{sizes} copies of what is inside", *facts, *extra])


def mac(unit: dict[str, Any]) -> Part:
    """The multiply-accumulate unit below everything."""
    facts = [
        f"{unit['units']:,} {'unit' if unit['units'] == 1 else 'units'}, {unit['style'].replace('_', ' ')}",
        f"{unit['weight_bits']} x {unit['input_bits']} bits into {unit['accumulator_bits']}",
        f"{unit['energy_pj']:.4g} pJ a MAC, {unit['macs_per_cycle']:g} a cycle",
    ]
    return Part("mac", "MAC", facts)
