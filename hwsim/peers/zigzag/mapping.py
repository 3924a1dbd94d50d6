"""ZigZag's mapping file: which loops an array dimension may unroll, their order, which memory operand is which.

An entry is chosen by layer name, else operator type, else `default`. Unrollings become the loops that an axis allows:
our search may take any factor of them up to the axis' size, theirs among them. Theirs alone, and the order of loops in
time, are the spec's constraints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    turns: tuple[str, ...] = ()  # loops in time, innermost first
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
        links = {}
        for layer_operand, memory_operand in (keys["memory_operand_links"].keys("links") if "memory_operand_links" in
                                              keys else {}).items():  # fmt: skip
            if layer_operand not in OPERANDS:
                raise memory_operand.error(f"links: unknown operand {layer_operand!r}; known: W, I, O")
            links[memory_operand.text("a memory operand")] = OPERANDS[layer_operand]
        found.append(Choice(name, unrolled(keys.get("spatial_mapping")), hints(keys.get("spatial_mapping_hint")),
                            links, turns(keys.get("temporal_ordering")), item.place))  # fmt: skip
    if not any(choice.name == "default" for choice in found):
        raise tree.error("mapping: an entry with the name 'default' is missing")
    return found


def unrolled(item: Item | None) -> dict[str, list[tuple[str, int]]]:
    """`D1: ["K, 32"]`."""
    found: dict[str, list[tuple[str, int]]] = {}
    for axis, entries in item.keys("spatial_mapping").items() if item is not None else ():
        for entry in entries.items(f"spatial_mapping.{axis}"):
            words = [word.strip() for word in entry.text("an unrolling").split(",")]
            if len(words) != 2 or not words[1].isdecimal() or int(words[1]) < 1:
                raise entry.error(
                    f"spatial_mapping.{axis}: expected 'LOOP, FACTOR' such as 'K, 32', got {entry.value!r}"
                )
            found.setdefault(axis, []).append((words[0].upper(), int(words[1])))
    return found


def turns(item: Item | None) -> tuple[str, ...]:
    """`[[OX, 112], [OY, "*"]]`: loops, innermost first. Raises SpecError."""
    found: list[str] = []
    for entry in item.items("temporal_ordering") if item is not None and item.value is not None else ():
        words = [part.text("a loop and its factor") for part in entry.items("temporal_ordering")]
        if len(words) != 2 or not (words[1] == "*" or (words[1].isdecimal() and int(words[1]) > 0)):
            raise entry.error("temporal_ordering: expected [LOOP, FACTOR] such as [OX, 112] or [OX, '*']")
        found.append(words[0].upper())
    return tuple(found)


def hints(item: Item | None) -> dict[str, list[str]]:
    """`D1: [K]`."""
    found: dict[str, list[str]] = {}
    for axis, entries in item.keys("spatial_mapping_hint").items() if item is not None else ():
        found[axis] = [entry.text("a loop").upper() for entry in entries.items(f"spatial_mapping_hint.{axis}")]
    return found


def choice_of(choices: Sequence[Choice], layers: Sequence[tuple[str, str]], report: TranslationReport) -> Choice:
    """The entry of the layers with MACs, (name, operator type) each: one for all, else `default`; others are named."""
    by_name = {choice.name: choice for choice in choices}
    used = {entry_of(by_name, name, kind).name for name, kind in layers}
    chosen = by_name[min(used)] if len(used) == 1 else by_name["default"]
    for choice in choices:
        asked = choice.name in MACS if not layers else choice.name in used
        if choice is not chosen and asked:
            text = f"a machine has one mapping entry here: that of {chosen.name} holds for all layers"
            report.approximated(choice.place, f"mapping {choice.name}", text)
    return chosen


def entry_of(choices: Mapping[str, Choice], name: str, kind: str) -> Choice:
    """The entry of a layer."""
    return choices.get(name) or choices.get(kind) or choices["default"]


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
