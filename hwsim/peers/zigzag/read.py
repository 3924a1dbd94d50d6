"""ZigZag files (hardware, mapping, workload, in any order) as a machine and a workload of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hwsim.errors import SpecError
from hwsim.machine.parts import Accelerator
from hwsim.network.workload import Workload
from hwsim.peers.draft import Draft, bare_name
from hwsim.peers.report import TranslationReport
from hwsim.peers.tagged_yaml import Item, parse_noting, read_text
from hwsim.peers.zigzag.hardware import read_hardware
from hwsim.peers.zigzag.mapping import LINKS, USUAL_DIMS, Choice, choice_of, entry_of, read_choices
from hwsim.peers.zigzag.schedule import add_schedule
from hwsim.peers.zigzag.workload import read_workload


@dataclass
class ZigZag:
    """Everything that the files said."""

    report: TranslationReport
    draft: Draft | None = None
    workload: Workload | None = None
    dims: dict[str, str] = field(default_factory=lambda: dict(USUAL_DIMS))  # its loops: ours

    def machine(self) -> Accelerator:
        """The machine. Raises SpecError where it is none."""
        assert self.draft is not None
        return self.draft.machine(self.report)


def kind_of(tree: Item) -> str:
    """hardware, workload or mapping, by its content."""
    if isinstance(tree.value, dict):
        if "memories" in tree.value or "operational_array" in tree.value:
            return "hardware"
    elif isinstance(tree.value, list) and tree.value and isinstance(tree.value[0].value, dict):
        keys = tree.value[0].value
        if "equation" in keys or "operator_type" in keys:
            return "workload"
        if keys.keys() & {"spatial_mapping", "spatial_mapping_hint", "memory_operand_links"}:
            return "mapping"
    raise tree.error("no ZigZag hardware (memories, operational_array), workload (equation) or mapping "
                     "(spatial_mapping, memory_operand_links)")  # fmt: skip


def read_zigzag(paths: Sequence[Path]) -> ZigZag:
    """All files of one description. Raises SpecError with file and line."""
    report = TranslationReport()
    trees: dict[str, Item] = {}
    for path in paths:
        tree, repeated = parse_noting(read_text(path), str(path), last_wins=True)
        for item in repeated:
            report.approximated(item.place, "repeated key", "stands twice: the last one counts, as in its loader")
        kind = kind_of(tree)
        if kind in trees:
            raise SpecError(f"{path}:1: a second {kind} file, the first is {trees[kind].file}: give one")
        trees[kind] = tree
    found = ZigZag(report)
    own: list[dict[str, str]] = []
    if "workload" in trees:
        name = bare_name(Path(trees["workload"].file).stem, "network")
        found.workload, own = read_workload(trees["workload"], name, report)
    layers = products(trees.get("workload"))
    choice = Choice("default", links=dict(LINKS))
    if "mapping" in trees:
        choices = read_choices(trees["mapping"], report)
        choice = choice_of(choices, layers, report)
        by_name = {one.name: one for one in choices}
        own = [dims for dims, layer in zip(own, layers, strict=True) if entry_of(by_name, *layer) is choice] or own
    found.dims = letters(own, choice.place or str(paths[0]), report)
    dims = found.dims
    if "hardware" in trees:
        if "mapping" not in trees:
            axes = "every loop may be unrolled on every dimension: give the mapping file for its own unrolling"
            report.approximated(trees["hardware"].place, "mapping", f"none is given, so {axes}")
            choice = any_loop(trees["hardware"], dims)
        found.draft = read_hardware(trees["hardware"], choice, dims, report)
        add_schedule(found.draft, choice, dims, report)
    return found


def letters(own: Sequence[dict[str, str]], place: str, report: TranslationReport) -> dict[str, str]:
    """Their loops in our names, for the layers that one mapping entry holds for; the first layer's word counts."""
    found: dict[str, str] = {}
    for dims in own:
        for theirs, ours in dims.items():
            if found.setdefault(theirs, ours) != ours:
                text = (
                    f"is {found[theirs]} in one layer and {ours} in another: {found[theirs]} in what the mapping says"
                )
                report.approximated(place, f"loop {theirs}", text)
    usual = {theirs: ours for theirs, ours in USUAL_DIMS.items() if ours not in found.values()}
    return usual | found


def products(workload: Item | None) -> list[tuple[str, str]]:
    """(name, operator type) of the layers of a checked workload whose equation is a product."""
    found: list[tuple[str, str]] = []
    for item in workload.items("workload") if workload is not None else ():
        keys = item.keys("a layer")
        if "*" in keys["equation"].text("equation") and keys["operator_type"].text("type") not in ("Add", "Pooling"):
            found.append((keys["name"].text("name") if "name" in keys else "", keys["operator_type"].text("type")))
    return found


def any_loop(hardware: Item, dims: dict[str, str]) -> Choice:
    """Hints that allow everything."""
    array = hardware.keys("hardware").get("operational_array", hardware).keys("operational_array")
    axes = (
        [item.text("a dimension") for item in array["dimensions"].items("dimensions")] if "dimensions" in array else []
    )
    return Choice("default", hints={axis: list(dims) for axis in axes}, links=dict(LINKS), place=hardware.place)
