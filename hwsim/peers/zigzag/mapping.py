"""ZigZag's mapping file: which loops an array dimension may unroll, and which memory operand is which.

An entry is chosen by layer name, else operator type, else `default`. Unrollings become the loops that an axis allows:
our search may take any factor of them up to the axis' size, theirs among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hwsim.machine.parts import Operand
from hwsim.peers.report import TranslationReport
from hwsim.peers.tagged_yaml import Item

OPERANDS: dict[str, Operand] = {"W": "weight", "I": "input", "O": "output"}
LINKS: dict[str, Operand] = {"I1": "input", "I2": "weight", "O": "output"}
# Loop letters of its convolutions; a workload's own letters come with it.
USUAL_DIMS = {"B": "N", "G": "G", "K": "K", "C": "C", "OY": "P", "OX": "Q", "FY": "R", "FX": "S"}
KEYS = ("name", "spatial_mapping", "spatial_mapping_hint", "memory_operand_links", "temporal_ordering",
        "core_allocation")  # fmt: skip
MACS = ("Conv", "Gemm", "MatMul", "default")


@dataclass(frozen=True)
class Choice:
    """One entry: loops with factors per array dimension (0: any), and links of memory operands."""

    name: str
    unrolled: dict[str, list[tuple[str, int]]] = field(default_factory=dict[str, list[tuple[str, int]]])
    hints: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    links: dict[str, Operand] = field(default_factory=dict[str, Operand])
    place: str = ""


def read_choices(tree: Item, report: TranslationReport) -> list[Choice]:
    """All entries. Raises SpecError."""
    found: list[Choice] = []
    for item in tree.items("a ZigZag mapping"):
        keys = item.keys("a mapping entry")
        for key, value in keys.items():
            if key not in KEYS:
                raise value.error(f"mapping: unknown key {key!r}; known: {', '.join(KEYS)}")
        if "name" not in keys:
            raise item.error("mapping: key 'name' is missing")
        name = keys["name"].text("name")
        if "temporal_ordering" in keys:
            text = "an order of loops (innermost first) binds its search, not ours"
            report.none(keys["temporal_ordering"].place, f"mapping {name}.temporal_ordering", text)
        links = {}
        for layer_operand, memory_operand in (keys["memory_operand_links"].keys("links") if "memory_operand_links" in
                                              keys else {}).items():  # fmt: skip
            if layer_operand not in OPERANDS:
                raise memory_operand.error(f"links: unknown operand {layer_operand!r}; known: W, I, O")
            links[memory_operand.text("a memory operand")] = OPERANDS[layer_operand]
        found.append(Choice(name, unrolled(keys.get("spatial_mapping")), hints(keys.get("spatial_mapping_hint")),
                            links, item.place))  # fmt: skip
    if not any(choice.name == "default" for choice in found):
        raise tree.error("mapping: an entry with the name 'default' is missing")
    return found


def unrolled(item: Item | None) -> dict[str, list[tuple[str, int]]]:
    """`D1: ["K, 32"]`."""
    found: dict[str, list[tuple[str, int]]] = {}
    for axis, entries in item.keys("spatial_mapping").items() if item is not None else ():
        for entry in entries.items(f"spatial_mapping.{axis}"):
            words = [word.strip() for word in entry.text("an unrolling").split(",")]
            if len(words) != 2 or not words[1].isdigit() or int(words[1]) < 1:
                raise entry.error(
                    f"spatial_mapping.{axis}: expected 'LOOP, FACTOR' such as 'K, 32', got {entry.value!r}"
                )
            found.setdefault(axis, []).append((words[0].upper(), int(words[1])))
    return found


def hints(item: Item | None) -> dict[str, list[str]]:
    """`D1: [K]`."""
    found: dict[str, list[str]] = {}
    for axis, entries in item.keys("spatial_mapping_hint").items() if item is not None else ():
        found[axis] = [entry.text("a loop").upper() for entry in entries.items(f"spatial_mapping_hint.{axis}")]
    return found


def default_choice(choices: Sequence[Choice]) -> Choice:
    """The entry that layers with MACs use."""
    return next(choice for choice in choices if choice.name == "default")


def axis_loops(choice: Choice, axis: str, dims: dict[str, str], report: TranslationReport) -> list[str]:
    """Our loops that an array dimension may unroll, from its unrolling and its hint."""
    theirs = [dim for dim, factor in choice.unrolled.get(axis, []) if factor > 1 or not choice.hints.get(axis)]
    theirs += choice.hints.get(axis, [])
    found: list[str] = []
    for dim in theirs:
        if dim not in dims:
            report.none(choice.place, f"{axis}.{dim}", "no loop of these layers is called so; it is skipped")
        elif dims[dim] not in found:
            found.append(dims[dim])
    return found
