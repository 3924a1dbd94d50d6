"""Files of one tool as a machine, a workload and mappings of ours: `translate`, and the direct form `timeloop:FILES`.

Direct: `timeloop:arch.yaml,ert.yaml,NAME=VALUE` names files, parted by commas, and values of template variables. It
stands wherever a command takes a machine or a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hwsim.errors import SpecError
from hwsim.files.atomic import write_atomically
from hwsim.machine.parts import Accelerator
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Mapping as Nest
from hwsim.nest.text import dump_mappings
from hwsim.network.workload import Workload
from hwsim.peers.draft import Draft, spec_text
from hwsim.peers.maestro.read import read_maestro
from hwsim.peers.report import TranslationReport
from hwsim.peers.scalesim import read_scalesim
from hwsim.peers.tagged_yaml import read_text
from hwsim.peers.timeloop.read import read_timeloop
from hwsim.peers.timeloop.statistics import statistics_text
from hwsim.peers.words import TOOLS
from hwsim.peers.zigzag.read import read_zigzag

TIMELOOP = re.compile(
    r"^(architecture|problem|mapping|variables|mapper|mapspace|globals|ERT|ART|sparse_optimizations"
    r"|\w*components|\w*constraints|ERT_summary|ART_summary)\s*:", re.MULTILINE
)  # fmt: skip
LIBCONFIG = re.compile(r"^\s*(arch|problem|mapspace|mapping|mapper)\s*[:=]\s*[{(]?\s*$", re.MULTILINE)
ZIGZAG = re.compile(
    r"^(memories|operational_array)\s*:|\b(equation|operator_type|memory_operand_links|spatial_mapping)\s*:",
    re.MULTILINE,
)
VARIABLE = re.compile(r"([A-Za-z_]\w*)=(.*)")


@dataclass(frozen=True)
class Translation:
    """What the files said in our words; parts that they did not hold are None or empty."""

    tool: str
    report: TranslationReport
    draft: Draft | None = None
    machine: Accelerator | None = None
    workload: Workload | None = None
    mappings: Mapping[str, Nest] = field(default_factory=dict[str, Nest])
    statistics: str = ""  # of the mapping that the files hold, by their tool's own rules

    def write(self, folder: Path) -> list[Path]:
        """Write spec, workload, mapping and report; every file complete or not at all."""
        contents: dict[str, str] = {}
        if self.draft is not None:
            comment = f"Translated from {self.tool}; what was approximated or lost is in translation.txt."
            contents[f"{self.draft.data['name']}.yaml"] = spec_text(self.draft.data, comment)
        if self.mappings:
            contents["mapping.yaml"] = dump_mappings(self.mappings)
        if self.statistics:
            contents[f"{self.tool}_statistics.txt"] = self.statistics
        contents["translation.txt"] = self.report.text()
        written = [folder / name for name in contents]
        for path, text in zip(written, contents.values(), strict=True):
            write_atomically(path, text)
        if self.workload is not None:
            written.append(folder / "workload.json")
            self.workload.save(written[-1])
        return written


def translate(tool: str, paths: Sequence[Path], variables: Mapping[str, str] | None = None) -> Translation:
    """Read files of one tool. Raises SpecError or WorkloadError with file and line."""
    if variables and tool != "timeloop":
        raise SpecError(f"{tool}: has no template variables, got {', '.join(variables)}")
    if tool == "timeloop":
        return from_timeloop(paths, variables or {})
    if tool == "zigzag":
        zigzag = read_zigzag(paths)
        machine = zigzag.machine() if zigzag.draft is not None else None
        return told(Translation(tool, zigzag.report, zigzag.draft, machine, zigzag.workload), paths)
    if tool == "scalesim":
        scalesim = read_scalesim(paths)
        machine = scalesim.machine() if scalesim.draft is not None else None
        mappings = scalesim.mappings(machine) if machine is not None and scalesim.workload is not None else {}
        return told(Translation(tool, scalesim.report, scalesim.draft, machine, scalesim.workload, mappings), paths)
    if tool == "maestro":
        maestro = read_maestro(paths)
        machine = maestro.machine() if maestro.draft is not None else None
        mappings = maestro.mappings(machine) if machine is not None else {}
        return told(Translation(tool, maestro.report, maestro.draft, machine, maestro.workload, mappings), paths)
    raise SpecError(f"{tool}: unknown tool; known: {', '.join(TOOLS)}")


def from_timeloop(paths: Sequence[Path], variables: Mapping[str, str]) -> Translation:
    """Timeloop files."""
    found = read_timeloop(paths, variables)
    machine = found.machine() if found.draft is not None else None
    workload, mappings, statistics = None, dict[str, Nest](), ""
    if found.layer is not None:
        workload = Workload(found.layer.name, [found.layer])
        if found.nest is not None and machine is not None:
            mappings[found.layer.name] = found.nest
            problems = validate(found.nest, found.layer, machine)
            for problem in problems:
                found.report.none(str(paths[0]), "mapping", f"not legal on the machine as translated: {problem}")
            if not problems:
                statistics = statistics_text(found.accounted(machine), found.layer, found.nest, machine)
    return told(Translation("timeloop", found.report, found.draft, machine, workload, mappings, statistics), paths)


def told(translation: Translation, paths: Sequence[Path]) -> Translation:
    """The translation, if there is a machine or a workload in it."""
    if translation.machine is None and translation.workload is None:
        files = ", ".join(str(path) for path in paths)
        raise SpecError(f"{files}: neither a machine nor a workload: a table or a mapping alone translates to nothing")
    if translation.workload is None or translation.machine is not None:
        return translation
    notes = translation.report.notes
    return Translation(translation.tool, translation.report, None, None, translation.workload.with_notes(*notes))


def tool_of(path: Path) -> str:
    """Which tool reads a file, by its suffix and content. Raises SpecError where none does."""
    suffix = path.suffix.lower()
    if suffix == ".cfg" and LIBCONFIG.search(read_text(path)):
        raise SpecError(f"{path}:1: a libconfig file of Timeloop: not read: give the YAML of v3 or v4")
    if suffix == ".m":
        return "maestro"
    if suffix in (".cfg", ".csv"):
        return "scalesim"
    if suffix in (".jinja2", ".jinja", ".j2"):
        return "timeloop"
    text = read_text(path)
    if TIMELOOP.search(text) or "{{" in text:
        return "timeloop"
    if ZIGZAG.search(text):
        return "zigzag"
    raise SpecError(f"{path}:1: no description of {', '.join(TOOLS)} that could be recognised: name the tool")


def is_direct(text: str) -> bool:
    """Whether an argument names its tool in front of its files."""
    return text.partition(":")[0] in TOOLS and ":" in text


def parse_argument(text: str) -> tuple[str, list[Path], dict[str, str]]:
    """`timeloop:a.yaml,b.yaml,NAME=VALUE` apart. Raises SpecError where no file is named."""
    tool, _, rest = text.partition(":")
    paths: list[Path] = []
    variables: dict[str, str] = {}
    for word in rest.split(","):
        match = VARIABLE.fullmatch(word)
        if match and not Path(word).exists():
            variables[match[1]] = match[2]
        elif word:
            paths.append(Path(word))
    if not paths:
        raise SpecError(f"{text}: expected files behind {tool}:, such as {tool}:FILE,FILE")
    return tool, paths, variables


def machine_argument(text: str) -> Accelerator:
    """The machine of a direct argument. Raises SpecError."""
    translation = translate(*parse_argument(text))
    if translation.machine is None:
        raise SpecError(f"{text}: these files describe no machine")
    return translation.machine


def workload_argument(text: str) -> Workload:
    """The network of a direct argument. Raises SpecError."""
    translation = translate(*parse_argument(text))
    if translation.workload is None:
        raise SpecError(f"{text}: these files describe no network")
    return translation.workload
